//! One download: bounded in bytes and redirects, written to a temporary name and renamed when
//! whole. Its time is bounded by the caller, who drops the future.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use reqwest::header::{HeaderMap, HeaderName, HeaderValue, LOCATION};
use reqwest::redirect::Policy;
use reqwest::{Client, Response, StatusCode, Url};
use rtpbridge_shared::ipc::playback::FetchOrder;
use thiserror::Error;
use tokio::fs::File;
use tokio::io::AsyncWriteExt;

use crate::app::VERSION;

/// Redirects that are followed.
pub(super) const MAX_REDIRECTS: u32 = 5;
/// Ending of files that are not whole.
pub(super) const PART_SUFFIX: &str = ".part";

const CONNECT_PATIENCE: Duration = Duration::from_secs(10);
const FILE_MODE: u32 = 0o640;

/// Why there is no file.
#[derive(Debug, Error)]
pub(super) enum DownloadError {
    #[error("{0}")]
    Http(reqwest::Error),
    #[error("the server answered {0}")]
    Status(StatusCode),
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    #[error("redirected to somewhere that is not http or https")]
    BadRedirect,
    #[error("larger than {limit} bytes")]
    TooLarge { limit: u64 },
    #[error("file in the cache directory: {0}")]
    File(#[from] std::io::Error),
}

impl From<reqwest::Error> for DownloadError {
    /// URLs may carry credentials and do not belong into messages.
    fn from(error: reqwest::Error) -> Self {
        Self::Http(error.without_url())
    }
}

/// The client for all downloads.
pub(super) fn client() -> Result<Client, DownloadError> {
    let builder = Client::builder()
        .user_agent(format!("rtpbridge/{VERSION}"))
        .redirect(Policy::none())
        .connect_timeout(CONNECT_PATIENCE)
        .pool_max_idle_per_host(2);
    Ok(builder.build()?)
}

/// Puts the file that `order` names at `dir/name`.
pub(super) async fn download(
    client: &Client,
    order: &FetchOrder,
    dir: &Path,
    name: &str,
    limit: u64,
) -> Result<(), DownloadError> {
    let mut response = request(client, order).await?;
    if response
        .content_length()
        .is_some_and(|length| length > limit)
    {
        return Err(DownloadError::TooLarge { limit });
    }
    // Made and renamed in one go each: a caller who gives up in between could not undo what a helper
    // thread finishes later.
    let part = Part::new(dir, name);
    let file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(FILE_MODE)
        .open(&part.path)?;
    let mut file = File::from_std(file);
    let mut total: u64 = 0;
    while let Some(chunk) = response.chunk().await? {
        total = total.saturating_add(chunk.len() as u64);
        if total > limit {
            return Err(DownloadError::TooLarge { limit });
        }
        file.write_all(&chunk).await?;
    }
    file.flush().await?;
    drop(file);
    std::fs::rename(&part.path, dir.join(name))?;
    Ok(())
}

/// Follows redirects; the client's headers go to the origin it named and to no other.
async fn request(client: &Client, order: &FetchOrder) -> Result<Response, DownloadError> {
    let mut url = Url::parse(&order.url).map_err(|_| DownloadError::BadRedirect)?;
    let first_origin = url.origin();
    let headers = headers(&order.headers);
    for _ in 0..=MAX_REDIRECTS {
        let mut request = client.get(url.clone());
        if url.origin() == first_origin {
            request = request.headers(headers.clone());
        }
        let response = request.send().await?;
        let status = response.status();
        if status.is_success() {
            return Ok(response);
        }
        let location = response.headers().get(LOCATION);
        let Some(location) = location.filter(|_| status.is_redirection()) else {
            return Err(DownloadError::Status(status));
        };
        url = location
            .to_str()
            .ok()
            .and_then(|location| url.join(location).ok())
            .filter(|url| matches!(url.scheme(), "http" | "https"))
            .ok_or(DownloadError::BadRedirect)?;
    }
    Err(DownloadError::Redirects)
}

fn headers(pairs: &[(String, String)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        if let (Ok(name), Ok(value)) = (
            HeaderName::from_bytes(name.as_bytes()),
            HeaderValue::from_str(value),
        ) {
            headers.append(name, value);
        }
    }
    headers
}

/// A file that is not whole; removed when dropped under its temporary name.
struct Part {
    path: PathBuf,
}

impl Part {
    fn new(dir: &Path, name: &str) -> Self {
        let unique = uuid::Uuid::new_v4().simple();
        Self {
            path: dir.join(format!("{name}.{unique}{PART_SUFFIX}")),
        }
    }
}

impl Drop for Part {
    fn drop(&mut self) {
        // Renamed files are gone from here already.
        let _ = std::fs::remove_file(&self.path);
    }
}

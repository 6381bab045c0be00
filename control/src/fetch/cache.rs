//! The download cache: at most one download per URL and headers, a bounded number at a time, files
//! kept for `cache_ttl_secs` after their last use. The bookkeeping is in [`super::entries`].

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::Duration;

use reqwest::Client;
use rtpbridge_shared::config::Config;
use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::playback::{FetchOrder, FileFetched};
use rtpbridge_shared::ipc::{Event, Request};
use rtpbridge_shared::vocab::FinishReason;
use sha2::{Digest, Sha256};
use tokio::sync::Semaphore;
use tokio::time::{Instant, interval_at, sleep};
use tracing::{debug, warn};

use super::download::{self, PART_SUFFIX};
use super::entries::{Entries, User, Wanted};
use crate::app::App;
use crate::lock::lock;

/// Time to live of files found at start, whose own is not known any more.
const ADOPTED_TTL: Duration = Duration::from_secs(300);
const HASH_CHARACTERS: usize = 64;
const MAX_EXTENSION_BYTES: usize = 5;

/// Files downloaded for playback.
#[derive(Debug)]
pub struct Cache {
    dir: PathBuf,
    max_bytes: u64,
    places: Semaphore,
    client: OnceLock<Client>,
    entries: Mutex<Entries>,
}

impl Cache {
    /// A cache in `cache_dir`, which must exist when the first download starts.
    pub fn new(config: &Config) -> Arc<Self> {
        Arc::new(Self {
            dir: config.cache_dir.clone(),
            max_bytes: config.max_file_download_bytes,
            places: Semaphore::new(config.max_concurrent_downloads),
            client: OnceLock::new(),
            entries: Mutex::default(),
        })
    }

    /// Gets the file that an endpoint waits for and tells the dataplane how that ended.
    pub fn fetch(
        &self,
        app: &Arc<App>,
        session: SessionId,
        endpoint: EndpointId,
        order: FetchOrder,
    ) {
        let name = file_name(&order);
        let user = (session, endpoint);
        let ttl = Duration::from_secs(order.cache_ttl_secs);
        let wanted = {
            let mut entries = lock(&self.entries);
            if !self.dir.join(&name).is_file() {
                entries.forget(&name);
            }
            entries.want(&name, user, ttl, Instant::now())
        };
        if wanted == Wanted::Whole {
            return tell(app, user, Ok(name));
        }
        let deadline = Duration::from_millis(order.timeout_ms);
        tokio::spawn(give_up_later(Arc::clone(app), name.clone(), user, deadline));
        if wanted == Wanted::Start {
            let task = tokio::spawn(run_download(Arc::clone(app), name.clone(), order));
            lock(&self.entries).started(&name, task.abort_handle());
        }
    }

    /// An endpoint of a session that was found in a snapshot uses a file.
    pub fn adopt_use(&self, name: &str, session: SessionId, endpoint: EndpointId) {
        let now = Instant::now();
        let mut entries = lock(&self.entries);
        entries.adopt(name, ADOPTED_TTL, now);
        entries.add_use(name, (session, endpoint), now);
    }

    /// The endpoint is gone.
    pub fn endpoint_ended(&self, session: SessionId, endpoint: EndpointId) {
        let gone = {
            let mut entries = lock(&self.entries);
            entries.end_wait((session, endpoint));
            entries.end_use((session, endpoint), Instant::now())
        };
        self.remove_files(gone);
    }

    /// The session is gone.
    pub fn session_ended(&self, session: SessionId) {
        let gone = {
            let mut entries = lock(&self.entries);
            entries.end_waits(Some(session));
            entries.end_session(session, Instant::now())
        };
        self.remove_files(gone);
    }

    /// All sessions are gone.
    pub fn all_sessions_ended(&self) {
        let gone = {
            let mut entries = lock(&self.entries);
            entries.end_waits(None);
            entries.end_all(Instant::now())
        };
        self.remove_files(gone);
    }

    /// A file that was played to its end is not in use any more, and one that could not be played
    /// is of no use to anybody.
    pub fn on_event(&self, session: SessionId, event: &Event) {
        if let Event::FileFinished {
            endpoint, reason, ..
        } = event
        {
            if *reason == FinishReason::Error {
                lock(&self.entries).distrust((session, *endpoint));
            }
            self.endpoint_ended(session, *endpoint);
        }
    }

    /// Takes stock of what an earlier process left: whole files stay for a while, others go.
    pub fn take_stock(&self, remove_parts: bool) {
        let Ok(files) = std::fs::read_dir(&self.dir) else {
            return;
        };
        let now = Instant::now();
        for file in files.flatten() {
            let name = file.file_name();
            let Some(name) = name.to_str() else { continue };
            if name.ends_with(PART_SUFFIX) && is_ours(name) {
                if remove_parts {
                    self.remove_files([name.to_owned()]);
                }
            } else if is_ours(name) {
                lock(&self.entries).adopt(name, ADOPTED_TTL, now);
            }
        }
    }

    /// Files that are whole, in use or not.
    pub fn len(&self) -> usize {
        lock(&self.entries).len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    fn client(&self) -> Result<&Client, download::DownloadError> {
        match self.client.get() {
            Some(client) => Ok(client),
            None => {
                let client = download::client()?;
                Ok(self.client.get_or_init(|| client))
            }
        }
    }

    fn remove_files(&self, names: impl IntoIterator<Item = String>) {
        for name in names {
            if let Err(error) = std::fs::remove_file(self.dir.join(&name)) {
                debug!(name, %error, "file in the cache could not be removed");
            }
        }
    }
}

/// Cleans the cache now and then, until the process ends.
pub async fn run(app: Arc<App>) {
    let period = app.config.cache_cleanup_interval;
    let mut ticks = interval_at(Instant::now() + period, period);
    loop {
        ticks.tick().await;
        let expired = lock(&app.cache.entries).take_expired(Instant::now());
        app.cache.remove_files(expired);
    }
}

async fn run_download(app: Arc<App>, name: String, order: FetchOrder) {
    let cache = &app.cache;
    let outcome = match (cache.places.acquire().await, cache.client()) {
        (Ok(_place), Ok(client)) => {
            let (dir, limit) = (cache.dir.as_path(), cache.max_bytes);
            download::download(client, &order, dir, &name, limit)
                .await
                .map_err(|error| error.to_string())
        }
        (Err(_), _) => Err("the server stops".to_owned()),
        (_, Err(error)) => Err(error.to_string()),
    };
    match &outcome {
        Ok(()) => app.metrics.downloads.inc(),
        Err(error) => {
            app.metrics.download_failures.inc();
            warn!(name, error, "download failed");
        }
    }
    let waiters = lock(&cache.entries).finished(&name, outcome.is_ok(), Instant::now());
    for user in waiters {
        tell(&app, user, outcome.clone().map(|()| name.clone()));
    }
}

async fn give_up_later(app: Arc<App>, name: String, user: User, patience: Duration) {
    sleep(patience).await;
    if lock(&app.cache.entries).give_up(&name, user) {
        app.metrics.download_failures.inc();
        tell(&app, user, Err("the download took too long".to_owned()));
    }
}

fn tell(app: &Arc<App>, (session, endpoint): User, outcome: Result<String, String>) {
    let owner = Arc::clone(app);
    let fetched = FileFetched {
        session,
        endpoint,
        outcome,
    };
    app.link.submit(
        Request::FileFetched(fetched),
        Box::new(move |outcome| {
            // Nobody waits any more; or the link broke, and the next snapshot asks again.
            if outcome.is_err() {
                owner.cache.endpoint_ended(session, endpoint);
            }
        }),
    );
}

/// The same for the same URL and headers; ends like the URL's path, for decoders that look at it.
fn file_name(order: &FetchOrder) -> String {
    let mut hash = Sha256::new();
    let mut feed = |text: &str| {
        hash.update((text.len() as u64).to_le_bytes());
        hash.update(text.as_bytes());
    };
    feed(&order.url);
    for (name, value) in &order.headers {
        feed(&name.to_ascii_lowercase());
        feed(value);
    }
    let mut text = String::with_capacity(HASH_CHARACTERS + 1 + MAX_EXTENSION_BYTES);
    for byte in hash.finalize() {
        text.push_str(&format!("{byte:02x}"));
    }
    let path = order.url.split(['?', '#']).next().unwrap_or_default();
    let extension = Path::new(path).extension().and_then(|text| text.to_str());
    let usable = |text: &&str| {
        text.len() <= MAX_EXTENSION_BYTES && text.bytes().all(|byte| byte.is_ascii_alphanumeric())
    };
    if let Some(extension) = extension.filter(usable) {
        text.push('.');
        text.push_str(&extension.to_ascii_lowercase());
    }
    text
}

fn is_ours(name: &str) -> bool {
    name.len() >= HASH_CHARACTERS
        && name
            .bytes()
            .take(HASH_CHARACTERS)
            .all(|byte| byte.is_ascii_hexdigit())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn order(url: &str, header: &str) -> FetchOrder {
        FetchOrder {
            url: url.to_owned(),
            headers: vec![("X-A".to_owned(), header.to_owned())],
            cache_ttl_secs: 1,
            timeout_ms: 1,
        }
    }

    #[test]
    fn names_differ_by_url_and_headers_and_keep_harmless_extensions() {
        let name = file_name(&order("http://h/a/b.WAV?x=1", "1"));
        assert!(name.ends_with(".wav") && is_ours(&name));
        assert_eq!(name, file_name(&order("http://h/a/b.WAV?x=1", "1")));
        assert_ne!(name, file_name(&order("http://h/a/b.WAV?x=1", "2")));
        assert_ne!(name, file_name(&order("http://h/a/b.WAV?x=2", "1")));
        let odd = file_name(&order("http://h/a.b/../c.%2f%2f", "1"));
        assert!(!odd.contains('/') && odd.len() <= HASH_CHARACTERS + 6);
    }
}

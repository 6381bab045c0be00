//! Files and tones on the wire between the processes.

use serde::{Deserialize, Serialize};

use crate::id::{EndpointId, SessionId};
use crate::vocab::Tone;

/// `endpoint.create_with_file`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FileCreate {
    /// The session it joins.
    pub session: SessionId,
    /// Chosen by control.
    pub endpoint: EndpointId,
    /// Where the audio comes from.
    pub source: FileSource,
    /// Where to begin.
    pub start_ms: u64,
    /// Further plays after the first; none is for ever.
    pub loop_count: Option<u32>,
    /// Endpoints with an equal source, start and loop count share one decode.
    pub shared: bool,
    /// Applied to every sample.
    pub gain_db: f64,
}

/// Where a file endpoint's audio comes from.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub enum FileSource {
    /// A path as the client gave it; must lie inside `media_dir`.
    Local(String),
    /// Control downloads it and says so with [`FileFetched`].
    Url(FetchOrder),
}

/// A download that control has to make.
#[derive(Clone, PartialEq, Eq, Hash, Debug, Serialize, Deserialize)]
pub struct FetchOrder {
    /// http or https.
    pub url: String,
    /// Sorted by name.
    pub headers: Vec<(String, String)>,
    /// Seconds after its last use for which the file stays in the cache; 0 = removed after use.
    pub cache_ttl_secs: u64,
    /// Bound for the whole download.
    pub timeout_ms: u64,
}

/// How a download ended.
#[derive(Clone, PartialEq, Eq, Debug, Serialize, Deserialize)]
pub struct FileFetched {
    /// The session.
    pub session: SessionId,
    /// The endpoint that waits.
    pub endpoint: EndpointId,
    /// Name of the whole file in `cache_dir`, or why there is none.
    pub outcome: Result<String, String>,
}

/// `endpoint.file.seek`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct FileSeek {
    /// The session.
    pub session: SessionId,
    /// The endpoint.
    pub endpoint: EndpointId,
    /// From the beginning of the file.
    pub position_ms: u64,
}

/// `endpoint.create_tone`
#[derive(Clone, PartialEq, Debug, Serialize, Deserialize)]
pub struct ToneCreate {
    /// The session it joins.
    pub session: SessionId,
    /// Chosen by control.
    pub endpoint: EndpointId,
    /// Which tone.
    pub tone: Tone,
    /// Hz, for `sine`; 20 to 20000.
    pub frequency: f64,
    /// None plays on.
    pub duration_ms: Option<u64>,
}

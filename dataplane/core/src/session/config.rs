//! What of the configuration the engine needs, already checked. One for all sessions of a process.

use std::net::IpAddr;
use std::time::Duration;

use rtpbridge_shared::vocab::{RtpLearning, SrtpSuite};

use crate::sdp::Fingerprint;

/// Settings of the engine; the keys of the same names in operations.md.
#[derive(Clone, Debug)]
pub struct EngineConfig {
    /// Addresses to bind media sockets to, at most one per family, at least one.
    pub media_ip: Vec<IpAddr>,
    /// Silence on a connected endpoint that is reported.
    pub media_timeout: Duration,
    /// A session without inbound packet or command ends after this; None is never.
    pub session_idle_timeout: Option<Duration>,
    /// A session without endpoints ends after this; None is never.
    pub empty_session_timeout: Option<Duration>,
    /// 0 = no limit.
    pub max_endpoints_per_session: u32,
    /// Recordings at a time.
    pub max_recordings_per_session: u32,
    /// Critical events kept until they are acknowledged (`critical_event_channel_size`).
    pub held_events: usize,
    /// How far symmetric RTP may move the send address.
    pub rtp_learning: RtpLearning,
    /// Send nothing to a plain RTP party before it has been heard.
    pub rtp_wait_for_inbound: bool,
    /// Suites of our SDES offers, preferred first.
    pub srtp_suites: Vec<SrtpSuite>,
    /// Of the certificate that the shell's handshakes show; without it there is no WebRTC.
    pub fingerprint: Option<Fingerprint>,
    /// Bits per second.
    pub opus_bitrate: u32,
    /// 0…10.
    pub opus_complexity: u8,
    /// Transcoding pipelines of one session.
    pub transcode_cache_size: usize,
}

impl Default for EngineConfig {
    fn default() -> Self {
        Self {
            media_ip: vec![IpAddr::from([127, 0, 0, 1])],
            media_timeout: Duration::from_secs(5),
            session_idle_timeout: None,
            empty_session_timeout: None,
            max_endpoints_per_session: 20,
            max_recordings_per_session: 100,
            held_events: 64,
            rtp_learning: RtpLearning::Any,
            rtp_wait_for_inbound: false,
            srtp_suites: vec![SrtpSuite::AesCm128HmacSha1_80],
            fingerprint: None,
            opus_bitrate: 24_000,
            opus_complexity: 5,
            transcode_cache_size: 64,
        }
    }
}

//! Every key: its default, its rule, and the field it becomes. The table of the Configuration
//! section in the README says the same; a key is known because it is read here.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::time::Duration;

use super::Config;
use super::read::Reader;
use super::value::{Limit, LogFormat, LogLevel, MediaIp, PortRange};
use crate::vocab::{RtpLearning, SrtpSuite};

/// Upper bound of every whole number without one of its own: additions to a clock stay far from
/// overflow.
const MAX: u64 = u32::MAX as u64;
/// Upper bound of queue lengths: their places are allocated at once.
const MAX_PLACES: u64 = 1_000_000;
const KIB: u64 = 1024;
const LOCALHOST: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);
/// A Unix socket's path, its terminating NUL included, fits in this (unix(7)).
const MAX_SOCKET_PATH: usize = 107;

impl Reader {
    /// Reads all keys. Only meaningful when no fault was recorded. `found_dir` is the result of
    /// the search for a runtime directory.
    pub(super) fn config(&mut self, found_dir: PathBuf) -> Config {
        let listen = self.socket_addrs("listen", SocketAddr::new(LOCALHOST, 9100));
        let media_ip = self.media_ip();
        let media_advertise_ip = self.media_advertise_ip(media_ip);
        let runtime_dir = self.path("runtime_dir", found_dir);
        Config {
            listen,
            media_ip,
            media_advertise_ip,
            rtp_port_range: self.rtp_port_range(),
            webrtc_port_range: self.optional_ports("webrtc_port_range"),
            disconnect_timeout: self.seconds("disconnect_timeout_secs", 30),
            shutdown_max_wait: self.seconds("shutdown_max_wait_secs", 300),
            control_loss_timeout: self.seconds("control_loss_timeout_secs", 300),
            dataplane_loss_timeout: self.seconds("dataplane_loss_timeout_secs", 30),
            session_idle_timeout: self.optional_seconds("session_idle_timeout_secs"),
            empty_session_timeout: self.optional_seconds("empty_session_timeout_secs"),
            media_timeout: Duration::from_secs(self.integer("media_timeout_secs", 5, 1, 300)),
            max_sessions: self.limit("max_sessions", 10_000),
            max_endpoints_per_session: self.limit("max_endpoints_per_session", 20),
            max_recordings_per_session: self.count("max_recordings_per_session", 100),
            max_connections: self.limit("max_connections", 1000),
            recording_dir: self.path("recording_dir", Config::DEFAULT_RECORDING_DIR.into()),
            media_dir: self.optional_path("media_dir"),
            cache_dir: self.path("cache_dir", "/tmp/rtpbridge-cache".into()),
            cache_cleanup_interval: self.seconds("cache_cleanup_interval_secs", 300),
            max_concurrent_downloads: self.places("max_concurrent_downloads", 16),
            max_file_download_bytes: self.bytes("max_file_download_bytes", 100 * KIB * KIB),
            max_recording_download_bytes: self
                .bytes("max_recording_download_bytes", 512 * KIB * KIB),
            recording_flush_timeout: self.seconds("recording_flush_timeout_secs", 10),
            recording_channel_size: self.places("recording_channel_size", 1000),
            ws_max_message_bytes: self.kibibytes("ws_max_message_size_kb", 256, 512_000),
            max_sdp_bytes: self.kibibytes("max_sdp_size_kb", 64, 10_000),
            ws_ping_interval: self.seconds("ws_ping_interval_secs", 30),
            event_channel_size: self.places("event_channel_size", 256),
            critical_event_channel_size: self.places("critical_event_channel_size", 64),
            transcode_cache_size: self.places("transcode_cache_size", 64),
            allowed_origins: self.strings("allowed_origins"),
            auth_token_file: self.optional_path("auth_token_file"),
            media_workers: self.media_workers(),
            batch_window: Duration::from_micros(self.integer("batch_window_us", 500, 0, 5000)),
            max_lateness: self.max_lateness(),
            opus_bitrate: self.opus_bitrate(),
            opus_complexity: self.small("opus_complexity", 5, 10),
            srtp_suites: self.srtp_suites(),
            rtp_wait_for_inbound: self.boolean("rtp_wait_for_inbound", false),
            rtp_learning: self.word("rtp_learning", RtpLearning::Any, RtpLearning::ALL),
            media_dscp: self.small("media_dscp", 46, 63),
            ipc_socket: self.socket_path("ipc_socket", runtime_dir.join("dataplane.sock")),
            admin_socket: self.socket_path("admin_socket", runtime_dir.join("admin.sock")),
            runtime_dir,
            ipc_allow_users: self.strings("ipc_allow_users"),
            log_level: self.word("log_level", LogLevel::Info, LogLevel::ALL),
            log_format: self.word("log_format", LogFormat::Text, LogFormat::ALL),
        }
    }

    fn media_ip(&mut self) -> MediaIp {
        let ips = self.ips("media_ip", vec![LOCALHOST]);
        MediaIp::from_list(&ips).unwrap_or_else(|| {
            self.one_per_family("media_ip", &ips);
            MediaIp::single(LOCALHOST)
        })
    }

    fn media_advertise_ip(&mut self, bound: MediaIp) -> Option<MediaIp> {
        let ips = self.ips("media_advertise_ip", Vec::new());
        let shown = MediaIp::from_list(&ips);
        if shown.is_none() && !ips.is_empty() {
            self.one_per_family("media_advertise_ip", &ips);
        }
        for ip in &ips {
            if ip.is_unspecified() {
                let bound = "must be an address that peers can send to".to_owned();
                self.fault("media_advertise_ip", ip, bound);
            } else if bound.same_family(*ip).is_none() {
                let bound = "media_ip has no address of this family".to_owned();
                self.fault("media_advertise_ip", ip, bound);
            }
        }
        for ip in bound.iter().filter(IpAddr::is_unspecified) {
            if shown.is_none_or(|shown| shown.same_family(ip).is_none()) {
                let bound = "needs media_advertise_ip: peers cannot send to it".to_owned();
                self.fault("media_ip", ip, bound);
            }
        }
        shown
    }

    fn one_per_family(&mut self, key: &'static str, ips: &[IpAddr]) {
        let written: Vec<String> = ips.iter().map(IpAddr::to_string).collect();
        let bound = "must name at most one address per family".to_owned();
        self.fault(key, written.join(","), bound);
    }

    fn rtp_port_range(&mut self) -> PortRange {
        const DEFAULT: PortRange = match PortRange::of_pairs(30_000, 39_999) {
            Some(range) => range,
            None => panic!("the default range is valid"),
        };
        self.port_pairs("rtp_port_range", DEFAULT)
    }

    fn media_workers(&mut self) -> Option<NonZeroUsize> {
        let threads = self.integer("media_workers", 0, 0, 1024);
        usize::try_from(threads).ok().and_then(NonZeroUsize::new)
    }

    fn max_lateness(&mut self) -> Option<Duration> {
        let millis = self.integer("max_lateness_ms", 10, 0, 1000);
        (millis > 0).then(|| Duration::from_millis(millis))
    }

    fn opus_bitrate(&mut self) -> u32 {
        narrow(self.integer("opus_bitrate", 24_000, 6000, 128_000))
    }

    fn srtp_suites(&mut self) -> Vec<SrtpSuite> {
        let default = vec![SrtpSuite::AesCm128HmacSha1_80];
        self.words("srtp_suites", default, SrtpSuite::ALL)
    }

    fn socket_path(&mut self, key: &'static str, default: PathBuf) -> PathBuf {
        let path = self.path(key, default);
        if path.as_os_str().len() > MAX_SOCKET_PATH {
            let bound = format!("a socket's path must have at most {MAX_SOCKET_PATH} bytes");
            self.fault(key, path.display(), bound);
        }
        path
    }

    fn seconds(&mut self, key: &'static str, default: u64) -> Duration {
        Duration::from_secs(self.integer(key, default, 1, MAX))
    }

    fn optional_seconds(&mut self, key: &'static str) -> Option<Duration> {
        let seconds = self.integer(key, 0, 0, MAX);
        (seconds > 0).then(|| Duration::from_secs(seconds))
    }

    fn limit(&mut self, key: &'static str, default: u64) -> Limit {
        Limit::from_setting(narrow(self.integer(key, default, 0, MAX)))
    }

    fn count(&mut self, key: &'static str, default: u64) -> u32 {
        narrow(self.integer(key, default, 1, MAX))
    }

    fn places(&mut self, key: &'static str, default: u64) -> usize {
        narrow(self.integer(key, default, 1, MAX_PLACES))
    }

    fn bytes(&mut self, key: &'static str, default: u64) -> u64 {
        self.integer(key, default, 1, i64::MAX as u64)
    }

    fn kibibytes(&mut self, key: &'static str, default: u64, max: u64) -> usize {
        narrow(self.integer(key, default, 1, max).saturating_mul(KIB))
    }

    fn small(&mut self, key: &'static str, default: u64, max: u8) -> u8 {
        narrow(self.integer(key, default, 0, u64::from(max)))
    }
}

/// The rule that admitted `number` keeps it inside the narrower type.
fn narrow<T: TryFrom<u64> + Bounded>(number: u64) -> T {
    T::try_from(number).unwrap_or(T::MAX)
}

trait Bounded {
    const MAX: Self;
}

impl Bounded for u8 {
    const MAX: Self = u8::MAX;
}

impl Bounded for u32 {
    const MAX: Self = u32::MAX;
}

impl Bounded for usize {
    const MAX: Self = usize::MAX;
}

//! Rules, precedence and messages of the configuration, with real files.

use std::fs;
use std::path::PathBuf;

use super::*;

/// A directory with a configuration file, and what goes beside it.
struct Case {
    dir: tempfile::TempDir,
    sources: Sources,
}

impl Case {
    fn new(file: &str) -> Self {
        let dir = tempfile::tempdir().expect("temporary directory");
        let path = dir.path().join("rtpbridge.toml");
        fs::write(&path, file).expect("file");
        let mut sources = Sources::default();
        sources.args.config = Some(path);
        let mut case = Self { dir, sources };
        // Another user of the machine may own the default one.
        let cache = case.dir.path().join("cache").to_string_lossy().into_owned();
        case = case.env("RTPBRIDGE_CACHE_DIR", &cache);
        case
    }

    fn env(mut self, name: &str, value: &str) -> Self {
        let pair = (name.to_owned(), value.to_owned());
        self.sources.environment.push(pair);
        self
    }

    fn load(&self) -> Result<Loaded, ConfigError> {
        self.sources.load(Scope::Both)
    }

    fn config(&self) -> Config {
        self.load().expect("valid").config
    }

    /// The messages, with the directory's name taken out.
    fn faults(&self) -> Vec<String> {
        let error = self.load().expect_err("a fault");
        let dir = format!("{}/", self.dir.path().display());
        let shown = error.faults.iter().map(|fault| fault.to_string());
        shown.map(|text| text.replace(&dir, "")).collect()
    }
}

#[test]
fn the_defaults_are_those_of_the_documentation() {
    let config = Case::new("").config();
    assert_eq!(config.listen, ["127.0.0.1:9100".parse().expect("address")]);
    assert_eq!(config.media_ip.first().to_string(), "127.0.0.1");
    let rtp = config.rtp_port_range;
    assert_eq!((rtp.start(), rtp.end()), (30000, 39999));
    assert_eq!(config.webrtc_port_range, None);
    assert_eq!(config.disconnect_timeout, Duration::from_secs(30));
    assert_eq!(config.session_idle_timeout, None);
    assert_eq!(config.max_sessions, Limit::AtMost(10_000));
    assert_eq!(config.max_file_download_bytes, 104_857_600);
    assert_eq!(config.max_recording_download_bytes, 536_870_912);
    assert_eq!(config.ws_max_message_bytes, 262_144);
    assert_eq!(config.batch_window, Duration::from_micros(500));
    assert_eq!(config.max_lateness, Some(Duration::from_millis(10)));
    assert_eq!(config.srtp_suites, [SrtpSuite::AesCm128HmacSha1_80]);
    assert_eq!(config.log_format, LogFormat::Text);
}

#[test]
fn arguments_win_over_environment_over_file_over_defaults() {
    let mut case = Case::new("log_level = \"warn\"\nmax_sessions = 7\nopus_complexity = 3")
        .env("RTPBRIDGE_LOG_LEVEL", "debug")
        .env("RTPBRIDGE_MAX_SESSIONS", "8");
    case.sources.args.log_level = Some("trace".to_owned());
    let loaded = case.load().expect("valid");
    assert_eq!(loaded.config.log_level, LogLevel::Trace);
    assert_eq!(loaded.config.max_sessions, Limit::AtMost(8));
    assert_eq!(loaded.config.opus_complexity, 3);
    assert_eq!(loaded.config.media_dscp, 46);
    let text = loaded.to_toml();
    let line = |key: &str| {
        let found = text.lines().find(|line| line.contains(key));
        let words = found.expect(key).split_whitespace();
        words.collect::<Vec<_>>().join(" ")
    };
    assert_eq!(
        line("log_level"),
        "log_level = \"trace\" # argument --log-level"
    );
    let expected = "max_sessions = 8 # environment RTPBRIDGE_MAX_SESSIONS";
    assert_eq!(line("max_sessions"), expected);
    assert!(line("opus_complexity").ends_with("rtpbridge.toml:3"));
    assert_eq!(line("media_dscp"), "media_dscp = 46 # default");
    assert_eq!(line("media_dir"), "# media_dir is not set # default");
}

#[test]
fn the_printed_configuration_reads_back_the_same() {
    let file = "listen = [\"127.0.0.1:1\", \"[::1]:2\"]\nmedia_ip = \"127.0.0.1, ::1\"\n\
        media_advertise_ip = \"203.0.113.5\"\nwebrtc_port_range = \"4000-4001\"\n\
        rtp_learning = \"off\"\nallowed_origins = [\"https://a.example\"]";
    let case = Case::new(file);
    let loaded = case.load().expect("valid");
    let again = Case::new(&loaded.to_toml());
    let mut sources = again.sources.clone();
    sources.environment.clear();
    let reread = sources.load(Scope::Both).expect("valid").config;
    assert_eq!(reread, loaded.config);
}

#[test]
fn every_fault_is_reported_at_once_with_its_place() {
    let case = Case::new(
        "media_timeout_secs = 900\n\nrtp_port_range = [30001, 30010]\nmax_sesions = 5\n\
         srtp_suites = [\"NULL\"]\nlog_level = 3\n",
    )
    .env("RTPBRIDGE_MEDIA_DSCP", "64");
    let suites = "AEAD_AES_256_GCM, AEAD_AES_128_GCM, AES_CM_128_HMAC_SHA1_80, \
         AES_CM_128_HMAC_SHA1_32";
    let mut expected = vec![
        "rtpbridge.toml:3: rtp_port_range = [30001, 30010]: must be [start, end] with an even \
         start, both from 1024 to 65534 and room for at least one pair"
            .to_owned(),
        "rtpbridge.toml:1: media_timeout_secs = 900: must be an integer from 1 to 300".to_owned(),
        format!("rtpbridge.toml:5: srtp_suites = [\"NULL\"]: must be one of {suites}"),
        "environment RTPBRIDGE_MEDIA_DSCP: media_dscp = 64: must be an integer from 0 to 63"
            .to_owned(),
        "rtpbridge.toml:6: log_level = 3: must be one of error, warn, info, debug, trace"
            .to_owned(),
        "rtpbridge.toml:4: unknown key max_sesions, did you mean max_sessions?".to_owned(),
    ];
    let mut faults = case.faults();
    faults.sort();
    expected.sort();
    assert_eq!(faults, expected);
}

#[test]
fn each_rule_refuses_what_lies_just_outside() {
    let refused = [
        "listen = []",
        "listen = \"localhost:9100\"",
        "listen = [\"127.0.0.1:1\", \"127.0.0.1:1\"]",
        "media_ip = [\"127.0.0.1\", \"127.0.0.2\"]",
        "media_ip = \"224.0.0.1\"",
        "media_ip = \"0.0.0.0\"",
        "media_ip = \"198.51.100.1\"",
        "media_advertise_ip = \"::1\"",
        "media_advertise_ip = \"0.0.0.0\"",
        "rtp_port_range = [30000, 65535]",
        "rtp_port_range = [1022, 2000]",
        "rtp_port_range = [30000]",
        "webrtc_port_range = [30001, 30000]",
        "disconnect_timeout_secs = 0",
        "disconnect_timeout_secs = -1",
        "disconnect_timeout_secs = 1.5",
        "disconnect_timeout_secs = \"5\"",
        "media_timeout_secs = 301",
        "max_recordings_per_session = 0",
        "ws_max_message_size_kb = 512001",
        "max_sdp_size_kb = 10001",
        "batch_window_us = 5001",
        "max_lateness_ms = 1001",
        "opus_bitrate = 5999",
        "opus_complexity = 11",
        "srtp_suites = []",
        "rtp_wait_for_inbound = \"yes\"",
        "rtp_learning = \"all\"",
        "recording_dir = \"/nonexistent/a/b\"",
        "recording_dir = \"\"",
        "media_dir = \"/etc/passwd\"",
        "auth_token_file = \"/nonexistent\"",
        "log_format = { a = 1 }",
        "allowed_origins = [\"\"]",
        "[listen]",
    ];
    for file in refused {
        assert_eq!(Case::new(file).faults().len(), 1, "{file}");
    }
}

#[test]
fn values_at_the_bounds_are_taken() {
    let case = Case::new(
        "media_timeout_secs = 300\nmax_sessions = 0\nmax_lateness_ms = 0\nbatch_window_us = 0\n\
         rtp_port_range = [1024, 1025]\nmedia_dscp = 63\nws_max_message_size_kb = 512000\n\
         listen = \"127.0.0.1:1,127.0.0.1:2\"\nmedia_workers = 3",
    );
    let config = case.config();
    assert_eq!(config.max_sessions, Limit::Unlimited);
    assert_eq!(config.max_lateness, None);
    assert_eq!(config.rtp_port_range.pair_count(), 1);
    assert_eq!(config.listen.len(), 2);
    assert_eq!(config.worker_count().get(), 3);
}

#[test]
fn words_of_the_environment_become_any_type() {
    let config = Case::new("")
        .env("RTPBRIDGE_RTP_PORT_RANGE", "40000-40099")
        .env("RTPBRIDGE_WEBRTC_PORT_RANGE", "[41000, 41001]")
        .env("RTPBRIDGE_RTP_WAIT_FOR_INBOUND", "true")
        .env(
            "RTPBRIDGE_ALLOWED_ORIGINS",
            "https://a.example, https://b.example",
        )
        .env("RTPBRIDGE_IPC_ALLOW_USERS", "")
        .config();
    assert_eq!(config.rtp_port_range.pair_count(), 50);
    assert_eq!(config.webrtc_port_range, PortRange::new(41000, 41001));
    assert!(config.rtp_wait_for_inbound);
    let origins = ["https://a.example", "https://b.example"];
    assert_eq!(config.allowed_origins, origins);
    assert!(config.ipc_allow_users.is_empty());
}

#[test]
fn an_unknown_variable_warns_and_names_a_likely_one() {
    let case = Case::new("")
        .env("RTPBRIDGE_PORT", "tcp://10.0.0.1:9100")
        .env("RTPBRIDGE_LISTENS", "127.0.0.1:1")
        .env("OTHER", "x");
    let warnings = case.load().expect("valid").warnings;
    assert_eq!(warnings.len(), 2, "{warnings:?}");
    let likely = "RTPBRIDGE_LISTENS, did you mean RTPBRIDGE_LISTEN?";
    assert!(warnings.iter().any(|warning| warning.ends_with(likely)));
}

#[test]
fn the_file_may_be_named_by_the_environment() {
    let case = Case::new("max_sessions = 3");
    let path = case.sources.args.config.clone().expect("set above");
    let mut case = case.env("RTPBRIDGE_CONFIG", &path.to_string_lossy());
    case.sources.args.config = None;
    let loaded = case.load().expect("valid");
    assert_eq!(loaded.config.max_sessions, Limit::AtMost(3));
    assert_eq!(loaded.file, Some(path));
    assert!(loaded.warnings.is_empty());
}

#[test]
fn a_broken_or_missing_file_is_one_fault_beside_the_others() {
    let case = Case::new("log_level = \"info\"\nlisten = = 3").env("RTPBRIDGE_MEDIA_DSCP", "x");
    let faults = case.faults();
    assert_eq!(faults.len(), 2, "{faults:?}");
    assert!(faults[0].starts_with("rtpbridge.toml:2: not valid TOML"));
    let mut case = Case::new("");
    case.sources.args.config = Some(PathBuf::from("/nonexistent/x.toml"));
    let start = "/nonexistent/x.toml: cannot read the configuration file";
    assert!(case.faults()[0].starts_with(start));
    let endless = PathBuf::from("/dev/zero");
    case.sources.args.config = Some(endless);
    assert!(case.faults()[0].contains("not a regular file"));
}

#[test]
fn a_key_given_twice_is_a_fault() {
    let faults = Case::new("media_dscp = 1\nmedia_dscp = 2").faults();
    assert!(
        faults[0].starts_with("rtpbridge.toml:2: not valid TOML"),
        "{faults:?}"
    );
}

#[test]
fn hostile_values_are_cut_and_cleaned_in_messages() {
    let long = "x".repeat(10_000);
    let case = Case::new("").env("RTPBRIDGE_LOG_LEVEL", &format!("\u{1b}[31m{long}"));
    let faults = case.faults();
    assert!(
        faults[0].len() < 400 && !faults[0].contains('\u{1b}'),
        "{faults:?}"
    );
}

#[test]
fn sockets_lie_in_the_runtime_directory_and_their_paths_must_fit() {
    let mut case = Case::new("ipc_socket = \"/somewhere/else.sock\"");
    case.sources.args.runtime_dir = Some(PathBuf::from("/run/x"));
    let config = case.config();
    assert_eq!(config.admin_socket, PathBuf::from("/run/x/admin.sock"));
    assert_eq!(config.ipc_socket, PathBuf::from("/somewhere/else.sock"));
    let long = format!("/run/{}", "x".repeat(100));
    case.sources.args.runtime_dir = Some(PathBuf::from(long));
    let faults = case.faults();
    assert!(faults[0].contains("at most 107 bytes"), "{faults:?}");
}

#[test]
fn a_process_asks_the_machine_only_about_what_it_uses() {
    let case = Case::new("media_ip = \"198.51.100.1\"\nauth_token_file = \"/nonexistent\"");
    let faults_of = |scope| match case.sources.load(scope) {
        Ok(_) => 0,
        Err(error) => error.faults.len(),
    };
    assert_eq!(faults_of(Scope::Both), 2);
    let control = case.sources.load(Scope::Control).expect_err("fault");
    assert!(control.to_string().contains("auth_token_file"));
    let dataplane = case.sources.load(Scope::Dataplane).expect_err("fault");
    assert!(dataplane.to_string().contains("media_ip"));
    assert_eq!(faults_of(Scope::Tool), 0);
}

#[test]
fn peers_are_shown_the_advertised_address_of_the_family() {
    let config = Case::new("media_ip = \"127.0.0.1,::1\"\nmedia_advertise_ip = \"203.0.113.9\"");
    let config = config.config();
    let shown = |text: &str| config.advertised(text.parse().expect("ip")).to_string();
    assert_eq!(shown("127.0.0.1"), "203.0.113.9");
    assert_eq!(shown("::1"), "::1");
}

/// The sample file with every key switched on.
fn sample_with_all_keys() -> String {
    let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../systemd/rtpbridge.toml");
    let sample = fs::read_to_string(path).expect("the sample is part of the project");
    let is_key = |line: &str| {
        let name = line
            .strip_prefix('#')
            .and_then(|rest| rest.split_once(" = "));
        name.is_some_and(|(name, _)| name.chars().all(|c| c.is_ascii_lowercase() || c == '_'))
    };
    let switched_on = sample.lines().map(|line| match is_key(line) {
        true => line.trim_start_matches('#').to_owned(),
        false => line.to_owned(),
    });
    switched_on.collect::<Vec<_>>().join("\n")
}

#[test]
fn the_sample_file_names_every_key_with_its_default() {
    let case = Case::new(&sample_with_all_keys());
    let mut sources = case.sources.clone();
    sources.environment.clear();
    let sample = sources.load(Scope::Tool).expect("the sample is valid");
    let defaults = Sources::default().load(Scope::Tool).expect("valid");
    // Where the machine decides, or nothing is the default, the sample shows an example.
    let examples = [
        "media_advertise_ip",
        "webrtc_port_range",
        "media_dir",
        "auth_token_file",
        "runtime_dir",
        "ipc_socket",
        "admin_socket",
    ];
    for (shown, default) in sample.settings.iter().zip(&defaults.settings) {
        let from_file = matches!(shown.origin, Origin::File { .. });
        assert!(from_file, "{} is missing in the sample", shown.key);
        if !examples.contains(&shown.key) {
            assert_eq!(shown.toml, default.toml, "{}", shown.key);
        }
    }
}

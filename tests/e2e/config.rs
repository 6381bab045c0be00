//! operations: configuration as a person meets it.

use std::fs;
use std::process::Output;

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::harness::server::program_command;

fn text(output: &Output) -> String {
    let both = [&output.stdout[..], &output.stderr[..]].concat();
    String::from_utf8_lossy(&both).into_owned()
}

const PROGRAMS: [&str; 3] = ["rtpbridge", "rtpbridge-control", "rtpbridge-dataplane"];

#[test]
fn every_fault_is_reported_at_once_before_anything_starts() {
    let server = Server::builder().prepare();
    let config = server.path("faulty.toml");
    fs::write(
        &config,
        "media_timeout_secs = 0\nmax_sesions = 5\nrtp_port_range = [1001, 70000]\n\
         batch_window_us = 6000\nlisten = \"nowhere\"\n",
    )
    .unwrap();
    for program in PROGRAMS {
        let output = program_command(program)
            .arg("--config")
            .arg(&config)
            .args(["--log-level", "loud"])
            .env("RTPBRIDGE_MEDIA_DSCP", "64")
            .output()
            .unwrap();
        assert_eq!(
            output.status.code(),
            Some(2),
            "{program}: {}",
            text(&output)
        );
        let said = text(&output);
        // File, line, key, value, bound; all of them.
        for part in [
            "faulty.toml:1: media_timeout_secs = 0: must be an integer from 1 to 300",
            "faulty.toml:2: unknown key max_sesions, did you mean max_sessions?",
            "faulty.toml:3: rtp_port_range = [1001, 70000]: must be",
            "both from 1024 to 65534",
            "faulty.toml:4: batch_window_us = 6000: must be an integer from 0 to 5000",
            "faulty.toml:5: listen = \"nowhere\": must be",
            "environment RTPBRIDGE_MEDIA_DSCP: media_dscp = 64: must be an integer from 0 to 63",
            "argument --log-level: log_level = loud: must be one of",
        ] {
            assert!(
                said.contains(part),
                "{program} does not say {part}:\n{said}"
            );
        }
    }
    let checked = program_command("rtpbridgectl")
        .args(["config", "check"])
        .arg(&config)
        .output()
        .unwrap();
    assert_eq!(checked.status.code(), Some(1));
    let said = text(&checked);
    for line in 1..=5 {
        assert!(said.contains(&format!("faulty.toml:{line}: ")), "{said}");
    }
    assert!(said.contains("5 faults"), "{said}");
    let good = program_command("rtpbridgectl")
        .args(["config", "check"])
        .arg(server.config_file())
        .output()
        .unwrap();
    assert_eq!(good.status.code(), Some(0), "{}", text(&good));
}

#[test]
fn arguments_come_before_the_environment_before_the_file() {
    let server = Server::builder().set("media_timeout_secs", 7).prepare();
    let shown = |arguments: &[&str], environment: &[(&str, &str)]| {
        let mut command = server.command("rtpbridge");
        command.arg("--print-config").args(arguments);
        let output = command.envs(environment.iter().copied()).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{}", text(&output));
        text(&output)
    };
    let line = |shown: &str, key: &str| {
        let found = shown
            .lines()
            .find(|line| line.trim_start().starts_with(key));
        found
            .unwrap_or_else(|| panic!("no {key} in:\n{shown}"))
            .to_owned()
    };
    let plain = shown(&[], &[]);
    let is = |line: String, value: &str, origin: &str| {
        let (left, right) = line
            .split_once(" # ")
            .unwrap_or_else(|| panic!("no origin: {line}"));
        let shown = left.split_once('=').unwrap().1.trim();
        assert!(shown == value && right.contains(origin), "{line}");
    };
    let file = server.config_file().display().to_string();
    is(line(&plain, "media_timeout_secs"), "7", &format!("{file}:"));
    is(line(&plain, "log_level"), "\"info\"", "default");
    let environment = [
        ("RTPBRIDGE_LOG_LEVEL", "warn"),
        ("RTPBRIDGE_PORT", "tcp://10.0.0.1:80"),
    ];
    let from_environment = shown(&[], &environment);
    let variable = "environment RTPBRIDGE_LOG_LEVEL";
    is(line(&from_environment, "log_level"), "\"warn\"", variable);
    let from_arguments = shown(&["--log-level", "debug"], &environment);
    let argument = "argument --log-level";
    is(line(&from_arguments, "log_level"), "\"debug\"", argument);
}

#[test]
fn several_addresses_are_listened_on() {
    let server = Server::start();
    let (first, _) = server.media_ports();
    drop(server);
    let both = format!("[\"127.0.0.1:{first}\", \"[::1]:{first}\"]");
    let mut server = Server::builder().set("listen", both).prepare();
    server.start_dataplane();
    server.start_control();
    for ip in ["127.0.0.1", "[::1]"] {
        let to: std::net::SocketAddr = format!("{ip}:{first}").parse().unwrap();
        rtpbridge_tests::harness::eventually(
            "it answers",
            rtpbridge_tests::harness::wait::SOON,
            || {
                rtpbridge_tests::harness::http::try_request(to, "GET", "/health", &[])
                    .ok()
                    .filter(|answer| answer.status == 200)
            },
        );
    }
}

#[test]
fn logs_can_be_json() {
    let server = Server::builder().set_text("log_format", "json").start();
    server.session();
    let logs = server.logs();
    assert!(!logs.is_empty());
    for line in logs.lines() {
        serde_json::from_str::<serde_json::Value>(line)
            .unwrap_or_else(|error| panic!("{error}: {line}"));
    }
}

//! The modes that nothing else runs: they measure real programs, here for seconds and without a
//! judgement on what they measure. Needs the programs: `cargo build --workspace --bins`.

use std::path::Path;
use std::process::Command;

use rtpbridge_tests::harness::ports::PortBlock;
use rtpbridge_tests::harness::server::binary;
use serde_json::Value;

/// Runs the tool on a server of its own, on ports that no other test uses; gives its report.
fn measure(arguments: &[&str]) -> Value {
    let ports = PortBlock::reserve(180);
    let (first, last) = ports.media();
    let server = binary("rtpbridge");
    let output = Command::new(env!("CARGO_BIN_EXE_rtpbridge-bench"))
        .arg("--launch")
        .arg(server.parent().unwrap_or(Path::new(".")))
        .args(["--set", &format!("rtp_port_range = [{first}, {last}]")])
        .args(["--warm-up", "1", "--json", "-"])
        .args(arguments)
        .output()
        .expect("the tool runs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{arguments:?}: {said}");
    serde_json::from_slice(&output.stdout).expect("a report in JSON")
}

#[test]
fn calls_are_measured_beside_the_floor_and_recorded() {
    let recordings = tempfile::tempdir().expect("temporary directory");
    let directory = recordings.path().to_str().expect("UTF-8");
    let report = measure(&[
        "--calls",
        "4",
        "--floor",
        "--record",
        directory,
        "--seconds",
        "1",
    ]);
    assert_eq!(report["calls"], 4);
    let stretches = report["stretches"].as_array().expect("stretches");
    let what: Vec<_> = stretches.iter().map(|stretch| &stretch["what"]).collect();
    assert_eq!(what, ["floor", "server", "recorded"]);
    for stretch in stretches {
        // A hundred packets a second, of each call, warm-up included.
        assert!(stretch["sent"].as_u64() > Some(4 * 100), "{stretch}");
        assert_eq!(stretch["lost"], 0, "{stretch}");
        assert_eq!(stretch["misrouted"], 0, "{stretch}");
        for quantile in ["p50_us", "p99_us", "p999_us", "max_us"] {
            assert!(stretch["latency"][quantile].as_u64() > Some(0), "{stretch}");
        }
    }
    // One receive and one send for each packet, and the waiting.
    assert!(stretches[0]["system_calls_per_packet"].as_f64() > Some(2.0));
    assert!(report["ratio_to_floor"].as_f64() > Some(0.0));
    assert!(report["memory"]["after_kib"].as_u64() > Some(0));
    assert!(report["set_up"]["mean_ms"].as_f64() > Some(0.0));
    assert!(report["recorded"]["packets"].as_u64() >= stretches[2]["sent"].as_u64());
    assert_eq!(report["recorded"]["dropped"], 0);
}

#[test]
fn sound_is_measured_between_all_codecs_and_in_conferences() {
    let report = measure(&["--sound", "6", "--seconds", "1"]);
    let stretches = report["stretches"].as_array().expect("stretches");
    assert_eq!(stretches.len(), 5);
    for stretch in stretches {
        assert_eq!(stretch["send_errors"], 0, "{stretch}");
        assert!(stretch["received"].as_u64() > Some(50), "{stretch}");
        assert!(
            stretch["cpu_us_per_packet"].as_f64() > Some(0.0),
            "{stretch}"
        );
    }
    assert!(report["results"][3]["of_passthrough"].as_f64() > Some(0.0));
}

#[test]
fn calls_are_measured_alone_and_beside_a_slow_disk() {
    // The decoder is a second ahead, and sound on a slow disk lasts a little longer.
    let report = measure(&["--calls", "4", "--disturb", "3", "--seconds", "4"]);
    assert!(report["underruns"].as_f64() > Some(0.0), "{report}");
    let stretches = report["stretches"].as_array().expect("stretches");
    let what: Vec<_> = stretches.iter().map(|stretch| &stretch["what"]).collect();
    assert_eq!(what, ["alone", "disturbed"]);
    for stretch in stretches {
        assert_eq!(stretch["misrouted"], 0, "{stretch}");
        assert!(
            stretch["packets_per_second"].as_f64() > Some(0.0),
            "{stretch}"
        );
    }
}

//! What is shipped beside the programs, as tests read it: units, their system call filters, and the
//! dashboard.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::Value;

/// The directory of the units and of what belongs to them.
pub fn systemd_dir() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../systemd")
}

/// Runs a tool; none, with a word about it, when it is not installed. Panics when it fails.
pub fn run_tool(command: &mut Command) -> Option<String> {
    let output = match command.output() {
        Ok(output) => output,
        Err(_) => {
            eprintln!("skipped: {:?} is not installed", command.get_program());
            return None;
        }
    };
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{command:?}: {text}");
    Some(text.into_owned())
}

/// What a unit's SystemCallFilter lines allow, applied in order as systemd does, less what its other
/// lines take away; none without systemd.
pub fn allowed_calls(service: &str) -> Option<BTreeSet<String>> {
    let unit = fs::read_to_string(systemd_dir().join(service)).expect("shipped");
    let mut allowed = BTreeSet::new();
    for line in unit
        .lines()
        .filter_map(|line| line.strip_prefix("SystemCallFilter="))
    {
        let (denies, names) = match line.strip_prefix('~') {
            Some(names) => (true, names),
            None => (false, line),
        };
        let mut named = BTreeSet::new();
        for name in names.split_whitespace() {
            match name.starts_with('@') {
                true => expand(name, &mut named)?,
                false => _ = named.insert(name.to_owned()),
            }
        }
        match denies {
            true => allowed.retain(|name| !named.contains(name)),
            false => allowed.extend(named),
        }
    }
    if unit.lines().any(|line| line == "RestrictSUIDSGID=yes") {
        // Its mode stands in memory, where a filter cannot look.
        allowed.remove("openat2");
    }
    Some(allowed)
}

/// Members of a system call group, groups inside it followed.
fn expand(group: &str, all: &mut BTreeSet<String>) -> Option<()> {
    let mut command = Command::new("systemd-analyze");
    let text = run_tool(command.args(["syscall-filter", "--no-pager", group]))?;
    for member in text.lines().map(str::trim).skip(1) {
        match member.chars().next() {
            None | Some('#') => {}
            Some('@') => expand(member, all)?,
            Some(_) => {
                all.insert(member.to_owned());
            }
        }
    }
    Some(())
}

/// The dashboard's queries with its variables filled in.
pub fn dashboard_queries() -> Vec<String> {
    let text = fs::read_to_string(systemd_dir().join("grafana/rtpbridge.json")).expect("shipped");
    let dashboard: Value = serde_json::from_str(&text).expect("JSON");
    let panels = dashboard["panels"].as_array().expect("panels").clone();
    let targets = panels
        .iter()
        .filter_map(|panel| panel["targets"].as_array());
    targets
        .flatten()
        .map(|target| {
            let query = target["expr"].as_str().expect("an expression");
            query
                .replace("$__rate_interval", "1m")
                .replace("$__range", "1h")
                .replace("$job", "rtpbridge")
                .replace("$instance", ".*")
        })
        .collect()
}

//! What is shipped beside the programs: systemd units, users and directories, alert rules and the
//! dashboard, each checked by the tool that will read it. A machine without a tool skips its checks and
//! says so.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, SystemTime};

use rtpbridge_tests::harness::server::binary;
use rtpbridge_tests::shipped::{allowed_calls, dashboard_queries, run_tool, systemd_dir};
use serde_json::Value;

const SERVICES: [&str; 2] = ["rtpbridge-dataplane.service", "rtpbridge-control.service"];

/// A root directory with our files installed and programs that exist.
fn installed() -> tempfile::TempDir {
    let root = tempfile::tempdir().expect("temporary directory");
    let place = |from: &Path, to: &str| {
        let to = root.path().join(to);
        fs::create_dir_all(to.parent().expect("below the root")).expect("directory");
        fs::copy(from, &to).unwrap_or_else(|error| panic!("{}: {error}", from.display()));
    };
    for program in [
        "usr/bin/rtpbridge-control",
        "usr/bin/rtpbridge-dataplane",
        "usr/bin/rtpbridgectl",
    ] {
        place(Path::new("/bin/true"), program);
    }
    let system_units = Path::new("/usr/lib/systemd/system");
    for unit in fs::read_dir(system_units).into_iter().flatten().flatten() {
        if unit.path().is_file() {
            let name = unit.file_name();
            place(
                &unit.path(),
                &format!("usr/lib/systemd/system/{}", name.display()),
            );
        }
    }
    fs::create_dir(root.path().join("etc")).expect("directory");
    for (from, to) in [
        ("", "usr/lib/systemd/system"),
        ("sysusers.d", "usr/lib/sysusers.d"),
        ("tmpfiles.d", "usr/lib/tmpfiles.d"),
    ] {
        for file in fs::read_dir(systemd_dir().join(from))
            .expect("shipped")
            .flatten()
        {
            if file.path().is_file() {
                place(
                    &file.path(),
                    &format!("{to}/{}", file.file_name().display()),
                );
            }
        }
    }
    root
}

fn units() -> Vec<String> {
    let files = fs::read_dir(systemd_dir()).expect("shipped").flatten();
    let names = files.map(|file| file.file_name().display().to_string());
    let suffixes = [".service", ".socket", ".target"];
    let mut units: Vec<String> = names
        .filter(|name| suffixes.iter().any(|suffix| name.ends_with(suffix)))
        .collect();
    units.sort();
    units
}

#[test]
fn the_units_are_valid_together() {
    assert_eq!(units().len(), 6);
    let root = installed();
    let root_option = format!("--root={}", root.path().display());
    let verify = run_tool(
        Command::new("systemd-analyze")
            .args(["verify", "--man=no", &root_option])
            .args(units()),
    );
    if let Some(text) = verify {
        assert_eq!(text.trim(), "", "systemd has something to say");
    }
}

#[test]
fn the_services_are_exposed_at_most_1_5() {
    for service in SERVICES {
        let unit = systemd_dir().join(service);
        run_tool(
            Command::new("systemd-analyze")
                .args(["security", "--offline=yes", "--no-pager", "--threshold=15"])
                .arg(unit),
        );
    }
}

#[test]
fn the_users_and_directories_can_be_created() {
    let root = installed();
    let root_option = format!("--root={}", root.path().display());
    if run_tool(Command::new("systemd-sysusers").arg(&root_option)).is_none() {
        return;
    }
    let groups = fs::read_to_string(root.path().join("etc/group")).expect("written");
    let shared = groups
        .lines()
        .find(|line| line.starts_with("rtpbridge:"))
        .expect("group");
    assert!(
        shared.ends_with(":rtpbridge-control,rtpbridge-dataplane"),
        "{shared}"
    );
    if !nix::unistd::geteuid().is_root() {
        eprintln!("skipped: only root can create other users' directories");
        return;
    }
    run_tool(Command::new("systemd-tmpfiles").args([&root_option, "--create", "rtpbridge.conf"]));
    let recordings = root.path().join("var/lib/rtpbridge/recordings");
    let mode = std::os::unix::fs::MetadataExt::mode(&fs::metadata(recordings).expect("created"));
    assert_eq!(mode & 0o7777, 0o2770);
}

#[test]
fn the_system_call_filters_let_the_programs_own_sandbox_through() {
    let sandbox = [
        "landlock_create_ruleset",
        "landlock_add_rule",
        "landlock_restrict_self",
        "seccomp",
        "prctl",
        // Raising the soft limit of descriptors.
        "prlimit64",
    ];
    let dangerous = [
        "mount",
        "ptrace",
        "bpf",
        "init_module",
        "setuid",
        "chown",
        "reboot",
    ];
    for service in SERVICES {
        let Some(allowed) = allowed_calls(service) else {
            return;
        };
        for name in sandbox {
            assert!(allowed.contains(name), "{service} forbids {name}");
        }
        for name in dangerous {
            assert!(!allowed.contains(name), "{service} allows {name}");
        }
    }
}

#[test]
fn one_unit_never_restarts_the_other() {
    for service in SERVICES {
        let unit = fs::read_to_string(systemd_dir().join(service)).expect("shipped");
        let binding = ["Requires=", "BindsTo=", "Requisite="];
        let bound = unit
            .lines()
            .find(|line| binding.iter().any(|key| line.starts_with(key)));
        assert_eq!(bound, None, "{service}");
        let value = |key: &str| {
            let found = unit.lines().find_map(|line| line.strip_prefix(key));
            found.unwrap_or_else(|| panic!("{service} sets {key}"))
        };
        assert_eq!(value("Type="), "notify");
        assert_eq!(value("Restart="), "on-failure");
        assert_eq!(value("RestartSec="), "100ms");
        assert_eq!(value("StartLimitIntervalSec="), "0");
        let stop: u64 = value("TimeoutStopSec=").parse().expect("seconds");
        assert!(stop > 300 && stop < 400, "just over shutdown_max_wait_secs");
    }
}

#[test]
fn the_alert_rules_hold_in_their_scenarios() {
    let dir = systemd_dir().join("prometheus");
    let promtool =
        |words: &[&str]| run_tool(Command::new("promtool").args(words).current_dir(&dir));
    if promtool(&["check", "rules", "rtpbridge.rules.yml"]).is_some() {
        promtool(&["test", "rules", "rtpbridge.test.yml"]);
    }
}

#[test]
fn the_dashboards_queries_are_valid() {
    let queries = dashboard_queries();
    assert!(queries.len() > 20, "{}", queries.len());
    let dir = tempfile::tempdir().expect("temporary directory");
    let mut rules = String::from("groups:\n- name: dashboard\n  rules:\n");
    for (at, query) in queries.iter().enumerate() {
        assert!(!query.contains('$'), "an unknown variable: {query}");
        let expression = Value::String(query.clone());
        rules += &format!("  - record: dashboard:query{at}\n    expr: {expression}\n");
    }
    let file = dir.path().join("dashboard.yml");
    fs::write(&file, rules).expect("written");
    run_tool(Command::new("promtool").args(["check", "rules"]).arg(file));
}

/// Copies what the image's build copies of a directory.
fn copy_tree(from: &Path, to: &Path) {
    fs::create_dir_all(to).expect("directory");
    for entry in fs::read_dir(from).expect("readable").flatten() {
        let (name, path) = (entry.file_name(), entry.path());
        let kept = !name.to_string_lossy().starts_with('.') && name != "target";
        if path.is_dir() && kept && name != "node_modules" {
            copy_tree(&path, &to.join(name));
        } else if path.is_file() && kept {
            fs::copy(&path, to.join(name)).expect("copied");
        }
    }
}

/// The command that has cargo see our sources again after the stubs, and only them.
#[test]
fn the_images_build_leaves_its_cached_dependencies_alone() {
    let dockerfile = systemd_dir().join("../Dockerfile");
    let dockerfile = fs::read_to_string(dockerfile).expect("shipped");
    let (_, command) = dockerfile.rsplit_once("RUN find").expect("a build stage");
    let (command, _) = command.split_once(" \\\n").expect("more commands");
    let dir = tempfile::tempdir().expect("temporary directory");
    let long_ago = SystemTime::UNIX_EPOCH + Duration::from_secs(1_000_000_000);
    let files = ["control/src/main.rs", "target/release/build/x/out/made.rs"];
    let [ours, made] = files.map(|file| dir.path().join(file));
    for file in [&ours, &made] {
        fs::create_dir_all(file.parent().expect("below")).expect("directory");
        let file = fs::File::create(file).expect("file");
        file.set_modified(long_ago).expect("a time");
    }
    let command = format!("find{command}");
    run_tool(
        Command::new("sh")
            .args(["-ec", &command])
            .current_dir(dir.path()),
    );
    let modified = |file| {
        fs::metadata(file)
            .and_then(|it| it.modified())
            .expect("a time")
    };
    assert!(modified(&ours) > long_ago, "{command}");
    assert_eq!(modified(&made), long_ago, "{command}");
}

/// What the image's last stage is made from holds no libraries but these.
#[test]
fn the_programs_need_no_library_that_the_image_lacks() {
    let in_image = ["libc.so.6", "libm.so.6", "libgcc_s.so.1"];
    for program in [
        "rtpbridge",
        "rtpbridge-control",
        "rtpbridge-dataplane",
        "rtpbridgectl",
    ] {
        let Some(needs) = run_tool(Command::new("ldd").arg(binary(program))) else {
            return;
        };
        let libraries = needs
            .lines()
            .filter_map(|line| line.split_whitespace().next());
        let libraries: Vec<_> = libraries
            .filter(|name| !name.starts_with("linux-vdso") && !name.contains("/ld-linux"))
            .collect();
        assert!(libraries.contains(&"libc.so.6"), "{needs}");
        for library in libraries {
            assert!(in_image.contains(&library), "{program} needs {library}");
        }
    }
}

/// The command that makes the image's first stage, which exists so that later ones are cached.
#[test]
fn the_images_skeleton_is_made_of_stubs_and_manifests_that_cargo_accepts() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("..");
    let dockerfile = fs::read_to_string(root.join("Dockerfile")).expect("shipped");
    let (_, command) = dockerfile.split_once("RUN find").expect("a first stage");
    let (command, _) = command.split_once("\n\n").expect("a further stage");
    let dir = tempfile::tempdir().expect("temporary directory");
    for part in ["control", "dataplane", "shared", "tests", "benches"] {
        copy_tree(&root.join(part), &dir.path().join(part));
    }
    for file in ["Cargo.toml", "Cargo.lock"] {
        fs::copy(root.join(file), dir.path().join(file)).expect("copied");
    }
    let run = |program: &str, words: &[&str]| {
        run_tool(Command::new(program).args(words).current_dir(dir.path())).expect("installed")
    };
    run("sh", &["-ec", &format!("find{command}")]);
    let main = fs::read_to_string(dir.path().join("control/src/main.rs")).expect("kept");
    assert_eq!(main.trim(), "fn main() { }");
    assert!(!dir.path().join("control/README.md").exists());
    run(
        env!("CARGO"),
        &[
            "metadata",
            "--offline",
            "--locked",
            "--no-deps",
            "--format-version=1",
        ],
    );
}

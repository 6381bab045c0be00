//! Rules of the code base that no compiler checks: where things lie, how large they may be, what the
//! engine may import, and that the documented test line is the one CI runs.

use std::fs;
use std::path::{Path, PathBuf};

const FILE_LINES_MAX: usize = 600;
const FUNCTION_LINES_MAX: usize = 70;
const MODULE_HEADER_LINES_MAX: usize = 15;

const TOP_LEVEL: &[&str] = &[
    "Cargo.toml",
    "Cargo.lock",
    "control",
    "dataplane",
    "shared",
    "tests",
    "benches",
    "systemd",
    "Dockerfile",
    "README.md",
    "target",
];

const BANNED_MODULES: &[&str] = &[
    "util", "utils", "helper", "helpers", "manager", "types", "common", "misc",
];

/// What the engine must not touch: clocks, files, sockets, threads, locks, runtimes.
const BANNED_IN_CORE: &[&str] = &[
    "std::fs",
    "std::thread",
    "std::sync::Mutex",
    "std::sync::RwLock",
    "std::sync::mpsc",
    "std::process",
    "std::env",
    "std::time::Instant",
    "std::time::SystemTime",
    "UdpSocket",
    "TcpStream",
    "TcpListener",
    "UnixStream",
    "tokio::",
    "nix::",
    "libc::",
    "Mutex<",
    "Instant::now(",
    "SystemTime",
];

struct Source {
    path: PathBuf,
    name: String,
    text: String,
    declared_for_tests: bool,
}

impl Source {
    /// The code before an inline test module.
    fn without_tests(&self) -> &str {
        let end = self.text.find("#[cfg(test)]\nmod ");
        &self.text[..end.unwrap_or(self.text.len())]
    }

    fn is_test(&self) -> bool {
        self.name.starts_with("tests/")
            || self.name.ends_with("/tests.rs")
            || self.name.contains("/tests/")
            || self.declared_for_tests
    }

    /// Files of modules that this one declares under `#[cfg(test)]`, without their extension.
    fn test_modules(&self) -> Vec<PathBuf> {
        let directory = match self.path.file_stem().and_then(|stem| stem.to_str()) {
            Some("mod" | "lib" | "main") | None => self.path.with_file_name(""),
            Some(_) => self.path.with_extension(""),
        };
        let lines: Vec<&str> = self.text.lines().collect();
        lines
            .windows(2)
            .filter(|pair| pair[0] == "#[cfg(test)]")
            .filter_map(|pair| pair[1].strip_suffix(';')?.split("mod ").nth(1))
            .map(|name| directory.join(name))
            .collect()
    }
}

fn root() -> PathBuf {
    let own = Path::new(env!("CARGO_MANIFEST_DIR"));
    own.parent()
        .expect("tests/ lies in the repository")
        .to_path_buf()
}

fn sources() -> Vec<Source> {
    let mut found = Vec::new();
    for directory in ["shared", "control", "dataplane", "tests", "benches"] {
        collect(&root().join(directory), &mut found);
    }
    assert!(found.len() > 30, "the sources were found");
    let test_modules: Vec<PathBuf> = found.iter().flat_map(Source::test_modules).collect();
    for source in &mut found {
        source.declared_for_tests = test_modules.iter().any(|module| {
            source.path == module.with_extension("rs") || source.path.starts_with(module)
        });
    }
    found
}

fn collect(directory: &Path, found: &mut Vec<Source>) {
    for entry in fs::read_dir(directory).expect("directory").flatten() {
        let path = entry.path();
        let name = entry.file_name().to_string_lossy().into_owned();
        if path.is_dir() {
            if name != "target" && !name.starts_with('.') && name != "node_modules" {
                collect(&path, found);
            }
        } else if name.ends_with(".rs") {
            found.push(Source {
                name: path
                    .strip_prefix(root())
                    .expect("inside the repository")
                    .to_string_lossy()
                    .into_owned(),
                text: fs::read_to_string(&path).expect("UTF-8"),
                path,
                declared_for_tests: false,
            });
        }
    }
}

fn assert_none(rule: &str, offenders: &[String]) {
    assert!(
        offenders.is_empty(),
        "{rule}:\n  {}",
        offenders.join("\n  ")
    );
}

#[test]
fn nothing_else_lies_at_the_top() {
    let offenders: Vec<String> = fs::read_dir(root())
        .expect("root")
        .flatten()
        .map(|entry| entry.file_name().to_string_lossy().into_owned())
        .filter(|name| !name.starts_with('.') && !TOP_LEVEL.contains(&name.as_str()))
        .collect();
    assert_none("not part of the layout", &offenders);
}

#[test]
fn files_stay_readable() {
    let offenders: Vec<String> = sources()
        .iter()
        .filter(|source| !source.is_test())
        .map(|source| (source.without_tests().lines().count(), &source.name))
        .filter(|(lines, _)| *lines > FILE_LINES_MAX)
        .map(|(lines, name)| format!("{name}: {lines} lines"))
        .collect();
    assert_none("longer than 600 lines without tests", &offenders);
}

#[test]
fn functions_stay_readable() {
    let mut offenders = Vec::new();
    for source in sources().iter().filter(|source| !source.is_test()) {
        for (line, length, flat_match) in functions(source.without_tests()) {
            if length > FUNCTION_LINES_MAX && !flat_match {
                offenders.push(format!("{}:{line}: {length} lines", source.name));
            }
        }
    }
    assert_none("functions longer than 70 lines", &offenders);
}

/// First line, length and "is one flat match" of every function.
fn functions(text: &str) -> Vec<(usize, usize, bool)> {
    let lines: Vec<&str> = text.lines().collect();
    let mut found = Vec::new();
    for (at, line) in lines.iter().enumerate() {
        let code = line.trim_start();
        let indent = line.len() - code.len();
        let is_function = [
            "fn ",
            "pub fn ",
            "pub(crate) fn ",
            "pub(super) fn ",
            "async fn ",
            "pub async fn ",
            "pub(crate) async fn ",
            "pub(super) async fn ",
            "const fn ",
            "pub const fn ",
        ]
        .iter()
        .any(|start| code.starts_with(start));
        if !is_function {
            continue;
        }
        let signature_end = lines[at..]
            .iter()
            .find(|line| line.ends_with([';', '{', '}']));
        if signature_end.is_some_and(|line| line.ends_with(';')) {
            continue;
        }
        let closing = format!("{}}}", " ".repeat(indent));
        let Some(length) = lines[at..].iter().position(|line| *line == closing) else {
            continue;
        };
        let inner = " ".repeat(indent + 4);
        let flat_match = lines[at..at + length].iter().any(|line| {
            line.strip_prefix(&inner)
                .is_some_and(|code| code.starts_with("match ") || code.contains("= match "))
        });
        found.push((at + 1, length + 1, flat_match));
    }
    found
}

#[test]
fn modules_are_named_for_what_they_do() {
    let offenders: Vec<String> = sources()
        .iter()
        .filter(|source| {
            source.path.components().any(|part| {
                let name = part.as_os_str().to_string_lossy();
                BANNED_MODULES.contains(&name.trim_end_matches(".rs"))
            })
        })
        .map(|source| source.name.clone())
        .collect();
    assert_none("names that say nothing", &offenders);
}

#[test]
fn modules_open_with_what_they_are() {
    let mut offenders = Vec::new();
    for source in sources() {
        let header = source
            .text
            .lines()
            .take_while(|line| line.starts_with("//!"))
            .count();
        let test_file = source.name.ends_with("/tests.rs") || source.name.contains("/tests/");
        if header == 0 && !test_file {
            offenders.push(format!("{}: none", source.name));
        }
        if header > MODULE_HEADER_LINES_MAX {
            offenders.push(format!("{}: {header} lines", source.name));
        }
    }
    assert_none("a header of 1 to 15 lines opens a module", &offenders);
}

#[test]
fn the_engine_does_no_io() {
    let mut offenders = Vec::new();
    let sources = sources();
    for source in sources
        .iter()
        .filter(|source| source.name.starts_with("dataplane/core/src") && !source.is_test())
    {
        for (number, line) in source.without_tests().lines().enumerate() {
            let code = line.split("//").next().unwrap_or_default();
            for banned in BANNED_IN_CORE {
                if code.contains(banned) {
                    offenders.push(format!("{}:{}: {banned}", source.name, number + 1));
                }
            }
        }
    }
    assert_none("IO, clocks, locks or threads in the engine", &offenders);
}

#[test]
fn unsafe_code_stays_where_it_is_allowed() {
    let offenders: Vec<String> = sources()
        .iter()
        .filter(|source| {
            !source.name.starts_with("dataplane/src/sys")
                && !source.name.starts_with("dataplane/src/sandbox")
        })
        .filter(|source| {
            source
                .text
                .lines()
                .any(|line| line.contains(concat!("allow(un", "safe_code)")))
        })
        .map(|source| source.name.clone())
        .collect();
    assert_none("unsafe code outside sys and sandbox", &offenders);
}

#[test]
fn packages_depend_only_downwards() {
    let dependencies = |package: &str| {
        fs::read_to_string(root().join(package).join("Cargo.toml")).expect("manifest")
    };
    for (package, forbidden) in [
        ("shared", &["rtpbridge-core", "rtpbridge-control"][..]),
        ("dataplane/core", &["rtpbridge-control", "tokio", "nix"][..]),
        ("control", &["rtpbridge-core", "rtpbridge-dataplane"][..]),
        ("dataplane", &["rtpbridge-control", "reqwest", "axum"][..]),
    ] {
        let manifest = dependencies(package);
        for name in forbidden {
            let named = manifest.lines().any(|line| {
                line.strip_prefix(name)
                    .is_some_and(|rest| rest.starts_with([' ', '.', '=']))
            });
            assert!(!named, "{package} must not depend on {name}");
        }
    }
}

#[test]
fn ci_runs_the_documented_line() {
    let ci = fs::read_to_string(root().join(".ci/run")).expect(".ci/run");
    assert!(ci.contains("exec ./tests/run\n"));
    let readme = root().join("README.md");
    let readme = fs::read_to_string(&readme).expect("README.md");
    assert!(
        readme.contains("./tests/run"),
        "the README names the test line"
    );
}

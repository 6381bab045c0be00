//! What can be wrong with a configuration, and where it stood. Faults are collected: an operator
//! sees all of them in one run.

use std::fmt;
use std::path::PathBuf;

/// Where a value came from, strongest last.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Origin {
    /// Built in.
    Default,
    /// The TOML file, with the line of the value (1-based).
    File {
        /// As given on the command line.
        path: PathBuf,
        /// 1-based.
        line: usize,
    },
    /// An environment variable, by its full name.
    Environment(String),
    /// A command-line argument, by its long form.
    Argument(&'static str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Default => f.write_str("default"),
            Origin::File { path, line } => write!(f, "{}:{line}", path.display()),
            Origin::Environment(name) => write!(f, "environment {name}"),
            Origin::Argument(flag) => write!(f, "argument {flag}"),
        }
    }
}

/// One thing that is wrong.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum Fault {
    /// A value outside its rule.
    #[error("{origin}: {key} = {value}: {bound}")]
    Value {
        /// Where it was set.
        origin: Origin,
        /// Key of operations.md.
        key: &'static str,
        /// As written, cut when very long.
        value: String,
        /// What the value must be, or why it cannot be used.
        bound: String,
    },
    /// A key in the file that no program knows.
    #[error("{origin}: unknown key {key}{}", suggestion(.nearest))]
    UnknownKey {
        /// Where it stands.
        origin: Origin,
        /// As written.
        key: String,
        /// The known key most like it.
        nearest: Option<&'static str>,
    },
    /// The file is not TOML.
    #[error("{origin}: not valid TOML: {message}")]
    Syntax {
        /// Where the parser stopped.
        origin: Origin,
        /// The parser's words.
        message: String,
    },
    /// The file cannot be read.
    #[error("{}: cannot read the configuration file: {message}", .path.display())]
    Unreadable {
        /// As given.
        path: PathBuf,
        /// The operating system's words.
        message: String,
    },
}

fn suggestion(nearest: &Option<&'static str>) -> String {
    match nearest {
        Some(known) => format!(", did you mean {known}?"),
        None => String::new(),
    }
}

/// All faults of one configuration; never empty. Programs print it and exit with code 2.
#[derive(Clone, PartialEq, Eq, Debug, thiserror::Error)]
#[error("{}", lines(.faults))]
pub struct ConfigError {
    /// In the order of the file's keys, then of the table in operations.md.
    pub faults: Vec<Fault>,
}

fn lines(faults: &[Fault]) -> String {
    let lines: Vec<String> = faults.iter().map(Fault::to_string).collect();
    lines.join("\n")
}

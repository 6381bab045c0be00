//! Brings the sources together and applies all rules, those of the machine last.

use std::collections::BTreeMap;
use std::path::PathBuf;

use super::error::{ConfigError, Fault, Origin};
use super::raw::{self, Entry, RawValue};
use super::read::{Reader, Setting};
use super::{Config, ConfigArgs};
use crate::runtime_dir;

/// What the asking program runs, and so which of the machine's rules it must check.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum Scope {
    /// `rtpbridge-control`.
    Control,
    /// `rtpbridge-dataplane`.
    Dataplane,
    /// Both: the supervisor, and `config check`.
    Both,
    /// Neither: a tool that only wants to know where the sockets are.
    Tool,
}

impl Scope {
    pub(super) const fn runs_control(self) -> bool {
        matches!(self, Scope::Control | Scope::Both)
    }

    pub(super) const fn runs_dataplane(self) -> bool {
        matches!(self, Scope::Dataplane | Scope::Both)
    }
}

/// Where configuration comes from.
#[derive(Clone, Debug, Default)]
pub struct Sources {
    /// Command line.
    pub args: ConfigArgs,
    /// Name and value of environment variables.
    pub environment: Vec<(String, String)>,
}

/// A valid configuration and what is to be said about it.
#[derive(Clone, Debug)]
pub struct Loaded {
    /// The effective configuration.
    pub config: Config,
    /// Every key with its value as TOML and its origin, in a fixed order.
    pub settings: Vec<Setting>,
    /// To be logged once logging runs.
    pub warnings: Vec<String>,
    /// The file that was read.
    pub file: Option<PathBuf>,
}

impl Sources {
    /// This process's environment beside parsed arguments.
    pub fn of_process(args: ConfigArgs) -> Self {
        let lossy = |text: std::ffi::OsString| text.to_string_lossy().into_owned();
        let variables = std::env::vars_os();
        let environment = variables.map(|(name, value)| (lossy(name), lossy(value)));
        Self {
            args,
            environment: environment.collect(),
        }
    }

    /// Reads and checks everything.
    ///
    /// # Errors
    /// All faults of all sources together.
    pub fn load(&self, scope: Scope) -> Result<Loaded, ConfigError> {
        let path = self.config_path();
        let (file, faults) = match path.as_deref().map(read_entries) {
            None => (Vec::new(), Vec::new()),
            Some(Ok(entries)) => (entries, Vec::new()),
            Some(Err(fault)) => (Vec::new(), vec![fault]),
        };
        let mut reader = Reader {
            arguments: argument_entries(&self.args),
            environment: raw::collect_environment(&self.environment),
            file,
            settings: Vec::new(),
            faults,
        };
        let config = reader.config(runtime_dir::search(&self.environment, scope));
        if reader.faults.is_empty() {
            reader.probe(&config, scope);
        }
        reader.reject_unknown_keys();
        if !reader.faults.is_empty() {
            return Err(ConfigError {
                faults: reader.faults,
            });
        }
        Ok(Loaded {
            config,
            warnings: reader.unknown_variables(),
            settings: reader.settings,
            file: path,
        })
    }

    fn config_path(&self) -> Option<PathBuf> {
        let variable = || {
            let found = self.environment.iter();
            let found = found.filter(|(name, _)| name == raw::CONFIG_VARIABLE);
            found.map(|(_, value)| PathBuf::from(value)).next()
        };
        self.args.config.clone().or_else(variable)
    }
}

impl Reader {
    fn reject_unknown_keys(&mut self) {
        for (key, entry) in std::mem::take(&mut self.file) {
            let nearest = self.nearest_known(&key);
            self.faults.push(Fault::UnknownKey {
                origin: entry.origin,
                key,
                nearest,
            });
        }
    }

    /// Kubernetes puts RTPBRIDGE_PORT and the like into every pod beside a service of our name, so
    /// these must not stop the program.
    fn unknown_variables(&self) -> Vec<String> {
        let unknown = self.environment.keys().map(|name| {
            let key = name.trim_start_matches(raw::PREFIX).to_ascii_lowercase();
            match self.nearest_known(&key) {
                Some(known) => {
                    let known = raw::variable_of(known);
                    format!("ignoring unknown environment variable {name}, did you mean {known}?")
                }
                None => format!("ignoring unknown environment variable {name}"),
            }
        });
        unknown.collect()
    }

    /// The known key most like `key`, unless none is like it.
    fn nearest_known(&self, key: &str) -> Option<&'static str> {
        const ALIKE: f64 = 0.75;
        let known = self.settings.iter().map(|setting| setting.key);
        let scored = known.map(|known| (strsim::jaro_winkler(known, key), known));
        let best = scored.max_by(|(a, _), (b, _)| a.total_cmp(b))?;
        (best.0 >= ALIKE).then_some(best.1)
    }
}

fn read_entries(path: &std::path::Path) -> Result<Vec<(String, Entry)>, Fault> {
    raw::parse_file(path, &raw::read_file(path)?)
}

fn argument_entries(args: &ConfigArgs) -> BTreeMap<&'static str, Entry> {
    let word = |text: &Option<String>| text.clone().map(RawValue::Word);
    let words = |list: &[String]| (!list.is_empty()).then(|| RawValue::Words(list.to_vec()));
    let path = args.runtime_dir.as_ref();
    let path = path.map(|path| RawValue::Word(path.to_string_lossy().into_owned()));
    let given = [
        ("listen", "--listen", words(&args.listen)),
        ("media_ip", "--media-ip", words(&args.media_ip)),
        ("log_level", "--log-level", word(&args.log_level)),
        ("log_format", "--log-format", word(&args.log_format)),
        ("runtime_dir", "--runtime-dir", path),
    ];
    let entries = given.into_iter().filter_map(|(key, flag, value)| {
        let origin = Origin::Argument(flag);
        Some((
            key,
            Entry {
                value: value?,
                origin,
            },
        ))
    });
    entries.collect()
}

//! `--print-config`: the effective configuration as a TOML file, each value with its origin.

use std::fmt::Write as _;

use super::load::Loaded;

impl Loaded {
    /// One line per key; the result is itself a valid configuration file.
    pub fn to_toml(&self) -> String {
        let mut text = String::new();
        for setting in &self.settings {
            // A line break in a path's name must not end the comment.
            let origin = setting
                .origin
                .to_string()
                .replace(char::is_control, "\u{fffd}");
            let line = match &setting.toml {
                Some(value) => format!("{} = {value}", setting.key),
                None => format!("# {} is not set", setting.key),
            };
            // Writing to a String cannot fail.
            let _ = writeln!(text, "{line:<56} # {origin}");
        }
        text
    }
}

//! Values as they stand in their sources, before any rule is applied: an untyped word from the
//! command line or the environment, or a TOML value with its line. Nothing is judged here.

use std::collections::BTreeMap;
use std::fmt;
use std::path::Path;

use toml_edit::{Document, Item, Value};

use super::error::{Fault, Origin};

/// A configuration file larger than this is not read.
pub(super) const MAX_FILE_BYTES: u64 = 1024 * 1024;

/// One value from one source.
#[derive(Clone, PartialEq, Debug)]
pub(super) enum RawValue {
    /// From the command line or the environment: may become any type.
    Word(String),
    /// Several arguments of one name.
    Words(Vec<String>),
    /// A TOML string.
    Text(String),
    /// A TOML integer.
    Integer(i64),
    /// A TOML boolean.
    Boolean(bool),
    /// A TOML array.
    List(Vec<RawValue>),
    /// A TOML type that no key takes, as written.
    Other(String),
}

/// A value with the place it stood.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    pub(super) value: RawValue,
    pub(super) origin: Origin,
}

/// The longest part of a value that is repeated in a message.
const SHOWN_CHARS: usize = 80;

impl fmt::Display for RawValue {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let full = match self {
            RawValue::Word(word) => word.clone(),
            RawValue::Words(words) => words.join(","),
            RawValue::Text(text) => format!("{text:?}"),
            RawValue::Integer(number) => number.to_string(),
            RawValue::Boolean(boolean) => boolean.to_string(),
            RawValue::List(items) => {
                let items: Vec<String> = items.iter().map(RawValue::to_string).collect();
                format!("[{}]", items.join(", "))
            }
            RawValue::Other(written) => written.clone(),
        };
        // Control characters of a hostile value must not reach a terminal or a log.
        let mut chars = full
            .chars()
            .map(|c| if c.is_control() { '\u{fffd}' } else { c });
        let head: String = chars.by_ref().take(SHOWN_CHARS).collect();
        f.write_str(&head)?;
        if chars.next().is_some() {
            f.write_str("…")?;
        }
        Ok(())
    }
}

/// The entries of a TOML document by key, in file order, or where it stops being TOML.
pub(super) fn parse_file(path: &Path, text: &str) -> Result<Vec<(String, Entry)>, Fault> {
    let origin_at = |offset: usize| Origin::File {
        path: path.to_path_buf(),
        line: line_of(text, offset),
    };
    let document = Document::parse(text).map_err(|error| Fault::Syntax {
        origin: origin_at(error.span().map_or(0, |span| span.start)),
        message: error.message().replace('\n', ", "),
    })?;
    let table = document.as_table();
    let mut entries: Vec<(usize, String, Entry)> = table
        .iter()
        .map(|(key, item)| {
            let key_span = table.key(key).and_then(toml_edit::Key::span);
            let offset = key_span
                .or_else(|| item.span())
                .map_or(0, |span| span.start);
            let entry = Entry {
                value: from_item(item, text),
                origin: origin_at(offset),
            };
            (offset, key.to_owned(), entry)
        })
        .collect();
    entries.sort_by_key(|(offset, ..)| *offset);
    Ok(entries
        .into_iter()
        .map(|(_, key, entry)| (key, entry))
        .collect())
}

fn line_of(text: &str, offset: usize) -> usize {
    let before = text.as_bytes().iter().take(offset);
    1 + before.filter(|byte| **byte == b'\n').count()
}

fn from_item(item: &Item, text: &str) -> RawValue {
    match item {
        Item::Value(value) => from_value(value, text),
        Item::Table(_) => RawValue::Other("[table]".to_owned()),
        Item::ArrayOfTables(_) => RawValue::Other("[[table]]".to_owned()),
        Item::None => RawValue::Other(String::new()),
    }
}

fn from_value(value: &Value, text: &str) -> RawValue {
    match value {
        Value::String(string) => RawValue::Text(string.value().clone()),
        Value::Integer(number) => RawValue::Integer(*number.value()),
        Value::Boolean(boolean) => RawValue::Boolean(*boolean.value()),
        Value::Array(items) => {
            RawValue::List(items.iter().map(|item| from_value(item, text)).collect())
        }
        Value::Float(_) | Value::Datetime(_) | Value::InlineTable(_) => {
            let written = value.span().and_then(|span| text.get(span));
            RawValue::Other(written.unwrap_or_default().to_owned())
        }
    }
}

/// Reads the file with a bound on its size.
pub(super) fn read_file(path: &Path) -> Result<String, Fault> {
    let unreadable = |message: String| Fault::Unreadable {
        path: path.to_path_buf(),
        message,
    };
    let describe = |error: std::io::Error| unreadable(error.to_string());
    let metadata = std::fs::metadata(path).map_err(describe)?;
    if !metadata.is_file() {
        return Err(unreadable("not a regular file".to_owned()));
    }
    if metadata.len() > MAX_FILE_BYTES {
        return Err(unreadable(format!(
            "{} bytes, at most {MAX_FILE_BYTES} are read",
            metadata.len()
        )));
    }
    std::fs::read_to_string(path).map_err(describe)
}

/// Prefix of all environment variables of the programs.
pub(super) const PREFIX: &str = "RTPBRIDGE_";
/// Names the configuration file; not a key itself.
pub(super) const CONFIG_VARIABLE: &str = "RTPBRIDGE_CONFIG";

/// The variable that sets `key`.
pub(super) fn variable_of(key: &str) -> String {
    format!("{PREFIX}{}", key.to_ascii_uppercase())
}

/// The prefixed variables by full name.
pub(super) fn collect_environment(variables: &[(String, String)]) -> BTreeMap<String, Entry> {
    let prefixed = variables
        .iter()
        .filter(|(name, _)| name.starts_with(PREFIX) && name != CONFIG_VARIABLE);
    prefixed
        .map(|(name, value)| {
            let entry = Entry {
                value: RawValue::Word(value.clone()),
                origin: Origin::Environment(name.clone()),
            };
            (name.clone(), entry)
        })
        .collect()
}

//! Takes one key after another out of the sources and applies its rule. A value that breaks its
//! rule is recorded as a fault and reading goes on with the default, so that one run finds all.

use std::collections::BTreeMap;
use std::fmt::Display;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::str::FromStr;

use super::error::{Fault, Origin};
use super::raw::{Entry, RawValue, variable_of};
use super::value::PortRange;

/// A key with the value that took effect, for `--print-config`.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Setting {
    /// Key of operations.md.
    pub key: &'static str,
    /// As TOML; `None` when unset.
    pub toml: Option<String>,
    /// Where it came from.
    pub origin: Origin,
}

/// What may be said about a value that breaks its rule.
type Checked<T> = Result<T, String>;

pub(super) struct Reader {
    pub(super) arguments: BTreeMap<&'static str, Entry>,
    pub(super) environment: BTreeMap<String, Entry>,
    pub(super) file: Vec<(String, Entry)>,
    pub(super) settings: Vec<Setting>,
    pub(super) faults: Vec<Fault>,
}

impl Reader {
    /// The effective entry of `key`: argument over environment over file.
    fn take(&mut self, key: &'static str) -> Option<Entry> {
        let argument = self.arguments.remove(key);
        let variable = self.environment.remove(&variable_of(key));
        let at = self.file.iter().position(|(name, _)| name == key);
        let line = at.map(|at| self.file.remove(at).1);
        argument.or(variable).or(line)
    }

    /// Reads one key; `show` renders the value as TOML.
    pub(super) fn read<T>(
        &mut self,
        key: &'static str,
        default: T,
        parse: impl FnOnce(&RawValue) -> Checked<T>,
        show: impl FnOnce(&T) -> Option<String>,
    ) -> T {
        let (value, origin) = match self.take(key) {
            None => (default, Origin::Default),
            Some(entry) => match parse(&entry.value) {
                Ok(value) => (value, entry.origin),
                Err(bound) => {
                    let written = entry.value.to_string();
                    self.fault_at(entry.origin.clone(), key, written, bound);
                    (default, entry.origin)
                }
            },
        };
        let toml = show(&value);
        self.settings.push(Setting { key, toml, origin });
        value
    }

    /// Records that the value of `key`, well-formed in itself, cannot be used.
    pub(super) fn fault(&mut self, key: &'static str, value: impl Display, bound: String) {
        let setting = self.settings.iter().find(|setting| setting.key == key);
        let origin = setting.map_or(Origin::Default, |setting| setting.origin.clone());
        self.fault_at(origin, key, value.to_string(), bound);
    }

    fn fault_at(&mut self, origin: Origin, key: &'static str, value: String, bound: String) {
        self.faults.push(Fault::Value {
            origin,
            key,
            value,
            bound,
        });
    }

    pub(super) fn integer(&mut self, key: &'static str, default: u64, min: u64, max: u64) -> u64 {
        let parse = |raw: &RawValue| integer(raw, min, max);
        self.read(key, default, parse, |value| Some(value.to_string()))
    }

    pub(super) fn boolean(&mut self, key: &'static str, default: bool) -> bool {
        self.read(key, default, boolean, |value| Some(value.to_string()))
    }

    /// One of the words of an enum.
    pub(super) fn word<T: Copy + Display>(
        &mut self,
        key: &'static str,
        default: T,
        all: &[T],
    ) -> T {
        let parse = |raw: &RawValue| word(raw, all);
        self.read(key, default, parse, |value| Some(quoted(value)))
    }

    /// Several different words of an enum, at least one.
    pub(super) fn words<T: Copy + Display + PartialEq>(
        &mut self,
        key: &'static str,
        default: Vec<T>,
        all: &[T],
    ) -> Vec<T> {
        let parse = |raw: &RawValue| distinct(raw, |item| word(item, all));
        self.read(key, default, parse, |value| Some(list(value)))
    }

    /// Several different ip:port, at least one.
    pub(super) fn socket_addrs(
        &mut self,
        key: &'static str,
        default: SocketAddr,
    ) -> Vec<SocketAddr> {
        let parse = |raw: &RawValue| distinct(raw, socket_addr);
        self.read(key, vec![default], parse, |value| Some(list(value)))
    }

    /// Several different addresses, at least one.
    pub(super) fn ips(&mut self, key: &'static str, default: Vec<IpAddr>) -> Vec<IpAddr> {
        let show = |value: &Vec<IpAddr>| (!value.is_empty()).then(|| list(value));
        self.read(key, default, |raw| distinct(raw, ip_addr), show)
    }

    /// Any number of non-empty strings.
    pub(super) fn strings(&mut self, key: &'static str) -> Vec<String> {
        let show = |value: &Vec<String>| Some(list(value));
        self.read(key, Vec::new(), strings, show)
    }

    pub(super) fn path(&mut self, key: &'static str, default: PathBuf) -> PathBuf {
        self.read(key, default, path, |value| Some(quoted(&value.display())))
    }

    pub(super) fn optional_path(&mut self, key: &'static str) -> Option<PathBuf> {
        let parse = |raw: &RawValue| path(raw).map(Some);
        let show = |value: &Option<PathBuf>| value.as_ref().map(|path| quoted(&path.display()));
        self.read(key, None, parse, show)
    }

    pub(super) fn port_pairs(&mut self, key: &'static str, default: PortRange) -> PortRange {
        let parse = |raw: &RawValue| {
            let (start, end) = range(raw).ok_or(PAIRS_RULE)?;
            PortRange::of_pairs(start, end).ok_or(PAIRS_RULE)
        };
        let parse = |raw: &RawValue| parse(raw).map_err(|rule: &str| rule.to_owned());
        self.read(key, default, parse, |value| Some(show_range(value)))
    }

    pub(super) fn optional_ports(&mut self, key: &'static str) -> Option<PortRange> {
        let parse = |raw: &RawValue| {
            let found = range(raw).and_then(|(start, end)| PortRange::new(start, end));
            found.map(Some).ok_or_else(|| PORTS_RULE.to_owned())
        };
        let show = |value: &Option<PortRange>| value.as_ref().map(show_range);
        self.read(key, None, parse, show)
    }
}

const PAIRS_RULE: &str = "must be [start, end] with an even start, both from 1024 to 65534 and room for at least one pair";
const PORTS_RULE: &str = "must be [start, end], both from 1024 to 65535, start at most end";

fn integer(raw: &RawValue, min: u64, max: u64) -> Checked<u64> {
    let number = match raw {
        RawValue::Word(word) => word.trim().parse().ok(),
        RawValue::Integer(number) => u64::try_from(*number).ok(),
        _ => None,
    };
    number
        .filter(|number| (min..=max).contains(number))
        .ok_or_else(|| format!("must be an integer from {min} to {max}"))
}

fn boolean(raw: &RawValue) -> Checked<bool> {
    match raw {
        RawValue::Boolean(value) => Ok(*value),
        RawValue::Word(word) => match word.trim() {
            "true" | "1" => Ok(true),
            "false" | "0" => Ok(false),
            _ => Err("must be true or false".to_owned()),
        },
        _ => Err("must be true or false".to_owned()),
    }
}

fn text(raw: &RawValue) -> Option<&str> {
    match raw {
        RawValue::Word(text) | RawValue::Text(text) => Some(text.trim()),
        _ => None,
    }
}

fn word<T: Copy + Display>(raw: &RawValue, all: &[T]) -> Checked<T> {
    let wanted = text(raw);
    let known = all
        .iter()
        .find(|word| Some(word.to_string().as_str()) == wanted);
    known.copied().ok_or_else(|| {
        let names: Vec<String> = all.iter().map(T::to_string).collect();
        format!("must be one of {}", names.join(", "))
    })
}

/// A string (split at commas) or a list of them.
fn items(raw: &RawValue) -> Vec<RawValue> {
    let split = |text: &str| -> Vec<RawValue> {
        let parts = text.split(',').map(|part| part.trim().to_owned());
        parts.map(RawValue::Text).collect()
    };
    match raw {
        RawValue::Word(text) | RawValue::Text(text) => split(text),
        RawValue::Words(words) => words.iter().flat_map(|word| split(word)).collect(),
        RawValue::List(items) => items.clone(),
        other => vec![other.clone()],
    }
}

fn distinct<T: PartialEq + Display>(
    raw: &RawValue,
    parse: impl Fn(&RawValue) -> Checked<T>,
) -> Checked<Vec<T>> {
    let mut values: Vec<T> = Vec::new();
    for item in items(raw) {
        let value = parse(&item)?;
        if values.contains(&value) {
            return Err(format!("names {value} twice"));
        }
        values.push(value);
    }
    if values.is_empty() {
        return Err("must name at least one".to_owned());
    }
    Ok(values)
}

fn strings(raw: &RawValue) -> Checked<Vec<String>> {
    if text(raw) == Some("") {
        return Ok(Vec::new());
    }
    let one = |item: &RawValue| {
        text(item)
            .filter(|text| !text.is_empty())
            .map(str::to_owned)
    };
    let all: Option<Vec<String>> = items(raw).iter().map(one).collect();
    all.ok_or_else(|| "must be a list of non-empty strings".to_owned())
}

fn socket_addr(raw: &RawValue) -> Checked<SocketAddr> {
    from_text(raw).ok_or_else(|| "must be ip:port, like 127.0.0.1:9100 or [::1]:9100".to_owned())
}

fn ip_addr(raw: &RawValue) -> Checked<IpAddr> {
    let ip: Option<IpAddr> = from_text(raw);
    let ip = ip.ok_or_else(|| "must be an IP address".to_owned())?;
    if ip.is_multicast() {
        return Err("must not be a multicast address".to_owned());
    }
    Ok(ip)
}

fn from_text<T: FromStr>(raw: &RawValue) -> Option<T> {
    text(raw)?.parse().ok()
}

/// An absolute path; a relative one counts from the working directory.
fn path(raw: &RawValue) -> Checked<PathBuf> {
    let written = match raw {
        RawValue::Word(text) | RawValue::Text(text) => text,
        _ => return Err("must be a path".to_owned()),
    };
    if written.contains('\0') {
        return Err("must not contain a NUL character".to_owned());
    }
    std::path::absolute(Path::new(written)).map_err(|_| "must not be empty".to_owned())
}

/// `[start, end]`, or `start-end` in a string.
fn range(raw: &RawValue) -> Option<(u16, u16)> {
    let port = |number: &RawValue| integer(number, 0, 65535).ok()?.try_into().ok();
    match raw {
        RawValue::List(list) => match list.as_slice() {
            [start, end] => Some((port(start)?, port(end)?)),
            _ => None,
        },
        RawValue::Word(text) | RawValue::Text(text) => {
            let inner = text.trim().trim_start_matches('[').trim_end_matches(']');
            let (start, end) = inner.split_once(['-', ','])?;
            Some((start.trim().parse().ok()?, end.trim().parse().ok()?))
        }
        _ => None,
    }
}

fn show_range(range: &PortRange) -> String {
    format!("[{}, {}]", range.start(), range.end())
}

fn list<T: Display>(values: &[T]) -> String {
    let quoted: Vec<String> = values.iter().map(|value| quoted(value)).collect();
    format!("[{}]", quoted.join(", "))
}

/// A TOML basic string.
fn quoted<T: Display + ?Sized>(value: &T) -> String {
    let mut text = String::from('"');
    for c in value.to_string().chars() {
        match c {
            '"' | '\\' => text.extend(['\\', c]),
            c if c.is_control() => text.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => text.push(c),
        }
    }
    text.push('"');
    text
}

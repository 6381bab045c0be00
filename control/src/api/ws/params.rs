//! The members of `params`. Unknown ones are never looked at; each known one is read by the method
//! that wants it, so that an error names the field and its bounds.

use std::borrow::Cow;
use std::fmt::Display;
use std::ops::RangeInclusive;
use std::str::FromStr;

use rtpbridge_shared::vocab::Direction;
use serde::Deserialize;
use serde::de::{Deserializer, MapAccess, Visitor};
use serde_json::value::RawValue;

use super::envelope::{ApiError, Code};

/// Below this every whole number can be written as a floating one.
const MAX_EXACT: f64 = (1_u64 << 53) as f64;

/// `params` of one request.
#[derive(Debug, Default)]
pub(super) struct Params<'a> {
    members: Vec<(Cow<'a, str>, &'a RawValue)>,
}

impl<'a> Params<'a> {
    /// Absent and null are an empty object.
    ///
    /// # Errors
    /// `INVALID_PARAMS` when it is no object.
    pub(super) fn read(raw: Option<&'a RawValue>) -> Result<Self, ApiError> {
        let Some(raw) = raw.filter(|raw| raw.get() != "null") else {
            return Ok(Self::default());
        };
        let mut deserializer = serde_json::Deserializer::from_str(raw.get());
        deserializer
            .deserialize_map(MemberVisitor)
            .map(|members| Self { members })
            .map_err(|_| ApiError::new(Code::InvalidParams, "params must be an object"))
    }

    /// Whether the member is there, null included.
    pub(super) fn has(&self, name: &str) -> bool {
        self.raw(name).is_some()
    }

    /// A string that must be there.
    pub(super) fn string(&self, name: &str) -> Result<Cow<'a, str>, ApiError> {
        self.optional_string(name)?.ok_or_else(|| missing(name))
    }

    /// A string, null or absent.
    pub(super) fn optional_string(&self, name: &str) -> Result<Option<Cow<'a, str>>, ApiError> {
        #[derive(Deserialize)]
        struct Text<'b>(#[serde(borrow)] Cow<'b, str>);
        let text: Option<Text<'a>> = self.parsed(name, "must be a string")?;
        Ok(text.map(|text| text.0))
    }

    /// An id that must be there.
    pub(super) fn id<I: FromStr>(&self, name: &str) -> Result<I, ApiError> {
        self.optional_id(name)?.ok_or_else(|| missing(name))
    }

    /// An id, null or absent.
    pub(super) fn optional_id<I: FromStr>(&self, name: &str) -> Result<Option<I>, ApiError> {
        let text = self.optional_string(name)?;
        text.map(|text| text.parse())
            .transpose()
            .map_err(|_| ApiError::invalid(name, "must be a UUID"))
    }

    /// A boolean, false when null or absent.
    pub(super) fn flag(&self, name: &str) -> Result<bool, ApiError> {
        Ok(self.parsed(name, "must be a boolean")?.unwrap_or(false))
    }

    /// A boolean that must be there.
    pub(super) fn required_flag(&self, name: &str) -> Result<bool, ApiError> {
        self.parsed(name, "must be a boolean")?
            .ok_or_else(|| missing(name))
    }

    /// A whole number within `bounds`, null or absent.
    pub(super) fn integer(
        &self,
        name: &str,
        bounds: RangeInclusive<u64>,
    ) -> Result<Option<u64>, ApiError> {
        let problem = if *bounds.end() == u64::MAX {
            format!("must be a whole number of at least {}", bounds.start())
        } else {
            bounds_text("a whole number", bounds.start(), bounds.end())
        };
        let number = match self.parsed(name, &problem) {
            Ok(number) => number,
            // JSON has one kind of number: 5.0 is 5.
            Err(error) => match self.parsed(name, &problem)?.and_then(whole) {
                None => return Err(error),
                number => number,
            },
        };
        match number {
            Some(number) if !bounds.contains(&number) => Err(ApiError::invalid(name, &problem)),
            other => Ok(other),
        }
    }

    /// A number within `bounds`, null or absent.
    pub(super) fn number(
        &self,
        name: &str,
        bounds: RangeInclusive<f64>,
    ) -> Result<Option<f64>, ApiError> {
        let problem = bounds_text("a number", bounds.start(), bounds.end());
        let number: Option<f64> = self.parsed(name, &problem)?;
        match number {
            Some(number) if !bounds.contains(&number) => Err(ApiError::invalid(name, &problem)),
            other => Ok(other),
        }
    }

    /// `direction`, sendrecv when null or absent.
    pub(super) fn direction(&self) -> Result<Direction, ApiError> {
        match self.optional_string("direction")? {
            None => Ok(Direction::Sendrecv),
            Some(text) => Direction::from_text(&text).ok_or_else(|| {
                ApiError::invalid(
                    "direction",
                    "must be sendrecv, recvonly, sendonly or inactive",
                )
            }),
        }
    }

    /// An SDP of at most `max_bytes`.
    pub(super) fn sdp(&self, max_bytes: usize) -> Result<String, ApiError> {
        let sdp = self.string("sdp")?;
        if sdp.len() > max_bytes {
            let problem = format!("too large, at most {max_bytes} bytes");
            return Err(ApiError::invalid("sdp", &problem));
        }
        Ok(sdp.into_owned())
    }

    /// A list of strings, empty when null or absent.
    pub(super) fn strings(&self, name: &str) -> Result<Vec<String>, ApiError> {
        let list = self.parsed(name, "must be a list of strings")?;
        Ok(list.unwrap_or_default())
    }

    /// An object of strings as name and value, empty when null or absent.
    pub(super) fn string_map(&self, name: &str) -> Result<Vec<(String, String)>, ApiError> {
        let map: Option<std::collections::BTreeMap<String, String>> =
            self.parsed(name, "must be an object of strings")?;
        Ok(map.unwrap_or_default().into_iter().collect())
    }

    fn parsed<T: Deserialize<'a>>(&self, name: &str, problem: &str) -> Result<Option<T>, ApiError> {
        let Some(raw) = self.raw(name).filter(|raw| raw.get() != "null") else {
            return Ok(None);
        };
        serde_json::from_str(raw.get())
            .map(Some)
            .map_err(|_| ApiError::invalid(name, problem))
    }

    /// The last one wins, as in most JSON readers.
    fn raw(&self, name: &str) -> Option<&'a RawValue> {
        let mut named = self.members.iter().rev();
        named
            .find(|(member, _)| member == name)
            .map(|(_, value)| *value)
    }
}

fn whole(number: f64) -> Option<u64> {
    let is_whole = number.fract() == 0.0 && (0.0..=MAX_EXACT).contains(&number);
    // Exact within the bounds.
    is_whole.then_some(number as u64)
}

fn missing(name: &str) -> ApiError {
    ApiError::invalid(name, "is missing")
}

fn bounds_text(kind: &str, least: impl Display, most: impl Display) -> String {
    format!("must be {kind} from {least} to {most}")
}

struct MemberVisitor;

impl<'de> Visitor<'de> for MemberVisitor {
    type Value = Vec<(Cow<'de, str>, &'de RawValue)>;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("an object")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let mut members = Vec::new();
        while let Some(member) = map.next_entry()? {
            members.push(member);
        }
        Ok(members)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn with<T>(text: &str, read: impl FnOnce(&Params<'_>) -> T) -> T {
        let raw: Box<RawValue> = serde_json::from_str(text).expect("is JSON");
        read(&Params::read(Some(&raw)).expect("is an object"))
    }

    #[test]
    fn null_is_as_absent() {
        assert!(Params::read(None).is_ok());
        with("null", |params| assert!(!params.has("a")));
        with(r#"{"direction":null,"n":null}"#, |params| {
            assert_eq!(params.direction(), Ok(Direction::Sendrecv));
            assert_eq!(params.integer("n", 1..=5), Ok(None));
            assert!(params.has("n"));
        });
    }

    #[test]
    fn other_types_than_objects_are_refused() {
        for text in ["[]", "1", "\"a\"", "true"] {
            let raw: Box<RawValue> = serde_json::from_str(text).expect("is JSON");
            let error = Params::read(Some(&raw)).expect_err("no object");
            assert_eq!(error.code, Code::InvalidParams);
        }
    }

    #[test]
    fn errors_name_field_and_bounds() {
        let error = with(r#"{"duration_ms":10001}"#, |params| {
            params.integer("duration_ms", 1..=10_000)
        })
        .expect_err("out of range");
        assert!(error.message.contains("duration_ms"));
        assert!(error.message.contains("10000"));
        for text in [r#"{"d":1.5}"#, r#"{"d":"1"}"#, r#"{"d":-1}"#, r#"{"d":[]}"#] {
            assert!(
                with(text, |params| params.integer("d", 0..=9)).is_err(),
                "{text}"
            );
        }
        let large = with(r#"{"sdp":"12345"}"#, |params| params.sdp(4)).expect_err("large");
        assert!(large.message.contains("too large"));
    }

    #[test]
    fn whole_numbers_may_be_written_as_floating_ones() {
        for text in [r#"{"d":5}"#, r#"{"d":5.0}"#, r#"{"d":0.5e1}"#] {
            let read = with(text, |params| params.integer("d", 0..=9));
            assert_eq!(read, Ok(Some(5)), "{text}");
        }
        for text in [r#"{"d":10.0}"#, r#"{"d":1e300}"#, r#"{"d":-5.0}"#] {
            let read = with(text, |params| params.integer("d", 0..=9));
            assert!(read.is_err(), "{text}");
        }
    }

    #[test]
    fn escaped_names_and_values_are_read() {
        with(r#"{"s\u0064p":"a\r\nb"}"#, |params| {
            assert_eq!(params.sdp(10), Ok("a\r\nb".to_owned()));
        });
    }

    #[test]
    fn depth_in_a_member_costs_no_stack() {
        let deep = "[".repeat(100_000) + &"]".repeat(100_000);
        with(&format!(r#"{{"x":{deep},"s":{deep}}}"#), |params| {
            assert!(params.string("s").is_err());
            assert!(params.strings("s").is_err());
        });
    }
}

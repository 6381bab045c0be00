//! Conditional and range requests (RFC 9110 sections 13 and 14), one range at a time.

use axum::http::{HeaderMap, header};

/// What a GET asks for.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// The whole representation.
    All,
    /// These bytes, both ends included.
    Part {
        /// First byte.
        first: u64,
        /// Last byte.
        last: u64,
    },
    /// The client has it already.
    NotModified,
    /// A range that lies outside.
    Nothing,
}

/// Reads the conditions of `headers` against a representation of `length` bytes.
pub(super) fn wanted(headers: &HeaderMap, etag: &str, length: u64) -> Wanted {
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok());
    if let Some(known) = text(header::IF_NONE_MATCH) {
        let mut tags = known
            .split(',')
            .map(|tag| tag.trim().trim_start_matches("W/"));
        if tags.any(|tag| tag == etag || tag == "*") {
            return Wanted::NotModified;
        }
    }
    let Some(range) = text(header::RANGE) else {
        return Wanted::All;
    };
    if text(header::IF_RANGE).is_some_and(|known| known.trim() != etag) {
        return Wanted::All;
    }
    parse(range, length)
}

/// Other units, several ranges and nonsense are ignored, as section 14.2 allows.
fn parse(range: &str, length: u64) -> Wanted {
    let Some((first, last)) = range
        .trim()
        .strip_prefix("bytes=")
        .and_then(|spec| spec.split_once('-'))
    else {
        return Wanted::All;
    };
    let (first, last) = (first.trim(), last.trim());
    let bounds = match (first.is_empty(), last.is_empty()) {
        (true, true) => None,
        (true, false) => number(last).map(|suffix| (length.saturating_sub(suffix), length)),
        (false, true) => number(first).map(|first| (first, length)),
        (false, false) => match (number(first), number(last)) {
            (Some(first), Some(last)) if first <= last => {
                Some((first, last.saturating_add(1).min(length)))
            }
            _ => None,
        },
    };
    match bounds {
        None => Wanted::All,
        Some((first, end)) if first < end => Wanted::Part {
            first,
            last: end - 1,
        },
        Some(_) => Wanted::Nothing,
    }
}

fn number(text: &str) -> Option<u64> {
    text.bytes()
        .all(|byte| byte.is_ascii_digit())
        .then(|| text.parse().ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    #[test]
    fn ranges_are_read_as_the_standard_says() {
        let part = |first, last| Wanted::Part { first, last };
        let rows = [
            ("bytes=0-0", part(0, 0)),
            ("bytes=10-19", part(10, 19)),
            ("bytes=90-", part(90, 99)),
            ("bytes=90-1000", part(90, 99)),
            ("bytes=-10", part(90, 99)),
            ("bytes=-1000", part(0, 99)),
            ("bytes=100-", Wanted::Nothing),
            ("bytes=-0", Wanted::Nothing),
            ("bytes=5-4", Wanted::All),
            ("bytes=0-1,5-6", Wanted::All),
            ("bytes=-", Wanted::All),
            ("bytes=+1-2", Wanted::All),
            ("lines=1-2", Wanted::All),
            ("bytes=99999999999999999999-", Wanted::All),
        ];
        for (range, expected) in rows {
            assert_eq!(parse(range, 100), expected, "{range}");
        }
        assert_eq!(parse("bytes=0-", 0), Wanted::Nothing);
    }

    #[test]
    fn conditions_compare_the_tag() {
        let mut headers = HeaderMap::new();
        headers.insert(header::RANGE, HeaderValue::from_static("bytes=1-2"));
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"old\""));
        assert_eq!(wanted(&headers, "\"new\"", 9), Wanted::All);
        headers.insert(header::IF_RANGE, HeaderValue::from_static("\"new\""));
        assert_eq!(
            wanted(&headers, "\"new\"", 9),
            Wanted::Part { first: 1, last: 2 }
        );
        let known = HeaderValue::from_static("\"a\", W/\"new\"");
        headers.insert(header::IF_NONE_MATCH, known);
        assert_eq!(wanted(&headers, "\"new\"", 9), Wanted::NotModified);
    }
}

//! Who may come in: the Origin check of upgrades and the bearer token. An Origin is compared with
//! configured and own addresses only, never with the Host header, which DNS rebinding controls.

use std::collections::HashSet;
use std::net::SocketAddr;

use axum::http::{HeaderMap, header};
use subtle::ConstantTimeEq;

const HTTP_PORT: u16 = 80;

/// The rules of one process.
pub struct Access {
    origins: HashSet<String>,
    ports: HashSet<u16>,
    token: Option<String>,
}

impl Access {
    /// Rules for a process that listens on `bound`.
    pub fn new(allowed_origins: &[String], bound: &[SocketAddr], token: Option<String>) -> Self {
        let mut origins: HashSet<String> = allowed_origins
            .iter()
            .map(|origin| origin.trim_end_matches('/').to_ascii_lowercase())
            .collect();
        let bound: Vec<SocketAddr> = bound.iter().copied().map(canonical).collect();
        for address in &bound {
            origins.extend(own_origins(*address));
        }
        Self {
            origins,
            ports: bound.iter().map(SocketAddr::port).collect(),
            token,
        }
    }

    /// Whether a request with these headers may be upgraded; `local` is the address the connection
    /// arrived at, which a wildcard listener does not name.
    pub fn allows_origin(&self, headers: &HeaderMap, local: Option<SocketAddr>) -> bool {
        let mut given = headers.get_all(header::ORIGIN).iter();
        let Some(origin) = given.next() else {
            return true;
        };
        if given.next().is_some() {
            return false;
        }
        let Ok(origin) = origin.to_str() else {
            return false;
        };
        let origin = origin.to_ascii_lowercase();
        let arrived_here = local
            .map(canonical)
            .filter(|address| self.ports.contains(&address.port()))
            .is_some_and(|address| own_origins(address).contains(&origin));
        self.origins.contains(&origin) || arrived_here
    }

    /// Whether a request with these headers carries the token, if one is required.
    pub fn has_token(&self, headers: &HeaderMap) -> bool {
        let Some(token) = &self.token else {
            return true;
        };
        let given = headers
            .get(header::AUTHORIZATION)
            .map(|value| value.as_bytes())
            .and_then(bearer);
        given.is_some_and(|given| given.ct_eq(token.as_bytes()).into())
    }
}

/// The credentials of `Bearer <token>`; the scheme is case-insensitive (RFC 9110 section 11.1).
fn bearer(value: &[u8]) -> Option<&[u8]> {
    let (scheme, rest) = value.split_at_checked(7)?;
    scheme
        .eq_ignore_ascii_case(b"bearer ")
        .then(|| rest.trim_ascii())
}

/// A dual-stack socket, which a service manager may pass, sees IPv4 addresses mapped into IPv6.
fn canonical(address: SocketAddr) -> SocketAddr {
    SocketAddr::new(address.ip().to_canonical(), address.port())
}

fn own_origins(address: SocketAddr) -> Vec<String> {
    let port = address.port();
    let mut origins = vec![
        format!("http://{address}"),
        format!("http://localhost:{port}"),
    ];
    if port == HTTP_PORT {
        let host = match address {
            SocketAddr::V4(v4) => v4.ip().to_string(),
            SocketAddr::V6(v6) => format!("[{}]", v6.ip()),
        };
        origins.push(format!("http://{host}"));
        origins.push("http://localhost".to_owned());
    }
    origins
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn access() -> Access {
        Access::new(
            &["https://App.example".to_owned()],
            &["127.0.0.1:9100".parse().expect("address")],
            Some("s3cret".to_owned()),
        )
    }

    fn with(name: header::HeaderName, value: &'static str) -> HeaderMap {
        let mut headers = HeaderMap::new();
        headers.insert(header::HOST, HeaderValue::from_static("evil.example:9100"));
        headers.insert(name, HeaderValue::from_static(value));
        headers
    }

    #[test]
    fn only_listed_and_own_origins_pass_and_the_host_header_never_counts() {
        let rows = [
            ("https://app.example", true),
            ("http://127.0.0.1:9100", true),
            ("http://localhost:9100", true),
            ("https://127.0.0.1:9100", false),
            ("http://localhost:9101", false),
            ("http://evil.example:9100", false),
            ("http://127.0.0.1", false),
            ("null", false),
        ];
        for (origin, allowed) in rows {
            let headers = with(header::ORIGIN, origin);
            assert_eq!(access().allows_origin(&headers, None), allowed, "{origin}");
        }
        assert!(access().allows_origin(&HeaderMap::new(), None));
    }

    #[test]
    fn a_wildcard_listener_knows_the_address_a_connection_came_to() {
        let wildcard = Access::new(&[], &["0.0.0.0:9100".parse().expect("address")], None);
        let headers = with(header::ORIGIN, "http://10.0.0.5:9100");
        let local = "10.0.0.5:9100".parse().ok();
        assert!(wildcard.allows_origin(&headers, local));
        assert!(!wildcard.allows_origin(&headers, None));
    }

    #[test]
    fn a_dual_stack_listener_knows_ipv4_addresses_by_their_own_form() {
        let origin = |origin| with(header::ORIGIN, origin);
        let wildcard = Access::new(&[], &["[::]:9100".parse().expect("address")], None);
        let local = "[::ffff:10.0.0.5]:9100".parse().ok();
        assert!(wildcard.allows_origin(&origin("http://10.0.0.5:9100"), local));
        assert!(!wildcard.allows_origin(&origin("http://10.0.0.6:9100"), local));
        let mapped = "[::ffff:127.0.0.1]:9100".parse().expect("address");
        let mapped = Access::new(&[], &[mapped], None);
        assert!(mapped.allows_origin(&origin("http://127.0.0.1:9100"), None));
    }

    #[test]
    fn the_token_must_match_exactly() {
        let rows = [
            ("Bearer s3cret", true),
            ("bearer s3cret", true),
            ("Bearer s3cre", false),
            ("Bearer s3crets", false),
            ("Basic s3cret", false),
            ("s3cret", false),
        ];
        for (value, allowed) in rows {
            let headers = with(header::AUTHORIZATION, value);
            assert_eq!(access().has_token(&headers), allowed, "{value}");
        }
        assert!(!access().has_token(&HeaderMap::new()));
        assert!(Access::new(&[], &[], None).has_token(&HeaderMap::new()));
    }
}

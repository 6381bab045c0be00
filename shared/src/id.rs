//! Identifiers shared by both processes: UUID version 4 (RFC 9562), 16 bytes on the internal wire,
//! hyphenated lower-case text towards clients. Control makes them, the dataplane only stores them.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Deserializer, Serialize, Serializer};
use uuid::Uuid;

macro_rules! define_id {
    ($(#[$doc:meta])* $name:ident) => {
        $(#[$doc])*
        #[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        pub struct $name(Uuid);

        impl $name {
            /// A fresh random identifier.
            pub fn random() -> Self {
                Self(Uuid::new_v4())
            }

            /// The identifier with exactly these bytes; for tests and simulations.
            pub const fn from_bytes(bytes: [u8; 16]) -> Self {
                Self(Uuid::from_bytes(bytes))
            }

            /// The 16 bytes of the UUID.
            pub const fn as_bytes(&self) -> &[u8; 16] {
                self.0.as_bytes()
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        impl fmt::Debug for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                fmt::Display::fmt(&self.0.hyphenated(), f)
            }
        }

        impl FromStr for $name {
            type Err = uuid::Error;

            /// Accepts the hyphenated form only, upper or lower case.
            fn from_str(text: &str) -> Result<Self, Self::Err> {
                uuid::fmt::Hyphenated::from_str(text).map(|parsed| Self(parsed.into_uuid()))
            }
        }

        impl Serialize for $name {
            fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
                if serializer.is_human_readable() {
                    serializer.collect_str(self)
                } else {
                    self.0.as_bytes().serialize(serializer)
                }
            }
        }

        impl<'de> Deserialize<'de> for $name {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                if deserializer.is_human_readable() {
                    let text = String::deserialize(deserializer)?;
                    text.parse().map_err(serde::de::Error::custom)
                } else {
                    <[u8; 16]>::deserialize(deserializer).map(Self::from_bytes)
                }
            }
        }
    };
}

define_id!(
    /// Names one session for its whole life.
    SessionId
);
define_id!(
    /// Names one endpoint for its whole life; a transfer keeps it.
    EndpointId
);
define_id!(
    /// Names one recording.
    RecordingId
);
define_id!(
    /// Names one run of one process. Another value after a reconnect means another process.
    InstanceId
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn text_form_is_hyphenated_and_round_trips() {
        let id = SessionId::random();
        let text = id.to_string();
        assert_eq!(text.len(), 36);
        assert_eq!(text.parse::<SessionId>().ok(), Some(id));
        let simple: String = text.chars().filter(|c| *c != '-').collect();
        assert!(simple.parse::<SessionId>().is_err());
    }

    #[test]
    fn json_form_is_a_string() {
        let id = EndpointId::from_bytes([7; 16]);
        let json = serde_json::to_string(&id).expect("ids serialise");
        assert_eq!(json, format!("\"{id}\""));
        assert_eq!(serde_json::from_str::<EndpointId>(&json).ok(), Some(id));
    }
}

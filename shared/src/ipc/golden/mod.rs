//! Pins the encoded bytes of every message. `golden.txt` has one line per message: its name and the
//! body in hex. A line that no longer matches means the format changed: that is a decision which goes
//! with a new `PROTOCOL_VERSION`, and the failing test prints the file as it would have to be.

mod frames;
mod payloads;
mod requests;

use std::collections::BTreeSet;
use std::fmt::Write;

use serde::Serialize;
use serde::de::DeserializeOwned;

use self::frames::{to_control, to_dataplane};
use self::payloads::{errors, events, replies};
use self::requests::requests;
use super::error::RequestError;
use super::event::Event;
use super::frame;
use super::message::{Reply, Request, ToControl, ToDataplane};

fn check_round_trip<M>(message: &M) -> String
where
    M: Serialize + DeserializeOwned + PartialEq + std::fmt::Debug,
{
    let mut bytes = Vec::new();
    frame::encode(message, &mut bytes).expect("samples encode");
    let body = &bytes[4..];
    let back: M = frame::decode(body).expect("samples decode");
    assert_eq!(&back, message);
    for cut in 0..body.len() {
        assert!(
            frame::decode::<M>(&body[..cut]).is_err(),
            "{cut} bytes of {message:?} decode"
        );
    }
    body.iter().fold(String::new(), |mut text, byte| {
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[test]
fn encoded_bytes_are_as_pinned() {
    let mut actual = String::new();
    for (name, message) in to_dataplane() {
        let _ = writeln!(actual, "ToDataplane.{name} {}", check_round_trip(&message));
    }
    for (name, message) in to_control() {
        let _ = writeln!(actual, "ToControl.{name} {}", check_round_trip(&message));
    }
    let pinned = include_str!("golden.txt");
    if actual != pinned {
        println!("{actual}");
        for (new, old) in actual.lines().zip(pinned.lines()) {
            assert_eq!(new, old, "the wire format changed");
        }
        panic!("messages were added or removed: golden.txt must list exactly the samples");
    }
}

#[test]
fn every_variant_has_a_sample() {
    fn variants<M: Serialize>(messages: &[M], path: &[usize]) -> BTreeSet<u8> {
        messages
            .iter()
            .filter_map(|message| {
                let mut bytes = Vec::new();
                frame::encode(message, &mut bytes).expect("samples encode");
                path.first().and_then(|at| bytes.get(4 + at)).copied()
            })
            .collect()
    }
    let requests: Vec<_> = requests().into_iter().map(|(_, request)| request).collect();
    let events: Vec<_> = events().into_iter().map(|(_, event)| event).collect();
    let replies: Vec<_> = replies().into_iter().map(|(_, reply)| reply).collect();
    let errors: Vec<_> = errors().into_iter().map(|(_, error)| error).collect();
    let inbound: Vec<_> = to_dataplane()
        .into_iter()
        .map(|(_, message)| message)
        .collect();
    let outbound: Vec<_> = to_control()
        .into_iter()
        .map(|(_, message)| message)
        .collect();
    // The first byte of a body is the variant's index: the samples must cover 0..n without a hole,
    // and the index after the last must not decode.
    fn check<M: DeserializeOwned>(name: &str, seen: &BTreeSet<u8>) {
        let count = u8::try_from(seen.len()).expect("few variants");
        assert_eq!(
            seen.iter().copied().collect::<Vec<_>>(),
            (0..count).collect::<Vec<_>>(),
            "{name}"
        );
        let mut body = vec![0u8; 4096];
        body[0] = count;
        let error = frame::decode::<M>(&body)
            .err()
            .map(|error| error.to_string());
        assert!(
            error
                .as_deref()
                .is_some_and(|text| text.contains("variant")),
            "{name} has a variant without a sample: {error:?}"
        );
    }
    check::<Request>("Request", &variants(&requests, &[0]));
    check::<Event>("Event", &variants(&events, &[0]));
    check::<Reply>("Reply", &variants(&replies, &[0]));
    check::<RequestError>("RequestError", &variants(&errors, &[0]));
    check::<ToDataplane>("ToDataplane", &variants(&inbound, &[0]));
    check::<ToControl>("ToControl", &variants(&outbound, &[0]));
}

proptest::proptest! {
    #[test]
    fn arbitrary_bodies_never_panic(body in proptest::collection::vec(proptest::num::u8::ANY, 0..512)) {
        let _ = frame::decode::<ToDataplane>(&body);
        let _ = frame::decode::<ToControl>(&body);
    }
}

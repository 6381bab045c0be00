use proptest::prelude::*;
use stun::attributes::ATTR_SOFTWARE;

use super::*;

const PASSWORD: &str = "a password of some length";

fn request(setters: &[&dyn Setter]) -> Vec<u8> {
    let mut message = Message::new();
    message.typ = BINDING_REQUEST;
    message.write_header();
    message.new_transaction_id().expect("random source");
    for setter in setters {
        setter.add_to(&mut message).expect("fits");
    }
    message.raw
}

fn username() -> stun::textattrs::Username {
    stun::textattrs::Username::new(ATTR_USERNAME, "ours:theirs".into())
}

fn integrity() -> MessageIntegrity {
    MessageIntegrity::new_short_term_integrity(PASSWORD.into())
}

#[test]
fn a_nomination_behind_the_integrity_attribute_is_not_believed() {
    let behind = request(&[&username(), &integrity(), &UseCandidateAttr, &FINGERPRINT]);
    let mut parsed = Request::parse(&behind).expect("well-formed");
    assert!(parsed.is_authentic(PASSWORD));
    assert!(!parsed.nominates());

    let before = request(&[&username(), &UseCandidateAttr, &integrity(), &FINGERPRINT]);
    let mut parsed = Request::parse(&before).expect("well-formed");
    assert!(parsed.is_authentic(PASSWORD));
    assert!(parsed.nominates());

    let user_behind = request(&[&integrity(), &username(), &FINGERPRINT]);
    let parsed = Request::parse(&user_behind).expect("well-formed");
    assert_eq!(parsed.username(), None);
}

#[test]
fn only_a_request_with_its_fingerprint_at_the_end_is_parsed() {
    let good = request(&[&username(), &integrity(), &FINGERPRINT]);
    assert!(Request::parse(&good).is_some());
    assert!(Request::parse(&request(&[&username(), &integrity()])).is_none());
    assert!(Request::parse(&request(&[])).is_none());
    assert!(Request::parse(&request(&[&FINGERPRINT, &username()])).is_none());
    for cut in 0..good.len() {
        assert!(Request::parse(&good[..cut]).is_none(), "{cut}");
    }
    let mut longer = good.clone();
    longer.extend_from_slice(&[0; 4]);
    assert!(Request::parse(&longer).is_none());
    for bit in 0..good.len() * 8 {
        let mut bad = good.clone();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(Request::parse(&bad).is_none(), "bit {bit}");
    }
}

#[test]
fn responses_and_indications_are_not_requests() {
    for kind in [0x0011u16, 0x0101, 0x0111, 0x0003] {
        let mut message = Message::new();
        message.typ.read_value(kind);
        message.write_header();
        FINGERPRINT.add_to(&mut message).expect("fits");
        assert!(Request::parse(&message.raw).is_none(), "{kind:#x}");
    }
}

#[test]
fn attributes_that_must_be_understood_are_named() {
    let unknown = stun::attributes::RawAttribute {
        typ: AttrType(0x0077),
        length: 0,
        value: vec![1, 2, 3],
    };
    let software = stun::textattrs::Software::new(ATTR_SOFTWARE, "peer".into());
    let raw = request(&[&username(), &software, &unknown, &integrity(), &FINGERPRINT]);
    let parsed = Request::parse(&raw).expect("well-formed");
    assert_eq!(parsed.unknown_attributes(), [AttrType(0x0077)]);
}

#[test]
fn too_many_attributes_are_too_much() {
    let software = stun::textattrs::Software::new(ATTR_SOFTWARE, "x".into());
    let mut setters: Vec<&dyn Setter> = vec![&software; MAX_ATTRIBUTES];
    setters.push(&FINGERPRINT);
    assert!(Request::parse(&request(&setters)).is_none());
    setters.remove(0);
    assert!(Request::parse(&request(&setters)).is_some());
}

/// A datagram whose header, and often fingerprint, is right, over attributes that are noise.
fn plausible() -> impl Strategy<Value = Vec<u8>> {
    let kinds = prop::sample::select(vec![
        0x0006u16, 0x0008, 0x0024, 0x0025, 0x8028, 0x8029, 0x802a, 9,
    ]);
    let attribute = (kinds, 0u16..40, prop::collection::vec(any::<u8>(), 0..40));
    (prop::collection::vec(attribute, 0..8), any::<bool>()).prop_map(|(attributes, right)| {
        let mut datagram = vec![0, 1, 0, 0, 0x21, 0x12, 0xa4, 0x42];
        datagram.extend_from_slice(&[7; 12]);
        for (kind, len, mut value) in attributes {
            datagram.extend_from_slice(&kind.to_be_bytes());
            if right {
                value.resize(usize::from(len), 0);
            }
            datagram.extend_from_slice(&len.to_be_bytes());
            value.resize(value.len().next_multiple_of(4), 0);
            datagram.extend_from_slice(&value);
        }
        let len = (datagram.len() - 20 + 8) as u16;
        datagram[2..4].copy_from_slice(&len.to_be_bytes());
        let crc = fingerprint_value(&datagram);
        datagram.extend_from_slice(&[0x80, 0x28, 0, 4]);
        datagram.extend_from_slice(&crc.to_be_bytes());
        datagram
    })
}

proptest! {
    #[test]
    fn no_datagram_panics(datagram in prop::collection::vec(any::<u8>(), 0..200)) {
        prop_assert!(Request::parse(&datagram).is_none());
    }

    #[test]
    fn no_arrangement_of_attributes_panics_or_passes(datagram in plausible()) {
        if let Some(mut request) = Request::parse(&datagram) {
            let _ = request.username();
            prop_assert!(!request.is_authentic(PASSWORD));
            let _ = (request.unknown_attributes(), request.nominates());
            let _ = request.claims_to_be_controlled();
        }
    }
}

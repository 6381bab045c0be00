use std::time::Duration;

use proptest::prelude::*;
use stun::attributes::ATTR_USERNAME;
use stun::error_code::ErrorCodeAttribute;
use stun::fingerprint::FINGERPRINT;
use stun::integrity::MessageIntegrity;
use stun::message::{BINDING_ERROR, BINDING_REQUEST, BINDING_SUCCESS, Getter, Message, Setter};
use stun::textattrs::Username;
use stun::xoraddr::XorMappedAddress;
use webrtc_ice::control::{AttrControlled, AttrControlling};
use webrtc_ice::priority::PriorityAttr;
use webrtc_ice::use_candidate::UseCandidateAttr;

use super::*;
use crate::ice::{CREDENTIAL_ENTROPY, random_credentials};

fn numbered(number: u8) -> IceCredentials {
    random_credentials(&[number; CREDENTIAL_ENTROPY])
}

fn from(port: u16) -> SocketAddr {
    SocketAddr::from(([192, 0, 2, 7], port))
}

fn at(seconds: u64) -> Instant {
    Instant::ZERO + Duration::from_secs(seconds)
}

struct Check<'a> {
    username: String,
    password: &'a str,
    extra: Vec<Box<dyn Setter>>,
}

impl<'a> Check<'a> {
    fn of(credentials: &'a IceCredentials) -> Self {
        Self {
            username: format!("{}:peer", credentials.ufrag()),
            password: credentials.password(),
            extra: vec![Box::new(PriorityAttr(1)), Box::new(AttrControlling(0x1234))],
        }
    }

    fn nominating(credentials: &'a IceCredentials) -> Self {
        let mut check = Self::of(credentials);
        check.extra.push(Box::new(UseCandidateAttr));
        check
    }

    fn bytes(&self) -> Vec<u8> {
        let mut message = Message::new();
        message.typ = BINDING_REQUEST;
        message.write_header();
        message.new_transaction_id().expect("random source");
        let username = Username::new(ATTR_USERNAME, self.username.clone());
        username.add_to(&mut message).expect("fits");
        for setter in &self.extra {
            setter.add_to(&mut message).expect("fits");
        }
        MessageIntegrity::new_short_term_integrity(self.password.into())
            .add_to(&mut message)
            .expect("fits");
        FINGERPRINT.add_to(&mut message).expect("fits");
        message.raw
    }
}

/// Sends the datagram and returns the outcome with the parsed response.
fn exchange(
    ice: &mut IceLite,
    now: Instant,
    source: SocketAddr,
    datagram: &[u8],
) -> (StunOutcome, Option<Message>) {
    let mut buffer = [0; MAX_RESPONSE_LEN];
    let outcome = ice.handle_stun(now, source, datagram, &mut buffer);
    let len = match outcome {
        StunOutcome::Ignored => return (outcome, None),
        StunOutcome::Refused { response_len, .. } | StunOutcome::Valid { response_len, .. } => {
            response_len
        }
    };
    let mut response = Message::default();
    response
        .unmarshal_binary(&buffer[..len])
        .expect("our response is STUN");
    FINGERPRINT.check(&response).expect("with a fingerprint");
    assert_eq!(response.transaction_id.0, datagram[8..20]);
    (outcome, Some(response))
}

fn nominate(ice: &mut IceLite, credentials: &IceCredentials, port: u16) -> StunOutcome {
    let check = Check::nominating(credentials).bytes();
    exchange(ice, at(1), from(port), &check).0
}

fn error_code(response: &Message) -> u16 {
    assert_eq!(response.typ, BINDING_ERROR);
    let mut error = ErrorCodeAttribute::default();
    error.get_from(response).expect("an error says its code");
    error.code.0
}

#[test]
fn a_valid_check_is_answered_with_the_mapped_address() {
    for source in [from(4000), "[2001:db8::7]:4001".parse().expect("address")] {
        let ours = numbered(1);
        let mut ice = IceLite::new(ours.clone());
        let (outcome, response) = exchange(&mut ice, at(1), source, &Check::of(&ours).bytes());
        let mut response = response.expect("answered");
        assert!(matches!(
            outcome,
            StunOutcome::Valid {
                new_address: true,
                send_address_changed: false,
                ..
            }
        ));
        assert_eq!(response.typ, BINDING_SUCCESS);
        let mut mapped = XorMappedAddress::default();
        mapped.get_from(&response).expect("mapped address");
        assert_eq!((mapped.ip, mapped.port), (source.ip(), source.port()));
        MessageIntegrity::new_short_term_integrity(ours.password().into())
            .check(&mut response)
            .expect("integrity under our password");
        assert!(ice.is_validated(source));
        assert_eq!(ice.send_address(), None);
        assert_eq!(ice.handshake_address(), Some(source));
        assert_eq!(ice.state(), IceState::Checking);
    }
}

#[test]
fn the_newest_nomination_decides_where_media_goes() {
    let ours = numbered(1);
    let mut ice = IceLite::new(ours.clone());
    for port in [4000, 4001, 4000] {
        assert!(matches!(
            nominate(&mut ice, &ours, port),
            StunOutcome::Valid {
                send_address_changed: true,
                ..
            }
        ));
        assert_eq!(ice.send_address(), Some(from(port)));
        assert_eq!(ice.state(), IceState::Connected);
    }
    assert!(matches!(
        nominate(&mut ice, &ours, 4000),
        StunOutcome::Valid {
            new_address: false,
            send_address_changed: false,
            ..
        }
    ));
    assert!(ice.is_validated(from(4001)));
}

#[test]
fn wrong_credentials_get_401_and_leave_nothing_behind() {
    let ours = numbered(1);
    let other = numbered(2);
    let mut ice = IceLite::new(ours.clone());
    let mut wrong_password = Check::nominating(&ours);
    wrong_password.password = other.password();
    let mut wrong_user = Check::nominating(&ours);
    wrong_user.username = format!("{}:peer", other.ufrag());
    let mut reversed = Check::nominating(&ours);
    reversed.username = format!("peer:{}", ours.ufrag());
    for check in [wrong_password, wrong_user, reversed] {
        let (outcome, response) = exchange(&mut ice, at(1), from(4000), &check.bytes());
        assert!(matches!(outcome, StunOutcome::Refused { code: 401, .. }));
        assert_eq!(error_code(&response.expect("answered")), 401);
    }
    assert!(!ice.is_validated(from(4000)));
    assert_eq!(ice.state(), IceState::New);
    assert_eq!(ice.handshake_address(), None);
}

#[test]
fn a_check_without_user_or_integrity_gets_400() {
    let mut ice = IceLite::new(numbered(1));
    let mut message = Message::new();
    message.typ = BINDING_REQUEST;
    message.write_header();
    let mut with_integrity = message.clone();
    FINGERPRINT.add_to(&mut message).expect("fits");
    MessageIntegrity::new_short_term_integrity(numbered(1).password().into())
        .add_to(&mut with_integrity)
        .expect("fits");
    FINGERPRINT.add_to(&mut with_integrity).expect("fits");
    for raw in [message.raw, with_integrity.raw] {
        let (_, response) = exchange(&mut ice, at(1), from(4000), &raw);
        assert_eq!(error_code(&response.expect("answered")), 400);
    }
}

#[test]
fn a_peer_that_claims_our_role_gets_487() {
    let ours = numbered(1);
    let mut ice = IceLite::new(ours.clone());
    let mut check = Check::nominating(&ours);
    check.extra[1] = Box::new(AttrControlled(5));
    let (_, response) = exchange(&mut ice, at(1), from(4000), &check.bytes());
    let mut response = response.expect("answered");
    assert_eq!(error_code(&response), 487);
    MessageIntegrity::new_short_term_integrity(ours.password().into())
        .check(&mut response)
        .expect("the answer to an authentic request is authentic");
    assert!(!ice.is_validated(from(4000)));
}

#[test]
fn an_attribute_that_must_be_understood_gets_420() {
    let ours = numbered(1);
    let mut ice = IceLite::new(ours.clone());
    let mut check = Check::nominating(&ours);
    for kind in 0x0050..0x0068 {
        check.extra.push(Box::new(stun::attributes::RawAttribute {
            typ: stun::attributes::AttrType(kind),
            length: 0,
            value: vec![],
        }));
    }
    let (_, response) = exchange(&mut ice, at(1), from(4000), &check.bytes());
    let response = response.expect("answered");
    assert_eq!(error_code(&response), 420);
    let mut unknown = stun::uattrs::UnknownAttributes(vec![]);
    unknown.get_from(&response).expect("names them");
    assert_eq!(unknown.0.len(), 24);
    assert_eq!(ice.send_address(), None);
}

#[test]
fn a_restart_keeps_the_old_credentials_until_the_new_are_nominated() {
    let (first, second) = (numbered(1), numbered(2));
    let mut ice = IceLite::new(first.clone());
    nominate(&mut ice, &first, 4000);
    ice.restart(second.clone());
    assert_eq!(ice.credentials().ufrag(), second.ufrag());

    nominate(&mut ice, &first, 4001);
    assert_eq!(
        ice.send_address(),
        Some(from(4001)),
        "a peer that does not know of the restart yet may move all the same"
    );

    let (outcome, _) = exchange(&mut ice, at(2), from(4002), &Check::of(&second).bytes());
    assert!(matches!(outcome, StunOutcome::Valid { .. }));
    assert_eq!(ice.send_address(), Some(from(4001)));

    nominate(&mut ice, &second, 4002);
    assert_eq!(ice.send_address(), Some(from(4002)));
    assert!(ice.is_validated(from(4000)), "media under way still counts");
    let (outcome, _) = exchange(&mut ice, at(3), from(4000), &Check::of(&first).bytes());
    assert!(matches!(outcome, StunOutcome::Refused { code: 401, .. }));
}

#[test]
fn validated_addresses_are_bounded_and_the_nominated_one_stays() {
    let ours = numbered(1);
    let mut ice = IceLite::new(ours.clone());
    nominate(&mut ice, &ours, 3999);
    for port in 4000..4100 {
        exchange(&mut ice, at(1), from(port), &Check::of(&ours).bytes());
    }
    assert!(ice.is_validated(from(3999)));
    assert!(ice.is_validated(from(4099)));
    assert!(!ice.is_validated(from(4000)));
    assert!(ice.validated.len() <= MAX_ADDRESSES);
}

#[test]
fn silence_disconnects_and_any_authentic_sign_reconnects() {
    let ours = numbered(1);
    let mut ice = IceLite::new(ours.clone());
    ice.on_remote_description(at(0));
    assert_eq!(ice.state(), IceState::Checking);
    nominate(&mut ice, &ours, 4000);
    ice.on_authentic_packet(at(5));
    assert_eq!(ice.next_timeout(), Some(at(20)));
    ice.handle_timeout(at(20));
    assert_eq!(ice.state(), IceState::Disconnected);
    let mut wrong = Check::of(&ours);
    wrong.password = "not the password we gave out";
    exchange(&mut ice, at(21), from(4000), &wrong.bytes());
    assert_eq!(ice.state(), IceState::Disconnected);
    exchange(&mut ice, at(22), from(4000), &Check::of(&ours).bytes());
    assert_eq!(ice.state(), IceState::Connected);
    assert_eq!(ice.send_address(), Some(from(4000)));
}

#[test]
fn without_room_for_the_response_nothing_happens() {
    let ours = numbered(1);
    let mut ice = IceLite::new(ours.clone());
    let check = Check::nominating(&ours).bytes();
    let outcome = ice.handle_stun(at(1), from(4000), &check, &mut [0; 20]);
    assert_eq!(outcome, StunOutcome::Ignored);
    assert!(!ice.is_validated(from(4000)));
}

proptest! {
    #[test]
    fn no_flipped_bit_in_a_check_gets_it_through(bit in 0usize..8 * 120) {
        let ours = numbered(1);
        let mut ice = IceLite::new(ours.clone());
        let mut check = Check::nominating(&ours).bytes();
        let bit = bit % (check.len() * 8);
        check[bit / 8] ^= 1 << (bit % 8);
        let end = check.len() - 8;
        let crc = stun::fingerprint::fingerprint_value(&check[..end]);
        check[end + 4..].copy_from_slice(&crc.to_be_bytes());
        if bit / 8 < end {
            let (outcome, _) = exchange(&mut ice, at(1), from(4000), &check);
            let passed = matches!(outcome, StunOutcome::Valid { .. });
            prop_assert!(!passed);
            prop_assert_eq!(ice.send_address(), None);
        }
    }
}

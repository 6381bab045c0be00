use proptest::prelude::*;
use rtpbridge_shared::vocab::SrtpSuite;

use super::super::rekey::OVERLAP;
use super::super::sources::MAX_SOURCES;
use super::super::suite;
use super::*;

const SSRC: u32 = 0xcafe_babe;

fn at(millis: u64) -> Instant {
    Instant::from_nanos(millis * 1_000_000)
}

fn key(suite: SrtpSuite) -> MasterKey {
    let bytes: [u8; 44] = rand::random();
    MasterKey::new(suite, &bytes[..crate::srtp::master_len(suite)]).expect("length fits")
}

fn rtp(ssrc: u32, sequence: u16, payload: &[u8]) -> Vec<u8> {
    let mut packet = vec![0x80, 0];
    packet.extend_from_slice(&sequence.to_be_bytes());
    packet.extend_from_slice(&[0, 0, 0, 9]);
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet.extend_from_slice(payload);
    packet
}

fn receiver_report(ssrc: u32) -> Vec<u8> {
    let mut packet = vec![0x80, 201, 0, 1];
    packet.extend_from_slice(&ssrc.to_be_bytes());
    packet
}

fn sealed_rtp(protector: &mut Protector, clear: &[u8]) -> Vec<u8> {
    let mut buf = clear.to_vec();
    buf.resize(clear.len() + suite::MAX_RTP_OVERHEAD, 0);
    let len = protector
        .protect_rtp(&mut buf, clear.len())
        .expect("protectable");
    buf.truncate(len);
    buf
}

fn sealed_rtcp(protector: &mut Protector, clear: &[u8]) -> Vec<u8> {
    let mut buf = clear.to_vec();
    buf.resize(clear.len() + suite::MAX_RTCP_OVERHEAD, 0);
    let len = protector
        .protect_rtcp(&mut buf, clear.len())
        .expect("protectable");
    buf.truncate(len);
    buf
}

fn open(unprotector: &mut Unprotector, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    open_at(unprotector, Instant::ZERO, sealed)
}

fn open_at(
    unprotector: &mut Unprotector,
    now: Instant,
    sealed: &[u8],
) -> Result<Vec<u8>, SrtpError> {
    let mut packet = sealed.to_vec();
    let len = unprotector.unprotect_rtp(now, &mut packet)?;
    packet.truncate(len);
    Ok(packet)
}

fn open_rtcp(unprotector: &mut Unprotector, sealed: &[u8]) -> Result<Vec<u8>, SrtpError> {
    let mut packet = sealed.to_vec();
    let len = unprotector.unprotect_rtcp(Instant::ZERO, &mut packet)?;
    packet.truncate(len);
    Ok(packet)
}

fn each_suite(test: impl Fn(SrtpSuite)) {
    for suite in SrtpSuite::ALL.iter().copied() {
        test(suite);
    }
}

#[test]
fn a_stream_crosses_four_roll_overs_with_loss_and_disorder() {
    each_suite(|suite| {
        let master = key(suite);
        let mut sender = Protector::new(&master);
        let mut receiver = Unprotector::new(&master);
        for number in (30_000u32..4 * 65_536).step_by(997) {
            let [first, second] = [number, number + 1]
                .map(|number| sealed_rtp(&mut sender, &rtp(SSRC, number as u16, b"sound")));
            let clear = open(&mut receiver, &second).expect("later packet first");
            assert_eq!(clear, rtp(SSRC, (number + 1) as u16, b"sound"));
            open(&mut receiver, &first).expect("earlier packet late");
        }
    });
}

#[test]
fn replayed_and_outdated_packets_are_refused() {
    each_suite(|suite| {
        let master = key(suite);
        let mut sender = Protector::new(&master);
        let mut receiver = Unprotector::new(&master);
        let packets: Vec<_> = (65_400..65_536 + 100)
            .map(|number: u32| sealed_rtp(&mut sender, &rtp(SSRC, number as u16, b"x")))
            .collect();
        for packet in packets.iter().skip(1) {
            open(&mut receiver, packet).expect("fresh");
        }
        let index = 65_536 + 99;
        assert_eq!(
            open(&mut receiver, &packets[235]),
            Err(SrtpError::Replayed { index })
        );
        assert_eq!(
            open(&mut receiver, &packets[0]),
            Err(SrtpError::TooOld { index: 65_400 })
        );
        let report = sealed_rtcp(&mut sender, &receiver_report(SSRC));
        assert_eq!(open_rtcp(&mut receiver, &report), Ok(receiver_report(SSRC)));
        assert_eq!(
            open_rtcp(&mut receiver, &report),
            Err(SrtpError::Replayed { index: 0 })
        );
    });
}

#[test]
fn no_flipped_bit_gets_through_and_the_real_packet_still_does() {
    each_suite(|suite| {
        let master = key(suite);
        let mut sender = Protector::new(&master);
        let mut receiver = Unprotector::new(&master);
        open(
            &mut receiver,
            &sealed_rtp(&mut sender, &rtp(SSRC, 1, b"first")),
        )
        .expect("fresh");
        let good = sealed_rtp(&mut sender, &rtp(SSRC, 2, b"some payload"));
        let report = sealed_rtcp(&mut sender, &receiver_report(SSRC));
        for bit in 0..good.len() * 8 {
            let mut bad = good.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open(&mut receiver, &bad).is_err(), "{suite} bit {bit}");
        }
        for bit in 0..report.len() * 8 {
            let mut bad = report.clone();
            bad[bit / 8] ^= 1 << (bit % 8);
            assert!(open_rtcp(&mut receiver, &bad).is_err(), "{suite} bit {bit}");
        }
        assert_eq!(receiver.sources(), 1);
        open(&mut receiver, &good).expect("the real packet");
        open_rtcp(&mut receiver, &report).expect("the real report");
    });
}

#[test]
fn forged_sources_leave_nothing_behind() {
    each_suite(|suite| {
        let master = key(suite);
        let mut receiver = Unprotector::new(&master);
        let mut forger = Protector::new(&key(suite));
        for ssrc in 0..MAX_SOURCES as u32 {
            let packet = sealed_rtp(&mut forger, &rtp(ssrc, 60_000, b"noise"));
            assert_eq!(open(&mut receiver, &packet), Err(SrtpError::NotAuthentic));
            let packet = sealed_rtcp(&mut forger, &receiver_report(ssrc));
            assert_eq!(
                open_rtcp(&mut receiver, &packet),
                Err(SrtpError::NotAuthentic)
            );
        }
        assert_eq!(receiver.sources(), 0);
    });
}

#[test]
fn more_sources_than_we_remember_are_heard_and_bounded() {
    let master = key(SrtpSuite::AeadAes128Gcm);
    let mut receiver = Unprotector::new(&master);
    for ssrc in 0..3 * MAX_SOURCES as u32 {
        let mut sender = Protector::new(&master);
        open(&mut receiver, &sealed_rtp(&mut sender, &rtp(ssrc, 5, b"x"))).expect("fresh");
    }
    assert_eq!(receiver.sources(), MAX_SOURCES);
}

#[test]
fn an_index_is_sent_once_and_never_for_other_content() {
    each_suite(|suite| {
        let mut sender = Protector::new(&key(suite));
        sealed_rtp(&mut sender, &rtp(SSRC, 500, b"one thing"));
        let mut other = rtp(SSRC, 500, b"other thing");
        let len = other.len();
        other.resize(len + 16, 0);
        assert_eq!(
            sender.protect_rtp(&mut other, len),
            Err(SrtpError::Replayed { index: 500 })
        );
        assert_eq!(other[..len], rtp(SSRC, 500, b"other thing"));
        for ssrc in 1..MAX_SOURCES as u32 {
            sealed_rtp(&mut sender, &rtp(ssrc, 1, b"x"));
        }
        let mut packet = rtp(0x7777, 1, b"x");
        packet.resize(40, 0);
        assert_eq!(
            sender.protect_rtp(&mut packet, 13),
            Err(SrtpError::TooManySources)
        );
    });
}

#[test]
fn a_buffer_without_room_is_refused_untouched() {
    each_suite(|suite| {
        let mut sender = Protector::new(&key(suite));
        let clear = rtp(SSRC, 1, b"abc");
        let mut buf = clear.clone();
        buf.push(0);
        let needed = suite::rtp_tag_len(suite);
        assert_eq!(
            sender.protect_rtp(&mut buf, clear.len()),
            Err(SrtpError::NoRoom {
                needed,
                available: 1
            })
        );
        assert_eq!(buf[..clear.len()], clear);
        assert_eq!(
            sender.protect_rtp(&mut buf, clear.len() + 9),
            Err(SrtpError::Malformed)
        );
        let mut report = receiver_report(SSRC);
        assert!(matches!(
            sender.protect_rtcp(&mut report, 8),
            Err(SrtpError::NoRoom { available: 0, .. })
        ));
    });
}

/// Sends packets with these numbers so that both sides stand at a roll-over counter of 1 or more.
fn advance(sender: &mut Protector, receiver: &mut Unprotector, numbers: [u32; 4]) {
    for number in numbers {
        let packet = sealed_rtp(sender, &rtp(SSRC, number as u16, b"x"));
        open(receiver, &packet).expect("fresh");
    }
}

const TO_SECOND_ROUND: [u32; 4] = [30_000, 60_000, 65_536 + 10_000, 65_536 + 20_000];

#[test]
fn a_rekey_keeps_the_roll_over_counter() {
    each_suite(|from| {
        each_suite(|to| {
            let old = key(from);
            let new = key(to);
            let mut sender = Protector::new(&old);
            let mut receiver = Unprotector::new(&old);
            advance(&mut sender, &mut receiver, TO_SECOND_ROUND);
            let late = sealed_rtp(&mut sender, &rtp(SSRC, 20_001, b"old key"));
            let lost = sealed_rtp(&mut sender, &rtp(SSRC, 20_002, b"old key"));
            let late_report = sealed_rtcp(&mut sender, &receiver_report(SSRC));

            receiver.rekey(&new, at(0));
            sender.rekey(&new);
            let first = sealed_rtp(&mut sender, &rtp(SSRC, 20_003, b"new key"));
            assert_eq!(
                open_at(&mut receiver, at(100), &late).map(|clear| clear.len()),
                Ok(19)
            );
            open_at(&mut receiver, at(200), &first).expect("the new key, counter kept");
            assert_eq!(
                open_at(&mut receiver, at(300), &lost),
                Err(SrtpError::NotAuthentic),
                "retired by the first success of the new key"
            );
            open_rtcp(&mut receiver, &late_report).expect("RTCP retires on its own");
            let report = sealed_rtcp(&mut sender, &receiver_report(SSRC));
            assert!(receiver.next_timeout().is_some());
            open_rtcp(&mut receiver, &report).expect("the new key for RTCP");
            assert_eq!(receiver.next_timeout(), None);
        });
    });
}

#[test]
fn the_old_key_goes_after_five_seconds_even_if_the_new_one_never_came() {
    each_suite(|suite| {
        let old = key(suite);
        let mut sender = Protector::new(&old);
        let mut receiver = Unprotector::new(&old);
        advance(&mut sender, &mut receiver, TO_SECOND_ROUND);
        receiver.rekey(&key(suite), at(1000));
        assert_eq!(receiver.next_timeout(), Some(at(1000) + OVERLAP));
        let [just, over] =
            [20_001, 20_002].map(|number| sealed_rtp(&mut sender, &rtp(SSRC, number, b"x")));
        open_at(&mut receiver, at(5999), &just).expect("within the overlap");
        assert_eq!(
            open_at(&mut receiver, at(6000), &over),
            Err(SrtpError::NotAuthentic)
        );
        assert_eq!(receiver.next_timeout(), None);
    });
}

#[test]
fn a_packet_replayed_across_a_rekey_is_refused() {
    let old = key(SrtpSuite::AesCm128HmacSha1_80);
    let mut sender = Protector::new(&old);
    let mut receiver = Unprotector::new(&old);
    let packet = sealed_rtp(&mut sender, &rtp(SSRC, 9, b"x"));
    open(&mut receiver, &packet).expect("fresh");
    receiver.rekey(&key(SrtpSuite::AesCm128HmacSha1_80), at(0));
    assert_eq!(
        open(&mut receiver, &packet),
        Err(SrtpError::Replayed { index: 9 })
    );
}

/// Made once with libsrtp; the RTP stream crosses two roll-overs.
#[test]
fn packets_are_those_of_libsrtp() {
    each_suite(|suite| {
        let bytes: Vec<u8> = (1..=44).collect();
        let master = MasterKey::new(suite, &bytes[..crate::srtp::master_len(suite)])
            .expect("the suite's length");
        let mut sender = Protector::new(&master);
        let mut receiver = Unprotector::new(&master);
        let mut seen = 0;
        for line in include_str!("libsrtp.txt").lines() {
            let words: Vec<&str> = line.split(' ').collect();
            let [name, stream, clear, theirs] = words[..] else {
                continue;
            };
            if name != suite.as_str() {
                continue;
            }
            let [clear, theirs] = [clear, theirs].map(|text| hex::decode(text).expect("hex"));
            if stream == "rtp" {
                assert_eq!(sealed_rtp(&mut sender, &clear), theirs);
                assert_eq!(open(&mut receiver, &theirs), Ok(clear));
            } else {
                assert_eq!(open_rtcp(&mut receiver, &theirs), Ok(clear));
            }
            seen += 1;
        }
        assert_eq!(seen, 9, "{suite}");
    });
}

mod oracle {
    use webrtc_srtp::context::Context;
    use webrtc_srtp::protection_profile::ProtectionProfile;

    use super::*;

    fn context(master: &MasterKey) -> Context {
        let profile = match master.suite() {
            SrtpSuite::AeadAes256Gcm => ProtectionProfile::AeadAes256Gcm,
            SrtpSuite::AeadAes128Gcm => ProtectionProfile::AeadAes128Gcm,
            SrtpSuite::AesCm128HmacSha1_80 => ProtectionProfile::Aes128CmHmacSha1_80,
            SrtpSuite::AesCm128HmacSha1_32 => ProtectionProfile::Aes128CmHmacSha1_32,
        };
        Context::new(master.key(), master.salt(), profile, None, None).expect("lengths fit")
    }

    /// An RTP packet with CSRCs and an extension of a profile that the oracle leaves alone: it
    /// miscounts some one-byte extensions.
    fn any_rtp() -> impl Strategy<Value = Vec<u8>> {
        (
            any::<(bool, u8, u32)>(),
            prop::collection::vec(any::<u32>(), 0..16),
            prop::option::of(prop::collection::vec(any::<u32>(), 0..8)),
            prop::collection::vec(any::<u8>(), 0..400),
        )
            .prop_map(
                |((marker, payload_type, timestamp), csrcs, extension, payload)| {
                    let extension_bit = if extension.is_some() { 0x10 } else { 0 };
                    let mut packet = vec![
                        0x80 | extension_bit | csrcs.len() as u8,
                        u8::from(marker) << 7 | payload_type & 0x7f,
                        0,
                        0,
                    ];
                    packet.extend_from_slice(&timestamp.to_be_bytes());
                    packet.extend_from_slice(&SSRC.to_be_bytes());
                    for csrc in &csrcs {
                        packet.extend_from_slice(&csrc.to_be_bytes());
                    }
                    if let Some(words) = extension {
                        packet.extend_from_slice(&[0xab, 0xcd, 0, words.len() as u8]);
                        for word in words {
                            packet.extend_from_slice(&word.to_be_bytes());
                        }
                    }
                    packet.extend_from_slice(&payload);
                    packet
                },
            )
    }

    fn any_suite() -> impl Strategy<Value = SrtpSuite> {
        prop::sample::select(SrtpSuite::ALL)
    }

    proptest! {
        #[test]
        fn rtp_is_what_the_oracle_makes_and_reads(
            suite in any_suite(),
            packets in prop::collection::vec((any_rtp(), 1u32..20_000), 1..40),
        ) {
            let master = key(suite);
            let (mut theirs_out, mut theirs_in) = (context(&master), context(&master));
            let (mut ours_out, mut ours_in) = (Protector::new(&master), Unprotector::new(&master));
            let mut number = 1000u32;
            for (mut clear, step) in packets {
                number += step;
                clear[2..4].copy_from_slice(&(number as u16).to_be_bytes());
                let sealed = sealed_rtp(&mut ours_out, &clear);
                prop_assert_eq!(&sealed, &theirs_out.encrypt_rtp(&clear).expect("oracle").to_vec());
                prop_assert_eq!(&open(&mut ours_in, &sealed).expect("authentic"), &clear);
                prop_assert_eq!(theirs_in.decrypt_rtp(&sealed).expect("oracle").to_vec(), clear);
            }
        }

        #[test]
        fn rtcp_is_what_the_oracle_reads_and_theirs_is_read(
            suite in any_suite(),
            bodies in prop::collection::vec(prop::collection::vec(any::<u8>(), 16..300), 1..20),
        ) {
            let master = key(suite);
            let (mut theirs_out, mut theirs_in) = (context(&master), context(&master));
            let (mut ours_out, mut ours_in) = (Protector::new(&master), Unprotector::new(&master));
            for body in bodies {
                let mut clear = receiver_report(SSRC);
                clear.extend_from_slice(&body);
                let sealed = sealed_rtcp(&mut ours_out, &clear);
                prop_assert_eq!(
                    &theirs_in.decrypt_rtcp(&sealed).expect("oracle").to_vec(),
                    &clear
                );
                let theirs = theirs_out.encrypt_rtcp(&clear).expect("oracle").to_vec();
                prop_assert_eq!(open_rtcp(&mut ours_in, &theirs).expect("authentic"), clear);
            }
        }

        #[test]
        fn no_datagram_makes_the_receiver_panic_or_believe(
            suite in any_suite(),
            datagrams in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..120), 1..50),
        ) {
            let mut receiver = Unprotector::new(&key(suite));
            receiver.rekey(&key(suite), Instant::ZERO);
            for mut datagram in datagrams {
                prop_assert!(open(&mut receiver, &datagram).is_err());
                prop_assert!(open_rtcp(&mut receiver, &datagram).is_err());
                if let Some(first) = datagram.first_mut() {
                    *first = 0x80 | *first & 0x3f;
                }
                prop_assert!(open(&mut receiver, &datagram).is_err());
                prop_assert!(open_rtcp(&mut receiver, &datagram).is_err());
            }
            prop_assert_eq!(receiver.sources(), 0);
        }
    }
}

//! Our offers, and what answers to them settle.

use super::*;

fn accept(offer: &LocalDescription, text: &str) -> Result<Agreement, SdpError> {
    accept_answer(offer, &parse(text)?)
}

fn plain() -> LocalDescription {
    plan_offer(offer_settings(OfferSecurity::Plain))
}

#[test]
fn a_plain_offer_is_written_in_full() {
    assert_eq!(
        plain().write(),
        "v=0\r\n\
         o=rtpbridge 1234567890123456789 1 IN IP4 198.51.100.9\r\n\
         s=rtpbridge\r\n\
         c=IN IP4 198.51.100.9\r\n\
         t=0 0\r\n\
         m=audio 30000 RTP/AVP 0 8 9 111 101 110\r\n\
         a=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:9 G722/8000\r\n\
         a=rtpmap:111 opus/48000/2\r\n\
         a=fmtp:111 minptime=10;useinbandfec=1\r\n\
         a=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\n\
         a=rtpmap:110 telephone-event/48000\r\n\
         a=fmtp:110 0-16\r\n\
         a=sendrecv\r\n\
         a=rtcp-mux\r\n\
         a=ptime:20\r\n\
         a=maxptime:60\r\n"
    );
}

#[test]
fn codecs_restrict_and_order_an_offer() {
    let formats = |codecs: &[Codec]| {
        let mut settings = offer_settings(OfferSecurity::Plain);
        settings.codecs = codecs.to_vec();
        let offer = plan_offer(settings);
        (codecs_of(&offer.formats), events_of(&offer.formats))
    };
    assert_eq!(
        formats(&[Codec::Opus]),
        (vec![(Codec::Opus, 111)], vec![(48000, 110)])
    );
    assert_eq!(
        formats(&[Codec::G722, Codec::Pcmu, Codec::G722]),
        (vec![(Codec::G722, 9), (Codec::Pcmu, 0)], vec![(8000, 101)])
    );
    let webrtc = plan_offer(offer_settings(OfferSecurity::Webrtc(webrtc_settings())));
    assert_eq!(codecs_of(&webrtc.formats)[0], (Codec::Opus, 111));
}

#[test]
fn an_ipv6_offer_says_ip6() {
    let mut settings = offer_settings(OfferSecurity::Plain);
    settings.address = addr("[2001:db8::7]:30000");
    settings.direction = Direction::Sendonly;
    let text = plan_offer(settings).write();
    assert!(text.contains("c=IN IP6 2001:db8::7\r\n"));
    assert!(text.contains("a=recvonly\r\n"));
}

#[test]
fn the_first_common_codec_of_the_answer_sends_under_the_answers_payload_type() {
    let answer = plain_offer(
        "18 96 8 97",
        "a=rtpmap:96 opus/48000/2\na=fmtp:96 usedtx=1\na=rtpmap:97 telephone-event/48000\na=rtcp-mux\n",
    );
    let agreement = accept(&plain(), &answer).expect("acceptable");
    let sending = agreement.sending_codec().expect("common");
    assert_eq!(sending.codec, Codec::Opus);
    assert_eq!(sending.send_payload_type, 96);
    assert_eq!(sending.receive_payload_type, 111);
    assert_eq!(agreement.codecs.len(), 2);
    assert!(agreement.opus.use_dtx && agreement.rtcp_mux);
    let event = agreement.telephone_event_for(48000).expect("common");
    assert_eq!(
        (event.send_payload_type, event.receive_payload_type),
        (97, 110)
    );
}

#[test]
fn unusable_answers_say_why() {
    let offer = plain();
    let refused = "v=0\nc=IN IP4 192.0.2.1\nm=audio 0 RTP/AVP 0\n";
    assert_eq!(accept(&offer, refused), Err(SdpError::Refused));
    let no_address = "v=0\nm=audio 4000 RTP/AVP 0\n";
    assert_eq!(accept(&offer, no_address), Err(SdpError::NoAddress));
    let events = plain_offer("101", "a=rtpmap:101 telephone-event/8000\n");
    assert_eq!(accept(&offer, &events), Err(SdpError::NoCommonCodec));
    assert_eq!(accept(&offer, "v=0\n"), Err(SdpError::NoAudio));
    assert_eq!(
        accept(&offer, CHROMIUM_ANSWER),
        Err(SdpError::WrongTransport)
    );
    let mut settings = offer_settings(OfferSecurity::Plain);
    settings.codecs = vec![Codec::Opus];
    let opus = plan_offer(settings);
    let answer = plain_offer("0", "");
    assert_eq!(accept(&opus, &answer), Err(SdpError::NoCommonCodec));
}

#[test]
fn the_peers_address_must_be_of_our_family_unless_on_hold() {
    let offer = plain();
    let moved = "v=0\nc=IN IP6 2001:db8::1\nm=audio 4000 RTP/AVP 0\n";
    assert_eq!(accept(&offer, moved), Err(SdpError::WrongFamily));
    let held = moved.replace("2001:db8::1", "::");
    assert!(accept(&offer, &held).is_ok());
    let agreement = accept(&offer, &plain_offer("0", "")).expect("acceptable");
    let remote = read_offer(moved).expect("usable");
    let again = answer_again(&offer, &agreement, &remote, Direction::Sendrecv);
    assert_eq!(again.map(|_| ()), Err(SdpError::WrongFamily));
    let fresh = plan_answer(&remote, answer_settings(AnswerSecurity::Plain));
    assert_eq!(fresh.map(|_| ()), Err(SdpError::WrongFamily));
}

#[test]
fn an_answer_wider_than_the_offer_is_narrowed() {
    let mut settings = offer_settings(OfferSecurity::Plain);
    settings.direction = Direction::Recvonly;
    let offer = plan_offer(settings);
    let agreement = accept(&offer, &plain_offer("0", "a=sendrecv\n")).expect("acceptable");
    assert_eq!(agreement.direction, Direction::Recvonly);
    let held = accept(&offer, &plain_offer("0", "a=sendonly\n")).expect("acceptable");
    assert_eq!(held.direction, Direction::Inactive);
}

#[test]
fn required_srtp_refuses_a_plain_answer_and_optional_takes_it() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let required = plan_offer(offer_settings(OfferSecurity::Required(vec![line(
        1, suite, 3,
    )])));
    assert!(required.write().contains("m=audio 30000 RTP/SAVP "));
    assert!(
        required
            .write()
            .contains("a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:AwMD")
    );
    let plain_answer = plain_offer("0", "");
    assert_eq!(accept(&required, &plain_answer), Err(SdpError::PlainAnswer));
    let without = plain_answer.replace("RTP/AVP", "RTP/SAVP");
    assert_eq!(accept(&required, &without), Err(SdpError::NoUsableCrypto));

    let optional = plan_offer(offer_settings(OfferSecurity::Optional(vec![line(
        1, suite, 3,
    )])));
    assert!(optional.write().contains("m=audio 30000 RTP/AVP "));
    let agreement = accept(&optional, &plain_answer).expect("acceptable");
    assert_eq!(agreement.security, AgreedSecurity::Plain);
    assert_eq!(accept(&plain(), CISCO_ANSWER), Err(SdpError::NoKey));
}

#[test]
fn an_srtp_answer_is_paired_with_our_line_and_hold_is_understood() {
    let lines = vec![
        line(1, SrtpSuite::AeadAes256Gcm, 1),
        line(2, SrtpSuite::AesCm128HmacSha1_80, 2),
    ];
    let offer = plan_offer(offer_settings(OfferSecurity::Required(lines.clone())));
    // The answer numbers its line anew.
    let agreement = accept(&offer, CISCO_ANSWER).expect("acceptable");
    assert_eq!(agreement.address, None);
    assert_eq!(agreement.direction, Direction::Inactive);
    let AgreedSecurity::Sdes { local, remote } = &agreement.security else {
        panic!("not SDES");
    };
    assert_eq!(local, &lines[1]);
    assert_eq!(remote.lifetime, Some(1 << 31));
    let other = CISCO_ANSWER.replace("SHA1_80", "SHA1_32");
    assert_eq!(accept(&offer, &other), Err(SdpError::NoUsableCrypto));
    // An answer that repeats our own key is accepted.
    let echo = offer.write();
    let agreement = accept(&offer, &echo).expect("acceptable");
    let AgreedSecurity::Sdes { local, remote } = &agreement.security else {
        panic!("not SDES");
    };
    assert_eq!(local.key, remote.key);
}

#[test]
fn a_webrtc_offer_is_answered_by_chromium() {
    let offer = plan_offer(offer_settings(OfferSecurity::Webrtc(webrtc_settings())));
    let text = offer.write();
    for line in [
        "a=group:BUNDLE 0",
        "a=mid:0",
        "a=setup:actpass",
        "m=audio 30000 UDP/TLS/RTP/SAVPF 111 0 8 9 110 101",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    let agreement = accept(&offer, CHROMIUM_ANSWER).expect("acceptable");
    assert_eq!(agreement.direction, Direction::Recvonly);
    assert_eq!(agreement.codecs.len(), 3);
    let AgreedSecurity::Dtls {
        role,
        extensions,
        remote,
        mid,
    } = &agreement.security
    else {
        panic!("not DTLS");
    };
    assert_eq!(*role, DtlsRole::Passive);
    assert_eq!(extensions.len(), 2);
    assert_eq!(remote.fingerprints.len(), 1);
    assert_eq!(mid.as_deref(), Some("0"));
    let actpass = CHROMIUM_ANSWER.replace("setup:active", "setup:actpass");
    assert_eq!(accept(&offer, &actpass), Err(SdpError::WrongSetup));
    assert_eq!(
        accept(&offer, &plain_offer("0", "")),
        Err(SdpError::WrongTransport)
    );
}

#[test]
fn a_rekey_offers_the_agreed_formats_with_the_new_key() {
    let suite = SrtpSuite::AesCm128HmacSha1_80;
    let offer = plan_offer(offer_settings(OfferSecurity::Required(vec![
        line(1, SrtpSuite::AeadAes128Gcm, 1),
        line(2, suite, 2),
    ])));
    let agreement = accept(&offer, CISCO_ANSWER).expect("acceptable");
    let fresh = reoffer(&offer, &agreement, Reoffer::Rekey(key(suite, 3))).expect("possible");
    assert_eq!(fresh.origin.version, 2);
    let text = fresh.write();
    assert!(text.contains("m=audio 30000 RTP/SAVP 8 101\r\n"));
    assert!(text.contains("a=crypto:2 AES_CM_128_HMAC_SHA1_80 inline:AwMD"));
    assert_eq!(text.matches("a=crypto").count(), 1);
    let other = Reoffer::Rekey(key(SrtpSuite::AeadAes128Gcm, 3));
    assert_eq!(reoffer(&offer, &agreement, other), Err(SdpError::NoKey));
    let ice = Reoffer::IceRestart(webrtc_settings().ice);
    assert_eq!(
        reoffer(&offer, &agreement, ice),
        Err(SdpError::WrongTransport)
    );
}

#[test]
fn an_ice_restart_keeps_the_streams_of_the_peers_first_offer() {
    let remote = read_offer(FIREFOX).expect("usable");
    let (local, agreement) = plan_answer(&remote, webrtc_answer()).expect("answerable");
    let ice = IceCredentials::new("newUfrag", "newPasswordOf24Characters").expect("valid");
    let offer = reoffer(&local, &agreement, Reoffer::IceRestart(ice)).expect("possible");
    let text = offer.write();
    assert!(text.contains("a=ice-ufrag:newUfrag\r\n") && text.contains("a=setup:actpass\r\n"));
    assert!(!text.contains("ourPassword"));
    let streams: Vec<_> = text.lines().filter(|line| line.starts_with("m=")).collect();
    assert_eq!(
        streams,
        [
            "m=video 0 UDP/TLS/RTP/SAVPF 120 124",
            "m=audio 30000 UDP/TLS/RTP/SAVPF 109 9 0 8 101"
        ]
    );
    let answer = FIREFOX
        .replace("m=audio 0", "m=audio 9")
        .replace("setup:actpass", "setup:passive");
    let settled = accept(&offer, &answer).expect("acceptable");
    assert_eq!(settled.codecs, agreement.codecs);
}

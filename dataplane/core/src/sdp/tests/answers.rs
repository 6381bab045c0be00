//! Our answers: what they say and what they settle.

use super::*;

fn lines_with<'a>(text: &'a str, prefix: &str) -> Vec<&'a str> {
    let lines = text.lines();
    lines.filter(|line| line.starts_with(prefix)).collect()
}

#[test]
fn a_plain_answer_is_written_in_full() {
    let (local, agreement) = answer_plain(ASTERISK);
    assert_eq!(
        local.write(),
        "v=0\r\n\
         o=rtpbridge 1234567890123456789 1 IN IP4 198.51.100.9\r\n\
         s=rtpbridge\r\n\
         c=IN IP4 198.51.100.9\r\n\
         t=0 0\r\n\
         m=audio 30000 RTP/AVP 0 8 9 107 101\r\n\
         a=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:8 PCMA/8000\r\n\
         a=rtpmap:9 G722/8000\r\n\
         a=rtpmap:107 opus/48000/2\r\n\
         a=fmtp:107 minptime=10;useinbandfec=1\r\n\
         a=rtpmap:101 telephone-event/8000\r\n\
         a=fmtp:101 0-16\r\n\
         a=sendrecv\r\n\
         a=ptime:20\r\n\
         a=maxptime:60\r\n"
    );
    let sending = agreement.sending_codec().expect("codecs in common");
    assert_eq!((sending.codec, sending.send_payload_type), (Codec::Pcmu, 0));
    assert_eq!(agreement.direction, Direction::Sendrecv);
}

#[test]
fn the_offers_order_and_payload_types_stand() {
    let (local, agreement) = answer_plain(LINPHONE);
    assert_eq!(
        lines_with(&local.write(), "m="),
        [
            "m=audio 30000 RTP/AVP 96 0 8 101 100",
            "m=video 0 RTP/AVP 96"
        ]
    );
    let event = agreement.telephone_event_for(48000).expect("negotiated");
    assert_eq!((event.clock_rate, event.send_payload_type), (48000, 101));
    let event = agreement.telephone_event_for(8000).expect("negotiated");
    assert_eq!((event.clock_rate, event.send_payload_type), (8000, 100));
}

#[test]
fn every_other_stream_is_mirrored_at_its_place_with_port_zero() {
    let remote = read_offer(FIREFOX).expect("usable");
    let (local, _) = plan_answer(&remote, webrtc_answer()).expect("answerable");
    let text = local.write();
    assert_eq!(
        lines_with(&text, "m="),
        [
            "m=video 0 UDP/TLS/RTP/SAVPF 120 124",
            "m=audio 30000 UDP/TLS/RTP/SAVPF 109 9 0 8 101"
        ]
    );
    assert_eq!(
        lines_with(&text, "a=mid"),
        [
            "a=mid:{b9e94b0e-2e06-4f5d-8b0d-5a2b2a4a1f10}",
            "a=mid:{0ff26d9a-7bbd-4f0e-9f0a-6c2d4d8f3a21}"
        ]
    );
    assert_eq!(
        lines_with(&text, "a=group"),
        ["a=group:BUNDLE {0ff26d9a-7bbd-4f0e-9f0a-6c2d4d8f3a21}"]
    );
}

#[test]
fn rejected_webrtc_streams_have_the_transport_lines_that_some_peers_insist_on() {
    let remote = read_offer(CHROMIUM).expect("usable");
    let (local, _) = plan_answer(&remote, webrtc_answer()).expect("answerable");
    let text = local.write();
    let (_, video) = text.split_once("m=video 0 ").expect("mirrored");
    let (video, data) = video.split_once("m=application 0 ").expect("mirrored");
    for stream in [video, data] {
        for line in [
            "a=inactive",
            "a=rtcp-mux",
            "a=ice-ufrag:ourU",
            "a=setup:active",
        ] {
            assert!(stream.contains(line), "{line} in {stream}");
        }
        assert!(!stream.contains("a=candidate"));
    }
    assert!(video.contains("a=rtpmap:96 VP8/90000\r\n") && video.contains("a=fmtp:97 apt=96\r\n"));
    let (plain, _) = answer_plain(LINPHONE);
    assert!(!plain.write().contains("a=ice"));
}

#[test]
fn without_a_common_codec_plain_rtp_answers_telephone_event_alone() {
    let offer = plain_offer("18 97", "a=rtpmap:97 telephone-event/8000\n");
    let (local, agreement) = answer_plain(&offer);
    assert_eq!(
        lines_with(&local.write(), "m="),
        ["m=audio 30000 RTP/AVP 97"]
    );
    assert_eq!(agreement.sending_codec(), None);
    assert_eq!(agreement.telephone_events.len(), 1);

    let (local, agreement) = answer_plain(&plain_offer("18", ""));
    assert_eq!(
        lines_with(&local.write(), "m="),
        ["m=audio 30000 RTP/AVP 101"]
    );
    assert!(agreement.telephone_events.is_empty());

    let (local, _) = answer_plain(&plain_offer("101 127", "a=rtpmap:101 SILK/24000\n"));
    assert_eq!(
        lines_with(&local.write(), "m="),
        ["m=audio 30000 RTP/AVP 126"]
    );
}

#[test]
fn telephone_events_must_fit_a_codec() {
    let events = |formats: &str, lines: &str| {
        let (_, agreement) = answer_plain(&plain_offer(formats, lines));
        let clocks = agreement.telephone_events.iter();
        clocks.map(|event| event.clock_rate).collect::<Vec<_>>()
    };
    let maps = "a=rtpmap:96 opus/48000/2\na=rtpmap:97 telephone-event/48000\n\
                a=rtpmap:98 telephone-event/8000\na=rtpmap:99 telephone-event/banana\n";
    assert_eq!(events("0 97", maps), [] as [u32; 0]);
    assert_eq!(events("0 98", maps), [8000]);
    assert_eq!(events("96 98", maps), [8000]);
    assert_eq!(events("96 97 98", maps), [48000]);
    assert_eq!(events("96 0 97 98 99", maps), [48000, 8000]);
    let (_, agreement) = answer_plain(&plain_offer("96 98", maps));
    let event = agreement.telephone_event_for(48000).expect("8000 will do");
    assert_eq!(event.send_payload_type, 98);
}

#[test]
fn directions_are_mirrored_and_restricted() {
    use Direction::{Inactive, Recvonly, Sendonly, Sendrecv};
    // (offer, endpoint's own, agreed for the party, written)
    let table = [
        (Sendrecv, Sendrecv, Sendrecv, "a=sendrecv"),
        (Sendonly, Sendrecv, Sendonly, "a=recvonly"),
        (Recvonly, Sendrecv, Recvonly, "a=sendonly"),
        (Inactive, Sendrecv, Inactive, "a=inactive"),
        (Sendrecv, Sendonly, Sendonly, "a=recvonly"),
        (Sendrecv, Recvonly, Recvonly, "a=sendonly"),
        (Sendonly, Recvonly, Inactive, "a=inactive"),
        (Sendrecv, Inactive, Inactive, "a=inactive"),
    ];
    for (offered, own, agreed, written) in table {
        let offer = plain_offer("0", &format!("a={offered}\r\n"));
        let remote = read_offer(&offer).expect("usable");
        let mut settings = answer_settings(AnswerSecurity::Plain);
        settings.direction = own;
        let (local, agreement) = plan_answer(&remote, settings).expect("answerable");
        assert_eq!(agreement.direction, agreed);
        assert!(local.write().contains(written), "{offered} {own}");
    }
    let at_session = "v=0\nc=IN IP4 192.0.2.1\na=inactive\nm=audio 4000 RTP/AVP 0\n";
    assert_eq!(
        read_offer(at_session).map(|remote| remote.direction),
        Ok(Inactive)
    );
}

#[test]
fn rtcp_mux_is_answered_where_offered() {
    let (local, agreement) = answer_plain(&plain_offer("0", "a=rtcp-mux\n"));
    assert!(agreement.rtcp_mux && local.write().contains("a=rtcp-mux\r\n"));
    let (local, agreement) = answer_plain(&plain_offer("0", ""));
    assert!(!agreement.rtcp_mux && !local.write().contains("rtcp-mux"));
}

#[test]
fn the_first_usable_crypto_line_is_answered_under_its_tag() {
    let remote = read_offer(FREESWITCH).expect("usable");
    let suite = remote.offered_suite().expect("SDES");
    let ours = key(suite, 7);
    let security = AnswerSecurity::Sdes(ours.clone());
    let (local, agreement) = plan_answer(&remote, answer_settings(security)).expect("answerable");
    let text = local.write();
    assert_eq!(lines_with(&text, "a=crypto").len(), 1);
    assert!(text.contains("a=crypto:2 AEAD_AES_256_GCM inline:Bwc"));
    assert!(text.contains("m=audio 30000 RTP/SAVP 102 9 0 8 103 101\r\n"));
    let AgreedSecurity::Sdes { local, remote } = agreement.security else {
        panic!("not SDES");
    };
    assert_eq!(local.key, ours);
    assert_eq!(remote.key.master_key().first(), Some(&0x29));
    assert_eq!((local.tag, remote.tag), (2, 2));
}

#[test]
fn srtp_is_never_answered_in_the_clear_but_opportunistic_offers_may_be() {
    let remote = read_offer(FREESWITCH).expect("usable");
    let plain = plan_answer(&remote, answer_settings(AnswerSecurity::Plain));
    assert_eq!(plain.map(|_| ()), Err(SdpError::NoKey));
    let other = AnswerSecurity::Sdes(key(SrtpSuite::AesCm128HmacSha1_80, 1));
    let other = plan_answer(&remote, answer_settings(other));
    assert_eq!(other.map(|_| ()), Err(SdpError::NoKey));

    let optional = FREESWITCH.replace("RTP/SAVP", "RTP/AVP");
    let remote = read_offer(&optional).expect("usable");
    let security = AnswerSecurity::Sdes(key(SrtpSuite::AeadAes128Gcm, 1));
    let (local, agreement) = plan_answer(&remote, answer_settings(security)).expect("answerable");
    assert!(local.write().contains("RTP/AVP 102"));
    assert!(local.write().contains("a=crypto:3 AEAD_AES_128_GCM"));
    assert!(matches!(agreement.security, AgreedSecurity::Sdes { .. }));

    let unusable = optional.replace("inline:", "inline:!");
    let (_, agreement) = answer_plain(&unusable);
    assert_eq!(agreement.security, AgreedSecurity::Plain);
}

#[test]
fn a_webrtc_answer_has_what_browsers_need() {
    let remote = read_offer(CHROMIUM).expect("usable");
    let (local, agreement) = plan_answer(&remote, webrtc_answer()).expect("answerable");
    let text = local.write();
    for line in [
        "a=group:BUNDLE 0",
        "a=ice-lite",
        "m=audio 30000 UDP/TLS/RTP/SAVPF 111 9 0 8 110 126",
        "a=mid:0",
        "a=rtcp-mux",
        "a=rtcp-rsize",
        "a=extmap:1 urn:ietf:params:rtp-hdrext:ssrc-audio-level",
        "a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=ice-ufrag:ourU",
        "a=ice-pwd:ourPasswordOf24Characters",
        "a=setup:active",
        "a=msid:c0ffee c0ffee-audio",
        "a=ssrc:3735928559 cname:c0ffee",
        "a=candidate:1 1 udp 2130706431 198.51.100.9 50000 typ host",
        "a=candidate:2 1 udp 2130706175 2001:db8::9 50000 typ host",
        "a=end-of-candidates",
        "m=video 0 UDP/TLS/RTP/SAVPF 96 97 98 99",
        "m=application 0 UDP/DTLS/SCTP webrtc-datachannel",
    ] {
        assert!(text.contains(&format!("{line}\r\n")), "{line} in {text}");
    }
    assert!(text.contains("a=fingerprint:sha-256 00:01:02:"));
    assert!(!text.contains("a=ptime"));
    let AgreedSecurity::Dtls {
        role,
        extensions,
        mid,
        ..
    } = agreement.security
    else {
        panic!("not DTLS");
    };
    assert_eq!((role, extensions.len()), (DtlsRole::Active, 2));
    assert_eq!(mid.as_deref(), Some("0"));
}

#[test]
fn only_extensions_that_we_speak_are_answered() {
    let remote = read_offer(CHROMIUM).expect("usable");
    let mut settings = webrtc_settings();
    settings.extensions = vec![ExtensionKind::Mid];
    let security = AnswerSecurity::Webrtc {
        settings,
        role: None,
    };
    let (local, _) = plan_answer(&remote, answer_settings(security)).expect("answerable");
    let text = local.write();
    assert_eq!(
        lines_with(&text, "a=extmap"),
        ["a=extmap:4 urn:ietf:params:rtp-hdrext:sdes:mid"]
    );
}

#[test]
fn dtls_roles_follow_the_offer_and_an_association_in_place() {
    use DtlsRole::{Active, Passive};
    let table = [
        ("actpass", None, Ok(Active)),
        ("passive", None, Ok(Active)),
        ("active", None, Ok(Passive)),
        ("holdconn", None, Ok(Active)),
        ("actpass", Some(Active), Ok(Active)),
        ("actpass", Some(Passive), Ok(Passive)),
        ("active", Some(Passive), Ok(Passive)),
        ("passive", Some(Active), Ok(Active)),
        ("active", Some(Active), Err(SdpError::WrongSetup)),
        ("passive", Some(Passive), Err(SdpError::WrongSetup)),
    ];
    for (setup, role, expected) in table {
        let offer = CHROMIUM.replace("setup:actpass", &format!("setup:{setup}"));
        let remote = read_offer(&offer).expect("usable");
        let security = AnswerSecurity::Webrtc {
            settings: webrtc_settings(),
            role,
        };
        let planned = plan_answer(&remote, answer_settings(security));
        let settled = planned.map(|(_, agreement)| match agreement.security {
            AgreedSecurity::Dtls { role, .. } => role,
            other => panic!("not DTLS: {other:?}"),
        });
        assert_eq!(settled, expected, "{setup} {role:?}");
    }
}

#[test]
fn webrtc_without_a_common_codec_and_settings_of_another_transport_are_errors() {
    let speex = GSTREAMER.replace("OPUS/48000", "speex/16000");
    let remote = read_offer(&speex).expect("usable");
    let planned = plan_answer(&remote, webrtc_answer());
    assert_eq!(planned.map(|_| ()), Err(SdpError::NoCommonCodec));
    let remote = read_offer(ASTERISK).expect("usable");
    let planned = plan_answer(&remote, webrtc_answer());
    assert_eq!(planned.map(|_| ()), Err(SdpError::WrongTransport));
    let remote = read_offer(CHROMIUM).expect("usable");
    let planned = plan_answer(&remote, answer_settings(AnswerSecurity::Plain));
    assert_eq!(planned.map(|_| ()), Err(SdpError::WrongTransport));
}

#[test]
fn a_further_offer_changes_address_direction_and_key_alone() {
    let srtp = plain_offer("8 0 101", "").replace("RTP/AVP", "RTP/SAVP")
        + "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\n";
    let remote = read_offer(&srtp).expect("usable");
    let ours = key(SrtpSuite::AesCm128HmacSha1_80, 9);
    let security = AnswerSecurity::Sdes(ours.clone());
    let (local, agreement) = plan_answer(&remote, answer_settings(security)).expect("answerable");

    let moved = "v=0\nc=IN IP4 192.0.2.99\nm=audio 6000 RTP/SAVP 0\na=sendonly\n\
         a=crypto:4 AEAD_AES_128_GCM inline:y3Lfh3BDPFLsBAsjzxyKqW/vxEKcZP0ABAYlBw==\n\
         a=crypto:5 AES_CM_128_HMAC_SHA1_80 inline:NzB4d1BINUAvLEw6UzF3WSJ+PSdFcGdUJShpX1Zj\n";
    let remote = read_offer(moved).expect("usable");
    let (next, changed) =
        answer_again(&local, &agreement, &remote, Direction::Sendrecv).expect("answerable");
    assert_eq!(next.origin.version, local.origin.version + 1);
    assert_eq!(changed.codecs, agreement.codecs);
    assert_eq!(changed.direction, Direction::Sendonly);
    assert_eq!(
        changed.address.map(|address| address.rtp),
        Some(addr("192.0.2.99:6000"))
    );
    let text = next.write();
    assert!(text.contains("m=audio 30000 RTP/SAVP 8 0\r\n") && text.contains("a=recvonly\r\n"));
    assert!(text.contains("a=crypto:5 AES_CM_128_HMAC_SHA1_80"));
    let AgreedSecurity::Sdes {
        local: sent,
        remote: theirs,
    } = &changed.security
    else {
        panic!("not SDES");
    };
    assert_eq!(sent.key, ours);
    assert_eq!(theirs.key.master_key().first(), Some(&0x37));

    let again = |offer: &str| {
        let remote = read_offer(offer).expect("usable");
        answer_again(&next, &changed, &remote, Direction::Sendrecv).map(|_| ())
    };
    let downgraded = plain_offer("8 0", "");
    assert_eq!(again(&downgraded), Err(SdpError::NoUsableCrypto));
    assert_eq!(
        again(&moved.replace("a=crypto:5", "a=x")),
        Err(SdpError::NoUsableCrypto)
    );
    assert_eq!(again(CHROMIUM), Err(SdpError::WrongTransport));
}

#[test]
fn a_further_offer_after_our_own_is_answered_with_what_was_agreed() {
    let offer = plan_offer(offer_settings(OfferSecurity::Plain));
    let maps = "a=rtpmap:96 opus/48000/2\na=rtpmap:97 telephone-event/48000\n";
    let answer = plain_offer("96 97", maps);
    let sdp = parse(&answer).expect("parses");
    let agreement = accept_answer(&offer, &sdp).expect("acceptable");
    let held = read_offer(&plain_offer("96 0", "a=inactive\n")).expect("usable");
    let (local, changed) =
        answer_again(&offer, &agreement, &held, Direction::Sendrecv).expect("answerable");
    let text = local.write();
    assert_eq!(lines_with(&text, "m="), ["m=audio 30000 RTP/AVP 111 110"]);
    assert!(text.contains("a=inactive\r\n"));
    assert_eq!(changed.codecs, agreement.codecs);
}

#[test]
fn nothing_in_common_is_still_answered_again() {
    let offer = plain_offer("18", "");
    let (local, agreement) = answer_plain(&offer);
    let remote = read_offer(&offer).expect("usable");
    let (local, _) =
        answer_again(&local, &agreement, &remote, Direction::Sendrecv).expect("answerable");
    let text = local.write();
    assert_eq!(lines_with(&text, "m="), ["m=audio 30000 RTP/AVP 101"]);
}

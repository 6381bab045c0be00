//! What is understood of each real peer's description.

use rtpbridge_shared::vocab::Transport;

use super::*;

fn webrtc_of(remote: &RemoteDescription) -> &RemoteWebrtc {
    match &remote.security {
        RemoteSecurity::Webrtc(webrtc) => webrtc,
        other => panic!("not WebRTC: {other:?}"),
    }
}

#[test]
fn asterisk_is_plain_rtp_with_four_codecs() {
    let remote = read_offer(ASTERISK).expect("usable");
    assert_eq!(remote.security, RemoteSecurity::Plain);
    assert_eq!(remote.profile, Profile::Avp);
    assert_eq!(
        codecs_of(&remote.formats),
        [
            (Codec::Pcmu, 0),
            (Codec::Pcma, 8),
            (Codec::G722, 9),
            (Codec::Opus, 107)
        ]
    );
    assert_eq!(events_of(&remote.formats), [(8000, 101)]);
    assert!(remote.opus.use_inband_fec);
    assert_eq!((remote.ptime_ms, remote.maxptime_ms), (Some(20), Some(60)));
    let address = remote.address.expect("not on hold");
    assert_eq!(address.rtp, addr("192.0.2.10:17302"));
    assert_eq!(address.rtcp, Some(addr("192.0.2.10:17303")));
}

#[test]
fn linphone_offers_ice_on_avp_and_is_plain_rtp() {
    let remote = read_offer(LINPHONE).expect("usable");
    assert_eq!(remote.transport(), Transport::Rtp);
    assert_eq!(
        codecs_of(&remote.formats),
        [(Codec::Opus, 96), (Codec::Pcmu, 0), (Codec::Pcma, 8)]
    );
    // telephone-event/16000 is ignored.
    assert_eq!(events_of(&remote.formats), [(48000, 101), (8000, 100)]);
    assert_eq!(remote.layout.index, 0);
    assert_eq!(remote.layout.others.len(), 1);
}

#[test]
fn freeswitch_keys_are_read_but_for_unknown_suites_and_mkis() {
    let remote = read_offer(FREESWITCH).expect("usable");
    let RemoteSecurity::Sdes(lines) = &remote.security else {
        panic!("not SDES: {:?}", remote.security);
    };
    let read: Vec<_> = lines
        .iter()
        .map(|line| (line.tag, line.key.suite(), line.lifetime))
        .collect();
    assert_eq!(
        read,
        [
            (2, SrtpSuite::AeadAes256Gcm, None),
            (3, SrtpSuite::AeadAes128Gcm, None),
            (5, SrtpSuite::AesCm128HmacSha1_32, Some(1 << 20)),
        ]
    );
    assert_eq!(remote.offered_suite(), Some(SrtpSuite::AeadAes256Gcm));
    assert_eq!(remote.opus.max_average_bitrate, Some(30000));
    assert!(remote.opus.stereo && !remote.opus.use_dtx);
    assert_eq!(events_of(&remote.formats), [(48000, 103), (8000, 101)]);
}

#[test]
fn sip_trunk_has_media_level_address_and_its_own_rtcp_address() {
    let remote = read_offer(SIP_TRUNK).expect("usable");
    let address = remote.address.expect("not on hold");
    assert_eq!(address.rtp, addr("203.0.113.77:40012"));
    assert_eq!(address.rtcp, Some(addr("203.0.113.78:40500")));
    assert_eq!(remote.direction, Direction::Sendonly);
    assert_eq!(packet_time_ms(remote.ptime_ms, remote.maxptime_ms), 30);
    assert_eq!(
        codecs_of(&remote.formats),
        [(Codec::Pcma, 8), (Codec::Pcmu, 0)]
    );
}

#[test]
fn chromium_audio_is_found_among_video_and_data() {
    let remote = read_offer(CHROMIUM).expect("usable");
    let webrtc = webrtc_of(&remote);
    assert_eq!(remote.profile, Profile::DtlsSavpf);
    assert_eq!(remote.address, None);
    assert_eq!(remote.direction, Direction::Sendrecv);
    assert_eq!(remote.mid.as_deref(), Some("0"));
    assert!(webrtc.bundled && remote.rtcp_mux && remote.rtcp_rsize);
    assert_eq!(webrtc.setup, Setup::ActPass);
    assert_eq!(webrtc.ice.ufrag(), "Q3nk");
    assert_eq!(
        webrtc.extensions,
        [
            Extension {
                id: 1,
                kind: ExtensionKind::AudioLevel
            },
            Extension {
                id: 4,
                kind: ExtensionKind::Mid
            }
        ]
    );
    assert_eq!(events_of(&remote.formats), [(48000, 110), (8000, 126)]);
    let kinds: Vec<_> = remote
        .layout
        .others
        .iter()
        .map(|it| it.kind.as_str())
        .collect();
    assert_eq!(kinds, ["video", "application"]);
}

#[test]
fn aiortc_fingerprints_of_two_hashes_are_both_kept() {
    let remote = read_offer(AIORTC).expect("usable");
    let hashes: Vec<_> = webrtc_of(&remote)
        .fingerprints
        .iter()
        .map(|fingerprint| (fingerprint.hash, fingerprint.digest.len()))
        .collect();
    assert_eq!(
        hashes,
        [(FingerprintHash::Sha256, 32), (FingerprintHash::Sha384, 48)]
    );
    assert_eq!(webrtc_of(&remote).fingerprints[0].digest[0], 0xd0);
}

#[test]
fn gstreamer_spells_opus_in_capitals() {
    let remote = read_offer(GSTREAMER).expect("usable");
    assert_eq!(codecs_of(&remote.formats), [(Codec::Opus, 97)]);
    assert_eq!(remote.mid.as_deref(), Some("audio0"));
    assert!(webrtc_of(&remote).bundled);
}

#[test]
fn firefox_bundle_only_audio_behind_video_is_usable() {
    let remote = read_offer(FIREFOX).expect("usable");
    let webrtc = webrtc_of(&remote);
    assert_eq!(remote.layout.index, 1);
    assert_eq!(remote.family, AddressFamily::V6);
    // Its fingerprint stands at session level.
    assert_eq!(webrtc.fingerprints.len(), 1);
    assert!(webrtc.bundled);
    assert_eq!(
        codecs_of(&remote.formats),
        [
            (Codec::Opus, 109),
            (Codec::G722, 9),
            (Codec::Pcmu, 0),
            (Codec::Pcma, 8)
        ]
    );
    assert_eq!(events_of(&remote.formats), [(8000, 101)]);
}

#[test]
fn ffmpeg_over_ipv6_has_no_telephone_event() {
    let remote = read_offer(FFMPEG).expect("usable");
    assert_eq!(remote.family, AddressFamily::V6);
    let address = remote.address.expect("not on hold");
    assert_eq!(address.rtp, addr("[2001:db8::15]:5004"));
    assert!(remote.formats.telephone_events.is_empty());
}

#[test]
fn every_sample_means_the_same_under_any_line_ending() {
    for sample in SAMPLES {
        let lf = sample.replace("\r\n", "\n");
        let expected = parse(&lf).expect("samples parse");
        let crlf = lf.replace('\n', "\r\n");
        let cr = lf.replace('\n', "\r");
        let indented = lf.replace('\n', " \n\n  ");
        for text in [crlf, cr, indented] {
            assert_eq!(parse(&text).as_ref(), Ok(&expected));
        }
    }
}

#[test]
fn hold_by_unspecified_address_takes_away_receiving() {
    for address in ["IP4 0.0.0.0", "IP6 ::"] {
        let offer = format!("v=0\nc=IN {address}\nm=audio 4000 RTP/AVP 0\n");
        let remote = read_offer(&offer).expect("hold is usable");
        assert_eq!(remote.address, None);
        assert_eq!(remote.direction, Direction::Sendonly);
    }
}

#[test]
fn unusable_addresses_are_refused() {
    let with = |address: &str| {
        let offer = format!("v=0\nc=IN {address}\nm=audio 4000 RTP/AVP 0\n");
        read_offer(&offer).map(|remote| remote.address)
    };
    assert_eq!(with("IP4 pbx.example.com"), Err(SdpError::NotAnAddress));
    assert_eq!(with("IP4 224.0.1.1/127"), Err(SdpError::Multicast));
    assert_eq!(with("IP6 ff02::1"), Err(SdpError::Multicast));
    assert_eq!(with("IP4 255.255.255.255"), Err(SdpError::Multicast));
    let none = read_offer("v=0\nm=audio 4000 RTP/AVP 0\n");
    assert_eq!(none.map(|_| ()), Err(SdpError::NoAddress));
    let mapped = with("IP6 ::ffff:192.0.2.4").expect("usable");
    assert_eq!(
        mapped.map(|address| address.rtp),
        Some(addr("192.0.2.4:4000"))
    );
}

#[test]
fn streams_that_cannot_be_used_say_why() {
    let error = |text: &str| read_offer(text).map(|_| ()).expect_err("unusable");
    let plain = "v=0\nc=IN IP4 192.0.2.1\n";
    assert_eq!(error(plain), SdpError::NoAudio);
    assert_eq!(
        error(&format!("{plain}m=video 9 RTP/AVP 96\n")),
        SdpError::NoAudio
    );
    assert_eq!(
        error(&format!("{plain}m=audio 9 TCP/RTP/AVP 0\n")),
        SdpError::NoAudio
    );
    assert_eq!(
        error(&format!("{plain}m=audio 0 RTP/AVP 0\n")),
        SdpError::PortZero
    );
    assert_eq!(
        error(&format!("{plain}m=audio 9 RTP/SAVP 0\n")),
        SdpError::NoUsableCrypto
    );
    assert_eq!(error("hello"), SdpError::NotSdp);
    assert_eq!(error(""), SdpError::NotSdp);
    assert_eq!(
        error("v=0\ns=x\nm=audio x RTP/AVP 0"),
        SdpError::Line { number: 3 }
    );
    assert_eq!(error("v=0\nnonsense"), SdpError::Line { number: 2 });
    for unprintable in [
        "m=vidéo 9 p 0",
        "m=video 9 p\u{1b}[2J 0",
        "m=video 9 p 0\u{0}0",
    ] {
        let text = format!("{plain}{unprintable}\nm=audio 4000 RTP/AVP 0\n");
        assert_eq!(error(&text), SdpError::Line { number: 3 });
    }
}

#[test]
fn webrtc_without_what_it_needs_is_refused() {
    let error = |text: String| read_offer(&text).map(|_| ()).expect_err("unusable");
    let lite = CHROMIUM.replace("t=0 0\n", "t=0 0\na=ice-lite\n");
    assert_eq!(error(lite), SdpError::IceLitePeer);
    let sha1 = CHROMIUM.replace("sha-256", "sha-1");
    assert_eq!(error(sha1), SdpError::NoFingerprint);
    let cut = CHROMIUM.replace(":BF:8A", ":BF");
    assert_eq!(error(cut), SdpError::NoFingerprint);
    let no_password = CHROMIUM.replace("a=ice-pwd", "a=x-ice-pwd");
    assert_eq!(error(no_password), SdpError::NoIceCredentials);
    let short = CHROMIUM.replace("a=ice-ufrag:Q3nk", "a=ice-ufrag:Q3n");
    assert_eq!(error(short), SdpError::NoIceCredentials);
    let none = CHROMIUM.replace("a=fingerprint", "a=x-fingerprint");
    assert_eq!(error(none), SdpError::NoFingerprint);
}

#[test]
fn the_second_audio_stream_is_taken_when_the_first_cannot_be() {
    let offer = "v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/SAVP 0\n\
                 a=crypto:1 F8_128_HMAC_SHA1_80 inline:AAAA\nm=audio 4002 RTP/AVP 8\n";
    let remote = read_offer(offer).expect("the second is usable");
    assert_eq!(remote.layout.index, 1);
    assert_eq!(codecs_of(&remote.formats), [(Codec::Pcma, 8)]);
}

#[test]
fn crypto_lines_with_what_we_do_not_know_are_unusable() {
    let good = "1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let usable = |text: String| CryptoLine::parse(&text).is_some();
    assert!(usable(good.to_owned()));
    assert!(usable(format!("{good}|2^48")));
    assert!(usable(format!("{good}|1000000|1:0")));
    assert!(usable(format!("{good} WSH=128")));
    assert!(usable(format!("{good} -FUTURE=1")));
    assert!(usable(good.to_lowercase().replace(
        "wvnfx19zzw1jdgwgkckgewkymja7fqp9cnvubgvz",
        "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"
    )));
    for bad in [
        format!("{good}|2^20|1:4"),
        format!("{good}|1:4"),
        format!("{good}|2^49"),
        format!("{good}|2^9999"),
        format!("{good}|0"),
        format!("{good};inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz"),
        format!("{good} UNENCRYPTED_SRTP"),
        format!("{good} KDR=1"),
        format!("{good} FEC_ORDER=FEC_SRTP"),
        good.replace("inline:", "prompt:"),
        good.replace("AES_CM_128_HMAC_SHA1_80", "AEAD_AES_256_GCM"),
        good.replacen('1', "1234567890", 1),
        good.replace("GVz", "G*z"),
        format!("{good}{}", "A".repeat(60)),
        "1 AES_CM_128_HMAC_SHA1_80".to_owned(),
        String::new(),
    ] {
        assert!(!usable(bad.clone()), "{bad}");
    }
}

#[test]
fn base64_padding_may_be_missing_and_key_and_salt_have_their_lengths() {
    for (suite, key_len, salt_len, padding) in [
        (SrtpSuite::AeadAes256Gcm, 32, 12, "="),
        (SrtpSuite::AeadAes128Gcm, 16, 12, "=="),
        (SrtpSuite::AesCm128HmacSha1_80, 16, 14, ""),
        (SrtpSuite::AesCm128HmacSha1_32, 16, 14, ""),
    ] {
        let key = key(suite, 0xa7);
        assert_eq!(key.master_key().len(), key_len);
        assert_eq!(key.master_salt().len(), salt_len);
        let mut text = String::new();
        key.write_base64(&mut text);
        assert!(text.ends_with(padding));
        assert_eq!(SdesKey::from_base64(suite, &text).as_ref(), Some(&key));
        let cut = text.trim_end_matches('=');
        assert_eq!(SdesKey::from_base64(suite, cut).as_ref(), Some(&key));
        assert_eq!(SdesKey::from_base64(suite, &cut[..cut.len() - 2]), None);
    }
}

#[test]
fn debug_shows_no_secret() {
    let key_text = "WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz";
    let sdes = parse(FREESWITCH).expect("parses");
    let remote = RemoteDescription::from_offer(&sdes).expect("usable");
    let shown = format!("{sdes:?} {remote:?} {:?}", key(SrtpSuite::ALL[0], 0x41));
    assert!(!shown.contains(key_text) && !shown.contains("KWhmRHWq"));
    assert!(!shown.contains("65, 65") && !shown.contains("41, 104"));
    let webrtc = parse(CHROMIUM).expect("parses");
    let remote = RemoteDescription::from_offer(&webrtc).expect("usable");
    assert!(!format!("{webrtc:?} {remote:?}").contains("v7TtVw0p6mIh"));
}

#[test]
fn packet_time_follows_the_peer_within_what_we_encode() {
    let cases = [
        (None, None, 20),
        (Some(10), None, 10),
        (Some(5), None, 10),
        (Some(25), None, 20),
        (Some(50), None, 40),
        (Some(120), None, 60),
        (Some(40), Some(30), 30),
        (None, Some(10), 10),
        (None, Some(200), 20),
    ];
    for (ptime, maxptime, expected) in cases {
        assert_eq!(packet_time_ms(ptime, maxptime), expected);
    }
}

#[test]
fn payload_types_are_read_by_rtpmap_before_static_meaning() {
    let codecs = |formats: &str, lines: &str| {
        let remote = read_offer(&plain_offer(formats, lines)).expect("usable");
        codecs_of(&remote.formats)
    };
    assert_eq!(
        codecs("0 8 9", ""),
        [(Codec::Pcmu, 0), (Codec::Pcma, 8), (Codec::G722, 9)]
    );
    assert_eq!(codecs("0", "a=rtpmap:0 L16/44100\n"), []);
    assert_eq!(codecs("96", "a=rtpmap:96 pcmu/8000\n"), [(Codec::Pcmu, 96)]);
    assert_eq!(codecs("96", "a=rtpmap:96 PCMU/16000\n"), []);
    assert_eq!(codecs("96", "a=rtpmap:96 PCMU/8000/2\n"), []);
    assert_eq!(codecs("9", "a=rtpmap:9 G722/16000\n"), [(Codec::G722, 9)]);
    assert_eq!(
        codecs("96", "a=rtpmap:96 opus/48000\n"),
        [(Codec::Opus, 96)]
    );
    assert_eq!(codecs("96", "a=rtpmap:96 opus/16000\n"), []);
    assert_eq!(
        codecs("0 0 8 0 128 300 x", ""),
        [(Codec::Pcmu, 0), (Codec::Pcma, 8)]
    );
}

#[test]
fn rtcp_goes_where_the_peer_says() {
    let rtcp = |lines: &str| {
        let remote = read_offer(&plain_offer("0", lines)).expect("usable");
        remote.address.and_then(|address| address.rtcp)
    };
    assert_eq!(rtcp(""), Some(addr("192.0.2.1:4001")));
    assert_eq!(rtcp("a=rtcp-mux\n"), Some(addr("192.0.2.1:4000")));
    assert_eq!(rtcp("a=rtcp:5555\n"), Some(addr("192.0.2.1:5555")));
    assert_eq!(
        rtcp("a=rtcp:5555 IN IP4 pbx.example\n"),
        Some(addr("192.0.2.1:5555"))
    );
    assert_eq!(
        rtcp("a=rtcp:5555 IN IP4 224.0.0.1\n"),
        Some(addr("192.0.2.1:5555"))
    );
    assert_eq!(rtcp("a=rtcp:0\n"), Some(addr("192.0.2.1:4001")));
    let last = read_offer("v=0\nc=IN IP4 192.0.2.1\nm=audio 65535 RTP/AVP 0\n").expect("usable");
    assert_eq!(last.address.map(|address| address.rtcp), Some(None));
}

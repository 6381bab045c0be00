//! Nothing a peer writes makes us panic, write lines of its making, or work more than in
//! proportion to its length.

use proptest::prelude::*;
use rtpbridge_shared::vocab::Transport;

use super::*;

/// Everything that an engine would do with a text from a peer.
fn exercise(text: &str) {
    let Ok(sdp) = parse(text) else {
        return;
    };
    for offer in [
        plan_offer(offer_settings(OfferSecurity::Plain)),
        plan_offer(offer_settings(OfferSecurity::Webrtc(webrtc_settings()))),
        plan_offer(offer_settings(OfferSecurity::Optional(vec![line(
            1,
            SrtpSuite::AesCm128HmacSha1_80,
            1,
        )]))),
    ] {
        let _ = accept_answer(&offer, &sdp);
    }
    let Ok(remote) = RemoteDescription::from_offer(&sdp) else {
        return;
    };
    let security = match (remote.transport(), remote.offered_suite()) {
        (Transport::Webrtc, _) => AnswerSecurity::Webrtc {
            settings: webrtc_settings(),
            role: None,
        },
        (Transport::Rtp, Some(suite)) => AnswerSecurity::Sdes(key(suite, 1)),
        (Transport::Rtp, None) => AnswerSecurity::Plain,
    };
    let mut settings = answer_settings(security);
    if remote.family == AddressFamily::V6 {
        settings.address = addr("[2001:db8::9]:30000");
    }
    match plan_answer(&remote, settings) {
        Ok((local, agreement)) => {
            check_answer(&sdp, &remote, &local);
            if remote.transport() == Transport::Rtp {
                let again = answer_again(&local, &agreement, &remote, Direction::Sendrecv);
                again.expect("an offer that was answered can be answered again");
            }
        }
        Err(SdpError::NoCommonCodec) => assert_eq!(remote.transport(), Transport::Webrtc),
        Err(error) => panic!("a usable offer was not answered: {error}"),
    }
}

/// What holds of every answer.
fn check_answer(
    sdp: &SessionDescription<'_>,
    remote: &RemoteDescription,
    local: &LocalDescription,
) {
    let text = local.write();
    let written = parse(&text).expect("we read what we write");
    assert_eq!(written.media.len(), sdp.media.len());
    for (index, (answer, offer)) in written.media.iter().zip(&sdp.media).enumerate() {
        let ours = index == remote.layout.index;
        assert_eq!(answer.port == 0, !ours);
        assert_eq!(answer.kind, if ours { "audio" } else { offer.kind });
        if !ours {
            assert_eq!(answer.proto, offer.proto);
        }
    }
    let ours = &written.media[remote.layout.index];
    for format in &ours.formats {
        let prefix = format!("{format} ");
        let maps = ours.attributes.iter().filter(|it| it.name == "rtpmap");
        assert_eq!(maps.filter(|it| it.value.starts_with(&prefix)).count(), 1);
    }
    assert!(!ours.formats.is_empty());
    for (line, ending) in text
        .split_inclusive("\r\n")
        .map(|line| line.split_at(line.len() - 2))
    {
        assert_eq!(ending, "\r\n");
        assert!(!line.contains(['\r', '\n']));
    }
}

/// Lines of the samples and lines made to hurt, to be shuffled together.
fn any_line() -> impl Strategy<Value = String> {
    let known: Vec<String> = SAMPLES
        .iter()
        .flat_map(|sample| sample.lines())
        .map(str::to_owned)
        .collect();
    let odd = [
        "m=audio 99999 RTP/AVP 0",
        "m=audio 1/2 RTP/AVP 0 0 0 127 128 255 256 -1",
        "m=audio 4000 RTP/AVP",
        "m=audio 4000 RTP/SAVPF 111",
        "c=IN IP4",
        "c=IN IP6 ff02::1",
        "c=IN IP4 1.2.3.4/127/3",
        "a=rtpmap:",
        "a=rtpmap:111",
        "a=rtpmap:111 /",
        "a=rtpmap:111 opus//",
        "a=fmtp:111 =;=;;maxaveragebitrate=99999999999999",
        "a=crypto:",
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:|||::|",
        "a=fingerprint:sha-256 ",
        "a=fingerprint:sha-256 é",
        "a=extmap:4294967296 urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=extmap:3/sendonly urn:ietf:params:rtp-hdrext:sdes:mid",
        "a=group:BUNDLE",
        "a=mid:",
        "a=ptime:99999",
        "a=ptime:-1",
        "a=rtcp:65536",
        "a=rtcp:1 IN IP4",
        "a=bundle-only",
        "a",
        "=",
        "é=é",
    ];
    let odd = odd.into_iter().map(str::to_owned);
    prop::sample::select(known.into_iter().chain(odd).collect::<Vec<_>>())
}

fn any_sample() -> impl Strategy<Value = &'static str> {
    prop::sample::select(SAMPLES.to_vec())
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn any_bytes_are_survived(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise(&String::from_utf8_lossy(&bytes));
        let text = format!("v=0\r\nm=audio 9 RTP/AVP 0\r\n{}", String::from_utf8_lossy(&bytes));
        exercise(&text);
    }

    #[test]
    fn shuffled_lines_are_survived_and_answers_keep_their_form(
        lines in prop::collection::vec(any_line(), 0..60),
    ) {
        exercise(&format!("v=0\nc=IN IP4 192.0.2.1\n{}\n", lines.join("\n")));
    }

    #[test]
    fn damaged_samples_are_survived(
        sample in any_sample(),
        edits in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..12),
        cut in any::<prop::sample::Index>(),
    ) {
        let mut bytes = sample.as_bytes().to_vec();
        for (at, byte) in edits {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        exercise(&String::from_utf8_lossy(&bytes));
        bytes.truncate(cut.index(bytes.len()));
        exercise(&String::from_utf8_lossy(&bytes));
    }

    #[test]
    fn inserted_lines_are_survived(
        sample in any_sample(),
        line in any_line(),
        at in any::<prop::sample::Index>(),
    ) {
        let mut lines: Vec<_> = sample.lines().collect();
        let at = at.index(lines.len());
        lines.insert(at, &line);
        exercise(&lines.join("\r\n"));
    }

    #[test]
    fn what_we_write_is_what_we_read(
        session_id in any::<u64>(),
        version in any::<u64>(),
        port in 1_u16..,
        direction in prop::sample::select(Direction::ALL),
        codecs in prop::sample::subsequence(
            vec![Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus], 1..=4,
        ).prop_shuffle(),
        suites in prop::sample::subsequence(SrtpSuite::ALL.to_vec(), 0..=4),
        fill in any::<u8>(),
        kind in 0..3,
        v6 in any::<bool>(),
    ) {
        let lines: Vec<_> = suites
            .iter()
            .zip(1..)
            .map(|(suite, tag)| line(tag, *suite, fill))
            .collect();
        let security = match kind {
            0 => OfferSecurity::Webrtc(webrtc_settings()),
            1 if !lines.is_empty() => OfferSecurity::Required(lines.clone()),
            2 if !lines.is_empty() => OfferSecurity::Optional(lines.clone()),
            _ => OfferSecurity::Plain,
        };
        let ip = if v6 { "[2001:db8::5]" } else { "192.0.2.5" };
        let offer = plan_offer(OfferSettings {
            origin: Origin { session_id, version },
            address: addr(&format!("{ip}:{port}")),
            direction,
            codecs,
            security,
        });
        let text = offer.write();
        let sdp = parse(&text).expect("we read what we write");
        let origin = sdp.origin.expect("written");
        prop_assert_eq!(origin.session_id, session_id.to_string());
        prop_assert_eq!(origin.version, version.to_string());
        // An ICE-lite offer is one that we ourselves cannot answer.
        let text = text.replace("a=ice-lite\r\n", "");
        let remote = read_offer(&text).expect("usable");
        prop_assert_eq!(remote.transport(), offer.transport());
        prop_assert_eq!(&remote.formats, &offer.formats);
        prop_assert_eq!(remote.direction, offer.direction.mirrored());
        prop_assert_eq!(&remote.mid, &offer.mid);
        match (&remote.security, &offer.security) {
            (RemoteSecurity::Sdes(read), LocalSecurity::Sdes(written)) => {
                prop_assert_eq!(read, written);
            }
            (RemoteSecurity::Webrtc(read), LocalSecurity::Webrtc(written)) => {
                prop_assert_eq!(&read.ice, &written.ice);
                prop_assert_eq!(&read.fingerprints[0], &written.fingerprint);
                prop_assert_eq!(&read.extensions, &written.extensions);
                prop_assert_eq!(read.setup, written.setup);
            }
            (RemoteSecurity::Plain, LocalSecurity::Plain) => {}
            (read, written) => prop_assert!(false, "{:?} from {:?}", read, written),
        }
    }
}

#[test]
fn every_sample_goes_through_the_whole_of_it() {
    for sample in SAMPLES {
        let offer = sample.replace("setup:active", "setup:actpass");
        let sdp = parse(&offer).expect("samples parse");
        RemoteDescription::from_offer(&sdp).expect("samples are usable");
        exercise(&offer);
    }
}

#[test]
fn answers_grow_only_in_proportion_to_the_offer() {
    let streams = "m=v 1 p\n".repeat(8000);
    let offer = format!("v=0\nc=IN IP4 192.0.2.1\n{streams}m=audio 4000 RTP/AVP 0\n");
    let (local, _) = answer_plain(&offer);
    assert!(local.write().len() < 4 * offer.len());
    assert_eq!(local.layout.others.len(), 8000);

    let streams = "m=v 1 p\n".repeat(8000);
    let offer = format!("{CHROMIUM}{streams}");
    let remote = read_offer(&offer).expect("usable");
    let (local, _) = plan_answer(&remote, webrtc_answer()).expect("answerable");
    assert!(local.write().len() < 4 * offer.len());
}

#[test]
fn what_is_kept_of_repeated_lines_is_bounded() {
    let crypto =
        "a=crypto:1 AES_CM_128_HMAC_SHA1_80 inline:WVNfX19zZW1jdGwgKCkgewkyMjA7fQp9CnVubGVz\n";
    let remote = read_offer(&plain_offer("0", &crypto.repeat(500))).expect("usable");
    assert!(matches!(&remote.security, RemoteSecurity::Sdes(lines) if lines.len() == 8));
    let fingerprint = "a=fingerprint:sha-256 5B:24:0C:8D:77:5E:9A:61:9C:C4:0F:73:6B:11:35:3E:\
                       22:D9:42:5B:8F:6A:6D:47:1C:EA:E0:1D:39:02:BF:8A\n";
    let offer = GSTREAMER.to_owned() + &fingerprint.repeat(500);
    let remote = read_offer(&offer).expect("usable");
    assert!(matches!(&remote.security, RemoteSecurity::Webrtc(it) if it.fingerprints.len() == 8));
    let formats = "0 ".repeat(5000);
    let remote = read_offer(&plain_offer(&formats, "")).expect("usable");
    assert_eq!(remote.formats.codecs.len(), 1);
}

#[test]
fn a_carriage_return_within_a_line_cannot_start_a_line_of_ours() {
    let offer = "v=0\nc=IN IP4 192.0.2.1\nm=audio 4000 RTP/AVP 0\nm=video 9 x\ra=evil:1 96\n\
                 a=mid:v\ra=evil:2\na=rtpmap:96 x\ra=evil:3\n";
    let (local, _) = answer_plain(offer);
    let text = local.write();
    assert!(
        !text.contains("\ra=evil") && !text.contains("\na=evil"),
        "{text}"
    );
}

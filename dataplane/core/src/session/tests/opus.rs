//! Opus through the whole of a session: what a listener's description asks of what we send it (RFC 7587
//! section 6.1, RFC 8866 section 6.4), and packets that are none.

use rtpbridge_shared::vocab::Codec;

use super::mixing::{Speaker, assert_one_stream};
use super::*;

/// Two seconds of syllables and one of silence, as a listener with these lines of SDP is sent them: a
/// steady tone is no speech to Opus.
fn heard_with(lines: &str) -> [Vec<(RtpHeader, Vec<u8>)>; 2] {
    let mut world = World::new();
    let address = SocketAddr::from(([10, 0, 0, 1], 4000));
    let sdp = offer(address, "111 110", "sendrecv").replace("a=fmtp:111 useinbandfec=1\r\n", "");
    let listener = world.join_with(sdp + lines, address, Direction::Recvonly);
    let mut talker = Speaker::join(&mut world, Codec::Pcmu, 440.0, -20.0);
    let mut say = |levels_dbfs: [f64; 2], frames: usize| {
        for frame in 0..frames {
            talker.level_dbfs = levels_dbfs[frame / 5 % 2];
            let packet = talker.packet();
            world.receive(&talker.party, &packet);
            world.pass(20);
        }
        world.take_rtp(&listener)
    };
    [say([-15.0, -60.0], 100), say([-120.0; 2], 50)]
}

fn bytes_per_packet(heard: &[(RtpHeader, Vec<u8>)]) -> usize {
    let bytes: usize = heard.iter().map(|(_, payload)| payload.len()).sum();
    bytes / heard.len()
}

#[test]
fn a_peers_highest_bitrate_is_kept_to() {
    let [usual, _] = heard_with("");
    // 24 kbit/s are 60 bytes.
    assert!((40..=75).contains(&bytes_per_packet(&usual)));
    let [low, _] = heard_with("a=fmtp:111 maxaveragebitrate=10000\r\n");
    assert!((10..=28).contains(&bytes_per_packet(&low)));
    // What allows more does not ask for more.
    let [high, _] = heard_with("a=fmtp:111 maxaveragebitrate=128000\r\n");
    assert_eq!(bytes_per_packet(&high), bytes_per_packet(&usual));
}

#[test]
fn silence_is_left_out_for_who_asks_for_it_alone() {
    let [said, silence] = heard_with("a=fmtp:111 usedtx=1\r\n");
    assert_eq!(said.len(), 100);
    assert!(silence.len() < 35, "{} packets of silence", silence.len());
    let [_, silence] = heard_with("a=fmtp:111 usedtx=0\r\n");
    assert_eq!(silence.len(), 50);
}

#[test]
fn stereo_is_never_sent_and_packets_have_the_length_that_is_asked_for() {
    for (lines, ticks) in [
        ("a=fmtp:111 stereo=1;sprop-stereo=1\r\n", 960),
        ("a=ptime:10\r\n", 480),
        ("a=ptime:40\r\n", 1920),
        ("a=ptime:60\r\na=maxptime:30\r\n", 960),
        ("a=ptime:60\r\n", 2880),
    ] {
        let [heard, _] = heard_with(lines);
        assert_eq!(heard.len(), 100 * 960 / ticks as usize, "{lines}");
        for pair in heard.windows(2) {
            let step = pair[1].0.timestamp.wrapping_sub(pair[0].0.timestamp);
            assert_eq!(step, ticks, "{lines}");
        }
        // The s bit of the table of contents (RFC 6716 section 3.1).
        assert!(heard.iter().all(|(_, payload)| payload[0] & 4 == 0));
    }
}

#[test]
fn a_packet_that_does_not_decode_is_counted_and_ends_no_stream() {
    for is_mixed in [false, true] {
        let mut world = World::new();
        let mut talkers = vec![Speaker::join(&mut world, Codec::Opus, 500.0, -20.0)];
        let listener = world.join(PCMU, Direction::Recvonly);
        if is_mixed {
            talkers.push(Speaker::join(&mut world, Codec::Pcma, 800.0, -20.0));
        }
        for talker in &talkers {
            world.set_direction(&talker.party, Some(Direction::Sendonly));
        }
        let mut heard = Vec::new();
        for frame in 0..150 {
            for (n, talker) in talkers.iter_mut().enumerate() {
                let mut packet = talker.packet();
                if n == 0 && matches!(frame, 60 | 80 | 81) {
                    // So many frames as the next byte says (RFC 6716 section 3.2.5), which is not there.
                    packet.truncate(12);
                    packet.push(0xff);
                }
                world.receive(&talker.party, &packet);
            }
            world.pass(20);
            heard.extend(world.take_rtp(&listener));
        }
        let errors = world.out.counters.transcode_errors;
        assert_eq!(errors, 3, "mixed: {is_mixed}");
        assert_one_stream(&heard);
        assert!(heard.len() >= 145, "{} of 150", heard.len());
    }
}

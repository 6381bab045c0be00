//! Every ordered pair of codecs at the quality bars of a transcoded call.

use std::thread;
use std::time::Duration;

use rtpbridge_tests::harness::Server;
use rtpbridge_tests::netem::Network;
use rtpbridge_tests::sound::{Coding, amplitude, fit, loudness, steepest, tone, worst_spur};
use serde_json::json;

use super::Speaker;

/// What of a recording is judged: what comes after pipelines and codecs have settled.
const SETTLED: f64 = 1.0;

/// What the listener makes of what the talker says through the programs and the network.
pub(super) fn through(
    server: &Server,
    (from, to): (Coding, Coding),
    pcm: &[i16],
    network: Option<Network>,
) -> Speaker {
    let (mut client, _) = server.session();
    let mut talker = Speaker::join(&mut client, from).with_script(pcm);
    let mut listener = Speaker::join(&mut client, to);
    let frames = talker.script.len();
    let mut packets: Vec<_> = (0..frames).filter_map(|_| talker.next_packet()).collect();
    if let Some(network) = network {
        packets = network.carry(&packets);
    }
    // Pipelines run by the packets' own time: there is no need to wait for the clock.
    for group in packets.chunks(5) {
        for packet in group {
            talker.party.send_packet(packet);
        }
        thread::sleep(Duration::from_millis(4));
    }
    listener.listen(Duration::from_millis(300));
    listener.assert_continuous();
    client.call("session.destroy", json!({}));
    listener
}

pub(super) fn pairs() -> impl Iterator<Item = (Coding, Coding)> {
    let others = |from| Coding::ALL.into_iter().filter(move |to| *to != from);
    Coding::ALL
        .into_iter()
        .flat_map(move |from| others(from).map(move |to| (from, to)))
}

pub(super) fn has_opus((from, to): (Coding, Coding)) -> bool {
    from == Coding::Opus || to == Coding::Opus
}

#[test]
fn a_1_khz_tone_crosses_every_pair_at_the_bars() {
    let server = Server::start();
    let mut table = String::new();
    for pair in pairs() {
        let (from, to) = pair;
        let pcm = tone(from.audio_hz(), 1000.0, -10.0, 2.5);
        let heard = through(&server, pair, &pcm, None);
        let (sound, rate_hz) = (heard.last_sound(SETTLED), to.audio_hz());
        let found = fit(&sound, rate_hz, 1000.0);
        let (spur_hz, spur_dbfs) = worst_spur(&sound, rate_hz, 1000.0);
        let (level, snr) = (found.level_dbfs, found.snr_db);
        let row = format!("{from:?} | {to:?} | {level:.2} | {snr:.1} | {spur_dbfs:.1}");
        println!("| {row} |");
        table += &row;
        let bar = if has_opus(pair) { 30.0 } else { 38.0 };
        assert!((level + 10.0).abs() <= 0.5, "{row}");
        assert!(snr >= bar, "{row}");
        assert!(spur_dbfs < -50.0, "{row} at {spur_hz} Hz");
    }
    assert_eq!(server.metric("rtpbridge_transcode_errors_total"), 0.0);
}

#[test]
fn what_a_narrowband_codec_cannot_carry_is_left_out() {
    let server = Server::start();
    for from in [Coding::G722, Coding::Opus] {
        for to in [Coding::Pcmu, Coding::Pcma] {
            let pcm = tone(from.audio_hz(), 5000.0, -10.0, 2.0);
            let heard = through(&server, (from, to), &pcm, None);
            let sound = heard.last_sound(SETTLED);
            let (hz, spur) = worst_spur(&sound, 8000, 0.0);
            let row = format!("{from:?} | {to:?} | {spur:.1} | {:.1}", loudness(&sound));
            println!("| {row} |");
            assert!(spur < -50.0, "{row} at {hz} Hz");
        }
    }
}

#[test]
fn the_telephone_band_is_flat_in_every_pair() {
    let server = Server::start();
    for pair in pairs() {
        let (from, to) = pair;
        let mut levels = Vec::new();
        for frequency in [300.0, 500.0, 1000.0, 2000.0, 3000.0, 3400.0] {
            let pcm = tone(from.audio_hz(), frequency, -10.0, 2.0);
            let heard = through(&server, pair, &pcm, None);
            let found = fit(&heard.last_sound(SETTLED), to.audio_hz(), frequency);
            levels.push((frequency, found.level_dbfs));
        }
        let shown: Vec<_> = levels.iter().map(|(_, l)| format!("{l:.2}")).collect();
        println!("| {from:?} | {to:?} | {} |", shown.join(" | "));
        for (frequency, level) in levels {
            let off = level + 10.0;
            assert!(off.abs() <= 1.0, "{pair:?} at {frequency} Hz: {off:.2} dB");
        }
    }
}

/// A sine that climbs evenly from 300 to 3400 Hz, after a second at its lowest.
fn sweep(rate_hz: u32, level_dbfs: f64, seconds: f64) -> Vec<i16> {
    let peak = amplitude(level_dbfs);
    let mut turns = 0.0;
    let sample = |n: usize| {
        let at = (n as f64 / f64::from(rate_hz) - 1.0).max(0.0);
        let hz = 300.0 + 3100.0 * at / (seconds - 1.0);
        turns += hz / f64::from(rate_hz);
        (peak * (std::f64::consts::TAU * turns).sin()).round() as i16
    };
    let count = (seconds * f64::from(rate_hz)) as usize;
    (0..count).map(sample).collect()
}

#[test]
fn a_sweep_of_the_telephone_band_is_as_loud_everywhere() {
    let server = Server::start();
    for pair in pairs() {
        let (from, to) = pair;
        let pcm = sweep(from.audio_hz(), -10.0, 5.0);
        let heard = through(&server, pair, &pcm, None).sound();
        // Whole periods of what is slowest, but for the ends.
        let piece = to.audio_hz() as usize / 20;
        let pieces = heard.chunks_exact(piece).take(98).skip(20);
        let off: Vec<f64> = pieces.map(|piece| loudness(piece) + 10.0).collect();
        let least = off.iter().copied().fold(f64::INFINITY, f64::min);
        let most = off.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let row = format!("{from:?} | {to:?} | {least:+.2} | {most:+.2}");
        println!("| {row} |");
        assert!(least >= -1.0 && most <= 1.0, "{row}");
    }
    assert_eq!(server.metric("rtpbridge_transcode_errors_total"), 0.0);
}

#[test]
fn losing_a_tenth_clicks_no_louder_than_concealment_and_drifts_nowhere() {
    let server = Server::start();
    for pair in pairs() {
        let (from, to) = pair;
        let pcm = tone(from.audio_hz(), 440.0, -10.0, 10.0);
        let heard = through(&server, pair, &pcm, Some(Network::lossy(7, 10.0, 0.0)));
        // Each lost frame is made up for, so what comes out is as long as what went in.
        let frames = heard.heard.len() as i64;
        assert!(
            (frames - 500).abs() <= 6,
            "{pair:?}: {frames} of 500 frames"
        );
        let (first, last) = (&heard.heard[0], &heard.heard[heard.heard.len() - 1]);
        let elapsed = last.timestamp.wrapping_sub(first.timestamp) / to.frame_ticks();
        assert!((i64::from(elapsed) - 499).abs() <= 6, "{pair:?}: {elapsed}");
        let rate_hz = to.audio_hz();
        let natural = amplitude(-10.0) * std::f64::consts::TAU * 440.0 / f64::from(rate_hz);
        let found = f64::from(steepest(&heard.last_sound(9.0)));
        println!(
            "| {from:?} | {to:?} | {frames} | {:.2} |",
            found / amplitude(-10.0)
        );
        // What concealment itself leaves where a frame that is faded meets one that begins anew: a
        // click would be a step of up to two peaks.
        let bound = natural + 0.5 * amplitude(-10.0);
        assert!(
            found < bound,
            "{pair:?}: a step of {found}, {natural} is the tone's"
        );
    }
}

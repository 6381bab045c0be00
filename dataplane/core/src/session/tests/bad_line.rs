//! A conference with one bad line: what the others say comes neither later nor in pieces for it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtpbridge_shared::vocab::Codec;

use super::mixing::{Speaker, assert_one_stream};
use super::tones::decoded;
use super::*;

const FRAMES: u64 = 500;
/// A click of three frames every half second.
const PERIOD: u64 = 25;
const CLICK: u64 = 3;

/// When the listener begins to hear each click, in ms since it began to be said.
fn delays(is_line_bad: bool) -> Vec<f64> {
    let mut world = World::new();
    let mut dice = StdRng::seed_from_u64(3);
    let clicker = Speaker::join(&mut world, Codec::Pcmu, 1000.0, -10.0);
    let silent = Speaker::join(&mut world, Codec::Pcma, 440.0, -120.0);
    let other = Speaker::join(&mut world, Codec::G722, 500.0, -60.0);
    let mut parties = [clicker, silent, other];
    let mut late: Vec<(u64, Vec<u8>)> = Vec::new();
    let (mut heard, mut arrived_ms) = (Vec::new(), Vec::new());
    for ms in 0..FRAMES * 20 {
        let frame = ms / 20;
        if ms % 20 == 0 {
            let is_click = frame >= 2 * PERIOD && frame % PERIOD < CLICK;
            parties[0].level_dbfs = if is_click { -10.0 } else { -120.0 };
            for speaker in &mut parties[..2] {
                let packet = speaker.packet();
                world.receive(&speaker.party, &packet);
            }
            let packet = parties[2].packet();
            if !is_line_bad {
                late.push((ms, packet));
            } else if dice.random_range(0..10) > 0 {
                late.push((ms + dice.random_range(0..60), packet));
            }
        }
        late.retain(|(due, packet)| {
            let is_due = *due <= ms;
            if is_due {
                world.receive(&parties[2].party, packet);
            }
            !is_due
        });
        world.pass(1);
        for packet in world.take_rtp(&parties[1].party) {
            heard.push(packet);
            arrived_ms.push(ms + 1);
        }
    }
    assert_one_stream(&heard);
    onsets(&decoded(Codec::Pcma, &heard), &arrived_ms)
}

/// When clicks begin in frames that arrived at these times, after the beginning of each period.
fn onsets(pcm: &[i16], arrived_ms: &[u64]) -> Vec<f64> {
    let mut found = Vec::new();
    let mut quiet = 0;
    for (frame, at) in pcm.chunks_exact(160).zip(arrived_ms) {
        for (n, sample) in frame.iter().enumerate() {
            quiet += 1;
            if sample.unsigned_abs() > 1000 {
                if quiet > 1000 {
                    let said_ms = at / (PERIOD * 20) * PERIOD * 20;
                    found.push((at - said_ms) as f64 + n as f64 / 8.0);
                }
                quiet = 0;
            }
        }
    }
    found
}

#[test]
fn nobody_is_delayed_or_chopped_by_anothers_line() {
    let (good, bad) = (delays(false), delays(true));
    // The first second is left in peace.
    assert_eq!(good.len() as u64, FRAMES / PERIOD - 2);
    assert!(good.iter().all(|delay| *delay < 100.0), "{good:?}");
    assert_eq!(good, bad);
}

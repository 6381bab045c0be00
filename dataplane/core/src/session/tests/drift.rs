//! Ten minutes of sound that is made anew: nothing runs ahead of the clock or falls behind it.

use rand::rngs::StdRng;
use rand::{Rng, SeedableRng};
use rtpbridge_shared::vocab::Codec;

use super::mixing::{Speaker, assert_one_stream};
use super::*;

const MINUTES: u64 = 10;
const FRAMES: u64 = MINUTES * 60 * 50;
/// Frames before the streams have begun for certain.
const SETTLED: u64 = 50;

/// All speak for ten minutes over lines that lose a tenth; nobody's stream may leave real time.
fn expect_no_drift(codecs: &[Codec]) {
    let mut world = World::new();
    let mut dice = StdRng::seed_from_u64(5);
    let mut speakers: Vec<_> = codecs
        .iter()
        .map(|codec| Speaker::join(&mut world, *codec, 440.0, -20.0))
        .collect();
    let mut lag = vec![None; codecs.len()];
    for frame in 0..FRAMES {
        for speaker in &mut speakers {
            let packet = speaker.packet();
            if dice.random_range(0..10) > 0 {
                world.receive(&speaker.party, &packet);
            }
        }
        world.pass(20);
        for (n, speaker) in speakers.iter_mut().enumerate() {
            let heard = world.take_rtp(&speaker.party);
            speaker.heard.extend(heard);
            let Some((last, _)) = speaker.heard.last() else {
                continue;
            };
            // By how many frames the newest packet's time is behind the clock's.
            let ticks = speaker.codec.clock_rate() / 50;
            let behind = (frame as u32)
                .wrapping_mul(ticks)
                .wrapping_sub(last.timestamp);
            if frame == SETTLED {
                lag[n] = Some(behind);
            }
            if let Some(at_first) = lag[n] {
                let moved = behind.wrapping_sub(at_first) as i32;
                let frames = f64::from(moved) / f64::from(ticks);
                // Lost packets are concealed when the next one comes.
                let (least, most) = (-2.0, 6.0);
                assert!(
                    (least..=most).contains(&frames),
                    "{codecs:?}: {n} is {frames} frames behind at frame {frame}"
                );
            }
        }
        // Two packets tell all that is still to be judged.
        for speaker in &mut speakers {
            if speaker.heard.len() > 100 {
                assert_one_stream(&speaker.heard);
                speaker.heard.drain(..99);
            }
        }
    }
}

#[test]
fn ten_minutes_between_two_codecs_stay_in_time() {
    expect_no_drift(&[Codec::Pcmu, Codec::G722]);
    expect_no_drift(&[Codec::Pcma, Codec::Opus]);
}

#[test]
fn ten_minutes_of_a_conference_stay_in_time() {
    expect_no_drift(&[Codec::Pcmu, Codec::G722, Codec::Opus]);
}

//! Any number of channels to one. The centre counts most, surrounds least, the subwoofer not at
//! all; the weights sum to one, so nothing clips that did not before.

use symphonia::core::audio::{Channels, Position};

/// Weights of each channel, in the order of the samples.
pub(super) fn weights(channels: &Channels) -> Vec<f32> {
    match channels {
        Channels::Positioned(positions) => {
            normalized(positions.iter().map(weight_of).collect::<Vec<_>>())
        }
        other => equal(other.count()),
    }
}

/// Weights for a number of Opus or Vorbis channels (RFC 7845 section 5.1.1.2).
pub(super) fn vorbis_weights(channels: usize) -> Vec<f32> {
    match channels {
        3 => normalized(vec![0.707, 1.0, 0.707]),
        4 => normalized(vec![0.707, 0.707, 0.5, 0.5]),
        5 => normalized(vec![0.707, 1.0, 0.707, 0.5, 0.5]),
        6 => normalized(vec![0.707, 1.0, 0.707, 0.5, 0.5, 0.0]),
        count => equal(count),
    }
}

/// Mixes interleaved frames and appends the result to `out`.
pub(super) fn mix(interleaved: &[f32], weights: &[f32], out: &mut Vec<f32>) {
    match weights {
        [] => {}
        [_] => out.extend_from_slice(interleaved),
        _ => out.extend(
            interleaved
                .chunks_exact(weights.len())
                .map(|frame| frame.iter().zip(weights).map(|(s, w)| s * w).sum::<f32>()),
        ),
    }
}

fn weight_of(position: Position) -> f32 {
    if position == Position::FRONT_CENTER {
        1.0
    } else if position == Position::FRONT_LEFT || position == Position::FRONT_RIGHT {
        0.707
    } else if position == Position::LFE1 || position == Position::LFE2 {
        0.0
    } else {
        0.5
    }
}

fn equal(count: usize) -> Vec<f32> {
    normalized(vec![1.0; count])
}

fn normalized(mut weights: Vec<f32>) -> Vec<f32> {
    let sum: f32 = weights.iter().sum();
    if sum > 0.0 {
        weights.iter_mut().for_each(|weight| *weight /= sum);
        weights
    } else {
        // A lone subwoofer is better than nothing.
        let count = weights.len();
        vec![1.0 / count.max(1) as f32; count]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn full_scale_stays_full_scale() {
        for count in 1..=8 {
            for weights in [vorbis_weights(count), equal(count)] {
                let mut out = Vec::new();
                mix(&vec![1.0; count * 3], &weights, &mut out);
                assert_eq!(out.len(), 3);
                assert!(
                    out.iter().all(|sample| (sample - 1.0).abs() < 1e-5),
                    "{count}"
                );
            }
        }
    }

    #[test]
    fn positions_decide_the_weight() {
        let front = Position::FRONT_LEFT | Position::FRONT_RIGHT;
        let five_one = front | Position::FRONT_CENTER | Position::LFE1 | Position::REAR_LEFT;
        let weights = weights(&Channels::Positioned(five_one));
        assert_eq!(weights.len(), 5);
        assert!(weights[2] > weights[0] && weights[0] == weights[1]);
        assert_eq!(weights[3], 0.0);
        assert_eq!(super::weights(&Channels::Positioned(Position::LFE1)), [1.0]);
    }
}

use proptest::prelude::*;

use super::*;

struct Counting(u8);

impl Entropy for Counting {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self.0.wrapping_add(37);
            *byte = self.0;
        }
    }
}

const ONE: SourceEpoch = SourceEpoch {
    source: 1,
    epoch: 0,
};
const TWO: SourceEpoch = SourceEpoch {
    source: 2,
    epoch: 0,
};

fn stream() -> OutgoingStream {
    OutgoingStream::new(&mut Counting(0), 8000)
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(5_000_000_000 + ms * 1_000_000)
}

fn packet(from: SourceEpoch, n: u64) -> SourcePosition {
    SourcePosition {
        from,
        sequence: 70_000 + n,
        timestamp: 1_000_000 + n as u32 * 160,
        marker: false,
        is_event: false,
    }
}

fn sequence_of(stream: &mut OutgoingStream, from: SourceEpoch, n: u64) -> Option<u16> {
    stream
        .forward(packet(from, n), at(n * 20))
        .map(|placed| placed.sequence)
}

#[test]
fn gaps_and_order_are_kept() {
    let mut stream = stream();
    let first = sequence_of(&mut stream, ONE, 0).expect("the first packet goes");
    for n in [1, 2, 5, 4, 9, 8] {
        assert_eq!(
            sequence_of(&mut stream, ONE, n),
            Some(first.wrapping_add(n as u16))
        );
    }
}

#[test]
fn only_the_first_packet_of_a_source_is_marked() {
    let mut stream = stream();
    let markers: Vec<bool> = [(ONE, 0), (ONE, 1), (TWO, 2), (TWO, 3), (ONE, 4)]
        .into_iter()
        .filter_map(|(from, n)| stream.forward(packet(from, n), at(n * 20)))
        .map(|placed| placed.marker)
        .collect();
    assert_eq!(markers, [true, false, true, false, true]);
}

#[test]
fn another_source_goes_on_at_last_plus_one_and_last_plus_elapsed() {
    let mut stream = stream();
    let last = stream.forward(packet(ONE, 0), at(0)).expect("placed");
    let mut other = packet(TWO, 500);
    other.timestamp = 77;
    let next = stream.forward(other, at(100)).expect("placed");
    assert_eq!(next.sequence, last.sequence.wrapping_add(1));
    assert_eq!(next.timestamp, last.timestamp.wrapping_add(800));
}

#[test]
fn a_number_is_never_given_twice() {
    let mut stream = stream();
    for n in [0, 1, 2, 4] {
        assert!(sequence_of(&mut stream, ONE, n).is_some());
    }
    for n in [0, 2, 4] {
        assert_eq!(sequence_of(&mut stream, ONE, n), None);
    }
    assert!(sequence_of(&mut stream, ONE, 3).is_some());
    assert_eq!(sequence_of(&mut stream, ONE, 3), None);
}

#[test]
fn packets_too_late_to_remember_are_refused() {
    let mut stream = stream();
    assert!(sequence_of(&mut stream, ONE, 0).is_some());
    assert!(sequence_of(&mut stream, ONE, 200).is_some());
    assert_eq!(sequence_of(&mut stream, ONE, 136), None);
    assert!(sequence_of(&mut stream, ONE, 137).is_some());
}

#[test]
fn after_withholding_the_next_packet_follows_and_older_ones_are_refused() {
    let mut stream = stream();
    let first = sequence_of(&mut stream, ONE, 0).expect("placed");
    stream.rebase();
    assert_eq!(sequence_of(&mut stream, ONE, 0), None);
    let after = stream.forward(packet(ONE, 50), at(1000)).expect("placed");
    assert_eq!(after.sequence, first.wrapping_add(1));
    assert!(!after.marker);
    assert_eq!(sequence_of(&mut stream, ONE, 49), None);
    assert_eq!(
        sequence_of(&mut stream, ONE, 52),
        Some(first.wrapping_add(3))
    );
}

#[test]
fn a_single_packet_withheld_leaves_the_loss_beside_it_visible() {
    let mut stream = stream();
    let first = sequence_of(&mut stream, ONE, 0).expect("placed");
    // 1 is lost, 2 withheld, 3 lost, 4 arrives.
    stream.withhold(ONE, packet(ONE, 2).sequence);
    assert_eq!(
        sequence_of(&mut stream, ONE, 4),
        Some(first.wrapping_add(3))
    );
    assert_eq!(sequence_of(&mut stream, ONE, 1), None);
}

#[test]
fn own_packets_run_on_and_the_source_follows_them() {
    let mut stream = stream();
    let first = stream.forward(packet(ONE, 0), at(0)).expect("placed");
    let event = stream.timestamp_at(at(20));
    let own = stream.append(event, true, true, at(20));
    let again = stream.append(event, false, true, at(40));
    assert_eq!(own.sequence, first.sequence.wrapping_add(1));
    assert_eq!(again.sequence, first.sequence.wrapping_add(2));
    assert_eq!(own.timestamp, again.timestamp);
    assert_eq!(own.timestamp, first.timestamp.wrapping_add(160));
    let after = stream.forward(packet(ONE, 10), at(200)).expect("placed");
    assert_eq!(after.sequence, first.sequence.wrapping_add(3));
    assert_eq!(after.timestamp, first.timestamp.wrapping_add(1600));
}

#[test]
fn events_keep_their_timestamp_beside_running_audio() {
    let mut stream = stream();
    let first = stream.forward(packet(ONE, 0), at(0)).expect("placed");
    let mut event = packet(ONE, 1);
    event.is_event = true;
    let start = stream.forward(event, at(20)).expect("placed");
    stream.forward(packet(ONE, 2), at(40)).expect("placed");
    event.sequence += 2;
    let later = stream.forward(event, at(60)).expect("placed");
    assert_eq!(start.timestamp, first.timestamp.wrapping_add(160));
    assert_eq!(later.timestamp, start.timestamp);
    assert_eq!(later.sequence, first.sequence.wrapping_add(3));
}

proptest! {
    /// Sources that come, go, lie about time, repeat and reorder: the stream stays one stream.
    #[test]
    fn whatever_comes_the_stream_is_continuous(
        steps in prop::collection::vec((0_u8..8, 0_u64..6, any::<u32>(), 0_u64..50), 1..300)
    ) {
        let mut stream = stream();
        let mut now = 0;
        let mut next = [0_u64; 2];
        let mut sent: Vec<(u64, u32)> = Vec::new();
        let mut highest = stream.highest;
        for (what, jump, noise, wait) in steps {
            now += wait;
            let from = if what % 2 == 0 { ONE } else { TWO };
            let counter = &mut next[usize::from(what % 2)];
            let mut position = packet(from, (*counter + jump).saturating_sub(2));
            *counter += 1;
            if what >= 6 {
                position.timestamp = noise;
            }
            let placed = match what {
                4 => { stream.rebase(); continue }
                5 => Some(stream.append(stream.timestamp_at(at(now)), false, false, at(now))),
                _ => stream.forward(position, at(now)),
            };
            let Some(placed) = placed else { continue };
            let step = placed.sequence.wrapping_sub(highest as u16) as i16;
            let extended = highest.wrapping_add_signed(i64::from(step));
            prop_assert!(extended <= highest + 6, "no jump of our making");
            highest = highest.max(extended);
            sent.push((extended, placed.timestamp));
        }
        sent.sort_by_key(|(sequence, _)| *sequence);
        for pair in sent.windows(2) {
            prop_assert!(pair[0].0 < pair[1].0, "numbers are unique");
        }
    }
}

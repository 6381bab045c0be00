use super::*;

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

/// The packets of a digit as phones send them: growing, then the end three times.
fn packets(event: u8, timestamp: u32, duration_ms: u16) -> Vec<(u32, EventPayload)> {
    let steps = duration_ms / 20;
    let packet = |duration, end| EventPayload {
        event,
        end,
        volume: 10,
        duration,
    };
    let mut packets: Vec<_> = (1..steps).map(|n| packet(n * 160, false)).collect();
    packets.extend([packet(steps * 160, true); 3]);
    packets
        .into_iter()
        .map(|packet| (timestamp, packet))
        .collect()
}

/// Plays packets 20 ms apart, with the timer running between them, and gives the digits reported
/// until 300 ms after the last.
fn play(packets: impl IntoIterator<Item = Option<(u32, EventPayload)>>) -> Vec<(char, u64)> {
    let mut receiver = EventReceiver::default();
    let mut heard = Vec::new();
    let mut now = 1000;
    for packet in packets.into_iter().chain([None; 15]) {
        heard.extend(receiver.handle_timeout(at(now)));
        if let Some((timestamp, payload)) = packet {
            let ended = receiver.on_packet(timestamp, 8000, payload, at(now));
            heard.extend(ended.into_iter().flatten());
        }
        now += 20;
    }
    heard
        .into_iter()
        .filter_map(|event| Some((char::from(event.digit?), event.duration_ms)))
        .collect()
}

#[test]
fn a_whole_event_is_one_digit() {
    assert_eq!(
        play(packets(5, 800, 160).into_iter().map(Some)),
        [('5', 160)]
    );
}

#[test]
fn every_pattern_of_loss_that_leaves_a_packet_gives_exactly_one_digit() {
    let all = packets(11, 800, 120);
    for kept in 1_u32..1 << all.len() {
        let some = all
            .iter()
            .enumerate()
            .map(|(n, packet)| (kept >> n & 1 != 0).then_some(*packet));
        let digits = play(some);
        assert_eq!(digits.len(), 1, "kept {kept:b}: {digits:?}");
        assert_eq!(digits[0].0, '#');
    }
}

#[test]
fn every_pattern_of_loss_between_two_equal_digits_keeps_them_apart() {
    let first = packets(1, 800, 60);
    let second = packets(1, 800 + 1600, 60);
    for kept in 0_u32..1 << (first.len() + second.len()) {
        let keep = |n: usize, packet: &(u32, EventPayload)| (kept >> n & 1 != 0).then_some(*packet);
        let mut some: Vec<_> = first.iter().enumerate().map(|(n, p)| keep(n, p)).collect();
        some.extend([None; 3]);
        some.extend(
            second
                .iter()
                .enumerate()
                .map(|(n, p)| keep(n + first.len(), p)),
        );
        let expected = usize::from(kept & 0b11111 != 0) + usize::from(kept >> 5 != 0);
        assert_eq!(play(some).len(), expected, "kept {kept:b}");
    }
}

#[test]
fn a_lost_end_is_reported_200_ms_after_the_last_packet_of_the_event() {
    let mut receiver = EventReceiver::default();
    let (timestamp, payload) = packets(9, 800, 160)[2];
    assert_eq!(
        receiver.on_packet(timestamp, 8000, payload, at(0)),
        [None; 2]
    );
    assert_eq!(receiver.next_timeout(), Some(at(200)));
    assert_eq!(receiver.handle_timeout(at(199)), None);
    let event = receiver.handle_timeout(at(200)).expect("it is over");
    assert_eq!(event.digit.map(char::from), Some('9'));
    assert_eq!(event.duration_ms, 60);
    assert_eq!(receiver.next_timeout(), None);
}

#[test]
fn the_next_event_ends_one_whose_end_was_lost() {
    let mut receiver = EventReceiver::default();
    let (first, payload) = packets(1, 800, 160)[1];
    receiver.on_packet(first, 8000, payload, at(0));
    let (second, payload) = packets(2, 2400, 20)[0];
    let ended = receiver.on_packet(second, 8000, payload, at(40));
    let digits: Vec<_> = ended.iter().flatten().filter_map(|e| e.digit).collect();
    assert_eq!(digits.len(), 2);
    assert_eq!(digits.first().copied().map(char::from), Some('1'));
}

#[test]
fn stragglers_of_a_reported_event_are_no_digits() {
    let mut both = packets(1, 800, 60);
    let straggler = both[1];
    both.extend(packets(2, 2000, 60));
    both.insert(7, straggler);
    both.push(straggler);
    assert_eq!(play(both.into_iter().map(Some)), [('1', 60), ('2', 60)]);
}

#[test]
fn a_long_event_in_segments_is_one_digit() {
    let mut receiver = EventReceiver::default();
    let mut packet = |timestamp, duration, end, ms| {
        let payload = EventPayload {
            event: 3,
            end,
            volume: 10,
            duration,
        };
        receiver.on_packet(timestamp, 8000, payload, at(ms))
    };
    assert_eq!(packet(800, 0xff00, false, 0), [None; 2]);
    assert_eq!(packet(800, 0xffff, false, 20), [None; 2]);
    assert_eq!(packet(800 + 0xffff, 160, false, 40), [None; 2]);
    let ended = packet(800 + 0xffff, 321, true, 60);
    let event = ended[1].expect("it is over");
    assert_eq!(event.duration_ms, (0xffff + 321) / 8);
    assert_eq!(event.timestamp, 800);
    assert_eq!(packet(800 + 0xffff, 321, true, 80), [None; 2]);
}

#[test]
fn timestamps_may_wrap() {
    let mut digits = packets(1, u32::MAX - 100, 60);
    digits.extend(packets(2, 1000, 60));
    assert_eq!(play(digits.into_iter().map(Some)), [('1', 60), ('2', 60)]);
}

#[test]
fn a_new_source_may_use_any_timestamp() {
    let mut receiver = EventReceiver::default();
    let (timestamp, payload) = packets(1, 800_000, 20)[0];
    assert!(receiver.on_packet(timestamp, 8000, payload, at(0))[1].is_some());
    assert!(receiver.on_packet(5, 8000, payload, at(20))[1].is_none());
    assert_eq!(receiver.on_new_source(at(30)), None);
    assert!(receiver.on_packet(5, 8000, payload, at(40))[1].is_some());
}

#[test]
fn a_held_key_with_a_long_gap_is_one_digit() {
    let mut receiver = EventReceiver::default();
    let mut digits = 0;
    for ms in (0..9000)
        .step_by(20)
        .filter(|ms| !(1000..1400).contains(ms))
    {
        let payload = EventPayload {
            event: 3,
            end: false,
            volume: 10,
            duration: 160,
        };
        digits += usize::from(receiver.handle_timeout(at(ms)).is_some());
        let ended = receiver.on_packet(800, 8000, payload, at(ms));
        digits += ended.iter().flatten().count();
    }
    assert_eq!(digits, 1);
}

#[test]
fn a_day_of_silence_does_not_make_digits_look_old() {
    let mut receiver = EventReceiver::default();
    let (_, payload) = packets(1, 0, 20)[0];
    assert!(receiver.on_packet(0, 48_000, payload, at(0))[1].is_some());
    let later = at(13 * 3600 * 1000);
    let timestamp = (13_u64 * 3600 * 48_000) as u32;
    assert!((timestamp as i32) < 0);
    assert!(receiver.on_packet(timestamp, 48_000, payload, later)[1].is_some());
}

#[test]
fn events_that_are_no_digits_end_without_one() {
    let mut receiver = EventReceiver::default();
    let (timestamp, payload) = packets(16, 800, 20)[0];
    let ended = receiver.on_packet(timestamp, 8000, payload, at(0));
    assert_eq!(ended[1].map(|event| event.digit), Some(None));
}

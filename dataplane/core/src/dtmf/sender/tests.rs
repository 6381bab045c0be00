use super::*;
use crate::dtmf::receiver::EventReceiver;

const NARROW: EventClocks = EventClocks {
    stream: 8000,
    event: 8000,
};

fn at(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn digit(text: char, duration_ms: u32) -> QueuedDigit {
    QueuedDigit {
        digit: Digit::from_char(text).expect("a digit"),
        duration_ms,
        volume: 10,
        is_sensitive: false,
    }
}

/// Everything that is sent, with its time in ms, polling only when a packet is due.
fn drain(sender: &mut EventSender, clocks: EventClocks) -> Vec<(u64, EventPacket)> {
    let mut sent = Vec::new();
    let mut now = at(0);
    while let Some(due) = sender.next_timeout() {
        now = now.max(due);
        let ms = now.as_nanos() / 1_000_000;
        let timestamp = (ms * u64::from(clocks.stream) / 1000) as u32;
        if let Some(packet) = sender.poll(now, timestamp, clocks) {
            sent.push((ms, packet));
        }
    }
    sent
}

#[test]
fn a_digit_grows_every_20_ms_and_ends_three_times() {
    let mut sender = EventSender::default();
    sender.enqueue(digit('5', 160)).expect("room");
    let sent = drain(&mut sender, NARROW);
    let times: Vec<u64> = sent.iter().map(|(ms, _)| *ms).collect();
    assert_eq!(times, [0, 20, 40, 60, 80, 100, 120, 140, 160, 180]);
    let durations: Vec<u16> = sent.iter().map(|(_, p)| p.payload.duration).collect();
    assert_eq!(
        durations,
        [160, 320, 480, 640, 800, 960, 1120, 1280, 1280, 1280]
    );
    let ends = sent.iter().filter(|(_, p)| p.payload.end).count();
    assert_eq!(ends, 3);
    assert!(sent.iter().all(|(_, p)| p.timestamp == 0));
    let marked: Vec<bool> = sent.iter().map(|(_, p)| p.marker).collect();
    assert!(marked[0] && !marked[1..].contains(&true));
}

#[test]
fn digits_follow_each_other_after_50_ms() {
    let mut sender = EventSender::default();
    sender.enqueue(digit('1', 40)).expect("room");
    sender.enqueue(digit('2', 40)).expect("room");
    let sent = drain(&mut sender, NARROW);
    assert_eq!(sent.len(), 8);
    let (last_of_first, _) = sent[3];
    let (first_of_second, second) = sent[4];
    assert_eq!(first_of_second - last_of_first, 50);
    assert!(second.marker);
    assert_eq!(u64::from(second.timestamp), first_of_second * 8);
}

#[test]
fn audio_pauses_from_the_first_packet_to_the_last_of_the_queue() {
    let mut sender = EventSender::default();
    assert!(!sender.is_active());
    sender.enqueue(digit('1', 20)).expect("room");
    sender.enqueue(digit('2', 20)).expect("room");
    for (ms, active) in [(0, true), (20, true), (40, true), (60, true), (90, true)] {
        sender.poll(at(ms), 0, NARROW);
        assert_eq!(sender.is_active(), active, "at {ms}");
    }
    sender.poll(at(110), 0, NARROW);
    sender.poll(at(130), 0, NARROW);
    assert!(!sender.is_active());
}

#[test]
fn the_queue_holds_32() {
    let mut sender = EventSender::default();
    for n in 0..QUEUE_LIMIT {
        assert!(sender.enqueue(digit('1', 20)).is_ok(), "digit {n}");
        sender.poll(at(0), 0, NARROW);
    }
    assert_eq!(sender.enqueue(digit('2', 20)), Err(digit('2', 20)));
    assert_eq!(drain(&mut sender, NARROW).len(), 3 * QUEUE_LIMIT - 1);
}

#[test]
fn a_late_worker_sends_no_burst() {
    let mut sender = EventSender::default();
    sender.enqueue(digit('1', 160)).expect("room");
    assert!(sender.poll(at(0), 0, NARROW).is_some());
    assert!(sender.poll(at(500), 0, NARROW).is_some());
    assert!(sender.poll(at(501), 0, NARROW).is_none());
    assert!(sender.poll(at(520), 0, NARROW).is_some());
}

#[test]
fn long_digits_are_received_as_one_at_any_clock() {
    for clocks in [
        NARROW,
        EventClocks {
            stream: 48_000,
            event: 48_000,
        },
    ] {
        let mut sender = EventSender::default();
        sender.enqueue(digit('7', 10_000)).expect("room");
        let mut receiver = EventReceiver::default();
        let mut heard = Vec::new();
        for (ms, packet) in drain(&mut sender, clocks) {
            let ended = receiver.on_packet(packet.timestamp, clocks.event, packet.payload, at(ms));
            heard.extend(ended.into_iter().flatten());
        }
        assert_eq!(heard.len(), 1);
        assert_eq!(heard[0].duration_ms, 10_000);
        assert_eq!(heard[0].digit, Digit::from_char('7'));
    }
}

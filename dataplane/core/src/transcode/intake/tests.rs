use proptest::prelude::*;

use super::*;

const FRAME: u32 = 160;

/// An intake and the story of what it said.
struct Story {
    intake: Intake,
    told: Vec<String>,
}

impl Story {
    fn new() -> Self {
        Self {
            intake: Intake::new(8000),
            told: Vec::new(),
        }
    }

    fn at(&mut self, ms: u64, sequence: u16, timestamp: u32) -> Result<(), IntakeError> {
        let payload = sequence.to_be_bytes();
        let packet = SourcePacket {
            sequence,
            timestamp,
            marker: false,
            payload: &payload,
        };
        let told = &mut self.told;
        self.intake
            .handle_packet(moment(ms), packet, FRAME, &mut |step| told.push(tell(step)))
    }

    /// The `n`th packet of an unbroken stream, on time.
    fn nth(&mut self, n: u16) -> Result<(), IntakeError> {
        self.at(u64::from(n) * 20, n, u32::from(n) * FRAME)
    }

    fn timeout(&mut self, ms: u64) {
        let told = &mut self.told;
        self.intake
            .handle_timeout(moment(ms), &mut |step| told.push(tell(step)));
    }
}

fn moment(ms: u64) -> Instant {
    Instant::from_nanos(ms * 1_000_000)
}

fn tell(step: Step<'_>) -> String {
    match step {
        Step::Conceal { clock_ticks, .. } => format!("conceal {clock_ticks}"),
        Step::Talkspurt {
            skipped_ticks: Some(ticks),
        } => format!("skip {ticks}"),
        Step::Talkspurt {
            skipped_ticks: None,
        } => "begin".into(),
        Step::Frame { payload, .. } => u16::from_be_bytes([payload[0], payload[1]]).to_string(),
    }
}

#[test]
fn an_unbroken_stream_passes_at_once() {
    let mut story = Story::new();
    for n in 0..4 {
        story.nth(n).expect("taken");
    }
    assert_eq!(story.told, ["begin", "0", "1", "2", "3"]);
    assert_eq!(story.intake.next_timeout(), None);
}

#[test]
fn a_swapped_pair_is_put_in_order_and_nothing_concealed() {
    let mut story = Story::new();
    for n in [0, 2, 1, 3] {
        story.nth(n).expect("taken");
    }
    assert_eq!(story.told, ["begin", "0", "1", "2", "3"]);
    assert_eq!(story.intake.next_timeout(), None);
}

#[test]
fn a_missing_packet_is_waited_for_one_frame() {
    let mut story = Story::new();
    story.nth(0).expect("taken");
    story.nth(2).expect("taken");
    assert_eq!(story.intake.next_timeout(), Some(moment(60)));
    story.timeout(59);
    assert_eq!(story.told, ["begin", "0"]);
    story.timeout(60);
    assert_eq!(story.told, ["begin", "0", "conceal 160", "2"]);
    assert_eq!(story.nth(1), Err(IntakeError::Late { behind: 2 }));
}

#[test]
fn the_packet_after_the_next_ends_the_wait() {
    let mut story = Story::new();
    for n in [0, 2, 3, 4] {
        story.nth(n).expect("taken");
    }
    assert_eq!(story.told, ["begin", "0", "conceal 160", "2", "3", "4"]);
}

#[test]
fn two_gaps_in_a_row_are_both_concealed() {
    let mut story = Story::new();
    for n in [0, 2, 4, 5] {
        story.nth(n).expect("taken");
    }
    assert_eq!(
        story.told,
        ["begin", "0", "conceal 160", "2", "conceal 160", "4", "5"]
    );
}

#[test]
fn the_later_part_of_a_gap_may_still_come() {
    let mut story = Story::new();
    for n in [0, 3, 2, 4] {
        story.nth(n).expect("taken");
    }
    assert_eq!(story.told, ["begin", "0", "conceal 160", "2", "3", "4"]);
}

#[test]
fn five_lost_frames_are_concealed_and_six_begin_a_talkspurt() {
    let mut story = Story::new();
    story.nth(0).expect("taken");
    story.nth(6).expect("taken");
    story.timeout(1000);
    story.nth(13).expect("taken");
    assert_eq!(
        story.told,
        ["begin", "0", "conceal 800", "6", "skip 960", "13"]
    );
}

#[test]
fn a_pause_without_loss_begins_a_talkspurt() {
    let mut story = Story::new();
    story.nth(0).expect("taken");
    story.at(500, 1, 160 + 3200).expect("taken");
    story.at(520, 2, 160 + 3360).expect("taken");
    assert_eq!(story.told, ["begin", "0", "skip 3200", "1", "2"]);
}

#[test]
fn loss_within_a_pause_is_a_pause() {
    let mut story = Story::new();
    story.nth(0).expect("taken");
    story.at(500, 2, 4000).expect("taken");
    story.timeout(600);
    assert_eq!(story.told, ["begin", "0", "skip 3840", "2"]);
}

#[test]
fn late_and_repeated_packets_are_dropped() {
    let mut story = Story::new();
    for n in 200..210 {
        story.nth(n).expect("taken");
    }
    let before = story.told.len();
    for n in [209, 205, 200, 120] {
        assert!(matches!(story.nth(n), Err(IntakeError::Late { .. })));
    }
    story.nth(211).expect("held");
    assert_eq!(story.nth(211), Err(IntakeError::Late { behind: 0 }));
    assert_eq!(story.told.len(), before);
}

#[test]
fn a_sender_that_begins_anew_is_followed() {
    let mut story = Story::new();
    story.at(0, 5000, 1_000_000).expect("taken");
    story.at(20, 100, 50).expect("taken");
    story.at(40, 101, 210).expect("taken");
    assert_eq!(story.told, ["begin", "5000", "begin", "100", "101"]);
}

#[test]
fn numbers_wrap() {
    let mut story = Story::new();
    for n in 0..6u16 {
        if n != 3 {
            let timestamp = (u32::MAX - 319).wrapping_add(u32::from(n) * FRAME);
            story
                .at(u64::from(n) * 20, n.wrapping_sub(3), timestamp)
                .expect("taken");
        }
    }
    assert_eq!(
        story.told,
        ["begin", "65533", "65534", "65535", "conceal 160", "1", "2"]
    );
}

#[test]
fn stamps_that_stray_a_little_are_no_talkspurt() {
    let mut story = Story::new();
    for (n, stray) in [0i64, 30, -40, 10, 79].into_iter().enumerate() {
        let timestamp = 100_000 + n as i64 * i64::from(FRAME) + stray;
        story
            .at(n as u64 * 20, n as u16, timestamp as u32)
            .expect("taken");
    }
    assert_eq!(
        story
            .told
            .iter()
            .filter(|told| told.starts_with("skip"))
            .count(),
        0
    );
}

proptest! {
    /// Whatever comes, frames leave in increasing order within a talkspurt, at most two steps of
    /// filling stand before each, and nothing is held without a deadline.
    #[test]
    fn any_stream_leaves_in_order(packets in prop::collection::vec((0u16..400, 0u32..64000, 0u64..5000), 0..200)) {
        let mut story = Story::new();
        for (sequence, timestamp, ms) in packets {
            story.at(ms, sequence, timestamp).ok();
        }
        story.timeout(1_000_000);
        prop_assert_eq!(story.intake.next_timeout(), None);
        let mut last: Option<u16> = None;
        for told in &story.told {
            if let Ok(sequence) = told.parse::<u16>() {
                if let Some(last) = last {
                    let ahead = sequence.wrapping_sub(last) as i16;
                    prop_assert!(!(2 - MAX_MISORDER..=0).contains(&ahead), "{} after {}", sequence, last);
                }
                last = Some(sequence);
            }
        }
    }
}

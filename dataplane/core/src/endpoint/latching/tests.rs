use super::*;

const SSRC: u32 = 7;

fn address(text: &str) -> SocketAddr {
    text.parse().expect("a socket address")
}

fn signalled() -> SocketAddr {
    address("10.0.0.1:4000")
}

fn same_host() -> SocketAddr {
    address("10.0.0.1:5000")
}

fn elsewhere() -> SocketAddr {
    address("10.0.0.2:4000")
}

fn at(ms: u64) -> Instant {
    Instant::from_nanos(1_000_000_000 + ms * 1_000_000)
}

fn latch(learning: RtpLearning) -> Latch {
    Latch::new(learning, Some(signalled()))
}

fn packet(source: SocketAddr, sequence: u16) -> Evidence {
    Evidence {
        source,
        ssrc: SSRC,
        sequence,
        is_authenticated: false,
        continues: false,
    }
}

/// Verdicts of `count` packets in sequence, 20 ms apart.
fn run(latch: &mut Latch, source: SocketAddr, start_ms: u64, count: u16) -> Vec<bool> {
    (0..count)
        .map(|n| {
            let now = at(start_ms + u64::from(n) * 20);
            latch.judge(&packet(source, 100 + n), now) == Verdict::Believed
        })
        .collect()
}

#[test]
fn the_signalled_address_locks_at_once() {
    let mut latch = latch(RtpLearning::Any);
    assert_eq!(run(&mut latch, signalled(), 0, 1), [true]);
    assert_eq!(run(&mut latch, same_host(), 20, 20), [false; 20]);
    assert_eq!(run(&mut latch, elsewhere(), 1000, 20), [false; 20]);
    assert_eq!(latch.believed(), Some(signalled()));
}

#[test]
fn another_port_of_the_signalled_host_needs_three_in_sequence() {
    let mut latch = latch(RtpLearning::Any);
    assert_eq!(
        run(&mut latch, same_host(), 0, 4),
        [false, false, true, true]
    );
    assert_eq!(latch.believed(), Some(same_host()));
}

#[test]
fn another_host_needs_five_in_sequence() {
    let mut latch = latch(RtpLearning::Any);
    assert_eq!(
        run(&mut latch, elsewhere(), 0, 6),
        [false, false, false, false, true, true]
    );
}

#[test]
fn a_gap_or_another_ssrc_begins_the_run_anew() {
    let mut latch = latch(RtpLearning::Any);
    for (sequence, ssrc) in [(1, 7), (2, 7), (4, 7), (5, 8), (6, 7), (7, 7)] {
        let evidence = Evidence {
            ssrc,
            ..packet(same_host(), sequence)
        };
        assert_eq!(latch.judge(&evidence, at(0)), Verdict::Refused);
    }
    assert_eq!(
        latch.judge(&packet(same_host(), 8), at(0)),
        Verdict::Believed
    );
}

#[test]
fn runs_of_several_sources_do_not_disturb_each_other() {
    let mut latch = latch(RtpLearning::Any);
    let other = address("10.0.0.3:4000");
    for n in 0..4 {
        assert_eq!(
            latch.judge(&packet(elsewhere(), n), at(0)),
            Verdict::Refused
        );
        assert_eq!(
            latch.judge(&packet(other, 900 + n), at(0)),
            Verdict::Refused
        );
    }
    assert_eq!(
        latch.judge(&packet(elsewhere(), 4), at(0)),
        Verdict::Believed
    );
    assert_eq!(latch.judge(&packet(other, 904), at(0)), Verdict::Refused);
}

#[test]
fn nobody_else_is_believed_within_half_a_second_of_the_signalled_host() {
    let mut latch = latch(RtpLearning::Any);
    assert_eq!(run(&mut latch, same_host(), 0, 1), [false]);
    assert_eq!(run(&mut latch, elsewhere(), 0, 25), [false; 25]);
    assert_eq!(
        latch.judge(&packet(elsewhere(), 125), at(500)),
        Verdict::Believed
    );
}

#[test]
fn a_better_rank_displaces_a_worse_one_within_the_window() {
    let mut latch = latch(RtpLearning::Any);
    assert!(run(&mut latch, elsewhere(), 0, 5)[4]);
    assert!(run(&mut latch, same_host(), 1000, 3)[2]);
    assert_eq!(latch.believed(), Some(same_host()));
    assert_eq!(run(&mut latch, elsewhere(), 2000, 30), [false; 30]);
    assert_eq!(run(&mut latch, signalled(), 4000, 1), [true]);
    assert_eq!(latch.believed(), Some(signalled()));
    assert_eq!(run(&mut latch, same_host(), 4100, 5), [false; 5]);
}

#[test]
fn an_equal_rank_does_not_displace() {
    let mut latch = latch(RtpLearning::Any);
    assert!(run(&mut latch, elsewhere(), 0, 5)[4]);
    let other = address("10.0.0.3:4000");
    assert_eq!(run(&mut latch, other, 600, 20), [false; 20]);
}

#[test]
fn after_the_window_the_address_is_locked_even_against_a_better_rank() {
    let mut latch = latch(RtpLearning::Any);
    assert!(run(&mut latch, elsewhere(), 0, 5)[4]);
    for ms in (100..5200).step_by(20) {
        latch.judge(&packet(elsewhere(), 1), at(ms));
    }
    assert_eq!(run(&mut latch, signalled(), 5200, 5), [false; 5]);
    assert_eq!(latch.believed(), Some(elsewhere()));
}

#[test]
fn packets_that_are_not_believed_do_not_start_the_window() {
    let mut latch = latch(RtpLearning::Any);
    assert_eq!(run(&mut latch, elsewhere(), 0, 1), [false]);
    assert!(run(&mut latch, same_host(), 60_000, 3)[2]);
}

#[test]
fn the_same_stream_moves_after_two_seconds_of_silence() {
    let mut latch = latch(RtpLearning::Any);
    run(&mut latch, signalled(), 0, 1);
    let moved = Evidence {
        continues: true,
        ..packet(elsewhere(), 101)
    };
    assert_eq!(latch.judge(&moved, at(1999)), Verdict::Refused);
    let stranger = packet(elsewhere(), 9);
    assert_eq!(latch.judge(&stranger, at(2500)), Verdict::Refused);
    assert_eq!(latch.judge(&moved, at(2500)), Verdict::Believed);
    assert_eq!(latch.believed(), Some(elsewhere()));
}

#[test]
fn an_authenticated_packet_moves_it_at_once_but_a_straggler_does_not_move_it_back() {
    let mut latch = latch(RtpLearning::Any);
    let authentic = |source, continues| Evidence {
        is_authenticated: true,
        continues,
        ..packet(source, 5)
    };
    assert_eq!(
        latch.judge(&authentic(signalled(), false), at(0)),
        Verdict::Believed
    );
    assert_eq!(
        latch.judge(&authentic(elsewhere(), true), at(20)),
        Verdict::Believed
    );
    assert_eq!(latch.believed(), Some(elsewhere()));
    assert_eq!(
        latch.judge(&authentic(signalled(), false), at(40)),
        Verdict::Believed
    );
    assert_eq!(latch.believed(), Some(elsewhere()));
}

#[test]
fn sdp_ip_believes_only_the_signalled_host() {
    let mut latch = latch(RtpLearning::SdpIp);
    assert_eq!(run(&mut latch, elsewhere(), 0, 20), [false; 20]);
    assert!(run(&mut latch, same_host(), 1000, 3)[2]);
    let moved = Evidence {
        continues: true,
        ..packet(elsewhere(), 101)
    };
    assert_eq!(latch.judge(&moved, at(60_000)), Verdict::Refused);
}

#[test]
fn off_believes_only_the_signalled_address() {
    let mut latch = latch(RtpLearning::Off);
    assert_eq!(run(&mut latch, same_host(), 0, 20), [false; 20]);
    assert_eq!(run(&mut latch, elsewhere(), 1000, 20), [false; 20]);
    assert_eq!(run(&mut latch, signalled(), 2000, 1), [true]);
}

#[test]
fn a_reinvite_with_another_address_counts_at_once_and_learns_anew() {
    let mut latch = latch(RtpLearning::Any);
    assert!(run(&mut latch, elsewhere(), 0, 5)[4]);
    let moved = address("10.0.0.9:4000");
    latch.reopen(Some(moved), at(60_000));
    assert_eq!(latch.believed(), None);
    assert_eq!(run(&mut latch, elsewhere(), 60_000, 4), [false; 4]);
    assert_eq!(run(&mut latch, moved, 60_100, 1), [true]);
    assert_eq!(run(&mut latch, elsewhere(), 60_120, 20), [false; 20]);
}

#[test]
fn a_reinvite_with_the_same_address_keeps_what_was_learned_and_reopens() {
    let mut latch = latch(RtpLearning::Any);
    assert!(run(&mut latch, elsewhere(), 0, 5)[4]);
    latch.reopen(Some(signalled()), at(60_000));
    assert_eq!(latch.believed(), Some(elsewhere()));
    assert_eq!(run(&mut latch, elsewhere(), 60_000, 1), [true]);
    assert!(run(&mut latch, same_host(), 60_100, 3)[2]);
}

#[test]
fn after_a_reinvite_an_equal_rank_may_follow_a_source_that_fell_silent() {
    let mut latch = latch(RtpLearning::Any);
    assert!(run(&mut latch, elsewhere(), 0, 5)[4]);
    latch.reopen(None, at(60_000));
    let other = address("10.0.0.2:6000");
    assert!(run(&mut latch, other, 60_020, 5)[4]);
    assert_eq!(latch.believed(), Some(other));
}

#[test]
fn on_hold_every_source_is_from_elsewhere() {
    let mut latch = Latch::new(RtpLearning::Any, None);
    assert!(run(&mut latch, signalled(), 0, 5)[4]);
}

#[test]
fn many_strangers_do_not_keep_the_party_from_being_learned() {
    let mut latch = latch(RtpLearning::Any);
    for n in 0..3_u16 {
        for stranger in 0..100_u16 {
            let source = SocketAddr::new(elsewhere().ip(), 10_000 + stranger);
            latch.judge(&packet(source, n), at(u64::from(n) * 20));
        }
        latch.judge(&packet(same_host(), n), at(u64::from(n) * 20));
    }
    assert_eq!(latch.believed(), Some(same_host()));
}

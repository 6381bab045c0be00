use std::collections::VecDeque;
use std::sync::{Arc, Mutex};

use super::*;

/// A decoder whose every step the test says.
#[derive(Clone, Default)]
struct Script(Arc<Mutex<Scripted>>);

#[derive(Default)]
struct Scripted {
    progress: Option<FeedProgress>,
    samples: VecDeque<i16>,
    seeks: Vec<u64>,
}

impl Script {
    fn progress_is(&self, progress: FeedProgress) {
        self.0.lock().expect("lock").progress = Some(progress);
    }

    fn hold(&self, samples: usize, value: i16) {
        self.0
            .lock()
            .expect("lock")
            .samples
            .extend(std::iter::repeat_n(value, samples));
    }

    fn left(&self) -> usize {
        self.0.lock().expect("lock").samples.len()
    }
}

impl PcmFeed for Script {
    fn progress(&self) -> FeedProgress {
        self.0
            .lock()
            .expect("lock")
            .progress
            .unwrap_or(FeedProgress::Priming)
    }

    fn pop(&mut self, out: &mut [i16]) -> usize {
        let mut script = self.0.lock().expect("lock");
        let count = out.len().min(script.samples.len());
        for (sample, value) in out.iter_mut().zip(script.samples.drain(..count)) {
            *sample = value;
        }
        count
    }

    fn seek(&mut self, position_ms: u64) {
        self.0.lock().expect("lock").seeks.push(position_ms);
    }

    fn failure(&self) -> Option<String> {
        let failed = self.progress() == FeedProgress::Failed;
        failed.then(|| "damaged".to_owned())
    }
}

fn playing(sharing: Sharing, gain_db: f64) -> (Playback, Script) {
    let script = Script::default();
    let mut playback = Playback::new(sharing, gain_db);
    playback.handle_feed(Box::new(script.clone()));
    script.progress_is(FeedProgress::Running);
    (playback, script)
}

fn tick(playback: &mut Playback) -> (PlayedFrame, Vec<i16>) {
    let mut out = [99; FRAME_SAMPLES];
    let frame = playback.handle_tick(&mut out);
    (frame, out.to_vec())
}

#[test]
fn nothing_plays_before_the_decoder_is_ahead() {
    let mut playback = Playback::new(Sharing::Own, 0.0);
    assert_eq!(playback.state(), PlaybackState::Buffering);
    assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing);
    let script = Script::default();
    playback.handle_feed(Box::new(script.clone()));
    assert_eq!(playback.state(), PlaybackState::Playing);
    assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing);
    assert_eq!(playback.take_underruns(), 0);
}

#[test]
fn every_sample_is_played_and_none_added() {
    let (mut playback, script) = playing(Sharing::Own, 0.0);
    script.hold(960 + 100, 7);
    script.progress_is(FeedProgress::Ended);
    assert_eq!(tick(&mut playback).0, PlayedFrame::Samples(960));
    let (frame, out) = tick(&mut playback);
    assert_eq!(frame, PlayedFrame::Samples(100));
    assert!(out[..100].iter().all(|sample| *sample == 7));
    assert_eq!(
        tick(&mut playback).0,
        PlayedFrame::Finished(FinishReason::Completed)
    );
    assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing, "told once");
    assert_eq!(playback.state(), PlaybackState::Finished);
}

#[test]
fn an_under_run_is_silence_and_counted() {
    let (mut playback, script) = playing(Sharing::Own, 0.0);
    script.hold(500, 7);
    let (frame, out) = tick(&mut playback);
    assert_eq!(frame, PlayedFrame::Samples(960));
    assert!(out[500..].iter().all(|sample| *sample == 0));
    assert_eq!(tick(&mut playback).0, PlayedFrame::Samples(960));
    assert_eq!(playback.take_underruns(), 2);
}

#[test]
fn a_failed_decode_plays_what_there_is_and_says_so() {
    let (mut playback, script) = playing(Sharing::Own, 0.0);
    script.hold(960, 7);
    script.progress_is(FeedProgress::Failed);
    assert_eq!(tick(&mut playback).0, PlayedFrame::Samples(960));
    assert_eq!(
        tick(&mut playback).0,
        PlayedFrame::Finished(FinishReason::Error)
    );
}

#[test]
fn a_pause_keeps_the_place_unless_it_is_shared() {
    for (sharing, left) in [(Sharing::Own, 4800), (Sharing::Shared, 4800 - 3 * 960)] {
        let (mut playback, script) = playing(sharing, 0.0);
        script.hold(4800, 7);
        playback.pause().expect("playing");
        playback.pause().expect("idempotent");
        for _ in 0..3 {
            assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing);
        }
        assert_eq!(script.left(), left);
        playback.resume().expect("paused");
        playback.resume().expect("idempotent");
        assert_eq!(tick(&mut playback).0, PlayedFrame::Samples(960));
    }
}

#[test]
fn a_shared_playback_ends_for_the_paused_too() {
    let (mut playback, script) = playing(Sharing::Shared, 0.0);
    playback.pause().expect("playing");
    script.progress_is(FeedProgress::Ended);
    assert_eq!(
        tick(&mut playback).0,
        PlayedFrame::Finished(FinishReason::Completed)
    );
}

#[test]
fn seeking_is_asked_of_the_decoder() {
    let (mut playback, script) = playing(Sharing::Own, 0.0);
    playback.seek(1500).expect("playing");
    playback.pause().expect("playing");
    playback.seek(0).expect("paused");
    assert_eq!(playback.state(), PlaybackState::Paused);
    assert_eq!(script.0.lock().expect("lock").seeks, [1500, 0]);
    assert_eq!(
        playing(Sharing::Shared, 0.0).0.seek(0),
        Err(PlaybackError::Shared)
    );
}

#[test]
fn a_seek_past_the_end_finishes_a_paused_playback_and_one_short_of_it_does_not() {
    let (mut playback, script) = playing(Sharing::Own, 0.0);
    script.hold(960, 7);
    playback.pause().expect("playing");
    script.progress_is(FeedProgress::Ended);
    assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing, "nobody sought");
    assert_eq!(script.left(), 960);
    playback.seek(1500).expect("paused");
    assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing);
    let seeks = script.0.lock().expect("lock").seeks.clone();
    assert_eq!(seeks, [1500, 1500], "nothing is lost of what is left");
    script.progress_is(FeedProgress::Priming);
    playback.seek(3_600_000).expect("paused");
    assert_eq!(tick(&mut playback).0, PlayedFrame::Nothing);
    script.progress_is(FeedProgress::Ended);
    assert_eq!(
        tick(&mut playback).0,
        PlayedFrame::Finished(FinishReason::Completed)
    );
    assert_eq!(playback.resume(), Err(PlaybackError::Finished));
}

#[test]
fn every_request_in_every_state() {
    let buffering = || Playback::new(Sharing::Own, 0.0);
    let finished = || {
        let (mut playback, _) = playing(Sharing::Own, 0.0);
        assert!(playback.handle_failure());
        assert!(!playback.handle_failure());
        playback
    };
    for request in [Playback::pause, Playback::resume, |p: &mut Playback| {
        p.seek(1)
    }] {
        assert_eq!(request(&mut buffering()), Err(PlaybackError::Buffering));
        assert_eq!(request(&mut finished()), Err(PlaybackError::Finished));
        assert_eq!(request(&mut playing(Sharing::Own, 0.0).0), Ok(()));
    }
}

#[test]
fn gain_is_applied_and_saturates() {
    for (gain_db, value, expected) in [
        (0.0, 1000, 1000),
        (-20.0, 1000, 100),
        (20.0, 1000, 10000),
        (60.0, -1000, -32768),
        (f64::NAN, 5, 5),
    ] {
        let (mut playback, script) = playing(Sharing::Own, gain_db);
        script.hold(960, value);
        assert_eq!(tick(&mut playback).1[0], expected, "{gain_db} dB");
    }
}

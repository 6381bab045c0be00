use super::*;
use crate::codec::opus::OpusSettings;

const PCMA: fn() -> TargetFormat = || TargetFormat::new(Codec::Pcma, 20, OpusSettings::default());
const G722: fn() -> TargetFormat = || TargetFormat::new(Codec::G722, 20, OpusSettings::default());
const OPUS: fn() -> TargetFormat = || TargetFormat::new(Codec::Opus, 20, OpusSettings::default());

/// Feeds one PCMU packet; returns (place, restart) of the frames.
fn feed(
    cache: &mut TranscodeCache<u32>,
    source: u32,
    sequence: u16,
    wanted: &[TargetFormat],
) -> Vec<(usize, bool)> {
    let packet = SourcePacket {
        sequence,
        timestamp: u32::from(sequence) * 160,
        marker: false,
        payload: &[0xff; 160],
    };
    let mut got = Vec::new();
    let mut sink = |place: usize, frame: super::super::EncodedFrame<'_>| {
        got.push((place, frame.restart));
    };
    let key = (source, Codec::Pcmu);
    let tap = cache.handle_packet(Instant::ZERO, key, packet, (wanted, false), &mut sink);
    tap.expect("no tap is wanted");
    got
}

#[test]
fn listeners_of_one_format_share_one_pipeline() {
    let mut cache = TranscodeCache::new(64);
    let wanted = [OPUS(), G722()];
    assert_eq!(feed(&mut cache, 1, 0, &wanted), [(0, true), (1, true)]);
    assert_eq!(feed(&mut cache, 1, 1, &wanted), [(0, false), (1, false)]);
    assert_eq!(cache.pipeline_count(), 2);
    let other = OpusSettings {
        dtx: true,
        ..OpusSettings::default()
    };
    assert_eq!(TargetFormat::new(Codec::Pcma, 20, other), PCMA());
    assert_ne!(TargetFormat::new(Codec::Opus, 20, other), OPUS());
}

#[test]
fn the_least_recently_used_pipeline_goes() {
    let mut cache = TranscodeCache::new(2);
    feed(&mut cache, 1, 0, &[PCMA()]);
    feed(&mut cache, 2, 0, &[PCMA()]);
    feed(&mut cache, 1, 1, &[PCMA()]);
    feed(&mut cache, 3, 0, &[PCMA()]);
    assert_eq!(cache.pipeline_count(), 2);
    assert_eq!(
        feed(&mut cache, 1, 2, &[PCMA()]),
        [(0, false)],
        "recently used, kept"
    );
    assert_eq!(feed(&mut cache, 2, 1, &[PCMA()]), [(0, true)], "made anew");
    assert_eq!(cache.take_errors(), 0);
}

#[test]
fn one_packet_never_throws_out_its_own_pipelines() {
    let mut cache = TranscodeCache::new(2);
    let wanted = [PCMA(), G722(), OPUS()];
    feed(&mut cache, 1, 0, &wanted);
    assert_eq!(feed(&mut cache, 1, 1, &wanted), [(0, false), (1, false)]);
    assert_eq!(cache.pipeline_count(), 2);
    assert_eq!(cache.take_errors(), 2, "the third is counted each time");
}

#[test]
fn a_removed_source_leaves_nothing() {
    let mut cache = TranscodeCache::new(8);
    feed(&mut cache, 1, 0, &[PCMA(), G722()]);
    feed(&mut cache, 2, 0, &[PCMA()]);
    cache.remove_source(1);
    assert_eq!(cache.pipeline_count(), 1);
    assert_eq!(feed(&mut cache, 1, 1, &[PCMA()]), [(0, true)]);
}

#[test]
fn a_source_that_changes_its_codec_begins_anew() {
    let mut cache = TranscodeCache::new(8);
    feed(&mut cache, 1, 0, &[G722()]);
    let packet = SourcePacket {
        sequence: 1,
        timestamp: 160,
        marker: false,
        payload: &[0xd5; 160],
    };
    let mut restarts = Vec::new();
    let mut sink = |_: usize, frame: super::super::EncodedFrame<'_>| restarts.push(frame.restart);
    let source = (1, Codec::Pcma);
    let tap = cache.handle_packet(Instant::ZERO, source, packet, (&[G722()], false), &mut sink);
    tap.expect("no tap is wanted");
    assert_eq!(restarts, [true]);
    assert_eq!(cache.pipeline_count(), 1);
}

#[test]
fn waiting_sources_are_found_when_their_time_is_up() {
    let mut cache = TranscodeCache::new(8);
    let wanted = [PCMA()];
    feed(&mut cache, 7, 0, &wanted);
    assert_eq!(feed(&mut cache, 7, 2, &wanted), []);
    let due = cache.next_timeout().expect("a packet is held");
    assert_eq!(cache.due(Instant::ZERO), None);
    assert_eq!(cache.due(due), Some(7));
    let mut frames = 0;
    let mut sink = |_: usize, _: super::super::EncodedFrame<'_>| frames += 1;
    cache.handle_timeout(due, 7, &wanted, &mut sink);
    assert_eq!(frames, 2, "the concealed and the held");
    assert_eq!(cache.next_timeout(), None);
}

#[test]
fn pcm_sources_are_encoded_at_their_own_quality() {
    let mut cache = TranscodeCache::new(8);
    let wanted = [PCMA(), G722(), OPUS()];
    let pcm = crate::codec::probe::tone(48000, 1000.0, -10.0, 9600);
    let mut stamps = [Vec::new(), Vec::new(), Vec::new()];
    for frame in pcm.chunks(960) {
        let mut sink = |place: usize, frame: super::super::EncodedFrame<'_>| {
            stamps[place].push(frame.timestamp);
        };
        cache.handle_pcm((9, 48000), frame, &wanted, &mut sink);
    }
    let mut sink = |_: usize, _: super::super::EncodedFrame<'_>| panic!("all frames were full");
    cache.finish_pcm(9, &wanted, &mut sink);
    assert_eq!(cache.pipeline_count(), 0);
    assert_eq!(stamps[0], (0..10).map(|n| n * 160).collect::<Vec<_>>());
    assert_eq!(stamps[1], stamps[0]);
    assert_eq!(stamps[2], (0..10).map(|n| n * 960).collect::<Vec<_>>());
}

#[test]
fn the_last_frame_of_a_file_is_filled_up_once() {
    let mut cache = TranscodeCache::new(8);
    let wanted = [PCMA()];
    let mut frames = Vec::new();
    let mut sink = |_: usize, frame: super::super::EncodedFrame<'_>| {
        frames.push((frame.timestamp, frame.payload.len()));
    };
    cache.handle_pcm((9, 8000), &[1000; 160], &wanted, &mut sink);
    cache.handle_pcm((9, 8000), &[1000; 50], &wanted, &mut sink);
    cache.finish_pcm(9, &wanted, &mut sink);
    assert_eq!(frames, [(0, 160), (160, 160)]);
}

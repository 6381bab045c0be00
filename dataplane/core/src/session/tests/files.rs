use std::sync::{Arc, Mutex};

use rtpbridge_shared::id::RecordingId;
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::playback::{FetchOrder, FileCreate, FileSeek, FileSource};
use rtpbridge_shared::ipc::recording::RecordingStart;
use rtpbridge_shared::ipc::session::EndpointDetails;
use rtpbridge_shared::vocab::{Codec, EndpointState, FinishReason};

use super::*;
use crate::codec::{Decoder, probe};
use crate::playback::{FeedProgress, PcmFeed};

/// A decoder that holds a file of so many samples, and may break off after so many.
#[derive(Clone)]
struct Tape(Arc<Mutex<Reel>>);

struct Reel {
    left: usize,
    broken: bool,
    sought: Option<u64>,
    /// What is on it: a sine of −10 dBFS, or a constant.
    frequency: Option<f64>,
    played: usize,
}

impl Tape {
    fn of_ms(ms: usize) -> Self {
        Self(Arc::new(Mutex::new(Reel {
            left: ms * 48,
            broken: false,
            sought: None,
            frequency: None,
            played: 0,
        })))
    }

    fn of_tone(frequency: f64, ms: usize) -> Self {
        let tape = Self::of_ms(ms);
        tape.0.lock().expect("lock").frequency = Some(frequency);
        tape
    }

    fn broken(self) -> Self {
        self.0.lock().expect("lock").broken = true;
        self
    }

    fn left_ms(&self) -> usize {
        self.0.lock().expect("lock").left / 48
    }

    fn opened(&self) -> OpenedFile {
        OpenedFile {
            feed: Box::new(self.clone()),
            playback_id: "tape".to_owned(),
        }
    }
}

impl PcmFeed for Tape {
    fn progress(&self) -> FeedProgress {
        let reel = self.0.lock().expect("lock");
        match (reel.left, reel.broken) {
            (960.., _) => FeedProgress::Running,
            (_, true) => FeedProgress::Failed,
            (_, false) => FeedProgress::Ended,
        }
    }

    fn pop(&mut self, out: &mut [i16]) -> usize {
        let mut reel = self.0.lock().expect("lock");
        let count = out.len().min(reel.left);
        for (n, sample) in (reel.played..).zip(&mut out[..count]) {
            let turns = reel.frequency.map(|hz| hz * n as f64 / 48000.0);
            let sine = turns.map(|turns| (std::f64::consts::TAU * turns).sin());
            *sample = sine.map_or(1000, |sine| (probe::amplitude(-10.0) * sine) as i16);
        }
        reel.played += count;
        reel.left -= count;
        count
    }

    fn seek(&mut self, position_ms: u64) {
        self.0.lock().expect("lock").sought = Some(position_ms);
    }

    fn failure(&self) -> Option<String> {
        let failed = self.progress() == FeedProgress::Failed;
        failed.then(|| "file is truncated".to_owned())
    }
}

const FILE: EndpointId = EndpointId::from_bytes([77; 16]);

fn order() -> FetchOrder {
    FetchOrder {
        url: "http://h/a.wav".to_owned(),
        headers: Vec::new(),
        cache_ttl_secs: 300,
        timeout_ms: 10_000,
    }
}

fn request(world: &World, source: FileSource, shared: bool) -> FileCreate {
    FileCreate {
        session: world.session.id(),
        endpoint: FILE,
        source,
        start_ms: 500,
        loop_count: Some(0),
        shared,
        gain_db: 0.0,
    }
}

fn play_local(world: &mut World, tape: &Tape, shared: bool) {
    let request = request(world, FileSource::Local("a.wav".into()), shared);
    let created =
        world
            .session
            .create_file(world.now, &request, Some(tape.opened()), &mut world.out);
    created.expect("room");
}

fn play_url(world: &mut World) {
    let request = request(world, FileSource::Url(order()), false);
    let created = world
        .session
        .create_file(world.now, &request, None, &mut world.out);
    created.expect("room");
}

fn events(world: &mut World) -> Vec<Event> {
    let events = std::mem::take(&mut world.out.events);
    events.into_iter().map(|(event, _)| event.event).collect()
}

fn changed(old_state: EndpointState, new_state: EndpointState) -> Event {
    Event::StateChanged {
        endpoint: FILE,
        old_state,
        new_state,
    }
}

fn finished(reason: FinishReason, error: Option<&str>) -> Event {
    Event::FileFinished {
        endpoint: FILE,
        reason,
        error: error.map(str::to_owned),
    }
}

fn details(world: &World) -> Option<EndpointDetails> {
    let endpoints = world.session.details().endpoints;
    endpoints.into_iter().find(|e| e.endpoint == FILE)
}

fn pause(world: &mut World) -> Result<(), RequestError> {
    world.session.file_pause(world.now, FILE, &mut world.out)
}

fn resume(world: &mut World) -> Result<(), RequestError> {
    world.session.file_resume(world.now, FILE, &mut world.out)
}

fn seek(world: &mut World) -> Result<(), RequestError> {
    let request = FileSeek {
        session: world.session.id(),
        endpoint: FILE,
        position_ms: 1234,
    };
    world.session.file_seek(world.now, &request)
}

#[test]
fn a_file_plays_in_real_time_though_nobody_listens_and_stays_listed() {
    let mut world = World::new();
    let tape = Tape::of_ms(1000);
    play_local(&mut world, &tape, false);
    assert_eq!(events(&mut world), [], "the first state is no change");
    world.pass(500);
    assert_eq!(tape.left_ms(), 500);
    world.pass(600);
    let over = [
        changed(EndpointState::Playing, EndpointState::Finished),
        finished(FinishReason::Completed, None),
    ];
    assert_eq!(events(&mut world), over);
    assert_eq!(
        details(&world).map(|d| d.state),
        Some(EndpointState::Finished)
    );
    for refused in [pause(&mut world), resume(&mut world), seek(&mut world)] {
        assert!(
            matches!(refused, Err(RequestError::Endpoint(_))),
            "{refused:?}"
        );
    }
    world.pass(5000);
    assert_eq!(events(&mut world), []);
    let removed = world
        .session
        .remove_endpoint(world.now, FILE, &mut world.out);
    assert_eq!(removed.map(|removed| removed.sockets), Ok(None));
}

#[test]
fn a_worker_that_stalls_leaves_out_what_it_missed_rather_than_bursting() {
    let mut world = World::new();
    let tape = Tape::of_ms(10_000);
    play_local(&mut world, &tape, false);
    world.pass(20);
    world.now = world.now + Duration::from_millis(5000);
    world.pass(0);
    assert!(tape.left_ms() >= 10_000 - 40, "{}", tape.left_ms());
}

#[test]
fn a_download_is_waited_for_then_played_and_let_go_of() {
    let mut world = World::new();
    play_url(&mut world);
    let shown = details(&world).expect("listed");
    assert_eq!(shown.state, EndpointState::Buffering);
    assert_eq!(shown.pending_fetch, Some(order()));
    for refused in [pause(&mut world), resume(&mut world), seek(&mut world)] {
        assert!(
            matches!(refused, Err(RequestError::Endpoint(_))),
            "{refused:?}"
        );
    }
    let to_open = PlayOrder {
        start_ms: 500,
        loop_count: Some(0),
        shared: false,
    };
    assert_eq!(
        world.session.file_fetched(FILE, "ab.wav"),
        Ok(Some(to_open))
    );
    assert_eq!(world.session.file_fetched(FILE, "ab.wav"), Ok(None));
    let shown = details(&world).expect("listed");
    assert_eq!(shown.pending_fetch, None);
    assert_eq!(shown.cache_file.as_deref(), Some("ab.wav"));
    world.pass(300);
    assert_eq!(events(&mut world), []);
    let opened = Ok(Tape::of_ms(100).opened());
    world
        .session
        .file_opened(world.now, FILE, opened, &mut world.out);
    let playing = changed(EndpointState::Buffering, EndpointState::Playing);
    assert_eq!(events(&mut world), [playing]);
    world.pass(200);
    assert_eq!(events(&mut world).len(), 2);
    assert_eq!(details(&world).expect("listed").cache_file, None);
}

#[test]
fn the_downloads_a_session_waits_for_have_room_in_a_snapshot() {
    let mut world = World::new();
    let order = FetchOrder {
        headers: vec![("X-Long".to_owned(), "v".repeat(100 * 1024))],
        ..order()
    };
    let mut create = |byte| {
        let request = FileCreate {
            endpoint: EndpointId::from_bytes([byte; 16]),
            ..request(&world, FileSource::Url(order.clone()), false)
        };
        let now = world.now;
        world
            .session
            .create_file(now, &request, None, &mut world.out)
    };
    assert_eq!(create(1), Ok(()));
    assert_eq!(create(2), Ok(()));
    let refused = create(3);
    assert!(
        matches!(refused, Err(RequestError::Endpoint(_))),
        "{refused:?}"
    );
    let fetched = world
        .session
        .file_fetched(EndpointId::from_bytes([1; 16]), "ab.wav");
    assert!(matches!(fetched, Ok(Some(_))), "{fetched:?}");
    play_url(&mut world);
}

#[test]
fn what_cannot_be_fetched_or_decoded_further_is_told_and_gone() {
    type Break = fn(&mut World);
    let breaks: [(Break, &str); 3] = [
        (
            |world| {
                play_url(world);
                let out = &mut world.out;
                let failed = world
                    .session
                    .file_not_fetched(world.now, FILE, "404".into(), out);
                failed.expect("known");
            },
            "404",
        ),
        (
            |world| {
                play_url(world);
                let known = world.session.file_fetched(FILE, "ab");
                known.expect("known");
                let opened = Err("not sound".to_owned());
                world
                    .session
                    .file_opened(world.now, FILE, opened, &mut world.out);
            },
            "not sound",
        ),
        (
            |world| {
                play_local(world, &Tape::of_ms(90).broken(), false);
                world.pass(200);
            },
            "file is truncated",
        ),
    ];
    for (break_it, why) in breaks {
        let mut world = World::new();
        let start = RecordingStart {
            session: world.session.id(),
            recording: RecordingId::from_bytes([1; 16]),
            endpoint: None,
            file_path: "/recordings/all.pcap".into(),
            record_outbound: false,
        };
        let key = RecordingKey(1);
        world
            .session
            .start_recording(world.now, &start, key, &mut world.out)
            .expect("allowed");
        break_it(&mut world);
        assert_eq!(
            events(&mut world),
            [finished(FinishReason::Error, Some(why))]
        );
        assert_eq!(details(&world), None);
        assert_eq!(world.session.counts().endpoints, 0);
        assert_eq!(world.out.ended_recordings, [], "of all legs goes on");
        assert_eq!(
            world.session.file_fetched(FILE, "ab"),
            Err(RequestError::EndpointNotFound)
        );
    }
}

#[test]
fn a_failed_files_own_recording_ends_with_it() {
    let mut world = World::new();
    play_local(&mut world, &Tape::of_ms(50).broken(), false);
    let start = RecordingStart {
        session: world.session.id(),
        recording: RecordingId::from_bytes([1; 16]),
        endpoint: Some(FILE),
        file_path: "/recordings/leg.pcap".into(),
        record_outbound: false,
    };
    let key = RecordingKey(9);
    world
        .session
        .start_recording(world.now, &start, key, &mut world.out)
        .expect("allowed");
    world.pass(200);
    let ended: Vec<_> = world.out.ended_recordings.iter().map(|e| e.key).collect();
    assert_eq!(ended, [key]);
}

#[test]
fn a_pause_stops_time_and_can_be_said_twice() {
    let mut world = World::new();
    let tape = Tape::of_ms(1000);
    play_local(&mut world, &tape, false);
    world.pass(100);
    assert_eq!((pause(&mut world), pause(&mut world)), (Ok(()), Ok(())));
    world.pass(5000);
    assert_eq!(tape.left_ms(), 900);
    assert_eq!((resume(&mut world), resume(&mut world)), (Ok(()), Ok(())));
    assert_eq!(seek(&mut world), Ok(()));
    assert_eq!(tape.0.lock().expect("lock").sought, Some(1234));
    world.pass(100);
    assert!(tape.left_ms() <= 820, "{}", tape.left_ms());
    let told = [
        changed(EndpointState::Playing, EndpointState::Paused),
        changed(EndpointState::Paused, EndpointState::Playing),
    ];
    assert_eq!(events(&mut world), told);
}

#[test]
fn a_pause_beside_others_lets_time_pass_and_they_keep_their_place() {
    let mut world = World::new();
    let tape = Tape::of_ms(1000);
    play_local(&mut world, &tape, true);
    let id = details(&world).and_then(|d| d.shared_playback_id);
    assert_eq!(id.as_deref(), Some("tape"));
    assert!(matches!(seek(&mut world), Err(RequestError::Endpoint(_))));
    assert_eq!(pause(&mut world), Ok(()));
    world.pass(500);
    assert_eq!(tape.left_ms(), 500);
    assert!(seek(&mut world).is_err());
}

#[test]
fn only_files_are_paused_and_only_with_room_are_they_made() {
    let mut world = World::with(EngineConfig {
        max_endpoints_per_session: 1,
        ..EngineConfig::default()
    });
    let party = world.join(PCMU, Direction::Sendrecv);
    let refused = world
        .session
        .file_pause(world.now, party.id, &mut world.out);
    assert!(matches!(
        refused,
        Err(RequestError::WrongEndpointType { .. })
    ));
    let request = request(&world, FileSource::Local("a.wav".into()), false);
    let refused = world.session.check_file(world.now, &request);
    assert!(matches!(
        refused,
        Err(RequestError::TooManyEndpoints { .. })
    ));
}

#[test]
fn a_playing_file_keeps_its_session_alive_and_a_paused_one_does_not() {
    let mut world = World::with(EngineConfig {
        session_idle_timeout: Some(Duration::from_secs(2)),
        ..EngineConfig::default()
    });
    play_local(&mut world, &Tape::of_ms(60_000), false);
    world.pass(10_000);
    assert_eq!(world.out.ended, []);
    assert_eq!(pause(&mut world), Ok(()));
    world.pass(3000);
    assert_eq!(world.out.ended.len(), 1);
}

#[test]
fn each_listener_hears_the_file_at_the_quality_of_its_own_codec() {
    let mut world = World::new();
    let wide = world.join("111 110", Direction::Recvonly);
    let middle = world.join("9 101", Direction::Recvonly);
    let narrow = world.join(PCMU, Direction::Recvonly);
    play_local(&mut world, &Tape::of_tone(10_000.0, 2000), false);
    world.pass(2100);
    let mut level = |party: &Party, codec: Codec| {
        let rate_hz = crate::codec::audio_rate(codec);
        let mut decoder = Decoder::new(codec, rate_hz).expect("its own rate");
        let (mut room, mut pcm) = (vec![0; 5760], Vec::new());
        for (_, payload) in world.take_rtp(party) {
            let count = decoder.decode(&payload, &mut room).expect("we encode well");
            pcm.extend_from_slice(&room[..count]);
        }
        let seconds = pcm.len() as f64 / f64::from(rate_hz);
        assert!((seconds - 2.0).abs() < 0.03, "{codec:?}: {seconds} s");
        // Past the beginning and short of the end, which the encoder shapes.
        let steady = &pcm[pcm.len() / 4..pcm.len() * 3 / 4];
        let squares = steady.iter().map(|sample| f64::from(*sample).powi(2));
        let mean = squares.sum::<f64>() / steady.len() as f64;
        10.0 * (mean.max(1.0) / 32768.0_f64.powi(2)).log10()
    };
    let heard = level(&wide, Codec::Opus);
    assert!((-18.0..-8.0).contains(&heard), "10 kHz at {heard} dBFS");
    for (party, codec) in [(&middle, Codec::G722), (&narrow, Codec::Pcmu)] {
        let left = level(party, codec);
        assert!(left < -50.0, "{codec:?} aliases 10 kHz at {left} dBFS");
    }
}

//! Recordings through the real program.

use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use nix::sys::signal::Signal;
use pcap_file::pcap::PcapReader;
use rtpbridge_shared::id::{RecordingId, SessionId};
use rtpbridge_shared::ipc::recording::{RecordingStart, RecordingSummary};
use rtpbridge_shared::ipc::{Event, Reply, Request, RequestError};
use rtpbridge_shared::vocab::StopReason;

use crate::harness::{Dataplane, Link, wait_for};
use crate::media::call;

/// Ethernet, IPv4 and UDP.
const HEADERS: usize = 42;

fn start(session: SessionId, path: &Path) -> RecordingStart {
    RecordingStart {
        session,
        recording: RecordingId::random(),
        endpoint: None,
        file_path: path.to_str().expect("utf-8").to_owned(),
        record_outbound: false,
    }
}

fn stop(link: &mut Link, start: &RecordingStart) -> RecordingSummary {
    let stopped = link.request(Request::RecordingStop {
        session: start.session,
        recording: start.recording,
    });
    match stopped {
        Ok(Reply::Recordings(mut rows)) if rows.len() == 1 => rows.remove(0),
        other => panic!("{other:?}"),
    }
}

/// Time and packet of every record that is RTP from a party.
fn audio(path: &Path) -> Vec<(Duration, Vec<u8>)> {
    let bytes = std::fs::read(path).expect("reads");
    let mut reader = PcapReader::new(&bytes[..]).expect("a pcap header");
    let mut packets = Vec::new();
    while let Some(record) = reader.next_packet() {
        let record = record.expect("a whole record");
        let data = &record.data;
        assert_eq!((data[12], data[13], data[14]), (8, 0, 0x45), "IPv4");
        let packet = data[HEADERS..].to_vec();
        if data[26..28] != [10, 255] && packet.len() == 172 {
            packets.push((record.timestamp, packet));
        }
    }
    packets
}

#[test]
fn a_recording_holds_both_legs_byte_for_byte_and_accounts_for_them() {
    let ip = "127.4.3.1";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (session, mut a, mut b) = call(&mut link, ip);
    let path = dataplane.recording("call.pcap");
    let start = start(session, &path);
    let started = link.request(Request::RecordingStart(start.clone()));
    assert_eq!(started, Ok(Reply::Done));
    assert!(path.exists(), "the file exists when the answer comes");
    for mark in 0..100 {
        a.say(mark);
        assert_eq!(b.hear().1, mark);
        if mark % 2 == 0 {
            b.say(1000 + mark);
            assert_eq!(a.hear().1, 1000 + mark);
        }
        if mark == 50 {
            a.lose();
        }
    }
    let summary = stop(&mut link, &start);
    assert!(summary.flushed);
    assert_eq!(
        (summary.dropped_packets, summary.reason),
        (0, StopReason::Requested)
    );
    let row = |ssrc: u32| summary.streams.iter().find(|row| row.ssrc == ssrc);
    let from_a = row(a.ssrc).expect("a row for a");
    assert_eq!(
        (from_a.endpoint, from_a.packets, from_a.gaps),
        (a.endpoint, 100, 1)
    );
    assert_eq!(from_a.payload_types, [(0, "PCMU".to_owned())]);
    assert_eq!(row(b.ssrc).expect("a row for b").packets, 50);

    let packets = audio(&path);
    assert_eq!(packets.len(), 150);
    assert!(packets.is_sorted_by_key(|(time, _)| *time));
    let marks = |ssrc: u32| {
        let of = packets
            .iter()
            .filter(move |(_, packet)| packet[8..12] == ssrc.to_be_bytes());
        of.map(|(_, p)| u32::from_be_bytes(p[12..16].try_into().expect("4")))
    };
    assert!(marks(a.ssrc).eq(0..100));
    assert!(marks(b.ssrc).eq((0..50).map(|half| 1000 + 2 * half)));
    assert!(
        packets
            .iter()
            .all(|(_, packet)| packet[16..] == [0x55; 156])
    );
}

#[test]
fn bad_paths_unknown_legs_and_existing_files_are_refused() {
    let ip = "127.4.3.2";
    let dataplane = Dataplane::start(ip, &[("max_recordings_per_session", "1")]);
    let mut link = dataplane.controller();
    let (session, _a, _b) = call(&mut link, ip);
    let good = start(session, &dataplane.recording("a.pcap"));
    let mut refused = |path: &Path, leg| {
        let mut request = start(session, path);
        request.endpoint = leg;
        let outcome = link.request(Request::RecordingStart(request));
        outcome.expect_err("refused")
    };
    let relative = refused(Path::new("a.pcap"), None).to_string();
    assert!(relative.contains("absolute"), "{relative}");
    let outside = refused(&dataplane.dir().join("a.pcap"), None);
    assert!(matches!(outside, RequestError::InvalidParams { .. }));
    let leg = rtpbridge_shared::id::EndpointId::random();
    let unknown = refused(&dataplane.recording("b.pcap"), Some(leg));
    assert!(!dataplane.recording("b.pcap").exists(), "{unknown}");
    std::fs::write(dataplane.recording("old.pcap"), "keep").expect("writes");
    let exists = refused(&dataplane.recording("old.pcap"), None);
    assert!(matches!(exists, RequestError::Recording(text) if text.contains("exists")));
    assert_eq!(link.request(Request::RecordingStart(good)), Ok(Reply::Done));
    let second = start(session, &dataplane.recording("c.pcap"));
    let many = link.request(Request::RecordingStart(second));
    let many = many.expect_err("one is the limit").to_string();
    assert!(many.contains("Maximum concurrent recordings"), "{many}");
}

#[test]
fn recordings_end_with_their_leg_and_with_their_session() {
    let ip = "127.4.3.3";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    let all = start(session, &dataplane.recording("all.pcap"));
    let mut leg = start(session, &dataplane.recording("leg.pcap"));
    leg.endpoint = Some(b.endpoint);
    for request in [&all, &leg] {
        let started = link.request(Request::RecordingStart(request.clone()));
        assert_eq!(started, Ok(Reply::Done));
    }
    a.say(1);
    assert_eq!(b.hear().1, 1);
    let endpoint = b.endpoint;
    let removed = link.request(Request::EndpointRemove { session, endpoint });
    let Ok(Reply::Recordings(rows)) = removed else {
        panic!("{removed:?}");
    };
    assert_eq!(rows.len(), 1);
    assert_eq!(
        (rows[0].recording, rows[0].reason),
        (leg.recording, StopReason::EndpointRemoved)
    );
    assert!(
        rows[0]
            .streams
            .iter()
            .all(|row| row.packets == 0 && row.endpoint == b.endpoint)
    );
    let told = |heard: &[rtpbridge_shared::ipc::ToControl]| {
        heard.iter().any(|message| matches!(message,
            rtpbridge_shared::ipc::ToControl::Event { event, .. }
                if matches!(&event.event, Event::RecordingStopped(s) if s.recording == leg.recording)))
    };
    assert!(told(&link.heard), "the event precedes the answer");
    let destroyed = link.request(Request::SessionDestroy { session });
    let Ok(Reply::Recordings(rows)) = destroyed else {
        panic!("{destroyed:?}");
    };
    assert_eq!(
        (rows[0].recording, rows[0].reason),
        (all.recording, StopReason::SessionDestroyed)
    );
    assert_eq!(audio(&dataplane.recording("all.pcap")).len(), 1);
}

#[test]
fn a_file_that_may_not_grow_costs_the_recording_and_not_the_call() {
    let ip = "127.4.3.4";
    let dataplane = Dataplane::start_limited(ip, 40);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    let path = dataplane.recording("full.pcap");
    let start = start(session, &path);
    let started = link.request(Request::RecordingStart(start.clone()));
    assert_eq!(started, Ok(Reply::Done));
    for mark in 0..400 {
        a.say(mark);
        assert_eq!(b.hear().1, mark, "media is untouched");
    }
    let (_, event) = link.event(session, |event| matches!(event, Event::RecordingStopped(_)));
    let Event::RecordingStopped(summary) = event else {
        unreachable!("just matched");
    };
    assert_eq!(summary.reason, StopReason::WriteError);
    let written = audio(&path).len() as u64;
    let row = summary.streams.iter().find(|row| row.ssrc == a.ssrc);
    let row = row.expect("a row for a");
    assert_eq!(row.packets, written, "the account is what is in the file");
    assert!(row.dropped > 0 && row.packets > 100, "{row:?}");
    let again = link.request(Request::RecordingStop {
        session,
        recording: start.recording,
    });
    assert!(
        matches!(again, Err(RequestError::Recording(_))),
        "{again:?}"
    );
}

#[test]
fn a_killed_process_leaves_a_readable_file() {
    let ip = "127.4.3.5";
    let mut dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    let path = dataplane.recording("crash.pcap");
    let start = start(session, &path);
    assert_eq!(
        link.request(Request::RecordingStart(start)),
        Ok(Reply::Done)
    );
    for mark in 0..200 {
        a.say(mark);
        assert_eq!(b.hear().1, mark);
    }
    // What is older than 200 ms must be there.
    wait_for("the packets in the file", || {
        let size = path.metadata().expect("exists").len();
        size >= 24 + 200 * (16 + 42 + 172)
    });
    a.say(200);
    dataplane.signal(Signal::SIGKILL);
    dataplane.end();
    assert!(audio(&path).len() >= 200);
}

#[test]
fn times_and_order_are_those_of_arrival_however_late_the_program_is() {
    let ip = "127.4.3.6";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (session, mut a, mut b) = call(&mut link, ip);
    let path = dataplane.recording("late.pcap");
    let start = start(session, &path);
    let started = link.request(Request::RecordingStart(start.clone()));
    assert_eq!(started, Ok(Reply::Done));
    let (mut sent, mut marks) = (Vec::new(), 0..);
    for _ in 0..3 {
        dataplane.signal(Signal::SIGSTOP);
        for mark in marks.by_ref().take(10) {
            let before = wall();
            let party = if mark % 3 == 0 { &mut a } else { &mut b };
            party.say(mark);
            sent.push((mark, before, wall()));
            std::thread::sleep(Duration::from_millis(5));
        }
        dataplane.signal(Signal::SIGCONT);
        std::thread::sleep(Duration::from_millis(20));
    }
    let summary = stop(&mut link, &start);
    assert_eq!(summary.dropped_packets, 0);
    let recorded = audio(&path);
    assert_eq!(recorded.len(), sent.len());
    for ((time, packet), (mark, before, after)) in recorded.iter().zip(&sent) {
        let recorded_mark = u32::from_be_bytes(packet[12..16].try_into().expect("4"));
        assert_eq!(recorded_mark, *mark, "in the order of arrival");
        // The file's times are cut to microseconds.
        let slack = Duration::from_millis(1);
        assert!(
            *time + slack >= *before && *time <= *after + slack,
            "{time:?}"
        );
    }
}

fn wall() -> Duration {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("after 1970")
}

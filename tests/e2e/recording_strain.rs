//! Recordings whose queue or disk cannot keep up: the call does not notice, and the account of the
//! recording is exact.

use std::fs;
use std::path::Path;
use std::process::Command;

use nix::sys::signal::Signal;
use rtpbridge_tests::harness::disk::Disk;
use rtpbridge_tests::harness::{Client, Server, tool};
use rtpbridge_tests::peer::capture::{Capture, leg};
use rtpbridge_tests::peer::{Party, Rtp};
use serde_json::{Value, json};

/// RTCP packets in the time of a test, at most.
const REPORTS_MAX: u64 = 2;

fn start(client: &mut Client, path: &str) -> Value {
    client.call("recording.start", json!({"file_path": path}))["recording_id"].clone()
}

fn stop(client: &mut Client, recording: &Value) -> Value {
    client.call("recording.stop", json!({"recording_id": recording}))
}

/// The file holds what the account says, in order, and every packet is in the file or in `dropped`.
fn assert_exact(stopped: &Value, path: &str, sent: &[Rtp]) {
    let row = stopped["streams"]
        .as_array()
        .unwrap()
        .iter()
        .find(|row| row["ssrc"] == json!(sent[0].ssrc))
        .unwrap_or_else(|| panic!("a row for the talker: {stopped}"));
    let (packets, dropped) = (&row["packets"], row["dropped"].as_u64().unwrap());
    assert!(dropped > 0, "something was lost to the queue: {stopped}");
    assert_eq!(packets.as_u64().unwrap() + dropped, sent.len() as u64);
    // A report may have been lost to the queue as well: every few seconds there is one.
    let reports = stopped["dropped_packets"].as_u64().unwrap() - dropped;
    assert!(reports <= REPORTS_MAX, "{stopped}");
    assert_eq!(row["gaps"], json!(0), "nothing was lost before the queue");
    let capture = Capture::read(path);
    assert_eq!(stopped["packets"], json!(capture.frames.len()));
    let kept = capture.rtp_from(leg(0));
    assert_eq!(json!(kept.len()), *packets);
    let mut all = sent.iter().map(Rtp::write);
    for packet in kept {
        assert!(all.any(|sent| sent == packet), "sent, and in this order");
    }
}

#[test]
fn what_a_full_queue_loses_is_counted_to_the_packet() {
    let server = Server::builder().set("recording_channel_size", 1).start();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let path = server.recording_path("narrow.pcap");
    let id = start(&mut client, &path);
    let mut sent = alice.burst(1);
    bob.receive_exactly(1);
    // The worker finds them all at once, and the queue has one place.
    server.signal_dataplane(Signal::SIGSTOP);
    sent.extend(alice.burst(60));
    server.signal_dataplane(Signal::SIGCONT);
    bob.receive_exactly(60);
    let stopped = stop(&mut client, &id);
    assert_exact(&stopped, &path, &sent);
}

/// A library whose `write` to regular files takes a second.
fn slow_disk(directory: &Path) -> std::path::PathBuf {
    let source = r#"
        #define _GNU_SOURCE
        #include <dlfcn.h>
        #include <sys/stat.h>
        #include <time.h>
        #include <unistd.h>
        ssize_t write(int fd, const void *bytes, size_t count) {
            static ssize_t (*real)(int, const void *, size_t);
            if (!real) real = dlsym(RTLD_NEXT, "write");
            struct stat about;
            if (fd > 2 && fstat(fd, &about) == 0 && S_ISREG(about.st_mode)) {
                struct timespec pause = {1, 0};
                nanosleep(&pause, 0);
            }
            return real(fd, bytes, count);
        }
    "#;
    let (code, library) = (directory.join("slow.c"), directory.join("slow.so"));
    fs::write(&code, source).unwrap();
    let output = library.to_str().unwrap();
    tool::run(
        "cc",
        &[
            "-shared",
            "-fPIC",
            "-o",
            output,
            code.to_str().unwrap(),
            "-ldl",
        ],
    );
    library
}

#[test]
fn a_stalled_disk_costs_the_call_nothing_and_the_recording_says_what_it_lost() {
    let mut server = Server::builder()
        .set("recording_channel_size", 20)
        .prepare();
    let library = slow_disk(server.directory());
    let mut env = Command::new("env");
    env.arg(format!("LD_PRELOAD={}", library.display()));
    let dataplane = server.start_under(&mut env, "rtpbridge-dataplane");
    let control = server.start_under(&mut Command::new("env"), "rtpbridge-control");
    server.adopt(dataplane, control);
    server.wait_healthy();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let path = server.recording_path("stalled.pcap");
    let id = start(&mut client, &path);
    let sent = alice.talk(150);
    let heard = bob.receive_exactly(sent.len());
    let pairs = heard.iter().zip(&sent);
    assert!(
        pairs
            .clone()
            .all(|(heard, sent)| heard.payload == sent.payload)
    );
    let stopped = stop(&mut client, &id);
    assert_exact(&stopped, &path, &sent);
}

#[test]
fn a_disk_that_takes_too_long_to_flush_is_told_of_and_holds_up_nothing() {
    let mut server = Server::builder()
        .set("recording_flush_timeout_secs", 1)
        .prepare();
    let Some(mut disk) = Disk::mount(&server.path("disk.img"), &server.path("recordings")) else {
        eprintln!("skipped: no loop device to be had");
        return;
    };
    server.start_dataplane();
    server.start_control();
    server.wait_healthy();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let id = start(&mut client, &server.recording_path("late.pcap"));
    alice.talk(20);
    disk.freeze();
    let sent = alice.talk(10).len() + 20;
    let stop_it = json!({"recording_id": id});
    let message = client.refuse("recording.stop", stop_it.clone(), "RECORDING_ERROR");
    assert!(message.contains("not flushed in time"), "{message}");
    let info = client.call("session.info", json!({}));
    assert_eq!(info["recordings"], json!([]), "it has stopped all the same");
    client.refuse("recording.stop", stop_it, "RECORDING_ERROR");
    assert_eq!(bob.receive_exactly(sent).len(), sent);
    disk.thaw();
    let path = server.recording_path("next.pcap");
    let id = start(&mut client, &path);
    let next = alice.talk(5);
    let stopped = stop(&mut client, &id);
    assert_eq!(stopped["dropped_packets"], json!(0));
    assert_eq!(Capture::read(&path).rtp().count(), next.len());
}

#[test]
fn a_frozen_file_system_costs_the_call_nothing_and_the_recording_says_what_it_lost() {
    let mut server = Server::builder()
        .set("recording_channel_size", 20)
        .prepare();
    let Some(mut disk) = Disk::mount(&server.path("disk.img"), &server.path("recordings")) else {
        eprintln!("skipped: no loop device to be had");
        return;
    };
    server.start_dataplane();
    server.start_control();
    server.wait_healthy();
    let (mut client, _) = server.session();
    let mut alice = Party::join(&mut client);
    let bob = Party::join(&mut client);
    let path = server.recording_path("frozen.pcap");
    let id = start(&mut client, &path);
    let mut sent = alice.talk(25);
    disk.freeze();
    sent.extend(alice.talk(75));
    // While nothing can be written, everything else goes on, other sessions too.
    assert_eq!(server.get("/health").status, 200);
    let (mut other, _) = server.session();
    let mut carol = Party::join(&mut other);
    let dave = Party::join(&mut other);
    carol.talk(5);
    dave.receive_exactly(5);
    client.call("session.info", json!({}));
    disk.thaw();
    sent.extend(alice.talk(50));
    let heard = bob.receive_exactly(sent.len());
    let mut pairs = heard.iter().zip(&sent);
    assert!(pairs.all(|(heard, sent)| heard.payload == sent.payload));
    let stopped = stop(&mut client, &id);
    assert_exact(&stopped, &path, &sent);
}

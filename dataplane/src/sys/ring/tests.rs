use super::*;
use crate::sys::clock;
use crate::sys::epoll::Waker;
use std::net::SocketAddr;
use std::time::Instant;

const SOON: Duration = Duration::from_secs(5);

/// A ring of each kind and its waker; none where the machine has no io_uring, and then there is
/// nothing to test.
fn rings() -> Vec<(Ring, Waker)> {
    let kinds = [Files::of_this_kernel(), Files::Descriptors];
    kinds.into_iter().filter_map(ring_with).collect()
}

fn ring() -> Option<(Ring, Waker)> {
    ring_with(Files::of_this_kernel())
}

fn ring_with(files: Files) -> Option<(Ring, Waker)> {
    let waker = Waker::new().expect("eventfd");
    match PreparedRing::with_files(64, files) {
        Ok(prepared) => Some((prepared.start(waker.source()).expect("starts"), waker)),
        Err(error) => {
            eprintln!("no io_uring here: {error}");
            None
        }
    }
}

fn socket(ip: &str) -> UdpSocket {
    let local = SocketAddr::new(ip.parse().expect("an address"), 0);
    UdpSocket::bind(local, 46).expect("binds")
}

/// What comes within a while, `count` datagrams of it.
fn receive(ring: &mut Ring, count: usize) -> Vec<(u64, Received, Vec<u8>)> {
    let deadline = Instant::now() + SOON;
    let mut all = Vec::new();
    while all.len() < count {
        assert!(Instant::now() < deadline, "{} of {count} came", all.len());
        ring.wait(Duration::from_millis(50)).expect("waits");
        let mut space = [0; 64];
        while let Some((key, received)) = ring.next(&mut space) {
            let kept = received.bytes.min(space.len());
            all.push((key, received, space[..kept].to_vec()));
        }
    }
    all
}

#[test]
fn datagrams_come_in_and_go_out_in_both_families() {
    for (mut ring, _waker) in rings() {
        for ip in ["127.0.0.1", "::1"] {
            let (ours, theirs) = (socket(ip), socket(ip));
            let place = ring.add(&ours, 7).expect("a place");
            let before = clock::wall_ns();
            theirs.send_to(b"hello", ours.local()).expect("sends");
            let (key, received, bytes) = receive(&mut ring, 1).remove(0);
            assert_eq!((key, &bytes[..]), (7, &b"hello"[..]));
            assert_eq!(received.source, theirs.local());
            let at = received.kernel_ns.expect("the kernel's time");
            assert!(before <= at && at <= clock::wall_ns());

            ring.send(place, b"and back", received.source);
            ring.flush();
            let mut space = [0; 16];
            let answer = theirs.recv_from(&mut space).expect("was sent by then");
            assert_eq!(&space[..answer.bytes], b"and back");
            assert_eq!(answer.source, ours.local());
            assert!(ring.take(place).is_empty());
        }
        assert_eq!(ring.take_send_errors(), 0);
    }
}

#[test]
fn more_than_there_are_buffers_for_waits_and_keeps_its_order() {
    for (mut ring, _waker) in rings() {
        let (ours, other, theirs) = (
            socket("127.0.0.1"),
            socket("127.0.0.1"),
            socket("127.0.0.1"),
        );
        ring.add(&ours, 1).expect("a place");
        ring.add(&other, 2).expect("a place");
        for number in 0..300_u32 {
            theirs
                .send_to(&number.to_be_bytes(), ours.local())
                .expect("sends");
        }
        theirs.send_to(b"mine", other.local()).expect("sends");
        let all = receive(&mut ring, 301);
        let numbers = all.iter().filter(|(key, ..)| *key == 1);
        let numbers: Vec<u32> = numbers
            .map(|(_, _, bytes)| u32::from_be_bytes(bytes[..].try_into().expect("four bytes")))
            .collect();
        assert_eq!(numbers, (0..300).collect::<Vec<_>>());
        assert!(
            all.iter()
                .any(|(key, _, bytes)| *key == 2 && bytes == b"mine")
        );
    }
}

#[test]
fn a_removed_socket_sends_its_last_words_and_frees_its_port() {
    for (mut ring, _waker) in rings() {
        let (theirs, older) = (socket("127.0.0.1"), socket("127.0.0.1"));
        // Its request stands all the time.
        ring.add(&older, 99).expect("a place");
        for round in 0..10_u64 {
            let ours = socket("127.0.0.1");
            let local = ours.local();
            let place = ring.add(&ours, round).expect("a place");
            theirs.send_to(b"hello", local).expect("sends");
            receive(&mut ring, 1);
            // Nobody has taken this when the socket goes.
            theirs.send_to(b"too late", local).expect("sends");
            ring.send(place, b"goodbye", theirs.local());
            let mut late: Vec<Vec<u8>> = ring.take(place).iter().map(|(_, b)| b.to_vec()).collect();
            let mut space = [0; 16];
            while let Ok(kept) = ours.recv_from(&mut space) {
                late.push(space[..kept.bytes].to_vec());
            }
            assert_eq!(late, [b"too late"], "taken along or still in the socket");
            drop(ours);
            let mut space = [0; 16];
            let said = theirs.recv_from(&mut space).expect("was sent by then");
            assert_eq!(&space[..said.bytes], b"goodbye");
            assert_eq!(ring.next(&mut space), None);
            assert!(UdpSocket::bind(local, 0).is_ok(), "round {round}");
        }
    }
}

#[test]
fn a_long_datagram_shows_that_it_was_cut() {
    let Some((mut ring, _waker)) = ring() else {
        return;
    };
    let (ours, theirs) = (socket("127.0.0.1"), socket("127.0.0.1"));
    ring.add(&ours, 1).expect("a place");
    theirs.send_to(&[1; 3000], ours.local()).expect("sends");
    theirs.send_to(&[], ours.local()).expect("sends");
    theirs.send_to(&[2; 64], ours.local()).expect("sends");
    let lengths: Vec<usize> = receive(&mut ring, 3)
        .iter()
        .map(|(_, r, _)| r.bytes)
        .collect();
    assert_eq!(lengths, [usize::MAX, 0, 64]);
}

#[test]
fn the_waker_ends_every_wait() {
    let Some((mut ring, waker)) = ring() else {
        return;
    };
    for _ in 0..3 {
        assert_eq!(ring.wait(Duration::ZERO).expect("waits"), 0);
        assert!(!ring.take_wake());
        let begun = Instant::now();
        let other = waker.clone();
        let thread = std::thread::spawn(move || other.wake());
        while !ring.take_wake() {
            ring.wait(SOON).expect("waits");
        }
        waker.clear();
        assert!(begun.elapsed() < SOON);
        thread.join().expect("ends");
    }
}

#[test]
fn a_ring_opens_and_connects_nothing() {
    let Some((mut ring, _waker)) = ring() else {
        return;
    };
    let forbidden = [
        opcode::Socket::new(libc::AF_INET, libc::SOCK_STREAM, 0).build(),
        opcode::Nop::new().build(),
        opcode::Accept::new(types::Fd(0), std::ptr::null_mut(), std::ptr::null_mut()).build(),
    ];
    for entry in forbidden {
        ring.push(&entry.user_data(SENT));
        ring.flush();
        ring.wait(Duration::ZERO).expect("waits");
        assert_eq!(ring.take_send_errors(), 1, "refused");
    }
    let mut space = [];
    let more = ring.ring.submitter().register_restrictions(&mut space);
    assert!(more.is_err(), "what was settled stays so");
    assert!(ring.ring.submitter().unregister_files().is_err());
}

#[test]
fn what_cannot_be_sent_is_counted() {
    for (mut ring, _waker) in rings() {
        let ours = socket("127.0.0.1");
        let place = ring.add(&ours, 1).expect("a place");
        ring.send(
            place,
            b"to the other family",
            "[::1]:9".parse().expect("an address"),
        );
        ring.send(place, &[0; 5000], ours.local());
        ring.flush();
        ring.wait(Duration::ZERO).expect("waits");
        assert_eq!(ring.take_send_errors(), 2);
    }
}

#[test]
fn there_are_no_more_places_than_the_ring_was_made_for() {
    for (mut ring, _waker) in rings() {
        let all: Vec<UdpSocket> = (0..65).map(|_| socket("127.0.0.1")).collect();
        let (last, fitting) = all.split_last().expect("many");
        let places = fitting.iter().map(|it| ring.add(it, 1).expect("a place"));
        let places: Vec<Place> = places.collect();
        assert!(ring.add(last, 2).is_err());
        ring.take(places[7]);
        let place = ring.add(last, 2).expect("a place that was given up");
        ring.send(place, b"hello", fitting[0].local());
        let (key, received, _) = receive(&mut ring, 1).remove(0);
        assert_eq!((key, received.source), (1, last.local()));
    }
}

/// A socket in the ring, with the numbers it was sent and nobody has seen yet.
struct Walker {
    socket: UdpSocket,
    place: Place,
    due: std::collections::VecDeque<u32>,
}

#[test]
fn whatever_comes_and_goes_every_datagram_reaches_its_own_socket_once_and_in_order() {
    for (mut ring, _waker) in rings() {
        let theirs = socket("127.0.0.1");
        let mut state = 0x9e37_79b9_u32;
        let mut random = |below: u32| {
            state = state.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
            (state >> 8) % below
        };
        let mut walkers: std::collections::BTreeMap<u64, Walker> = Default::default();
        let mut number = 0;
        for key in 0..3000_u64 {
            if walkers.len() < 40 && random(3) == 0 {
                let socket = socket("127.0.0.1");
                let place = ring.add(&socket, key).expect("a place");
                let due = Default::default();
                walkers.insert(key, Walker { socket, place, due });
            }
            let which = random(walkers.len().max(1) as u32) as usize;
            let Some(chosen) = walkers.keys().nth(which).copied() else {
                continue;
            };
            let walker = walkers.get_mut(&chosen).expect("just found");
            let burst = if random(40) == 0 { 90 } else { random(12) };
            for _ in 0..burst.min(150_u32.saturating_sub(walker.due.len() as u32)) {
                let datagram = u32::to_be_bytes(number);
                theirs
                    .send_to(&datagram, walker.socket.local())
                    .expect("sends");
                walker.due.push_back(number);
                number += 1;
            }
            ring.send(walker.place, &u32::to_be_bytes(number), theirs.local());
            if random(4) == 0 {
                ring.wait(Duration::ZERO).expect("waits");
                let mut space = [0; 8];
                for _ in 0..random(400) {
                    let Some((key, received)) = ring.next(&mut space) else {
                        break;
                    };
                    let walker = walkers.get_mut(&key).expect("a socket that is there");
                    assert_eq!(received.source, theirs.local());
                    assert_eq!(
                        walker.due.pop_front().map(u32::to_be_bytes),
                        space[..4].try_into().ok()
                    );
                }
                let mut space = [0; 8];
                while let Ok(answer) = theirs.recv_from(&mut space) {
                    assert_eq!(answer.bytes, 4);
                }
            }
            if random(8) == 0 {
                let mut gone = walkers.remove(&chosen).expect("just found");
                for (_, bytes) in ring.take(gone.place) {
                    assert_eq!(
                        gone.due.pop_front().map(u32::to_be_bytes),
                        bytes[..].try_into().ok()
                    );
                }
                let mut space = [0; 8];
                while gone.socket.recv_from(&mut space).is_ok() {
                    assert_eq!(
                        gone.due.pop_front().map(u32::to_be_bytes),
                        space[..4].try_into().ok()
                    );
                }
                assert!(gone.due.is_empty(), "lost {}", gone.due.len());
            }
        }
        assert_eq!(ring.take_send_errors(), 0);
        assert!(number > 5000, "{number} were sent");
    }
}

#[test]
fn a_request_that_the_kernel_did_not_take_is_made_later() {
    let waker = Waker::new().expect("eventfd");
    let Ok(prepared) = PreparedRing::new(64) else {
        return;
    };
    // Not in use yet, it takes nothing.
    let mut ring = prepared.into_ring(waker.source());
    let (ours, theirs) = (socket("127.0.0.1"), socket("127.0.0.1"));
    ring.add(&ours, 1).expect("a place");
    let filling = opcode::AsyncCancel::new(0).build().user_data(CANCELLED);
    while ring.push(&filling) {}
    ring.stand_again();
    let submitter = ring.ring.submitter();
    submitter.register_enable_rings().expect("enables");
    theirs.send_to(b"heard", ours.local()).expect("sends");
    let (key, _, bytes) = receive(&mut ring, 1).remove(0);
    assert_eq!((key, &bytes[..]), (1, &b"heard"[..]));
    waker.wake();
    while !ring.take_wake() {
        ring.wait(SOON).expect("waits");
    }
}

//! What stands between the network and the `dtls` crate. The crate treats a finished association
//! as if everything that arrives were the peer's, and an unfinished one as if the peer were kind:
//! - after the handshake only protected alerts and data get through: one forged plaintext alert
//!   would end the association, and the crate reassembles handshake fragments by recursion;
//! - the last flight of the passive role is kept and repeated whenever the peer repeats its own,
//!   which the crate never does, so that losing it does not lose the call (RFC 6347 section 4.2.4);
//! - what a handshake may take in is limited, since the crate queues and recurses without bound;
//! - the end of input is silence, never an error, on which the crate would spin.

use std::net::SocketAddr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use async_trait::async_trait;
use rtpbridge_core::sdp::DtlsRole;
use tokio::sync::mpsc;
use tokio::time::Instant;
use webrtc_util::Conn;

use super::association::Outbox;

type UtilResult<T> = Result<T, webrtc_util::Error>;

/// Records that one handshake may bring, repetitions included: a lossy one brings about 100.
const MAX_RECORDS: usize = 512;
/// Bytes likewise.
const MAX_BYTES: usize = 256 << 10;
/// Datagrams of one of our flights that are kept.
const MAX_FLIGHT: usize = 16;
/// How often the last flight may be repeated, and how soon again.
const MAX_REPEATS: u32 = 40;
const REPEAT_INTERVAL: Duration = Duration::from_millis(20);

const RECORD_HEADER_LEN: usize = 13;
const ALERT: u8 = 21;
const HANDSHAKE: u8 = 22;
const APPLICATION_DATA: u8 = 23;

/// The crate's transport: queues instead of a socket, with the rules above.
pub(super) struct Guard {
    role: DtlsRole,
    inbound: tokio::sync::Mutex<Inbound>,
    outbox: Outbox,
    state: Mutex<State>,
}

struct Inbound {
    queue: mpsc::Receiver<Vec<u8>>,
    /// The datagram that began the handshake.
    first: Option<Vec<u8>>,
}

struct State {
    phase: Phase,
    /// Our newest flight.
    flight: Vec<Vec<u8>>,
    /// Something was taken in since we last sent: what we send next is another flight.
    heard: bool,
}

enum Phase {
    Handshaking { records: usize, bytes: usize },
    Established { repeats: u32, last: Option<Instant> },
}

/// What a datagram is made of.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
struct Contents {
    records: usize,
    /// A handshake record of epoch 0.
    plaintext_handshake: bool,
    /// Every record is of a later epoch and is an alert or data.
    protected_only: bool,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Verdict {
    Deliver,
    Drop,
    /// Drop it, and send the last flight again.
    Repeat,
}

impl Guard {
    pub(super) fn new(role: DtlsRole, queue: mpsc::Receiver<Vec<u8>>, outbox: Outbox) -> Self {
        Self {
            role,
            inbound: tokio::sync::Mutex::new(Inbound { queue, first: None }),
            outbox,
            state: Mutex::new(State {
                phase: Phase::Handshaking {
                    records: MAX_RECORDS,
                    bytes: MAX_BYTES,
                },
                flight: Vec::new(),
                heard: false,
            }),
        }
    }

    /// Waits for something that may be a ClientHello, which [`Conn::recv`] then yields first.
    /// Until then nothing needs to exist for this peer.
    pub(super) async fn wait_for_hello(&self) {
        let mut inbound = self.inbound.lock().await;
        while let Some(datagram) = inbound.queue.recv().await {
            if inspect(&datagram).is_some_and(|contents| contents.plaintext_handshake) {
                inbound.first = Some(datagram);
                return;
            }
        }
        std::future::pending().await
    }

    /// The handshake is done: from here on the rules for a finished association hold.
    pub(super) fn on_established(&self) {
        let mut state = self.state();
        state.phase = Phase::Established {
            repeats: MAX_REPEATS,
            last: None,
        };
        if self.role == DtlsRole::Active {
            // The last flight was the peer's.
            state.flight.clear();
        }
    }

    fn judge(&self, datagram: &[u8]) -> Verdict {
        let Some(contents) = inspect(datagram) else {
            return Verdict::Drop;
        };
        let mut state = self.state();
        let verdict = match &mut state.phase {
            Phase::Handshaking { records, bytes } => {
                let left = records.checked_sub(contents.records);
                match (left, bytes.checked_sub(datagram.len())) {
                    (Some(records_left), Some(bytes_left)) => {
                        (*records, *bytes) = (records_left, bytes_left);
                        Verdict::Deliver
                    }
                    _ => Verdict::Drop,
                }
            }
            Phase::Established { .. } if contents.protected_only => Verdict::Deliver,
            Phase::Established { repeats, last } if contents.plaintext_handshake => {
                let now = Instant::now();
                let soon = last.is_some_and(|last| now - last < REPEAT_INTERVAL);
                if soon || *repeats == 0 {
                    Verdict::Drop
                } else {
                    *repeats -= 1;
                    *last = Some(now);
                    Verdict::Repeat
                }
            }
            Phase::Established { .. } => Verdict::Drop,
        };
        if verdict == Verdict::Deliver {
            state.heard = true;
        }
        verdict
    }

    fn repeat_last_flight(&self) {
        for datagram in &self.state().flight {
            self.outbox.transmit(datagram);
        }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[async_trait]
impl Conn for Guard {
    async fn connect(&self, _: SocketAddr) -> UtilResult<()> {
        Ok(())
    }

    async fn recv(&self, buf: &mut [u8]) -> UtilResult<usize> {
        let mut inbound = self.inbound.lock().await;
        loop {
            let datagram = match inbound.first.take() {
                Some(first) => Some(first),
                None => inbound.queue.recv().await,
            };
            let Some(datagram) = datagram else {
                return std::future::pending().await;
            };
            match self.judge(&datagram) {
                Verdict::Deliver => {
                    if let Some(place) = buf.get_mut(..datagram.len()) {
                        place.copy_from_slice(&datagram);
                        return Ok(datagram.len());
                    }
                }
                Verdict::Repeat => self.repeat_last_flight(),
                Verdict::Drop => {}
            }
        }
    }

    async fn recv_from(&self, _: &mut [u8]) -> UtilResult<(usize, SocketAddr)> {
        Err(unused())
    }

    async fn send(&self, buf: &[u8]) -> UtilResult<usize> {
        let mut state = self.state();
        if matches!(state.phase, Phase::Handshaking { .. }) {
            if std::mem::take(&mut state.heard) {
                state.flight.clear();
            }
            if state.flight.len() < MAX_FLIGHT {
                state.flight.push(buf.to_vec());
            }
        }
        drop(state);
        self.outbox.transmit(buf);
        Ok(buf.len())
    }

    async fn send_to(&self, _: &[u8], _: SocketAddr) -> UtilResult<usize> {
        Err(unused())
    }

    fn local_addr(&self) -> UtilResult<SocketAddr> {
        Err(unused())
    }

    fn remote_addr(&self) -> Option<SocketAddr> {
        None
    }

    async fn close(&self) -> UtilResult<()> {
        Ok(())
    }

    fn as_any(&self) -> &(dyn std::any::Any + Send + Sync) {
        self
    }
}

fn unused() -> webrtc_util::Error {
    webrtc_util::Error::Other("there are no addresses here".to_owned())
}

/// Walks over the records of a datagram (RFC 6347 section 4.1); `None` when they do not fill it.
fn inspect(datagram: &[u8]) -> Option<Contents> {
    let mut contents = Contents {
        protected_only: true,
        ..Contents::default()
    };
    let mut rest = datagram;
    while !rest.is_empty() {
        let header = rest.first_chunk::<RECORD_HEADER_LEN>()?;
        let kind = header[0];
        let plaintext = header[3..5] == [0, 0];
        let len = usize::from(u16::from_be_bytes([header[11], header[12]]));
        contents.records += 1;
        contents.plaintext_handshake |= plaintext && kind == HANDSHAKE;
        contents.protected_only &= !plaintext && matches!(kind, ALERT | APPLICATION_DATA);
        rest = rest.get(RECORD_HEADER_LEN + len..)?;
    }
    (contents.records > 0).then_some(contents)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::handshake::{HandshakeOutput, association};

    fn record(kind: u8, epoch: u16, len: u16) -> Vec<u8> {
        let mut record = vec![kind, 0xfe, 0xfd];
        record.extend_from_slice(&epoch.to_be_bytes());
        record.extend_from_slice(&[0; 6]);
        record.extend_from_slice(&len.to_be_bytes());
        record.resize(RECORD_HEADER_LEN + usize::from(len), 0);
        record
    }

    fn guard(role: DtlsRole) -> (Guard, association::Association) {
        let (association, link) = association::pair(std::sync::Arc::new(|| {}));
        (Guard::new(role, link.inbound, link.outbox), association)
    }

    fn sent(association: &mut association::Association) -> Vec<Vec<u8>> {
        std::iter::from_fn(|| association.poll())
            .map(|output| match output {
                HandshakeOutput::Transmit(datagram) => datagram,
                other => panic!("unexpected {other:?}"),
            })
            .collect()
    }

    #[test]
    fn records_are_told_apart_and_must_fill_the_datagram() {
        assert_eq!(inspect(&[]), None);
        assert_eq!(inspect(&record(HANDSHAKE, 0, 5)[..17]), None);
        let mut longer = record(HANDSHAKE, 0, 5);
        longer.push(0);
        assert_eq!(inspect(&longer), None);
        let both = [
            record(HANDSHAKE, 0, 5),
            record(20, 0, 1),
            record(HANDSHAKE, 1, 40),
        ]
        .concat();
        let contents = inspect(&both).expect("well-formed");
        assert_eq!(
            contents,
            Contents {
                records: 3,
                plaintext_handshake: true,
                protected_only: false
            }
        );
    }

    #[test]
    fn after_the_handshake_only_protected_alerts_and_data_get_through() {
        for role in [DtlsRole::Active, DtlsRole::Passive] {
            let (guard, _association) = guard(role);
            guard.on_established();
            let plaintext_alert = record(ALERT, 0, 2);
            let good = record(ALERT, 1, 26);
            assert_eq!(guard.judge(&plaintext_alert), Verdict::Drop);
            assert_eq!(guard.judge(&good), Verdict::Deliver);
            assert_eq!(
                guard.judge(&record(APPLICATION_DATA, 1, 40)),
                Verdict::Deliver
            );
            assert_eq!(
                guard.judge(&[good, plaintext_alert].concat()),
                Verdict::Drop,
                "one plaintext record spoils the datagram"
            );
            for kind in [20, HANDSHAKE, 24, 25, 0, 255] {
                assert_eq!(guard.judge(&record(kind, 1, 40)), Verdict::Drop, "{kind}");
            }
        }
    }

    #[test]
    fn a_handshake_takes_in_a_limited_number_of_records_and_bytes() {
        let (many, _association) = guard(DtlsRole::Passive);
        let tiny = record(HANDSHAKE, 0, 13).repeat(100);
        let taken = (0..100).filter(|_| many.judge(&tiny) == Verdict::Deliver);
        assert_eq!(taken.count(), MAX_RECORDS / 100);

        let (big, _association) = guard(DtlsRole::Passive);
        let large = record(HANDSHAKE, 1, 8000);
        let taken = (0..100).filter(|_| big.judge(&large) == Verdict::Deliver);
        assert_eq!(taken.count(), MAX_BYTES / large.len());
    }

    #[tokio::test(start_paused = true)]
    async fn the_last_flight_is_repeated_for_a_peer_that_repeats_its_own() {
        let (guard, mut association) = guard(DtlsRole::Passive);
        guard.send(b"flight 4").await.expect("queued");
        guard.send(b"flight 4 again").await.expect("queued");
        assert_eq!(guard.judge(&record(HANDSHAKE, 0, 9)), Verdict::Deliver);
        guard.send(b"flight 6, one").await.expect("queued");
        guard.send(b"flight 6, two").await.expect("queued");
        guard.on_established();
        guard.send(b"goodbye").await.expect("queued");
        assert_eq!(sent(&mut association).len(), 5);

        let repeated = [record(HANDSHAKE, 0, 9), record(HANDSHAKE, 1, 40)].concat();
        assert_eq!(guard.judge(&repeated), Verdict::Repeat);
        guard.repeat_last_flight();
        assert_eq!(
            sent(&mut association),
            [b"flight 6, one".to_vec(), b"flight 6, two".to_vec()]
        );
        assert_eq!(guard.judge(&repeated), Verdict::Drop, "too soon");
        let mut repeats = 1;
        for _ in 0..1000 {
            tokio::time::advance(REPEAT_INTERVAL).await;
            repeats += u32::from(guard.judge(&repeated) == Verdict::Repeat);
        }
        assert_eq!(repeats, MAX_REPEATS);
    }

    #[tokio::test(start_paused = true)]
    async fn the_end_of_input_is_silence() {
        let (guard, association) = guard(DtlsRole::Active);
        drop(association);
        let mut buf = [0; 100];
        let received = tokio::time::timeout(Duration::from_secs(3600), guard.recv(&mut buf)).await;
        assert!(received.is_err(), "pending for good");
    }
}

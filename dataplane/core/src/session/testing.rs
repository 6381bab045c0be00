//! What tests of the engine have in common: an outbox that remembers, seeded randomness.

use std::net::SocketAddr;

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::NumberedEvent;
use rtpbridge_shared::ipc::recording::StreamDirection;
use rtpbridge_shared::ipc::session::SessionEndReason;

use super::{Counters, EndedRecording, Outbox, RecordFrame, RecordKind, RecordingKey, SocketKey};
use crate::entropy::Entropy;
use crate::sdp::{DtlsRole, Fingerprint};

/// Remembers everything.
#[derive(Default)]
pub(crate) struct Collector {
    pub(crate) sent: Vec<Sent>,
    pub(crate) events: Vec<(NumberedEvent, bool)>,
    pub(crate) recorded: Vec<Recorded>,
    pub(crate) legs: Vec<(RecordingKey, EndpointId)>,
    pub(crate) ended: Vec<SessionEndReason>,
    pub(crate) ended_recordings: Vec<EndedRecording>,
    /// Handshakes to be started.
    pub(crate) started: Vec<(SocketKey, DtlsRole, Vec<Fingerprint>)>,
    /// Datagrams for handshakes.
    pub(crate) handshakes: Vec<(SocketKey, Vec<u8>)>,
    pub(crate) counters: Counters,
}

pub(crate) struct Sent {
    pub(crate) socket: SocketKey,
    pub(crate) to: SocketAddr,
    pub(crate) bytes: Vec<u8>,
}

pub(crate) struct Recorded {
    pub(crate) recording: RecordingKey,
    pub(crate) endpoint: EndpointId,
    pub(crate) direction: StreamDirection,
    pub(crate) kind: RecordKind,
    pub(crate) bytes: Vec<u8>,
}

impl Outbox for Collector {
    fn transmit(&mut self, socket: SocketKey, to: SocketAddr, datagram: &[u8]) {
        self.sent.push(Sent {
            socket,
            to,
            bytes: datagram.to_vec(),
        });
    }

    fn record(&mut self, recording: RecordingKey, frame: RecordFrame<'_>) {
        self.recorded.push(Recorded {
            recording,
            endpoint: frame.endpoint,
            direction: frame.direction,
            kind: frame.kind,
            bytes: frame.bytes.to_vec(),
        });
    }

    fn record_leg(&mut self, recording: RecordingKey, leg: EndpointId) {
        self.legs.push((recording, leg));
    }

    fn event(&mut self, event: NumberedEvent, held: bool) {
        self.events.push((event, held));
    }

    fn recordings_ended(&mut self, ended: Vec<EndedRecording>) {
        self.ended_recordings.extend(ended);
    }

    fn end(&mut self, reason: SessionEndReason) {
        self.ended.push(reason);
    }

    fn handshake(&mut self, socket: SocketKey, datagram: &[u8]) {
        self.handshakes.push((socket, datagram.to_vec()));
    }

    fn start_handshake(&mut self, socket: SocketKey, role: DtlsRole, peer: Vec<Fingerprint>) {
        self.started.push((socket, role, peer));
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

/// The same bytes for the same seed.
pub(crate) struct Seeded(pub(crate) u64);

impl Seeded {
    /// A number below `bound`.
    pub(crate) fn below(&mut self, bound: u64) -> u64 {
        self.next_u64() % bound
    }
}

impl Entropy for Seeded {
    fn fill(&mut self, bytes: &mut [u8]) {
        for byte in bytes {
            self.0 = self
                .0
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1_442_695_040_888_963_407);
            *byte = (self.0 >> 56) as u8;
        }
    }
}

//! Where a session's output goes: datagrams to their sockets at once, packets of recordings into
//! queues, events into a list that the worker sends on when the session's turn is over.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use rtpbridge_core::session::{
    Channel, Counters, EndedRecording, EndpointKey, Outbox, RecordFrame, RecordingKey, SocketKey,
};
use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::NumberedEvent;
use rtpbridge_shared::ipc::session::SessionEndReason;

use super::budget::Observations;
use super::handshakes::Handshakes;
use super::recordings::Recording;
use super::slab::Slab;
use crate::recorder::queue::Pushed;
use crate::recorder::writer::Recorder;
use crate::sys::clock;
use crate::sys::ring::{Place, Ring};
use crate::sys::udp::UdpSocket;

/// One socket of one endpoint.
pub(super) struct SocketEntry {
    pub(super) socket: UdpSocket,
    /// Where the ring keeps it, if there is a ring.
    pub(super) place: Option<Place>,
    /// Key of the session.
    pub(super) session: u64,
    pub(super) endpoint: EndpointKey,
    pub(super) channel: Channel,
    /// Whether the port belongs to a pair of the pool.
    pub(super) paired: bool,
    /// Where its session last sent something.
    pub(super) last_sent_to: Option<SocketAddr>,
    /// The last turn in which it was readable.
    pub(super) last_turn: u32,
}

/// The sink of all sessions of one worker.
pub(super) struct Output {
    pub(super) sockets: Slab<SocketEntry>,
    /// Receives and sends; without one sockets are asked one by one.
    pub(super) ring: Option<Ring>,
    pub(super) recordings: Slab<Recording>,
    pub(super) counters: Counters,
    pub(super) mixer_lateness: Observations,
    /// Datagrams that the system did not take.
    pub(super) send_errors: u64,
    /// Packets lost to full recording queues.
    pub(super) recording_dropped: u64,
    /// Events of the session whose turn it is.
    pub(super) events: Vec<NumberedEvent>,
    /// Recordings of that session whose legs went by themselves.
    pub(super) ended_recordings: Vec<RecordingKey>,
    /// Set when that session wants to end.
    pub(super) ended: Option<SessionEndReason>,
    /// Monotonic time of the turn.
    pub(super) now_ns: u64,
    pub(super) recorder: Arc<Recorder>,
    pub(super) handshakes: Handshakes,
}

impl Output {
    pub(super) fn new(recorder: Arc<Recorder>, handshakes: Handshakes) -> Self {
        Self {
            sockets: Slab::new(),
            ring: None,
            recordings: Slab::new(),
            counters: Counters::default(),
            mixer_lateness: Observations::default(),
            send_errors: 0,
            recording_dropped: 0,
            events: Vec::new(),
            ended_recordings: Vec::new(),
            ended: None,
            now_ns: 0,
            recorder,
            handshakes,
        }
    }

    /// Whether the session left something for the worker to do.
    pub(super) fn is_idle(&self) -> bool {
        self.events.is_empty() && self.ended_recordings.is_empty() && self.ended.is_none()
    }
}

impl Output {
    /// Drops what a session left that is gone.
    pub(super) fn forget_turn(&mut self) {
        self.events.clear();
        self.ended_recordings.clear();
        self.ended = None;
    }
}

impl Outbox for Output {
    fn transmit(&mut self, socket: SocketKey, to: SocketAddr, datagram: &[u8]) {
        let Some(entry) = self.sockets.get_mut(socket.0) else {
            return;
        };
        entry.last_sent_to = Some(to);
        if let (Some(ring), Some(place)) = (&mut self.ring, entry.place) {
            ring.send(place, datagram, to);
        } else if entry.socket.send_to(datagram, to).is_err() {
            self.send_errors += 1;
        }
    }

    fn record(&mut self, recording: RecordingKey, frame: RecordFrame<'_>) {
        let Some(recording) = self.recordings.get_mut(recording.0) else {
            return;
        };
        // Not the turn's time: the turn may have been held up since it began.
        match recording.tap.push(&frame, clock::monotonic_ns()) {
            Pushed::Queued => {}
            Pushed::QueuedNudge => self.recorder.look(recording.writer),
            Pushed::Full => self.recording_dropped += 1,
        }
    }

    fn record_leg(&mut self, recording: RecordingKey, leg: EndpointId) {
        if let Some(recording) = self.recordings.get_mut(recording.0) {
            recording.tap.add_leg(leg);
        }
    }

    fn event(&mut self, event: NumberedEvent, _held: bool) {
        self.events.push(event);
    }

    fn recordings_ended(&mut self, ended: Vec<EndedRecording>) {
        let keys = ended.iter().map(|ended| ended.key);
        self.ended_recordings.extend(keys);
    }

    fn end(&mut self, reason: SessionEndReason) {
        self.ended = Some(reason);
    }

    fn handshake(&mut self, socket: SocketKey, datagram: &[u8]) {
        self.handshakes.push(socket.0, datagram);
    }

    fn start_handshake(&mut self, socket: SocketKey, role: DtlsRole, peer: Vec<Fingerprint>) {
        self.handshakes.start(socket.0, role, peer);
    }

    fn mixer_lateness(&mut self, late: Duration) {
        let nanos = u64::try_from(late.as_nanos()).unwrap_or(u64::MAX);
        self.mixer_lateness.observe(nanos);
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

//! What leaves the sessions, and what must hold for all of it.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::net::SocketAddr;

use rtpbridge_core::sdp::{DtlsRole, Fingerprint};
use rtpbridge_core::session::{
    Counters, EndedRecording, EndpointSockets, Outbox, PacketBuffer, RecordFrame, RecordingKey,
    SocketKey,
};
use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::NumberedEvent;
use rtpbridge_shared::ipc::session::SessionEndReason;

/// Longest datagram that may leave: the longest that may come, with header and tag.
const MAX_SENT: usize =
    PacketBuffer::HEAD_ROOM + PacketBuffer::MAX_DATAGRAM + PacketBuffer::TAIL_ROOM;
/// Sequence numbers remembered per stream.
const REMEMBERED: usize = 64;

/// Where both sessions put their output.
#[derive(Default)]
pub(super) struct Wire {
    session: usize,
    last_event: [u64; 2],
    is_over: [bool; 2],
    /// Open sockets.
    sockets: BTreeSet<SocketKey>,
    started: BTreeSet<SocketKey>,
    streams: BTreeMap<SocketKey, Stream>,
    /// Recordings that take packets.
    pub(super) recordings: BTreeSet<RecordingKey>,
    /// Recordings whose leg went by itself.
    pub(super) ended: Vec<EndedRecording>,
    counters: Counters,
}

/// One party's one stream.
struct Stream {
    ssrc: [u8; 4],
    sent: VecDeque<u16>,
}

impl Wire {
    /// What comes now is of this session.
    pub(super) fn turn_of(&mut self, session: usize) {
        self.session = session;
    }

    pub(super) fn last_event(&self, session: usize) -> u64 {
        self.last_event[session]
    }

    pub(super) fn open(&mut self, sockets: EndpointSockets) {
        self.sockets.extend(sockets.iter().map(|socket| socket.key));
    }

    pub(super) fn close(&mut self, sockets: EndpointSockets) {
        for socket in sockets.iter() {
            self.sockets.remove(&socket.key);
        }
    }

    fn check_rtp(&mut self, socket: SocketKey, datagram: &[u8]) {
        let Some(header) = datagram.first_chunk::<12>() else {
            return;
        };
        let is_rtcp = (192..=223).contains(&header[1]);
        if header[0] >> 6 != 2 || is_rtcp {
            return;
        }
        let sequence = u16::from_be_bytes([header[2], header[3]]);
        let ssrc = [header[8], header[9], header[10], header[11]];
        let fresh = || Stream {
            ssrc,
            sent: VecDeque::new(),
        };
        let stream = self.streams.entry(socket).or_insert_with(fresh);
        assert_eq!(stream.ssrc, ssrc, "one SSRC for the endpoint's life");
        assert!(
            !stream.sent.contains(&sequence),
            "{sequence} was sent before"
        );
        stream.sent.push_back(sequence);
        if stream.sent.len() > REMEMBERED {
            stream.sent.pop_front();
        }
    }
}

impl Outbox for Wire {
    fn transmit(&mut self, socket: SocketKey, _to: SocketAddr, datagram: &[u8]) {
        assert!(self.sockets.contains(&socket), "sent from a closed socket");
        assert!((1..=MAX_SENT).contains(&datagram.len()));
        self.check_rtp(socket, datagram);
    }

    fn record(&mut self, recording: RecordingKey, frame: RecordFrame<'_>) {
        assert!(
            self.recordings.contains(&recording),
            "recorded after its end"
        );
        assert!(!frame.bytes.is_empty());
    }

    fn record_leg(&mut self, recording: RecordingKey, _leg: EndpointId) {
        assert!(self.recordings.contains(&recording));
    }

    fn event(&mut self, event: NumberedEvent, _held: bool) {
        let last = &mut self.last_event[self.session];
        assert!(event.number > *last, "{} after {last}", event.number);
        *last = event.number;
    }

    fn recordings_ended(&mut self, ended: Vec<EndedRecording>) {
        for one in &ended {
            self.recordings.remove(&one.key);
        }
        self.ended.extend(ended);
    }

    fn end(&mut self, _reason: SessionEndReason) {
        let was_over = std::mem::replace(&mut self.is_over[self.session], true);
        assert!(!was_over, "a session ends once");
    }

    fn handshake(&mut self, socket: SocketKey, datagram: &[u8]) {
        assert!(self.sockets.contains(&socket) && !datagram.is_empty());
    }

    fn start_handshake(&mut self, socket: SocketKey, _role: DtlsRole, peer: Vec<Fingerprint>) {
        assert!(self.sockets.contains(&socket) && !peer.is_empty());
        assert!(self.started.insert(socket), "a handshake starts once");
    }

    fn counters(&mut self) -> &mut Counters {
        &mut self.counters
    }
}

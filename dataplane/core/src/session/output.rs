//! What a session tells the shell.
//!
//! A sink rather than a queue to be polled: a packet is written into the worker's own buffer and must
//! leave before the next one overwrites it, so a queue would mean a copy and an allocation for each.
//! Every method is called from within a session's method and must be cheap; none may call back.

use std::net::SocketAddr;
use std::time::Duration;

use rtpbridge_shared::id::{EndpointId, RecordingId};
use rtpbridge_shared::ipc::NumberedEvent;
use rtpbridge_shared::ipc::recording::StreamDirection;
use rtpbridge_shared::ipc::session::SessionEndReason;

use super::input::{RecordingKey, SocketKey};
use crate::sdp::{DtlsRole, Fingerprint};
use crate::time::WallTime;

/// Where a session's output goes.
pub trait Outbox {
    /// Send this datagram now, or lose it. A full socket buffer is the network's loss.
    fn transmit(&mut self, socket: SocketKey, to: SocketAddr, datagram: &[u8]);

    /// A packet belongs into this recording; copy it or count it as lost.
    fn record(&mut self, recording: RecordingKey, frame: RecordFrame<'_>);

    /// From now on this leg is part of the recording, whether or not it ever sends.
    fn record_leg(&mut self, recording: RecordingKey, leg: EndpointId);

    /// Tell the client. Called only while a client is attached. `held` events are kept by the session
    /// until acknowledged, others are gone when the shell drops them.
    fn event(&mut self, event: NumberedEvent, held: bool);

    /// The leg of these recordings is gone without having been removed by a command: flush and close
    /// them, then tell [`Session::recording_stopped`](super::Session::recording_stopped).
    fn recordings_ended(&mut self, ended: Vec<EndedRecording>);

    /// The session wants to end: the event that says why has been given. The shell calls
    /// [`Session::close`](super::Session::close) afterwards, not from here.
    fn end(&mut self, reason: SessionEndReason);

    /// A DTLS datagram for the handshake of the endpoint with this socket; from a validated address.
    fn handshake(&mut self, socket: SocketKey, datagram: &[u8]);

    /// The peer's description is known: the handshake of the endpoint with this socket may begin, in
    /// this role, and the peer's certificate must match one of the fingerprints.
    fn start_handshake(&mut self, socket: SocketKey, role: DtlsRole, peer: Vec<Fingerprint>);

    /// A tick of the 20 ms grid ran this long after its moment.
    fn mixer_lateness(&mut self, late: Duration) {
        let _ = late;
    }

    /// The worker's counters.
    fn counters(&mut self) -> &mut Counters;
}

/// A packet for a recording.
#[derive(Clone, Copy, Debug)]
pub struct RecordFrame<'a> {
    /// The leg.
    pub endpoint: EndpointId,
    /// From the party or to it.
    pub direction: StreamDirection,
    /// What `bytes` is.
    pub kind: RecordKind,
    /// Arrival, or when it was sent.
    pub at: WallTime,
    /// The decrypted packet from its RTP or RTCP header on.
    pub bytes: &'a [u8],
}

/// What a recorded packet is.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RecordKind {
    /// RTP, and the name negotiated for its payload type.
    Rtp {
        /// `PCMU`, `telephone-event` and so on.
        payload_name: &'static str,
    },
    /// A compound RTCP packet.
    Rtcp,
}

/// Totals of one worker since its start.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct Counters {
    /// RTP and RTCP datagrams received.
    pub packets_received: u64,
    /// RTP packets sent to destinations.
    pub packets_routed: u64,
    /// Refused: came from an address that is not believed.
    pub rejected_source: u64,
    /// Refused: not RTP or RTCP, or lengths that do not fit.
    pub rejected_malformed: u64,
    /// Refused: a payload type that was not negotiated.
    pub rejected_payload_type: u64,
    /// Refused: STUN that is no valid check.
    pub rejected_stun: u64,
    /// SRTP and SRTCP packets that failed authentication, replay or encryption.
    pub srtp_errors: u64,
    /// Frames that failed to decode or encode.
    pub transcode_errors: u64,
    /// Digits detected.
    pub dtmf_events: u64,
    /// Events that no client will see, lost in sessions (not in the shell's queues).
    pub events_dropped: u64,
    /// RTCP packets sent.
    pub rtcp_sent: u64,
    /// Frames of files for which the decoder was late.
    pub file_underruns: u64,
}

/// A recording whose taps the session removed because its leg went.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EndedRecording {
    /// The client's name for it.
    pub recording: RecordingId,
    /// The sink to flush and close.
    pub key: RecordingKey,
}

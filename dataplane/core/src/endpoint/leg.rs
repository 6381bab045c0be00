//! The media half of a network endpoint: what its party's packets mean, and the one stream that it
//! is sent. Where packets come from and go to (addresses, ICE) is the transport's business.
//!
//! `receive` turns a packet into an [`Inbound`] that others can be sent; `send` turns one into a
//! packet of this leg's own stream. Nothing here knows of sessions.

mod event_lane;
mod frames;
mod receive;
mod send;
mod silence;

use std::net::SocketAddr;
use std::time::Duration;

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::recording::StreamDirection;
use rtpbridge_shared::ipc::stats::{InboundStats, OutboundStats};
use rtpbridge_shared::vocab::Codec;

pub(crate) use frames::PacketArea;
pub(crate) use receive::{Content, Heard, Inbound};

use self::event_lane::EventLane;
use self::silence::Silence;
use crate::dtmf::receiver::{EventReceiver, FinishedEvent};
use crate::entropy::Entropy;
use crate::rtcp::control::ReportControl;
use crate::rtp::frame_track::FrameTrack;
use crate::rtp::header::MidExtension;
use crate::rtp::reception::Reception;
use crate::rtp::rewrite::OutgoingStream;
use crate::sdp::{
    AgreedCodec, AgreedSecurity, AgreedTelephoneEvent, Agreement, ExtensionKind, OpusParameters,
};
use crate::session::{Outbox, RecordFrame, RecordKind, Recordings, SocketKey};
use crate::srtp::{MasterKey, Protector, Unprotector};
use crate::time::{Instant, Moment, WallTime};

/// RTP clock of a leg on which no codec was agreed.
const DEFAULT_CLOCK: u32 = 8000;

/// Media state of a network endpoint. All of it moves in a transfer.
pub(crate) struct MediaLeg {
    id: EndpointId,
    formats: Vec<(u8, Format)>,
    /// The one of them that came last: found without going through the list, which lies elsewhere.
    last_format: Option<(u8, Format)>,
    codec: Option<AgreedCodec>,
    event_format: Option<AgreedTelephoneEvent>,
    /// Length of the packets that we encode, ms.
    packet_time_ms: u8,
    /// The longest packet that the party takes, ms.
    maxptime_ms: Option<u16>,
    opus: OpusParameters,
    inbound: InboundState,
    pub(super) stream: OutgoingStream,
    track: FrameTrack,
    pub(super) control: ReportControl,
    events: EventReceiver,
    lane: EventLane,
    pub(super) keys: Option<Box<Keys>>,
    /// Goes with every packet where it was negotiated.
    mid: Option<MidExtension>,
    is_sensitive: bool,
    pub(super) silence: Silence,
    /// The source whose goodbye was reported, by its epoch.
    goodbye_of: Option<u32>,
}

/// What a timer brought.
#[derive(Default, Debug)]
pub(crate) struct TimedOut {
    /// A telephone-event whose end was lost.
    pub(crate) finished: Option<FinishedEvent>,
    /// The party has been silent for this long, to be reported.
    pub(crate) silent_for: Option<Duration>,
}

/// SRTP of a leg.
pub(crate) struct Keys {
    /// For what we send.
    pub(crate) protector: Protector,
    /// For what we receive.
    pub(crate) unprotector: Unprotector,
}

/// Where a leg's packets leave and go.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct Path {
    /// Out of which socket.
    pub(crate) socket: SocketKey,
    /// Where to.
    pub(crate) to: SocketAddr,
}

/// Where a leg's effects go.
pub(crate) struct Sinks<'a> {
    pub(crate) recordings: &'a mut Recordings,
    pub(crate) out: &'a mut dyn Outbox,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Format {
    Audio(Codec),
    Event { clock_rate: u32 },
}

#[derive(Default)]
struct InboundState {
    reception: Option<Reception>,
    /// Counts the lives of the source.
    epoch: u32,
    /// The SSRC before this one; stragglers of it are refused while the present one sends.
    previous_ssrc: Option<u32>,
    packets: u64,
    bytes: u64,
    last_at: Option<Instant>,
    codec: Option<Codec>,
    /// When the source last changed its codec.
    codec_changed_at: Option<Instant>,
    /// The longest packet that somebody could not be sent as it is, ms.
    longest_ms: u16,
}

impl Keys {
    /// Keys of both directions.
    pub(crate) fn new(send: &MasterKey, receive: &MasterKey) -> Self {
        Self {
            protector: Protector::new(send),
            unprotector: Unprotector::new(receive),
        }
    }
}

impl MediaLeg {
    pub(crate) fn new(id: EndpointId, media_timeout: Duration, entropy: &mut dyn Entropy) -> Self {
        Self {
            id,
            formats: Vec::new(),
            last_format: None,
            codec: None,
            event_format: None,
            packet_time_ms: 20,
            maxptime_ms: None,
            opus: OpusParameters::default(),
            inbound: InboundState::default(),
            stream: OutgoingStream::new(entropy, DEFAULT_CLOCK),
            track: FrameTrack::default(),
            control: ReportControl::new(entropy),
            events: EventReceiver::default(),
            lane: EventLane::default(),
            keys: None,
            mid: None,
            is_sensitive: false,
            silence: Silence::new(media_timeout),
            goodbye_of: None,
        }
    }

    /// What was agreed on holds from now on.
    pub(crate) fn agree(&mut self, agreement: &Agreement, entropy: &mut dyn Entropy, now: Instant) {
        let audio = agreement.codecs.iter().map(|agreed| {
            let format = Format::Audio(agreed.codec);
            (agreed.receive_payload_type, format)
        });
        let events = agreement.telephone_events.iter().map(|agreed| {
            let clock_rate = agreed.clock_rate;
            (agreed.receive_payload_type, Format::Event { clock_rate })
        });
        self.formats = audio.chain(events).collect();
        self.last_format = None;
        self.codec = agreement.sending_codec();
        let clock_rate = self
            .codec
            .map_or(DEFAULT_CLOCK, |agreed| agreed.codec.clock_rate());
        self.stream.set_clock_rate(clock_rate, now);
        self.event_format = agreement.telephone_event_for(clock_rate);
        self.mid = mid_extension(agreement);
        self.packet_time_ms = u8::try_from(agreement.packet_time_ms).unwrap_or(u8::MAX);
        self.opus = agreement.opus;
        self.maxptime_ms = agreement.maxptime_ms;
        self.track.interrupt();
        self.control.start(entropy, now);
    }

    /// The codec that the party is sent.
    pub(crate) fn sending_codec(&self) -> Option<Codec> {
        self.codec.map(|agreed| agreed.codec)
    }

    /// The codec that the party sends: as heard, or as expected before anything was.
    pub(crate) fn incoming_codec(&self) -> Option<Codec> {
        self.inbound.codec.or(self.sending_codec())
    }

    /// Whether digits can be sent to the party.
    pub(crate) fn takes_events(&self) -> bool {
        self.event_format.is_some()
    }

    /// Whether the party's digits stay out of recordings and logs.
    pub(crate) fn is_sensitive(&self) -> bool {
        self.is_sensitive
    }

    /// See [`is_sensitive`](Self::is_sensitive).
    pub(crate) fn set_sensitive(&mut self, enabled: bool) {
        self.is_sensitive = enabled;
    }

    /// Sending is interrupted: what comes next follows the last packet sent.
    pub(crate) fn on_interruption(&mut self) {
        self.stream.rebase();
        self.track.interrupt();
    }

    /// The leg is in another session, where the same keys name other sources.
    pub(crate) fn on_moved(&mut self) {
        self.stream.forget_source();
        self.track.interrupt();
        self.lane.forget_sources();
    }

    /// A further description of the party: its next SSRC may be any.
    pub(crate) fn relearn_source(&mut self) {
        self.inbound.previous_ssrc = None;
    }

    pub(crate) fn inbound_stats(&self, now: Instant) -> InboundStats {
        let inbound = &self.inbound;
        let reception = inbound.reception.as_ref();
        InboundStats {
            packets: inbound.packets,
            bytes: inbound.bytes,
            packets_lost: reception.map_or(0, Reception::lost),
            jitter_ms: reception.map_or(0.0, Reception::jitter_ms),
            last_received_ms_ago: inbound.last_at.map_or(0, |at| {
                u64::try_from((now - at).as_millis()).unwrap_or(u64::MAX)
            }),
        }
    }

    pub(crate) fn outbound_stats(&self) -> OutboundStats {
        let (packets, bytes) = self.stream.sent();
        OutboundStats { packets, bytes }
    }

    pub(crate) fn next_timeout(&self) -> Option<Instant> {
        let keys = self.keys.as_ref();
        [
            self.control.next_timeout(),
            self.events.next_timeout(),
            self.lane.next_timeout(),
            keys.and_then(|keys| keys.unprotector.next_timeout()),
            self.silence.next_timeout(self.inbound.last_at),
        ]
        .into_iter()
        .flatten()
        .min()
    }

    /// Does what is due.
    pub(crate) fn handle_timeout(
        &mut self,
        entropy: &mut dyn Entropy,
        now: Moment,
        media: Option<Path>,
        control: Option<Path>,
        sinks: &mut Sinks<'_>,
    ) -> TimedOut {
        if let Some(keys) = &mut self.keys {
            keys.unprotector.handle_timeout(now.at);
        }
        self.send_due_event(now, media, sinks);
        let reception = self.inbound.reception.as_mut();
        if let Some(report) = self.control.poll(entropy, &self.stream, reception, now) {
            self.send_report(report, now, control, sinks);
        }
        TimedOut {
            finished: self.events.handle_timeout(now.at),
            silent_for: self.silence.handle_timeout(self.inbound.last_at, now.at),
        }
    }

    fn tap(
        &self,
        direction: StreamDirection,
        kind: RecordKind,
        at: WallTime,
        bytes: &[u8],
        sinks: &mut Sinks<'_>,
    ) {
        let frame = RecordFrame {
            endpoint: self.id,
            direction,
            kind,
            at,
            bytes,
        };
        sinks.recordings.tap(frame, sinks.out);
    }
}

fn mid_extension(agreement: &Agreement) -> Option<MidExtension> {
    let AgreedSecurity::Dtls {
        extensions, mid, ..
    } = &agreement.security
    else {
        return None;
    };
    let is_mid = |extension: &&crate::sdp::Extension| extension.kind == ExtensionKind::Mid;
    let extension = extensions.iter().find(is_mid)?;
    MidExtension::new(extension.id, mid.as_deref()?)
}

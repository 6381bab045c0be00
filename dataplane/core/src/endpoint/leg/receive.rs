//! Packets from the party: decrypting, reading, counting.

use std::ops::Range;
use std::time::Duration;

use rtpbridge_shared::ipc::recording::StreamDirection;
use rtpbridge_shared::vocab::Codec;

use super::{Format, InboundState, MediaLeg, Sinks};
use crate::dtmf::payload::EventPayload;
use crate::dtmf::receiver::FinishedEvent;
use crate::rtcp::control::PeerCompound;
use crate::rtp::header::RtpHeader;
use crate::rtp::reception::Reception;
use crate::rtp::seq::Placement;
use crate::session::{Counters, PacketBuffer, RecordKind};
use crate::srtp::SrtpError;
use crate::time::{Instant, Moment};

/// While the present SSRC was heard within this time, stragglers of the one before are refused.
const STRAGGLERS: Duration = Duration::from_millis(500);
/// A source that changed its codec is held to it for this long: every change costs a new plan.
const CODEC_HOLD: Duration = Duration::from_millis(100);

/// A packet of the party that is to be passed on.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Inbound {
    /// Which of the source's lives it belongs to.
    pub(crate) epoch: u32,
    /// Extended sequence number.
    pub(crate) sequence: u64,
    /// Timestamp.
    pub(crate) timestamp: u32,
    /// Marker bit.
    pub(crate) marker: bool,
    /// Where the payload lies in the datagram.
    pub(crate) payload: Range<usize>,
    /// What the payload is.
    pub(crate) content: Content,
    /// Must not appear in recordings.
    pub(crate) is_sensitive: bool,
}

/// What a datagram meant.
#[derive(Default, Debug)]
pub(crate) struct Heard {
    /// To be passed on.
    pub(crate) inbound: Option<Inbound>,
    /// Telephone-events that it ended.
    pub(crate) finished: [Option<FinishedEvent>; 2],
    /// A BYE to be reported: who, and why.
    pub(crate) goodbye: Option<(Vec<u32>, Option<String>)>,
    /// It came from the party.
    pub(crate) is_activity: bool,
    /// It is for the handshake.
    pub(crate) is_handshake: bool,
}

/// What a packet carries.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Content {
    /// Audio in this codec.
    Audio(Codec),
    /// A telephone-event.
    Event {
        /// Its payload.
        payload: EventPayload,
        /// Clock of its duration, Hz.
        clock_rate: u32,
        /// Timestamp of the event's first segment.
        start: u32,
    },
    /// Nothing that was agreed on, or in another codec than the source is held to: not passed on, and
    /// no loss either.
    Unknown,
}

/// Why a packet is not passed on.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Refusal {
    /// Counted as a broken packet.
    Malformed,
    /// Counted as an SRTP error.
    Srtp,
    /// A straggler of the previous source, or the first packet after a jump (RFC 3550 A.1).
    OutOfPlace,
}

impl Refusal {
    /// Counts it; nothing was heard.
    pub(crate) fn count(self, counters: &mut Counters) -> Heard {
        match self {
            Refusal::Malformed => counters.rejected_malformed += 1,
            Refusal::Srtp => counters.srtp_errors += 1,
            Refusal::OutOfPlace => {}
        }
        Heard::default()
    }
}

impl MediaLeg {
    /// Decrypts where that is agreed, and reads the header.
    pub(crate) fn open(
        &mut self,
        buffer: &mut PacketBuffer,
        now: Instant,
    ) -> Result<RtpHeader, Refusal> {
        if let Some(keys) = &mut self.keys {
            let opened = keys.unprotector.unprotect_rtp(now, buffer.datagram_mut());
            buffer.truncate(opened.map_err(refusal_of)?);
        }
        RtpHeader::parse(buffer.datagram()).map_err(|_| Refusal::Malformed)
    }

    /// Whether this payload type was agreed on.
    pub(crate) fn knows(&self, payload_type: u8) -> bool {
        self.format(payload_type).is_some()
    }

    /// Whether the packet is the next or a later one of the source being received.
    pub(crate) fn continues(&self, header: &RtpHeader) -> bool {
        self.inbound.reception.as_ref().is_some_and(|reception| {
            reception.ssrc() == header.ssrc && reception.sequence().continues(header.sequence)
        })
    }

    /// Counts a packet of the party and says what it is. Digits that it ended come along.
    pub(crate) fn receive(
        &mut self,
        header: RtpHeader,
        buffer: &PacketBuffer,
        arrival: Moment,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        match self.place_and_read(header, buffer, arrival, sinks) {
            Ok((inbound, finished)) => {
                self.silence.on_packet();
                Heard {
                    inbound: Some(inbound),
                    finished,
                    is_activity: true,
                    ..Heard::default()
                }
            }
            Err(refusal) => refusal.count(sinks.out.counters()),
        }
    }

    /// Reads a compound RTCP packet of the party. Its goodbye is told once for each of the source's
    /// lives, however often it is repeated.
    pub(crate) fn receive_control(
        &mut self,
        buffer: &mut PacketBuffer,
        arrival: Moment,
        sinks: &mut Sinks<'_>,
    ) -> Heard {
        let read = match self.open_control(buffer, arrival.at) {
            Ok(read) => read,
            Err(refusal) => return refusal.count(sinks.out.counters()),
        };
        if !sinks.recordings.is_empty() {
            let inbound = StreamDirection::Inbound;
            let bytes = buffer.datagram();
            self.tap(inbound, RecordKind::Rtcp, arrival.wall, bytes, sinks);
        }
        let epoch = self.inbound.epoch;
        let is_news = self.goodbye_of != Some(epoch);
        let goodbye = read.goodbye.filter(|_| is_news);
        if goodbye.is_some() {
            self.goodbye_of = Some(epoch);
        }
        Heard {
            goodbye,
            is_activity: true,
            ..Heard::default()
        }
    }

    fn place_and_read(
        &mut self,
        header: RtpHeader,
        buffer: &PacketBuffer,
        arrival: Moment,
        sinks: &mut Sinks<'_>,
    ) -> Result<(Inbound, [Option<FinishedEvent>; 2]), Refusal> {
        let format = self.format(header.payload_type);
        self.last_format = format.map(|format| (header.payload_type, format));
        let body = buffer.datagram().get(header.payload.clone());
        let body = body.ok_or(Refusal::Malformed)?;
        let event = match format {
            Some(Format::Event { .. }) => {
                Some(EventPayload::parse(body).ok_or(Refusal::Malformed)?)
            }
            _ => None,
        };
        let (sequence, interrupted) = self.place(&header, arrival.at)?;
        let mut finished = [interrupted, None];
        let content = match (format, event) {
            (Some(Format::Audio(codec)), _) => {
                if let Some(reception) = &mut self.inbound.reception {
                    reception.on_timestamp(header.timestamp, codec.clock_rate(), arrival.at);
                }
                Content::Audio(codec)
            }
            (Some(Format::Event { clock_rate }), Some(payload)) => {
                let ended =
                    self.events
                        .on_packet(header.timestamp, clock_rate, payload, arrival.at);
                let [first, second] = ended;
                finished = [interrupted.or(first), second.or(interrupted.and(first))];
                Content::Event {
                    payload,
                    clock_rate,
                    start: self.events.event_start(header.timestamp),
                }
            }
            _ => Content::Unknown,
        };
        self.inbound.last_at = Some(arrival.at);
        let mut inbound = Inbound {
            epoch: self.inbound.epoch,
            sequence,
            timestamp: header.timestamp,
            marker: header.marker,
            payload: header.payload,
            content,
            is_sensitive: self.is_sensitive && event.is_some(),
        };
        if content != Content::Unknown {
            self.inbound.packets += 1;
            self.inbound.bytes += inbound.payload.len() as u64;
            self.tap_inbound(&inbound, buffer, arrival, sinks);
        }
        if let Content::Audio(codec) = content
            && !self.inbound.follow_codec(codec, arrival.at)
        {
            inbound.content = Content::Unknown;
        }
        Ok((inbound, finished))
    }

    fn open_control(
        &mut self,
        buffer: &mut PacketBuffer,
        now: Instant,
    ) -> Result<PeerCompound, Refusal> {
        if let Some(keys) = &mut self.keys {
            let opened = keys.unprotector.unprotect_rtcp(now, buffer.datagram_mut());
            buffer.truncate(opened.map_err(refusal_of)?);
        }
        let read = self
            .control
            .on_compound(buffer.datagram(), &self.stream, now);
        match read.is_malformed {
            true => Err(Refusal::Malformed),
            false => Ok(read),
        }
    }

    fn format(&self, payload_type: u8) -> Option<Format> {
        let mut known = self.last_format.iter().chain(&self.formats);
        let found = known.find(|(known, _)| *known == payload_type);
        found.map(|(_, format)| *format)
    }

    /// Another SSRC begins another epoch; gives the event that it cut off.
    fn follow_source(
        &mut self,
        ssrc: u32,
        sequence: u16,
        now: Instant,
    ) -> Result<Option<FinishedEvent>, Refusal> {
        let inbound = &mut self.inbound;
        let present = inbound.reception.as_ref().map(Reception::ssrc);
        if present == Some(ssrc) {
            return Ok(None);
        }
        let is_present_alive = inbound
            .last_at
            .is_some_and(|last_at| now - last_at < STRAGGLERS);
        if inbound.previous_ssrc == Some(ssrc) && is_present_alive {
            return Err(Refusal::OutOfPlace);
        }
        inbound.previous_ssrc = present;
        inbound.reception = Some(Reception::new(ssrc, sequence));
        inbound.epoch = inbound.epoch.wrapping_add(1);
        inbound.packets = 0;
        inbound.bytes = 0;
        Ok(self.events.on_new_source(now))
    }

    /// The packet's extended sequence number, and the event that a new life of the source cut off.
    fn place(
        &mut self,
        header: &RtpHeader,
        now: Instant,
    ) -> Result<(u64, Option<FinishedEvent>), Refusal> {
        let interrupted = self.follow_source(header.ssrc, header.sequence, now)?;
        let inbound = &mut self.inbound;
        let reception = inbound.reception.as_mut().ok_or(Refusal::OutOfPlace)?;
        match reception.on_packet(header.sequence) {
            Placement::Newest(sequence) | Placement::Late(sequence) => Ok((sequence, interrupted)),
            Placement::Restart(sequence) => {
                inbound.epoch = inbound.epoch.wrapping_add(1);
                inbound.packets = 0;
                inbound.bytes = 0;
                Ok((sequence, self.events.on_restart(header.timestamp, now)))
            }
            Placement::Unproven => Err(Refusal::OutOfPlace),
        }
    }

    fn tap_inbound(
        &self,
        inbound: &Inbound,
        buffer: &PacketBuffer,
        arrival: Moment,
        sinks: &mut Sinks<'_>,
    ) {
        if sinks.recordings.is_empty() || inbound.is_sensitive {
            return;
        }
        let payload_name = match inbound.content {
            Content::Audio(codec) => codec.as_str(),
            Content::Event { .. } => super::send::EVENT_NAME,
            Content::Unknown => return,
        };
        let direction = StreamDirection::Inbound;
        let kind = RecordKind::Rtp { payload_name };
        self.tap(direction, kind, arrival.wall, buffer.datagram(), sinks);
    }
}

impl InboundState {
    /// Whether the source counts as sending this codec now.
    fn follow_codec(&mut self, codec: Codec, now: Instant) -> bool {
        if self.codec == Some(codec) {
            return true;
        }
        let changed_at = self.codec_changed_at;
        if changed_at.is_some_and(|changed| now - changed < CODEC_HOLD) {
            return false;
        }
        if self.codec.replace(codec).is_some() {
            self.codec_changed_at = Some(now);
        }
        true
    }
}

fn refusal_of(error: SrtpError) -> Refusal {
    match error {
        SrtpError::Malformed => Refusal::Malformed,
        _ => Refusal::Srtp,
    }
}

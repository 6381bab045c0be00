//! Packets to the party, in its one continuous stream.

use rtpbridge_shared::ipc::recording::StreamDirection;
use rtpbridge_shared::vocab::Codec;

use super::event_lane::{EventKey, Passage, rescale};
use super::{Content, Inbound, MediaLeg, Path, Sinks};
use crate::dtmf::payload::{EVENT_LEN, EventPayload};
use crate::dtmf::receiver::FinishedEvent;
use crate::dtmf::sender::{EventClocks, QueuedDigit};
use crate::rtcp::write::ReportWriter;
use crate::rtp::header::{HeaderBytes, MAX_OWN_HEADER_LEN, OwnHeader};
use crate::rtp::rewrite::{Placed, SourceEpoch, SourcePosition};
use crate::sdp::AgreedTelephoneEvent;
use crate::session::{Handling, PacketBuffer, RecordKind};
use crate::srtp::suite::{MAX_RTCP_OVERHEAD, MAX_RTP_OVERHEAD};
use crate::time::Moment;

/// What recordings call the payload type of digits.
pub(super) const EVENT_NAME: &str = "telephone-event";

const MAX_EVENT_PACKET_LEN: usize = MAX_OWN_HEADER_LEN + EVENT_LEN;

impl MediaLeg {
    /// Sends audio of the one source this leg hears on to the party. Without a path, or while a digit
    /// is being sent, it is withheld.
    pub(crate) fn forward_audio(
        &mut self,
        source: u32,
        inbound: &Inbound,
        buffer: &mut PacketBuffer,
        now: Moment,
        path: Option<Path>,
        sinks: &mut Sinks<'_>,
    ) {
        let (Some(path), Some(codec)) = (path, self.codec) else {
            return self.stream.rebase();
        };
        if self.lane.sender.is_active() {
            return self.stream.rebase();
        }
        let position = position_of(source, inbound, false);
        let Some(placed) = self.stream.forward(position, now.at) else {
            return;
        };
        let header = self.header(placed, codec.send_payload_type);
        let payload = inbound.payload.clone();
        self.stream.on_sent(payload.len());
        self.tap_audio(codec.codec, &header, payload.clone(), buffer, now, sinks);
        match &mut self.keys {
            None => {
                let packet = buffer.compose(&header, payload);
                sinks.out.transmit(path.socket, path.to, packet);
            }
            Some(keys) => {
                let (len, area) = buffer.compose_copy(&header, payload);
                let protected = keys.protector.protect_rtp(area, len);
                let Some(packet) = protected.ok().and_then(|len| area.get(..len)) else {
                    sinks.out.counters().srtp_errors += 1;
                    return;
                };
                sinks.out.transmit(path.socket, path.to, packet);
            }
        }
        sinks.out.counters().packets_routed += 1;
    }

    /// A packet that nobody is sent takes its number with it.
    pub(crate) fn withhold(&mut self, source: u32, inbound: &Inbound) {
        let from = SourceEpoch {
            source,
            epoch: inbound.epoch,
        };
        self.stream.withhold(from, inbound.sequence);
    }

    /// Sends a telephone-event packet of a source on to the party.
    pub(crate) fn forward_event(
        &mut self,
        source: u32,
        inbound: &Inbound,
        handling: Handling,
        now: Moment,
        path: Option<Path>,
        sinks: &mut Sinks<'_>,
    ) {
        let Content::Event {
            payload,
            clock_rate,
            start,
        } = inbound.content
        else {
            return;
        };
        let Some(format) = self.event_format else {
            return self.withhold(source, inbound);
        };
        let Some(path) = path else {
            return self.stream.rebase();
        };
        let position = position_of(source, inbound, true);
        let key = EventKey { source, start };
        let passage = self.lane.admit(key, now.at);
        if passage == Passage::Waits {
            return self.withhold(source, inbound);
        }
        let Some(mut placed) = self.place_event(position, handling, passage, now) else {
            return;
        };
        let begin = match passage {
            Passage::GoesOn(begin) => begin,
            Passage::Begins | Passage::Waits => placed.timestamp,
        };
        self.lane.on_passed(key, begin, payload.end, now.at);
        let since_start = inbound.timestamp.wrapping_sub(start);
        let (payload, segment) = rescale(payload, since_start, clock_rate, format.clock_rate);
        placed.timestamp = begin.wrapping_add(self.stream_ticks(segment, format));
        self.send_event(
            placed,
            format,
            payload,
            inbound.is_sensitive,
            now,
            path,
            sinks,
        );
    }

    /// An event of a source is over. If it had to wait here, it is sent now as a digit; true when
    /// there is something to send.
    pub(crate) fn on_event_finished(
        &mut self,
        source: u32,
        finished: &FinishedEvent,
        is_sensitive: bool,
    ) -> bool {
        let start = finished.timestamp;
        let Some(digit) = finished.digit else {
            return false;
        };
        if !self.lane.take_waiting(EventKey { source, start }) {
            return false;
        }
        let duration_ms = finished.duration_ms.clamp(20, 10_000) as u32;
        self.queue_digit(QueuedDigit {
            digit,
            duration_ms,
            volume: finished.volume,
            is_sensitive,
        })
        .is_ok()
    }

    /// Queues a digit for the party.
    pub(crate) fn queue_digit(&mut self, digit: QueuedDigit) -> Result<(), QueuedDigit> {
        self.lane.sender.enqueue(digit)
    }

    /// Sends the packet of our own digit that is due, if one is.
    pub(super) fn send_due_event(
        &mut self,
        now: Moment,
        path: Option<Path>,
        sinks: &mut Sinks<'_>,
    ) {
        let Some(format) = self.event_format else {
            return self.lane.sender.clear();
        };
        if self.lane.is_passing(now.at) {
            return;
        }
        let timestamp = self.stream.timestamp_at(now.at);
        let clocks = EventClocks {
            stream: self.stream.clock_rate(),
            event: format.clock_rate,
        };
        let Some(packet) = self.lane.sender.poll(now.at, timestamp, clocks) else {
            return;
        };
        // A party that cannot be sent anything misses the digit; the queue runs on.
        let Some(path) = path else { return };
        let placed = self
            .stream
            .append(packet.timestamp, packet.marker, true, now.at);
        let (payload, is_sensitive) = (packet.payload, packet.is_sensitive);
        self.send_event(placed, format, payload, is_sensitive, now, path, sinks);
    }

    /// Sends an RTCP compound.
    pub(super) fn send_report(
        &mut self,
        report: ReportWriter,
        now: Moment,
        path: Option<Path>,
        sinks: &mut Sinks<'_>,
    ) {
        let Some(path) = path else { return };
        if !sinks.recordings.is_empty() {
            let outbound = StreamDirection::Outbound;
            self.tap(outbound, RecordKind::Rtcp, now.wall, report.bytes(), sinks);
        }
        let (mut area, mut len) = report.into_parts();
        if let Some(keys) = &mut self.keys {
            debug_assert!(len + MAX_RTCP_OVERHEAD <= area.len());
            match keys.protector.protect_rtcp(&mut area, len) {
                Ok(protected) => len = protected,
                Err(_) => {
                    sinks.out.counters().srtp_errors += 1;
                    return;
                }
            }
        }
        if let Some(packet) = area.get(..len) {
            sinks.out.transmit(path.socket, path.to, packet);
            sinks.out.counters().rtcp_sent += 1;
        }
    }

    /// Says goodbye.
    pub(crate) fn send_goodbye(
        &mut self,
        now: Moment,
        control: Option<Path>,
        sinks: &mut Sinks<'_>,
    ) {
        let reception = self.inbound.reception.as_mut();
        let farewell = self.control.farewell(&self.stream, reception, now);
        self.send_report(farewell, now, control, sinks);
    }

    fn place_event(
        &mut self,
        position: SourcePosition,
        handling: Handling,
        passage: Passage,
        now: Moment,
    ) -> Option<Placed> {
        match handling {
            Handling::Forward => self.stream.forward(position, now.at),
            Handling::Transcode | Handling::Mix | Handling::EventsOnly => {
                let begins = passage == Passage::Begins;
                let timestamp = match passage {
                    Passage::GoesOn(begin) => begin,
                    Passage::Begins | Passage::Waits => self.stream.timestamp_at(now.at),
                };
                Some(self.stream.append(timestamp, begins, true, now.at))
            }
        }
    }

    #[expect(clippy::too_many_arguments, reason = "one packet's whole description")]
    fn send_event(
        &mut self,
        placed: Placed,
        format: AgreedTelephoneEvent,
        payload: EventPayload,
        is_sensitive: bool,
        now: Moment,
        path: Path,
        sinks: &mut Sinks<'_>,
    ) {
        let mut area = [0; MAX_EVENT_PACKET_LEN + MAX_RTP_OVERHEAD];
        let header = self.header(placed, format.send_payload_type);
        let len = header.len() + EVENT_LEN;
        area[..header.len()].copy_from_slice(&header);
        area[header.len()..len].copy_from_slice(&payload.write());
        self.stream.on_sent(EVENT_LEN);
        if !sinks.recordings.is_empty() && !is_sensitive {
            let kind = RecordKind::Rtp {
                payload_name: EVENT_NAME,
            };
            let outbound = StreamDirection::Outbound;
            self.tap(outbound, kind, now.wall, &area[..len], sinks);
        }
        self.send_packet(&mut area, len, path, sinks);
    }

    /// Encrypts the RTP packet in the first `len` bytes of `area` if the leg has keys, and sends it.
    pub(super) fn send_packet(
        &mut self,
        area: &mut [u8],
        mut len: usize,
        path: Path,
        sinks: &mut Sinks<'_>,
    ) {
        if let Some(keys) = &mut self.keys {
            match keys.protector.protect_rtp(area, len) {
                Ok(protected) => len = protected,
                Err(_) => {
                    sinks.out.counters().srtp_errors += 1;
                    return;
                }
            }
        }
        if let Some(packet) = area.get(..len) {
            sinks.out.transmit(path.socket, path.to, packet);
            sinks.out.counters().packets_routed += 1;
        }
    }

    fn tap_audio(
        &self,
        codec: Codec,
        header: &HeaderBytes,
        payload: std::ops::Range<usize>,
        buffer: &mut PacketBuffer,
        now: Moment,
        sinks: &mut Sinks<'_>,
    ) {
        if sinks.recordings.is_empty() {
            return;
        }
        let kind = RecordKind::Rtp {
            payload_name: codec.as_str(),
        };
        let packet = buffer.compose(header, payload);
        self.tap(StreamDirection::Outbound, kind, now.wall, packet, sinks);
    }

    pub(super) fn header(&self, placed: Placed, payload_type: u8) -> HeaderBytes {
        OwnHeader {
            marker: placed.marker,
            payload_type,
            sequence: placed.sequence,
            timestamp: placed.timestamp,
            ssrc: self.stream.ssrc(),
        }
        .write_with(self.mid.as_ref())
    }

    /// Event ticks as ticks of the stream.
    fn stream_ticks(&self, event_ticks: u64, format: AgreedTelephoneEvent) -> u32 {
        let stream = u64::from(self.stream.clock_rate());
        (event_ticks * stream / u64::from(format.clock_rate.max(1))) as u32
    }
}

fn position_of(source: u32, inbound: &Inbound, is_event: bool) -> SourcePosition {
    SourcePosition {
        from: SourceEpoch {
            source,
            epoch: inbound.epoch,
        },
        sequence: inbound.sequence,
        timestamp: inbound.timestamp,
        marker: inbound.marker,
        is_event,
    }
}

//! Frames that were encoded for the party, as packets of its stream.

use rtpbridge_shared::ipc::recording::StreamDirection;

use super::{Inbound, MediaLeg, Path, Sinks};
use crate::codec::Codec;
use crate::codec::opus::OpusSettings;
use crate::rtp::frame_track::FrameMaker;
use crate::session::{EngineConfig, PacketBuffer, RecordKind};
use crate::srtp::suite::MAX_RTP_OVERHEAD;
use crate::time::Moment;
use crate::transcode::{EncodedFrame, TargetFormat, packet_clock_ticks};

/// Where packets of our own are put together; one for all legs of a session.
pub(crate) struct PacketArea(Box<[u8; PacketArea::SIZE]>);

impl PacketArea {
    /// A datagram on any path that carries calls.
    const SIZE: usize = 2048;

    pub(crate) fn new() -> Self {
        Self(Box::new([0; Self::SIZE]))
    }

    /// Puts header and payload together; None when they do not fit with an SRTP trailer behind.
    pub(crate) fn compose(&mut self, header: &[u8], payload: &[u8]) -> Option<usize> {
        let len = header.len() + payload.len();
        if len + MAX_RTP_OVERHEAD > Self::SIZE {
            return None;
        }
        let (head, rest) = self.0.split_at_mut(header.len());
        head.copy_from_slice(header);
        rest[..payload.len()].copy_from_slice(payload);
        Some(len)
    }

    /// The first `len` bytes.
    pub(crate) fn packet(&self, len: usize) -> &[u8] {
        &self.0[..len.min(Self::SIZE)]
    }
}

impl MediaLeg {
    /// What the party is to be sent when we encode for it.
    pub(crate) fn target_format(&self, config: &EngineConfig) -> Option<TargetFormat> {
        let codec = self.sending_codec()?;
        let asked = &self.opus;
        let highest = asked.max_average_bitrate.unwrap_or(u32::MAX);
        let settings = OpusSettings {
            bitrate: config.opus_bitrate.min(highest),
            complexity: config.opus_complexity,
            inband_fec: asked.use_inband_fec,
            dtx: asked.use_dtx,
        };
        Some(TargetFormat::new(codec, self.packet_time_ms, settings))
    }

    /// The longest packet that the party takes, ms.
    pub(crate) fn maxptime_ms(&self) -> Option<u16> {
        self.maxptime_ms
    }

    /// How long a packet is, ms, if that is longer than the party takes. One branch where it takes
    /// any.
    #[inline]
    pub(crate) fn too_long_ms(
        &self,
        codec: Codec,
        inbound: &Inbound,
        buffer: &PacketBuffer,
    ) -> Option<u16> {
        let longest = self.maxptime_ms?;
        let payload = buffer.datagram().get(inbound.payload.clone())?;
        let ticks = packet_clock_ticks(codec, payload).ok()?;
        let ms = u16::try_from(ticks / (codec.clock_rate() / 1000)).unwrap_or(u16::MAX);
        (ms > longest).then_some(ms)
    }

    /// The party sent a packet of `ms` that somebody does not take.
    pub(crate) fn on_too_long(&mut self, ms: u16) {
        self.inbound.longest_ms = self.inbound.longest_ms.max(ms);
    }

    /// See [`on_too_long`](Self::on_too_long).
    pub(crate) fn longest_ms(&self) -> u16 {
        self.inbound.longest_ms
    }

    /// How much of what it is sent the party loses, as it last said, in percent.
    pub(crate) fn peer_loss_percent(&self) -> Option<u8> {
        let fraction = self.control.peer_fraction_lost()?;
        Some((u32::from(fraction) * 100).div_ceil(256) as u8)
    }

    /// Sends a frame that `maker` encoded for the party. Without a path, or while a digit is being
    /// sent, it is withheld; its maker's time runs on.
    pub(crate) fn send_frame(
        &mut self,
        maker: FrameMaker,
        frame: &EncodedFrame<'_>,
        now: Moment,
        path: Option<Path>,
        area: &mut PacketArea,
        sinks: &mut Sinks<'_>,
    ) {
        let (Some(path), Some(codec)) = (path, self.codec) else {
            return;
        };
        if self.lane.sender.is_active() || self.lane.is_passing(now.at) {
            return;
        }
        let placed = self.track.place(&mut self.stream, maker, frame, now.at);
        let header = self.header(placed, codec.send_payload_type);
        self.stream.on_sent(frame.payload.len());
        let Some(len) = area.compose(&header, frame.payload) else {
            sinks.out.counters().transcode_errors += 1;
            return;
        };
        if !sinks.recordings.is_empty() {
            let kind = RecordKind::Rtp {
                payload_name: codec.codec.as_str(),
            };
            let packet = area.packet(len);
            self.tap(StreamDirection::Outbound, kind, now.wall, packet, sinks);
        }
        self.send_packet(&mut area.0[..], len, path, sinks);
    }
}

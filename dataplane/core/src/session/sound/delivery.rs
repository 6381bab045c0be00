//! The last step of every pipeline: frames into the streams of those who hear them, and into
//! recordings.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::recording::StreamDirection;

use super::{Made, RECORDED_CODEC};
use crate::endpoint::{PacketArea, Sinks};
use crate::rtp::frame_track::FrameMaker;
use crate::rtp::header::OwnHeader;
use crate::session::endpoints::Endpoints;
use crate::session::{EndpointKey, RecordFrame, RecordKind};
use crate::time::Moment;
use crate::transcode::{EncodedFrame, TranscodeSink};

/// PCMU has a static payload type (RFC 3551 section 6).
const RECORDED_PAYLOAD_TYPE: u8 = 0;

/// Takes what one source's pipelines give.
pub(super) struct Delivery<'a> {
    pub(super) source: EndpointKey,
    /// Place among the wanted formats, and who.
    pub(super) places: &'a [(usize, EndpointKey)],
    pub(super) endpoints: &'a mut Endpoints,
    pub(super) area: &'a mut PacketArea,
    pub(super) sinks: Sinks<'a>,
    pub(super) now: Moment,
    /// The place of what recordings want of sound made here, whose it is, and its stream there.
    pub(super) recorded: Option<(usize, EndpointId, &'a mut Made)>,
}

impl TranscodeSink for Delivery<'_> {
    fn on_frame(&mut self, place: usize, frame: EncodedFrame<'_>) {
        let maker = FrameMaker::Source(self.source.0);
        for (_, key) in self.places.iter().filter(|(wanted, _)| *wanted == place) {
            if let Some(endpoint) = self.endpoints.get_mut(*key) {
                endpoint.handle_frame(maker, &frame, self.now, self.area, &mut self.sinks);
            }
        }
        if self
            .recorded
            .as_ref()
            .is_some_and(|(wanted, ..)| *wanted == place)
        {
            self.record(maker, &frame);
        }
    }

    fn on_pcm(&mut self, rate_hz: u32, pcm: &[i16]) {
        if let Some(source) = self.endpoints.get_mut(self.source) {
            source.hear(self.now.at, rate_hz, pcm);
        }
    }
}

impl Delivery<'_> {
    fn record(&mut self, maker: FrameMaker, frame: &EncodedFrame<'_>) {
        let Some((_, id, made)) = &mut self.recorded else {
            return;
        };
        let at = self.now.at;
        let placed = made.track.place(&mut made.stream, maker, frame, at);
        let header = OwnHeader {
            marker: placed.marker,
            payload_type: RECORDED_PAYLOAD_TYPE,
            sequence: placed.sequence,
            timestamp: placed.timestamp,
            ssrc: made.stream.ssrc(),
        };
        let Some(len) = self.area.compose(&header.write(), frame.payload) else {
            return;
        };
        let packet = RecordFrame {
            endpoint: *id,
            direction: StreamDirection::Inbound,
            kind: RecordKind::Rtp {
                payload_name: RECORDED_CODEC.as_str(),
            },
            at: self.now.wall,
            bytes: self.area.packet(len),
        };
        self.sinks.recordings.tap(packet, self.sinks.out);
    }
}

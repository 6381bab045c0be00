//! What a recording knows of its RTP streams, so that "complete" can be checked: packets seen,
//! packets lost to the queue, sequence numbers that never came (RFC 3550 section 5.1). Lives on the
//! worker, because only there every packet is seen, written or not.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::recording::StreamDirection;
use rtpbridge_shared::sequence::SequenceWindow;

/// A flood of SSRCs must not grow the account without bound.
const MAX_STREAMS: usize = 256;

/// One RTP stream of a recording.
#[derive(Clone, PartialEq, Eq, Debug)]
pub(crate) struct Stream {
    /// The leg.
    pub(crate) endpoint: EndpointId,
    /// Its SSRC.
    pub(crate) ssrc: u32,
    /// From the leg or to it.
    pub(crate) direction: StreamDirection,
    /// Payload types seen, with the names negotiated for them.
    pub(crate) payload_types: Vec<(u8, &'static str)>,
    /// RTP packets seen.
    pub(crate) seen: u64,
    /// Of these, lost to the queue.
    pub(crate) dropped: u64,
    /// Arrival of the first and last packet, wall nanoseconds.
    pub(crate) first_ns: u64,
    pub(crate) last_ns: u64,
    sequence: SequenceWindow,
}

impl Stream {
    /// Sequence numbers missing.
    pub(crate) fn gaps(&self) -> u64 {
        self.sequence.missing()
    }
}

/// All RTP streams of a recording.
#[derive(Default)]
pub(crate) struct Account {
    streams: Vec<Stream>,
}

impl Account {
    /// Counts an RTP packet that arrived at `at_ns`; gives the stream's index, none when it is no
    /// RTP or there are too many streams.
    pub(crate) fn on_rtp(
        &mut self,
        endpoint: EndpointId,
        direction: StreamDirection,
        packet: &[u8],
        payload_name: &'static str,
        at_ns: u64,
    ) -> Option<u16> {
        let header = packet.first_chunk::<12>()?;
        let payload_type = header[1] & 0x7f;
        let sequence = u16::from_be_bytes([header[2], header[3]]);
        let ssrc = u32::from_be_bytes([header[8], header[9], header[10], header[11]]);
        let known = self.streams.iter().position(|stream| {
            stream.ssrc == ssrc && stream.endpoint == endpoint && stream.direction == direction
        });
        let index = match known {
            Some(index) => index,
            None if self.streams.len() >= MAX_STREAMS => return None,
            None => {
                self.streams.push(Stream {
                    endpoint,
                    ssrc,
                    direction,
                    payload_types: Vec::new(),
                    seen: 0,
                    dropped: 0,
                    first_ns: at_ns,
                    last_ns: at_ns,
                    sequence: SequenceWindow::starting_at(sequence),
                });
                self.streams.len() - 1
            }
        };
        let stream = self.streams.get_mut(index)?;
        if !stream
            .payload_types
            .iter()
            .any(|(known, _)| *known == payload_type)
        {
            stream.payload_types.push((payload_type, payload_name));
        }
        stream.seen += 1;
        stream.first_ns = stream.first_ns.min(at_ns);
        stream.last_ns = stream.last_ns.max(at_ns);
        stream.sequence.on_packet(sequence);
        u16::try_from(index).ok()
    }

    /// The packet just counted did not fit the queue.
    pub(crate) fn on_dropped(&mut self, stream: u16) {
        if let Some(stream) = self.streams.get_mut(usize::from(stream)) {
            stream.dropped += 1;
        }
    }

    /// The streams in order of appearance.
    pub(crate) fn streams(&self) -> &[Stream] {
        &self.streams
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn packet(sequence: u16, ssrc: u32, payload_type: u8) -> Vec<u8> {
        let mut packet = vec![0x80, payload_type];
        packet.extend(sequence.to_be_bytes());
        packet.extend([0; 4]);
        packet.extend(ssrc.to_be_bytes());
        packet
    }

    #[test]
    fn gaps_are_the_numbers_that_never_came() {
        let mut account = Account::default();
        let leg = EndpointId::from_bytes([1; 16]);
        for (at, sequence) in (0..).zip([1, 2, 7, 5]) {
            let bytes = packet(sequence, 9, 0);
            account.on_rtp(leg, StreamDirection::Inbound, &bytes, "PCMU", at);
        }
        assert_eq!(account.streams()[0].gaps(), 3);
    }

    #[test]
    fn streams_are_told_apart_by_leg_ssrc_and_direction() {
        let mut account = Account::default();
        let (a, b) = (
            EndpointId::from_bytes([1; 16]),
            EndpointId::from_bytes([2; 16]),
        );
        let inbound = StreamDirection::Inbound;
        assert_eq!(
            account.on_rtp(a, inbound, &packet(1, 5, 0), "PCMU", 10),
            Some(0)
        );
        assert_eq!(
            account.on_rtp(b, inbound, &packet(1, 5, 0), "PCMU", 11),
            Some(1)
        );
        let outbound = StreamDirection::Outbound;
        assert_eq!(
            account.on_rtp(a, outbound, &packet(1, 5, 0), "PCMU", 12),
            Some(2)
        );
        assert_eq!(
            account.on_rtp(a, inbound, &packet(2, 5, 101), "telephone-event", 13),
            Some(0)
        );
        assert_eq!(account.on_rtp(a, inbound, &[0x80], "PCMU", 14), None);
        account.on_dropped(0);
        let first = &account.streams()[0];
        assert_eq!((first.seen, first.dropped), (2, 1));
        assert_eq!(first.payload_types, [(0, "PCMU"), (101, "telephone-event")]);
        assert_eq!((first.first_ns, first.last_ns), (10, 13));
    }

    #[test]
    fn a_flood_of_ssrcs_is_bounded() {
        let mut account = Account::default();
        let leg = EndpointId::from_bytes([1; 16]);
        for ssrc in 0..10_000 {
            account.on_rtp(
                leg,
                StreamDirection::Inbound,
                &packet(1, ssrc, 0),
                "PCMU",
                0,
            );
        }
        assert_eq!(account.streams().len(), MAX_STREAMS);
    }
}

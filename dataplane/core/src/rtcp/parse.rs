//! Compound RTCP packets, read to the end or to the first lie. What was read before a lie counts.

use thiserror::Error;

const SENDER_REPORT: u8 = 200;
const RECEIVER_REPORT: u8 = 201;
const GOODBYE: u8 = 203;
const REPORT_BLOCK_LEN: usize = 24;

/// One packet of a compound.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub enum RtcpPacket<'a> {
    /// SR (section 6.4.1).
    SenderReport {
        /// Who reports.
        ssrc: u32,
        /// Middle 32 bits of its NTP timestamp.
        ntp_middle: u32,
        /// About what it receives.
        reports: ReportBlocks<'a>,
    },
    /// RR (section 6.4.2).
    ReceiverReport {
        /// Who reports.
        ssrc: u32,
        /// About what it receives.
        reports: ReportBlocks<'a>,
    },
    /// BYE (section 6.6).
    Goodbye {
        /// Who leaves.
        sources: Sources<'a>,
        /// Why, as sent.
        reason: Option<&'a [u8]>,
    },
    /// Anything else, not looked into.
    Other {
        /// 192…223
        packet_type: u8,
    },
}

/// What one report block says (section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlock {
    /// Whose packets it is about.
    pub ssrc: u32,
    /// In 1/256 since the report before.
    pub fraction_lost: u8,
    /// Since the beginning; negative with duplicates.
    pub cumulative_lost: i32,
    /// In timestamp units.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP timestamp; 0 is none.
    pub last_report: u32,
    /// Since that one arrived, in 1/65536 s.
    pub delay_since_last_report: u32,
}

/// Report blocks of a packet.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct ReportBlocks<'a>(&'a [u8]);

/// SSRCs of a goodbye.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Sources<'a>(&'a [u8]);

/// Why the rest of a datagram was not read.
#[derive(Clone, Copy, PartialEq, Eq, Debug, Error)]
pub enum RtcpError {
    /// Version field other than 2.
    #[error("RTCP version {version}")]
    Version {
        /// What it says.
        version: u8,
    },
    /// A length or a count that overruns the packet.
    #[error("RTCP packet of type {packet_type} overruns its {len} bytes")]
    Overrun {
        /// 192…223, or 0 where there is not even a header.
        packet_type: u8,
        /// Bytes there are.
        len: usize,
    },
}

/// The packets of a compound, in order. The first error is the last item.
pub fn packets(datagram: &[u8]) -> impl Iterator<Item = Result<RtcpPacket<'_>, RtcpError>> {
    let mut rest = datagram;
    std::iter::from_fn(move || {
        if rest.is_empty() {
            return None;
        }
        let item = next_packet(rest).map(|(packet, after)| {
            rest = after;
            packet
        });
        if item.is_err() {
            rest = &[];
        }
        Some(item)
    })
}

impl<'a> ReportBlocks<'a> {
    /// The blocks, at most 31.
    pub fn iter(self) -> impl Iterator<Item = ReportBlock> + 'a {
        let (blocks, _) = self.0.as_chunks::<REPORT_BLOCK_LEN>();
        blocks.iter().map(|block| {
            let word = |at: usize| {
                block
                    .get(at..at + 4)
                    .and_then(|bytes| bytes.first_chunk())
                    .map_or(0, |bytes| u32::from_be_bytes(*bytes))
            };
            let loss = word(4);
            ReportBlock {
                ssrc: word(0),
                fraction_lost: (loss >> 24) as u8,
                // 24 bits, signed: up into the sign bit and back down.
                cumulative_lost: (loss << 8) as i32 >> 8,
                jitter: word(12),
                last_report: word(16),
                delay_since_last_report: word(20),
            }
        })
    }
}

impl<'a> Sources<'a> {
    /// The SSRCs, at most 31.
    pub fn iter(self) -> impl Iterator<Item = u32> + 'a {
        let (words, _) = self.0.as_chunks::<4>();
        words.iter().map(|word| u32::from_be_bytes(*word))
    }
}

fn next_packet(bytes: &[u8]) -> Result<(RtcpPacket<'_>, &[u8]), RtcpError> {
    let len = bytes.len();
    let Some((&[first, packet_type, high, low], _)) = bytes.split_first_chunk() else {
        return Err(RtcpError::Overrun {
            packet_type: 0,
            len,
        });
    };
    if first >> 6 != 2 {
        let version = first >> 6;
        return Err(RtcpError::Version { version });
    }
    let overrun = RtcpError::Overrun { packet_type, len };
    let words = usize::from(u16::from_be_bytes([high, low]));
    let (packet, after) = bytes.split_at_checked(4 + words * 4).ok_or(overrun)?;
    let mut body = packet.get(4..).ok_or(overrun)?;
    if first & 0x20 != 0 {
        let padding = usize::from(body.last().copied().unwrap_or(0));
        let kept = body.len().checked_sub(padding).filter(|_| padding > 0);
        body = body.get(..kept.ok_or(overrun)?).ok_or(overrun)?;
    }
    let count = usize::from(first & 0x1f);
    let packet = match packet_type {
        SENDER_REPORT => sender_report(body, count),
        RECEIVER_REPORT => receiver_report(body, count),
        GOODBYE => goodbye(body, count),
        _ => Some(RtcpPacket::Other { packet_type }),
    };
    Ok((packet.ok_or(overrun)?, after))
}

fn sender_report(body: &[u8], count: usize) -> Option<RtcpPacket<'_>> {
    let (ssrc, rest) = body.split_first_chunk()?;
    let (info, rest) = rest.split_first_chunk::<20>()?;
    let [_, _, a, b, c, d, ..] = *info;
    Some(RtcpPacket::SenderReport {
        ssrc: u32::from_be_bytes(*ssrc),
        ntp_middle: u32::from_be_bytes([a, b, c, d]),
        reports: ReportBlocks(rest.get(..count * REPORT_BLOCK_LEN)?),
    })
}

fn receiver_report(body: &[u8], count: usize) -> Option<RtcpPacket<'_>> {
    let (ssrc, rest) = body.split_first_chunk()?;
    Some(RtcpPacket::ReceiverReport {
        ssrc: u32::from_be_bytes(*ssrc),
        reports: ReportBlocks(rest.get(..count * REPORT_BLOCK_LEN)?),
    })
}

fn goodbye(body: &[u8], count: usize) -> Option<RtcpPacket<'_>> {
    let (sources, rest) = body.split_at_checked(count * 4)?;
    let reason = match rest.split_first() {
        None => None,
        Some((len, text)) => Some(text.get(..usize::from(*len))?),
    };
    Some(RtcpPacket::Goodbye {
        sources: Sources(sources),
        reason,
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn packet(first: u8, packet_type: u8, body: &[u8]) -> Vec<u8> {
        let words = (body.len() / 4) as u16;
        let mut packet = vec![first, packet_type];
        packet.extend(words.to_be_bytes());
        packet.extend(body);
        packet
    }

    fn receiver_report() -> Vec<u8> {
        let mut body = vec![0, 0, 0, 1];
        body.extend([0, 0, 0, 2, 0x40, 0xff, 0xff, 0xfe]);
        body.extend([0, 1, 0, 9, 0, 0, 0, 80]);
        body.extend([1, 2, 3, 4, 0, 1, 0x80, 0]);
        packet(0x81, RECEIVER_REPORT, &body)
    }

    #[test]
    fn reports_are_read() {
        let datagram = receiver_report();
        let Some(Ok(RtcpPacket::ReceiverReport { ssrc: 1, reports })) = packets(&datagram).next()
        else {
            panic!("a receiver report of 1");
        };
        let block = ReportBlock {
            ssrc: 2,
            fraction_lost: 64,
            cumulative_lost: -2,
            jitter: 80,
            last_report: 0x0102_0304,
            delay_since_last_report: 0x1_8000,
        };
        assert_eq!(reports.iter().collect::<Vec<_>>(), [block]);
    }

    #[test]
    fn a_sender_report_gives_the_middle_of_its_time() {
        let mut body = vec![0, 0, 0, 1, 0xaa, 0xaa, 1, 2, 3, 4, 0xbb, 0xbb];
        body.extend([0; 12]);
        let datagram = packet(0x80, SENDER_REPORT, &body);
        assert!(matches!(
            packets(&datagram).next(),
            Some(Ok(RtcpPacket::SenderReport {
                ntp_middle: 0x0102_0304,
                ..
            }))
        ));
    }

    #[test]
    fn goodbyes_name_their_sources_and_reason() {
        let with_reason = packet(0x82, GOODBYE, b"\0\0\0\x01\0\0\0\x02\x03end");
        let Some(Ok(RtcpPacket::Goodbye { sources, reason })) = packets(&with_reason).next() else {
            panic!("a goodbye");
        };
        assert_eq!(sources.iter().collect::<Vec<_>>(), [1, 2]);
        assert_eq!(reason, Some(&b"end"[..]));
        let bare = packet(0x80, GOODBYE, &[]);
        assert!(matches!(
            packets(&bare).next(),
            Some(Ok(RtcpPacket::Goodbye { reason: None, .. }))
        ));
    }

    #[test]
    fn a_compound_is_read_up_to_the_first_lie() {
        let mut datagram = receiver_report();
        datagram.extend(packet(0x81, 202, &[0; 8]));
        datagram.extend(packet(0x83, GOODBYE, &[0, 0, 0, 1]));
        datagram.extend(receiver_report());
        let items: Vec<_> = packets(&datagram).collect();
        assert_eq!(items.len(), 3);
        assert_eq!(items[1], Ok(RtcpPacket::Other { packet_type: 202 }));
        assert!(matches!(items[2], Err(RtcpError::Overrun { .. })));
    }

    #[test]
    fn lengths_and_padding_that_overrun_are_lies() {
        for datagram in [
            &[0x80, 201, 0][..],
            &[0x80, 201, 0, 2, 0, 0, 0, 1],
            &[0x81, 201, 0, 1, 0, 0, 0, 1],
            &[0xa0, 201, 0, 1, 0, 0, 0, 0],
            &[0xa0, 201, 0, 1, 0, 0, 0, 5],
            &[0x40, 201, 0, 1, 0, 0, 0, 1],
            &[0x81, 203, 0, 2, 0, 0, 0, 1, 9, 0, 0, 0],
        ] {
            assert!(
                packets(datagram).all(|packet| packet.is_err()),
                "{datagram:?}"
            );
        }
    }

    proptest! {
        #[test]
        fn any_bytes_end(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let count = packets(&bytes).count();
            prop_assert!(count <= bytes.len() / 4 + 1);
        }
    }
}

//! RTCP (RFC 3550 section 6): enough to write what a party writes and to read what it is sent.

/// One report block (section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct ReportBlock {
    /// Whose stream.
    pub ssrc: u32,
    /// Lost since the last report, in 256ths.
    pub fraction_lost: u8,
    /// Lost since the beginning.
    pub cumulative_lost: i32,
    /// Highest sequence number with cycles.
    pub highest_sequence: u32,
    /// Jitter in the stream's clock.
    pub jitter: u32,
    /// Middle 32 bits of the last sender report's NTP time.
    pub last_report: u32,
    /// Since that report, in 65536ths of a second.
    pub delay: u32,
}

/// One packet of a compound.
#[derive(Clone, PartialEq, Eq, Debug)]
pub enum Rtcp {
    /// Sender report.
    SenderReport {
        /// Sender.
        ssrc: u32,
        /// NTP time, 32.32.
        ntp: u64,
        /// The same instant in the stream's clock.
        rtp_timestamp: u32,
        /// RTP packets sent.
        packets: u32,
        /// Payload bytes sent.
        octets: u32,
        /// What it receives.
        blocks: Vec<ReportBlock>,
    },
    /// Receiver report.
    ReceiverReport {
        /// Reporter.
        ssrc: u32,
        /// What it receives.
        blocks: Vec<ReportBlock>,
    },
    /// Source description, its CNAME alone.
    SourceDescription {
        /// Source.
        ssrc: u32,
        /// Canonical name.
        cname: String,
    },
    /// Goodbye.
    Bye {
        /// Leaving sources.
        ssrcs: Vec<u32>,
        /// Why.
        reason: Option<String>,
    },
    /// Another packet type.
    Other(u8),
}

impl Rtcp {
    /// Appends the packet.
    pub fn write(&self, out: &mut Vec<u8>) {
        let mut body = Vec::new();
        let (count, packet_type) = match self {
            Rtcp::SenderReport {
                ssrc,
                ntp,
                rtp_timestamp,
                packets,
                octets,
                blocks,
            } => {
                body.extend(ssrc.to_be_bytes());
                body.extend(ntp.to_be_bytes());
                for value in [rtp_timestamp, packets, octets] {
                    body.extend(value.to_be_bytes());
                }
                write_blocks(blocks, &mut body);
                (blocks.len(), 200)
            }
            Rtcp::ReceiverReport { ssrc, blocks } => {
                body.extend(ssrc.to_be_bytes());
                write_blocks(blocks, &mut body);
                (blocks.len(), 201)
            }
            Rtcp::SourceDescription { ssrc, cname } => {
                body.extend(ssrc.to_be_bytes());
                body.extend([1, u8::try_from(cname.len()).expect("a short name")]);
                body.extend(cname.as_bytes());
                body.push(0);
                (1, 202)
            }
            Rtcp::Bye { ssrcs, reason } => {
                for ssrc in ssrcs {
                    body.extend(ssrc.to_be_bytes());
                }
                if let Some(reason) = reason {
                    body.push(u8::try_from(reason.len()).expect("a short reason"));
                    body.extend(reason.as_bytes());
                }
                (ssrcs.len(), 203)
            }
            Rtcp::Other(packet_type) => (0, *packet_type),
        };
        body.resize(body.len().next_multiple_of(4), 0);
        out.push(0x80 | u8::try_from(count).expect("at most 31"));
        out.push(packet_type);
        out.extend(((body.len() / 4) as u16).to_be_bytes());
        out.extend(body);
    }

    /// A whole datagram of these packets.
    pub fn compound(packets: &[Rtcp]) -> Vec<u8> {
        let mut out = Vec::new();
        for packet in packets {
            packet.write(&mut out);
        }
        out
    }

    /// Every packet of a datagram; none when any length lies.
    pub fn parse_compound(mut bytes: &[u8]) -> Option<Vec<Self>> {
        let mut packets = Vec::new();
        while !bytes.is_empty() {
            let head = *bytes.first_chunk::<4>()?;
            if head[0] >> 6 != 2 {
                return None;
            }
            let length = 4 * usize::from(u16::from_be_bytes([head[2], head[3]]));
            let body = bytes.get(4..4 + length)?;
            packets.push(parse_one(head[0] & 0x1f, head[1], body)?);
            bytes = &bytes[4 + length..];
        }
        Some(packets)
    }
}

fn write_blocks(blocks: &[ReportBlock], body: &mut Vec<u8>) {
    for block in blocks {
        body.extend(block.ssrc.to_be_bytes());
        let lost = block.cumulative_lost as u32 & 0x00ff_ffff;
        body.extend((u32::from(block.fraction_lost) << 24 | lost).to_be_bytes());
        for value in [
            block.highest_sequence,
            block.jitter,
            block.last_report,
            block.delay,
        ] {
            body.extend(value.to_be_bytes());
        }
    }
}

fn parse_one(count: u8, packet_type: u8, body: &[u8]) -> Option<Rtcp> {
    let word = |at: usize| -> Option<u32> {
        let four = body.get(4 * at..4 * at + 4)?;
        Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
    };
    let blocks = |from: usize| -> Option<Vec<ReportBlock>> {
        (0..usize::from(count))
            .map(|index| {
                let at = from + 6 * index;
                let lost = word(at + 1)?;
                Some(ReportBlock {
                    ssrc: word(at)?,
                    fraction_lost: (lost >> 24) as u8,
                    cumulative_lost: ((lost << 8) as i32) >> 8,
                    highest_sequence: word(at + 2)?,
                    jitter: word(at + 3)?,
                    last_report: word(at + 4)?,
                    delay: word(at + 5)?,
                })
            })
            .collect()
    };
    Some(match packet_type {
        200 => Rtcp::SenderReport {
            ssrc: word(0)?,
            ntp: u64::from(word(1)?) << 32 | u64::from(word(2)?),
            rtp_timestamp: word(3)?,
            packets: word(4)?,
            octets: word(5)?,
            blocks: blocks(6)?,
        },
        201 => Rtcp::ReceiverReport {
            ssrc: word(0)?,
            blocks: blocks(1)?,
        },
        202 => {
            let length = usize::from(*body.get(5)?);
            let cname = body.get(6..6 + length)?;
            Rtcp::SourceDescription {
                ssrc: word(0)?,
                cname: String::from_utf8_lossy(cname).into_owned(),
            }
        }
        203 => {
            let ssrcs: Option<Vec<u32>> = (0..usize::from(count)).map(word).collect();
            let reason = body.get(4 * usize::from(count)..).and_then(|rest| {
                let length = usize::from(*rest.first()?);
                let text = rest.get(1..1 + length)?;
                Some(String::from_utf8_lossy(text).into_owned())
            });
            Rtcp::Bye {
                ssrcs: ssrcs?,
                reason,
            }
        }
        other => Rtcp::Other(other),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let packets = vec![
            Rtcp::SenderReport {
                ssrc: 1,
                ntp: 0x0102_0304_0506_0708,
                rtp_timestamp: 4,
                packets: 5,
                octets: 6,
                blocks: vec![ReportBlock {
                    ssrc: 9,
                    fraction_lost: 12,
                    cumulative_lost: -3,
                    highest_sequence: 70000,
                    jitter: 8,
                    last_report: 7,
                    delay: 6,
                }],
            },
            Rtcp::SourceDescription {
                ssrc: 1,
                cname: "party".to_owned(),
            },
            Rtcp::Bye {
                ssrcs: vec![1, 2],
                reason: Some("done".to_owned()),
            },
        ];
        assert_eq!(
            Rtcp::parse_compound(&Rtcp::compound(&packets)),
            Some(packets)
        );
    }
}

//! Our compound packets: SR or RR, SDES with CNAME, and BYE at the end of an endpoint's life.

use crate::rtp::reception::ReceptionReport;

/// Room for the longest compound that we send, and for what SRTCP adds to it.
pub const REPORT_ROOM: usize = 192;
/// Longest CNAME.
pub const CNAME_LEN: usize = 16;

/// The sender's half of a sender report (RFC 3550 section 6.4.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct SenderInfo {
    /// NTP timestamp of now.
    pub ntp: u64,
    /// RTP timestamp of now.
    pub rtp: u32,
    /// Packets sent.
    pub packets: u32,
    /// Payload octets sent.
    pub octets: u32,
}

/// A report block and what ties it to the peer's last sender report.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct BlockContents {
    /// Loss and jitter.
    pub reception: ReceptionReport,
    /// Middle of the NTP timestamp of the peer's last sender report; 0 is none.
    pub last_report: u32,
    /// Since that one, in 1/65536 s.
    pub delay_since_last_report: u32,
}

/// A compound being written.
pub struct ReportWriter {
    bytes: [u8; REPORT_ROOM],
    len: usize,
}

impl ReportWriter {
    /// Begins with a sender report, or a receiver report where nothing was sent.
    pub fn new(ssrc: u32, sender: Option<SenderInfo>, block: Option<BlockContents>) -> Self {
        let mut writer = Self {
            bytes: [0; REPORT_ROOM],
            len: 0,
        };
        let packet_type = if sender.is_some() { 200 } else { 201 };
        let start = writer.begin(u8::from(block.is_some()), packet_type);
        writer.word(ssrc);
        if let Some(info) = sender {
            writer.word((info.ntp >> 32) as u32);
            writer.word(info.ntp as u32);
            writer.word(info.rtp);
            writer.word(info.packets);
            writer.word(info.octets);
        }
        if let Some(block) = block {
            let reception = block.reception;
            let lost = reception.cumulative_lost as u32 & 0x00ff_ffff;
            writer.word(reception.ssrc);
            writer.word(u32::from(reception.fraction_lost) << 24 | lost);
            writer.word(reception.extended_highest);
            writer.word(reception.jitter);
            writer.word(block.last_report);
            writer.word(block.delay_since_last_report);
        }
        writer.end(start);
        writer
    }

    /// SDES with a CNAME (section 6.5).
    pub fn cname(&mut self, ssrc: u32, cname: &[u8; CNAME_LEN]) {
        let start = self.begin(1, 202);
        self.word(ssrc);
        self.put(&[1, CNAME_LEN as u8]);
        self.put(cname);
        // One null octet ends the list, more fill the word.
        self.put(&[0, 0]);
        self.end(start);
    }

    /// BYE (section 6.6).
    pub fn goodbye(&mut self, ssrc: u32) {
        let start = self.begin(1, 203);
        self.word(ssrc);
        self.end(start);
    }

    /// The compound.
    pub fn bytes(&self) -> &[u8] {
        self.bytes.get(..self.len).unwrap_or_default()
    }

    /// Its buffer, with room behind the packet, and its length.
    pub fn into_parts(self) -> ([u8; REPORT_ROOM], usize) {
        (self.bytes, self.len)
    }

    fn begin(&mut self, count: u8, packet_type: u8) -> usize {
        let start = self.len;
        self.put(&[0x80 | count, packet_type, 0, 0]);
        start
    }

    fn end(&mut self, start: usize) {
        let words = (self.len - start) / 4 - 1;
        if let Some(place) = self.bytes.get_mut(start + 2..start + 4) {
            place.copy_from_slice(&(words as u16).to_be_bytes());
        }
    }

    fn word(&mut self, word: u32) {
        self.put(&word.to_be_bytes());
    }

    fn put(&mut self, bytes: &[u8]) {
        if let Some(place) = self.bytes.get_mut(self.len..self.len + bytes.len()) {
            place.copy_from_slice(bytes);
            self.len += bytes.len();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rtcp::parse::{RtcpPacket, packets};

    const BLOCK: BlockContents = BlockContents {
        reception: ReceptionReport {
            ssrc: 9,
            fraction_lost: 3,
            cumulative_lost: -5,
            extended_highest: 70_000,
            jitter: 12,
        },
        last_report: 0x1234_5678,
        delay_since_last_report: 99,
    };

    #[test]
    fn a_full_compound_is_read_back_with_room_for_srtcp() {
        let info = SenderInfo {
            ntp: 0x0102_0304_0506_0708,
            rtp: 1,
            packets: 2,
            octets: 3,
        };
        let mut writer = ReportWriter::new(7, Some(info), Some(BLOCK));
        writer.cname(7, b"0123456789abcdef");
        writer.goodbye(7);
        let items: Vec<_> = packets(writer.bytes()).collect();
        let [
            Ok(RtcpPacket::SenderReport {
                ssrc,
                ntp_middle,
                reports,
            }),
            Ok(RtcpPacket::Other { packet_type: 202 }),
            Ok(RtcpPacket::Goodbye { sources, .. }),
        ] = items[..]
        else {
            panic!("{items:?}");
        };
        assert_eq!((ssrc, ntp_middle), (7, 0x0304_0506));
        assert_eq!(sources.iter().collect::<Vec<_>>(), [7]);
        let block = reports.iter().next().expect("one block");
        assert_eq!(block.cumulative_lost, -5);
        assert_eq!(block.last_report, 0x1234_5678);
        let (_, len) = writer.into_parts();
        assert!(len + crate::srtp::suite::MAX_RTCP_OVERHEAD <= REPORT_ROOM);
    }

    #[test]
    fn who_sent_nothing_writes_a_receiver_report() {
        let writer = ReportWriter::new(7, None, None);
        assert_eq!(writer.bytes(), [0x80, 201, 0, 1, 0, 0, 0, 7]);
    }
}

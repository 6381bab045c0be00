//! RTP packets (RFC 3550 section 5.1) and telephone-events (RFC 4733 section 2.3), written out plainly.

/// One RTP packet.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Rtp {
    /// Marker bit.
    pub marker: bool,
    /// Payload type, 0 to 127.
    pub payload_type: u8,
    /// Sequence number.
    pub sequence: u16,
    /// Time stamp.
    pub timestamp: u32,
    /// Synchronisation source.
    pub ssrc: u32,
    /// Contributing sources.
    pub csrc: Vec<u32>,
    /// Header extension: profile and whole words.
    pub extension: Option<(u16, Vec<u8>)>,
    /// Bytes of padding, 0 for none.
    pub padding: u8,
    /// Payload.
    pub payload: Vec<u8>,
}

impl Rtp {
    /// The packet on the wire.
    pub fn write(&self) -> Vec<u8> {
        let first = 0x80
            | if self.padding > 0 { 0x20 } else { 0 }
            | if self.extension.is_some() { 0x10 } else { 0 }
            | u8::try_from(self.csrc.len()).expect("at most 15 sources");
        let second = if self.marker { 0x80 } else { 0 } | self.payload_type;
        let mut bytes = vec![first, second];
        bytes.extend(self.sequence.to_be_bytes());
        bytes.extend(self.timestamp.to_be_bytes());
        bytes.extend(self.ssrc.to_be_bytes());
        for source in &self.csrc {
            bytes.extend(source.to_be_bytes());
        }
        if let Some((profile, data)) = &self.extension {
            bytes.extend(profile.to_be_bytes());
            bytes.extend(((data.len() / 4) as u16).to_be_bytes());
            bytes.extend(data);
        }
        bytes.extend(&self.payload);
        if self.padding > 0 {
            bytes.extend(vec![0; usize::from(self.padding) - 1]);
            bytes.push(self.padding);
        }
        bytes
    }

    /// The packet in a datagram, unless it is none.
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let (&first, &second) = (bytes.first()?, bytes.get(1)?);
        if first >> 6 != 2 {
            return None;
        }
        let mut at = 12;
        let mut csrc = Vec::new();
        for _ in 0..first & 0x0f {
            csrc.push(word(bytes, at)?);
            at += 4;
        }
        let mut extension = None;
        if first & 0x10 != 0 {
            let head = word(bytes, at)?;
            let length = 4 * (head & 0xffff) as usize;
            let data = bytes.get(at + 4..at + 4 + length)?.to_vec();
            extension = Some(((head >> 16) as u16, data));
            at += 4 + length;
        }
        let padding = if first & 0x20 != 0 { *bytes.last()? } else { 0 };
        let end = bytes.len().checked_sub(usize::from(padding))?;
        Some(Self {
            marker: second & 0x80 != 0,
            payload_type: second & 0x7f,
            sequence: u16::from_be_bytes([*bytes.get(2)?, *bytes.get(3)?]),
            timestamp: word(bytes, 4)?,
            ssrc: word(bytes, 8)?,
            csrc,
            extension,
            padding,
            payload: bytes.get(at..end)?.to_vec(),
        })
    }
}

/// A telephone-event payload.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TelephoneEvent {
    /// Event code.
    pub event: u8,
    /// Whether this ends the event.
    pub end: bool,
    /// Level, dBm0 negated.
    pub volume: u8,
    /// Duration so far, in the stream's clock.
    pub duration: u16,
}

impl TelephoneEvent {
    /// The four bytes.
    pub fn write(self) -> Vec<u8> {
        let flags = if self.end { 0x80 } else { 0 } | (self.volume & 0x3f);
        let [high, low] = self.duration.to_be_bytes();
        vec![self.event, flags, high, low]
    }

    /// Reads the four bytes.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[event, flags, high, low] = payload else {
            return None;
        };
        Some(Self {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([high, low]),
        })
    }
}

fn word(bytes: &[u8], at: usize) -> Option<u32> {
    let four = bytes.get(at..at + 4)?;
    Some(u32::from_be_bytes([four[0], four[1], four[2], four[3]]))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_written_is_read() {
        let packet = Rtp {
            marker: true,
            payload_type: 101,
            sequence: 0xfffe,
            timestamp: 0x8000_0001,
            ssrc: 0xdead_beef,
            csrc: vec![1, 2],
            extension: Some((0xbede, vec![1, 2, 3, 4])),
            padding: 4,
            payload: vec![9; 20],
        };
        assert_eq!(Rtp::parse(&packet.write()), Some(packet));
        assert_eq!(Rtp::parse(&[0x40; 12]), None);
    }
}

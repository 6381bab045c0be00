//! The payload of a telephone-event packet (RFC 4733 section 2.3).

/// Length on the wire.
pub const EVENT_LEN: usize = 4;

/// What one packet says of an event.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct EventPayload {
    /// 0…15 are digits.
    pub event: u8,
    /// The event is over.
    pub end: bool,
    /// dBm0, negated: 0…63.
    pub volume: u8,
    /// Since the event (or its segment) began, in timestamp units.
    pub duration: u16,
}

impl EventPayload {
    /// Reads the first event of a payload; what follows it is not ours to interpret.
    pub fn parse(payload: &[u8]) -> Option<Self> {
        let &[event, flags, high, low, ..] = payload else {
            return None;
        };
        Some(Self {
            event,
            end: flags & 0x80 != 0,
            volume: flags & 0x3f,
            duration: u16::from_be_bytes([high, low]),
        })
    }

    /// The four bytes.
    pub fn write(self) -> [u8; EVENT_LEN] {
        let [high, low] = self.duration.to_be_bytes();
        let flags = u8::from(self.end) << 7 | (self.volume & 0x3f);
        [self.event, flags, high, low]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn written_events_are_read_back() {
        let event = EventPayload {
            event: 11,
            end: true,
            volume: 10,
            duration: 1280,
        };
        assert_eq!(event.write(), [11, 0x8a, 5, 0]);
        assert_eq!(EventPayload::parse(&event.write()), Some(event));
    }

    #[test]
    fn the_reserved_bit_is_ignored_and_short_payloads_refused() {
        let parsed = EventPayload::parse(&[1, 0x7f, 0, 160, 9, 9]).expect("long enough");
        assert!(!parsed.end);
        assert_eq!(parsed.volume, 63);
        assert_eq!(EventPayload::parse(&[1, 0x8a, 0]), None);
    }
}

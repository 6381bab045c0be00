//! Payload types: what an m-line's formats, rtpmap and fmtp lines mean (RFC 3551, 7587, 4733).

use rtpbridge_shared::vocab::Codec;

use super::model::Media;
use super::parse::decimal;

/// Codecs of a plain RTP offer, preferred first.
pub(super) const RTP_ORDER: [Codec; 4] = [Codec::Pcmu, Codec::Pcma, Codec::G722, Codec::Opus];
/// Codecs of a WebRTC offer, preferred first.
pub(super) const WEBRTC_ORDER: [Codec; 4] = [Codec::Opus, Codec::Pcmu, Codec::Pcma, Codec::G722];
/// Where we offer telephone-event for codecs of 8000 Hz, and answer it where nothing is common.
const TELEPHONE_EVENT_8000: TelephoneEventFormat = TelephoneEventFormat {
    payload_type: 101,
    clock_rate: 8000,
};
const TELEPHONE_EVENT_48000: TelephoneEventFormat = TelephoneEventFormat {
    payload_type: 110,
    clock_rate: 48000,
};

/// One codec under one payload type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct CodecFormat {
    /// Which codec.
    pub codec: Codec,
    /// 0…127.
    pub payload_type: u8,
}

/// telephone-event under one payload type.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct TelephoneEventFormat {
    /// 0…127.
    pub payload_type: u8,
    /// Clock of the rtpmap line in Hz: 8000 or 48000.
    pub clock_rate: u32,
}

/// The formats of a description that we know, each codec and each telephone-event clock at most
/// once, in the description's order.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub struct Formats {
    /// Audio codecs, preferred first.
    pub codecs: Vec<CodecFormat>,
    /// telephone-event by clock rate.
    pub telephone_events: Vec<TelephoneEventFormat>,
}

/// What the peer's fmtp line of Opus asks of what we send it (RFC 7587 section 6.1).
#[derive(Clone, Copy, PartialEq, Eq, Debug, Default)]
pub struct OpusParameters {
    /// `useinbandfec=1`: it profits from in-band FEC.
    pub use_inband_fec: bool,
    /// `usedtx=1`: it wants discontinuous transmission.
    pub use_dtx: bool,
    /// `cbr=1`: it wants a constant bit rate.
    pub constant_bitrate: bool,
    /// `stereo=1`: it would take stereo. We never send it.
    pub stereo: bool,
    /// `maxaveragebitrate`, 6000…510000 bit/s.
    pub max_average_bitrate: Option<u32>,
    /// `maxplaybackrate` in Hz, 8000…48000.
    pub max_playback_rate: Option<u32>,
}

/// What an m-line's formats mean.
#[derive(Clone, PartialEq, Eq, Debug, Default)]
pub(super) struct ListedFormats {
    pub(super) formats: Formats,
    pub(super) opus: OpusParameters,
    /// Bit n: payload type n is listed.
    pub(super) payload_types: u128,
}

impl ListedFormats {
    /// Reads the formats of `media` with their rtpmap and fmtp lines, each line once.
    pub(super) fn read(media: &Media<'_>) -> Self {
        let mut rtpmap = [None; 128];
        let mut fmtp = [None; 128];
        for attribute in &media.attributes {
            let table = match attribute.name {
                "rtpmap" => &mut rtpmap,
                "fmtp" => &mut fmtp,
                _ => continue,
            };
            let field = attribute
                .value
                .split_once(|c: char| c.is_ascii_whitespace());
            let Some((payload_type, text)) = field else {
                continue;
            };
            let row = decimal::<usize>(payload_type).and_then(|at| table.get_mut(at));
            if let Some(row) = row {
                row.get_or_insert(text.trim());
            }
        }
        let mut listed = Self::default();
        for format in &media.formats {
            let Some(payload_type) = decimal::<u8>(format).filter(|number| *number < 128) else {
                continue;
            };
            let at = usize::from(payload_type);
            let encoding = rtpmap.get(at).copied().flatten();
            let parameters = fmtp.get(at).copied().flatten();
            listed.add(payload_type, encoding, parameters);
        }
        listed
    }

    fn add(&mut self, payload_type: u8, encoding: Option<&str>, parameters: Option<&str>) {
        let bit = 1 << payload_type;
        if self.payload_types & bit != 0 {
            return;
        }
        self.payload_types |= bit;
        match encoding.map_or_else(|| static_encoding(payload_type), read_encoding) {
            Encoding::Audio(codec) if self.formats.payload_type_of(codec).is_none() => {
                let format = CodecFormat {
                    codec,
                    payload_type,
                };
                self.formats.codecs.push(format);
                if codec == Codec::Opus {
                    self.opus = OpusParameters::parse(parameters.unwrap_or_default());
                }
            }
            Encoding::TelephoneEvent(clock_rate)
                if self.formats.telephone_event_at(clock_rate).is_none() =>
            {
                let format = TelephoneEventFormat {
                    payload_type,
                    clock_rate,
                };
                self.formats.telephone_events.push(format);
            }
            Encoding::Audio(_) | Encoding::TelephoneEvent(_) | Encoding::Unknown => {}
        }
    }
}

impl Formats {
    /// What we offer of these codecs: our usual payload types, telephone-event at each clock.
    pub(super) fn offered(codecs: &[Codec]) -> Self {
        let mut offered = Self::default();
        for codec in codecs {
            let payload_type = match codec {
                Codec::Pcmu => 0,
                Codec::Pcma => 8,
                Codec::G722 => 9,
                Codec::Opus => 111,
                // L16 never leaves a bridge.
                Codec::L16 => continue,
            };
            let event = match codec.clock_rate() {
                8000 => TELEPHONE_EVENT_8000,
                _ => TELEPHONE_EVENT_48000,
            };
            if offered.payload_type_of(*codec).is_none() {
                offered.codecs.push(CodecFormat {
                    codec: *codec,
                    payload_type,
                });
            }
            if offered.telephone_event_at(event.clock_rate).is_none() {
                offered.telephone_events.push(event);
            }
        }
        offered
    }

    /// Those of these formats whose codec is one of `codecs`, and the telephone-events that fit
    /// them: same clock, or 8000 Hz beside Opus where it has no event of its own. Without a codec in
    /// common every telephone-event stays.
    pub(super) fn restricted_to(&self, codecs: &[Codec]) -> Self {
        let known = |format: &&CodecFormat| codecs.contains(&format.codec);
        let kept: Vec<_> = self.codecs.iter().filter(known).copied().collect();
        let has_clock = |clock_rate| kept.iter().any(|own| own.codec.clock_rate() == clock_rate);
        let fits = |event: &&TelephoneEventFormat| {
            kept.is_empty()
                || has_clock(event.clock_rate)
                || (event.clock_rate == 8000 && self.telephone_event_at(48000).is_none())
        };
        let telephone_events = self.telephone_events.iter().filter(fits).copied().collect();
        Self {
            codecs: kept,
            telephone_events,
        }
    }

    /// telephone-event alone, under 101 or the highest payload type not in `taken`.
    pub(super) fn telephone_event_alone(taken: u128) -> Self {
        let free = |payload_type: &u8| taken & (1 << *payload_type) == 0;
        let usual = TELEPHONE_EVENT_8000.payload_type;
        let payload_type = std::iter::once(usual)
            .chain((96..128).rev())
            .find(free)
            .unwrap_or(usual);
        Self {
            codecs: Vec::new(),
            telephone_events: vec![TelephoneEventFormat {
                payload_type,
                ..TELEPHONE_EVENT_8000
            }],
        }
    }

    /// Payload type of `codec`.
    pub fn payload_type_of(&self, codec: Codec) -> Option<u8> {
        let format = self.codecs.iter().find(|format| format.codec == codec)?;
        Some(format.payload_type)
    }

    /// Payload type of telephone-event with exactly this clock.
    pub fn telephone_event_at(&self, clock_rate: u32) -> Option<u8> {
        let same = |event: &&TelephoneEventFormat| event.clock_rate == clock_rate;
        let event = self.telephone_events.iter().find(same)?;
        Some(event.payload_type)
    }
}

impl OpusParameters {
    /// The text after `a=fmtp:<payload type>`. What is unknown or out of range is as absent.
    pub fn parse(text: &str) -> Self {
        let mut parameters = Self::default();
        for parameter in text.split(';') {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            let (name, value) = (name.trim(), value.trim());
            let named = |wanted: &str| name.eq_ignore_ascii_case(wanted);
            let number = decimal::<u32>(value);
            if named("useinbandfec") {
                parameters.use_inband_fec = number == Some(1);
            } else if named("usedtx") {
                parameters.use_dtx = number == Some(1);
            } else if named("cbr") {
                parameters.constant_bitrate = number == Some(1);
            } else if named("stereo") {
                parameters.stereo = number == Some(1);
            } else if named("maxaveragebitrate") {
                parameters.max_average_bitrate =
                    number.filter(|rate| (6_000..=510_000).contains(rate));
            } else if named("maxplaybackrate") {
                parameters.max_playback_rate =
                    number.filter(|rate| (8_000..=48_000).contains(rate));
            }
        }
        parameters
    }
}

enum Encoding {
    Audio(Codec),
    TelephoneEvent(u32),
    Unknown,
}

/// Payload types that mean something without rtpmap (RFC 3551 table 4).
fn static_encoding(payload_type: u8) -> Encoding {
    match payload_type {
        0 => Encoding::Audio(Codec::Pcmu),
        8 => Encoding::Audio(Codec::Pcma),
        9 => Encoding::Audio(Codec::G722),
        _ => Encoding::Unknown,
    }
}

/// `<name>/<clock>[/<channels>]`
fn read_encoding(text: &str) -> Encoding {
    let mut fields = text.split('/').map(str::trim);
    let name = fields.next().unwrap_or_default();
    let Some(clock_rate) = fields.next().and_then(decimal::<u32>) else {
        return Encoding::Unknown;
    };
    let channels = fields.next().map_or(Some(1), decimal::<u32>);
    if name.eq_ignore_ascii_case("telephone-event") {
        return match clock_rate {
            8000 | 48000 => Encoding::TelephoneEvent(clock_rate),
            _ => Encoding::Unknown,
        };
    }
    let known = Codec::from_client_name(name).filter(|codec| match codec {
        // Must say 48000/2 (RFC 7587 section 7); some say one channel or none and mean the same.
        Codec::Opus => clock_rate == 48000 && matches!(channels, Some(1 | 2)),
        // Some say the sampling rate, and count in 8000 Hz all the same.
        Codec::G722 => matches!(clock_rate, 8000 | 16000) && channels == Some(1),
        _ => clock_rate == codec.clock_rate() && channels == Some(1),
    });
    known.map_or(Encoding::Unknown, Encoding::Audio)
}

/// Length in ms of the packets that we encode for a peer with this `a=ptime` and `a=maxptime`: the
/// longest of 10, 20, 30, 40 and 60 within both, 20 by default, 10 at least.
pub fn packet_time_ms(ptime_ms: Option<u16>, maxptime_ms: Option<u16>) -> u16 {
    let wanted = ptime_ms.unwrap_or(20).min(maxptime_ms.unwrap_or(u16::MAX));
    [60, 40, 30, 20]
        .into_iter()
        .find(|length| *length <= wanted)
        .unwrap_or(10)
}

//! Payload types: what an m-line's formats, rtpmap and fmtp lines mean (RFC 3551, 7587, 4733).

use rtpbridge_shared::vocab::Codec;

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

/// Length in ms of the packets that we encode for a peer with this `a=ptime` and `a=maxptime`: the
/// longest of 10, 20, 30, 40 and 60 within both, 20 by default, 10 at least.
pub fn packet_time_ms(ptime_ms: Option<u16>, maxptime_ms: Option<u16>) -> u16 {
    let wanted = ptime_ms.unwrap_or(20).min(maxptime_ms.unwrap_or(u16::MAX));
    [60, 40, 30, 20]
        .into_iter()
        .find(|length| *length <= wanted)
        .unwrap_or(10)
}

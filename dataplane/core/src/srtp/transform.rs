//! The two ends of an SRTP stream: [`Protector`] for what we send, [`Unprotector`] for what we
//! receive. Both work in place, allocate nothing per packet, and remember an SSRC only after an
//! authentic packet of it (RFC 3711 section 3.3).
//!
//! The protector keeps a window, too: the same index under the same key with other content would
//! give both contents away, so a sequence number can be sent only once.

use super::cipher::{NotAuthentic, SessionKeys};
use super::key::MasterKey;
use super::packet::{self, RtpHeader};
use super::rekey::{Opened, ReceiveKeys};
use super::replay::{self, MAX_RTCP_INDEX, MAX_RTP_INDEX, Verdict, Window};
use super::sources::{Sources, Stream};
use crate::time::Instant;

/// Why a packet was not protected or not accepted. It is to be dropped and counted.
#[derive(Clone, Copy, PartialEq, Eq, Debug, thiserror::Error)]
pub enum SrtpError {
    /// Not RTP or RTCP version 2, too short, lengths that overrun, or SRTCP sent in the clear.
    #[error("malformed packet")]
    Malformed,
    /// The tag does not fit: forged, damaged, or under another key.
    #[error("authentication failed")]
    NotAuthentic,
    /// This index was received, or sent, before.
    #[error("packet index {index} was used before")]
    Replayed {
        /// The packet's index.
        index: u64,
    },
    /// This index is older than the window.
    #[error("packet index {index} is older than the replay window")]
    TooOld {
        /// The packet's index.
        index: u64,
    },
    /// The buffer has no room behind the packet for tag and index; both in bytes.
    #[error("{needed} bytes needed behind the packet, {available} available")]
    NoRoom {
        /// What the suite adds.
        needed: usize,
        /// What the buffer has.
        available: usize,
    },
    /// The key has protected as many packets as it may.
    #[error("the key is used up")]
    KeyUsedUp,
    /// Packets of too many SSRCs were sent under this key.
    #[error("too many sources")]
    TooManySources,
}

/// Encrypts and authenticates what one endpoint sends.
pub struct Protector {
    keys: SessionKeys,
    sources: Sources,
    /// Of the next RTCP packet, whatever its SSRC.
    next_rtcp_index: u64,
}

/// Checks and decrypts what one endpoint receives.
pub struct Unprotector {
    keys: ReceiveKeys,
    sources: Sources,
}

impl Protector {
    /// Starts with roll-over counter and RTCP index zero.
    pub fn new(master: &MasterKey) -> Self {
        Self {
            keys: SessionKeys::derive(master),
            sources: Sources::default(),
            next_rtcp_index: 0,
        }
    }

    /// Protects everything from now on with another key. Roll-over counters and the RTCP index run
    /// on (RFC 3711 section 3.3.1).
    pub fn rekey(&mut self, master: &MasterKey) {
        self.keys = SessionKeys::derive(master);
    }

    /// Protects the RTP packet in the first `len` bytes of `buf` and returns its new length, at
    /// most [`MAX_RTP_OVERHEAD`](super::suite::MAX_RTP_OVERHEAD) more.
    ///
    /// # Errors
    /// Any [`SrtpError`] but `NotAuthentic`; the packet is untouched then.
    pub fn protect_rtp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let header = buf
            .get(..len)
            .and_then(packet::parse_rtp)
            .ok_or(SrtpError::Malformed)?;
        let window = self.sources.window(header.ssrc, Stream::Rtp);
        let index = rtp_index(window, header.sequence).ok_or(SrtpError::KeyUsedUp)?;
        check_fresh(window, index)?;
        if window.is_none() && !self.sources.has_room_for(header.ssrc) {
            return Err(SrtpError::TooManySources);
        }
        let packet = with_tail_room(buf, len, self.keys.rtp_overhead())?;
        self.keys.seal_rtp(packet, header.len, header.ssrc, index);
        let new_len = packet.len();
        self.sources.accept(header.ssrc, Stream::Rtp, index);
        Ok(new_len)
    }

    /// Protects the RTCP packet, compound or not, in the first `len` bytes of `buf` and returns its
    /// new length, at most [`MAX_RTCP_OVERHEAD`](super::suite::MAX_RTCP_OVERHEAD) more.
    ///
    /// # Errors
    /// `Malformed`, `NoRoom` or `KeyUsedUp`; the packet is untouched then.
    pub fn protect_rtcp(&mut self, buf: &mut [u8], len: usize) -> Result<usize, SrtpError> {
        let ssrc = buf
            .get(..len)
            .and_then(packet::parse_rtcp_ssrc)
            .ok_or(SrtpError::Malformed)?;
        if self.next_rtcp_index > MAX_RTCP_INDEX {
            return Err(SrtpError::KeyUsedUp);
        }
        let packet = with_tail_room(buf, len, self.keys.rtcp_overhead())?;
        self.keys
            .seal_rtcp(packet, ssrc, self.next_rtcp_index as u32);
        self.next_rtcp_index += 1;
        Ok(packet.len())
    }
}

impl Unprotector {
    /// Starts with roll-over counter zero.
    pub fn new(master: &MasterKey) -> Self {
        Self {
            keys: ReceiveKeys::new(SessionKeys::derive(master)),
            sources: Sources::default(),
        }
    }

    /// Accepts another key from now on, and the one used so far a little longer (see
    /// [`OVERLAP`](super::rekey::OVERLAP)). Roll-over counters and windows stay.
    pub fn rekey(&mut self, master: &MasterKey, now: Instant) {
        self.keys.replace(SessionKeys::derive(master), now);
    }

    /// When [`Self::handle_timeout`] wants to be called.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.keys.next_timeout()
    }

    /// Wipes the previous key when its time is over.
    pub fn handle_timeout(&mut self, now: Instant) {
        self.keys.handle_timeout(now);
    }

    /// Checks and decrypts the RTP packet that fills `packet` and returns its length without tag.
    ///
    /// # Errors
    /// `Malformed`, `NotAuthentic`, `Replayed`, `TooOld` or `KeyUsedUp`; nothing is remembered of
    /// the packet then, and its content is undefined.
    pub fn unprotect_rtp(&mut self, now: Instant, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let RtpHeader {
            len: header_len,
            sequence,
            ssrc,
        } = packet::parse_rtp(packet).ok_or(SrtpError::Malformed)?;
        let window = self.sources.window(ssrc, Stream::Rtp);
        let index = rtp_index(window, sequence).ok_or(SrtpError::KeyUsedUp)?;
        check_fresh(window, index)?;
        let opened = self.keys.open(now, Stream::Rtp, packet, |keys, packet| {
            let len = keys.open_rtp(packet, header_len, ssrc, index)?;
            Ok::<_, SrtpError>(Opened { len, index })
        })?;
        self.sources.accept(ssrc, Stream::Rtp, opened.index);
        Ok(opened.len)
    }

    /// Checks and decrypts the RTCP packet that fills `packet` and returns its length without tag
    /// and index.
    ///
    /// # Errors
    /// `Malformed`, `NotAuthentic`, `Replayed` or `TooOld`; nothing is remembered of the packet
    /// then, and its content is undefined.
    pub fn unprotect_rtcp(&mut self, now: Instant, packet: &mut [u8]) -> Result<usize, SrtpError> {
        let ssrc = packet::parse_rtcp_ssrc(packet).ok_or(SrtpError::Malformed)?;
        let window = self.sources.window(ssrc, Stream::Rtcp).copied();
        let opened = self.keys.open(now, Stream::Rtcp, packet, |keys, packet| {
            // Without the E flag it was sent in the clear, by whomever.
            let index = keys.rtcp_index(packet).ok_or(SrtpError::NotAuthentic)?;
            check_fresh(window.as_ref(), index.into())?;
            let len = keys.open_rtcp(packet, ssrc, index)?;
            Ok::<_, SrtpError>(Opened {
                len,
                index: index.into(),
            })
        })?;
        self.sources.accept(ssrc, Stream::Rtcp, opened.index);
        Ok(opened.len)
    }

    /// How many SSRCs have been heard under this key, at most 64: the ones silent longest are
    /// forgotten.
    pub fn sources(&self) -> usize {
        self.sources.len()
    }
}

impl From<NotAuthentic> for SrtpError {
    fn from(NotAuthentic: NotAuthentic) -> Self {
        Self::NotAuthentic
    }
}

fn rtp_index(window: Option<&Window>, sequence: u16) -> Option<u64> {
    let index = match window {
        Some(window) => replay::estimate_index(window.highest(), sequence),
        None => sequence.into(),
    };
    (index <= MAX_RTP_INDEX).then_some(index)
}

fn check_fresh(window: Option<&Window>, index: u64) -> Result<(), SrtpError> {
    match window.map_or(Verdict::Fresh, |window| window.verdict(index)) {
        Verdict::Fresh => Ok(()),
        Verdict::Seen => Err(SrtpError::Replayed { index }),
        Verdict::TooOld => Err(SrtpError::TooOld { index }),
    }
}

fn with_tail_room(buf: &mut [u8], len: usize, needed: usize) -> Result<&mut [u8], SrtpError> {
    let available = buf.len().saturating_sub(len);
    buf.get_mut(..len + needed)
        .ok_or(SrtpError::NoRoom { needed, available })
}

#[cfg(test)]
mod tests;

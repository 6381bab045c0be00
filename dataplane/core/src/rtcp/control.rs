//! The RTCP of one endpoint: when to report (RFC 3550 section 6.2, 5 s randomised by half, the first
//! within 1 s), what the peer reported, and the round-trip time.

use std::time::Duration;

use super::parse::{ReportBlock, RtcpPacket, packets};
use super::write::{BlockContents, CNAME_LEN, ReportWriter, SenderInfo};
use crate::entropy::Entropy;
use crate::rtp::reception::Reception;
use crate::rtp::rewrite::OutgoingStream;
use crate::time::{Instant, Moment};

/// Mean time between reports.
const INTERVAL: Duration = Duration::from_secs(5);
/// The first report comes within this time.
const FIRST_WITHIN: Duration = Duration::from_millis(900);
/// Sender reports remembered, to recognise answers to them.
const REMEMBERED: usize = 4;

/// RTCP state of one endpoint.
#[derive(Clone, Debug)]
pub struct ReportControl {
    cname: [u8; CNAME_LEN],
    next_at: Option<Instant>,
    /// Middle NTP timestamp and moment of our last sender reports.
    sent: [Option<(u32, Instant)>; REMEMBERED],
    sent_count: usize,
    /// Packets sent as of the last two reports: who sends none since the second last is no sender.
    packets_before: [u64; 2],
    /// Middle NTP timestamp of the peer's last sender report, and when it came.
    peer_report: Option<(u32, Instant)>,
    round_trip: Option<Duration>,
    peer_fraction_lost: Option<u8>,
}

/// What a compound of the peer says that others must know.
#[derive(Clone, PartialEq, Eq, Default, Debug)]
pub struct PeerCompound {
    /// Nothing in it could be read.
    pub is_malformed: bool,
    /// Who left, and why, when there was a BYE.
    pub goodbye: Option<(Vec<u32>, Option<String>)>,
}

impl ReportControl {
    /// Nothing is reported before [`start`](Self::start). The CNAME is random for each endpoint
    /// (RFC 7022 section 4.2).
    pub fn new(entropy: &mut dyn Entropy) -> Self {
        const LETTERS: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
        let mut cname = [0; CNAME_LEN];
        entropy.fill(&mut cname);
        for byte in &mut cname {
            *byte = LETTERS[usize::from(*byte & 31)];
        }
        Self {
            cname,
            next_at: None,
            sent: [None; REMEMBERED],
            sent_count: 0,
            packets_before: [0; 2],
            peer_report: None,
            round_trip: None,
            peer_fraction_lost: None,
        }
    }

    /// The endpoint is connected.
    pub fn start(&mut self, entropy: &mut dyn Entropy, now: Instant) {
        if self.next_at.is_none() {
            let share = u64::from(entropy.next_u16());
            let micros = FIRST_WITHIN.as_micros() as u64 * share / 0x1_0000;
            self.next_at = Some(now + Duration::from_micros(micros));
        }
    }

    /// The canonical name in our reports (RFC 3550 section 6.5.1).
    pub fn cname(&self) -> &str {
        // Made of ASCII letters and digits in `new`.
        std::str::from_utf8(&self.cname).unwrap_or_default()
    }

    /// When the next report is due.
    pub fn next_timeout(&self) -> Option<Instant> {
        self.next_at
    }

    /// Round-trip time, once the peer has answered a sender report.
    pub fn round_trip(&self) -> Option<Duration> {
        self.round_trip
    }

    /// What the peer last said it loses of our packets, in 1/256.
    pub fn peer_fraction_lost(&self) -> Option<u8> {
        self.peer_fraction_lost
    }

    /// The report that is due; the next one is scheduled.
    pub fn poll(
        &mut self,
        entropy: &mut dyn Entropy,
        stream: &OutgoingStream,
        reception: Option<&mut Reception>,
        now: Moment,
    ) -> Option<ReportWriter> {
        if self.next_at.is_none_or(|due| now.at < due) {
            return None;
        }
        let share = u64::from(entropy.next_u16());
        let micros = INTERVAL.as_micros() as u64;
        let wait = micros / 2 + micros * share / 0x1_0000;
        self.next_at = Some(now.at + Duration::from_micros(wait));
        Some(self.report(stream, reception, now))
    }

    /// The last report, with a BYE.
    pub fn farewell(
        &mut self,
        stream: &OutgoingStream,
        reception: Option<&mut Reception>,
        now: Moment,
    ) -> ReportWriter {
        self.next_at = None;
        let mut writer = self.report(stream, reception, now);
        writer.goodbye(stream.ssrc());
        writer
    }

    /// Reads a compound of the peer.
    pub fn on_compound(
        &mut self,
        datagram: &[u8],
        stream: &OutgoingStream,
        now: Instant,
    ) -> PeerCompound {
        let mut read = PeerCompound {
            is_malformed: true,
            goodbye: None,
        };
        for packet in packets(datagram).flatten() {
            read.is_malformed = false;
            match packet {
                RtcpPacket::SenderReport {
                    ntp_middle,
                    reports,
                    ..
                } => {
                    self.peer_report = Some((ntp_middle, now));
                    self.on_reports(reports.iter(), stream, now);
                }
                RtcpPacket::ReceiverReport { reports, .. } => {
                    self.on_reports(reports.iter(), stream, now);
                }
                RtcpPacket::Goodbye { sources, reason } => {
                    let text = |bytes| String::from_utf8_lossy(bytes).into_owned();
                    read.goodbye = Some((sources.iter().collect(), reason.map(text)));
                }
                RtcpPacket::Other { .. } => {}
            }
        }
        read
    }

    fn on_reports(
        &mut self,
        reports: impl Iterator<Item = ReportBlock>,
        stream: &OutgoingStream,
        now: Instant,
    ) {
        for report in reports.filter(|report| report.ssrc == stream.ssrc()) {
            self.peer_fraction_lost = Some(report.fraction_lost);
            let answered = self.sent.iter().flatten();
            let sent_at = answered
                .filter(|(ntp_middle, _)| *ntp_middle == report.last_report)
                .map(|(_, at)| *at)
                .next_back();
            if let Some(sent_at) = sent_at {
                let held = (u64::from(report.delay_since_last_report) * 1_000_000_000) >> 16;
                let held = Duration::from_nanos(held);
                self.round_trip = Some((now - sent_at).saturating_sub(held));
            }
        }
    }

    fn report(
        &mut self,
        stream: &OutgoingStream,
        reception: Option<&mut Reception>,
        now: Moment,
    ) -> ReportWriter {
        let (packets, octets) = stream.sent();
        let is_sender = packets > self.packets_before[0];
        self.packets_before = [self.packets_before[1], packets];
        let ntp = now.wall.ntp();
        let sender = is_sender.then(|| SenderInfo {
            ntp,
            rtp: stream.timestamp_at(now.at),
            packets: packets as u32,
            octets: octets as u32,
        });
        if is_sender && let Some(place) = self.sent.get_mut(self.sent_count % REMEMBERED) {
            *place = Some(((ntp >> 16) as u32, now.at));
            self.sent_count += 1;
        }
        let (last_report, heard_at) = self.peer_report.unwrap_or((0, now.at));
        let held = (now.at - heard_at).as_nanos() * 65_536 / 1_000_000_000;
        let block = reception.map(|reception| BlockContents {
            reception: reception.report(),
            last_report,
            delay_since_last_report: u32::try_from(held).unwrap_or(u32::MAX),
        });
        let mut writer = ReportWriter::new(stream.ssrc(), sender, block);
        writer.cname(stream.ssrc(), &self.cname);
        writer
    }
}

#[cfg(test)]
#[path = "control/tests.rs"]
mod tests;

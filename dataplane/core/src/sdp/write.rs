//! Our descriptions as text (RFC 8866 section 5), every line ended by CRLF.

use std::fmt::{self, Write};
use std::net::{IpAddr, SocketAddr};

use rtpbridge_shared::vocab::Codec;

use super::local::{LocalDescription, LocalSecurity, LocalWebrtc};
use super::remote::RejectedMedia;
use super::stream::AddressFamily;

/// Enough for most descriptions: what grows leaves copies of keys behind.
const USUAL_LEN: usize = 4096;
/// How many rejected WebRTC streams get transport lines: browsers write them and ignore them, aiortc
/// refuses a description without. Bounded, so that an answer stays in proportion to its offer.
const MAX_DRESSED: usize = 16;
/// Longest packet that we understand, ms.
const MAX_PACKET_MS: u16 = 60;

impl LocalDescription {
    /// The description as text. It contains our SDES keys or ICE password: never log it.
    pub fn write(&self) -> String {
        let mut out = Lines(String::with_capacity(USUAL_LEN));
        self.write_session(&mut out);
        let before = self.layout.index.min(self.layout.others.len());
        let (before, after) = self.layout.others.split_at(before);
        for (index, media) in before.iter().enumerate() {
            self.write_rejected(&mut out, index, media);
        }
        self.write_stream(&mut out);
        for (index, media) in after.iter().enumerate() {
            self.write_rejected(&mut out, before.len() + index, media);
        }
        out.0
    }

    /// Stream `index` of the others, with port 0.
    fn write_rejected(&self, out: &mut Lines, index: usize, media: &RejectedMedia) {
        out.text(format_args!("m={} 0 {}", media.kind, media.proto));
        for format in &media.formats {
            out.text(format_args!(" {format}"));
        }
        if media.formats.is_empty() {
            out.text(format_args!(" 0"));
        }
        out.line(format_args!(""));
        if let Some(mid) = &media.mid {
            out.line(format_args!("a=mid:{mid}"));
        }
        out.line(format_args!("a=inactive"));
        for line in &media.format_lines {
            out.line(format_args!("a={line}"));
        }
        if let LocalSecurity::Webrtc(webrtc) = &self.security
            && index < MAX_DRESSED
        {
            out.line(format_args!("a=rtcp-mux"));
            write_transport(out, webrtc);
        }
    }

    fn write_session(&self, out: &mut Lines) {
        let ip = self.address.ip();
        let family = AddressFamily::of(ip).as_str();
        let (id, version) = (self.origin.session_id, self.origin.version);
        out.line(format_args!("v=0"));
        out.line(format_args!("o=rtpbridge {id} {version} IN {family} {ip}"));
        out.line(format_args!("s=rtpbridge"));
        out.line(format_args!("c=IN {family} {ip}"));
        out.line(format_args!("t=0 0"));
        if let LocalSecurity::Webrtc(webrtc) = &self.security {
            if let Some(mid) = self.mid.as_ref().filter(|_| webrtc.bundled) {
                out.line(format_args!("a=group:BUNDLE {mid}"));
            }
            out.line(format_args!("a=ice-lite"));
        }
    }

    fn write_stream(&self, out: &mut Lines) {
        out.text(format_args!("m=audio {} ", self.address.port()));
        out.text(format_args!("{}", self.profile.as_str()));
        let audio = self.formats.codecs.iter().map(|it| it.payload_type);
        let events = &self.formats.telephone_events;
        for payload_type in audio.chain(events.iter().map(|it| it.payload_type)) {
            out.text(format_args!(" {payload_type}"));
        }
        out.line(format_args!(""));
        if let Some(mid) = &self.mid {
            out.line(format_args!("a=mid:{mid}"));
        }
        for format in &self.formats.codecs {
            let number = format.payload_type;
            out.line(format_args!("a=rtpmap:{number} {}", encoding(format.codec)));
            if format.codec == Codec::Opus {
                out.line(format_args!("a=fmtp:{number} minptime=10;useinbandfec=1"));
            }
        }
        for event in events {
            let (number, clock_rate) = (event.payload_type, event.clock_rate);
            out.line(format_args!(
                "a=rtpmap:{number} telephone-event/{clock_rate}"
            ));
            out.line(format_args!("a=fmtp:{number} 0-16"));
        }
        let direction = self.direction.mirrored();
        out.line(format_args!("a={direction}"));
        if self.rtcp_mux {
            out.line(format_args!("a=rtcp-mux"));
        }
        if self.rtcp_rsize {
            out.line(format_args!("a=rtcp-rsize"));
        }
        match &self.security {
            LocalSecurity::Plain => self.write_packet_times(out),
            LocalSecurity::Sdes(lines) => {
                self.write_packet_times(out);
                for line in lines {
                    out.text(format_args!("a=crypto:"));
                    line.write(&mut out.0);
                    out.line(format_args!(""));
                }
            }
            LocalSecurity::Webrtc(webrtc) => write_webrtc(out, webrtc),
        }
    }

    fn write_packet_times(&self, out: &mut Lines) {
        out.line(format_args!("a=ptime:{}", self.packet_time_ms));
        out.line(format_args!("a=maxptime:{MAX_PACKET_MS}"));
    }
}

fn write_webrtc(out: &mut Lines, webrtc: &LocalWebrtc) {
    for extension in &webrtc.extensions {
        let uri = extension.kind.uri();
        out.line(format_args!("a=extmap:{} {uri}", extension.id));
    }
    write_transport(out, webrtc);
    let (ssrc, cname) = (webrtc.source.ssrc, &webrtc.source.cname);
    out.line(format_args!("a=msid:{cname} {cname}-audio"));
    out.line(format_args!("a=ssrc:{ssrc} cname:{cname}"));
    out.line(format_args!("a=ssrc:{ssrc} msid:{cname} {cname}-audio"));
    for (index, candidate) in webrtc.candidates.iter().enumerate() {
        write_candidate(out, index, *candidate);
    }
    out.line(format_args!("a=end-of-candidates"));
}

fn write_transport(out: &mut Lines, webrtc: &LocalWebrtc) {
    out.line(format_args!("a=ice-ufrag:{}", webrtc.ice.ufrag()));
    out.line(format_args!("a=ice-pwd:{}", webrtc.ice.password()));
    out.line(format_args!("a=fingerprint:{}", webrtc.fingerprint));
    out.line(format_args!("a=setup:{}", webrtc.setup.as_str()));
}

/// A host candidate; its priority is that of RFC 8445 section 5.1.2.1, the local preference falling
/// with the index.
fn write_candidate(out: &mut Lines, index: usize, address: SocketAddr) {
    let local_preference = u32::from(u16::MAX.saturating_sub(u16::try_from(index).unwrap_or(0)));
    let priority = (126 << 24) + (local_preference << 8) + 255;
    let foundation = index + 1;
    let (ip, port): (IpAddr, u16) = (address.ip(), address.port());
    out.line(format_args!(
        "a=candidate:{foundation} 1 udp {priority} {ip} {port} typ host"
    ));
}

fn encoding(codec: Codec) -> &'static str {
    match codec {
        Codec::Pcmu => "PCMU/8000",
        Codec::Pcma => "PCMA/8000",
        Codec::G722 => "G722/8000",
        Codec::Opus => "opus/48000/2",
        Codec::L16 => "L16/48000",
    }
}

/// Text that cannot fail to grow.
struct Lines(String);

impl Lines {
    fn text(&mut self, text: fmt::Arguments<'_>) {
        // Writing to a String never fails.
        let _ = self.0.write_fmt(text);
    }

    fn line(&mut self, text: fmt::Arguments<'_>) {
        self.text(text);
        self.0.push_str("\r\n");
    }
}

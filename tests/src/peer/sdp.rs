//! Session descriptions as a phone would write and read them.

use std::net::{IpAddr, SocketAddr};

/// An offer or answer of a party.
#[derive(Clone, Debug)]
pub struct Offer {
    /// Where it wants its RTP.
    pub media: SocketAddr,
    /// Transport of the m-line.
    pub transport: String,
    /// Payload types with their rtpmap, in order.
    pub codecs: Vec<(u8, String)>,
    /// `a=` lines of the media section, without the prefix.
    pub attributes: Vec<String>,
}

impl Offer {
    /// PCMU and telephone-event, both ways.
    pub fn pcmu(media: SocketAddr) -> Self {
        Self::with_codecs(media, &[(0, "PCMU/8000"), (101, "telephone-event/8000")])
    }

    /// Any list of codecs.
    pub fn with_codecs(media: SocketAddr, codecs: &[(u8, &str)]) -> Self {
        Self {
            media,
            transport: "RTP/AVP".to_owned(),
            codecs: codecs
                .iter()
                .map(|(payload_type, map)| (*payload_type, (*map).to_owned()))
                .collect(),
            attributes: Vec::new(),
        }
    }

    /// Adds an attribute line.
    #[must_use]
    pub fn attribute(mut self, line: &str) -> Self {
        self.attributes.push(line.to_owned());
        self
    }

    /// The text.
    pub fn write(&self) -> String {
        let family = if self.media.is_ipv4() { "IP4" } else { "IP6" };
        let ip = self.media.ip();
        let list: Vec<String> = self.codecs.iter().map(|(pt, _)| pt.to_string()).collect();
        let mut text = format!(
            "v=0\r\no=party 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
             m=audio {} {} {}\r\n",
            self.media.port(),
            self.transport,
            list.join(" ")
        );
        for (payload_type, map) in &self.codecs {
            text.push_str(&format!("a=rtpmap:{payload_type} {map}\r\n"));
            if map.starts_with("telephone-event") {
                text.push_str(&format!("a=fmtp:{payload_type} 0-16\r\n"));
            }
        }
        for line in &self.attributes {
            text.push_str(&format!("a={line}\r\n"));
        }
        text
    }
}

/// One m-line with what belongs to it.
#[derive(Clone, Debug, Default)]
pub struct Section {
    /// audio, video, …
    pub kind: String,
    /// Port.
    pub port: u16,
    /// Transport.
    pub transport: String,
    /// Formats as written.
    pub formats: Vec<String>,
    /// `a=` lines without the prefix.
    pub attributes: Vec<String>,
    /// Address of its own c= line.
    pub connection: Option<String>,
}

/// A description read line by line.
#[derive(Clone, Debug, Default)]
pub struct Description {
    /// The o= line's value.
    pub origin: String,
    /// The s= line's value.
    pub name: String,
    /// Address of the session-level c= line.
    pub connection: Option<String>,
    /// Session-level `a=` lines.
    pub attributes: Vec<String>,
    /// All m-lines.
    pub sections: Vec<Section>,
}

impl Description {
    /// Reads a description of ours; every line must be `x=value` and end in CRLF.
    pub fn parse(text: &str) -> Self {
        assert!(text.ends_with("\r\n"), "descriptions end in CRLF: {text:?}");
        let mut description = Self::default();
        for line in text.trim_end().split("\r\n") {
            let (kind, value) = line
                .split_once('=')
                .unwrap_or_else(|| panic!("not an SDP line: {line:?}"));
            let section = description.sections.last_mut();
            match (kind, section) {
                ("m", _) => description.sections.push(section_of(value)),
                ("o", _) => description.origin = value.to_owned(),
                ("s", _) => description.name = value.to_owned(),
                ("c", Some(section)) => section.connection = address_of(value),
                ("c", None) => description.connection = address_of(value),
                ("a", Some(section)) => section.attributes.push(value.to_owned()),
                ("a", None) => description.attributes.push(value.to_owned()),
                _ => {}
            }
        }
        description
    }

    /// The accepted audio section.
    pub fn audio(&self) -> &Section {
        self.sections
            .iter()
            .find(|section| section.kind == "audio" && section.port != 0)
            .expect("an accepted audio section")
    }

    /// Where the audio section wants its RTP.
    pub fn address(&self) -> SocketAddr {
        let audio = self.audio();
        let ip: IpAddr = audio
            .connection
            .as_ref()
            .or(self.connection.as_ref())
            .and_then(|text| text.parse().ok())
            .expect("a connection address");
        SocketAddr::new(ip, audio.port)
    }

    /// Version in the o= line.
    pub fn version(&self) -> u64 {
        let version = self.origin.split(' ').nth(2).expect("o= has a version");
        version.parse().expect("a number")
    }

    /// The audio section's direction, `sendrecv` when none is said.
    pub fn direction(&self) -> &str {
        ["sendrecv", "sendonly", "recvonly", "inactive"]
            .into_iter()
            .find(|word| self.audio().has(word))
            .unwrap_or("sendrecv")
    }

    /// Payload type whose rtpmap begins with `name/`.
    pub fn payload_type(&self, name: &str) -> Option<u8> {
        self.audio().attributes.iter().find_map(|line| {
            let (payload_type, map) = line.strip_prefix("rtpmap:")?.split_once(' ')?;
            let (codec, _) = map.split_once('/')?;
            codec
                .eq_ignore_ascii_case(name)
                .then(|| payload_type.parse().ok())?
        })
    }
}

impl Section {
    /// Whether the attribute stands there without a value.
    pub fn has(&self, attribute: &str) -> bool {
        self.attributes.iter().any(|line| line == attribute)
    }

    /// Values of an attribute.
    pub fn values<'a>(&'a self, attribute: &'a str) -> impl Iterator<Item = &'a str> {
        self.attributes
            .iter()
            .filter_map(move |line| line.strip_prefix(attribute)?.strip_prefix(':'))
    }
}

fn section_of(value: &str) -> Section {
    let mut words = value.split(' ');
    let mut next = || words.next().unwrap_or_default().to_owned();
    let (kind, port, transport) = (next(), next(), next());
    Section {
        kind,
        port: port.parse().expect("a port"),
        transport,
        formats: value.split(' ').skip(3).map(str::to_owned).collect(),
        attributes: Vec::new(),
        connection: None,
    }
}

fn address_of(value: &str) -> Option<String> {
    value.split(' ').nth(2).map(str::to_owned)
}

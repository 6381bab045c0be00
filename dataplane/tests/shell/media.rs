//! Calls over plain RTP through the real program.

use std::net::{IpAddr, SocketAddr, UdpSocket};
use std::time::{Duration, Instant};

use rtpbridge_shared::id::{EndpointId, SessionId};
use rtpbridge_shared::ipc::endpoint::CreateFromOffer;
use rtpbridge_shared::ipc::{Event, Reply, Request, RequestError, Role};
use rtpbridge_shared::vocab::Direction;

use crate::harness::{Dataplane, Link, PATIENCE};

/// One end of a call: a PCMU phone on a loopback address.
pub(crate) struct Party {
    pub(crate) rtp: UdpSocket,
    rtcp: UdpSocket,
    pub(crate) endpoint: EndpointId,
    bridge: SocketAddr,
    pub(crate) ssrc: u32,
    sequence: u16,
}

impl Party {
    /// Joins `session` with an offer of PCMU and telephone-event.
    pub(crate) fn join(link: &mut Link, session: SessionId, ip: &str, ssrc: u32) -> Self {
        let (rtp, rtcp) = bind_pair(ip);
        let endpoint = EndpointId::random();
        let local = rtp.local_addr().expect("bound");
        let answer = link.request(create(session, endpoint, local));
        let Ok(Reply::Sdp(answer)) = answer else {
            panic!("{answer:?}");
        };
        Self {
            rtp,
            rtcp,
            endpoint,
            bridge: address_in(&answer),
            ssrc,
            sequence: 100,
        }
    }

    /// Sends one packet whose payload begins with `mark`.
    pub(crate) fn say(&mut self, mark: u32) {
        let packet = self.packet(mark);
        self.rtp.send_to(&packet, self.bridge).expect("sends");
    }

    /// Leaves out a sequence number.
    pub(crate) fn lose(&mut self) {
        self.sequence = self.sequence.wrapping_add(1);
    }

    fn packet(&mut self, mark: u32) -> Vec<u8> {
        let mut packet = vec![0x80, 0];
        packet.extend(self.sequence.to_be_bytes());
        packet.extend((u32::from(self.sequence) * 160).to_be_bytes());
        packet.extend(self.ssrc.to_be_bytes());
        packet.extend(mark.to_be_bytes());
        packet.extend([0x55; 156]);
        self.sequence = self.sequence.wrapping_add(1);
        packet
    }

    /// The next audio packet: sequence number and mark.
    pub(crate) fn hear(&self) -> (u16, u32) {
        let mut buffer = [0; 2048];
        self.rtp.set_read_timeout(Some(PATIENCE)).expect("sets");
        loop {
            let bytes = self.rtp.recv(&mut buffer).expect("hears something");
            let packet = &buffer[..bytes];
            // RTCP may come to the same port.
            if packet.len() == 172 {
                let sequence = u16::from_be_bytes([packet[2], packet[3]]);
                return (
                    sequence,
                    u32::from_be_bytes(packet[12..16].try_into().expect("4")),
                );
            }
        }
    }

    /// Whether nothing comes for a moment.
    fn hears_nothing(&self) -> bool {
        let moment = Some(Duration::from_millis(200));
        self.rtp.set_read_timeout(moment).expect("sets");
        self.rtp.recv(&mut [0; 2048]).is_err()
    }
}

pub(crate) fn bind_pair(ip: &str) -> (UdpSocket, UdpSocket) {
    for _ in 0..100 {
        let rtp = UdpSocket::bind((ip, 0)).expect("binds");
        let port = rtp.local_addr().expect("bound").port();
        if port.is_multiple_of(2)
            && let Ok(rtcp) = UdpSocket::bind((ip, port + 1))
        {
            return (rtp, rtcp);
        }
    }
    panic!("no free pair of ports");
}

fn create(session: SessionId, endpoint: EndpointId, local: SocketAddr) -> Request {
    let family = if local.is_ipv4() { "IP4" } else { "IP6" };
    let (ip, port) = (local.ip(), local.port());
    let sdp = format!(
        "v=0\r\no=- 1 1 IN {family} {ip}\r\ns=-\r\nc=IN {family} {ip}\r\nt=0 0\r\n\
         m=audio {port} RTP/AVP 0 101\r\na=rtpmap:0 PCMU/8000\r\n\
         a=rtpmap:101 telephone-event/8000\r\na=sendrecv\r\n"
    );
    Request::EndpointCreateFromOffer(CreateFromOffer {
        session,
        endpoint,
        sdp,
        direction: Direction::Sendrecv,
        transport: None,
    })
}

/// Where an SDP of ours wants to be sent to.
fn address_in(sdp: &str) -> SocketAddr {
    let word = |prefix: &str, at: usize| {
        let line = sdp.lines().find(|line| line.starts_with(prefix));
        let line = line.unwrap_or_else(|| panic!("no {prefix} in {sdp}"));
        line.split(' ').nth(at).expect("a word").to_owned()
    };
    let ip: IpAddr = word("c=", 2).parse().expect("an address");
    SocketAddr::new(ip, word("m=", 1).parse().expect("a port"))
}

/// A call of two that has been heard both ways.
pub(crate) fn call(link: &mut Link, ip: &str) -> (SessionId, Party, Party) {
    let session = link.create_session();
    let a = Party::join(link, session, ip, 0xa);
    let b = Party::join(link, session, ip, 0xb);
    (session, a, b)
}

#[test]
fn a_call_passes_both_ways_with_its_gaps() {
    let ip = "127.4.2.1";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (_session, mut a, mut b) = call(&mut link, ip);
    a.say(1);
    let (first, mark) = b.hear();
    assert_eq!(mark, 1);
    a.lose();
    for mark in 2..50 {
        a.say(mark);
        b.say(1000 + mark);
        assert_eq!(b.hear(), (first.wrapping_add(mark as u16), mark));
        assert_eq!(a.hear().1, 1000 + mark);
    }
}

#[test]
fn a_burst_comes_through_whole_and_in_order() {
    let ip = "127.4.2.2";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (_session, mut a, b) = call(&mut link, ip);
    for round in 0..20 {
        (0..100).for_each(|mark| a.say(round * 100 + mark));
        let heard: Vec<u32> = (0..100).map(|_| b.hear().1).collect();
        let said: Vec<u32> = (0..100).map(|mark| round * 100 + mark).collect();
        assert_eq!(heard, said);
    }
}

#[test]
fn media_flows_on_while_controllers_come_and_go() {
    let ip = "127.4.2.3";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    let mut mark = 0;
    let mut talk = |packets: u32| {
        for _ in 0..packets {
            mark += 1;
            a.say(mark);
            assert_eq!(b.hear().1, mark);
        }
    };
    talk(10);
    drop(link);
    talk(10);
    let deadline = Instant::now() + PATIENCE;
    let mut observer = Link::open(&dataplane.socket(), Role::Observer);
    loop {
        let Ok(Reply::Status(status)) = observer.request(Request::Status) else {
            panic!("no status");
        };
        if !status.controller_connected {
            break;
        }
        assert!(Instant::now() < deadline);
    }
    let mut next = dataplane.controller();
    let attached = next.request(Request::SessionAttach { session });
    assert!(matches!(attached, Ok(Reply::Attached(_))), "{attached:?}");
    talk(10);
    let metrics = next.request(Request::Metrics);
    let Ok(Reply::Metrics(metrics)) = metrics else {
        panic!("{metrics:?}");
    };
    assert!(metrics.packets_received >= 30 && metrics.packets_routed >= 30);
    assert_eq!((metrics.sessions_total, metrics.endpoints_active), (1, 2));
    assert!(metrics.forward_latency.count >= 1);
}

#[test]
fn removing_an_endpoint_says_bye_and_frees_its_ports() {
    let ip = "127.4.2.4";
    let dataplane = Dataplane::start(ip, &[("rtp_port_range", "40000,40003")]);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    a.say(1);
    assert_eq!(b.hear().1, 1);
    let (spare, _rtcp) = bind_pair(ip);
    let local = spare.local_addr().expect("bound");
    let refused = link.request(create(session, EndpointId::random(), local));
    assert!(matches!(refused, Err(RequestError::Endpoint(text)) if text.contains("in use")));
    let endpoint = b.endpoint;
    let removed = link.request(Request::EndpointRemove { session, endpoint });
    assert_eq!(removed, Ok(Reply::Recordings(Vec::new())));
    let mut buffer = [0; 2048];
    b.rtcp.set_read_timeout(Some(PATIENCE)).expect("sets");
    let bye = loop {
        let bytes = b.rtcp.recv(&mut buffer).expect("RTCP");
        // Of a compound packet, the last one (RFC 3550 section 6.6).
        if buffer[..bytes]
            .windows(2)
            .any(|w| w[0] & 0xc0 == 0x80 && w[1] == 203)
        {
            break true;
        }
    };
    assert!(bye);
    a.say(2);
    assert!(b.hears_nothing());
    let again = link.request(create(session, EndpointId::random(), local));
    assert!(matches!(again, Ok(Reply::Sdp(_))), "{again:?}");
}

#[test]
fn an_ipv6_call_works_and_a_missing_family_is_an_error() {
    let dataplane = Dataplane::start("::1", &[]);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, "::1");
    a.say(7);
    assert_eq!(b.hear().1, 7);
    let local = SocketAddr::from(([127, 0, 0, 1], 5004));
    let refused = link.request(create(session, EndpointId::random(), local));
    assert!(
        matches!(refused, Err(RequestError::Endpoint(_))),
        "{refused:?}"
    );
}

#[test]
fn silence_is_reported_by_its_timer() {
    let ip = "127.4.2.6";
    let dataplane = Dataplane::start(ip, &[("media_timeout_secs", "1")]);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    a.say(1);
    assert_eq!(b.hear().1, 1);
    let (_, event) = link.event(
        session,
        |event| matches!(event, Event::MediaTimeout { endpoint, .. } if *endpoint == a.endpoint),
    );
    let Event::MediaTimeout { duration_ms, .. } = event else {
        unreachable!("just matched");
    };
    assert!((1000..3000).contains(&duration_ms), "{duration_ms}");
}

#[test]
fn an_observer_from_before_does_not_take_the_events_away() {
    let ip = "127.4.2.8";
    let dataplane = Dataplane::start(ip, &[("media_timeout_secs", "1")]);
    let mut observer = Link::open(&dataplane.socket(), Role::Observer);
    let mut link = dataplane.controller();
    let (session, mut a, b) = call(&mut link, ip);
    a.say(1);
    assert_eq!(b.hear().1, 1);
    let info = observer.request(Request::SessionInfo { session });
    assert!(info.is_ok(), "{info:?}");
    link.event(session, |event| matches!(event, Event::MediaTimeout { .. }));
}

#[test]
fn many_calls_come_and_go_without_a_trace() {
    let ip = "127.4.2.7";
    let dataplane = Dataplane::start(ip, &[]);
    let mut link = dataplane.controller();
    let descriptors = |link: &mut Link| {
        let Ok(Reply::Metrics(metrics)) = link.request(Request::Metrics) else {
            panic!("no metrics");
        };
        assert_eq!((metrics.sessions_active, metrics.endpoints_active), (0, 0));
        metrics.process.open_fds
    };
    let before = descriptors(&mut link);
    for _ in 0..3 {
        let sessions: Vec<SessionId> = (0..100)
            .map(|_| {
                let (session, mut a, b) = call(&mut link, ip);
                a.say(5);
                assert_eq!(b.hear().1, 5);
                session
            })
            .collect();
        for session in sessions {
            let destroyed = link.request(Request::SessionDestroy { session });
            assert_eq!(destroyed, Ok(Reply::Recordings(Vec::new())));
        }
        assert_eq!(descriptors(&mut link), before);
    }
}

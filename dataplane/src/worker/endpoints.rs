//! Endpoints on a worker: sockets are bound before the session sees the endpoint and closed after it
//! has forgotten it.

use std::net::SocketAddr;

use rtpbridge_core::session::{
    Channel, EndpointKey, EndpointSockets, LocalSocket, PreparedEndpoint, SocketKey,
};
use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::{Reply, RequestError};
use rtpbridge_shared::vocab::{StopReason, Transport};

use super::Worker;
use super::output::SocketEntry;
use super::recordings::After;
use super::turn::guarded;
use crate::ipc::outbox::Ticket;
use crate::ports::PortError;
use crate::sys::udp::UdpSocket;

impl From<PortError> for RequestError {
    fn from(error: PortError) -> Self {
        RequestError::Endpoint(error.to_string())
    }
}

impl Worker {
    /// Second half of every endpoint with sockets of its own.
    pub(super) fn create_endpoint(
        &mut self,
        key: u64,
        prepared: PreparedEndpoint,
    ) -> Result<Reply, RequestError> {
        let need = prepared.need();
        let (ports, ipv4) = (&self.shared.ports, need.address.is_ipv4());
        let (media, second) = match need.transport {
            Transport::Rtp => {
                let pair = ports.bind_pair(ipv4, self.out.now_ns)?;
                (pair.rtp, Some(pair.rtcp))
            }
            Transport::Webrtc => {
                let second = need.second.map(|ip| ports.bind_single(ip.is_ipv4()));
                (ports.bind_single(ipv4)?, second.transpose()?)
            }
        };
        let paired = need.transport == Transport::Rtp;
        let sockets = self.register(key, media, second, paired)?;
        let Some(slot) = self.sessions.get_mut(key) else {
            self.close_sockets(sockets);
            return Err(RequestError::SessionGone);
        };
        let (now, out) = (self.now, &mut self.out);
        let mut created = Err(RequestError::Internal("panic".to_owned()));
        let unharmed = guarded(&mut slot.session, |session| {
            created = session.create_endpoint(now, prepared, sockets, out);
        });
        if !unharmed {
            self.on_panic(key);
        }
        match created {
            Ok(created) => {
                self.endpoints_total += 1;
                self.assign(sockets, created.key);
                Ok(Reply::Sdp(created.sdp))
            }
            Err(refused) => {
                self.close_sockets(sockets);
                Err(refused)
            }
        }
    }

    pub(super) fn remove_endpoint(&mut self, key: u64, endpoint: EndpointId, ticket: Ticket) {
        let Some(slot) = self.sessions.get_mut(key) else {
            return;
        };
        let (now, out) = (self.now, &mut self.out);
        let mut removed = Err(RequestError::Internal("panic".to_owned()));
        let unharmed = guarded(&mut slot.session, |session| {
            removed = session.remove_endpoint(now, endpoint, out);
        });
        match removed {
            Err(refused) => ticket.answer(Err(refused)),
            Ok(removed) => {
                if let Some(sockets) = removed.sockets {
                    self.close_sockets(sockets);
                }
                let ended = removed.recordings.iter().map(|ended| ended.key.0);
                let after = After::Stopped(ticket);
                self.send_counts(key);
                let ended = (key, ended.collect());
                let reason = StopReason::EndpointRemoved;
                match removed.far_end {
                    None => self.stop_recordings(ended.0, ended.1, reason, after),
                    Some(far) => {
                        self.shared.bridges.remove(endpoint);
                        self.take_leave(ended, reason, after, vec![far]);
                    }
                }
            }
        }
        self.after_turn_of(key, unharmed);
    }

    /// Closes an endpoint's sockets, gives their ports back, and ends its DTLS association with a
    /// goodbye wherever it was speaking.
    pub(super) fn close_sockets(&mut self, sockets: EndpointSockets) {
        let media = sockets.media.key.0;
        let second = sockets.second.and_then(|it| self.close_socket(it.key.0));
        let spoken_over = second.into_iter().chain(self.close_socket(media));
        let (spoken_over, now_ns) = (spoken_over.collect(), self.out.now_ns);
        self.out.handshakes.leave(media, spoken_over, now_ns);
    }

    /// Closes a socket and gives its port back; one that a goodbye can be said over comes with whom
    /// it spoke to. The second of a pair before the first.
    pub(super) fn close_socket(&mut self, key: u64) -> Option<(UdpSocket, SocketAddr)> {
        let (entry, _) = self.take_socket(key)?;
        if !entry.paired {
            return Some((entry.socket, entry.last_sent_to?));
        }
        let local = entry.socket.local();
        drop(entry.socket);
        if entry.channel == Channel::Media {
            self.shared.ports.release_pair(local, self.out.now_ns);
        }
        None
    }

    fn register(
        &mut self,
        session: u64,
        media: UdpSocket,
        second: Option<UdpSocket>,
        paired: bool,
    ) -> Result<EndpointSockets, RequestError> {
        let media = self.register_one(session, media, Channel::Media, paired);
        let second = second.map(|it| self.register_one(session, it, Channel::Second, paired));
        let sockets = EndpointSockets { media, second };
        for socket in sockets.iter() {
            if let Err(error) = self.watch_socket(socket.key.0) {
                self.close_sockets(sockets);
                return Err(RequestError::Endpoint(format!(
                    "cannot wait for it: {error}"
                )));
            }
        }
        Ok(sockets)
    }

    fn register_one(
        &mut self,
        session: u64,
        socket: UdpSocket,
        channel: Channel,
        paired: bool,
    ) -> LocalSocket {
        let local = socket.local();
        let key = self.out.sockets.insert_with(|_| SocketEntry {
            socket,
            place: None,
            session,
            // Known in a moment; nothing is read before.
            endpoint: EndpointKey(u32::MAX),
            channel,
            paired,
            last_sent_to: None,
            last_turn: 0,
        });
        let advertise = self.shared.settings.media_advertise_ip;
        let shown = advertise.and_then(|shown| shown.same_family(local.ip()));
        LocalSocket {
            key: SocketKey(key),
            local,
            advertised: SocketAddr::new(shown.unwrap_or(local.ip()), local.port()),
        }
    }

    pub(super) fn assign(&mut self, sockets: EndpointSockets, endpoint: EndpointKey) {
        for socket in sockets.iter() {
            if let Some(entry) = self.out.sockets.get_mut(socket.key.0) {
                entry.endpoint = endpoint;
            }
        }
    }
}

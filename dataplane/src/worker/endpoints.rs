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
        let ipv4 = need.address.is_ipv4();
        let (media, rtcp) = match need.transport {
            Transport::Rtp => {
                let pair = self.shared.ports.bind_pair(ipv4, self.out.now_ns)?;
                (pair.rtp, Some(pair.rtcp))
            }
            Transport::Webrtc => (self.shared.ports.bind_single(ipv4)?, None),
        };
        let sockets = self.register(key, media, rtcp)?;
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

    pub(super) fn close_sockets(&mut self, sockets: EndpointSockets) {
        if let Some(rtcp) = sockets.rtcp {
            self.close_socket(rtcp.key.0);
        }
        self.close_socket(sockets.media.key.0);
    }

    /// Closes a socket, gives its port back, and ends its DTLS association with a goodbye.
    pub(super) fn close_socket(&mut self, key: u64) {
        let Some((entry, _)) = self.take_socket(key) else {
            return;
        };
        let (local, now_ns) = (entry.socket.local(), self.out.now_ns);
        if entry.paired {
            drop(entry.socket);
            if entry.channel == Channel::Media {
                self.shared.ports.release_pair(local, now_ns);
            }
        } else {
            let to = entry.last_sent_to;
            self.out.handshakes.leave(key, entry.socket, to, now_ns);
        }
    }

    fn register(
        &mut self,
        session: u64,
        media: UdpSocket,
        rtcp: Option<UdpSocket>,
    ) -> Result<EndpointSockets, RequestError> {
        let paired = rtcp.is_some();
        let media = self.register_one(session, media, Channel::Media, paired);
        let rtcp = rtcp.map(|rtcp| self.register_one(session, rtcp, Channel::Rtcp, paired));
        let sockets = EndpointSockets { media, rtcp };
        let keys = [Some(media.key.0), rtcp.map(|rtcp| rtcp.key.0)];
        for key in keys.into_iter().flatten() {
            if let Err(error) = self.watch_socket(key) {
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
        let keys = [Some(sockets.media.key), sockets.rtcp.map(|rtcp| rtcp.key)];
        for key in keys.into_iter().flatten() {
            if let Some(entry) = self.out.sockets.get_mut(key.0) {
                entry.endpoint = endpoint;
            }
        }
    }
}

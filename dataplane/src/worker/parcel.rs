//! What a transferred endpoint takes along that is the shell's: its sockets with what they have
//! received, and its handshake. At every instant one worker at most receives from a socket.

use rtpbridge_core::session::{DetachedEndpoint, EndpointSockets, LocalSocket, SocketKey};
use rtpbridge_shared::id::SessionId;
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::endpoint::Transfer;
use tracing::error;

use super::Worker;
use super::moves::ReplyTo;
use super::output::SocketEntry;
use super::sockets::Mail;
use crate::handshake::Association;

/// Session key of sockets whose session has ended.
const NOBODY: u64 = u64::MAX;

/// An endpoint between two sessions, with everything of it that is the shell's.
pub(crate) struct Parcel {
    pub(super) endpoint: Box<DetachedEndpoint>,
    /// The session it left.
    pub(super) source: SessionId,
    /// The session it goes to.
    pub(super) target: SessionId,
    media: Option<(SocketEntry, Mail)>,
    second: Option<(SocketEntry, Mail)>,
    association: Option<Association>,
    stamp_until_ns: u64,
    pub(super) reply: ReplyTo,
}

/// What an endpoint's sockets had received.
#[derive(Default)]
struct EndpointMail {
    media: Mail,
    second: Mail,
}

impl Worker {
    /// Takes an endpoint out of its session, and its sockets out of what this worker receives from.
    pub(super) fn pack(
        &mut self,
        session: u64,
        request: &Transfer,
        reply: ReplyTo,
    ) -> Result<Box<Parcel>, RequestError> {
        let endpoint = request.endpoint;
        let endpoint = self.with_session(session, |s, now, _| s.detach(now, endpoint))?;
        let sockets = endpoint.sockets();
        let media = sockets.map(|sockets| sockets.media.key.0);
        let second = sockets.and_then(|sockets| sockets.second);
        let media_entry = media.and_then(|key| self.take_socket(key));
        let second_entry = second.and_then(|second| self.take_socket(second.key.0));
        let association = media.and_then(|key| self.out.handshakes.take(key));
        let stamp_until_ns = self.sessions.get(session).map_or(0, |s| s.stamp_until_ns());
        self.after_turn_of(session, true);
        Ok(Box::new(Parcel {
            endpoint,
            source: request.session,
            target: request.target_session,
            media: media_entry,
            second: second_entry,
            association,
            stamp_until_ns,
            reply,
        }))
    }

    /// Puts an endpoint into a session; gives it back when the session will not have it.
    pub(super) fn unpack(
        &mut self,
        session: u64,
        mut parcel: Box<Parcel>,
        from: Option<SessionId>,
    ) -> Result<(), Box<Parcel>> {
        if self.sessions.get(session).is_none_or(|slot| slot.closing) {
            return Err(parcel);
        }
        let (sockets, mail) = match self.settle(session, &mut parcel) {
            Some((sockets, mail)) => (Some(sockets), mail),
            None => (None, EndpointMail::default()),
        };
        let Some(slot) = self.sessions.get_mut(session) else {
            return Err(parcel);
        };
        slot.stamp_until(parcel.stamp_until_ns);
        let Parcel {
            endpoint,
            source,
            target,
            reply,
            stamp_until_ns,
            ..
        } = *parcel;
        // A panic takes the endpoint along: its sockets are the session's already.
        let mut refused = None;
        let inserted = self.with_session(session, |session, now, out| {
            let inserted = session.insert(now, endpoint, from, out);
            inserted.map_err(|(endpoint, error)| {
                refused = Some(endpoint);
                error
            })
        });
        if let (Ok(key), Some(sockets)) = (&inserted, sockets) {
            self.assign(sockets, *key);
            self.deliver(sockets.media.key.0, &mail.media);
            if let Some(second) = sockets.second {
                self.deliver(second.key.0, &mail.second);
            }
        }
        let Some(endpoint) = refused else {
            return Ok(());
        };
        let media = sockets.and_then(|sockets| self.take_again(sockets.media.key.0, mail.media));
        let second = sockets.and_then(|sockets| sockets.second);
        let second = second.and_then(|second| self.take_again(second.key.0, mail.second));
        let association = sockets.and_then(|s| self.out.handshakes.take(s.media.key.0));
        Err(Box::new(Parcel {
            endpoint,
            source,
            target,
            media,
            second,
            association,
            stamp_until_ns,
            reply,
        }))
    }

    /// Takes a socket out whose mail was not delivered.
    fn take_again(&mut self, key: u64, mut mail: Mail) -> Option<(SocketEntry, Mail)> {
        let (entry, later) = self.take_socket(key)?;
        mail.extend(later);
        Some((entry, mail))
    }

    /// Gives the sockets of a parcel keys of this worker, and has it receive from them.
    fn settle(
        &mut self,
        session: u64,
        parcel: &mut Parcel,
    ) -> Option<(EndpointSockets, EndpointMail)> {
        let before = parcel.endpoint.sockets()?;
        let mut mail = EndpointMail::default();
        let media;
        (media, mail.media) = parcel.media.take()?;
        let media = self.settle_one(session, before.media, media);
        let second = before.second.zip(parcel.second.take());
        let second = second.map(|(known, (entry, second_mail))| {
            mail.second = second_mail;
            self.settle_one(session, known, entry)
        });
        let sockets = EndpointSockets { media, second };
        parcel.endpoint.rename_sockets(sockets);
        if let Some(association) = parcel.association.take() {
            self.out.handshakes.adopt(media.key.0, association);
        }
        Some((sockets, mail))
    }

    fn settle_one(&mut self, session: u64, known: LocalSocket, entry: SocketEntry) -> LocalSocket {
        let key = self.out.sockets.insert_with(|_| SocketEntry {
            session,
            last_turn: 0,
            ..entry
        });
        if let Err(error) = self.watch_socket(key) {
            // It had a place in a set a moment ago; without one the endpoint is deaf, not lost.
            error!(%error, "cannot wait for the socket of a transferred endpoint");
        }
        LocalSocket {
            key: SocketKey(key),
            ..known
        }
    }

    /// Neither session is there any more.
    pub(super) fn discard(&mut self, mut parcel: Parcel) {
        self.settle(NOBODY, &mut parcel);
        if let Some(sockets) = parcel.endpoint.discard(self.now, &mut self.out) {
            self.close_sockets(sockets);
        }
    }
}

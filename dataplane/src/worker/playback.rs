//! Files on a worker. They are opened and decoded on the pool's threads; what came of it comes back
//! as a command, so that the worker never touches a disk.
//!
//! ```text
//! local file: request ─► pool: open, decode ─► endpoint ─► answer
//! URL:        request ─► endpoint, buffering ─► answer;  fetched ─► pool: open, decode ─► playing
//! ```

use std::fs::File;

use rtpbridge_core::session::{OpenedFile, PlayOrder, Session};
use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::playback::{FileCreate, FileFetched, FileSource};
use rtpbridge_shared::ipc::{Reply, RequestError};

use super::Worker;
use super::commands::Command;
use super::output::Output;
use super::turn::guarded;
use crate::decoder::{FileFeed, OpenError, PlayError, PlayRequest};
use crate::ipc::outbox::Ticket;

/// What a thread of the pool made of a file.
pub(crate) struct Opened {
    /// Key of the session it is for.
    session: u64,
    purpose: Purpose,
    outcome: Result<FileFeed, PlayError>,
}

enum Purpose {
    /// The endpoint is yet to be made.
    Create(Box<(FileCreate, Ticket)>),
    /// The endpoint waits, buffering.
    Start(EndpointId),
}

impl Worker {
    pub(super) fn create_file(&mut self, key: u64, request: FileCreate, ticket: Ticket) {
        let checked = self.with_session(key, |session, now, _| session.check_file(now, &request));
        if let Err(refused) = checked {
            return self.finish_request(key, ticket, Err(refused), true);
        }
        match &request.source {
            FileSource::Url(_) => {
                let created = self.with_session(key, |session, now, out| {
                    session.create_file(now, &request, None, out)
                });
                self.endpoints_total += u64::from(created.is_ok());
                let answer = created.map(|()| Reply::Done);
                self.finish_request(key, ticket, answer, true);
            }
            FileSource::Local(path) => {
                let order = PlayOrder {
                    start_ms: request.start_ms,
                    loop_count: request.loop_count,
                    shared: request.shared,
                };
                let (media, path) = (self.shared.files.media.clone(), path.clone());
                let source = format!("media_dir:{path}");
                let open = move || media.open_file(&path);
                let purpose = Purpose::Create(Box::new((request, ticket)));
                self.open(key, order, source, purpose, open);
            }
        }
    }

    pub(super) fn on_fetched(&mut self, key: u64, fetched: FileFetched, ticket: Ticket) {
        let FileFetched {
            endpoint, outcome, ..
        } = fetched;
        let told = match outcome {
            Err(error) => self.with_session(key, |session, now, out| {
                session.file_not_fetched(now, endpoint, error, out)
            }),
            Ok(name) => self
                .with_session(key, |session, _, _| session.file_fetched(endpoint, &name))
                .map(|order| {
                    if let Some(order) = order {
                        self.open_fetched(key, endpoint, name, order);
                    }
                }),
        };
        self.finish_request(key, ticket, told.map(|()| Reply::Done), true);
    }

    pub(super) fn on_file_opened(&mut self, opened: Opened) {
        let Opened {
            session: key,
            purpose,
            outcome,
        } = opened;
        let outcome = outcome.map(|feed| OpenedFile {
            playback_id: feed.playback_id().to_string(),
            feed: Box::new(feed),
        });
        match purpose {
            Purpose::Create(create) => {
                let (request, ticket) = *create;
                let created = outcome
                    .map_err(|error| RequestError::Endpoint(error.to_string()))
                    .and_then(|opened| {
                        self.with_session(key, |session, now, out| {
                            session.create_file(now, &request, Some(opened), out)
                        })
                    });
                self.endpoints_total += u64::from(created.is_ok());
                let answer = created.map(|()| Reply::Done);
                self.finish_request(key, ticket, answer, true);
            }
            Purpose::Start(endpoint) => {
                let outcome = outcome.map_err(|error| error.to_string());
                // A session that is gone needs no file.
                let _ = self.with_session(key, |session, now, out| {
                    session.file_opened(now, endpoint, outcome, out);
                    Ok(())
                });
                self.after_turn_of(key, true);
            }
        }
    }

    fn open_fetched(&mut self, key: u64, endpoint: EndpointId, name: String, order: PlayOrder) {
        let cache = self.shared.files.cache.clone();
        let source = format!("cache_dir:{name}");
        let open = move || cache.open_file(&name);
        self.open(key, order, source, Purpose::Start(endpoint), open);
    }

    fn open(
        &self,
        session: u64,
        order: PlayOrder,
        source: String,
        purpose: Purpose,
        open: impl FnOnce() -> Result<File, OpenError> + Send + 'static,
    ) {
        let request = PlayRequest {
            source,
            start_ms: order.start_ms,
            loop_count: order.loop_count,
            shared: order.shared,
        };
        let handle = self.handle.clone();
        self.shared.files.pool.play(request, open, move |outcome| {
            handle.send_waiting(Command::FileOpened(Box::new(Opened {
                session,
                purpose,
                outcome,
            })));
        });
    }

    /// Has a session do something, unless it is gone or ends meanwhile.
    pub(super) fn with_session<T>(
        &mut self,
        key: u64,
        turn: impl FnOnce(
            &mut Session,
            rtpbridge_core::time::Moment,
            &mut Output,
        ) -> Result<T, RequestError>,
    ) -> Result<T, RequestError> {
        let (now, out) = (self.now, &mut self.out);
        let slot = self.sessions.get_mut(key).filter(|slot| !slot.closing);
        let slot = slot.ok_or(RequestError::SessionGone)?;
        let mut result = Err(RequestError::Internal("panic".to_owned()));
        let unharmed = guarded(&mut slot.session, |session| {
            result = turn(session, now, out);
        });
        if !unharmed {
            self.on_panic(key);
        }
        result
    }
}

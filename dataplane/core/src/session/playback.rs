//! File endpoints: made once their file is open, or, for a URL, before it is even downloaded. The
//! shell opens files and hands in what they sound like; nothing here waits.

use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::playback::{FetchOrder, FileCreate, FileSeek, FileSource};
use rtpbridge_shared::ipc::{Event, RequestError};
use rtpbridge_shared::vocab::FinishReason;

use super::engine::Session;
use super::input::EndpointKey;
use super::output::Outbox;
use crate::endpoint::{Endpoint, FileEndpoint, OpenedFile, PlayOrder, States, order_bytes};
use crate::time::Moment;

/// What the orders of all downloads that a session waits for may take together: a snapshot has to
/// tell them in one message with everything else, or no new control could ever serve.
const MAX_ORDER_BYTES: usize = 256 * 1024;

impl Session {
    /// Whether `endpoint.create_with_file` may go on, before anything is opened.
    ///
    /// # Errors
    /// The session is full, over, knows the id, or waits for too many downloads.
    pub fn check_file(&mut self, now: Moment, request: &FileCreate) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        self.check_new(request.endpoint)?;
        match &request.source {
            FileSource::Url(order) => self.check_order(order),
            FileSource::Local(_) => Ok(()),
        }
    }

    fn check_order(&self, order: &FetchOrder) -> Result<(), RequestError> {
        let waiting = self.endpoints.iter();
        let waiting: usize = waiting.map(|(_, endpoint)| endpoint.order_bytes()).sum();
        if waiting + order_bytes(order) > MAX_ORDER_BYTES {
            return Err(RequestError::Endpoint(format!(
                "the session waits for too many downloads: sources and headers take over \
                 {MAX_ORDER_BYTES} bytes together"
            )));
        }
        Ok(())
    }

    /// `endpoint.create_with_file`, with the open file of a local source and without one for a URL,
    /// which stays `buffering` until [`file_opened`](Self::file_opened).
    ///
    /// # Errors
    /// The session may have changed since it was checked.
    pub fn create_file(
        &mut self,
        now: Moment,
        request: &FileCreate,
        opened: Option<OpenedFile>,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        self.check_file(now, request)?;
        let mut file = FileEndpoint::new(request);
        if let Some(opened) = opened {
            file.on_opened(opened);
        }
        let endpoint = Endpoint::file(request.endpoint, file);
        self.endpoints.insert(Box::new(endpoint));
        self.recordings.on_leg(request.endpoint, out);
        self.on_endpoints_changed(now.at);
        Ok(())
    }

    /// The download for this endpoint is whole and lies in the cache under `name`. Gives how it is to
    /// be opened; None when the endpoint waits for no download any more.
    ///
    /// # Errors
    /// No such endpoint.
    pub fn file_fetched(
        &mut self,
        endpoint: EndpointId,
        name: &str,
    ) -> Result<Option<PlayOrder>, RequestError> {
        let key = self.key_of(endpoint)?;
        Ok(self.file_mut(key)?.on_fetched(name))
    }

    /// The download for this endpoint failed: it is over.
    ///
    /// # Errors
    /// No such endpoint.
    pub fn file_not_fetched(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        error: String,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        let key = self.key_of(endpoint)?;
        if self.file_mut(key)?.pending_fetch().is_some() {
            self.give_up_file(key, Some(error), now, out);
        }
        Ok(())
    }

    /// What a fetched file turned out to be: sound, or why there is none. An endpoint that is gone
    /// needs neither.
    pub fn file_opened(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        opened: Result<OpenedFile, String>,
        out: &mut dyn Outbox,
    ) {
        let Ok(key) = self.key_of(endpoint) else {
            return;
        };
        match opened {
            Ok(opened) => self.change_file(key, now, out, |file| {
                file.on_opened(opened);
            }),
            Err(error) => self.give_up_file(key, Some(error), now, out),
        }
    }

    /// `endpoint.file.seek`
    ///
    /// # Errors
    /// No such endpoint, not a file, not playing, or shared.
    pub fn file_seek(&mut self, now: Moment, request: &FileSeek) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(request.endpoint)?;
        self.file_mut(key)?.seek(request.position_ms)
    }

    /// `endpoint.file.pause`
    ///
    /// # Errors
    /// No such endpoint, not a file, or not playing.
    pub fn file_pause(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        self.command_file(endpoint, now, out, FileEndpoint::pause)
    }

    /// `endpoint.file.resume`
    ///
    /// # Errors
    /// No such endpoint, not a file, or not playing.
    pub fn file_resume(
        &mut self,
        now: Moment,
        endpoint: EndpointId,
        out: &mut dyn Outbox,
    ) -> Result<(), RequestError> {
        self.command_file(endpoint, now, out, FileEndpoint::resume)
    }

    /// A file played its last sample, or its decoder gave up; `before` is how it stood then.
    pub(super) fn on_file_finished(
        &mut self,
        key: EndpointKey,
        reason: FinishReason,
        before: States,
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        let Some(endpoint) = self.endpoints.get(key) else {
            return;
        };
        if reason == FinishReason::Error {
            let error = endpoint.file_failure().map(str::to_owned);
            return self.give_up_file(key, error, now, out);
        }
        let (id, states) = (endpoint.id(), endpoint.states());
        self.on_states(id, before, states, now.at, out);
        let finished = Event::FileFinished {
            endpoint: id,
            reason,
            error: None,
        };
        self.events.emit(finished, out);
    }

    /// The file cannot be heard, or no further: its client is told, and the endpoint is gone.
    fn give_up_file(
        &mut self,
        key: EndpointKey,
        error: Option<String>,
        now: Moment,
        out: &mut dyn Outbox,
    ) {
        let Some(endpoint) = self.endpoints.remove(key) else {
            return;
        };
        let endpoint = endpoint.id();
        let finished = Event::FileFinished {
            endpoint,
            reason: FinishReason::Error,
            error,
        };
        self.events.emit(finished, out);
        let ended = self.recordings.stop_leg(endpoint);
        if !ended.is_empty() {
            out.recordings_ended(ended);
        }
        self.on_endpoints_changed(now.at);
    }

    fn file_mut(&mut self, key: EndpointKey) -> Result<&mut FileEndpoint, RequestError> {
        let endpoint = self.endpoints.get_mut(key);
        endpoint.ok_or(RequestError::EndpointNotFound)?.as_file()
    }

    fn command_file(
        &mut self,
        endpoint: EndpointId,
        now: Moment,
        out: &mut dyn Outbox,
        command: fn(&mut FileEndpoint) -> Result<(), RequestError>,
    ) -> Result<(), RequestError> {
        self.on_command(now.at)?;
        let key = self.key_of(endpoint)?;
        self.file_mut(key)?;
        let mut outcome = Ok(());
        self.change_file(key, now, out, |file| outcome = command(file));
        outcome
    }

    fn change_file(
        &mut self,
        key: EndpointKey,
        now: Moment,
        out: &mut dyn Outbox,
        change: impl FnOnce(&mut FileEndpoint),
    ) {
        let Some(endpoint) = self.endpoints.get_mut(key) else {
            return;
        };
        let (id, before) = (endpoint.id(), endpoint.states());
        if let Ok(file) = endpoint.as_file() {
            change(file);
        }
        let after = endpoint.states();
        self.on_states(id, before, after, now.at, out);
    }
}

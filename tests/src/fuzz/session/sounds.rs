//! Endpoints that play: files, which are opened and downloaded elsewhere, and tones.

use std::net::SocketAddr;

use rtpbridge_core::playback::{FeedProgress, PcmFeed};
use rtpbridge_core::session::OpenedFile;
use rtpbridge_shared::id::EndpointId;
use rtpbridge_shared::ipc::RequestError;
use rtpbridge_shared::ipc::playback::{FetchOrder, FileCreate, FileSeek, FileSource, ToneCreate};
use rtpbridge_shared::vocab::Tone;

use super::party::Party;
use super::{Bytes, World};

impl World {
    pub(super) fn play(&mut self, operation: u8, bytes: &mut Bytes<'_>) {
        let (session, what) = (usize::from(operation >> 4 & 1), bytes.byte());
        let index = bytes.below(self.parties.len());
        let (endpoint, _) = self.next_birth();
        self.wire.turn_of(session);
        let created = match what % 8 {
            0 => self.create_file(session, endpoint, what, bytes),
            1 => self.create_tone(session, endpoint, what, bytes),
            _ => return self.steer(index, what, bytes),
        };
        if created.is_ok() {
            let nowhere = SocketAddr::from(([0, 0, 0, 0], 0));
            self.parties.push(Party::new(session, endpoint, nowhere));
        }
    }

    fn create_file(
        &mut self,
        session: usize,
        endpoint: EndpointId,
        what: u8,
        bytes: &mut Bytes<'_>,
    ) -> Result<(), RequestError> {
        let is_local = what & 8 == 0;
        let source = if is_local {
            FileSource::Local("a.wav".into())
        } else {
            FileSource::Url(FetchOrder {
                url: "http://x/".into(),
                headers: Vec::new(),
                cache_ttl_secs: 1,
                timeout_ms: 1,
            })
        };
        let request = FileCreate {
            session: self.sessions[session].id(),
            endpoint,
            source,
            start_ms: 0,
            loop_count: Some(0),
            shared: what & 16 != 0,
            gain_db: f64::from(what) - 100.0,
        };
        let opened = is_local.then(|| opened(bytes.byte()));
        let now = self.now();
        self.sessions[session].create_file(now, &request, opened, &mut self.wire)
    }

    fn create_tone(
        &mut self,
        session: usize,
        endpoint: EndpointId,
        what: u8,
        bytes: &mut Bytes<'_>,
    ) -> Result<(), RequestError> {
        let request = ToneCreate {
            session: self.sessions[session].id(),
            endpoint,
            tone: Tone::ALL[bytes.below(Tone::ALL.len())],
            frequency: 20.0 + f64::from(what) * 80.0,
            duration_ms: (what & 8 != 0).then_some(u64::from(bytes.byte()) * 10),
        };
        let now = self.now();
        self.sessions[session].create_tone(now, &request, &mut self.wire)
    }

    fn steer(&mut self, index: usize, what: u8, bytes: &mut Bytes<'_>) {
        let now = self.now();
        let Some(party) = self.parties.get(index) else {
            return;
        };
        let (id, session) = (party.id, &mut self.sessions[party.session]);
        let is_file = party.key.is_none();
        let wire = &mut self.wire;
        wire.turn_of(party.session);
        // Network endpoints and tones take none of this.
        let _ = match what % 8 {
            2 => session.file_fetched(id, "name").map(drop),
            3 => session.file_not_fetched(now, id, "gone".into(), wire),
            4 => session.file_pause(now, id, wire),
            5 => session.file_resume(now, id, wire),
            _ => {
                let request = FileSeek {
                    session: session.id(),
                    endpoint: id,
                    position_ms: bytes.byte().into(),
                };
                session.file_seek(now, &request)
            }
        };
        if what % 8 == 2 && is_file {
            let outcome = match bytes.byte() {
                0 => Err("not audio".into()),
                frames => Ok(opened(frames)),
            };
            session.file_opened(now, id, outcome, wire);
        }
    }
}

fn opened(frames: u8) -> OpenedFile {
    OpenedFile {
        feed: Box::new(Frames(usize::from(frames) * 400)),
        playback_id: "p".into(),
    }
}

/// A decode that has this many samples left.
struct Frames(usize);

impl PcmFeed for Frames {
    fn progress(&self) -> FeedProgress {
        match self.0 {
            0 => FeedProgress::Ended,
            n if n % 7 == 6 => FeedProgress::Failed,
            _ => FeedProgress::Running,
        }
    }

    fn pop(&mut self, out: &mut [i16]) -> usize {
        let count = self.0.min(out.len());
        out[..count].fill(1000);
        self.0 -= count;
        count
    }

    fn seek(&mut self, position_ms: u64) {
        self.0 = self.0.saturating_sub(position_ms as usize);
    }

    fn failure(&self) -> Option<String> {
        (self.0 % 7 == 6).then(|| "broken".into())
    }
}

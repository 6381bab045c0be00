//! The bookkeeping of the cache without any IO: who waits for which file, who uses it, and when it
//! may go.

use std::collections::HashMap;
use std::time::Duration;

use rtpbridge_shared::id::{EndpointId, SessionId};
use tokio::task::AbortHandle;
use tokio::time::Instant;

/// An endpoint that waits for a file or uses one.
pub(super) type User = (SessionId, EndpointId);

/// All files of the cache.
#[derive(Debug, Default)]
pub(super) struct Entries {
    files: HashMap<String, File>,
    uses: HashMap<SessionId, Vec<(EndpointId, String)>>,
}

#[derive(Debug)]
struct File {
    state: State,
    ttl: Duration,
    last_use: Instant,
    users: usize,
}

#[derive(Debug)]
enum State {
    Fetching {
        waiters: Vec<User>,
        task: Option<AbortHandle>,
    },
    Whole,
}

/// What is to be done for somebody who asks for a file.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(super) enum Wanted {
    /// It is there; the asker uses it from now on.
    Whole,
    /// The asker waits for a download that runs already.
    Join,
    /// The asker waits; start the download.
    Start,
}

impl Entries {
    /// Whole files.
    pub(super) fn len(&self) -> usize {
        let whole = |file: &&File| matches!(file.state, State::Whole);
        self.files.values().filter(whole).count()
    }

    pub(super) fn want(&mut self, name: &str, user: User, ttl: Duration, now: Instant) -> Wanted {
        let file = self.files.entry(name.to_owned()).or_insert_with(|| File {
            state: State::Fetching {
                waiters: Vec::new(),
                task: None,
            },
            ttl,
            last_use: now,
            users: 0,
        });
        file.ttl = ttl;
        match &mut file.state {
            State::Whole => {
                self.add_use(name, user, now);
                Wanted::Whole
            }
            State::Fetching { waiters, .. } => {
                let first = waiters.is_empty();
                if !waiters.contains(&user) {
                    waiters.push(user);
                }
                if first { Wanted::Start } else { Wanted::Join }
            }
        }
    }

    pub(super) fn started(&mut self, name: &str, handle: AbortHandle) {
        if let Some(File {
            state: State::Fetching { task, .. },
            ..
        }) = self.files.get_mut(name)
        {
            *task = Some(handle);
        }
    }

    /// The download ended. Returns who waited for it.
    pub(super) fn finished(&mut self, name: &str, whole: bool, now: Instant) -> Vec<User> {
        let Some(file) = self.files.get_mut(name) else {
            return Vec::new();
        };
        let State::Fetching { waiters, .. } = std::mem::replace(&mut file.state, State::Whole)
        else {
            return Vec::new();
        };
        file.last_use = now;
        if !whole {
            self.files.remove(name);
            return waiters;
        }
        for user in &waiters {
            self.add_use(name, *user, now);
        }
        waiters
    }

    /// The endpoint waits for no file any more.
    pub(super) fn end_wait(&mut self, user: User) {
        let waits = |file: &File| match &file.state {
            State::Fetching { waiters, .. } => waiters.contains(&user),
            State::Whole => false,
        };
        let awaited = self.files.iter().find(|(_, file)| waits(file));
        if let Some(name) = awaited.map(|(name, _)| name.clone()) {
            self.give_up(&name, user);
        }
    }

    /// As [`Self::end_wait`] for all endpoints of a session, or of all.
    pub(super) fn end_waits(&mut self, session: Option<SessionId>) {
        let ended = |user: &User| session.is_none_or(|session| user.0 == session);
        let waiters = self.files.values().flat_map(|file| match &file.state {
            State::Fetching { waiters, .. } => waiters.as_slice(),
            State::Whole => &[],
        });
        let ended: Vec<User> = waiters.filter(|user| ended(user)).copied().collect();
        for user in ended {
            self.end_wait(user);
        }
    }

    /// A waiter's time is up. Returns whether it still waited; the last one ends the download.
    pub(super) fn give_up(&mut self, name: &str, user: User) -> bool {
        let Some(file) = self.files.get_mut(name) else {
            return false;
        };
        let State::Fetching { waiters, task } = &mut file.state else {
            return false;
        };
        let before = waiters.len();
        waiters.retain(|waiter| *waiter != user);
        let waited = waiters.len() < before;
        if waited && waiters.is_empty() {
            if let Some(task) = task {
                task.abort();
            }
            self.files.remove(name);
        }
        waited
    }

    /// A whole file that was found on disk.
    pub(super) fn adopt(&mut self, name: &str, ttl: Duration, now: Instant) {
        self.files.entry(name.to_owned()).or_insert(File {
            state: State::Whole,
            ttl,
            last_use: now,
            users: 0,
        });
    }

    pub(super) fn add_use(&mut self, name: &str, (session, endpoint): User, now: Instant) {
        let Some(file) = self.files.get_mut(name) else {
            return;
        };
        file.last_use = now;
        let uses = self.uses.entry(session).or_default();
        if !uses.iter().any(|(known, _)| *known == endpoint) {
            uses.push((endpoint, name.to_owned()));
            file.users += 1;
        }
    }

    /// The file that the endpoint uses is not what was hoped for: it goes when nobody uses it.
    pub(super) fn distrust(&mut self, (session, endpoint): User) {
        let uses = self.uses.get(&session).map(Vec::as_slice);
        let mut uses = uses.unwrap_or_default().iter();
        let name = uses.find(|(known, _)| *known == endpoint);
        if let Some((_, name)) = name
            && let Some(file) = self.files.get_mut(name)
        {
            file.ttl = Duration::ZERO;
        }
    }

    /// The endpoint needs no file any more. Returns the file that has to go now.
    pub(super) fn end_use(&mut self, (session, endpoint): User, now: Instant) -> Option<String> {
        let uses = self.uses.get_mut(&session)?;
        let at = uses.iter().position(|(known, _)| *known == endpoint)?;
        let (_, name) = uses.swap_remove(at);
        if uses.is_empty() {
            self.uses.remove(&session);
        }
        let file = self.files.get_mut(&name)?;
        file.users = file.users.saturating_sub(1);
        file.last_use = now;
        let over = file.users == 0 && file.ttl.is_zero();
        over.then(|| {
            self.files.remove(&name);
            name
        })
    }

    /// As [`Self::end_use`] for all endpoints of a session.
    pub(super) fn end_session(&mut self, session: SessionId, now: Instant) -> Vec<String> {
        let endpoints: Vec<EndpointId> = self
            .uses
            .get(&session)
            .map(|uses| uses.iter().map(|(endpoint, _)| *endpoint).collect())
            .unwrap_or_default();
        endpoints
            .into_iter()
            .filter_map(|endpoint| self.end_use((session, endpoint), now))
            .collect()
    }

    /// As [`Self::end_session`] for all sessions.
    pub(super) fn end_all(&mut self, now: Instant) -> Vec<String> {
        let sessions: Vec<SessionId> = self.uses.keys().copied().collect();
        sessions
            .into_iter()
            .flat_map(|session| self.end_session(session, now))
            .collect()
    }

    /// Takes out the whole files that nobody uses and whose time is over.
    pub(super) fn take_expired(&mut self, now: Instant) -> Vec<String> {
        let over = |file: &File| {
            let idle = now.saturating_duration_since(file.last_use);
            matches!(file.state, State::Whole) && file.users == 0 && idle >= file.ttl
        };
        let expired: Vec<String> = self
            .files
            .iter()
            .filter(|(_, file)| over(file))
            .map(|(name, _)| name.clone())
            .collect();
        for name in &expired {
            self.files.remove(name);
        }
        expired
    }

    /// The file vanished from the disk.
    pub(super) fn forget(&mut self, name: &str) {
        if self
            .files
            .get(name)
            .is_some_and(|file| matches!(file.state, State::Whole))
        {
            self.files.remove(name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TTL: Duration = Duration::from_secs(300);

    fn user(byte: u8) -> User {
        (
            SessionId::from_bytes([byte; 16]),
            EndpointId::from_bytes([byte; 16]),
        )
    }

    #[test]
    fn many_askers_share_one_download() {
        let now = Instant::now();
        let mut entries = Entries::default();
        assert_eq!(entries.want("a", user(1), TTL, now), Wanted::Start);
        assert_eq!(entries.want("a", user(2), TTL, now), Wanted::Join);
        assert_eq!(entries.finished("a", true, now), [user(1), user(2)]);
        assert_eq!(entries.want("a", user(3), TTL, now), Wanted::Whole);
    }

    #[test]
    fn a_failed_download_leaves_nothing() {
        let now = Instant::now();
        let mut entries = Entries::default();
        entries.want("a", user(1), TTL, now);
        assert_eq!(entries.finished("a", false, now), [user(1)]);
        assert_eq!(entries.want("a", user(2), TTL, now), Wanted::Start);
        assert!(entries.give_up("a", user(2)));
        assert!(!entries.give_up("a", user(2)));
        assert_eq!(entries.want("a", user(3), TTL, now), Wanted::Start);
    }

    #[tokio::test]
    async fn a_download_that_nobody_waits_for_any_more_is_ended() {
        let now = Instant::now();
        let mut entries = Entries::default();
        let mut endings: Vec<fn(&mut Entries)> = vec![|entries| entries.end_wait(user(1))];
        endings.push(|entries| entries.end_waits(Some(user(1).0)));
        endings.push(|entries| entries.end_waits(None));
        for end in endings {
            let download = tokio::spawn(std::future::pending::<()>());
            entries.want("a", user(1), TTL, now);
            entries.started("a", download.abort_handle());
            end(&mut entries);
            let ended = download.await.expect_err("never ends by itself");
            assert!(ended.is_cancelled());
        }
        entries.want("a", user(1), TTL, now);
        assert_eq!(entries.want("a", user(2), TTL, now), Wanted::Join);
        entries.end_wait(user(1));
        assert_eq!(entries.finished("a", true, now), [user(2)]);
    }

    #[test]
    fn a_file_in_use_stays_and_its_time_counts_from_the_last_use() {
        let start = Instant::now();
        let mut entries = Entries::default();
        entries.want("a", user(1), TTL, start);
        entries.finished("a", true, start);
        let later = start + TTL * 2;
        assert!(entries.take_expired(later).is_empty());
        assert_eq!(entries.end_use(user(1), later), None);
        assert!(entries.take_expired(later).is_empty());
        assert_eq!(entries.take_expired(later + TTL), ["a"]);
    }

    #[test]
    fn a_file_that_cannot_be_played_goes_whatever_its_time_to_live() {
        let now = Instant::now();
        let mut entries = Entries::default();
        entries.want("a", user(1), TTL, now);
        entries.want("a", user(2), TTL, now);
        entries.finished("a", true, now);
        entries.distrust(user(1));
        assert_eq!(entries.end_use(user(1), now), None);
        assert_eq!(entries.end_use(user(2), now), Some("a".to_owned()));
    }

    #[test]
    fn no_time_to_live_means_gone_after_the_last_use() {
        let now = Instant::now();
        let mut entries = Entries::default();
        entries.want("a", user(1), Duration::ZERO, now);
        entries.want("a", user(2), Duration::ZERO, now);
        entries.finished("a", true, now);
        assert_eq!(entries.end_use(user(1), now), None);
        assert_eq!(entries.end_session(user(2).0, now), ["a"]);
    }
}

//! The threads that decode. There are as many as there are files that wait for a disk, up to a
//! bound; a thread with nothing to do for ten seconds goes.

use std::cmp::Ordering;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::fs::File;
use std::sync::atomic::{AtomicU64, Ordering as Atomic};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::thread;
use std::time::{Duration, Instant};

use super::directory::OpenError;
use super::job::{Job, Next};
use super::ring::{FileFeed, Ring};
use super::stream::{AudioStream, DecodeError};

const MAX_THREADS: usize = 32;
const IDLE: Duration = Duration::from_secs(10);

/// How a playback begins, as asked for by a client.
#[derive(Clone, PartialEq, Eq, Hash, Debug)]
pub(crate) struct PlayRequest {
    /// What names the source among shared ones: its path, or its name in the cache.
    pub(crate) source: String,
    /// Where to begin the first play.
    pub(crate) start_ms: u64,
    /// Further plays, from the beginning; none is for ever.
    pub(crate) loop_count: Option<u32>,
    /// Whether equal requests share one decode and its position.
    pub(crate) shared: bool,
}

/// Why a playback did not begin.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PlayError {
    /// The file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// It cannot be decoded.
    #[error(transparent)]
    Decode(#[from] DecodeError),
    /// Another request that shares this decode failed.
    #[error("{0}")]
    Shared(String),
}

type Reply = Box<dyn FnOnce(Result<FileFeed, PlayError>) + Send>;
type Opener = Box<dyn FnOnce() -> Result<File, OpenError> + Send>;

/// The pool; cloning gives another handle.
#[derive(Clone)]
pub(crate) struct DecoderPool {
    inner: Arc<Inner>,
}

/// Makes the pool look at its jobs at once.
#[derive(Clone)]
pub(super) struct Wake(Weak<Inner>);

impl Wake {
    pub(super) fn notify(&self) {
        if let Some(inner) = self.0.upgrade() {
            inner.lock().look_at_all = true;
            inner.changed.notify_one();
        }
    }
}

struct Inner {
    queue: Mutex<Queue>,
    changed: Condvar,
    decodes: AtomicU64,
}

#[derive(Default)]
struct Queue {
    openings: VecDeque<Opening>,
    jobs: BinaryHeap<Due>,
    shared: HashMap<PlayRequest, Shared>,
    threads: usize,
    idle: usize,
    /// A seek waits for an answer.
    look_at_all: bool,
    closed: bool,
}

/// Somebody who waits for a feed.
enum Opening {
    /// A file is to be opened.
    New(New),
    /// A decode runs already.
    Join(FileFeed, Reply),
}

struct New {
    request: PlayRequest,
    open: Opener,
    reply: Reply,
}

/// A decode and when it is to be looked at; the earliest is the greatest.
struct Due {
    at: Instant,
    /// Boxed, since the heap moves it about.
    job: Box<Job>,
}

impl Ord for Due {
    fn cmp(&self, other: &Self) -> Ordering {
        other.at.cmp(&self.at)
    }
}

impl PartialOrd for Due {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl PartialEq for Due {
    fn eq(&self, other: &Self) -> bool {
        self.at == other.at
    }
}

impl Eq for Due {}

/// A decode that others may join.
enum Shared {
    Opening(Vec<Reply>),
    Playing(Weak<Ring>),
}

enum Work {
    Open(Opening),
    Run(Box<Job>),
}

impl DecoderPool {
    /// A pool without threads; they come with the work.
    pub(crate) fn new() -> Self {
        let inner = Inner {
            queue: Mutex::default(),
            changed: Condvar::new(),
            decodes: AtomicU64::new(0),
        };
        Self {
            inner: Arc::new(inner),
        }
    }

    /// Opens and probes a file on a thread of the pool and calls `reply`, once sound is known to
    /// come; always on a thread of the pool, never from here. `open` may block.
    pub(crate) fn play(
        &self,
        request: PlayRequest,
        open: impl FnOnce() -> Result<File, OpenError> + Send + 'static,
        reply: impl FnOnce(Result<FileFeed, PlayError>) + Send + 'static,
    ) {
        let reply: Reply = Box::new(reply);
        let mut queue = self.inner.lock();
        if request.shared {
            match queue.shared.get_mut(&request) {
                Some(Shared::Opening(waiting)) => {
                    waiting.push(reply);
                    return;
                }
                Some(Shared::Playing(ring)) => {
                    if let Some(ring) = ring.upgrade().filter(|ring| ring.is_played()) {
                        let feed = FileFeed::new(ring, Wake(Arc::downgrade(&self.inner)));
                        queue.openings.push_back(Opening::Join(feed, reply));
                        return self.inner.clone().make_sure_someone_works(queue);
                    }
                }
                None => {}
            }
            queue
                .shared
                .insert(request.clone(), Shared::Opening(Vec::new()));
        }
        queue.openings.push_back(Opening::New(New {
            request,
            open: Box::new(open),
            reply,
        }));
        self.inner.clone().make_sure_someone_works(queue);
    }

    /// Decodes begun since the start.
    pub(crate) fn decodes_begun(&self) -> u64 {
        self.inner.decodes.load(Atomic::Relaxed)
    }

    /// Decodes that wait for their next turn.
    #[cfg(test)]
    pub(crate) fn decode_count(&self) -> usize {
        self.inner.lock().jobs.len()
    }
}

impl Drop for DecoderPool {
    fn drop(&mut self) {
        // Threads hold handles to the inside only; the last outside handle ends them.
        let mut queue = self.inner.lock();
        if Arc::strong_count(&self.inner) <= queue.threads + 1 {
            queue.closed = true;
            drop(queue);
            self.inner.changed.notify_all();
        }
    }
}

impl Inner {
    fn lock(&self) -> MutexGuard<'_, Queue> {
        // A panic elsewhere leaves the queue whole: every change to it is one statement.
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn make_sure_someone_works(self: Arc<Self>, mut queue: MutexGuard<'_, Queue>) {
        if queue.idle == 0 && queue.threads < MAX_THREADS {
            let inner = self.clone();
            let spawned = thread::Builder::new()
                .name("decoder".to_owned())
                .spawn(move || inner.work());
            queue.threads += usize::from(spawned.is_ok());
        }
        drop(queue);
        self.changed.notify_one();
    }

    /// A thread's life.
    fn work(self: Arc<Self>) {
        while let Some(work) = self.next_work() {
            match work {
                Work::Open(Opening::New(new)) => self.clone().open(new),
                Work::Open(Opening::Join(feed, reply)) => reply(Ok(feed)),
                Work::Run(mut job) => {
                    let after = match job.run() {
                        Next::Now => Duration::ZERO,
                        Next::After(after) => after,
                        Next::Never if self.lock().forget(job.ring()) => continue,
                        // Somebody joined in the last moment.
                        Next::Never => Duration::ZERO,
                    };
                    self.lock().jobs.push(Due {
                        at: Instant::now() + after,
                        job,
                    });
                }
            }
        }
    }

    /// Waits for something to do; `None` ends the thread.
    fn next_work(self: &Arc<Self>) -> Option<Work> {
        let mut queue = self.lock();
        let idle_until = Instant::now() + IDLE;
        loop {
            let now = Instant::now();
            if queue.closed || (now >= idle_until && (queue.jobs.is_empty() || queue.idle > 0)) {
                queue.threads -= 1;
                return None;
            }
            if std::mem::take(&mut queue.look_at_all) {
                let jobs = std::mem::take(&mut queue.jobs).into_iter();
                queue.jobs = jobs.map(|due| Due { at: now, ..due }).collect();
            }
            let work = queue.take_due(now);
            if let Some(work) = work {
                if queue.has_due(now) {
                    // This thread may block; somebody else takes the rest.
                    self.clone().make_sure_someone_works(queue);
                }
                return Some(work);
            }
            let due = queue.jobs.peek().map_or(idle_until, |due| due.at);
            queue.idle += 1;
            let wait = due
                .saturating_duration_since(now)
                .max(Duration::from_millis(1));
            let (again, _) = self
                .changed
                .wait_timeout(queue, wait)
                .unwrap_or_else(PoisonError::into_inner);
            queue = again;
            queue.idle -= 1;
        }
    }

    fn open(self: Arc<Self>, new: New) {
        let New {
            request,
            open,
            reply,
        } = new;
        let ring = Arc::new(Ring::new());
        let begun = begin(&request, open, &ring);
        let mut queue = self.lock();
        let waiting = if request.shared {
            let state = match &begun {
                Ok(_) => queue
                    .shared
                    .insert(request, Shared::Playing(Arc::downgrade(&ring))),
                Err(_) => queue.shared.remove(&request),
            };
            queue.forget_ended();
            match state {
                Some(Shared::Opening(waiting)) => waiting,
                _ => Vec::new(),
            }
        } else {
            Vec::new()
        };
        let feed = || FileFeed::new(ring.clone(), Wake(Arc::downgrade(&self)));
        match begun {
            Ok(job) => {
                self.decodes.fetch_add(1, Atomic::Relaxed);
                let feeds: Vec<_> = waiting.into_iter().map(|reply| (reply, feed())).collect();
                let first = feed();
                // Before the reply, so that the ring has listeners whenever the job looks.
                queue.jobs.push(Due {
                    at: Instant::now(),
                    job: Box::new(job),
                });
                drop(queue);
                reply(Ok(first));
                feeds.into_iter().for_each(|(reply, feed)| reply(Ok(feed)));
            }
            Err(error) => {
                drop(queue);
                let text = error.to_string();
                reply(Err(error));
                waiting
                    .into_iter()
                    .for_each(|reply| reply(Err(PlayError::Shared(text.clone()))));
            }
        }
    }
}

impl Queue {
    fn take_due(&mut self, now: Instant) -> Option<Work> {
        if let Some(opening) = self.openings.pop_front() {
            return Some(Work::Open(opening));
        }
        self.jobs.peek().filter(|due| due.at <= now)?;
        self.jobs.pop().map(|due| Work::Run(due.job))
    }

    fn has_due(&self, now: Instant) -> bool {
        !self.openings.is_empty() || self.jobs.peek().is_some_and(|due| due.at <= now)
    }

    /// Lets nobody join a decode that ends; false when somebody has.
    fn forget(&mut self, ended: &Arc<Ring>) -> bool {
        if !ended.is_over() && Arc::strong_count(ended) > 1 {
            return false;
        }
        self.shared.retain(|_, shared| match shared {
            Shared::Playing(ring) => !std::ptr::eq(ring.as_ptr(), Arc::as_ptr(ended)),
            Shared::Opening(_) => true,
        });
        true
    }

    fn forget_ended(&mut self) {
        self.shared.retain(|_, shared| match shared {
            Shared::Opening(_) => true,
            Shared::Playing(ring) => ring.strong_count() > 0,
        });
    }
}

/// Opens, probes and decodes the first sound. A decoder that panics is an error like any other.
fn begin(request: &PlayRequest, open: Opener, ring: &Arc<Ring>) -> Result<Job, PlayError> {
    let file = open()?;
    let begun = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| {
        let stream = AudioStream::open(file)?;
        Job::begin(stream, ring.clone(), request.start_ms, request.loop_count)
    }));
    match begun {
        Ok(job) => Ok(job?),
        Err(_) => Err(PlayError::Decode(DecodeError::Panicked)),
    }
}

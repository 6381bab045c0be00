//! The writer threads: few threads write all files, looking at each at least every 50 ms; others
//! wait for the disk when files are closed, so that a slow fsync holds up no other recording.
//! Workers only send commands and are told by callbacks; nothing here ever makes a worker wait.

use std::fs::File;
use std::io;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtpbridge_shared::ipc::RequestError;
use tracing::{error, warn};

use super::directory::RecordingDirectory;
use super::file::{Lost, Pass, RecordingFile};
use super::progress::Progress;
use super::queue::QueueReceiver;
use crate::sys::clock;

const PASS_INTERVAL: Duration = Duration::from_millis(50);
const WRITER_THREADS: usize = 2;
/// Files that may wait for a slow disk at a time.
const SYNC_THREADS: usize = 8;

/// What a writer tells the worker that owns the recording.
#[derive(Debug)]
pub(crate) enum Notice {
    /// The file exists, or why not.
    Opened(Result<(), RequestError>),
    /// Writing failed; nothing more will be written. Comes once.
    Failed,
    /// Flushed and closed.
    Closed(Closed),
}

/// How a file ended.
#[derive(Debug)]
pub(crate) struct Closed {
    /// Records written.
    pub(crate) packets: u64,
    /// Packets lost to a write error, per stream index of the account.
    pub(crate) lost: Lost,
    /// Whether the kernel says that all of it is on the disk.
    pub(crate) synced: bool,
}

/// Called on a writer thread; may block for a moment, but not on the writer.
pub(crate) type Notify = Box<dyn Fn(Notice) + Send>;

/// Names one recording towards its writer.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) struct WriterKey {
    thread: usize,
    serial: u64,
}

enum Command {
    Open {
        serial: u64,
        file_path: String,
        queue: QueueReceiver,
        progress: Progress,
        notify: Notify,
    },
    Look(u64),
    Close(u64),
}

/// All writers. Dropped, it writes what is queued and waits for the threads.
pub(crate) struct Recorder {
    writers: Vec<Sender<Command>>,
    threads: Vec<JoinHandle<()>>,
    serial: AtomicU64,
    next: AtomicUsize,
    packets: Arc<AtomicU64>,
}

impl Recorder {
    /// Starts the threads.
    pub(crate) fn start(directory: RecordingDirectory) -> io::Result<Self> {
        Self::start_with(directory, File::sync_all)
    }

    fn start_with<S>(directory: RecordingDirectory, sync: S) -> io::Result<Self>
    where
        S: Fn(&File) -> io::Result<()> + Send + Sync + 'static,
    {
        let directory = Arc::new(directory);
        let packets = Arc::new(AtomicU64::new(0));
        let (closer, closing) = mpsc::channel();
        let (closing, sync) = (Arc::new(Mutex::new(closing)), Arc::new(sync));
        let mut threads = Vec::new();
        for index in 0..SYNC_THREADS {
            let (closing, sync) = (Arc::clone(&closing), Arc::clone(&sync));
            let named = thread::Builder::new().name(format!("recorder-sync-{index}"));
            threads.push(named.spawn(move || run_closer(&closing, &*sync))?);
        }
        let mut writers = Vec::new();
        for index in 0..WRITER_THREADS {
            let (sender, commands) = mpsc::channel();
            let (directory, packets) = (Arc::clone(&directory), Arc::clone(&packets));
            let closer = closer.clone();
            let named = thread::Builder::new().name(format!("recorder-{index}"));
            threads.push(named.spawn(move || {
                let mut writer = Writer {
                    directory,
                    packets,
                    closer,
                    open: Vec::new(),
                };
                writer.run(&commands);
            })?);
            writers.push(sender);
        }
        Ok(Self {
            writers,
            threads,
            serial: AtomicU64::new(0),
            next: AtomicUsize::new(0),
            packets,
        })
    }

    /// Creates the file and writes what comes out of `queue`, which the worker fills whose `progress`
    /// that is; answers with [`Notice::Opened`].
    pub(crate) fn open(
        &self,
        file_path: String,
        queue: QueueReceiver,
        progress: Progress,
        notify: Notify,
    ) -> WriterKey {
        let key = WriterKey {
            thread: self.next.fetch_add(1, Ordering::Relaxed) % self.writers.len().max(1),
            serial: self.serial.fetch_add(1, Ordering::Relaxed),
        };
        let command = Command::Open {
            serial: key.serial,
            file_path,
            queue,
            progress,
            notify,
        };
        self.send(key, command);
        key
    }

    /// Asks the writer to look at the recording now.
    pub(crate) fn look(&self, key: WriterKey) {
        self.send(key, Command::Look(key.serial));
    }

    /// Writes what is left and closes; answers with [`Notice::Closed`], unless opening failed.
    pub(crate) fn close(&self, key: WriterKey) {
        self.send(key, Command::Close(key.serial));
    }

    /// Records written since the process started.
    pub(crate) fn packets_written(&self) -> u64 {
        self.packets.load(Ordering::Relaxed)
    }

    fn send(&self, key: WriterKey, command: Command) {
        let writer = self.writers.get(key.thread);
        if writer.is_none_or(|writer| writer.send(command).is_err()) {
            error!("a recorder thread is gone");
        }
    }
}

impl Drop for Recorder {
    fn drop(&mut self) {
        self.writers.clear();
        for thread in self.threads.drain(..).rev() {
            let _ = thread.join();
        }
    }
}

struct Open {
    serial: u64,
    file_path: String,
    file: RecordingFile,
    progress: Progress,
    notify: Notify,
}

struct Closing {
    file: File,
    file_path: String,
    packets: u64,
    lost: Lost,
    notify: Notify,
}

struct Writer {
    directory: Arc<RecordingDirectory>,
    packets: Arc<AtomicU64>,
    closer: Sender<Closing>,
    open: Vec<Open>,
}

impl Writer {
    fn run(&mut self, commands: &Receiver<Command>) {
        let mut next_pass = Instant::now() + PASS_INTERVAL;
        loop {
            let wait = next_pass.saturating_duration_since(Instant::now());
            let received = if self.open.is_empty() {
                commands.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                commands.recv_timeout(wait)
            };
            match received {
                Ok(command) => self.handle_command(command),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => break,
            }
            if Instant::now() >= next_pass {
                self.pass_all();
                next_pass = Instant::now() + PASS_INTERVAL;
            }
        }
        let left: Vec<u64> = self.open.iter().map(|open| open.serial).collect();
        left.into_iter().for_each(|serial| self.close(serial));
    }

    fn handle_command(&mut self, command: Command) {
        match command {
            Command::Open {
                serial,
                file_path,
                queue,
                progress,
                notify,
            } => {
                if let Some(file) = self.create(&file_path, queue, &notify) {
                    self.open.push(Open {
                        serial,
                        file_path,
                        file,
                        progress,
                        notify,
                    });
                }
            }
            Command::Look(serial) => {
                let open = self.open.iter_mut().find(|open| open.serial == serial);
                if let Some(open) = open {
                    pass(open, &self.packets);
                }
            }
            Command::Close(serial) => self.close(serial),
        }
    }

    /// The new file, or none when its owner was told why not.
    fn create(
        &self,
        file_path: &str,
        queue: QueueReceiver,
        notify: &Notify,
    ) -> Option<RecordingFile> {
        let created = self.directory.create(file_path).map_err(RequestError::from);
        let started = created.and_then(|file| {
            let started = RecordingFile::start(file, queue);
            started.map_err(|error| RequestError::Recording(format!("cannot write: {error}")))
        });
        match started {
            Ok(file) => {
                notify(Notice::Opened(Ok(())));
                Some(file)
            }
            Err(refused) => {
                warn!(?file_path, %refused, "recording not started");
                notify(Notice::Opened(Err(refused)));
                None
            }
        }
    }

    fn pass_all(&mut self) {
        for open in &mut self.open {
            pass(open, &self.packets);
        }
    }

    fn close(&mut self, serial: u64) {
        let Some(index) = self.open.iter().position(|open| open.serial == serial) else {
            return;
        };
        let mut open = self.open.swap_remove(index);
        match open.file.pass(Pass::Final) {
            Ok(written) => {
                self.packets.fetch_add(written, Ordering::Relaxed);
            }
            Err(error) => warn!(path = ?open.file_path, %error, "recording cut short"),
        }
        let (file, packets, lost) = open.file.into_parts();
        let closing = Closing {
            file,
            file_path: open.file_path,
            packets,
            lost,
            notify: open.notify,
        };
        if self.closer.send(closing).is_err() {
            error!("the recorder's sync thread is gone");
        }
    }
}

fn pass(open: &mut Open, packets: &AtomicU64) {
    let now_ns = open.progress.reached_ns(clock::monotonic_ns());
    match open.file.pass(Pass::Settled { now_ns }) {
        Ok(written) => {
            packets.fetch_add(written, Ordering::Relaxed);
        }
        Err(error) => {
            warn!(path = ?open.file_path, %error, "recording failed");
            (open.notify)(Notice::Failed);
        }
    }
}

/// Takes one file after the other; the lock is held only while there is none.
fn run_closer(closing: &Mutex<Receiver<Closing>>, sync: impl Fn(&File) -> io::Result<()>) {
    loop {
        let next = closing
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .recv();
        let Ok(done) = next else {
            return;
        };
        let synced = sync(&done.file);
        if let Err(error) = &synced {
            warn!(path = ?done.file_path, %error, "recording not flushed");
        }
        drop(done.file);
        (done.notify)(Notice::Closed(Closed {
            packets: done.packets,
            lost: done.lost,
            synced: synced.is_ok(),
        }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::recorder::frame::Way;
    use crate::recorder::queue::{EntryHeader, NO_STREAM, queue};

    const PATIENCE: Duration = Duration::from_secs(10);

    fn notices() -> (Notify, Receiver<Notice>) {
        let (sender, receiver) = mpsc::channel();
        (Box::new(move |notice| drop(sender.send(notice))), receiver)
    }

    #[test]
    fn a_recording_reaches_the_disk_by_itself_and_closes_with_its_count() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.pcap");
        let text = path.to_str().expect("utf-8").to_owned();
        let recorder = Recorder::start(RecordingDirectory::open(dir.path()).0).expect("starts");
        let (mut sender, receiver) = queue(100);
        let (notify, notices) = notices();
        let key = recorder.open(text, receiver, Progress::default(), notify);
        let opened = notices.recv_timeout(PATIENCE).expect("a notice");
        assert!(matches!(opened, Notice::Opened(Ok(()))));
        assert_eq!(path.metadata().expect("exists").len(), 24);

        let header = EntryHeader {
            at_ns: clock::wall_ns(),
            handled_ns: clock::monotonic_ns(),
            endpoint: 0,
            stream: NO_STREAM,
            way: Way::In,
            bytes: 3,
        };
        sender.push(&header, b"abc");
        let deadline = Instant::now() + PATIENCE;
        while path.metadata().expect("exists").len() == 24 {
            assert!(Instant::now() < deadline, "nothing was written");
            thread::sleep(Duration::from_millis(5));
        }
        sender.push(&header, b"def");
        recorder.close(key);
        let Notice::Closed(closed) = notices.recv_timeout(PATIENCE).expect("a notice") else {
            panic!("not closed");
        };
        assert_eq!((closed.packets, closed.synced), (2, true));
        assert_eq!(recorder.packets_written(), 2);
    }

    #[test]
    fn a_file_that_cannot_be_made_is_reported() {
        let dir = tempfile::tempdir().expect("a directory");
        let recorder = Recorder::start(RecordingDirectory::open(dir.path()).0).expect("starts");
        let (notify, notices) = notices();
        let path = "/elsewhere/a.pcap".to_owned();
        recorder.open(path, queue(10).1, Progress::default(), notify);
        let notice = notices.recv_timeout(PATIENCE).expect("a notice");
        assert!(matches!(notice, Notice::Opened(Err(_))));
    }

    #[test]
    fn an_ending_process_closes_what_is_open() {
        let dir = tempfile::tempdir().expect("a directory");
        let path = dir.path().join("a.pcap");
        let recorder = Recorder::start(RecordingDirectory::open(dir.path()).0).expect("starts");
        let (notify, notices) = notices();
        recorder.open(
            path.to_str().expect("utf-8").to_owned(),
            queue(10).1,
            Progress::default(),
            notify,
        );
        drop(recorder);
        let seen: Vec<Notice> = notices.iter().collect();
        assert!(matches!(
            seen.as_slice(),
            [Notice::Opened(Ok(())), Notice::Closed(_)]
        ));
    }

    #[test]
    fn a_file_that_its_disk_does_not_take_holds_up_no_other() {
        use std::os::unix::fs::MetadataExt;
        let dir = tempfile::tempdir().expect("a directory");
        let slow_path = dir.path().join("slow.pcap");
        let (let_go, stuck) = mpsc::channel::<()>();
        let (stuck, path) = (Mutex::new(stuck), slow_path.clone());
        let sync = move |file: &File| {
            if file.metadata()?.ino() == path.metadata()?.ino() {
                // Until the test drops its end.
                let _ = stuck.lock().expect("no panic").recv();
            }
            file.sync_all()
        };
        let directory = RecordingDirectory::open(dir.path()).0;
        let recorder = Recorder::start_with(directory, sync).expect("starts");
        let open = |path: &std::path::Path| {
            let (notify, notices) = notices();
            let path = path.to_str().expect("utf-8").to_owned();
            let key = recorder.open(path, queue(10).1, Progress::default(), notify);
            let opened = notices.recv_timeout(PATIENCE).expect("a notice");
            assert!(matches!(opened, Notice::Opened(Ok(()))));
            (key, notices)
        };
        let (slow, slow_notices) = open(&slow_path);
        recorder.close(slow);
        // On the other writer, and then behind the first on its own.
        for name in ["other.pcap", "same.pcap"] {
            let (quick, quick_notices) = open(&dir.path().join(name));
            recorder.close(quick);
            let closed = quick_notices.recv_timeout(PATIENCE);
            assert!(
                matches!(closed, Ok(Notice::Closed(_))),
                "{name}: {closed:?}"
            );
        }
        assert!(slow_notices.try_recv().is_err(), "its disk is still busy");
        drop(let_go);
        let closed = slow_notices.recv_timeout(PATIENCE);
        assert!(matches!(closed, Ok(Notice::Closed(_))), "{closed:?}");
    }
}

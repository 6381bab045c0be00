//! The children's output: whole lines with the child's name, on our standard error. A child must
//! never wait for us: its pipe is always emptied, and when whoever reads our standard error does not,
//! lines are dropped and counted.

use std::collections::VecDeque;
use std::io::{self, Write};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use rtpbridge_shared::config::LogFormat;
use tokio::io::{AsyncRead, AsyncReadExt};

const QUEUED_LINES: usize = 4096;
const LONGEST_LINE: usize = 16 * 1024;
const LAST_LINES: usize = 10;
const CLOSE_PATIENCE: Duration = Duration::from_secs(1);

/// The one writer of children's lines; cheap to clone.
#[derive(Clone)]
pub(super) struct LineSink {
    queue: SyncSender<Vec<u8>>,
    dropped: Arc<Mutex<u64>>,
    format: LogFormat,
}

/// Ends the writer.
pub(super) struct LineWriter {
    thread: JoinHandle<()>,
}

/// The last lines a child wrote, kept for its obituary.
#[derive(Clone, Default)]
pub(super) struct LastLines(Arc<Mutex<VecDeque<String>>>);

impl LastLines {
    fn push(&self, line: &[u8]) {
        let mut lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if lines.len() == LAST_LINES {
            lines.pop_front();
        }
        lines.push_back(String::from_utf8_lossy(line).into_owned());
    }

    pub(super) fn all(&self) -> Vec<String> {
        let lines = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        lines.iter().cloned().collect()
    }
}

/// Starts the writer thread.
///
/// # Errors
/// When no thread can be started.
pub(super) fn start(format: LogFormat) -> io::Result<(LineSink, LineWriter)> {
    start_with(format, io::stderr())
}

fn start_with(
    format: LogFormat,
    output: impl Write + Send + 'static,
) -> io::Result<(LineSink, LineWriter)> {
    let (queue, lines) = mpsc::sync_channel(QUEUED_LINES);
    let dropped = Arc::new(Mutex::new(0));
    let counter = Arc::clone(&dropped);
    let thread = thread::Builder::new()
        .name("lines".to_owned())
        .spawn(move || write_lines(&lines, &counter, output))?;
    let sink = LineSink {
        queue,
        dropped,
        format,
    };
    Ok((sink, LineWriter { thread }))
}

fn write_lines(lines: &Receiver<Vec<u8>>, dropped: &Mutex<u64>, mut output: impl Write) {
    const IDLE: Duration = Duration::from_secs(1);
    loop {
        let line = match lines.recv_timeout(IDLE) {
            Ok(line) => Some(line),
            Err(RecvTimeoutError::Timeout) => None,
            Err(RecvTimeoutError::Disconnected) => return,
        };
        let lost = std::mem::take(&mut *dropped.lock().unwrap_or_else(PoisonError::into_inner));
        if lost > 0 {
            tracing::warn!(
                lines = lost,
                "the children's output came too fast and was dropped"
            );
        }
        // A standard error that is gone leaves nobody to tell.
        let _ = line.map(|line| output.write_all(&line));
    }
}

impl LineWriter {
    /// Waits until everything queued is written, unless nobody reads it. All sinks must be gone.
    pub(super) fn close(self) {
        let deadline = Instant::now() + CLOSE_PATIENCE;
        while !self.thread.is_finished() && Instant::now() < deadline {
            thread::sleep(Duration::from_millis(5));
        }
    }
}

impl LineSink {
    /// Forwards `source` until it ends.
    pub(super) async fn forward(
        self,
        name: &'static str,
        mut source: impl AsyncRead + Unpin,
        last: LastLines,
    ) {
        let mut buffer = Vec::with_capacity(LONGEST_LINE);
        loop {
            let mut chunk = [0; 4096];
            let read = match source.read(&mut chunk).await {
                Ok(0) | Err(_) => break,
                Ok(read) => read,
            };
            for byte in chunk.iter().take(read).copied() {
                if byte != b'\n' {
                    buffer.push(byte);
                }
                if byte == b'\n' || buffer.len() == LONGEST_LINE {
                    self.line(name, &buffer, &last);
                    buffer.clear();
                }
            }
        }
        if !buffer.is_empty() {
            self.line(name, &buffer, &last);
        }
    }

    fn line(&self, name: &str, line: &[u8], last: &LastLines) {
        last.push(line);
        let tagged = tag(self.format, name, line);
        if let Err(TrySendError::Full(_)) = self.queue.try_send(tagged) {
            *self.dropped.lock().unwrap_or_else(PoisonError::into_inner) += 1;
        }
    }
}

/// The line with the child's name: a prefix, or a member of the JSON object that the line is.
fn tag(format: LogFormat, name: &str, line: &[u8]) -> Vec<u8> {
    let mut tagged = match (format, line.strip_prefix(b"{")) {
        (LogFormat::Json, Some(rest)) => {
            let mut text = format!("{{\"process\":\"{name}\",").into_bytes();
            text.extend_from_slice(rest);
            text
        }
        // Not a log line (a panic's message): still one JSON object per line.
        (LogFormat::Json, None) => {
            let message = String::from_utf8_lossy(line);
            let value = serde_json::json!({ "process": name, "message": message });
            value.to_string().into_bytes()
        }
        (LogFormat::Text, _) => {
            let mut text = format!("{name:<9} | ").into_bytes();
            text.extend_from_slice(line);
            text
        }
    };
    tagged.push(b'\n');
    tagged
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Takes nothing until it is let go, like a terminal that was stopped.
    struct Stuck(Receiver<()>, Arc<Mutex<Vec<u8>>>);

    impl Write for Stuck {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let _ = self.0.recv();
            self.1
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    fn text(bytes: &[u8]) -> String {
        String::from_utf8(bytes.to_vec()).expect("UTF-8")
    }

    #[test]
    fn lines_carry_the_childs_name_in_both_formats() {
        let plain = tag(LogFormat::Text, "control", b"hello");
        assert_eq!(text(&plain), "control   | hello\n");
        let json = tag(LogFormat::Json, "control", b"{\"level\":\"INFO\"}");
        assert_eq!(
            text(&json),
            "{\"process\":\"control\",\"level\":\"INFO\"}\n"
        );
        let panic = text(&tag(
            LogFormat::Json,
            "control",
            b"thread 'x' \xff panicked",
        ));
        let value: serde_json::Value = serde_json::from_str(&panic).expect("JSON");
        assert_eq!(value["process"], "control");
    }

    #[tokio::test]
    async fn a_reader_that_stops_does_not_stop_the_child() {
        let (let_go, wait) = mpsc::channel();
        let written = Arc::new(Mutex::new(Vec::new()));
        let output = Stuck(wait, Arc::clone(&written));
        let (sink, writer) = start_with(LogFormat::Text, output).expect("thread");
        let count = QUEUED_LINES + 500;
        let source: Vec<u8> = (0..count)
            .flat_map(|n| format!("{n}\n").into_bytes())
            .collect();
        let last = LastLines::default();
        sink.clone()
            .forward("child", &source[..], last.clone())
            .await;
        let dropped = *sink.dropped.lock().expect("not poisoned");
        assert!((499..=500).contains(&dropped), "{dropped}");
        assert_eq!(last.all().last(), Some(&(count - 1).to_string()));
        drop(sink);
        drop(let_go);
        writer.close();
        let lines = text(&written.lock().expect("not poisoned")).lines().count();
        assert_eq!(lines as u64 + dropped, count as u64);
    }

    #[tokio::test]
    async fn an_endless_line_is_cut_and_an_unfinished_one_is_kept() {
        let (sink, writer) = start_with(LogFormat::Text, io::sink()).expect("thread");
        let mut source = vec![b'x'; LONGEST_LINE + 3];
        source.extend_from_slice(b"\nend");
        let last = LastLines::default();
        sink.forward("child", &source[..], last.clone()).await;
        let lengths: Vec<usize> = last.all().iter().map(String::len).collect();
        assert_eq!(lengths, [LONGEST_LINE, 3, 3]);
        writer.close();
    }
}

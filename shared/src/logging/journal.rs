//! Lines that tell systemd's journal how much they matter: the digit of sd-daemon(3) before each, which
//! the journal takes off again. Only where standard error leads to the journal, as `JOURNAL_STREAM`
//! says (systemd.exec(5)).

use std::env;
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use tracing::{Level, Metadata};
use tracing_subscriber::fmt::MakeWriter;

const STANDARD_ERROR: &str = "/proc/self/fd/2";

/// Makes writers for lines, with the digit before them or not.
pub(super) struct Lines<M> {
    to: M,
    with_priority: bool,
}

impl<M> Lines<M> {
    /// Lines for `to`, which stands for standard error.
    pub(super) fn to_standard_error(to: M) -> Self {
        let stream = env::var("JOURNAL_STREAM").ok();
        let with_priority = leads_to(stream.as_deref(), Path::new(STANDARD_ERROR));
        Self { to, with_priority }
    }
}

impl<'w, M: MakeWriter<'w>> MakeWriter<'w> for Lines<M> {
    type Writer = Line<M::Writer>;

    fn make_writer(&'w self) -> Self::Writer {
        let to = self.to.make_writer();
        Line { to, digit: None }
    }

    fn make_writer_for(&'w self, metadata: &Metadata<'_>) -> Self::Writer {
        let to = self.to.make_writer_for(metadata);
        let digit = self.with_priority.then(|| priority(*metadata.level()));
        Line { to, digit }
    }
}

/// Writes one line.
pub(super) struct Line<W> {
    to: W,
    digit: Option<u8>,
}

impl<W: Write> Write for Line<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let Some(digit) = self.digit.take() else {
            return self.to.write(bytes);
        };
        // In one piece, so that lines of several threads stay whole.
        let line = [&[b'<', digit, b'>'], bytes].concat();
        self.to.write_all(&line)?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.to.flush()
    }
}

/// The digit of syslog(3).
fn priority(level: Level) -> u8 {
    match level {
        Level::ERROR => b'3',
        Level::WARN => b'4',
        Level::INFO => b'6',
        _ => b'7',
    }
}

/// Whether `stream`, the device and inode of a journal's socket, is what `file` is.
fn leads_to(stream: Option<&str>, file: &Path) -> bool {
    let Some((device, inode)) = stream.and_then(|stream| stream.split_once(':')) else {
        return false;
    };
    fs::metadata(file).is_ok_and(|metadata| {
        device.parse() == Ok(metadata.dev()) && inode.parse() == Ok(metadata.ino())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_file_that_the_stream_names_is_the_journal() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let metadata = file.as_file().metadata().expect("its own");
        let (device, inode) = (metadata.dev(), metadata.ino());
        let leads = |stream: Option<&str>| leads_to(stream, file.path());
        assert!(leads(Some(&format!("{device}:{inode}"))));
        assert!(!leads(Some(&format!("{device}:{}", inode + 1))));
        assert!(!leads(Some(&format!("{}:{inode}", device + 1))));
        for wrong in ["", ":", "1", "a:b", "1:2:3"] {
            assert!(!leads(Some(wrong)), "{wrong}");
        }
        assert!(!leads(None));
    }

    #[test]
    fn each_line_begins_with_what_its_level_is_to_syslog() {
        let file = tempfile::NamedTempFile::new().expect("temporary file");
        let lines = Lines {
            to: file.reopen().expect("again"),
            with_priority: true,
        };
        let subscriber = tracing_subscriber::fmt().with_writer(lines).finish();
        tracing::subscriber::with_default(subscriber, || {
            tracing::error!("one");
            tracing::warn!("two");
            tracing::info!("three");
        });
        let text = fs::read_to_string(file.path()).expect("text");
        let begins: Vec<&str> = text.lines().filter_map(|line| line.get(..3)).collect();
        assert_eq!(begins, ["<3>", "<4>", "<6>"], "{text}");
    }
}

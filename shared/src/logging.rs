//! Log lines on standard error, in one of two forms, with a level that can change at run time.
//! Nothing here knows what is logged; secrets are kept out where they live (their types print
//! nothing).

mod journal;

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tracing::level_filters::LevelFilter;
use tracing_subscriber::layer::{Layer, SubscriberExt};
use tracing_subscriber::registry::Registry;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};
use tracing_subscriber::{fmt, reload};

use crate::config::{LogFormat, LogLevel};
use journal::Lines;

/// Changes the level of a running process; cheap to clone.
#[derive(Clone)]
pub struct LogHandle {
    filter: reload::Handle<LevelFilter, Registry>,
    level: Arc<AtomicUsize>,
}

impl LogHandle {
    /// The level in force.
    pub fn level(&self) -> LogLevel {
        let at = self.level.load(Ordering::Relaxed);
        LogLevel::ALL.get(at).copied().unwrap_or(LogLevel::Info)
    }

    /// Applies to all lines from now on. Returns `false` when logging is gone already.
    pub fn set_level(&self, level: LogLevel) -> bool {
        let changed = self.filter.reload(filter(level)).is_ok();
        if changed {
            self.level.store(level as usize, Ordering::Relaxed);
        }
        changed
    }
}

/// Starts logging for this process.
///
/// # Errors
/// When logging was started before.
pub fn init(level: LogLevel, format: LogFormat) -> Result<LogHandle, TryInitError> {
    let (layer, handle) = build(level, format, Lines::to_standard_error(io::stderr));
    tracing_subscriber::registry().with(layer).try_init()?;
    Ok(handle)
}

fn build<W>(
    level: LogLevel,
    format: LogFormat,
    writer: W,
) -> (Box<dyn Layer<Registry> + Send + Sync>, LogHandle)
where
    W: for<'w> fmt::MakeWriter<'w> + Send + Sync + 'static,
{
    let (filter, reload) = reload::Layer::new(filter(level));
    // Standard error can be gone, when a supervisor was killed; complaining there would panic.
    let lines = fmt::layer()
        .with_writer(writer)
        .with_ansi(false)
        .log_internal_errors(false);
    let layer: Box<dyn Layer<Registry> + Send + Sync> = match format {
        LogFormat::Text => lines.with_filter(filter).boxed(),
        LogFormat::Json => lines
            .json()
            .flatten_event(true)
            .with_current_span(true)
            .with_span_list(false)
            .with_filter(filter)
            .boxed(),
    };
    let handle = LogHandle {
        filter: reload,
        level: Arc::new(AtomicUsize::new(level as usize)),
    };
    (layer, handle)
}

const fn filter(level: LogLevel) -> LevelFilter {
    match level {
        LogLevel::Error => LevelFilter::ERROR,
        LogLevel::Warn => LevelFilter::WARN,
        LogLevel::Info => LevelFilter::INFO,
        LogLevel::Debug => LevelFilter::DEBUG,
        LogLevel::Trace => LevelFilter::TRACE,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::sync::Mutex;

    #[derive(Clone, Default)]
    struct Sink(Arc<Mutex<Vec<u8>>>);

    impl Sink {
        fn text(&self) -> String {
            let bytes = self.0.lock().expect("no test panics holding it").clone();
            String::from_utf8(bytes).expect("log lines are UTF-8")
        }
    }

    impl Write for Sink {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0
                .lock()
                .expect("not poisoned")
                .extend_from_slice(bytes);
            Ok(bytes.len())
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[test]
    fn the_level_changes_at_run_time() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (layer, handle) = build(LogLevel::Info, LogFormat::Text, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::debug!("one");
            assert!(handle.set_level(LogLevel::Debug));
            assert_eq!(handle.level(), LogLevel::Debug);
            tracing::debug!("two");
            assert!(handle.set_level(LogLevel::Error));
            tracing::warn!("three");
        });
        let text = sink.text();
        assert!(
            text.contains("two") && !text.contains("one") && !text.contains("three"),
            "{text}"
        );
    }

    #[test]
    fn json_lines_are_objects_with_their_fields() {
        let sink = Sink::default();
        let writer = sink.clone();
        let (layer, _handle) = build(LogLevel::Info, LogFormat::Json, move || writer.clone());
        tracing::subscriber::with_default(tracing_subscriber::registry().with(layer), || {
            tracing::info!(session_id = "abc", "hello\nworld");
        });
        let text = sink.text();
        assert_eq!(text.lines().count(), 1);
        let line: serde_json::Value = serde_json::from_str(&text).expect("JSON");
        assert_eq!(line["session_id"], "abc");
        assert_eq!(line["message"], "hello\nworld");
        assert_eq!(line["level"], "INFO");
    }
}

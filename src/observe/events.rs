//! Everything that is not a request: start, reload, faults of the surroundings. On standard error.
//!
//! A reader that does not keep up costs events, counted, and never the thread that has something to say.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};

use crate::config::listen::Events;
use crate::config::problem::{Problems, Severity};

/// Events that wait for the reader. Room for each is made at the start, and a start or a reload has a few dozen.
const WAITING: usize = 1024;

static LOST: OnceLock<ErrorCounter> = OnceLock::new();

/// Sets the process' form of events. What is returned has the last of them written when it is dropped.
pub fn init(form: Events) -> WorkerGuard {
    let events = NonBlockingBuilder::default().lossy(true).buffered_lines_limit(WAITING);
    let (writer, guard) = events.thread_name("events").finish(std::io::stderr());
    let _ = LOST.set(writer.error_counter());
    let events =
        tracing_subscriber::fmt().with_writer(writer).with_max_level(tracing::Level::INFO).with_target(false);
    // A second call changes nothing: the first program of a process has the word.
    let _ = match form {
        Events::Json => events.json().flatten_event(true).try_init(),
        Events::Text => events.with_ansi(std::io::stderr().is_terminal()).try_init(),
    };
    guard
}

/// Events that nobody read in time.
#[must_use]
pub fn lost() -> u64 {
    LOST.get().map_or(0, |lost| lost.dropped_lines() as u64)
}

/// Says what was found in files of the operator's.
pub fn report(problems: &Problems) {
    for problem in problems {
        match problem.severity {
            Severity::Error => tracing::error!(%problem, "configuration"),
            Severity::Warning => tracing::warn!(%problem, "configuration"),
        }
    }
}

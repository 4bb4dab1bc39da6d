//! Everything that is not a request: start, reload, faults of the surroundings. On standard error.
//!
//! A reader that does not keep up costs events, counted, and never the thread that has something to say.

use std::io::IsTerminal as _;
use std::sync::OnceLock;

use tracing_appender::non_blocking::{ErrorCounter, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::Layer as _;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt as _;
use tracing_subscriber::util::SubscriberInitExt as _;

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
    let events = tracing_subscriber::fmt::layer().with_writer(writer).with_target(false);
    let events = match form {
        Events::Json => events.json().flatten_event(true).boxed(),
        Events::Text => events.with_ansi(std::io::stderr().is_terminal()).boxed(),
    };
    // Ours alone: some libraries have a line for each frame that a client should not have sent.
    let ours = Targets::new().with_target(env!("CARGO_PKG_NAME"), tracing::Level::INFO);
    // A second call changes nothing: the first program of a process has the word.
    let _ = tracing_subscriber::registry().with(events.with_filter(ours)).try_init();
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

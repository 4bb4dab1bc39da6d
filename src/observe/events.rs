//! Everything that is not a request: start, reload, faults of the surroundings. On standard error.

use std::io::IsTerminal as _;

use crate::config::listen::Events;

/// Sets the process' form of events; a second call changes nothing, since tests start many programs.
pub fn init(form: Events) {
    let events = tracing_subscriber::fmt().with_writer(std::io::stderr).with_max_level(tracing::Level::INFO);
    let _ = match form {
        Events::Json => events.json().flatten_event(true).with_target(false).try_init(),
        Events::Text => events.with_ansi(std::io::stderr().is_terminal()).with_target(false).try_init(),
    };
}

//! `scopegate serve`: the main job.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{Signal, SignalKind, signal};

use super::PROBLEMS;
use crate::app::App;
use crate::observe::events;
use crate::reload::Files;

/// Serves until SIGTERM or SIGINT, then drains; a second signal ends it at once.
pub(super) fn run(config: &Path) -> anyhow::Result<ExitCode> {
    let loaded = match Files::load(config) {
        Ok(loaded) => loaded,
        Err(problems) => {
            eprint!("{problems}");
            return Ok(ExitCode::from(PROBLEMS));
        }
    };
    let _events = events::init(loaded.value.config().fixed.log.events);
    crate::reload::report(&loaded.problems);
    App::bind(loaded.value)?.run(async {
        // Without the signals there would be no end but a kill; that is worth an end right now.
        let Ok(mut signals) = Signals::new() else { return };
        signals.next().await;
        tokio::spawn(async move {
            signals.next().await;
            tracing::warn!("told to end a second time: at once");
            std::process::exit(1);
        });
    })?;
    Ok(ExitCode::SUCCESS)
}

/// What tells a process to end: the kubelet, or a person at a terminal.
struct Signals {
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self { terminate: signal(SignalKind::terminate())?, interrupt: signal(SignalKind::interrupt())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.terminate.recv() => {}
            _ = self.interrupt.recv() => {}
        }
    }
}

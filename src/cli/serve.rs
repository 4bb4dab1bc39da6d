//! `scopegate serve`: the main job.

use std::path::Path;
use std::process::ExitCode;

use tokio::signal::unix::{SignalKind, signal};

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
    events::init(loaded.value.config().fixed.log.events);
    crate::reload::report(&loaded.problems);
    App::bind(loaded.value)?.run(async {
        if told_to_end().await.is_ok() {
            tokio::spawn(async {
                if told_to_end().await.is_ok() {
                    tracing::warn!("told to end a second time: at once");
                    std::process::exit(1);
                }
            });
        }
    })?;
    Ok(ExitCode::SUCCESS)
}

async fn told_to_end() -> std::io::Result<()> {
    let (mut term, mut interrupt) = (signal(SignalKind::terminate())?, signal(SignalKind::interrupt())?);
    tokio::select! {
        _ = term.recv() => {}
        _ = interrupt.recv() => {}
    }
    Ok(())
}

//! `scopegate serve`: the main job.

use std::path::Path;
use std::process::ExitCode;

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::signal::unix::{Signal, SignalKind, signal};

use super::PROBLEMS;
use crate::app::App;
use crate::config::limits::Limits;
use crate::observe::events;
use crate::reload::Files;

/// File descriptors of listeners, logs and files.
const OTHERS: usize = 64;

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
    events::report(&loaded.problems);
    descriptors(&loaded.value.config().live.limits);
    App::bind(loaded.value)?.run(|| {
        let mut signals = Signals::new()?;
        Ok(async move {
            signals.next().await;
            tokio::spawn(async move {
                signals.next().await;
                tracing::warn!("told to end a second time: at once");
                std::process::exit(1);
            });
        })
    })?;
    Ok(ExitCode::SUCCESS)
}

/// Takes as many file descriptors as the system allows: the usual 1,024 are a limit of another time. Says so where they are
/// too few for the connections that the configuration allows, each of which may need one to an upstream.
fn descriptors(limits: &Limits) {
    let mut have = getrlimit(Resource::Nofile);
    let most = Rlimit { current: have.maximum, maximum: have.maximum };
    if setrlimit(Resource::Nofile, most).is_ok() {
        have = most;
    }
    // As many to upstreams may be kept as may be in use.
    let need = limits.connections + 2 * limits.connections.min(limits.in_flight) + OTHERS;
    if let Some(have) = have.current
        && have < need as u64
    {
        tracing::warn!(
            have,
            need,
            "fewer file descriptors than `limits.connections` and `limits.in_flight` may need: raise the limit of the process, or lower these"
        );
    }
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

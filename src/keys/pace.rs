//! How who reads many keys keeps out of the way of requests.

use std::thread::sleep;
use std::time::{Duration, Instant};

/// A request that comes meanwhile waits for this at the most: what has just been given a core keeps it for milliseconds,
/// whoever is more important.
const BURST: Duration = Duration::from_micros(150);
/// Long enough for the core to be given to somebody else.
const REST: Duration = Duration::from_micros(50);

/// Works in short bursts, or without a pause.
#[derive(Debug, Clone)]
pub struct Pace(Option<Instant>);

impl Pace {
    /// Nobody is in a hurry but who reads.
    #[must_use]
    pub fn without_pause() -> Self {
        Self(None)
    }

    /// Requests are.
    #[must_use]
    pub fn in_bursts() -> Self {
        Self(Some(Instant::now()))
    }

    /// A piece of work has been done.
    #[allow(clippy::disallowed_methods, reason = "no worker reads keys")]
    pub fn step(&mut self) {
        if let Some(since) = &mut self.0
            && since.elapsed() >= BURST
        {
            sleep(REST);
            *since = Instant::now();
        }
    }
}

//! What may be so for every request, and is said once in a while.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Instant;

/// Seconds between two events that say the same: often enough to be seen, and no flood.
const EVERY: u64 = 10;

/// Says when it is time to say something again.
#[derive(Debug)]
pub struct Seldom {
    began: Instant,
    /// In seconds since.
    quiet_until: AtomicU64,
}

impl Default for Seldom {
    fn default() -> Self {
        Self { began: Instant::now(), quiet_until: AtomicU64::new(0) }
    }
}

impl Seldom {
    /// True where it has not been said for a while; of several threads, for one.
    #[must_use]
    pub fn is_time(&self) -> bool {
        let now = self.began.elapsed().as_secs();
        let (quiet, again) = (self.quiet_until.load(Ordering::Relaxed), now + EVERY);
        now >= quiet
            && self.quiet_until.compare_exchange(quiet, again, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

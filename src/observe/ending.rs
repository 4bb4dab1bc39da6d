//! How long it takes until what lived on a dead key has ended.

use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use prometheus::Histogram;

/// Measures from when it is made until the last who holds it lets it go: from the news that a key is dead to the end of
/// the last that lived on it.
#[derive(Debug)]
pub struct Ending {
    began: Instant,
    somebody: AtomicBool,
    seconds: Histogram,
}

impl Ending {
    pub(super) fn new(began: Instant, seconds: Histogram) -> Self {
        Self { began, somebody: AtomicBool::new(false), seconds }
    }

    /// Somebody has to leave; where nobody has, there is nothing to measure.
    pub fn concerns_somebody(&self) {
        self.somebody.store(true, Ordering::Relaxed);
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        if *self.somebody.get_mut() {
            self.seconds.observe(self.began.elapsed().as_secs_f64());
        }
    }
}

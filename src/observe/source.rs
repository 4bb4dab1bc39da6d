//! What is counted of a source of keys.

use std::time::Duration;

use prometheus::{Histogram, IntCounter, IntCounterVec, IntGauge};

/// The metrics of one source of keys.
#[derive(Debug, Clone)]
pub struct SourceMeters {
    /// 1 while it answers and its news, if it has any, are heard.
    pub up: IntGauge,
    pub(super) lookups: IntCounterVec,
    pub(super) seconds: Histogram,
    pub(super) stale: IntCounter,
    pub(super) news: IntCounterVec,
    /// Scopes in its answers that the platform does not define.
    pub scopes_undefined: IntCounter,
    pub(super) name: &'static str,
}

impl SourceMeters {
    /// Counts a question by what came of it, and how long that took where it was asked.
    pub fn lookup(&self, result: &str, took: Option<Duration>) {
        self.lookups.with_label_values(&[self.name, result]).inc();
        if let Some(took) = took {
            self.seconds.observe(took.as_secs_f64());
        }
    }

    /// Counts a request that was decided by what was known before.
    pub fn stale(&self) {
        self.stale.inc();
    }

    /// Counts what it has told of.
    pub fn news(&self, kind: &str) {
        self.news.with_label_values(&[self.name, kind]).inc();
    }
}

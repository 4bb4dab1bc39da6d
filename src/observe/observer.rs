//! What a worker tells.

use std::rc::Rc;
use std::sync::Arc;

use super::lines::Lines;
use super::metrics::{Metrics, RouteMeters};
use super::record::Record;

/// What a worker tells its records to. Its requests share it by a count that is the worker's alone.
#[derive(Debug)]
pub struct Observer {
    /// Of the process.
    pub metrics: Arc<Metrics>,
    /// The worker's own.
    pub lines: Lines,
}

impl Observer {
    /// One worker's.
    #[must_use]
    pub fn new(metrics: &Arc<Metrics>, lines: Lines) -> Self {
        Self { metrics: Arc::clone(metrics), lines }
    }

    /// Tells of a request that has ended.
    pub fn tell(&self, record: &Record, route: &RouteMeters) {
        self.metrics.count(record, route);
        self.lines.write(record, route);
    }
}

/// A request that an upstream works on, or may; it counts until this is dropped.
#[derive(Debug)]
pub struct InFlight(Rc<Observer>);

impl InFlight {
    /// One more.
    #[must_use]
    pub fn count(observer: &Rc<Observer>) -> Self {
        observer.metrics.in_flight.inc();
        Self(Rc::clone(observer))
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.0.metrics.in_flight.dec();
    }
}

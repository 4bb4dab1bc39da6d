//! What happened is told: one record a request, as a log line and as metrics.

pub mod ending;
pub mod events;
mod kinds;
pub mod lines;
pub mod metrics;
pub mod observer;
pub mod reason;
pub mod record;
pub mod seldom;
pub mod source;
pub mod stragglers;

//! The kinds of metrics, each registered under its name.

use prometheus::{
    Histogram, HistogramOpts, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Opts, Registry,
};

const REGISTERED: &str = "each metric is registered once, with a valid name";

pub(super) fn counters(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntCounterVec {
    let metric = IntCounterVec::new(Opts::new(name, help), labels).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

pub(super) fn gauges(registry: &Registry, name: &str, help: &str, labels: &[&str]) -> IntGaugeVec {
    let metric = IntGaugeVec::new(Opts::new(name, help), labels).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

pub(super) fn histograms(
    registry: &Registry,
    name: &str,
    help: &str,
    labels: &[&str],
    buckets: &[f64],
) -> HistogramVec {
    let options = HistogramOpts::new(name, help).buckets(buckets.to_vec());
    let metric = HistogramVec::new(options, labels).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

pub(super) fn histogram(registry: &Registry, name: &str, help: &str, buckets: &[f64]) -> Histogram {
    let metric =
        Histogram::with_opts(HistogramOpts::new(name, help).buckets(buckets.to_vec())).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

pub(super) fn counter(registry: &Registry, name: &str, help: &str) -> IntCounter {
    let metric = IntCounter::new(name, help).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

pub(super) fn gauge(registry: &Registry, name: &str, help: &str) -> IntGauge {
    let metric = IntGauge::new(name, help).expect(REGISTERED);
    registry.register(Box::new(metric.clone())).expect(REGISTERED);
    metric
}

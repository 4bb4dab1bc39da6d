//! Every metric there is, by Prometheus' naming conventions. docs/metrics.md lists them; a test compares.
//!
//! Labels are bounded: surfaces and route templates come from the configuration, methods and reasons from
//! tables. What a request needs is resolved at its first use and kept, so that a label is not looked up twice.

use std::array::from_fn;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use http::Method;
use prometheus::{
    Encoder, Histogram, HistogramVec, IntCounter, IntCounterVec, IntGauge, IntGaugeVec, Registry, TextEncoder,
};

use super::ending::Ending;
use super::kinds::{counter, counters, gauge, gauges, histogram, histograms};
use super::lines;
use super::reason::Reason;
use super::record::Record;
use super::source::SourceMeters;
use super::stragglers::Stragglers;

/// Methods that have a label of their own; the others share [`OTHER`].
const METHODS: [Method; 7] =
    [Method::GET, Method::HEAD, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::OPTIONS];
const OTHER: &str = "other";
/// A status' first digit; 0 where no answer was given.
const CLASSES: [&str; 6] = ["none", "1xx", "2xx", "3xx", "4xx", "5xx"];
/// A decision takes a microsecond where keys are in memory, and up to seconds where they are not.
const DECISION_BUCKETS: [f64; 10] = [1e-6, 2e-6, 5e-6, 1e-5, 2e-5, 5e-5, 1e-4, 1e-3, 1e-2, 0.1];
/// Up to the time after which we give up on the first byte.
const UPSTREAM_BUCKETS: [f64; 14] =
    [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 30.0];

/// A server that is near answers in a millisecond.
const LOOKUP_BUCKETS: [f64; 10] = [0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.1, 0.5, 1.0, 2.5];
/// A change of keys is heard within a millisecond; an end that takes seconds is one that somebody does not answer.
const REVOCATION_BUCKETS: [f64; 12] =
    [0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0];

/// The metrics of a process.
#[derive(Debug)]
pub struct Metrics {
    registry: Registry,
    requests: IntCounterVec,
    scope_denials: IntCounterVec,
    decision_seconds: HistogramVec,
    upstream_seconds: HistogramVec,
    received_bytes: IntCounterVec,
    sent_bytes: IntCounterVec,
    upstream_connects: IntCounterVec,
    upstream_faults: IntCounterVec,
    upstream_informational: IntCounterVec,
    upstream_retries: IntCounterVec,
    /// Requests between their head and their last byte.
    pub in_flight: IntGauge,
    /// Connections that clients hold open.
    pub connections: IntGauge,
    /// Connections that were not taken, by the limit that was full.
    pub connections_refused: IntCounterVec,
    /// Connections that ended while a request was due or had begun, or for others, by why.
    pub cut_short: IntCounterVec,
    /// Connections without the PROXY header that they had to begin with, by what was wrong.
    pub unproxied: IntCounterVec,
    /// Connections of HTTP/2 that did not end well, by the protocol's name for why.
    pub http2_broken: IntCounterVec,
    /// Handshakes of TLS that were good, by their kind.
    pub handshakes: IntCounterVec,
    /// Handshakes of TLS that were not, by why.
    pub handshakes_failed: IntCounterVec,
    certificate_ends: IntGaugeVec,
    list_ends: IntGaugeVec,
    /// WebSocket tunnels that are open.
    pub tunnels: IntGauge,
    /// WebSocket tunnels that were opened.
    pub tunnels_opened: IntCounter,
    /// Access log lines that nobody read in time.
    pub lines_dropped: IntCounter,
    events_dropped: IntCounter,
    /// Requests of untrusted peers that said what scheme they came by.
    pub untrusted_forwarded: IntCounter,
    reloads: IntCounterVec,
    config_info: IntGaugeVec,
    config_generation: IntGauge,
    config_loaded: IntGauge,
    keys_loaded: IntGauge,
    keys_refused: IntGauge,
    keys_deprecated: IntCounterVec,
    /// Who they are that come with keys which others have replaced.
    pub stragglers: Stragglers,
    keys_stragglers: IntGauge,
    revocation_seconds: Histogram,
    /// Sessions whose answer named who they are of.
    pub sessions_minted: IntCounter,
    /// Sessions that are remembered, when this was last asked for.
    pub sessions_known: IntGauge,
    /// Channels that are open, of sessions whose owner is known.
    pub session_channels: IntGauge,
    /// What was noted of sessions where all replicas see it, and asked for there, by what came of it.
    pub session_ledger: IntCounterVec,
    /// Channels of sessions that nobody is known to have minted.
    pub sessions_unattributed: IntCounter,
    source_up: IntGaugeVec,
    source_lookups: IntCounterVec,
    source_seconds: HistogramVec,
    source_stale: IntCounterVec,
    source_news: IntCounterVec,
    source_scopes: IntCounterVec,
    /// 1 from the first SIGTERM on.
    pub draining: IntGauge,
}

/// The metrics of one route, kept in the snapshot.
#[derive(Debug)]
pub struct RouteMeters {
    /// The surface's name.
    pub surface: Box<str>,
    /// The route's template.
    pub route: Box<str>,
    /// Both, as the access log has them.
    pub line: Box<[u8]>,
    requests: [OnceLock<Box<Ends>>; METHODS.len() + 1],
    decision: Histogram,
    upstream: Histogram,
    received: IntCounter,
    sent: IntCounter,
}

/// One counter for each class and reason.
type Ends = [[OnceLock<IntCounter>; Reason::COUNT]; CLASSES.len()];

/// The metrics of one upstream.
#[derive(Debug, Clone)]
pub struct UpstreamMeters {
    /// Connections that were made.
    pub connects: IntCounter,
    /// Interim answers that were dropped.
    pub informational: IntCounter,
    /// Requests that were sent again, because a connection had died or took no more.
    pub retries: IntCounter,
    faults: IntCounterVec,
    name: Box<str>,
}

/// How a reload ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reload {
    /// In force.
    Applied,
    /// The last good one stays.
    Refused,
}

impl Metrics {
    /// All of them, at zero, with the process' own.
    #[must_use]
    #[rustfmt::skip]
    #[allow(clippy::too_many_lines, reason = "a table: one line a metric")]
    pub fn new(version: &str) -> Arc<Self> {
        let registry = Registry::new();
        let r = &registry;
        let metrics = Self {
            requests: counters(r, "scopegate_requests_total", "Requests that have ended.", &["surface", "route", "method", "status", "reason"]),
            scope_denials: counters(r, "scopegate_scope_denials_total", "Requests refused for a missing scope, by the layer that lacks it.", &["scope", "layer"]),
            decision_seconds: histograms(r, "scopegate_decision_seconds", "From a request's head to the decision.", &["surface"], &DECISION_BUCKETS),
            upstream_seconds: histograms(r, "scopegate_upstream_seconds", "From the decision to the head of the upstream's answer.", &["surface"], &UPSTREAM_BUCKETS),
            received_bytes: counters(r, "scopegate_received_bytes_total", "Bytes of body that clients sent.", &["surface"]),
            sent_bytes: counters(r, "scopegate_sent_bytes_total", "Bytes of body that clients were sent.", &["surface"]),
            upstream_connects: counters(r, "scopegate_upstream_connects_total", "Connections made to upstreams.", &["upstream"]),
            upstream_faults: counters(r, "scopegate_upstream_faults_total", "Requests that an upstream or the wire to it failed.", &["upstream", "reason"]),
            upstream_informational: counters(r, "scopegate_upstream_informational_total", "Interim (1xx) answers of upstreams that were dropped.", &["upstream"]),
            upstream_retries: counters(r, "scopegate_upstream_retries_total", "Requests sent again because a connection had died, or took no more.", &["upstream"]),
            in_flight: gauge(r, "scopegate_requests_in_flight", "Requests between their head and their last byte, or their refusal."),
            connections: gauge(r, "scopegate_connections", "Connections that clients hold open."),
            connections_refused: counters(r, "scopegate_connections_refused_total", "Connections, and streams of HTTP/2, that were not taken, by the limit that was reached.", &["limit"]),
            cut_short: counters(r, "scopegate_connections_cut_short_total", "Connections that ended before a request that was due or had begun, or to make room.", &["reason"]),
            unproxied: counters(r, "scopegate_proxy_headers_refused_total", "Connections closed because they did not begin with a PROXY header that may be believed.", &["reason"]),
            http2_broken: counters(r, "scopegate_http2_broken_total", "Connections of HTTP/2 that did not end well.", &["reason"]),
            handshakes: counters(r, "scopegate_tls_handshakes_total", "TLS handshakes with clients that were good.", &["kind"]),
            handshakes_failed: counters(r, "scopegate_tls_handshakes_failed_total", "TLS handshakes with clients that failed.", &["reason"]),
            certificate_ends: gauges(r, "scopegate_certificate_expiry_timestamp_seconds", "When a certificate of a listener ends.", &["file"]),
            list_ends: gauges(r, "scopegate_revocation_list_expiry_timestamp_seconds", "When a newer revocation list of a listener is due.", &["file"]),
            tunnels: gauge(r, "scopegate_tunnels", "WebSocket tunnels that are open."),
            tunnels_opened: counter(r, "scopegate_tunnels_opened_total", "WebSocket tunnels that were opened."),
            lines_dropped: counter(r, "scopegate_access_log_dropped_total", "Access log lines that nobody read in time."),
            events_dropped: counter(r, "scopegate_events_dropped_total", "Events that nobody read in time."),
            untrusted_forwarded: counter(r, "scopegate_untrusted_forwarded_total", "Requests with X-Forwarded-Proto from a peer outside trusted_proxies."),
            reloads: counters(r, "scopegate_reloads_total", "Changes of the configuration, of a keys file, or of certificates.", &["file", "result"]),
            config_info: gauges(r, "scopegate_config_info", "1 for the configuration in force.", &["hash"]),
            config_generation: gauge(r, "scopegate_config_generation", "Counts the configurations that have been in force."),
            config_loaded: gauge(r, "scopegate_config_loaded_timestamp_seconds", "When the configuration in force was put in force."),
            keys_loaded: gauge(r, "scopegate_keys_loaded", "Keys that are known."),
            keys_refused: gauge(r, "scopegate_keys_refused", "Rows of keys files that were left out because of a problem, and files of a folder that never were good."),
            keys_deprecated: counters(r, "scopegate_keys_deprecated_total", "Requests with a key that another has replaced, up to its end and after.", &["surface"]),
            stragglers: Stragglers::default(),
            keys_stragglers: gauge(r, "scopegate_keys_previous_used", "Keys that somebody has used within a day although another has replaced them, as this replica saw it."),
            revocation_seconds: histogram(r, "scopegate_revocation_seconds", "From the news that a key may not be used any more to the end of the last that lived on it.", &REVOCATION_BUCKETS),
            sessions_minted: counter(r, "scopegate_sessions_minted_total", "Sessions that were minted with a key through this replica."),
            sessions_known: gauge(r, "scopegate_sessions", "Sessions that this replica knows to have been minted with a key."),
            session_channels: gauge(r, "scopegate_session_channels", "Open channels whose session is known to have been minted with a key."),
            session_ledger: counters(r, "scopegate_session_ledger_total", "Sessions told to other replicas, and asked for where those tell of theirs, by what came of it.", &["action", "result"]),
            sessions_unattributed: counter(r, "scopegate_sessions_unattributed_total", "Channels whose session is not known to have been minted with a key."),
            source_up: gauges(r, "scopegate_key_source_up", "1 while a source of keys answers and its news, if it has any, are heard.", &["source"]),
            source_lookups: counters(r, "scopegate_key_lookups_total", "Questions to a source of keys, by what came of them.", &["source", "result"]),
            source_seconds: histograms(r, "scopegate_key_lookup_seconds", "From a question to a source of keys to its answer.", &["source"], &LOOKUP_BUCKETS),
            source_stale: counters(r, "scopegate_key_stale_total", "Requests decided by what a source of keys had said before it stopped answering.", &["source"]),
            source_news: counters(r, "scopegate_key_news_total", "Changes that a source of keys has told of.", &["source", "kind"]),
            source_scopes: counters(r, "scopegate_key_scopes_undefined_total", "Scopes in the answers of a source of keys that the configuration does not define, and that open nothing.", &["source"]),
            draining: gauge(r, "scopegate_draining", "1 once draining has begun."),
            registry: registry.clone(),
        };
        gauges(r, "scopegate_build_info", "1 for the version that runs.", &["version"]).with_label_values(&[version]).set(1);
        for file in ["config", "keys", "tls"] {
            for result in [Reload::Applied, Reload::Refused] {
                metrics.reloads.with_label_values(&[file, result.label()]);
            }
        }
        let process = prometheus::process_collector::ProcessCollector::for_self();
        registry.register(Box::new(process)).expect("no other metric begins with process_");
        Arc::new(metrics)
    }

    /// The text that Prometheus scrapes.
    #[must_use]
    pub fn text(&self) -> Vec<u8> {
        self.keys_stragglers.set(i64::try_from(self.stragglers.of_today()).unwrap_or(i64::MAX));
        self.events_dropped.inc_by(super::events::lost().saturating_sub(self.events_dropped.get()));
        let mut text = Vec::new();
        TextEncoder::new()
            .encode(&self.registry.gather(), &mut text)
            .expect("every family has a name and a type");
        text
    }

    /// The metrics of one route.
    #[must_use]
    pub fn route(&self, surface: &str, route: &str) -> RouteMeters {
        RouteMeters {
            surface: surface.into(),
            route: route.into(),
            line: lines::place(surface, route).into(),
            requests: Default::default(),
            decision: self.decision_seconds.with_label_values(&[surface]),
            upstream: self.upstream_seconds.with_label_values(&[surface]),
            received: self.received_bytes.with_label_values(&[surface]),
            sent: self.sent_bytes.with_label_values(&[surface]),
        }
    }

    /// The metrics of one upstream.
    #[must_use]
    pub fn upstream(&self, name: &str) -> UpstreamMeters {
        UpstreamMeters {
            connects: self.upstream_connects.with_label_values(&[name]),
            informational: self.upstream_informational.with_label_values(&[name]),
            retries: self.upstream_retries.with_label_values(&[name]),
            faults: self.upstream_faults.clone(),
            name: name.into(),
        }
    }

    /// The metrics of one source of keys.
    #[must_use]
    pub fn source(&self, name: &'static str) -> SourceMeters {
        SourceMeters {
            up: self.source_up.with_label_values(&[name]),
            lookups: self.source_lookups.clone(),
            seconds: self.source_seconds.with_label_values(&[name]),
            stale: self.source_stale.with_label_values(&[name]),
            news: self.source_news.clone(),
            scopes_undefined: self.source_scopes.with_label_values(&[name]),
            name,
        }
    }

    /// Counts a request that has ended.
    pub fn count(&self, record: &Record, route: &RouteMeters) {
        let known = |(method, _): &(Method, _)| METHODS.iter().position(|known| known == method);
        let method = record.asked.as_ref().and_then(known).unwrap_or(METHODS.len());
        let class = usize::from(record.status / 100).min(CLASSES.len() - 1);
        let ends = route
            .requests
            .get(method)
            .map(|ends| ends.get_or_init(|| Box::new(from_fn(|_| from_fn(|_| OnceLock::new())))));
        let end = ends.and_then(|ends| ends.get(class)).and_then(|ends| ends.get(record.end().index()));
        let (Some(end), Some(class)) = (end, CLASSES.get(class)) else { return };
        let label = METHODS.get(method).map_or(OTHER, Method::as_str);
        end.get_or_init(|| {
            let RouteMeters { surface, route, .. } = route;
            self.requests.with_label_values(&[surface, route, label, class, record.end().code()])
        })
        .inc();
        if let Some(caller) = &record.caller
            && let Some(previous) = &caller.previous
        {
            self.keys_deprecated.with_label_values(&[&*route.surface]).inc();
            self.stragglers.came(caller, previous, record.at);
        }
        route.decision.observe(record.decided.as_secs_f64());
        if let Some(upstream) = record.upstream {
            route.upstream.observe(upstream.as_secs_f64());
        }
        if record.received > 0 {
            route.received.inc_by(record.received);
        }
        if record.sent > 0 {
            route.sent.inc_by(record.sent);
        }
    }

    /// Says how many keys are known, and how many rows were left out.
    pub fn keys(&self, loaded: usize, refused: usize) {
        self.keys_loaded.set(i64::try_from(loaded).unwrap_or(i64::MAX));
        self.keys_refused.set(i64::try_from(refused).unwrap_or(i64::MAX));
    }

    /// News of keys has come now.
    #[must_use]
    pub fn ending(&self) -> Arc<Ending> {
        self.ending_since(Instant::now())
    }

    /// News of keys has come at this time.
    #[must_use]
    pub fn ending_since(&self, began: Instant) -> Arc<Ending> {
        Arc::new(Ending::new(began, self.revocation_seconds.clone()))
    }

    /// Counts a missing scope.
    pub fn scope_denied(&self, scope: &str, layer: &str) {
        self.scope_denials.with_label_values(&[scope, layer]).inc();
    }

    /// Counts a change of a file.
    pub fn reloaded(&self, file: &str, result: Reload) {
        self.reloads.with_label_values(&[file, result.label()]).inc();
    }

    /// Says when a certificate or a list ends.
    pub fn ends(&self, file: &str, is_list: bool, at: SystemTime) {
        let gauge = if is_list { &self.list_ends } else { &self.certificate_ends };
        let at = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        gauge.with_label_values(&[file]).set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    }

    /// Says which configuration is in force.
    pub fn configured(&self, hash: &str, generation: u64, at: Duration) {
        self.config_info.reset();
        self.config_info.with_label_values(&[hash]).set(1);
        self.config_generation.set(i64::try_from(generation).unwrap_or(i64::MAX));
        self.config_loaded.set(i64::try_from(at.as_secs()).unwrap_or(i64::MAX));
    }
}

impl UpstreamMeters {
    /// Counts a fault, if it is this upstream's and not the client's. Faults are rare: the label is looked up.
    pub fn fault(&self, reason: Reason) {
        let others = matches!(
            reason,
            Reason::ClientTimeout
                | Reason::ClientInvalid
                | Reason::ClientGone
                | Reason::BodyTooLarge
                | Reason::TargetInvalid
                | Reason::KeyRevoked
                | Reason::KeysUnavailable
        );
        if others {
            return;
        }
        self.faults.with_label_values(&[&*self.name, reason.code()]).inc();
    }
}

impl Reload {
    fn label(self) -> &'static str {
        match self {
            Self::Applied => "applied",
            Self::Refused => "refused",
        }
    }
}

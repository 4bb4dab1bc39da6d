//! Everything derived from one configuration and one keys file, and what survives into the next.
//!
//! A snapshot never changes: a reload builds another and swaps it in whole. What has state, and where its section
//! has not changed, is taken over from the one before; that is written here and nowhere else.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use tokio::sync::watch;

use crate::accept::Bounds;
use crate::accept::crowd::{Crowd, Most};
use crate::accept::drain::Drain;
use crate::config::sources;
use crate::config::{Config, Live};
use crate::decide::Policy;
use crate::forward::upstream::Upstream;
use crate::keys::change::Changes;

use crate::keys::remote::Remote;
use crate::keys::sessions::Sessions;
use crate::keys::sessions::ledger::Ledger;
use crate::keys::table::Table;
use crate::keys::{Keys, Source};
use crate::message::head::Limits;
use crate::observe::metrics::{Metrics, RouteMeters};

/// What runs.
#[derive(Debug)]
pub struct Snapshot {
    /// Counts snapshots from 1.
    pub generation: u64,
    /// The configuration that it was derived from.
    pub config: Config,
    /// Decides.
    pub policy: Policy,
    /// What is taken of clients.
    pub bounds: Bounds,
    /// Knows callers.
    pub keys: Keys,
    /// Where replicas tell each other whose sessions are, if they do.
    pub ledger: Option<Arc<Ledger>>,
    /// In the order of the configuration.
    pub upstreams: Vec<Arc<Upstream>>,
    /// One for each of [`Policy::routes`].
    pub meters: Vec<RouteMeters>,
    /// For requests that no route matched.
    pub no_route: RouteMeters,
}

/// A worker's hold on a snapshot. Requests share it by a count that is the worker's alone, so that workers do not
/// write to the same place for each request.
#[derive(Debug)]
pub struct Held(Arc<Snapshot>);

impl std::ops::Deref for Held {
    type Target = Snapshot;

    fn deref(&self) -> &Snapshot {
        &self.0
    }
}

/// What all doors and workers have in common.
#[derive(Debug, Clone)]
pub struct Shared {
    /// The snapshot in force.
    pub current: Arc<Current>,
    /// Where everything is counted.
    pub metrics: Arc<Metrics>,
    /// Connections of clients.
    pub crowd: Arc<Crowd>,
    /// Where changes of keys are told.
    pub changes: Changes,
    /// Whose sessions are.
    pub sessions: Arc<Sessions>,
    /// Whether we are leaving.
    pub drain: Drain,
}

/// The snapshot in force.
#[derive(Debug)]
pub struct Current {
    snapshot: ArcSwap<Snapshot>,
    /// Of that one: to read a number costs a request less than to borrow a snapshot.
    generation: AtomicU64,
    changed: watch::Sender<u64>,
    ready: AtomicBool,
}

impl Snapshot {
    /// Derives everything from a valid configuration.
    #[must_use]
    pub fn build(
        config: Config,
        tables: &[Arc<Table>],
        previous: Option<&Self>,
        metrics: &Arc<Metrics>,
        changes: &Changes,
    ) -> Self {
        let policy = Policy::new(&config.live).with(config.fixed.key_digest.hashing.clone());
        let upstreams = config.live.upstreams.iter().map(|written| {
            // Its addresses, and through them its pooled connections.
            let same =
                previous.and_then(|old| old.upstreams.iter().find(|upstream| upstream.config == *written));
            let fresh = || Arc::new(Upstream::new(written.clone(), metrics.upstream(&written.name)));
            same.map_or_else(fresh, Arc::clone)
        });
        let upstreams = upstreams.collect();
        let meters = policy.routes.iter().map(|route| {
            let surface = policy.surfaces.get(route.surface).map_or("", |surface| &*surface.name);
            metrics.route(surface, &route.template)
        });
        let keys = keys(&config, tables, previous, metrics, changes);
        let (known, refused) = keys.count();
        metrics.keys(known, refused);
        Self {
            generation: previous.map_or(1, |old| old.generation + 1),
            meters: meters.collect(),
            no_route: metrics.route("none", "none"),
            keys,
            ledger: ledger(&config, previous, metrics),
            upstreams,
            bounds: bounds(&config.live, &policy),
            policy,
            config,
        }
    }

    /// The sections that a reload changes.
    #[must_use]
    pub fn live(&self) -> &Live {
        &self.config.live
    }

    /// The metrics of a route, or of having none.
    #[must_use]
    pub fn meters(&self, route: Option<usize>) -> &RouteMeters {
        route.and_then(|id| self.meters.get(id)).unwrap_or(&self.no_route)
    }
}

fn bounds(live: &Live, policy: &Policy) -> Bounds {
    let (limits, timeouts) = (&live.limits, &live.timeouts);
    Bounds {
        size: Limits { head: limits.head, fields: limits.fields, target: limits.target },
        head_wait: timeouts.head,
        idle: timeouts.keep_alive,
        patience: timeouts.idle,
        connections: Most { all: limits.connections, of_one: Some(limits.connections_per_client) },
        streams: limits.streams,
        resets: limits.resets,
        control_frames: limits.control_frames,
        channels: policy.has_channels,
    }
}

/// The sources of a configuration: files as they were read, servers with what is known of them already.
fn keys(
    config: &Config,
    tables: &[Arc<Table>],
    previous: Option<&Snapshot>,
    metrics: &Arc<Metrics>,
    changes: &Changes,
) -> Keys {
    let (platform, hashing) = (&config.live.scopes, &config.fixed.key_digest.hashing);
    let same = |source: &sources::Source| match source {
        sources::Source::File(_) | sources::Source::Folder(_) => None,
        sources::Source::Remote(written) => {
            previous.and_then(|old| old.keys.remotes().find(|remote| remote.serves(written, platform)))
        }
    };
    // Those that go on keep their names.
    let mut taken: Vec<_> = config.live.keys.iter().filter_map(|source| Some(same(source)?.name())).collect();
    let mut tables = tables.iter();
    let sources = config.live.keys.iter().map(|source| match source {
        sources::Source::File(_) | sources::Source::Folder(_) => {
            Source::File(tables.next().map(Arc::clone).expect("each source has been read"))
        }
        sources::Source::Remote(written) => Source::Remote(same(source).map_or_else(
            || {
                let remotes = previous.into_iter().flat_map(|old| old.keys.remotes());
                let before = remotes.map(|remote| &**remote).find(|old| old.talks_to(&written.server));
                let fresh = Remote::start(written, (&taken, before), (platform, hashing), changes, metrics);
                taken.push(fresh.name());
                fresh
            },
            Arc::clone,
        )),
    });
    Keys::new(sources.collect())
}

/// In the first Redis of the sources, where there are sessions to tell of.
fn ledger(config: &Config, previous: Option<&Snapshot>, metrics: &Metrics) -> Option<Arc<Ledger>> {
    let surfaces = &config.live.surfaces;
    let mints = surfaces.iter().flat_map(|surface| &surface.routes).any(|route| route.mints.is_some());
    let opens = surfaces.iter().filter_map(|surface| surface.channel.as_ref());
    if !mints || opens.filter(|channel| channel.session.is_some()).count() == 0 {
        return None;
    }
    let (redis, most) = config.live.keys.iter().find_map(|source| match source {
        sources::Source::Remote(sources::Remote { server: sources::Server::Redis(redis), cache, .. }) => {
            Some((redis, cache.timeout))
        }
        sources::Source::Remote(_) | sources::Source::File(_) | sources::Source::Folder(_) => None,
    })?;
    let same = previous.and_then(|old| old.ledger.as_ref()).filter(|ledger| ledger.serves(redis, most));
    Some(same.map_or_else(|| Ledger::start(redis, most, metrics), Arc::clone))
}

impl Current {
    /// In force from the start.
    #[must_use]
    pub fn new(snapshot: Snapshot) -> Arc<Self> {
        let changed = watch::Sender::new(snapshot.generation);
        Arc::new(Self {
            generation: AtomicU64::new(snapshot.generation),
            snapshot: ArcSwap::from_pointee(snapshot),
            changed,
            ready: AtomicBool::new(false),
        })
    }

    /// The one in force now.
    #[must_use]
    pub fn load(&self) -> Arc<Snapshot> {
        self.snapshot.load_full()
    }

    /// A hold on the one in force now.
    #[must_use]
    pub fn hold(&self) -> Held {
        Held(self.load())
    }

    /// A hold on the one in force now, where that is another than the one held.
    #[must_use]
    pub fn newer_than(&self, held: &Held) -> Option<Held> {
        (self.generation.load(Ordering::Acquire) != held.generation).then(|| self.hold())
    }

    /// Puts another in force, for the next request of every connection.
    pub fn swap(&self, snapshot: Snapshot) {
        let (generation, new) = (snapshot.generation, Arc::new(snapshot));
        let old = self.snapshot.swap(Arc::clone(&new));
        self.generation.store(generation, Ordering::Release);
        for remote in old.keys.remotes() {
            if !new.keys.remotes().any(|kept| Arc::ptr_eq(kept, remote)) {
                remote.retire();
            }
        }
        self.changed.send_replace(generation);
    }

    /// Told of every swap from now on.
    #[must_use]
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changed.subscribe()
    }

    /// What is not there yet that requests need.
    #[must_use]
    pub fn waits_for(&self) -> Option<&'static str> {
        let snapshot = self.load();
        if !snapshot.upstreams.iter().all(|upstream| upstream.is_resolved()) {
            Some("an upstream has no address yet")
        } else if snapshot.keys.are_ready() {
            None
        } else {
            Some("a source of keys has not been reached yet")
        }
    }

    /// Whether there has been a moment at which everything was there that a request needs. An upstream that is
    /// lost later does not make us unready: its requests get an answer that says so.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        if !self.ready.load(Ordering::Relaxed) && self.waits_for().is_none() {
            self.ready.store(true, Ordering::Relaxed);
        }
        self.ready.load(Ordering::Relaxed)
    }
}

//! What is kept of a server's answers. Workers read it; only the keeper writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync;

use super::Entry;
use super::last_good::Dated;
use super::row::Row;
use crate::config::sources;
use crate::config::sources::Fail;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;

/// Unknown keys that are remembered: a flood of them must not cost more than this, and drives out nobody who is known.
const STRANGERS: u64 = 10_000;

/// What is kept of a server's answers.
#[derive(Debug)]
pub struct Cache {
    bounds: sources::Cache,
    known: sync::Cache<Digest, Arc<Known>>,
    unknown: sync::Cache<Digest, u64>,
    /// The table's epoch: what was kept before it moved is not looked at any more.
    epoch: AtomicU64,
    /// The server has been heard since the start.
    reached: AtomicBool,
}

/// A key that the server knew. It stays known when that is too old to be used: who was never made up does not compete with
/// those who are.
#[derive(Debug)]
pub struct Known {
    /// What it said.
    pub entry: Entry,
    weight: u32,
    epoch: u64,
    at: Instant,
    /// News may have been missed since.
    doubtful: AtomicBool,
    /// News of it, or of its team, have come since.
    overtaken: AtomicBool,
    /// It was said before this start, and may be used until then, unless the server has been reached since.
    survives: Option<Instant>,
    refreshing: AtomicBool,
}

/// What is kept of a key, and how long ago it was said.
#[derive(Debug)]
pub(super) struct Said {
    pub(super) digest: Digest,
    pub(super) entry: Entry,
    pub(super) age: Duration,
}

/// How far what is known may be trusted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Age {
    /// It is as good as an answer.
    Fresh,
    /// It is, while the server is asked again.
    Stale,
    /// The server must be asked first.
    Old,
}

impl Cache {
    /// Empty.
    #[must_use]
    pub fn new(bounds: sources::Cache) -> Self {
        let known =
            sync::Cache::builder().max_capacity(bounds.size).weigher(|_, known: &Arc<Known>| known.weight);
        let unknown = sync::Cache::builder().max_capacity(STRANGERS).time_to_live(bounds.unknown);
        Self {
            bounds,
            known: known.build(),
            unknown: unknown.build(),
            epoch: AtomicU64::new(0),
            reached: AtomicBool::new(false),
        }
    }

    /// What was known of a key, which may be too old to be used.
    #[must_use]
    pub fn known(&self, digest: &Digest) -> Option<Arc<Known>> {
        self.known.get(digest)
    }

    /// Whether the server has just said that it does not know the key.
    #[must_use]
    pub fn is_unknown(&self, digest: &Digest) -> bool {
        self.unknown.get(digest).is_some_and(|epoch| epoch == self.epoch())
    }

    /// Whether news of what is known have come since: it must not be used any more, whatever happens.
    pub(super) fn is_overtaken(&self, known: &Known) -> bool {
        known.overtaken.load(Ordering::Acquire) || known.epoch != self.epoch()
    }

    /// How far what is known may be trusted at this time.
    #[must_use]
    pub fn age(&self, known: &Known, now: Instant) -> Age {
        let age = now.saturating_duration_since(known.at);
        if self.is_overtaken(known) || known.doubtful.load(Ordering::Relaxed) || age >= self.bounds.stale {
            Age::Old
        } else if age >= self.bounds.fresh {
            Age::Stale
        } else {
            Age::Fresh
        }
    }

    /// Whether what is known may be used where the server does not answer.
    #[must_use]
    pub fn outlasts(&self, known: &Known, now: Instant) -> bool {
        if self.is_overtaken(known) {
            return false;
        }
        if known.survives.is_some_and(|until| now < until) && !self.reached.load(Ordering::Acquire) {
            return true;
        }
        match self.bounds.fail {
            Fail::Closed => false,
            Fail::StaleFor(time) => now.saturating_duration_since(known.at) < time,
        }
    }

    /// Keeps an answer to a question that was asked at this time.
    pub(super) fn keep(
        &self,
        digest: Digest,
        row: Option<&Row>,
        platform: &Scopes,
        at: Instant,
    ) -> Option<Entry> {
        let Some(row) = row else {
            self.known.invalidate(&digest);
            self.unknown.insert(digest, self.epoch());
            return None;
        };
        let entry = row.entry(platform);
        self.unknown.invalidate(&digest);
        let known = Known::new(entry.clone(), row.weight(), self.epoch(), at);
        self.known.insert(digest, Arc::new(known));
        Some(entry)
    }

    /// What was said of each so long ago, before this start; it is good until it is older than this.
    pub(super) fn restore(&self, rows: Vec<Dated>, platform: &Scopes, most: Duration) {
        let now = Instant::now();
        for (digest, row, age) in rows {
            let Some(at) = now.checked_sub(age) else { continue };
            let known = Known {
                doubtful: true.into(),
                survives: Some(now + most.saturating_sub(age)),
                ..Known::new(row.entry(platform), row.weight(), self.epoch(), at)
            };
            self.known.insert(digest, Arc::new(known));
        }
    }

    /// Takes over what another knew of the same server, under another platform's scopes: it is asked for again before it is
    /// used, unless the server does not answer.
    pub(super) fn take_over(&self, other: &Self, theirs: &Scopes, ours: &Scopes) {
        self.reached.store(other.reached.load(Ordering::Acquire), Ordering::Release);
        for (digest, known) in &other.known {
            let entry = Row::of(&known.entry, theirs).entry(ours);
            let known = Known {
                doubtful: true.into(),
                overtaken: other.is_overtaken(&known).into(),
                survives: known.survives,
                ..Known::new(entry, known.weight, self.epoch(), known.at)
            };
            self.known.insert(*digest, Arc::new(known));
        }
    }

    /// Everything that is known, and may still be so.
    pub(super) fn all(&self) -> impl Iterator<Item = Said> {
        let now = Instant::now();
        let known = self.known.iter().filter(|(_, known)| !self.is_overtaken(known));
        known.map(move |(digest, known)| Said {
            digest: *digest,
            entry: known.entry.clone(),
            age: known.age(now),
        })
    }

    /// What was said of a key is not so any more.
    pub(super) fn overtake(&self, digest: &Digest) {
        if let Some(known) = self.known.get(digest) {
            known.overtaken.store(true, Ordering::Release);
        }
        self.unknown.invalidate(digest);
    }

    /// The same of the keys of a team. Those that are not known may be of it, too.
    pub(super) fn overtake_team(&self, team: &str) {
        for (_, known) in &self.known {
            if known.entry.caller.team() == team {
                known.overtaken.store(true, Ordering::Release);
            }
        }
        self.unknown.invalidate_all();
    }

    /// The same of everything.
    pub(super) fn overtake_all(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
        self.unknown.invalidate_all();
    }

    /// The server has answered: what it said before this start is nothing to go by any more.
    pub(super) fn reach(&self) {
        self.reached.store(true, Ordering::Release);
    }

    /// Everything must be asked for again before it is used, unless the server does not answer.
    pub(super) fn doubt_all(&self) {
        for (_, known) in &self.known {
            known.doubtful.store(true, Ordering::Release);
        }
        self.unknown.invalidate_all();
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl Known {
    fn new(entry: Entry, weight: u32, epoch: u64, at: Instant) -> Self {
        let (doubtful, overtaken, refreshing) = Default::default();
        Self { entry, weight, epoch, at, doubtful, overtaken, survives: None, refreshing }
    }

    /// True for the one who has it asked for again.
    #[must_use]
    pub fn begins_refresh(&self) -> bool {
        !self.refreshing.swap(true, Ordering::Relaxed)
    }

    /// Somebody else may have it asked for again.
    pub(super) fn ends_refresh(&self) {
        self.refreshing.store(false, Ordering::Relaxed);
    }

    /// How long ago it was said.
    #[must_use]
    pub fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.at)
    }
}

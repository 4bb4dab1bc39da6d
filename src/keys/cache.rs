//! What is kept of a server's answers. Workers read it; only the keeper writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use moka::sync;

use super::Entry;
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

/// A key that the server knew.
#[derive(Debug)]
pub struct Known {
    /// What it said.
    pub entry: Entry,
    weight: u32,
    epoch: u64,
    at: Instant,
    /// News may have been missed since.
    doubtful: AtomicBool,
    /// It was said before this start, and may be used until then, unless the server has been reached since.
    survives: Option<Instant>,
    refreshing: AtomicBool,
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
    /// Empty; what was said before a start is kept for so long.
    #[must_use]
    pub fn new(bounds: sources::Cache, over_a_start: Duration) -> Self {
        let longest = match bounds.fail {
            Fail::Closed => bounds.stale,
            Fail::StaleFor(time) => bounds.stale.max(time),
        };
        let longest = longest.max(over_a_start);
        let known = sync::Cache::builder()
            .max_capacity(bounds.size)
            .weigher(|_, known: &Arc<Known>| known.weight)
            .time_to_live(longest);
        let unknown = sync::Cache::builder().max_capacity(STRANGERS).time_to_live(bounds.unknown);
        Self {
            bounds,
            known: known.build(),
            unknown: unknown.build(),
            epoch: AtomicU64::new(0),
            reached: AtomicBool::new(false),
        }
    }

    /// What is known of a key.
    #[must_use]
    pub fn known(&self, digest: &Digest) -> Option<Arc<Known>> {
        self.known.get(digest).filter(|known| known.epoch == self.epoch())
    }

    /// Whether the server has just said that it does not know the key.
    #[must_use]
    pub fn is_unknown(&self, digest: &Digest) -> bool {
        self.unknown.get(digest).is_some_and(|epoch| epoch == self.epoch())
    }

    /// How far what is known may be trusted at this time.
    #[must_use]
    pub fn age(&self, known: &Known, now: Instant) -> Age {
        let age = now.saturating_duration_since(known.at);
        if known.doubtful.load(Ordering::Relaxed) || age >= self.bounds.stale {
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
        let known = Known {
            entry: entry.clone(),
            weight: row.weight(),
            epoch: self.epoch(),
            at,
            doubtful: AtomicBool::new(false),
            survives: None,
            refreshing: AtomicBool::new(false),
        };
        self.unknown.invalidate(&digest);
        self.known.insert(digest, Arc::new(known));
        Some(entry)
    }

    /// What was said so long ago, before this start; it is good until it is older than this.
    pub(super) fn restore(&self, rows: Vec<(Digest, Row)>, platform: &Scopes, age: Duration, most: Duration) {
        let now = Instant::now();
        for (digest, row) in rows {
            let known = Known {
                entry: row.entry(platform),
                weight: row.weight(),
                epoch: self.epoch(),
                at: now.checked_sub(age).unwrap_or(now),
                doubtful: AtomicBool::new(true),
                survives: Some(now + most.saturating_sub(age)),
                refreshing: AtomicBool::new(false),
            };
            self.known.insert(digest, Arc::new(known));
        }
    }

    /// Everything that is known.
    pub(super) fn all(&self) -> impl Iterator<Item = (Digest, Entry)> {
        let epoch = self.epoch();
        let known = self.known.iter().filter(move |(_, known)| known.epoch == epoch);
        known.map(|(digest, known)| (*digest, known.entry.clone()))
    }

    /// Forgets a key.
    pub(super) fn forget(&self, digest: &Digest) {
        self.known.invalidate(digest);
        self.unknown.invalidate(digest);
    }

    /// Forgets the keys of a team. Those that are not known may be of it, too.
    pub(super) fn forget_team(&self, team: &str) {
        for (digest, known) in &self.known {
            if known.entry.caller.team() == team {
                self.known.invalidate(&*digest);
            }
        }
        self.unknown.invalidate_all();
    }

    /// Forgets everything.
    pub(super) fn forget_all(&self) {
        self.epoch.fetch_add(1, Ordering::Release);
        self.known.invalidate_all();
        self.unknown.invalidate_all();
    }

    /// Everything must be asked for again before it is used, unless the server does not answer.
    pub(super) fn doubt_all(&self) {
        self.reached.store(true, Ordering::Release);
        for (_, known) in &self.known {
            known.doubtful.store(true, Ordering::Release);
        }
        self.unknown.invalidate_all();
    }

    /// How many keys are known, and how many are known to be unknown: about.
    #[must_use]
    pub fn len(&self) -> (u64, u64) {
        (self.known.entry_count(), self.unknown.entry_count())
    }

    fn epoch(&self) -> u64 {
        self.epoch.load(Ordering::Acquire)
    }
}

impl Known {
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

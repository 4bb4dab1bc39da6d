//! Who still comes with a key that another has replaced.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use moka::sync::Cache;

use crate::identity::caller::{Caller, Previous};

/// Keys that are remembered: more than anybody replaces at a time, and some 3 MiB.
const KEYS: u64 = 10_000;
/// Who has not come for so long has most likely changed over.
const DAY: Duration = Duration::from_secs(24 * 3_600);

/// Who still comes with a key that another has replaced, since this process began.
#[derive(Debug)]
pub struct Stragglers {
    /// When it began.
    pub watched_since: SystemTime,
    uses: Cache<String, Arc<Use>>,
}

#[derive(Debug)]
struct Use {
    team: Box<str>,
    key: Box<str>,
    since: SystemTime,
    until: AtomicU64,
    last: AtomicU64,
    requests: AtomicU64,
}

/// One of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Straggler {
    /// The team.
    pub team: Box<str>,
    /// The id of the key, which both the old one and the new one have.
    pub key: Box<str>,
    /// When the old one was replaced.
    pub since: SystemTime,
    /// When it ends.
    pub until: SystemTime,
    /// When it was used last, to the second.
    pub last_used: SystemTime,
    /// How often it was used, with good answers or not.
    pub requests: u64,
}

impl Default for Stragglers {
    fn default() -> Self {
        Self { watched_since: SystemTime::now(), uses: Cache::builder().max_capacity(KEYS).build() }
    }
}

impl Stragglers {
    /// A request has come at this time with a key that another has replaced.
    pub fn came(&self, caller: &Caller, previous: &Previous, at: SystemTime) {
        let name = format!("{}\n{}", caller.team(), caller.key_id());
        let known = self.uses.get(&name).filter(|known| known.since == previous.since);
        let used = known.unwrap_or_else(|| {
            let fresh = Arc::new(Use {
                team: caller.team().into(),
                key: caller.key_id().into(),
                since: previous.since,
                until: AtomicU64::default(),
                last: AtomicU64::default(),
                requests: AtomicU64::default(),
            });
            self.uses.insert(name, Arc::clone(&fresh));
            fresh
        });
        used.until.store(seconds(previous.until), Ordering::Relaxed);
        used.last.fetch_max(seconds(at), Ordering::Relaxed);
        used.requests.fetch_add(1, Ordering::Relaxed);
    }

    /// All of them, by team and key.
    #[must_use]
    pub fn all(&self) -> Vec<Straggler> {
        let mut all: Vec<_> = self.uses.iter().map(|(_, used)| used.told()).collect();
        all.sort_by(|one, other| (&one.team, &one.key).cmp(&(&other.team, &other.key)));
        all
    }

    /// How many have come within a day.
    #[must_use]
    pub fn of_today(&self) -> usize {
        let then = seconds(SystemTime::now()).saturating_sub(DAY.as_secs());
        self.uses.iter().filter(|(_, used)| used.last.load(Ordering::Relaxed) >= then).count()
    }
}

impl Use {
    fn told(&self) -> Straggler {
        let at = |time: &AtomicU64| UNIX_EPOCH + Duration::from_secs(time.load(Ordering::Relaxed));
        Straggler {
            team: self.team.clone(),
            key: self.key.clone(),
            since: self.since,
            until: at(&self.until),
            last_used: at(&self.last),
            requests: self.requests.load(Ordering::Relaxed),
        }
    }
}

fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

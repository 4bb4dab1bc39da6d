//! Sessions that were minted with a key: their channels carry no key, and may have to end with it all the same.

pub mod ledger;
pub mod minting;

use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use moka::sync::Cache;
use prometheus::{IntCounter, IntGauge};

use crate::identity::caller::Caller;
use crate::identity::key::Digest;
use crate::observe::metrics::Metrics;

/// A session is minted anew by the next page; one that is older is not known to be anybody's any more.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Sessions that are remembered: some 20 MiB. Beyond it, those that nobody opens are forgotten first.
const SESSIONS: u64 = 65_536;

/// Whose sessions are, as this replica knows it: by the digests of their ids.
#[derive(Debug)]
pub struct Sessions {
    known: Cache<Digest, Arc<Session>>,
    minted: IntCounter,
    open: IntGauge,
}

/// Who minted a session.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owner {
    /// Of the key.
    pub digest: Digest,
    /// Its holder then.
    pub caller: Caller,
}

/// A session that was minted with a key.
#[derive(Debug)]
pub struct Session {
    /// Who did.
    pub owner: Owner,
    open: AtomicUsize,
}

/// A channel of a session, for as long as it lives.
#[derive(Debug)]
pub struct Opened {
    session: Arc<Session>,
    open: IntGauge,
}

/// What is known of one key's sessions.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Count {
    /// That are remembered.
    pub sessions: usize,
    /// Channels of theirs that are open.
    pub open: usize,
}

impl Sessions {
    /// None is known yet.
    #[must_use]
    pub fn new(metrics: &Metrics) -> Self {
        let known = Cache::builder().max_capacity(SESSIONS).time_to_live(LONGEST).build();
        Self { known, minted: metrics.sessions_minted.clone(), open: metrics.session_channels.clone() }
    }

    /// A session has been minted. One that a team has is not another's, whatever an answer to that one says: false then.
    #[must_use]
    pub fn minted(&self, session: Digest, owner: Owner) -> bool {
        let is_theirs = |known: Arc<Session>| known.owner.caller.team() != owner.caller.team();
        if self.known.get(&session).is_some_and(is_theirs) {
            return false;
        }
        self.minted.inc();
        let _ = self.remember(session, owner);
        true
    }

    /// The same, as another replica has told.
    #[must_use]
    pub fn remember(&self, session: Digest, owner: Owner) -> Arc<Session> {
        let same = self.known.get(&session).filter(|known| known.owner == owner);
        same.unwrap_or_else(|| {
            let fresh = Arc::new(Session { owner, open: AtomicUsize::new(0) });
            self.known.insert(session, Arc::clone(&fresh));
            fresh
        })
    }

    /// Whose it is, where that is known.
    #[must_use]
    pub fn get(&self, session: &Digest) -> Option<Arc<Session>> {
        self.known.get(session)
    }

    /// A channel of this session has been admitted.
    #[must_use]
    pub fn opened(&self, session: Arc<Session>) -> Opened {
        session.open.fetch_add(1, Ordering::Relaxed);
        self.open.inc();
        Opened { session, open: self.open.clone() }
    }

    /// How many are remembered.
    #[must_use]
    pub fn count(&self) -> u64 {
        self.known.run_pending_tasks();
        self.known.entry_count()
    }

    /// What is known of each key's sessions, by team and id of the key.
    #[must_use]
    pub fn by_key(&self) -> BTreeMap<(String, String), Count> {
        let mut counts = BTreeMap::<_, Count>::new();
        for (_, session) in &self.known {
            let caller = &session.owner.caller;
            let count = counts.entry((caller.team().to_owned(), caller.key_id().to_owned())).or_default();
            count.sessions += 1;
            count.open += session.open.load(Ordering::Relaxed);
        }
        counts
    }
}

impl Drop for Opened {
    fn drop(&mut self) {
        self.session.open.fetch_sub(1, Ordering::Relaxed);
        self.open.dec();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::caller::Team;
    use crate::identity::scope::ScopeSet;

    fn owner(team: &str, id: &str) -> Owner {
        let team = Team { name: team.into(), scopes: ScopeSet::default() };
        Owner { digest: Digest::of(id.as_bytes()), caller: Caller::new(id, ScopeSet::default(), team) }
    }

    #[test]
    fn a_session_that_a_team_has_is_not_another_teams() {
        let sessions = Sessions::new(&Metrics::new(""));
        let session = Digest::of(b"s");
        let mint = |team: &str, id: &str| {
            let _ = sessions.minted(session, owner(team, id));
            sessions.get(&session).expect("an owner").owner.caller.key_id().to_owned()
        };
        assert_eq!(mint("acme", "a"), "a");
        assert_eq!(mint("acme", "b"), "b", "upgraded by another key of the team");
        assert_eq!(mint("evil", "c"), "b");
    }

    #[test]
    fn what_is_open_is_counted_for_as_long_as_it_is() {
        let sessions = Sessions::new(&Metrics::new(""));
        let session = sessions.remember(Digest::of(b"s"), owner("acme", "a"));
        let count = || sessions.by_key()[&("acme".to_owned(), "a".to_owned())];
        let opened = [sessions.opened(Arc::clone(&session)), sessions.opened(session)];
        let again = sessions.remember(Digest::of(b"s"), owner("acme", "a"));
        assert_eq!(again.open.load(Ordering::Relaxed), 2, "what was known already goes on");
        assert_eq!(count(), Count { sessions: 1, open: 2 });
        drop(opened);
        assert_eq!(count(), Count { sessions: 1, open: 0 });
    }
}

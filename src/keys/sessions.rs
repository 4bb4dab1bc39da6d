//! Sessions that were minted with a key: their channels carry no key, and may have to end with it all the same.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use moka::sync::Cache;
use serde_json::Value;

use crate::identity::caller::Caller;
use crate::identity::key::Digest;

/// A session is minted anew by the next page; one that is older is not known to be anybody's any more.
const LONGEST: Duration = Duration::from_secs(24 * 3_600);
/// Sessions that are remembered: some 20 MiB. Beyond it, those that nobody opens are forgotten first.
const SESSIONS: u64 = 65_536;
/// A name that is longer is none of TelAPI's, whose ids are UUIDs.
const LONGEST_NAME: usize = 256;

/// Whose sessions are, on this replica.
#[derive(Debug)]
pub struct Sessions(Cache<Box<str>, Owner>);

/// Who minted a session.
#[derive(Debug, Clone)]
pub struct Owner {
    /// Of the key.
    pub digest: Digest,
    /// Its holder then.
    pub caller: Caller,
}

impl Default for Sessions {
    fn default() -> Self {
        Self(Cache::builder().max_capacity(SESSIONS).time_to_live(LONGEST).build())
    }
}

impl Sessions {
    /// A session has been minted. One that a team has is not another's, whatever an answer to that one says.
    pub fn minted(&self, session: &str, owner: Owner) {
        let is_theirs = |known: Owner| known.caller.team() != owner.caller.team();
        if session.len() <= LONGEST_NAME && !self.0.get(session).is_some_and(is_theirs) {
            self.0.insert(session.into(), owner);
        }
    }

    /// Whose it is, where that is known.
    #[must_use]
    pub fn owner(&self, session: &str) -> Option<Owner> {
        self.0.get(session)
    }
}

/// An answer that names a session is read up to this length: TelAPI's has some 300 bytes.
const ANSWER: usize = 16 * 1024;

/// Reads an answer that mints a session, as it passes.
#[derive(Debug)]
pub struct Minting {
    sessions: Arc<Sessions>,
    /// The member of the answer that names it.
    member: Box<str>,
    owner: Owner,
    text: Vec<u8>,
}

impl Minting {
    /// Of a success; what is not JSON is let be.
    #[must_use]
    pub fn of(status: StatusCode, member: Box<str>, owner: Owner, sessions: &Arc<Sessions>) -> Option<Self> {
        let sessions = Arc::clone(sessions);
        status.is_success().then(|| Self { sessions, member, owner, text: Vec::new() })
    }

    /// A piece of the body is about to leave. True where nothing more need be read.
    #[must_use]
    pub fn read(&mut self, piece: &Bytes) -> bool {
        if self.text.len() + piece.len() > ANSWER {
            return true;
        }
        self.text.extend_from_slice(piece);
        // Who has the whole answer may open the channel at once: it must be known before its last byte leaves.
        if self.text.trim_ascii_end().last() != Some(&b'}') {
            return false;
        }
        let Ok(Value::Object(answer)) = serde_json::from_slice(&self.text) else { return false };
        if let Some(session) = answer.get(&*self.member).and_then(Value::as_str) {
            self.sessions.minted(session, self.owner.clone());
        }
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::caller::Team;
    use crate::identity::scope::ScopeSet;

    #[test]
    fn a_session_that_a_team_has_is_not_another_teams() {
        let sessions = Sessions::default();
        let mint = |team: &str, id: &str| {
            let team = Team { name: team.into(), scopes: ScopeSet::default() };
            let caller = Caller::new(id, ScopeSet::default(), team);
            sessions.minted("s", Owner { digest: Digest::of(id.as_bytes()), caller });
            sessions.owner("s").expect("an owner").caller.key_id().to_owned()
        };
        assert_eq!(mint("acme", "a"), "a");
        assert_eq!(mint("acme", "b"), "b", "upgraded by another key of the team");
        assert_eq!(mint("evil", "c"), "b");
    }
}

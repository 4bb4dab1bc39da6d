//! The keys file, whole in memory: a table by digest.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hasher};
use std::sync::Arc;

use super::{Entry, KeySource, SourceError, State};
use crate::config::keys::{KeysFile, Team};
use crate::identity::caller::Caller;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;

/// All keys of a file.
#[derive(Debug, Default)]
pub struct Table {
    entries: HashMap<Digest, Entry, BuildHasherDefault<Prefix>>,
}

impl Table {
    /// The table of a file, its scopes cut down to those that the platform defines.
    #[must_use]
    pub fn new(file: &KeysFile, scopes: &Scopes) -> Self {
        let set = |names: &[Box<str>]| scopes.set(names.iter().map(|name| &**name));
        let team_scopes: Vec<_> = file.teams.iter().map(|team| set(&team.scopes)).collect();
        let entries = file.keys.iter().filter_map(|key| {
            let (team, allowed) = file.teams.get(key.team).zip(team_scopes.get(key.team))?;
            let caller = Caller {
                key_id: key.id.clone(),
                team: team.name.clone(),
                key_scopes: set(&key.scopes),
                team_scopes: *allowed,
            };
            let state = match team {
                Team { deleted: true, .. } | Team { enabled: false, .. } => State::TeamDisabled,
                Team { .. } if key.disabled => State::Disabled,
                Team { .. } => State::Active { until: key.expires },
            };
            Some((key.digest, Entry { caller: Arc::new(caller), state }))
        });
        Self { entries: entries.collect() }
    }

    /// How many keys it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// True where it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl KeySource for Table {
    async fn find(&self, digest: &Digest) -> Result<Option<Entry>, SourceError> {
        Ok(self.entries.get(digest).cloned())
    }
}

/// A digest is its own hash. Nobody can choose digests that collide in it: that would be a search
/// through SHA-256 for each, in a table that a client cannot add to.
#[derive(Debug, Default)]
struct Prefix(u64);

impl Hasher for Prefix {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        if let Some(first) = bytes.first_chunk() {
            self.0 = u64::from_ne_bytes(*first);
        }
    }

    fn write_usize(&mut self, _length: usize) {}
}

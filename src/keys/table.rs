//! Keys that are whole in memory: a table by digest over the keys of one file, or of several.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;

use hashbrown::HashTable;

use super::pace::Pace;
use super::{BEHIND, Entry, KeySource, SourceError, State, twins};
use crate::config::keys::{KeysFile, LeftOut, Team as WrittenTeam};
use crate::config::problem::{Place, Problems};
use crate::identity::caller::{Group, Team};
use crate::identity::key::Digest;
use crate::identity::scope::{ScopeSet, Scopes};

/// The keys of a file, in its order.
#[derive(Debug)]
pub struct Part {
    /// Where it was read.
    pub path: PathBuf,
    /// How many teams have a good row.
    teams: usize,
    /// Every team that was written.
    pub(super) team_places: Vec<(Box<str>, Place)>,
    /// Rows that were left out because of a problem.
    refused: usize,
    pub(super) left_out: Vec<LeftOut>,
    pub(super) places: Vec<Place>,
    digests: Vec<Digest>,
    states: Vec<State>,
    callers: Vec<Arc<Group>>,
    together: usize,
}

/// All keys of a source.
#[derive(Debug, Default)]
pub struct Table {
    /// How many teams have a good row.
    pub teams: usize,
    /// Rows that were left out because of a problem.
    pub refused: usize,
    parts: Vec<Arc<Part>>,
    index: HashTable<Spot>,
}

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) part: u32,
    /// Its place in the part; behind its keys come those that it left out.
    pub(super) row: u32,
}

/// So many callers are kept together in a large file. Their requests share a count, which is felt where they are many on
/// several workers: in a small file each is alone.
const TOGETHER: usize = 16;
/// A file of more keys is large: its table is taken apart by a thread of its own, too.
const LARGE: usize = 1_000;

impl Part {
    /// The keys of a file, their scopes cut down to those that the platform defines.
    #[must_use]
    pub fn new(path: &Path, file: &KeysFile, scopes: &Scopes, pace: &mut Pace) -> Self {
        let set = |names: &[Box<str>]| scopes.set(names.iter().map(|name| &**name));
        let teams = file.teams.iter().map(|team| {
            let WrittenTeam { name, scopes, enabled, deleted } = team;
            let (name, scopes) = (name.clone(), set(scopes));
            (Arc::new(Team { name, scopes }), *enabled && !*deleted)
        });
        let teams: Vec<_> = teams.collect();
        let team = |place: usize| teams.get(place).expect("a key that is kept has a team that is");
        let together = if file.keys.len() < LARGE { 1 } else { TOGETHER };
        let callers = file.keys.chunks(together).map(|keys| {
            pace.step();
            let callers = keys.iter().map(|key| (&*key.id, set(&key.scopes), Arc::clone(&team(key.team).0)));
            Arc::new(Group::new(callers))
        });
        let callers = callers.collect();
        let states = file.keys.iter().map(|key| match team(key.team) {
            (_, false) => State::TeamDisabled,
            _ if key.disabled => State::Disabled,
            _ => State::Active { until: key.expires },
        });
        Self {
            path: path.to_owned(),
            teams: teams.len(),
            team_places: file.team_places.clone(),
            refused: file.refused,
            left_out: file.left_out.clone(),
            places: file.places.clone(),
            digests: file.keys.iter().map(|key| key.digest).collect(),
            states: states.collect(),
            callers,
            together,
        }
    }

    /// How many keys it knows.
    pub(super) fn len(&self) -> usize {
        self.digests.len()
    }

    /// How many rows of anything are worth a look.
    pub(super) fn rows(&self) -> usize {
        (self.len() + self.left_out.len()).max(self.team_places.len())
    }

    /// Of a key, or of a row that was left out.
    pub(super) fn digest(&self, row: usize) -> Option<Digest> {
        self.digests.get(row).copied().or_else(|| self.left_out(row)?.digest)
    }

    /// Of a key, or of a row that was left out.
    pub(super) fn id(&self, row: usize) -> Option<&str> {
        match self.callers.get(row / self.together) {
            Some(group) if row < self.len() => group.id(u32::try_from(row % self.together).ok()?),
            _ => self.left_out(row)?.id.as_deref(),
        }
    }

    /// Of a key, or of a row that was left out.
    pub(super) fn place(&self, row: usize) -> Option<Place> {
        self.places.get(row).copied().or_else(|| Some(self.left_out(row)?.place))
    }

    pub(super) fn team(&self, row: usize) -> Option<&str> {
        Some(&self.callers.get(row / self.together)?.team(row % self.together)?.name)
    }

    fn left_out(&self, row: usize) -> Option<&LeftOut> {
        self.left_out.get(row.checked_sub(self.len())?)
    }

    fn entry(&self, row: usize) -> Option<Entry> {
        let caller = self.callers.get(row / self.together)?.caller(row % self.together)?;
        Some(Entry { caller, state: *self.states.get(row)? })
    }

    fn under(&self, moved: impl Fn(ScopeSet) -> ScopeSet) -> Self {
        let teams = RefCell::new(HashMap::new());
        let team = |team: &Arc<Team>| {
            let fresh = || Arc::new(Team { name: team.name.clone(), scopes: moved(team.scopes) });
            Arc::clone(teams.borrow_mut().entry(team.name.clone()).or_insert_with(fresh))
        };
        let callers = self.callers.iter().map(|group| Arc::new(group.with(&moved, team))).collect();
        Self {
            path: self.path.clone(),
            team_places: self.team_places.clone(),
            left_out: self.left_out.clone(),
            places: self.places.clone(),
            digests: self.digests.clone(),
            states: self.states.clone(),
            callers,
            ..*self
        }
    }
}

impl Table {
    /// The table of one file alone.
    #[must_use]
    pub fn new(file: &KeysFile, scopes: &Scopes) -> Self {
        let mut pace = Pace::without_pause();
        let part = Part::new(Path::new(""), file, scopes, &mut pace);
        Self::over(vec![Arc::new(part)], &mut pace).0
    }

    /// The table over these files. What is in two of them is in none, and told.
    #[must_use]
    pub fn over(parts: Vec<Arc<Part>>, pace: &mut Pace) -> (Self, Problems) {
        let (lost, problems) = twins::between(&parts, pace);
        let teams = parts.iter().map(|part| part.teams).sum();
        let refused = parts.iter().map(|part| part.refused).sum::<usize>() + lost.len();
        let mut table = Self { teams, refused, index: HashTable::new(), parts };
        table.fill(&lost, pace);
        (table, problems)
    }

    fn fill(&mut self, lost: &HashSet<Spot>, pace: &mut Pace) {
        let Self { parts, index, .. } = self;
        let hash =
            |spot: &Spot| parts.get(spot.part as usize).and_then(|part| part.digest(spot.row as usize));
        index.reserve(parts.iter().map(|part| part.len()).sum(), |_| 0);
        for (number, part) in parts.iter().enumerate() {
            for (row, digest) in part.digests.iter().enumerate() {
                pace.step();
                let spot = Spot::new(number, row);
                if !lost.contains(&spot) {
                    index.insert_unique(prefix(digest), spot, |spot| hash(spot).map_or(0, |d| prefix(&d)));
                }
            }
        }
    }

    /// The same keys under another platform: a scope that it does not define is held by nobody any more, and one that it
    /// did not define before is held by nobody yet.
    #[must_use]
    pub fn under(&self, old: &Scopes, new: &Scopes) -> Self {
        let moved = |set| new.set(old.names(set));
        let parts = self.parts.iter().map(|part| Arc::new(part.under(moved))).collect();
        Self { teams: self.teams, refused: self.refused, parts, index: self.index.clone() }
    }

    /// The files that it was made of.
    #[must_use]
    pub fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// How many keys it knows.
    #[must_use]
    pub fn len(&self) -> usize {
        self.index.len()
    }

    /// True where it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.index.is_empty()
    }
}

impl Spot {
    pub(super) fn new(part: usize, row: usize) -> Self {
        let number = |number| u32::try_from(number).expect("nobody has four thousand million keys");
        Self { part: number(part), row: number(row) }
    }
}

impl KeySource for Table {
    async fn find(&self, digest: &Digest) -> Result<Option<Entry>, SourceError> {
        let part = |spot: &Spot| self.parts.get(spot.part as usize);
        let is_it =
            |spot: &Spot| part(spot).and_then(|part| part.digests.get(spot.row as usize)) == Some(digest);
        let found = self.index.find(prefix(digest), is_it);
        Ok(found.and_then(|spot| part(spot)?.entry(spot.row as usize)))
    }
}

impl Drop for Table {
    /// The last who holds a table may be a worker, whose requests would wait while thousands of keys are freed.
    fn drop(&mut self) {
        if self.index.len() >= LARGE {
            let old = (std::mem::take(&mut self.parts), std::mem::take(&mut self.index));
            // Where no thread can be started, they are freed here.
            let _ = thread::Builder::new().name("old-keys".into()).spawn(move || {
                let _ = rustix::process::nice(BEHIND);
                drop(old);
            });
        }
    }
}

/// A digest is its own hash. Nobody can choose digests that collide in it: that would be a search
/// through SHA-256 for each, in a table that a client cannot add to.
fn prefix(digest: &Digest) -> u64 {
    digest.as_ref().first_chunk().copied().map_or(0, u64::from_ne_bytes)
}

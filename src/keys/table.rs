//! Keys that are whole in memory: a table by digest over the keys of one file, or of several.

use std::cell::RefCell;
use std::collections::{HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::thread;
use std::time::UNIX_EPOCH;

use hashbrown::HashTable;

use super::pace::Pace;
use super::presented::Presented;
use super::{BEHIND, Entry, KeySource, SourceError, State, twins};
use crate::config::keys::{KeysFile, LeftOut, Team as WrittenTeam};
use crate::config::problem::{Place, Problems};
use crate::identity::caller::{Group, Previous, Team};
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
    /// What the digests of some have replaced, with the key's row.
    replaced: Vec<(Digest, usize, Previous)>,
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
    keys: usize,
    parts: Vec<Arc<Part>>,
    index: HashTable<Spot>,
}

/// Where a key is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Spot {
    pub(super) part: u32,
    /// Its place in the part; behind its keys come those that it left out, and then the digests that others have replaced.
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
            let WrittenTeam { name, scopes, enabled, deleted, .. } = team;
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
            replaced: replaced(file),
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
        (self.len() + self.left_out.len() + self.replaced.len()).max(self.team_places.len())
    }

    /// Of a key, of a row that was left out, or one that another has replaced.
    pub(super) fn digest(&self, row: usize) -> Option<Digest> {
        let of_row = self.digests.get(row).copied().or_else(|| self.left_out(row)?.digest);
        of_row.or_else(|| Some(self.replaced(row)?.0))
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
        let of_row = self.places.get(row).copied().or_else(|| Some(self.left_out(row)?.place));
        of_row.or_else(|| self.places.get(self.replaced(row)?.1).copied())
    }

    pub(super) fn team(&self, row: usize) -> Option<&str> {
        Some(&self.callers.get(row / self.together)?.team(row % self.together)?.name)
    }

    fn left_out(&self, row: usize) -> Option<&LeftOut> {
        self.left_out.get(row.checked_sub(self.len())?)
    }

    /// The digests that keys of this part have replaced: the place of each, and the row of its key.
    pub(super) fn replacements(&self) -> impl Iterator<Item = (usize, usize)> {
        let first = self.len() + self.left_out.len();
        self.replaced.iter().enumerate().map(move |(number, (_, row, _))| (first + number, *row))
    }

    fn replaced(&self, row: usize) -> Option<&(Digest, usize, Previous)> {
        self.replaced.get(row.checked_sub(self.len() + self.left_out.len())?)
    }

    fn entry(&self, row: usize) -> Option<Entry> {
        if let Some((_, row, previous)) = self.replaced(row) {
            return self.entry(*row).map(|entry| entry.by_previous(*previous));
        }
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
            replaced: self.replaced.clone(),
            states: self.states.clone(),
            callers,
            ..*self
        }
    }
}

fn replaced(file: &KeysFile) -> Vec<(Digest, usize, Previous)> {
    let rows = file.keys.iter().enumerate();
    let replaced = rows.filter_map(|(row, key)| {
        let previous = key.previous.as_deref()?;
        let since = previous.since.unwrap_or(UNIX_EPOCH);
        Some((previous.digest, row, Previous { since, until: previous.until }))
    });
    replaced.collect()
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
        let keys = parts.iter().map(|part| part.len()).sum::<usize>() - lost.len();
        let mut table = Self { teams, refused, keys, index: HashTable::new(), parts };
        table.fill(&lost, pace);
        (table, problems)
    }

    fn fill(&mut self, lost: &HashSet<Spot>, pace: &mut Pace) {
        let Self { parts, index, .. } = self;
        let hash =
            |spot: &Spot| parts.get(spot.part as usize).and_then(|part| part.digest(spot.row as usize));
        index.reserve(parts.iter().map(|part| part.len() + part.replaced.len()).sum(), |_| 0);
        for (number, part) in parts.iter().enumerate() {
            let keys = (0..part.len()).map(|row| (row, row));
            for (row, of) in keys.chain(part.replacements()) {
                pace.step();
                let spot = Spot::new(number, row);
                if let Some(digest) = part.digest(row)
                    && !lost.contains(&Spot::new(number, of))
                {
                    index.insert_unique(prefix(&digest), spot, |spot| hash(spot).map_or(0, |d| prefix(&d)));
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
        let Self { teams, refused, keys, .. } = *self;
        Self { teams, refused, keys, parts, index: self.index.clone() }
    }

    /// The entry with this digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Entry> {
        let part = |spot: &Spot| self.parts.get(spot.part as usize);
        let is_it = |spot: &Spot| part(spot).and_then(|part| part.digest(spot.row as usize)) == Some(*digest);
        let spot = self.index.find(prefix(digest), is_it)?;
        part(spot)?.entry(spot.row as usize)
    }

    /// The files that it was made of.
    #[must_use]
    pub fn parts(&self) -> &[Arc<Part>] {
        &self.parts
    }

    /// How many keys it knows, without those that another has replaced.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys
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
    async fn find(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        Ok(self.get(&presented.digest))
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

//! The keys file, whole in memory: a table by digest.

use std::collections::HashMap;
use std::fs::File;
use std::hash::{BuildHasherDefault, Hasher};
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;
use std::time::UNIX_EPOCH;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::presented::Presented;
use super::{Entry, KeySource, SourceError, State};
use crate::config::file::{self, Loaded};
use crate::config::keys::{KeysFile, Team};
use crate::config::problem::Problems;
use crate::identity::caller::{Caller, Previous};
use crate::identity::hashing::Hashing;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;

/// All keys of a file.
#[derive(Debug, Default)]
pub struct Table {
    /// How many teams have a good row.
    pub teams: usize,
    /// Rows that were left out because of a problem.
    pub refused: usize,
    keys: usize,
    entries: Entries,
}

type Entries = HashMap<Digest, Entry, BuildHasherDefault<Prefix>>;

/// Names the text of a file.
pub type Fingerprint = [u8; 32];

/// A file that has been read, or could not be.
#[derive(Debug)]
pub struct Read {
    /// Of its text, where there is any.
    pub fingerprint: Option<Fingerprint>,
    /// What it says; `None` where it is refused whole.
    pub table: Option<Table>,
    /// What is wrong with it.
    pub problems: Problems,
}

/// How far a reading stands behind the workers: where they want the whole machine, it gets a tenth of what one of them
/// gets, so that a revocation is slower then, and not for ever.
const BEHIND: i32 = 10;
/// A table with fewer keys is taken apart where it is dropped: it takes less than to start a thread.
const LARGE: usize = 1_000;

/// What is read at a time of a file that may be known.
const PIECE: usize = 64 * 1024;

/// The same while requests are served, in a thread that stands behind the workers; nobody waits for it but the caller.
pub async fn read_behind(
    path: &Path,
    scopes: &Scopes,
    hashing: &Hashing,
    known: Option<Fingerprint>,
) -> Option<Read> {
    let (tell, told) = oneshot::channel();
    let (file, platform, kind) = (path.to_owned(), scopes.clone(), hashing.clone());
    let spawned = thread::Builder::new().name("reload".into()).spawn(move || {
        // Where it may not stand behind, it is in the way for as long as it takes.
        let _ = rustix::process::nice(BEHIND);
        let _ = tell.send(read(&file, &platform, &kind, known));
    });
    if let Err(error) = spawned {
        // It costs requests their time, and a revocation is worth that.
        tracing::warn!(%error, "no thread could be started; the keys file is read without one");
        return read(path, scopes, hashing, known);
    }
    told.await.unwrap_or_else(|_| {
        let hint = "this is a mistake of scopegate's: please report it, with the file if you can";
        let problems = Problems::of_file(path, "the reading of it broke off".to_owned(), Some(hint));
        Some(Read { fingerprint: None, table: None, problems })
    })
}

/// Reads a keys file; `None` where its text is the one that is `known`.
///
/// A thread of its own takes it apart: what that takes (six times the table) is an arena of the allocator's that is given
/// back when the thread has freed all of it. So the table is made outside of it, and by nobody else.
#[must_use]
pub fn read(path: &Path, scopes: &Scopes, hashing: &Hashing, known: Option<Fingerprint>) -> Option<Read> {
    thread::scope(|scope| {
        let (hand_over, taken) = sync_channel(0);
        let (done, copied) = sync_channel::<()>(0);
        let name = thread::Builder::new().name("keys".into());
        let spawned = name.spawn_scoped(scope, move || {
            let parsed = parse(path, scopes, hashing, known).map(Arc::new);
            // An end that is gone is one that nobody waits at.
            let _ = hand_over.send(parsed.clone());
            let _ = copied.recv();
            drop(parsed);
        });
        let parsed = match spawned {
            Ok(_) => taken.recv().expect("the thread hands over what it has read, good or bad"),
            Err(error) => {
                // The memory is of less weight than a revocation.
                tracing::warn!(%error, "no thread could be started; the keys file is read without one");
                parse(path, scopes, hashing, known).map(Arc::new)
            }
        };
        let read = parsed.map(|parsed| Read {
            fingerprint: parsed.fingerprint,
            table: parsed.file.as_ref().map(|file| Table::new(file, scopes)),
            problems: parsed.problems.clone(),
        });
        drop(done);
        read
    })
}

/// The same before it is a table.
struct Parsed {
    fingerprint: Option<Fingerprint>,
    file: Option<KeysFile>,
    problems: Problems,
}

fn parse(path: &Path, scopes: &Scopes, hashing: &Hashing, known: Option<Fingerprint>) -> Option<Parsed> {
    if known.is_some() && fingerprint(path).ok() == known {
        return None;
    }
    let text = match file::read(path) {
        Ok(text) => text,
        Err(problems) => return Some(Parsed { fingerprint: None, file: None, problems }),
    };
    let fingerprint = Some(Sha256::digest(&text).into());
    let (file, problems) = match file::parse_keys_under(path, &text, scopes, hashing) {
        Ok(Loaded { value, problems }) => (Some(value), problems),
        Err(problems) => (None, problems),
    };
    Some(Parsed { fingerprint, file, problems })
}

/// Piece by piece: most looks end here, and a file may have hundreds of megabytes.
fn fingerprint(path: &Path) -> io::Result<Fingerprint> {
    let (mut file, mut piece, mut hash) = (File::open(path)?, vec![0; PIECE], Sha256::new());
    loop {
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(piece.get(..count).unwrap_or_default()),
        }
    }
}

impl Drop for Table {
    /// The last who holds a table may be a worker, whose requests would wait while thousands of keys are freed.
    fn drop(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        if entries.len() >= LARGE {
            // Where no thread can be started, they are freed here.
            let _ = thread::Builder::new().name("old-keys".into()).spawn(move || {
                let _ = rustix::process::nice(BEHIND);
                drop(entries);
            });
        }
    }
}

impl Table {
    /// The table of a file, its scopes cut down to those that the platform defines.
    #[must_use]
    pub fn new(file: &KeysFile, scopes: &Scopes) -> Self {
        let set = |names: &[Box<str>]| scopes.set(names.iter().map(|name| &**name));
        let teams: Vec<_> =
            file.teams.iter().map(|team| (Arc::<str>::from(&*team.name), set(&team.scopes))).collect();
        let previous = file.keys.iter().filter(|key| key.previous.is_some()).count();
        let room = file.keys.len() + previous;
        let mut entries = Entries::with_capacity_and_hasher(room, BuildHasherDefault::default());
        for key in &file.keys {
            let Some((team, (name, allowed))) = file.teams.get(key.team).zip(teams.get(key.team)) else {
                continue;
            };
            let caller = Caller {
                key_id: key.id.clone(),
                team: Arc::clone(name),
                key_scopes: set(&key.scopes),
                team_scopes: *allowed,
                previous: None,
            };
            let state = match team {
                Team { deleted: true, .. } | Team { enabled: false, .. } => State::TeamDisabled,
                Team { .. } if key.disabled => State::Disabled,
                Team { .. } => State::Active { until: key.expires },
            };
            let entry = Entry { caller: Arc::new(caller), state };
            if let Some(previous) = key.previous.as_deref() {
                let (since, until) = (previous.since.unwrap_or(UNIX_EPOCH), previous.until);
                entries.insert(previous.digest, entry.by_previous(Previous { since, until }));
            }
            entries.insert(key.digest, entry);
        }
        Self { teams: file.teams.len(), refused: file.refused, keys: entries.len() - previous, entries }
    }

    /// The same keys under another platform: a scope that it does not define is held by nobody any more, and one that it
    /// did not define before is held by nobody yet.
    #[must_use]
    pub fn under(&self, old: &Scopes, new: &Scopes) -> Self {
        let moved = |set| new.set(old.names(set));
        let entries = self.entries.iter().map(|(digest, Entry { caller, state })| {
            let caller = Caller {
                key_id: caller.key_id.clone(),
                team: Arc::clone(&caller.team),
                key_scopes: moved(caller.key_scopes),
                team_scopes: moved(caller.team_scopes),
                previous: caller.previous.clone(),
            };
            (*digest, Entry { caller: Arc::new(caller), state: *state })
        });
        Self { teams: self.teams, refused: self.refused, keys: self.keys, entries: entries.collect() }
    }

    /// The entry with this digest.
    #[must_use]
    pub fn get(&self, digest: &Digest) -> Option<Entry> {
        self.entries.get(digest).cloned()
    }

    /// How many keys it knows, without those that another has replaced.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys
    }

    /// True where it knows none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.entries.is_empty()
    }
}

impl KeySource for Table {
    async fn find(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        Ok(self.get(&presented.digest))
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

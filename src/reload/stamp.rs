//! Whether a file may have changed, and whether it has.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use sha2::{Digest as _, Sha256};
use zeroize::Zeroizing;

use super::kept::around;

/// Seconds; longer than any file system's clock stands still.
const TICK: u64 = 2;

/// What the system says of a file that was read. Something else in its folder may change all the time: a log, say.
#[derive(Debug, Default)]
pub(super) struct Stamp(Option<Facts>);

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Whether the file needs no second look; from now on it is this one.
    pub(super) fn is_still(&mut self, path: &Path) -> bool {
        let facts = std::fs::metadata(path).map(|facts| Facts {
            file: (facts.dev(), facts.ino()),
            length: facts.len(),
            changed: (facts.ctime(), facts.ctime_nsec()),
        });
        // Another change in the same tick of the file system's clock could not be told from this one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let old = |facts: &Facts| u64::try_from(facts.changed.0).is_ok_and(|at| at + TICK < now.as_secs());
        let facts = facts.ok().filter(old);
        let still = facts.is_some() && facts == self.0;
        self.0 = facts;
        still
    }

    /// It needs a look whatever the system says.
    pub(super) fn forget(&mut self) {
        self.0 = None;
    }
}

/// Files that are read together.
#[derive(Debug)]
pub(super) struct Group {
    stamps: Vec<(PathBuf, Stamp)>,
    /// Of what is in them.
    print: [u8; 32],
}

impl Group {
    /// As they are now.
    pub(super) fn of<'a>(paths: impl Iterator<Item = &'a Path>) -> Self {
        let stamps: Vec<_> = paths.map(|path| (path.to_owned(), Stamp::default())).collect();
        let print = print(&stamps);
        Self { stamps, print }
    }

    /// Whether something else is in them than at the last look.
    pub(super) fn have_changed(&mut self) -> bool {
        // Each stamp is moved on, whatever the one before says.
        let still = self.stamps.iter_mut().fold(true, |still, (path, stamp)| stamp.is_still(path) && still);
        if still {
            return false;
        }
        let print = print(&self.stamps);
        std::mem::replace(&mut self.print, print) != print
    }

    /// They need a look, whatever the system says.
    pub(super) fn forget_stamps(&mut self) {
        self.stamps.iter_mut().for_each(|(_, stamp)| stamp.forget());
    }

    /// The folders in which a change may be one of them.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.stamps.iter().flat_map(|(path, _)| around(path))
    }

    /// Their paths, for people.
    pub(super) fn names(&self) -> String {
        let names = self.stamps.iter().map(|(path, _)| path.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Of the contents of all files; one that cannot be read has none.
fn print(files: &[(PathBuf, Stamp)]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for (path, _) in files {
        let bytes = std::fs::read(path).map(Zeroizing::new).unwrap_or_default();
        hash.update(Sha256::digest(&*bytes));
    }
    hash.finalize().into()
}

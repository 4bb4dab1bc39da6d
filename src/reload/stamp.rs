//! Whether a file may have changed.

use std::os::unix::fs::MetadataExt as _;
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

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

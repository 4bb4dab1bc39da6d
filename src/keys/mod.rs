//! Where callers are found.
//!
//! [`KeySource`] is the seam between the decision and the place where keys live. A cache in front of a remote
//! source is one more implementation of it.

pub mod cache;
pub mod change;
pub mod file;
pub mod guests;
mod keeper;
pub mod news;
pub mod pace;
mod redis;
pub mod remote;
pub mod row;
pub mod table;
mod twins;

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::caller::Caller;
use crate::identity::key::Digest;

/// How far who reads keys stands behind the workers: where they want the whole machine, it gets a tenth of what one of them
/// gets, so that a revocation is slower then, and not for ever.
const BEHIND: i32 = 10;

/// A place where callers are looked up by the digest of their key.
pub trait KeySource {
    /// The entry with this digest; `None` where there is none.
    fn find(&self, digest: &Digest) -> impl Future<Output = Result<Option<Entry>, SourceError>>;
}

/// A known key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who holds it.
    pub caller: Caller,
    /// Whether it may be used.
    pub state: State,
}

/// Whether a known key may be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum State {
    /// Yes, before this time.
    Active {
        /// `None`: without end.
        until: Option<SystemTime>,
    },
    /// It is turned off itself.
    Disabled,
    /// Its team is turned off or deleted.
    TeamDisabled,
}

/// Why a source has no answer. Never the same as "no such key".
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SourceError {
    /// It cannot be reached, or refuses to answer.
    #[error("the key source `{name}` does not answer: {cause}")]
    Down {
        /// As the configuration names it.
        name: &'static str,
        /// In its words.
        cause: String,
    },
    /// No answer in time.
    #[error("the key source `{name}` does not answer in time")]
    Late {
        /// As the configuration names it.
        name: &'static str,
    },
    /// Its answer cannot be read.
    #[error("the key source `{name}` gives an answer that cannot be read: {cause}")]
    Invalid {
        /// As the configuration names it.
        name: &'static str,
        /// What is wrong with it.
        cause: String,
    },
    /// What it knows changes faster than it is read.
    #[error("the key source `{name}` changes faster than it can be read")]
    Unsettled {
        /// As the configuration names it.
        name: &'static str,
    },
    /// As many unknown keys are asked for as are allowed.
    #[error("more unknown keys than `{name}` is asked for")]
    Busy {
        /// As the configuration names it.
        name: &'static str,
    },
}

/// The key sources of a configuration, in its order.
#[derive(Debug)]
pub struct Keys(Vec<Source>);

/// One of them.
#[derive(Debug)]
pub enum Source {
    /// A file or a folder of files, whole in memory.
    File(Arc<table::Table>),
    /// A server.
    Remote(Arc<remote::Remote>),
}

impl Keys {
    /// These sources: the first that knows a key answers.
    #[must_use]
    pub fn new(sources: Vec<Source>) -> Self {
        Self(sources)
    }

    /// The servers among them.
    pub fn remotes(&self) -> impl Iterator<Item = &Arc<remote::Remote>> {
        self.0.iter().filter_map(|source| match source {
            Source::File(_) => None,
            Source::Remote(remote) => Some(remote),
        })
    }

    /// Whether every server has been reached, once.
    #[must_use]
    pub fn are_ready(&self) -> bool {
        self.remotes().all(|remote| remote.is_ready())
    }

    /// How many keys the files know, and how many rows were left out of them.
    #[must_use]
    pub fn count(&self) -> (usize, usize) {
        self.0.iter().fold((0, 0), |(known, refused), source| match source {
            Source::File(table) => (known + table.len(), refused + table.refused),
            Source::Remote(_) => (known, refused),
        })
    }
}

impl KeySource for Keys {
    /// A source that has no answer ends the search: a later one must not admit what this one may have revoked.
    async fn find(&self, digest: &Digest) -> Result<Option<Entry>, SourceError> {
        for source in &self.0 {
            let found = match source {
                Source::File(table) => table.find(digest).await?,
                Source::Remote(remote) => remote.find(digest).await?,
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

//! Where callers are found.
//!
//! [`KeySource`] is the seam between the decision and the place where keys live. A cache in front of a remote
//! source is one more implementation of it.

pub mod change;
pub mod file;
pub mod guests;

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::caller::Caller;
use crate::identity::key::Digest;

/// A place where callers are looked up by the digest of their key.
pub trait KeySource {
    /// The entry with this digest; `None` where there is none.
    fn find(&self, digest: &Digest) -> impl Future<Output = Result<Option<Entry>, SourceError>>;
}

/// A known key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Who holds it.
    pub caller: Arc<Caller>,
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
#[derive(Debug, thiserror::Error)]
pub enum SourceError {
    /// It does not answer.
    #[error("the key source `{name}` does not answer")]
    Down {
        /// As the configuration names it.
        name: &'static str,
    },
}

/// The key source of a configuration.
#[derive(Debug)]
pub enum Keys {
    /// A file, whole in memory.
    File(Arc<file::Table>),
}

impl KeySource for Keys {
    async fn find(&self, digest: &Digest) -> Result<Option<Entry>, SourceError> {
        match self {
            Self::File(table) => table.find(digest).await,
        }
    }
}

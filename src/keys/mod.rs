//! Where callers are found.
//!
//! [`KeySource`] is the seam between the decision and the place where keys live. A cache in front of a remote
//! source is one more implementation of it.

pub mod cache;
pub mod change;
pub mod file;
pub mod guests;
mod http;
mod keeper;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod last_good;
pub mod news;
pub mod pace;
pub mod postgres;
pub mod presented;
pub mod redis;
pub mod remote;
pub mod row;
pub mod sessions;
mod strangers;
pub mod table;
mod twins;
mod undefined;

use std::sync::Arc;
use std::time::SystemTime;

use crate::identity::caller::{Caller, Previous};
use crate::identity::key::Digest;
use presented::Presented;

/// How far who reads keys stands behind the workers: where they want the whole machine, it gets a tenth of what one of them
/// gets, so that a revocation is slower then, and not for ever.
const BEHIND: i32 = 10;

/// A place where callers are looked up by the digest of their key.
pub trait KeySource {
    /// The entry of this key; `None` where there is none.
    fn find(&self, presented: &Presented<'_>) -> impl Future<Output = Result<Option<Entry>, SourceError>>;

    /// The same of what is shown beside the key that was found last.
    fn find_beside(
        &self,
        presented: &Presented<'_>,
    ) -> impl Future<Output = Result<Option<Entry>, SourceError>> {
        self.find(presented)
    }
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

impl State {
    /// When an active key ends by itself, if it does.
    fn until(self) -> Option<SystemTime> {
        match self {
            Self::Active { until } => until,
            Self::Disabled | Self::TeamDisabled => None,
        }
    }
}

impl Entry {
    /// The same by the key before, which ends with this one at the latest.
    #[must_use]
    pub fn by_previous(&self, Previous { since, until }: Previous) -> Self {
        let until = match self.state {
            State::Active { until: Some(end) } => end.min(until),
            State::Active { until: None } | State::Disabled | State::TeamDisabled => until,
        };
        let state = match self.state {
            State::Active { .. } => State::Active { until: Some(until) },
            off @ (State::Disabled | State::TeamDisabled) => off,
        };
        let mut caller = self.caller.clone();
        caller.previous = Some(Arc::new(Previous { since, until }));
        Self { caller, state }
    }
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
    /// It is asked with the key itself, and only a request brings that.
    #[error("the key source `{name}` is asked with the key itself, which only a request brings")]
    Keyless {
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

impl Source {
    fn knows(&self, digest: &Digest) -> bool {
        match self {
            Self::File(table) => table.get(digest).is_some(),
            Self::Remote(remote) => remote.knew(digest),
        }
    }
}

impl KeySource for Keys {
    /// A source that has no answer ends the search: a later one must not admit what this one may have revoked.
    async fn find(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        for (place, source) in self.0.iter().enumerate() {
            let found = match source {
                Source::File(table) => table.find(presented).await?,
                Source::Remote(remote) => {
                    match remote.at_hand(presented) {
                        Ok(found) => found,
                        Err(known) => {
                            // Who is inside already, or is known to a later source, was not made up.
                            let knows = |later: &Source| later.knows(&presented.digest);
                            let made_up =
                                presented.key.is_some() && !self.0.iter().skip(place + 1).any(knows);
                            // In a box of its own: most requests do not wait, and need no room for it.
                            Box::pin(remote.ask_first(presented, made_up, known)).await?
                        }
                    }
                }
            };
            if found.is_some() {
                return Ok(found);
            }
        }
        Ok(None)
    }
}

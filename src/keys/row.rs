//! What a server says of a key, before it is an entry.

use std::time::SystemTime;

use super::{Entry, State};
use crate::identity::caller::{Caller, Previous, Team};
use crate::identity::scope::Scopes;

/// What a server says of a key and its team.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// What logs name the key by.
    pub id: Box<str>,
    /// Whose it is.
    pub team: Box<str>,
    /// Selected for the key; names that the platform does not define open nothing.
    pub scopes: Vec<Box<str>>,
    /// Allowed to the team.
    pub team_scopes: Vec<Box<str>>,
    /// The key is turned off.
    pub disabled: bool,
    /// The team is turned off, or deleted.
    pub team_disabled: bool,
    /// When the key ends by itself.
    pub expires: Option<SystemTime>,
    /// Another key has replaced this one.
    pub previous: Option<Previous>,
}

impl Row {
    /// What it would be of an entry of this platform's.
    pub(super) fn of(Entry { caller, state }: &Entry, platform: &Scopes) -> Self {
        let names = |set| platform.names(set).map(Box::from).collect();
        Self {
            id: caller.key_id().into(),
            team: caller.team().into(),
            scopes: names(caller.key_scopes()),
            team_scopes: names(caller.team_scopes()),
            disabled: *state == State::Disabled,
            team_disabled: *state == State::TeamDisabled,
            expires: match state {
                State::Active { until } => *until,
                State::Disabled | State::TeamDisabled => None,
            },
            previous: caller.previous.as_deref().copied(),
        }
    }

    /// The same under this platform.
    #[must_use]
    pub fn entry(&self, platform: &Scopes) -> Entry {
        let set = |names: &[Box<str>]| platform.set(names.iter().map(|name| &**name));
        let team = Team { name: self.team.clone(), scopes: set(&self.team_scopes) };
        let state = match self {
            Self { team_disabled: true, .. } => State::TeamDisabled,
            Self { disabled: true, .. } => State::Disabled,
            Self { expires, .. } => State::Active { until: *expires },
        };
        let entry = Entry { caller: Caller::new(&self.id, set(&self.scopes), team), state };
        match self.previous {
            Some(previous) => entry.by_previous(previous),
            None => entry,
        }
    }

    /// The scopes that it or its team has and this platform does not define: the platform's set grows.
    #[must_use]
    pub(super) fn undefined(&self, platform: &Scopes) -> Vec<&str> {
        let named = self.scopes.iter().chain(&self.team_scopes).map(|name| &**name);
        let mut undefined: Vec<_> = named.filter(|name| platform.find(name).is_none()).collect();
        undefined.sort_unstable();
        undefined.dedup();
        undefined
    }

    /// About how many bytes of memory its entry takes.
    #[must_use]
    pub fn weight(&self) -> u32 {
        let text = self.id.len() + self.team.len();
        u32::try_from(text + ENTRY).unwrap_or(u32::MAX)
    }
}

/// Whether logs and headers can carry it.
pub(super) fn is_word(text: &str) -> bool {
    !text.is_empty() && !text.contains(char::is_control)
}

/// The words of a text, which spaces or commas part.
#[must_use]
pub fn words(text: &str) -> Vec<Box<str>> {
    text.split([' ', ',']).filter(|word| !word.is_empty()).map(Box::from).collect()
}

/// An entry and its place in a cache, without its names.
const ENTRY: usize = 320;

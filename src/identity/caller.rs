//! Who made a call.

use std::sync::Arc;
use std::time::SystemTime;

use super::scope::ScopeSet;

/// The holder of a known key. Effective scopes are `key_scopes ∩ team_scopes`; both are already
/// cut down to what the platform defines.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    /// The key's id: what logs and headers name it by. Never the key.
    pub key_id: Box<str>,
    /// The team that the key belongs to; one name for all of its keys.
    pub team: Arc<str>,
    /// Selected for the key when it was made.
    pub key_scopes: ScopeSet,
    /// Allowed to the team.
    pub team_scopes: ScopeSet,
    /// Set for who still uses the key that another has replaced. In a box: most do not.
    pub previous: Option<Box<Previous>>,
}

/// How long a key that another has replaced opens what that one opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// When it was replaced.
    pub since: SystemTime,
    /// When it ends.
    pub until: SystemTime,
}

impl Caller {
    /// What the key may really use.
    #[must_use]
    pub fn scopes(&self) -> ScopeSet {
        self.key_scopes.and(self.team_scopes)
    }
}

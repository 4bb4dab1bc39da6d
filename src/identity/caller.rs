//! Who made a call.

use std::sync::Arc;
use std::time::SystemTime;

use super::scope::ScopeSet;

/// The holder of a known key. Effective scopes are `key_scopes ∩ team_scopes`; both are already
/// cut down to what the platform defines.
#[derive(Debug, Clone)]
pub struct Caller {
    group: Arc<Group>,
    place: u32,
    /// Set for who still uses the key that another has replaced.
    pub previous: Option<Arc<Previous>>,
}

/// How long a key that another has replaced opens what that one opens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Previous {
    /// When it was replaced.
    pub since: SystemTime,
    /// When it ends.
    pub until: SystemTime,
}

/// Callers that are kept together: alone, each would be three pieces of memory.
#[derive(Debug)]
pub struct Group {
    ids: Box<str>,
    holders: Box<[Holder]>,
}

#[derive(Debug)]
struct Holder {
    /// Where its id ends; it begins where the one before ends.
    end: u32,
    scopes: ScopeSet,
    team: Arc<Team>,
}

/// What all keys of a team have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// Its name.
    pub name: Box<str>,
    /// Allowed to it.
    pub scopes: ScopeSet,
}

impl Caller {
    /// One who is kept alone.
    #[must_use]
    pub fn new(key_id: &str, key_scopes: ScopeSet, team: Team) -> Self {
        let group = Group::new([(key_id, key_scopes, Arc::new(team))]);
        Self { group: Arc::new(group), place: 0, previous: None }
    }

    /// The key's id: what logs and headers name it by. Never the key.
    #[must_use]
    pub fn key_id(&self) -> &str {
        self.group.id(self.place).expect(MEMBER)
    }

    /// The team that the key belongs to.
    #[must_use]
    pub fn team(&self) -> &str {
        &self.holder().team.name
    }

    /// Selected for the key when it was made.
    #[must_use]
    pub fn key_scopes(&self) -> ScopeSet {
        self.holder().scopes
    }

    /// Allowed to the team.
    #[must_use]
    pub fn team_scopes(&self) -> ScopeSet {
        self.holder().team.scopes
    }

    /// What the key may really use.
    #[must_use]
    pub fn scopes(&self) -> ScopeSet {
        self.key_scopes().and(self.team_scopes())
    }

    fn holder(&self) -> &Holder {
        self.group.holders.get(self.place as usize).expect(MEMBER)
    }
}

const MEMBER: &str = "a caller is one of its group";

impl PartialEq for Caller {
    fn eq(&self, other: &Self) -> bool {
        self.key_id() == other.key_id()
            && self.key_scopes() == other.key_scopes()
            && self.holder().team == other.holder().team
            && self.previous == other.previous
    }
}

impl Eq for Caller {}

impl Group {
    /// These callers: the id, the scopes and the team of each.
    #[must_use]
    pub fn new<'a>(callers: impl IntoIterator<Item = (&'a str, ScopeSet, Arc<Team>)>) -> Self {
        let mut ids = String::new();
        let holders = callers.into_iter().map(|(id, scopes, team)| {
            ids.push_str(id);
            Holder { end: u32::try_from(ids.len()).expect("a few ids, on one line each"), scopes, team }
        });
        let holders = holders.collect();
        Self { ids: ids.into(), holders }
    }

    /// How many they are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.holders.len()
    }

    /// True where there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.holders.is_empty()
    }

    /// One of them.
    #[must_use]
    pub fn caller(self: &Arc<Self>, place: usize) -> Option<Caller> {
        let place = u32::try_from(place).ok().filter(|_| place < self.len())?;
        Some(Caller { group: Arc::clone(self), place, previous: None })
    }

    /// The id of one of them.
    #[must_use]
    pub fn id(&self, place: u32) -> Option<&str> {
        let end = self.holders.get(place as usize)?.end;
        let start =
            place.checked_sub(1).map_or(Some(0), |before| Some(self.holders.get(before as usize)?.end))?;
        self.ids.get(start as usize..end as usize)
    }

    /// The team of one of them.
    #[must_use]
    pub fn team(&self, place: usize) -> Option<&Team> {
        self.holders.get(place).map(|holder| &*holder.team)
    }

    /// The same callers, their scopes and teams changed.
    #[must_use]
    pub fn with(
        &self,
        scopes: impl Fn(ScopeSet) -> ScopeSet,
        team: impl Fn(&Arc<Team>) -> Arc<Team>,
    ) -> Self {
        let holders = self.holders.iter().map(|holder| Holder {
            end: holder.end,
            scopes: scopes(holder.scopes),
            team: team(&holder.team),
        });
        Self { ids: self.ids.clone(), holders: holders.collect() }
    }
}

//! What may be made: scopes within their ceilings, no more keys than a team may have, nothing twice.

use std::collections::HashSet;
use std::time::SystemTime;

use anyhow::{Context as _, bail};

use crate::config::fields::did_you_mean;
use crate::config::keys::{Key, KeysFile, Team};
use crate::decide::usable;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;
use crate::keys::table::Table;
use crate::observe::reason::Reason;

/// What TelAPI gives a team that nobody has given more.
pub(super) const MAX_KEYS: usize = 2;

/// The place of a team.
pub(super) fn team_of(there: &KeysFile, name: &str) -> anyhow::Result<usize> {
    let found = there.teams.iter().position(|team| *team.name == *name);
    found.with_context(|| {
        let known = there.teams.iter().map(|team| &*team.name);
        format!("there is no team `{name}`; {}", did_you_mean(name, known))
    })
}

/// The key with this id.
pub(super) fn key_of<'t>(there: &'t KeysFile, id: &str) -> anyhow::Result<&'t Key> {
    let found = there.keys.iter().find(|key| *key.id == *id);
    found.with_context(|| {
        let refused = match there.refused {
            0 => String::new(),
            count => format!(" ({count} rows that have a mistake were not looked at)"),
        };
        format!(
            "there is no key with the id `{id}`{refused}; {}",
            did_you_mean(id, there.keys.iter().map(|key| &*key.id))
        )
    })
}

/// Its team.
pub(super) fn team<'t>(there: &'t KeysFile, key: &Key) -> &'t Team {
    there.teams.get(key.team).expect("a key names a team of its own place")
}

/// What new keys are held against, beside what is there.
pub(super) struct Rules<'r> {
    /// What the platform defines, where that is known.
    pub(super) platform: Option<&'r Scopes>,
    pub(super) now: SystemTime,
    /// False where what was written may be a key at the wrong place: only names that are known are shown then.
    pub(super) shown: bool,
}

impl Rules<'_> {
    /// What is wrong with new keys, each with the number of the key: nothing, where all may be added.
    pub(super) fn problems(&self, there: &KeysFile, new: &[Key]) -> Vec<(usize, String)> {
        let (mut problems, mut counts) = (Vec::new(), counts(there, self.now));
        let mut ids: HashSet<_> = there.keys.iter().map(|key| &*key.id).collect();
        let mut known: HashSet<_> = there.keys.iter().flat_map(digests).collect();
        for (number, key) in new.iter().enumerate() {
            let mut wrong = |text: String| problems.push((number, text));
            let team = team(there, key);
            if key.id.is_empty() || key.id.contains(char::is_control) {
                wrong("its id is empty, or holds a control character".to_owned());
            }
            if !ids.insert(&key.id) {
                wrong("its id is that of another key already".to_owned());
            }
            if !known.insert(key.digest) {
                wrong("its digest is that of another key already".to_owned());
            }
            if team.deleted {
                wrong(format!("team `{}` is deleted: its keys open nothing", team.name));
            }
            self.forbidden(key, team).into_iter().for_each(&mut wrong);
            let Some(count) = counts.get_mut(key.team).filter(|_| counted(key, self.now)) else { continue };
            *count += 1;
            let most = max_keys(team);
            if *count > most {
                let hint = "turn off one that is not needed, or raise its `max_keys`";
                wrong(format!("team `{}` may have {most} keys: {hint}", team.name));
            }
        }
        problems
    }

    /// The scopes that a ceiling forbids, and which.
    fn forbidden(&self, key: &Key, team: &Team) -> Vec<String> {
        let (mut forbidden, mut seen) = (Vec::new(), HashSet::new());
        for (place, scope) in key.scopes.iter().enumerate() {
            let of_team = team.scopes.contains(scope);
            let of_platform = self.platform.is_none_or(|platform| platform.find(scope).is_some());
            let known = of_team || (self.platform.is_some() && of_platform);
            let name =
                if self.shown || known { format!("`{scope}`") } else { format!("number {}", place + 1) };
            if !seen.insert(scope) {
                forbidden.push(format!("the scope {name} stands twice"));
            }
            if let Some(platform) = self.platform.filter(|_| !of_platform) {
                let all = listed(platform.all());
                forbidden.push(format!("the platform does not define the scope {name}; it defines {all}"));
            } else if !of_team {
                let (team, all) = (&team.name, listed(&*team.scopes));
                forbidden.push(format!("team `{team}` may not have the scope {name}; it may have {all}"));
            }
        }
        forbidden
    }
}

/// How many keys each team has that may still open something.
fn counts(there: &KeysFile, now: SystemTime) -> Vec<usize> {
    let mut counts = vec![0; there.teams.len()];
    for key in there.keys.iter().filter(|key| counted(key, now)) {
        if let Some(count) = counts.get_mut(key.team) {
            *count += 1;
        }
    }
    counts
}

/// How many keys a team has that may still open something.
pub(super) fn count(there: &KeysFile, team: usize, now: SystemTime) -> usize {
    there.keys.iter().filter(|key| key.team == team && counted(key, now)).count()
}

fn counted(key: &Key, now: SystemTime) -> bool {
    !key.disabled && key.expires.is_none_or(|end| end > now)
}

/// So many keys a team may have.
pub(super) fn max_keys(team: &Team) -> usize {
    team.max_keys.unwrap_or(MAX_KEYS)
}

/// Refuses a digest that is known already.
pub(super) fn is_new(there: &KeysFile, digest: &Digest) -> anyhow::Result<()> {
    match there.keys.iter().find(|key| digests(key).any(|known| known == *digest)) {
        Some(key) => bail!("this key is known already: its digest is that of `{}`, now or before", key.id),
        None => Ok(()),
    }
}

fn digests(key: &Key) -> impl Iterator<Item = Digest> {
    std::iter::once(key.digest).chain(key.previous.as_ref().map(|previous| previous.digest))
}

/// Why a request with the key of this digest would be refused, whatever it asks for.
pub(super) fn refused_for(there: &Table, digest: &Digest, now: SystemTime) -> Option<Reason> {
    usable(there.get(digest), now).err().map(|denial| denial.reason())
}

/// Words for people.
pub(super) fn listed<T: AsRef<str>>(words: impl IntoIterator<Item = T>) -> String {
    let words: Vec<_> = words.into_iter().map(|word| word.as_ref().to_owned()).collect();
    if words.is_empty() { "nothing".to_owned() } else { words.join(", ") }
}

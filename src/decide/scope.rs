//! Whether a caller holds what a route asks for.

use std::sync::Arc;

use super::denial::{Denial, Layer};
use crate::config::route::Requirement;
use crate::identity::caller::Caller;
use crate::identity::scope::{ScopeSet, Scopes};

/// Scopes that somebody lacks, in the words that this is told in.
#[derive(Debug, PartialEq, Eq)]
pub struct Missing {
    set: ScopeSet,
    /// Their names, with spaces between; where one of several would do, all of those.
    pub names: Arc<str>,
    /// For people.
    pub message: Box<str>,
    /// As a challenge (RFC 6750, 3).
    pub challenge: Box<str>,
}

impl Missing {
    pub(super) fn of(scopes: &Scopes, set: ScopeSet) -> Self {
        let names: Vec<_> = scopes.names(set).collect();
        let (spaced, listed) = (names.join(" "), names.join(", "));
        let message = match *names {
            [_] => format!("This API key lacks the scope {listed}."),
            _ => format!("This API key lacks one or all of the scopes {listed}."),
        };
        let challenge =
            format!("Bearer realm=\"scopegate\", error=\"insufficient_scope\", scope=\"{spaced}\"");
        Self { set, names: spaced.into(), message: message.into(), challenge: challenge.into() }
    }
}

/// What a route asks for, and what is told to who has nothing of it.
#[derive(Debug)]
pub(super) struct Demand {
    pub(super) requirement: Requirement,
    all: Option<Arc<Missing>>,
}

impl Demand {
    /// Of a route.
    pub(super) fn new(requirement: Requirement, scopes: &Scopes) -> Self {
        let all = match requirement {
            Requirement::Any(set) | Requirement::All(set) => Some(Arc::new(Missing::of(scopes, set))),
            Requirement::Nothing | Requirement::Key => None,
        };
        Self { requirement, all }
    }

    /// The same of who was admitted before: words are made where they are needed.
    pub(super) fn again(requirement: Requirement) -> Self {
        Self { requirement, all: None }
    }

    /// Effective scopes are key ∩ team ∩ platform; what is missing is named with the layer that lacks it.
    pub(super) fn meet(&self, scopes: &Scopes, caller: Caller) -> Result<Caller, Denial> {
        let held = caller.scopes();
        let missing = match self.requirement {
            Requirement::Any(wanted) if wanted.and(held).is_empty() => wanted,
            Requirement::All(wanted) if !wanted.without(held).is_empty() => wanted.without(held),
            Requirement::Nothing | Requirement::Key | Requirement::Any(_) | Requirement::All(_) => {
                return Ok(caller);
            }
        };
        // The outer ceiling first: where the team lacks it, raising the key would change nothing. Of several that
        // would each do, one that the team allows means that only the key is short of it.
        let team_allows = match self.requirement {
            Requirement::All(_) => missing.without(caller.team_scopes()).is_empty(),
            Requirement::Any(_) | Requirement::Nothing | Requirement::Key => {
                !missing.and(caller.team_scopes()).is_empty()
            }
        };
        let layer = if team_allows { Layer::Key } else { Layer::Team };
        let all = self.all.as_ref().filter(|all| all.set == missing).map(Arc::clone);
        let missing = all.unwrap_or_else(|| Arc::new(Missing::of(scopes, missing)));
        Err(Denial::ScopeMissing { caller, missing, layer })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::caller::Team;

    #[test]
    fn the_missing_scope_and_the_layer_that_lacks_it() {
        let scopes = Scopes::new(["MINT", "READ", "APPS"].map(Box::from).to_vec());
        let set = |names: &[&str]| scopes.set(names.iter().copied());
        let check_row = |requirement, key: &[&str], team: &[&str], wanted: Option<(&[&str], Layer)>| {
            let team = Team { name: "t".into(), scopes: set(team) };
            let caller = Caller::new("k", set(key), team.clone());
            let got = match Demand::new(requirement, &scopes).meet(&scopes, caller) {
                Err(Denial::ScopeMissing { missing, layer, .. }) => Some((missing, layer)),
                _ => None,
            };
            let wanted = wanted.map(|(names, layer)| (Arc::new(Missing::of(&scopes, set(names))), layer));
            assert_eq!(got, wanted, "{key:?} {team:?}");
        };
        let mint = Requirement::Any(set(&["MINT"]));
        check_row(mint, &["MINT"], &["MINT"], None);
        check_row(mint, &["READ"], &["MINT"], Some((&["MINT"], Layer::Key)));
        check_row(mint, &["MINT"], &["READ"], Some((&["MINT"], Layer::Team)));
        check_row(mint, &[], &[], Some((&["MINT"], Layer::Team)));
        let either = Requirement::Any(set(&["MINT", "APPS"]));
        check_row(either, &["APPS"], &["APPS"], None);
        check_row(either, &["MINT"], &["APPS"], Some((&["MINT", "APPS"], Layer::Key)));
        let both = Requirement::All(set(&["MINT", "APPS"]));
        check_row(both, &["MINT", "APPS"], &["MINT", "APPS"], None);
        check_row(both, &["MINT"], &["MINT", "APPS"], Some((&["APPS"], Layer::Key)));
        check_row(both, &["MINT", "APPS"], &["MINT"], Some((&["APPS"], Layer::Team)));
        check_row(Requirement::Key, &[], &[], None);
        let two = Missing::of(&scopes, set(&["MINT", "APPS"]));
        assert_eq!(&*two.message, "This API key lacks one or all of the scopes MINT, APPS.");
        assert_eq!((&*two.names, two.challenge.ends_with("scope=\"MINT APPS\"")), ("MINT APPS", true));
    }
}

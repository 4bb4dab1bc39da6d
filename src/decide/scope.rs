//! Whether a caller holds what a route asks for.

use super::denial::{Denial, Layer};
use crate::config::route::Requirement;
use crate::identity::caller::Caller;
use crate::identity::scope::Scopes;

/// Effective scopes are key ∩ team ∩ platform; what is missing is named with the layer that lacks it.
pub(super) fn check(scopes: &Scopes, requirement: Requirement, caller: &Caller) -> Result<(), Denial> {
    let held = caller.scopes();
    let missing = match requirement {
        Requirement::Any(wanted) if wanted.and(held).is_empty() => wanted,
        Requirement::All(wanted) if !wanted.without(held).is_empty() => wanted.without(held),
        Requirement::Nothing | Requirement::Key | Requirement::Any(_) | Requirement::All(_) => return Ok(()),
    };
    // The outer ceiling first: where the team lacks it, raising the key would change nothing. Of several that
    // would each do, one that the team allows means that only the key is short of it.
    let team_allows = match requirement {
        Requirement::All(_) => missing.without(caller.team_scopes()).is_empty(),
        Requirement::Any(_) | Requirement::Nothing | Requirement::Key => {
            !missing.and(caller.team_scopes()).is_empty()
        }
    };
    Err(Denial::ScopeMissing {
        caller: caller.clone(),
        scopes: joined(scopes.names(missing)),
        layer: if team_allows { Layer::Key } else { Layer::Team },
    })
}

fn joined<'n>(names: impl Iterator<Item = &'n str>) -> Box<str> {
    let mut all = String::with_capacity(32);
    for name in names {
        if !all.is_empty() {
            all.push(' ');
        }
        all.push_str(name);
    }
    all.into()
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
            let got = match check(&scopes, requirement, &Caller::new("k", set(key), team.clone())) {
                Err(Denial::ScopeMissing { scopes, layer, .. }) => Some((scopes, layer)),
                _ => None,
            };
            let wanted = wanted.map(|(names, layer)| (names.join(" ").into(), layer));
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
    }
}

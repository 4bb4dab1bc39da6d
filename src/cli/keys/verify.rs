//! `keys verify`: what would be decided on a key, and why.

use std::process::ExitCode;
use std::time::SystemTime;

use super::edit::time;
use super::make::from_stdin;
use super::place::Place;
use super::rules::{self, listed};
use crate::cli::PROBLEMS;
use crate::config::keys::{Key, Team};
use crate::identity::made;
use crate::identity::scope::Scopes;
use crate::keys::table::Table;
use crate::observe::reason::Reason;

/// A layer of the ceiling, and the scopes that it does not let through.
type Layers<'k> = [(&'static str, Vec<&'k str>); 2];

/// Ends with 1 where the key is refused, and with [`PROBLEMS`] where nobody can say.
pub(super) fn run(scope: Option<&str>, place: &Place) -> ExitCode {
    match verified(scope, place) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            eprintln!("scopegate: {error:#}");
            ExitCode::from(PROBLEMS)
        }
    }
}

fn verified(scope: Option<&str>, place: &Place) -> anyhow::Result<bool> {
    let (mut store, opened) = place.need()?;
    let presented = from_stdin()?;
    let whole = made::may_be_whole(opened.prefix(), &presented);
    if !whole {
        println!("it begins with {} and is not whole: cut off, or with another character", opened.prefix());
    }
    if !whole && opened.key_prefix.is_some() {
        return Ok(refused(Reason::KeyMalformed));
    }
    let digest = opened.hashing.digest(&presented);
    let there = store.find(&digest)?;
    let now = SystemTime::now();
    let of_previous = |key: &&Key| key.previous.as_ref().is_some_and(|previous| previous.digest == digest);
    let found = there.keys.iter().find(|key| key.digest == digest || of_previous(key));
    let why = rules::refused_for(&Table::new(&there, &Scopes::default()), &digest, now);
    let Some(key) = found else {
        return Ok(refused(Reason::KeyUnknown));
    };
    let team = rules::team(&there, key);
    println!("`{}` ({}) of team `{}`", key.id, key.shown_name(), team.name);
    if let Some(previous) = key.previous.as_ref().filter(|_| of_previous(&key)) {
        println!("another key has replaced this one, which ends {}", time(previous.until));
    }
    if let Some(reason) = why {
        if let Some(why) = key.disabled_reason.as_ref().filter(|_| reason == Reason::KeyDisabled) {
            println!("it was turned off: {why}");
        }
        return Ok(refused(reason));
    }
    let (may, not) = ceiling(key, team, opened.platform.as_ref());
    println!("it may: {}", listed(&may));
    for (layer, scopes) in not.iter().filter(|(_, scopes)| !scopes.is_empty()) {
        println!("it may not, since the {layer} may not: {}", listed(scopes));
    }
    let Some(wanted) = scope.filter(|wanted| !may.contains(wanted)) else { return Ok(true) };
    let lacking = not.iter().find(|(_, scopes)| scopes.contains(&wanted)).map_or("key", |(layer, _)| layer);
    println!("{}: the {lacking} may not `{wanted}`", Reason::ScopeMissing.code());
    Ok(false)
}

/// Says why, in the words that a client is told.
fn refused(reason: Reason) -> bool {
    println!("{}: {}", reason.code(), reason.row().message);
    false
}

/// What a key may do of its scopes, and what it may not because of whom.
fn ceiling<'k>(key: &'k Key, team: &Team, platform: Option<&Scopes>) -> (Vec<&'k str>, Layers<'k>) {
    let (mut may, mut of_platform, mut of_team) = (Vec::new(), Vec::new(), Vec::new());
    for scope in &*key.scopes {
        if platform.is_some_and(|platform| platform.find(scope).is_none()) {
            of_platform.push(&**scope);
        } else if team.scopes.contains(scope) {
            may.push(&**scope);
        } else {
            of_team.push(&**scope);
        }
    }
    (may, [("platform", of_platform), ("team", of_team)])
}

//! What many rows of a keys file have in common.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::Arc;

use super::fields::{Report, did_you_mean};
use super::node::Node;
use super::problem::Place;
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;

/// What was met in the rows: much of it stands in many of them, and is kept once.
pub(super) struct Met<'a> {
    platform: &'a Scopes,
    /// How digests are made.
    pub(super) hashing: &'a Hashing,
    /// Names that the platform does not define: where each was met first, and how often.
    unknown: BTreeMap<String, (Place, usize)>,
    scopes: HashSet<Arc<[Box<str>]>>,
    whos: HashSet<Arc<str>>,
    /// The names of teams, whether there are such teams or not.
    pub(super) teams: Vec<Box<str>>,
    team_numbers: HashMap<Box<str>, usize>,
}

impl<'a> Met<'a> {
    /// Nothing yet.
    pub(super) fn new(platform: &'a Scopes, hashing: &'a Hashing) -> Self {
        Self {
            platform,
            hashing,
            unknown: BTreeMap::new(),
            scopes: HashSet::new(),
            whos: HashSet::new(),
            teams: Vec::new(),
            team_numbers: HashMap::new(),
        }
    }

    /// The names of scopes under a `scopes`.
    pub(super) fn names(&mut self, node: &Node, report: &mut Report<'_>) -> Option<Arc<[Box<str>]>> {
        let words = node.words("`scopes`", report)?;
        for (place, word) in &words {
            if self.platform.find(word).is_none() {
                self.unknown.entry((*word).to_owned()).or_insert((*place, 0)).1 += 1;
            }
        }
        let names: Vec<Box<str>> = words.into_iter().map(|(_, word)| word.into()).collect();
        if let Some(known) = self.scopes.get(&*names) {
            return Some(Arc::clone(known));
        }
        let names: Arc<[Box<str>]> = names.into();
        self.scopes.insert(Arc::clone(&names));
        Some(names)
    }

    /// Somebody who made a key.
    pub(super) fn who(&mut self, who: &str) -> Arc<str> {
        if let Some(known) = self.whos.get(who) {
            return Arc::clone(known);
        }
        let who: Arc<str> = who.into();
        self.whos.insert(Arc::clone(&who));
        who
    }

    /// The number of a name in `teams`.
    pub(super) fn team(&mut self, name: &str) -> usize {
        if let Some(number) = self.team_numbers.get(name) {
            return *number;
        }
        let number = self.teams.len();
        self.teams.push(name.into());
        self.team_numbers.insert(name.into(), number);
        number
    }

    /// Once for each name: a scope that is to come may stand in ten thousand rows.
    pub(super) fn warn(self, report: &mut Report<'_>) {
        for (name, (place, count)) in self.unknown {
            let hint = format!(
                "it is kept, and opens nothing until `scopes:` of the configuration has it; {}",
                did_you_mean(&name, self.platform.all())
            );
            let rows =
                if count == 1 { String::new() } else { format!(" (here first, {count} times in all)") };
            report.warning(place, format!("the platform does not define the scope `{name}`{rows}"), hint);
        }
    }
}

//! The keys file: teams, and per key a digest and what it may do.

use std::collections::HashMap;
use std::time::SystemTime;

use super::fields::{Fields, Report, did_you_mean};
use super::node::{Name, Node, Value};
use super::problem::Place;
use crate::identity::key::{Digest, DigestError};
use crate::identity::scope::Scopes;

/// One keys file. Rows that had a problem are not in it: they open nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeysFile {
    /// In the order of the file.
    pub teams: Vec<Team>,
    /// In the order of the file.
    pub keys: Vec<Key>,
    /// Rows that were left out because of a problem.
    pub refused: usize,
}

/// The ceiling of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// As keys name it.
    pub name: Box<str>,
    /// Allowed scopes, as written; unknown names are kept and open nothing.
    pub scopes: Vec<Box<str>>,
    /// True unless written otherwise.
    pub enabled: bool,
    /// False unless written otherwise.
    pub deleted: bool,
}

/// One API key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Unique in the file.
    pub id: Box<str>,
    /// For people.
    pub name: Box<str>,
    /// A place in [`KeysFile::teams`].
    pub team: usize,
    /// Of the key's bytes.
    pub digest: Digest,
    /// Selected for the key, as written; unknown names are kept and open nothing.
    pub scopes: Vec<Box<str>>,
    /// False unless written otherwise.
    pub disabled: bool,
    /// When it was made, for people and `keys list`.
    pub created: Option<SystemTime>,
    /// Who made it.
    pub created_by: Option<Box<str>>,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
}

/// How an entry is made that is none: the answer to every plain key.
const MAKE_A_DIGEST: &str = "no key belongs in this file: `scopegate keys add --stdin` reads one and writes its entry; treat this one as leaked";

impl KeysFile {
    pub(super) fn read(node: &Node, scopes: &Scopes, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "the keys file", report)?;
        let teams = fields.need("teams", "write `teams: { acme: { scopes: [...] } }`", report);
        let keys = fields.take("keys");
        fields.done(report);
        let teams = teams?.mapping("`teams`", report)?;
        let mut file = Self::default();
        for (name, value) in teams {
            match Team::read(name, value, scopes, report) {
                Some(team) => file.teams.push(team),
                None => file.refused += 1,
            }
        }
        let rows = match keys {
            None => &[][..],
            Some(Node { value: Value::Nothing, .. }) => &[],
            Some(node) => node.list("`keys`", report)?,
        };
        let read: Vec<(Place, Key)> =
            rows.iter().filter_map(|row| Some((row.place, file.key(row, scopes, report)?))).collect();
        file.refused += rows.len() - read.len();
        file.keep_the_distinct(read, report);
        Some(file)
    }

    fn key(&self, node: &Node, scopes: &Scopes, report: &mut Report<'_>) -> Option<Key> {
        let mut fields = Fields::of(node, "a key", report)?;
        let id = fields
            .need("id", "what logs name it by: `id: acme-web`", report)
            .and_then(|node| node.text("`id`", report));
        if let Some(id) = id {
            fields.what = format!("key `{id}`");
        }
        if let Some(plain) = fields.take("key") {
            report.error(plain.place, format!("{} holds a plain key", fields.what), MAKE_A_DIGEST);
        }
        let team = fields.need("team", "the team whose ceiling it has: `team: acme`", report);
        let team = team.and_then(|node| {
            let name = node.text("`team`", report)?;
            let place = self.teams.iter().position(|team| *team.name == *name);
            if place.is_none() {
                let hint = did_you_mean(name, self.teams.iter().map(|team| &*team.name));
                report.error(node.place, format!("there is no team `{name}` that can be used"), hint);
            }
            place
        });
        let digest = fields
            .need("digest", "`scopegate keys add --stdin` makes one", report)
            .and_then(|node| digest(node, report));
        let scopes = fields
            .need("scopes", "what it may do: `scopes: [READ_TEAM_APPS]`", report)
            .and_then(|node| scope_names(node, scopes, report));
        let name =
            fields.or("name", id.unwrap_or_default(), report, |node, report| node.text("`name`", report));
        let disabled = fields.or("disabled", false, report, |node, report| node.bool("`disabled`", report));
        let created = fields.maybe("created", report, |node, report| time(node, "`created`", report));
        let created_by = fields.maybe("created_by", report, |node, report| node.text("`created_by`", report));
        let expires = fields.maybe("expires", report, |node, report| time(node, "`expires`", report));
        let before = report.errors();
        fields.done(report);
        (report.errors() == before).then_some(())?;
        Some(Key {
            id: id?.into(),
            name: name?.into(),
            team: team?,
            digest: digest?,
            scopes: scopes?,
            disabled: disabled?,
            created: created?,
            created_by: created_by?.map(Box::from),
            expires: expires?,
        })
    }

    /// Of two rows with one digest or id, nobody knows which was meant: neither is kept.
    fn keep_the_distinct(&mut self, rows: Vec<(Place, Key)>, report: &mut Report<'_>) {
        let (mut ids, mut digests) = (HashMap::new(), HashMap::new());
        for (_, key) in &rows {
            *ids.entry(key.id.clone()).or_insert(0_usize) += 1;
            *digests.entry(key.digest).or_insert(0_usize) += 1;
        }
        for (place, key) in rows {
            if ids.get(&key.id).is_some_and(|count| *count > 1) {
                report.error(
                    place,
                    format!("key `{}` stands more than once", key.id),
                    "none of these rows opens anything: give each an id of its own",
                );
                self.refused += 1;
            } else if digests.get(&key.digest).is_some_and(|count| *count > 1) {
                report.error(
                    place,
                    format!("the digest of key `{}` stands more than once", key.id),
                    "none of these rows opens anything: keep one of them",
                );
                self.refused += 1;
            } else {
                self.keys.push(key);
            }
        }
    }
}

impl Team {
    fn read(name: &Name, node: &Node, scopes: &Scopes, report: &mut Report<'_>) -> Option<Self> {
        let what = format!("team `{}`", name.text);
        let mut fields = Fields::of(node, &what, report)?;
        let hint = "what its keys may have at most: `scopes: [READ_TEAM_APPS]`, or `[]` for nothing";
        let scopes = fields.need("scopes", hint, report).and_then(|node| scope_names(node, scopes, report));
        let enabled = fields.or("enabled", true, report, |node, report| node.bool("`enabled`", report));
        let deleted = fields.or("deleted", false, report, |node, report| node.bool("`deleted`", report));
        let before = report.errors();
        fields.done(report);
        (report.errors() == before).then_some(())?;
        Some(Self { name: name.text.as_str().into(), scopes: scopes?, enabled: enabled?, deleted: deleted? })
    }
}

fn digest(node: &Node, report: &mut Report<'_>) -> Option<Digest> {
    match Digest::parse(node.text("`digest`", report)?) {
        Ok(digest) => Some(digest),
        Err(DigestError::Prefix) => {
            report.error(
                node.place,
                "`digest` does not start with `sha256:`, and may be a plain key",
                MAKE_A_DIGEST,
            );
            None
        }
        Err(error) => {
            report.error(node.place, format!("`digest` is broken: {error}"), "copy the whole digest again");
            None
        }
    }
}

fn scope_names(node: &Node, scopes: &Scopes, report: &mut Report<'_>) -> Option<Vec<Box<str>>> {
    let words = node.words("`scopes`", report)?;
    for (place, word) in &words {
        if scopes.find(word).is_none() {
            let hint = format!(
                "it is kept, and opens nothing until `scopes:` of the configuration has it; {}",
                did_you_mean(word, scopes.all())
            );
            report.warning(*place, format!("the platform does not define the scope `{word}`"), hint);
        }
    }
    Some(words.into_iter().map(|(_, word)| word.into()).collect())
}

fn time(node: &Node, what: &str, report: &mut Report<'_>) -> Option<SystemTime> {
    let text = node.text(what, report)?;
    let time =
        humantime::parse_rfc3339(text).or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")));
    if time.is_err() {
        report.error(
            node.place,
            format!("{what} is no date or time"),
            "write it as 2027-01-31 or 2027-01-31T12:00:00Z",
        );
    }
    time.ok()
}

//! Keys in Redis that are changed: all of a change at once, and told to who listens.

use std::collections::HashMap;
use std::time::Duration;

use anyhow::{Context as _, bail};
use redis::{Commands as _, Connection, Pipeline};

use super::edit::time;
use super::rules::key_of;
use super::store::{Change, Decide, Store};
use crate::config::keys::{Key, KeysFile, Previous, Team};
use crate::config::sources;
use crate::identity::caller;
use crate::identity::key::Digest;
use crate::keys::redis::{self as source, Hash, REVISION};
use crate::keys::row::{Row, words};

/// Who is overtaken by another looks again, so often.
const TRIES: usize = 64;
/// Hashes that are asked for at once.
const AT_ONCE: usize = 500;

/// A Redis server.
pub(super) struct Redis {
    config: sources::Redis,
    connection: Connection,
}

impl Redis {
    pub(super) fn open(config: sources::Redis, timeout: Duration) -> anyhow::Result<Self> {
        let client = source::client(&config)?;
        let connection = client
            .get_connection_with_timeout(timeout)
            .with_context(|| format!("{} does not answer", config.url))?;
        connection.set_read_timeout(Some(timeout))?;
        connection.set_write_timeout(Some(timeout))?;
        Ok(Self { config, connection })
    }

    /// The hashes whose names begin so, by the rest of their names; `None` is something else than a hash.
    fn hashes(&mut self, kind: &str) -> anyhow::Result<Vec<(String, Option<Hash>)>> {
        let start = format!("{}{kind}:", self.config.prefix);
        let pattern = format!("{}*", source::literally(&start));
        let mut names: Vec<String> = self.connection.scan_match(pattern)?.collect::<Result<_, _>>()?;
        // A name may come twice.
        names.sort_unstable();
        names.dedup();
        let mut hashes = Vec::new();
        for names in names.chunks(AT_ONCE) {
            let mut asked = redis::pipe();
            asked.ignore_errors();
            for name in names {
                asked.hgetall(name);
            }
            // What is no hash is one row that cannot be read, and nothing of the others.
            let found: Vec<redis::RedisResult<Hash>> = asked.query(&mut self.connection)?;
            let rests = names.iter().map(|name| name.strip_prefix(&start).unwrap_or_default().to_owned());
            let found = rests.zip(found.into_iter().map(Result::ok));
            hashes.extend(found.filter(|(_, hash)| hash.as_ref().is_none_or(|hash| !hash.is_empty())));
        }
        Ok(hashes)
    }

    fn key_name(&self, digest: &Digest) -> String {
        format!("{}key:{}", self.config.prefix, digest.hex())
    }

    /// Adds a change to what is done at once, and the news of it.
    fn write(&self, to: &mut Pipeline, there: &KeysFile, change: &Change) -> anyhow::Result<()> {
        let mut touched = Vec::new();
        match change {
            Change::Add(keys) => {
                for key in keys {
                    let team = there.teams.get(key.team).map_or("", |team| &team.name);
                    to.hset_multiple(self.key_name(&key.digest), &fields(key, team));
                    touched.push(key.digest);
                }
            }
            Change::Rotate { id, digest, since, until } => {
                let key = key_of(there, id)?;
                let (old, new) = (self.key_name(&key.digest), self.key_name(digest));
                // With whatever else stands in it.
                to.cmd("COPY").arg(&old).arg(&new).arg("REPLACE");
                to.hdel(new, &["since", "sunset"]);
                to.hset_multiple(old, &[("since", time(*since)), ("sunset", time(*until))]);
                let before = key.previous.as_ref().map(|previous| previous.digest);
                if let Some(before) = &before {
                    to.del(self.key_name(before));
                }
                touched.extend([key.digest, *digest].into_iter().chain(before));
            }
            Change::Revoke { id, reason } => {
                let key = key_of(there, id)?;
                let before = key.previous.as_ref().map(|previous| previous.digest);
                for digest in std::iter::once(key.digest).chain(before) {
                    let mut fields = vec![("disabled", "true")];
                    fields.extend(reason.as_deref().map(|why| ("disabled_reason", why)));
                    to.hset_multiple(self.key_name(&digest), &fields);
                    touched.push(digest);
                }
            }
        }
        for digest in touched {
            to.publish(&*self.config.channel, format!("key {}", digest.hex()));
        }
        Ok(())
    }
}

impl Store for Redis {
    fn name(&self) -> String {
        self.config.url.to_string()
    }

    fn read(&mut self) -> anyhow::Result<KeysFile> {
        let teams = self.hashes("team")?;
        let keys = self.hashes("key")?;
        Ok(gathered(&teams, &keys))
    }

    fn find(&mut self, digest: &Digest) -> anyhow::Result<KeysFile> {
        let key: Hash = self.connection.hgetall(self.key_name(digest))?;
        if key.contains_key("sunset") {
            // Whose it is stands in another hash.
            return self.read();
        }
        let Some(team) = key.get("team").cloned() else { return Ok(KeysFile::default()) };
        let hash: Hash = self.connection.hgetall(format!("{}team:{team}", self.config.prefix))?;
        // Nobody can say what a key is whose hash cannot be read.
        source::row(&key, &hash)?;
        let teams = if hash.is_empty() { Vec::new() } else { vec![(team, Some(hash))] };
        Ok(gathered(&teams, &[(digest.hex(), Some(key))]))
    }

    fn change(&mut self, decide: Decide<'_>) -> anyhow::Result<()> {
        let revision = format!("{}{REVISION}", self.config.prefix);
        for _ in 0..TRIES {
            redis::cmd("WATCH").arg(&revision).exec(&mut self.connection)?;
            let there = self.read()?;
            let change = decide(&there)?;
            let mut all = redis::pipe();
            all.atomic();
            self.write(&mut all, &there, &change)?;
            all.incr(&revision, 1);
            let done: redis::Value = all.query(&mut self.connection)?;
            if done != redis::Value::Nil {
                return Ok(());
            }
        }
        bail!("others change keys in {} all the time: try again", self.name())
    }
}

/// The hash of a key.
fn fields(key: &Key, team: &str) -> Vec<(&'static str, String)> {
    let mut fields = vec![
        ("id", key.id.to_string()),
        ("team", team.to_owned()),
        ("name", key.shown_name().to_owned()),
        ("scopes", key.scopes.join(" ")),
    ];
    fields.extend(key.created.map(|at| ("created", time(at))));
    fields.extend(key.created_by.as_ref().map(|who| ("created_by", who.to_string())));
    fields.extend(key.expires.map(|at| ("expires", time(at))));
    fields
}

/// Teams and keys of hashes; those with a mistake, and keys of teams with one, are counted and left out.
fn gathered(teams: &[(String, Option<Hash>)], keys: &[(String, Option<Hash>)]) -> KeysFile {
    let (mut there, nothing) = (KeysFile::default(), Some(Hash::default()));
    let (mut places, mut before) = (HashMap::new(), Vec::new());
    for (name, hash) in teams {
        match hash.as_ref().and_then(|hash| team(name, hash).ok()) {
            Some(team) => {
                places.insert(Box::from(&**name), there.teams.len());
                there.teams.push(team);
            }
            None => there.refused += 1,
        }
    }
    let ceilings: HashMap<_, _> = teams.iter().map(|(name, hash)| (&**name, hash)).collect();
    for (hex, hash) in keys {
        let name = hash.as_ref().and_then(|hash| hash.get("team")).map_or("", String::as_str);
        let (Some(hash), Some(ceiling)) = (hash, ceilings.get(name).copied().unwrap_or(&nothing)) else {
            there.refused += 1;
            continue;
        };
        let (Ok(row), Ok(digest)) = (source::row(hash, ceiling), Digest::from_hex(hex)) else {
            there.refused += 1;
            continue;
        };
        let place = *places.entry(row.team.clone()).or_insert_with(|| {
            there.teams.push(gone(&row.team));
            there.teams.len() - 1
        });
        let previous = row.previous;
        let key = key(row, place, digest, hash);
        match previous {
            Some(previous) => before.push((key, previous)),
            None => there.keys.push(key),
        }
    }
    attach(&mut there.keys, before);
    there
}

/// Puts keys that another has replaced to those that have.
fn attach(keys: &mut Vec<Key>, before: Vec<(Key, caller::Previous)>) {
    let places: HashMap<_, _> = keys.iter().enumerate().map(|(place, key)| (key.id.clone(), place)).collect();
    for (key, caller::Previous { since, until }) in before {
        let new = places.get(&key.id).and_then(|place| keys.get_mut(*place));
        if let Some(new) = new.filter(|new| new.previous.is_none()) {
            new.previous = Some(Box::new(Previous { digest: key.digest, since: Some(since), until }));
        } else {
            // The new one is gone.
            let end = key.expires.map_or(until, |end| end.min(until));
            keys.push(Key { expires: Some(end), ..key });
        }
    }
}

/// A team that is not there is one that was deleted.
fn gone(name: &str) -> Team {
    Team { name: name.into(), scopes: Vec::new().into(), enabled: true, deleted: true, max_keys: None }
}

fn team(name: &str, hash: &Hash) -> anyhow::Result<Team> {
    let text = |name: &str| hash.get(name).map(String::as_str);
    // Where nobody can say how many, no more are made.
    let max_keys = text("max_keys").map(|number| number.parse().unwrap_or(0));
    Ok(Team {
        name: name.into(),
        scopes: words(text("scopes").unwrap_or_default()).into(),
        enabled: source::truth(text("enabled").unwrap_or("true"))?,
        deleted: source::truth(text("deleted").unwrap_or("false"))?,
        max_keys,
    })
}

fn key(row: Row, team: usize, digest: Digest, hash: &Hash) -> Key {
    let text = |name: &str| hash.get(name).map(|text| text.as_str().into());
    Key {
        name: text("name"),
        id: row.id,
        team,
        digest,
        scopes: row.scopes.into(),
        disabled: row.disabled,
        disabled_reason: text("disabled_reason"),
        // For people: what cannot be read is not shown.
        created: hash.get("created").and_then(|at| source::time("created", at).ok()),
        created_by: text("created_by").map(Into::into),
        expires: row.expires,
        previous: None,
    }
}

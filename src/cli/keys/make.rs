//! `keys new`, `add`, `rotate` and `revoke`.

use std::io::Read as _;
use std::process::ExitCode;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, bail, ensure};
use clap::Args;
use data_encoding::HEXLOWER;

use super::edit::{indented, row_lines, time as written};
use super::place::{Opened, Place};
use super::rules::{self, Rules, listed};
use super::store::Change;
use crate::config::keys::{Key, KeysFile};
use crate::identity::key::Digest;
use crate::identity::made;
use crate::identity::scope::Scopes;

/// Far above any key that there is; below what a mistaken pipe would bring.
const LONGEST: u64 = 4096;
/// A thousand years.
const LONGEST_LIFE: Duration = Duration::from_secs(1000 * 366 * 86_400);

/// What the entry says beside the digest.
#[derive(Debug, Args)]
pub(in crate::cli) struct Entry {
    /// The team that the key belongs to.
    #[arg(long)]
    team: String,
    /// A scope that the key gets; may be given more than once.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// The name of the key in logs [default: a random one].
    #[arg(long)]
    id: Option<String>,
    /// A name for people [default: the id].
    #[arg(long)]
    name: Option<String>,
    /// Who made the key.
    #[arg(long, value_name = "WHO")]
    created_by: Option<String>,
    /// When the key expires: a date (2027-01-31), a time in RFC 3339, or a duration from now (90days).
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
}

/// How a key is replaced.
#[derive(Debug, Args)]
pub(in crate::cli) struct Rotation {
    /// So long the key before opens the same; 0s where it has leaked.
    #[arg(long, value_name = "TIME", default_value = "7days", value_parser = humantime::parse_duration)]
    overlap: Duration,
    /// Read the new key from standard input, such as one that TelAPI made, instead of making one.
    #[arg(long)]
    stdin: bool,
    /// Also where the last rotation is not over: the key of before that ends at once.
    #[arg(long)]
    again: bool,
    /// What the key begins with [default: `key_prefix` of the configuration, or sgk_].
    #[arg(long, value_name = "PREFIX_", conflicts_with = "stdin")]
    prefix: Option<String>,
}

pub(super) fn new(entry: &Entry, prefix: Option<&str>, place: &Place) -> anyhow::Result<ExitCode> {
    let mut opened = place.open()?;
    let key = made_key(prefix.unwrap_or_else(|| opened.prefix()))?;
    let to_file = opened.store.is_some();
    put(entry, opened.hashing.digest(key.as_bytes()), &mut opened)?;
    eprintln!("the key, shown this once:");
    // On standard output alone where the entry went elsewhere, so that it can be piped on.
    if to_file {
        println!("{key}");
    } else {
        eprintln!("{key}");
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn add(entry: &Entry, place: &Place) -> anyhow::Result<ExitCode> {
    let mut opened = place.open()?;
    let digest = opened.hashing.digest(&existing(&opened)?);
    put(entry, digest, &mut opened)?;
    Ok(ExitCode::SUCCESS)
}

/// Adds the entry to its place, or prints it to be pasted.
fn put(entry: &Entry, digest: Digest, opened: &mut Opened) -> anyhow::Result<()> {
    let key = entry.key(digest)?;
    let Some(store) = &mut opened.store else {
        print!("{}", indented(&row_lines(&key, &entry.team, &opened.hashing), "  ", "\n"));
        return Ok(());
    };
    let (platform, now) = (opened.platform.as_ref(), SystemTime::now());
    let rules = Rules { platform, now, shown: true };
    let mut said = String::new();
    store.change(&mut |there| {
        let key = Key { team: rules::team_of(there, &entry.team)?, ..key.clone() };
        let problems = rules.problems(there, std::slice::from_ref(&key));
        if !problems.is_empty() {
            bail!("{}", problems.into_iter().map(|(_, text)| text).collect::<Vec<_>>().join("\n"));
        }
        let change = Change::Add(vec![key.clone()]);
        said = described(&change.of(there.clone()), &key.id, platform, now)?;
        Ok(change)
    })?;
    eprintln!("added to {}\n{said}", store.name());
    Ok(())
}

pub(super) fn rotate(id: &str, rotation: &Rotation, place: &Place) -> anyhow::Result<ExitCode> {
    let (mut store, opened) = place.need()?;
    ensure!(rotation.overlap < LONGEST_LIFE, "--overlap is longer than any key lives");
    let key = if rotation.stdin {
        existing(&opened)?
    } else {
        made_key(rotation.prefix.as_deref().unwrap_or_else(|| opened.prefix()))?.into_bytes()
    };
    let digest = opened.hashing.digest(&key);
    let (platform, now) = (opened.platform.as_ref(), whole_second(SystemTime::now()));
    let until = whole_second(now + rotation.overlap);
    let mut said = String::new();
    store.change(&mut |there| {
        let key = rules::key_of(there, id)?;
        ensure!(!key.disabled, "`{id}` is turned off: make a new key, or turn it on before");
        ensure!(key.expires.is_none_or(|end| end > now), "`{id}` has expired: make a new key");
        let open = key.previous.as_ref().map(|previous| previous.until).filter(|until| *until > now);
        if let Some(open) = open.filter(|_| !rotation.again) {
            bail!(
                "the key before this one of `{id}` is open until {}: wait, or end it at once with --again",
                written(open)
            );
        }
        rules::is_new(there, &digest)?;
        let change = Change::Rotate { id: id.into(), digest, since: now, until };
        said = described(&change.of(there.clone()), id, platform, now)?;
        Ok(change)
    })?;
    eprintln!("rotated in {}\n{said}", store.name());
    if !rotation.stdin {
        eprintln!("the new key, shown this once:");
        println!("{}", String::from_utf8_lossy(&key));
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn revoke(id: &str, reason: Option<&str>, place: &Place) -> anyhow::Result<ExitCode> {
    let (mut store, _) = place.need()?;
    store.change(&mut |there| {
        rules::key_of(there, id)?;
        Ok(Change::Revoke { id: id.into(), reason: reason.map(Box::from) })
    })?;
    eprintln!("`{id}` is turned off in {}", store.name());
    Ok(ExitCode::SUCCESS)
}

/// Whose a key is, what it may do, and what it could be given.
fn described(
    there: &KeysFile,
    id: &str,
    platform: Option<&Scopes>,
    now: SystemTime,
) -> anyhow::Result<String> {
    let key = rules::key_of(there, id)?;
    let team = rules::team(there, key);
    let mut said = format!("`{id}` of team `{}` has: {}\n", team.name, listed(&*key.scopes));
    said += &format!("its team may have: {}\n", listed(&*team.scopes));
    if let Some(platform) = platform {
        said += &format!("the platform defines: {}\n", listed(platform.all()));
    }
    said += &format!("keys of the team: {} of {}", rules::count(there, key.team, now), rules::max_keys(team));
    if let Some(previous) = &key.previous {
        let until = key.expires.map_or(previous.until, |end| end.min(previous.until));
        said += &format!("\nthe key before opens the same until {}", written(until));
    }
    if !team.enabled {
        said += "\nthe team is turned off: its keys open nothing";
    }
    Ok(said)
}

impl Entry {
    /// The key; its team is found where it is put.
    fn key(&self, digest: Digest) -> anyhow::Result<Key> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => format!("k-{}", HEXLOWER.encode(&random::<5>()?)),
        };
        let expires = self.expires.as_deref().map(|when| time(when).map(whole_second)).transpose()?;
        Ok(Key {
            name: Some(self.name.as_deref().unwrap_or(&id).into()),
            id: id.into(),
            team: 0,
            digest,
            scopes: self.scopes.iter().map(|scope| (**scope).into()).collect(),
            disabled: false,
            disabled_reason: None,
            created: Some(whole_second(SystemTime::now())),
            created_by: self.created_by.as_deref().map(Into::into),
            expires,
            previous: None,
        })
    }
}

/// As it is written down.
fn whole_second(at: SystemTime) -> SystemTime {
    let since = at.duration_since(UNIX_EPOCH).unwrap_or_default();
    UNIX_EPOCH + Duration::from_secs(since.as_secs())
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    Ok(bytes)
}

fn made_key(prefix: &str) -> anyhow::Result<String> {
    ensure!(
        made::is_prefix(prefix),
        "a prefix is up to 32 letters, digits and `_`, the last a `_`, such as sgk_"
    );
    let mut characters = String::new();
    while characters.len() < made::RANDOM {
        let room = made::RANDOM - characters.len();
        characters.extend(random::<64>()?.into_iter().filter_map(made::character).take(room));
    }
    Ok(made::key(prefix, &characters))
}

/// A key on standard input that requests may come with.
fn existing(opened: &Opened) -> anyhow::Result<Vec<u8>> {
    let key = from_stdin()?;
    opened.takes(&key)?;
    Ok(key)
}

/// A key on standard input; white space around it is the shell's, not the key's.
pub(super) fn from_stdin() -> anyhow::Result<Vec<u8>> {
    let mut text = Vec::new();
    std::io::stdin().take(LONGEST + 1).read_to_end(&mut text).context("cannot read standard input")?;
    let key = text.trim_ascii();
    ensure!(text.len() as u64 <= LONGEST, "standard input holds more than {LONGEST} bytes: that is no key");
    ensure!(
        !key.is_empty(),
        "standard input is empty: pipe the key in, for example from your password manager"
    );
    ensure!(
        key.iter().all(u8::is_ascii_graphic),
        "a key is one word of visible ASCII characters; standard input is not"
    );
    Ok(key.to_owned())
}

fn time(when: &str) -> anyhow::Result<SystemTime> {
    if let Ok(time) = moment(when) {
        return Ok(time);
    }
    match humantime::parse_duration(when) {
        // Past the year 9999 there is no way to write it.
        Ok(duration) if duration < LONGEST_LIFE => Ok(SystemTime::now() + duration),
        Ok(_) | Err(_) => bail!(
            "`--expires {when}` is not a date (2027-01-31), time (2027-01-31T12:00:00Z) or duration (90days)"
        ),
    }
}

/// A date or time in UTC.
pub(super) fn moment(when: &str) -> Result<SystemTime, humantime::TimestampError> {
    let time =
        humantime::parse_rfc3339(when).or_else(|_| humantime::parse_rfc3339(&format!("{when}T00:00:00Z")));
    time.map(whole_second)
}

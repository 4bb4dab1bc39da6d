//! What a server said last, in a file: a start without the server need not be a start without keys.
//!
//! The first line says when it was written and what the rest digests to; each of the others is a key by its digest. There
//! is no key in it, and nobody else may read it.

use std::io::Write as _;
use std::path::Path;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use super::Entry;
use super::row::Row;
use crate::identity::caller::Previous;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;

/// The first line.
#[derive(Debug, Serialize, Deserialize)]
struct Head {
    version: u8,
    written: u64,
    sha256: String,
}

/// One key.
#[derive(Debug, Serialize, Deserialize)]
struct Line {
    digest: String,
    id: Box<str>,
    team: Box<str>,
    scopes: Vec<Box<str>>,
    team_scopes: Vec<Box<str>>,
    disabled: bool,
    team_disabled: bool,
    expires: Option<u64>,
    previous: Option<(u64, u64)>,
}

const VERSION: u8 = 1;

/// Writes all of it, or leaves what was there.
pub(super) fn write(
    path: &Path,
    known: impl Iterator<Item = (Digest, Entry)>,
    platform: &Scopes,
) -> anyhow::Result<()> {
    let mut rows = Vec::new();
    for (digest, entry) in known {
        serde_json::to_writer(&mut rows, &line(&digest, &entry, platform))?;
        rows.push(b'\n');
    }
    let head = Head { version: VERSION, written: seconds(SystemTime::now()), sha256: checksum(&rows) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Its owner alone may read it (0600), from the first byte on.
    let mut new = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    new.write_all(serde_json::to_string(&head)?.as_bytes())?;
    new.write_all(b"\n")?;
    new.write_all(&rows)?;
    new.persist(path).with_context(|| format!("cannot replace {}", path.display()))?;
    Ok(())
}

/// Reads what is whole and not older than this, and says how old it is.
pub(super) fn read(path: &Path, most: Duration) -> anyhow::Result<(Vec<(Digest, Row)>, Duration)> {
    let text = std::fs::read(path)?;
    let end = text.iter().position(|byte| *byte == b'\n').context("it has no first line")?;
    let (head, rows) = (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
    let head: Head = serde_json::from_slice(head).context("its first line cannot be read")?;
    ensure!(head.version == VERSION, "it is of another version");
    ensure!(head.sha256 == checksum(rows), "it is not what was written");
    let age = SystemTime::now().duration_since(time(head.written)).context("it is of the future")?;
    ensure!(age <= most, "it is older than {}", humantime::format_duration(most));
    let lines = rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows =
        lines.map(|line| serde_json::from_slice::<Line>(line).map_err(anyhow::Error::from).and_then(row));
    Ok((rows.collect::<Result<_, _>>()?, age))
}

fn line(digest: &Digest, entry: &Entry, platform: &Scopes) -> Line {
    let Row { id, team, scopes, team_scopes, disabled, team_disabled, expires, previous } =
        Row::of(entry, platform);
    Line {
        digest: digest.hex(),
        id,
        team,
        scopes,
        team_scopes,
        disabled,
        team_disabled,
        expires: expires.map(seconds),
        previous: previous.map(|Previous { since, until }| (seconds(since), seconds(until))),
    }
}

fn row(line: Line) -> anyhow::Result<(Digest, Row)> {
    let digest = Digest::from_hex(&line.digest)?;
    let row = Row {
        id: line.id,
        team: line.team,
        scopes: line.scopes,
        team_scopes: line.team_scopes,
        disabled: line.disabled,
        team_disabled: line.team_disabled,
        expires: line.expires.map(time),
        previous: line.previous.map(|(since, until)| Previous { since: time(since), until: time(until) }),
    };
    Ok((digest, row))
}

fn checksum(rows: &[u8]) -> String {
    HEXLOWER.encode(&Sha256::digest(rows))
}

/// Rounded down: a key must not live longer by it.
fn seconds(time: SystemTime) -> u64 {
    time.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs()
}

fn time(seconds: u64) -> SystemTime {
    UNIX_EPOCH.checked_add(Duration::from_secs(seconds)).unwrap_or(UNIX_EPOCH)
}

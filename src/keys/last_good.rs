//! What a server said last, in a file: a start without the server need not be a start without keys.
//!
//! The first line says when it was written and what the rest digests to; each of the others is a key by its digest, and when
//! that was said. There is no key in it, and nobody else may read it.

use std::cell::Cell;
use std::fs::{File, Permissions};
use std::io::{Read as _, Write as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context as _, ensure};
use data_encoding::HEXLOWER;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};
use tokio::sync::Notify;
use tokio::task::spawn_blocking;
use tokio::time::{Instant, sleep, timeout};

use super::cache::{Cache, Said};
use super::row::Row;
use crate::config::sources::LastGood;
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
    said: u64,
    id: Box<str>,
    team: Box<str>,
    scopes: Vec<Box<str>>,
    team_scopes: Vec<Box<str>>,
    disabled: bool,
    team_disabled: bool,
    expires: Option<u64>,
    previous: Option<(u64, u64)>,
}

const VERSION: u8 = 2;
/// What was learnt is written this often. What is not so any more is written at once.
const WRITE_EVERY: Duration = Duration::from_secs(5);
/// The rest after a writing, in times that it took: a large file on a slow disk never keeps the machine busy.
const REST: u32 = 10;

/// Keeps the file up to what is known.
#[derive(Debug)]
pub(super) struct Writer {
    unwritten: Cell<bool>,
    at_once: Notify,
}

impl Writer {
    /// Whether what is known already stands in the file.
    pub(super) fn new(written: bool) -> Self {
        Self { unwritten: Cell::new(!written), at_once: Notify::new() }
    }

    /// Something has been learnt.
    pub(super) fn learnt(&self) {
        self.unwritten.set(true);
    }

    /// Something that was written is not so any more.
    pub(super) fn overtaken(&self) {
        self.unwritten.set(true);
        self.at_once.notify_one();
    }

    /// Writes for as long as it is let.
    pub(super) async fn run(&self, to: &LastGood, cache: &Arc<Cache>, platform: &Scopes) {
        loop {
            let _ = timeout(WRITE_EVERY, self.at_once.notified()).await;
            if !self.unwritten.replace(false) {
                continue;
            }
            let began = Instant::now();
            let (to, cache, platform) = (to.clone(), Arc::clone(cache), platform.clone());
            let written = spawn_blocking(move || write(&to, cache.all(), &platform)).await;
            if let Ok(Err(error)) = written {
                self.unwritten.set(true);
                tracing::warn!(error = format!("{error:#}"), "what the source of keys says cannot be kept");
            }
            sleep(began.elapsed() * REST).await;
        }
    }
}

/// Writes all of it that is not too old, or leaves what was there.
fn write(to: &LastGood, known: impl Iterator<Item = Said>, platform: &Scopes) -> anyhow::Result<()> {
    let LastGood { file: path, max_age } = to;
    let (now, mut rows) = (SystemTime::now(), Vec::new());
    for said in known.filter(|said| said.age <= *max_age) {
        serde_json::to_writer(&mut rows, &line(&said, now, platform))?;
        rows.push(b'\n');
    }
    let head = Head { version: VERSION, written: seconds(now), sha256: checksum(&rows) };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // Its owner alone may read it (0600), from the first byte on.
    let mut new = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    new.write_all(serde_json::to_string(&head)?.as_bytes())?;
    new.write_all(b"\n")?;
    new.write_all(&rows)?;
    // A machine that falls over must not come back with the one before, in which a dead key is good.
    new.as_file().sync_all()?;
    new.persist(path).with_context(|| format!("cannot replace {}", path.display()))?;
    File::open(folder)?.sync_all()?;
    Ok(())
}

/// What was said of a key, and how long ago.
pub(super) type Dated = (Digest, Row, Duration);

/// Reads what is whole and not older than this, and says how long ago it was written.
pub(super) fn read(LastGood { file, max_age }: &LastGood) -> anyhow::Result<(Vec<Dated>, Duration)> {
    let (mut file, mut text) = (File::open(file)?, Vec::new());
    // A group may: a volume with an `fsGroup` gives it that at every mount.
    let writable = |mode: Permissions| mode.mode() & 0o002 != 0;
    ensure!(!writable(file.metadata()?.permissions()), "anybody may write it");
    file.read_to_end(&mut text)?;
    let end = text.iter().position(|byte| *byte == b'\n').context("it has no first line")?;
    let (head, rows) = (text.get(..end).unwrap_or_default(), text.get(end + 1..).unwrap_or_default());
    let head: Head = serde_json::from_slice(head).context("its first line cannot be read")?;
    ensure!(head.version == VERSION, "it is of another version");
    ensure!(head.sha256 == checksum(rows), "it is not what was written");
    let now = SystemTime::now();
    let age = now.duration_since(time(head.written)).context("it is of the future")?;
    ensure!(age <= *max_age, "it is older than {}", humantime::format_duration(*max_age));
    let lines = rows.split(|byte| *byte == b'\n').filter(|line| !line.is_empty());
    let rows = lines.map(|line| row(serde_json::from_slice(line)?, now)).collect::<anyhow::Result<Vec<_>>>();
    Ok((rows?.into_iter().filter(|(_, _, age)| age <= max_age).collect(), age))
}

fn line(Said { digest, entry, age }: &Said, now: SystemTime, platform: &Scopes) -> Line {
    let Row { id, team, scopes, team_scopes, disabled, team_disabled, expires, previous } =
        Row::of(entry, platform);
    Line {
        digest: digest.hex(),
        said: seconds(now.checked_sub(*age).unwrap_or(UNIX_EPOCH)),
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

fn row(line: Line, now: SystemTime) -> anyhow::Result<Dated> {
    let digest = Digest::from_hex(&line.digest)?;
    let age = now.duration_since(time(line.said)).context("a key of it is of the future")?;
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
    Ok((digest, row, age))
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

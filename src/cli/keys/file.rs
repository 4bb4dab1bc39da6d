//! A keys file that is changed: everything else of it stays byte for byte, and it is replaced whole or not at all.

use std::fs::{self, File as Opened, TryLockError};
use std::io::Write as _;
use std::path::{Path, PathBuf};

use anyhow::{Context as _, bail, ensure};
use tempfile::NamedTempFile;

use super::beside;
use super::edit::{self, row_lines};
use super::store::{Change, Decide, Store};
use crate::config::file::{Loaded, parse_keys_under, read};
use crate::config::keys::{Key, KeysFile};
use crate::config::problem::Severity;
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;

/// A keys file.
#[derive(Debug)]
pub(super) struct File {
    path: PathBuf,
    hashing: Hashing,
    /// A configuration says how digests are made.
    configured: bool,
    /// A configuration reads this file, and none of its folder.
    alone: bool,
}

impl File {
    /// Without a configuration digests are plain ones.
    pub(super) fn new(path: PathBuf, hashing: Option<Hashing>, alone: bool) -> Self {
        Self { path, configured: hashing.is_some(), hashing: hashing.unwrap_or_default(), alone }
    }

    fn parse(&self, text: &str) -> anyhow::Result<Loaded<KeysFile>> {
        Ok(parse_keys_under(&self.path, text, &Scopes::default(), &self.hashing)?)
    }

    /// Its text, unless nobody has said with which pepper its digests are made.
    fn text(&self) -> anyhow::Result<String> {
        let text = read(&self.path)?;
        ensure!(
            self.configured || !edit::has_digest(&self.path, &text, "hmac-sha256:"),
            "{} holds digests that were made with a pepper: name the configuration that has it, with --config",
            self.path.display()
        );
        Ok(text)
    }

    /// Whole or not at all: a reader sees the old file or the new one.
    fn replace(&self, real: &Path, folder: &Path, text: &str) -> anyhow::Result<()> {
        let mut new =
            NamedTempFile::new_in(folder).with_context(|| format!("cannot write in {}", folder.display()))?;
        new.write_all(text.as_bytes())?;
        new.as_file().set_permissions(fs::metadata(real)?.permissions())?;
        new.as_file().sync_all()?;
        new.persist(real).with_context(|| format!("cannot replace {}", self.path.display()))?;
        Ok(())
    }

    /// What stands in the file after it is what was to be changed, and nothing else.
    fn checked(&self, text: &str, wanted: &KeysFile) -> anyhow::Result<()> {
        let after = self.parse(text)?;
        // Where it stands is another matter.
        let KeysFile { teams, keys, refused, .. } = &after.value;
        if (teams, keys, refused) == (&wanted.teams, &wanted.keys, &wanted.refused) {
            return Ok(());
        }
        let problems = after.problems.iter().filter(|problem| problem.severity == Severity::Error);
        let problems: String = problems.map(|problem| format!("\n{problem}")).collect();
        bail!(
            "{} is left as it was: the change cannot be made in the way it is written{problems}",
            self.path.display()
        )
    }
}

impl Store for File {
    fn name(&self) -> String {
        self.path.display().to_string()
    }

    fn read(&mut self) -> anyhow::Result<KeysFile> {
        Ok(self.parse(&self.text()?)?.value)
    }

    fn change(&mut self, decide: Decide<'_>) -> anyhow::Result<()> {
        let real = fs::canonicalize(&self.path)
            .with_context(|| format!("{} cannot be read", self.path.display()))?;
        let folder = real.parent().unwrap_or(Path::new("/"));
        // The folder, since another file stands in the place of this one when it has been changed.
        let _alone = alone_in(folder)?;
        let text = self.text()?;
        let before = self.parse(&text)?.value;
        let change = decide(&before)?;
        if !self.alone {
            beside::refuse_twins(&self.path, &change, &self.hashing)?;
        }
        let with = changed(self, &text, &before, &change)?;
        self.checked(&with, &change.of(before))?;
        self.replace(&real, folder, &with)
    }
}

/// Held for as long as nobody else may change a keys file of this folder. It ends with the process at the latest.
fn alone_in(folder: &Path) -> anyhow::Result<Opened> {
    let cannot = || format!("cannot keep others from writing in {}", folder.display());
    let lock = Opened::open(folder).with_context(cannot)?;
    match lock.try_lock() {
        Ok(()) => {}
        Err(TryLockError::WouldBlock) => {
            eprintln!("waiting for another who changes keys in {}", folder.display());
            lock.lock().with_context(cannot)?;
        }
        Err(TryLockError::Error(error)) => return Err(error).with_context(cannot),
    }
    Ok(lock)
}

fn changed(file: &File, text: &str, before: &KeysFile, change: &Change) -> anyhow::Result<String> {
    let File { path, hashing, .. } = file;
    let by_hand =
        |what: &str| format!("{} is written in a way that cannot be edited here; {what}", path.display());
    match change {
        Change::Add(keys) => {
            let team = |key: &Key| before.teams.get(key.team).map_or("", |team| &team.name);
            let rows: Vec<_> = keys.iter().map(|key| row_lines(key, team(key), hashing)).collect();
            edit::inserted(text, &rows).with_context(|| {
                let rows: String = rows.iter().map(|row| edit::indented(row, "  ", "\n")).collect();
                by_hand(&format!(
                    "`keys:` is no list with one `- id: ...` block a key, paste this there yourself:\n{rows}"
                ))
            })
        }
        Change::Rotate { id, .. } if edit::is_of_certificate(path, text, id) => {
            bail!(
                "`{id}` is a certificate, which is renewed where it was made: the row stays, since its name does"
            )
        }
        Change::Rotate { id, digest, since, until } => {
            edit::rotated(path, text, id, &hashing.written(digest), *since, *until).with_context(|| {
                by_hand("rotate the key there yourself, or write its row as one `- id: ...` block")
            })
        }
        Change::Revoke { id, reason } => edit::revoked(path, text, id, reason.as_deref())
            .with_context(|| by_hand("write `disabled: true` into the row yourself")),
    }
}

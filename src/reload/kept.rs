//! Keys that are kept in files: one, or a folder of them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::{fs, io};

use super::stamp::Stamp;
use crate::config::problem::{Problem, Problems, Severity};
use crate::config::sources::Source;
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;
use crate::keys::file::{Fingerprint, Read, read, read_behind, table_behind};
use crate::keys::pace::Pace;
use crate::keys::table::{Part, Table};
use crate::observe::events::report;
use crate::observe::metrics::{Metrics, Reload};

/// A source of keys that is one file, or a folder of them.
#[derive(Debug)]
pub(super) struct Kept {
    pub(super) source: Source,
    /// In the order of their names.
    files: BTreeMap<PathBuf, KeysFile>,
    /// The folder could not be read when it was looked at last.
    unlisted: bool,
    /// The last good keys.
    pub(super) table: Arc<Table>,
}

/// A keys file.
#[derive(Debug, Default)]
struct KeysFile {
    stamp: Stamp,
    /// Of the text that was read last, good or bad.
    text: Option<Fingerprint>,
    /// The last good keys, if any.
    part: Option<Arc<Part>>,
}

impl Kept {
    /// Nothing has been read of it yet; until then these keys hold.
    pub(super) fn new(source: Source, table: Arc<Table>) -> Self {
        Self { source, files: BTreeMap::new(), unlisted: false, table }
    }

    /// Its table is that of its own files.
    pub(super) fn know_files(&mut self) {
        let known = |part: &Arc<Part>| KeysFile { part: Some(Arc::clone(part)), ..KeysFile::default() };
        self.files = self.table.parts().iter().map(|part| (part.path.clone(), known(part))).collect();
    }

    /// Every file needs a look, whatever the system says.
    pub(super) fn forget_stamps(&mut self) {
        self.files.values_mut().for_each(|file| file.stamp.forget());
    }

    /// Reads it for the first time. False where it cannot be used; of a folder, what is wrong with a file holds back that
    /// file alone.
    pub(super) fn load(&mut self, scopes: &Scopes, hashing: &Hashing, problems: &mut Problems) -> bool {
        let paths = match self.list() {
            Ok(paths) => paths,
            Err(wrong) => {
                problems.merge(wrong);
                return false;
            }
        };
        if let Source::Folder(folder) = &self.source
            && paths.is_empty()
        {
            problems.push(Problem {
                severity: Severity::Warning,
                ..whole(folder, "this folder holds no keys file".to_owned(), "one ends in `.yaml` or `.yml`")
            });
        }
        let mut pace = Pace::without_pause();
        for path in paths {
            let read = read(&path, scopes, hashing, None, &mut pace).expect("no text is known yet");
            let Read { fingerprint, part, problems: more } = read;
            problems.merge(more);
            self.files.insert(
                path,
                KeysFile { stamp: Stamp::default(), text: fingerprint, part: part.map(Arc::new) },
            );
        }
        let (table, more) = Table::over(self.parts(), &mut pace);
        problems.merge(more);
        self.put(table);
        self.is_folder() || self.files.values().all(|file| file.part.is_some())
    }

    /// Reads again what has changed. True where other keys are good now.
    pub(super) async fn look(&mut self, scopes: &Scopes, hashing: &Hashing, metrics: &Metrics) -> bool {
        let Some(paths) = self.list_again(metrics) else { return false };
        let before = self.files.len();
        self.files.retain(|path, _| paths.contains(path));
        let mut moved = self.files.len() < before;
        let folder = self.is_folder();
        for path in paths {
            let file = self.files.entry(path.clone()).or_default();
            if file.stamp.is_still(&path) {
                continue;
            }
            let Some(Read { fingerprint, part, problems }) =
                read_behind(&path, scopes, hashing, file.text).await
            else {
                continue;
            };
            if fingerprint.is_none() {
                // It could not be read, which may pass without a change.
                file.stamp.forget();
            }
            file.text = fingerprint;
            report(&problems);
            if let Some(part) = part {
                metrics.reloaded("keys", Reload::Applied);
                file.part = Some(Arc::new(part));
                moved = true;
            } else {
                tracing::error!(file = %path.display(), "the keys file is refused; the last good keys stay in force");
                metrics.reloaded("keys", Reload::Refused);
                // It counts among what is refused.
                moved |= folder && file.part.is_none();
            }
        }
        moved && self.index().await
    }

    async fn index(&mut self) -> bool {
        let Some((table, problems)) = table_behind(self.parts()).await else {
            tracing::error!("the table of keys could not be made; the last good keys stay in force");
            return false;
        };
        report(&problems);
        self.put(table);
        true
    }

    fn put(&mut self, mut table: Table) {
        table.refused += self.files.values().filter(|file| file.part.is_none()).count();
        self.table = Arc::new(table);
    }

    fn parts(&self) -> Vec<Arc<Part>> {
        self.files.values().filter_map(|file| file.part.clone()).collect()
    }

    fn is_folder(&self) -> bool {
        matches!(self.source, Source::Folder(_))
    }

    fn list_again(&mut self, metrics: &Metrics) -> Option<Vec<PathBuf>> {
        let listed = self.list();
        let before = std::mem::replace(&mut self.unlisted, listed.is_err());
        if let Err(problems) = &listed
            && !before
        {
            report(problems);
            tracing::error!("the folder of keys files cannot be read; the last good keys stay in force");
            metrics.reloaded("keys", Reload::Refused);
        }
        // A link into nothing is a file that has been removed, or is about to be.
        let there = |path: &PathBuf| {
            fs::metadata(path).err().is_none_or(|error| error.kind() != io::ErrorKind::NotFound)
        };
        let folder = self.is_folder();
        listed.ok().map(|paths| paths.into_iter().filter(|path| !folder || there(path)).collect())
    }

    fn list(&self) -> Result<Vec<PathBuf>, Problems> {
        match &self.source {
            Source::File(path) => Ok(vec![path.clone()]),
            Source::Folder(path) => list(path).map_err(|error| {
                let hint = "give the path of a folder that this user may read";
                Problems::of_file(path, format!("cannot be read: {error}"), Some(hint))
            }),
            Source::Remote(_) => Ok(Vec::new()),
        }
    }

    /// The folders in which a change may be one of it.
    pub(super) fn folders(&self) -> Vec<PathBuf> {
        let path = match &self.source {
            Source::File(path) | Source::Folder(path) => path,
            Source::Remote(_) => return Vec::new(),
        };
        let mut folders = around(path);
        if self.is_folder() {
            folders.push(path.clone());
            folders.extend(self.files.keys().flat_map(|file| around(file)));
        }
        folders
    }
}

/// The folder of a file. Where it is a link into another folder, that one changes too.
pub(super) fn around(path: &Path) -> Vec<PathBuf> {
    let folder = |path: &Path| match path.parent() {
        Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
        Some(folder) => folder.to_owned(),
        None => PathBuf::from("/"),
    };
    std::iter::once(folder(path)).chain(path.canonicalize().ok().map(|real| folder(&real))).collect()
}

/// The keys files of a folder, in the order of their names. What begins with a dot is the kubelet's own, or hidden.
fn list(folder: &Path) -> io::Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder)? {
        let path = entry?.path();
        let hidden = path.file_name().is_some_and(|name| name.as_encoded_bytes().starts_with(b"."));
        if !hidden
            && path.extension().and_then(OsStr::to_str).is_some_and(|end| matches!(end, "yaml" | "yml"))
        {
            files.push(path);
        }
    }
    files.sort();
    Ok(files)
}

fn whole(file: &Path, message: String, hint: &str) -> Problem {
    Problem {
        file: file.to_owned(),
        place: None,
        severity: Severity::Error,
        message,
        hint: Some(hint.to_owned()),
    }
}

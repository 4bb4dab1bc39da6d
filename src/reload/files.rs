//! The files that a process runs on: what was read of them last, and what of that was good.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::stamp::Stamp;
use crate::config::Config;
use crate::config::file::{self, Loaded};
use crate::config::problem::Problems;
use crate::config::sources::Source;
use crate::identity::scope::Scopes;
use crate::keys::file::{self as keys, Fingerprint, Read, Table};

/// The files that a process runs on.
#[derive(Debug)]
pub struct Files {
    pub(super) path: PathBuf,
    pub(super) config_text: String,
    pub(super) config: Config,
    pub(super) config_stamp: Stamp,
    /// In the order of the configuration.
    pub(super) keys: Vec<KeysFile>,
}

/// A keys file.
#[derive(Debug)]
pub(super) struct KeysFile {
    pub(super) path: PathBuf,
    pub(super) stamp: Stamp,
    /// Of the text that was read last, good or bad.
    pub(super) text: Option<Fingerprint>,
    /// The last good keys.
    pub(super) table: Arc<Table>,
}

impl Files {
    /// Reads the configuration and the keys files that it names. Problems that hold nothing back come with the
    /// files; an error is one that does.
    pub fn load(path: &Path) -> Result<Loaded<Self>, Problems> {
        let config_text = file::read(path)?;
        let Loaded { value: config, mut problems } = file::parse(path, &config_text)?;
        let mut good = true;
        let mut keys = Vec::new();
        for path in keys_paths(&config) {
            let read = keys::read(path, &config.live.scopes, &config.fixed.key_digest.hashing, None);
            let Read { fingerprint, table, problems: more } = read.expect("no text is known yet");
            problems.merge(more);
            good &= table.is_some();
            let table = Arc::new(table.unwrap_or_default());
            keys.push(KeysFile { path: path.to_owned(), stamp: Stamp::default(), text: fingerprint, table });
        }
        if !good {
            return Err(problems);
        }
        let (path, config_stamp) = (path.to_owned(), Stamp::default());
        Ok(Loaded { value: Self { path, config_text, config, config_stamp, keys }, problems })
    }

    /// The last good configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The last good keys, a table a file.
    #[must_use]
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.keys.iter().map(|file| Arc::clone(&file.table)).collect()
    }

    /// Names the configuration in force: the start of the SHA-256 of its text.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(&self.config_text);
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }

    /// Every file needs a look, whatever the system says.
    pub(super) fn forget_stamps(&mut self) {
        self.config_stamp.forget();
        self.keys.iter_mut().for_each(|file| file.stamp.forget());
    }

    /// Takes another configuration. Its keys files are read at the next look; until one of them can be, the last good keys
    /// of its path hold, or else of its place.
    pub(super) fn take(&mut self, config: Config) {
        let before = std::mem::replace(&mut self.config, config);
        let (old, new) = (&before.live, &self.config.live);
        if old.keys == new.keys && old.scopes == new.scopes {
            return;
        }
        let mut known = std::mem::take(&mut self.keys);
        let files = keys_paths(&self.config).enumerate().map(|(place, path)| {
            let of_path = known.iter().position(|file| file.path == *path);
            let table = known
                .get_mut(of_path.unwrap_or(place))
                .map(|file| file.table_under(&old.scopes, &new.scopes));
            // Their warnings may be others under another configuration.
            KeysFile {
                path: path.to_owned(),
                stamp: Stamp::default(),
                text: None,
                table: table.unwrap_or_default(),
            }
        });
        self.keys = files.collect();
    }
}

impl KeysFile {
    fn table_under(&self, old: &Scopes, new: &Scopes) -> Arc<Table> {
        if old == new { Arc::clone(&self.table) } else { Arc::new(self.table.under(old, new)) }
    }
}

/// The keys files that a configuration names.
pub(super) fn keys_paths(config: &Config) -> impl Iterator<Item = &Path> {
    config.live.keys.iter().filter_map(|source| match source {
        Source::File(path) => Some(&**path),
        Source::Remote(_) => None,
    })
}

//! The files that a process runs on: what was read of them last, and what of that was good.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use super::kept::Kept;
use super::pairs::Pairs;
use super::stamp::{Group, Stamp};
use crate::config::file::{self, Loaded};
use crate::config::problem::Problems;
use crate::config::sources::Source;
use crate::config::{Config, Live};
use crate::forward::upstream::Upstream;
use crate::keys::table::Table;
use crate::observe::metrics::{Metrics, Reload};
use crate::tls::Terminator;
use crate::tls::originator::Originator;

/// The files that a process runs on.
#[derive(Debug)]
pub struct Files {
    pub(super) path: PathBuf,
    pub(super) config_text: String,
    pub(super) config: Config,
    pub(super) config_stamp: Stamp,
    /// In the order of the configuration.
    pub(super) keys: Vec<Kept>,
    /// In the order of `listen:`.
    pub(super) tls: Vec<Option<Pairs>>,
    /// Of each upstream that speaks TLS, by its number, the files of that.
    trust: HashMap<u64, Group>,
}

impl Files {
    /// Reads the configuration and the keys files that it names. Problems that hold nothing back come with the
    /// files; an error is one that does.
    pub fn load(path: &Path) -> Result<Loaded<Self>, Problems> {
        let config_text = file::read(path)?;
        let Loaded { value: config, mut problems } = file::parse(path, &config_text)?;
        let (mut good, mut keys, mut tls) = (true, Vec::new(), Vec::new());
        for listen in &config.fixed.listen {
            let pairs = listen.tls.as_ref().map(|written| Pairs::load(written, &mut problems));
            good &= !matches!(pairs, Some(None));
            tls.push(pairs.flatten());
        }
        good &= can_be_trusted(&config.live, &mut problems);
        for source in in_files(&config) {
            let mut kept = Kept::new(source.clone(), Arc::default());
            good &= kept.load(&config.live.scopes, &config.fixed.key_digest.hashing, &mut problems);
            keys.push(kept);
        }
        if !good {
            return Err(problems);
        }
        let (path, config_stamp) = (path.to_owned(), Stamp::default());
        Ok(Loaded {
            value: Self { path, config_text, config, config_stamp, keys, tls, trust: HashMap::new() },
            problems,
        })
    }

    /// The last good configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The last good keys, a table a source.
    #[must_use]
    pub fn tables(&self) -> Vec<Arc<Table>> {
        self.keys.iter().map(|kept| Arc::clone(&kept.table)).collect()
    }

    /// What ends TLS, in the order of `listen:`.
    pub fn terminators(&self) -> impl Iterator<Item = Option<Arc<Terminator>>> {
        self.tls.iter().map(|pairs| pairs.as_ref().map(|pairs| Arc::clone(&pairs.terminator)))
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
        self.keys.iter_mut().for_each(Kept::forget_stamps);
        self.tls.iter_mut().flatten().for_each(Pairs::forget_stamps);
        self.trust.values_mut().for_each(Group::forget_stamps);
    }

    /// Takes another configuration. Its keys files are read at the next look; until they can be, the last good keys of the
    /// same source hold, or else of its place.
    pub(super) fn take(&mut self, config: Config) {
        let before = std::mem::replace(&mut self.config, config);
        let (old, new) = (&before.live, &self.config.live);
        if old.keys == new.keys && old.scopes == new.scopes {
            return;
        }
        let known = std::mem::take(&mut self.keys);
        let keys = in_files(&self.config).enumerate().map(|(place, source)| {
            let same = known.iter().find(|kept| kept.source == *source);
            let table = same.or_else(|| known.get(place)).map(|kept| &kept.table);
            let table = table.map(|table| {
                if old.scopes == new.scopes {
                    Arc::clone(table)
                } else {
                    Arc::new(table.under(&old.scopes, &new.scopes))
                }
            });
            let mut kept = Kept::new(source.clone(), table.unwrap_or_default());
            if same.is_some() {
                kept.know_files();
            }
            kept
        });
        self.keys = keys.collect();
    }
}

/// The sources of a configuration that are files.
pub(super) fn in_files(config: &Config) -> impl Iterator<Item = &Source> {
    config.live.keys.iter().filter(|source| match source {
        Source::File(_) | Source::Folder(_) => true,
        Source::Remote(_) => false,
    })
}

impl Files {
    /// Has the upstreams read the files of their `tls:` again that have changed.
    pub(super) fn look_at_trust(&mut self, upstreams: &[Arc<Upstream>], metrics: &Metrics) {
        self.trust.retain(|id, _| upstreams.iter().any(|upstream| upstream.id == *id));
        for upstream in upstreams {
            let Some(tls) = &upstream.tls else { continue };
            let changed = match self.trust.entry(upstream.id) {
                Entry::Occupied(mut files) => files.get_mut().have_changed(),
                Entry::Vacant(place) => {
                    place.insert(Group::of(tls.files()));
                    // They may have changed since the upstream was made, which is nothing to tell of; bad ones stay away.
                    let _ = tls.look();
                    false
                }
            };
            match changed.then(|| tls.look()) {
                None => {}
                Some(Ok(())) => {
                    tracing::info!(upstream = %upstream.config.name, "the files of an upstream's `tls` are in force, from the next connection on");
                    metrics.reloaded("tls", Reload::Applied);
                }
                Some(Err(problem)) => {
                    tracing::error!(upstream = %upstream.config.name, %problem, "the files of an upstream's `tls` are refused; the last good ones stay in force");
                    metrics.reloaded("tls", Reload::Refused);
                }
            }
        }
    }
}

/// Whether the files of all upstreams' `tls:` are good.
pub(super) fn can_be_trusted(live: &Live, problems: &mut Problems) -> bool {
    let trusts = live.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
    let before = problems.errors();
    for problem in trusts.filter_map(Originator::problem) {
        problems.push(problem);
    }
    problems.errors() == before
}

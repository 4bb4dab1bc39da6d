//! Watches the files and swaps the snapshot, or keeps the last good one and says so.
//!
//! Configuration and keys are two files with two fates: a mistake in the one never holds back the other, and a
//! revocation least of all.

use std::collections::BTreeSet;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use sha2::{Digest as _, Sha256};
use tokio::sync::mpsc;
use tokio::time::timeout;

use crate::config::file::{self, Loaded};
use crate::config::problem::{Problems, Severity};
use crate::config::{Config, KeysFrom};
use crate::keys::change::{Change, Changes, Which};
use crate::keys::file::{self as keys, Fingerprint, Read, Table};
use crate::observe::metrics::{Metrics, Reload};
use crate::snapshot::{Current, Snapshot};

/// Editors and the kubelet change a folder in several steps; this long without another is the end of them.
const SETTLE: Duration = Duration::from_millis(15);
/// Seconds; longer than any file system's clock stands still.
const TICK: u64 = 2;
/// A folder that never rests is looked at all the same.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);

/// The files that a process runs on: what was read of them last, and what of that was good.
#[derive(Debug, Clone)]
pub struct Files {
    path: PathBuf,
    config_text: String,
    config: Config,
    /// Of the text that was read last, good or bad.
    keys_text: Option<Fingerprint>,
    keys: Arc<Table>,
}

impl Files {
    /// Reads the configuration and the keys file that it names. Problems that hold nothing back come with the
    /// files; an error is one that does.
    pub fn load(path: &Path) -> Result<Loaded<Self>, Problems> {
        let config_text = file::read(path)?;
        let Loaded { value: config, mut problems } = file::parse(path, &config_text)?;
        let read = keys::read(keys_path(&config), &config.live.scopes, None);
        let Read { fingerprint, table, problems: more } = read.expect("no text is known yet");
        problems.merge(more);
        match table {
            Some(table) => {
                let (path, keys) = (path.to_owned(), Arc::new(table));
                Ok(Loaded {
                    value: Self { path, config_text, config, keys_text: fingerprint, keys },
                    problems,
                })
            }
            None => Err(problems),
        }
    }

    /// The last good configuration.
    #[must_use]
    pub fn config(&self) -> &Config {
        &self.config
    }

    /// The last good keys.
    #[must_use]
    pub fn keys(&self) -> &Arc<Table> {
        &self.keys
    }

    /// Names the configuration in force: the start of the SHA-256 of its text.
    #[must_use]
    pub fn hash(&self) -> String {
        let digest = Sha256::digest(&self.config_text);
        digest.iter().take(6).map(|byte| format!("{byte:02x}")).collect()
    }
}

/// Keeps the snapshot in force up to the files.
#[derive(Debug)]
pub struct Reloader {
    files: Files,
    current: Arc<Current>,
    metrics: Arc<Metrics>,
    told: Changes,
    watcher: Option<RecommendedWatcher>,
    watched: BTreeSet<PathBuf>,
    changes: mpsc::Receiver<()>,
    hash: String,
    config_stamp: Stamp,
    keys_stamp: Stamp,
}

/// What the system says of a file that was read. Something else in its folder may change all the time: a log, say.
#[derive(Debug, Default)]
struct Stamp(Option<Facts>);

#[derive(Debug, PartialEq, Eq)]
struct Facts {
    file: (u64, u64),
    length: u64,
    changed: (i64, i64),
}

impl Stamp {
    /// Whether the file needs no second look; from now on it is this one.
    fn is_still(&mut self, path: &Path) -> bool {
        let facts = std::fs::metadata(path).map(|facts| Facts {
            file: (facts.dev(), facts.ino()),
            length: facts.len(),
            changed: (facts.ctime(), facts.ctime_nsec()),
        });
        // Another change in the same tick of the file system's clock could not be told from this one.
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let old = |facts: &Facts| u64::try_from(facts.changed.0).is_ok_and(|at| at + TICK < now.as_secs());
        let facts = facts.ok().filter(old);
        let still = facts.is_some() && facts == self.0;
        self.0 = facts;
        still
    }

    fn forget(&mut self) {
        self.0 = None;
    }
}

impl Reloader {
    /// Watches from now on what the first snapshot was built from.
    #[must_use]
    pub fn new(files: Files, current: Arc<Current>, metrics: Arc<Metrics>, told: Changes) -> Self {
        // One place: what waits there says "look again", and that need not be said twice.
        let (sender, changes) = mpsc::channel(1);
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            if event.is_ok_and(|event| !event.kind.is_access()) {
                let _ = sender.try_send(());
            }
        });
        let watcher = watcher.inspect_err(unwatched).ok();
        let hash = files.hash();
        let mut this = Self {
            files,
            current,
            metrics,
            told,
            watcher,
            watched: BTreeSet::new(),
            changes,
            hash,
            config_stamp: Stamp::default(),
            keys_stamp: Stamp::default(),
        };
        this.in_force();
        this.watch();
        this
    }

    /// Follows the files for as long as the process lives; `signal` (SIGHUP) asks for it too.
    pub async fn run(mut self, mut signal: impl AsyncFnMut()) {
        // What changed between the first reading and the watch.
        self.look(Instant::now()).await;
        loop {
            tokio::select! {
                changed = self.changes.recv() => if changed.is_none() { std::future::pending::<()>().await },
                () = signal() => {
                    tracing::info!("told to reload");
                    self.config_stamp.forget();
                    self.keys_stamp.forget();
                }
            }
            let began = Instant::now();
            while began.elapsed() < SETTLE_AT_MOST && timeout(SETTLE, self.changes.recv()).await.is_ok() {}
            self.look(began).await;
        }
    }

    /// Reads both files again, and puts in force what is new and good of them. The keys first, since
    /// they may hold a revocation.
    async fn look(&mut self, began: Instant) {
        if self.look_at_keys().await {
            let snapshot = self.build();
            self.put_in_force(snapshot, began);
        }
        if self.look_at_config() {
            self.look_at_keys().await;
            let (snapshot, previous) = (self.build(), self.current.load());
            // A request must not meet a name that has no address yet, and no revocation waits for a resolver: until the
            // new name has been looked up, which happens at once, its upstream is where it was.
            for upstream in &snapshot.upstreams {
                if let Some(old) =
                    previous.upstreams.iter().find(|old| old.config.name == upstream.config.name)
                {
                    upstream.inherit(old);
                }
            }
            self.put_in_force(snapshot, began);
        }
        self.watch();
    }

    fn build(&self) -> Snapshot {
        let previous = self.current.load();
        let keys = Arc::clone(&self.files.keys);
        Snapshot::build(self.files.config.clone(), keys, Some(&previous), &self.metrics)
    }

    /// For the next request; what is under way on a key that has died ends. `began` is when that was heard.
    fn put_in_force(&self, snapshot: Snapshot, began: Instant) {
        self.current.swap(snapshot);
        self.told.tell(Change { which: Which::Any, ending: self.metrics.ending_since(began) });
        self.in_force();
    }

    /// True where a new configuration is good.
    fn look_at_config(&mut self) -> bool {
        if self.config_stamp.is_still(&self.files.path) {
            return false;
        }
        let read = file::read(&self.files.path);
        if read.is_err() {
            self.config_stamp.forget();
        }
        if read.as_ref().is_ok_and(|text| *text == self.files.config_text) {
            return false;
        }
        let parsed = read.and_then(|text| {
            self.files.config_text.clone_from(&text);
            file::parse(&self.files.path, &text)
        });
        match parsed {
            Ok(Loaded { value, problems }) => {
                report(&problems);
                waiting_for_restart(&self.files.config, &value);
                self.metrics.reloaded("config", Reload::Applied);
                // The keys' warnings, and the file itself, may be others under another configuration.
                if value.live.keys != self.files.config.live.keys
                    || value.live.scopes != self.files.config.live.scopes
                {
                    self.files.keys_text = None;
                    self.keys_stamp.forget();
                }
                if value.live.scopes != self.files.config.live.scopes {
                    // For as long as the keys file cannot be read anew.
                    let (old, new) = (&self.files.config.live.scopes, &value.live.scopes);
                    self.files.keys = Arc::new(self.files.keys.under(old, new));
                }
                self.hash = self.files.hash();
                // What is fixed stays as it runs.
                self.files.config = Config { fixed: self.files.config.fixed.clone(), live: value.live };
                true
            }
            Err(problems) => {
                report(&problems);
                tracing::error!(file = %self.files.path.display(), "the configuration is refused; the last good one stays in force");
                self.metrics.reloaded("config", Reload::Refused);
                false
            }
        }
    }

    /// True where new keys are good.
    async fn look_at_keys(&mut self) -> bool {
        let path = keys_path(&self.files.config).to_owned();
        if self.keys_stamp.is_still(&path) {
            return false;
        }
        let read = keys::read_behind(&path, &self.files.config.live.scopes, self.files.keys_text).await;
        let Some(Read { fingerprint, table, problems }) = read else { return false };
        if fingerprint.is_none() {
            // It could not be read, which may pass without a change.
            self.keys_stamp.forget();
        }
        self.files.keys_text = fingerprint;
        report(&problems);
        if let Some(table) = table {
            self.metrics.reloaded("keys", Reload::Applied);
            self.files.keys = Arc::new(table);
            return true;
        }
        tracing::error!(file = %path.display(), "the keys file is refused; the last good keys stay in force");
        self.metrics.reloaded("keys", Reload::Refused);
        false
    }

    fn in_force(&self) {
        let snapshot = self.current.load();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.configured(&self.hash, snapshot.generation, now);
        let keys = self.files.keys.len();
        tracing::info!(generation = snapshot.generation, hash = %self.hash, keys, "in force");
    }

    /// Watches the folders: a watch on a file ends when Kubernetes or an editor puts another in its place.
    fn watch(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let folder = |path: &Path| match path.parent() {
            Some(folder) if folder.as_os_str().is_empty() => PathBuf::from("."),
            Some(folder) => folder.to_owned(),
            None => PathBuf::from("/"),
        };
        let mut wanted = BTreeSet::new();
        for path in [self.files.path.as_path(), keys_path(&self.files.config)] {
            wanted.insert(folder(path));
            // Where it is a link into another folder, that one changes too.
            wanted.extend(path.canonicalize().ok().map(|real| folder(&real)));
        }
        for old in self.watched.difference(&wanted) {
            let _ = watcher.unwatch(old);
        }
        for new in wanted.difference(&self.watched) {
            if let Err(error) = watcher.watch(new, RecursiveMode::NonRecursive) {
                unwatched(&error);
            }
        }
        self.watched = wanted;
    }
}

fn keys_path(config: &Config) -> &Path {
    let KeysFrom::File(path) = &config.live.keys;
    path
}

fn unwatched(error: &notify::Error) {
    tracing::error!(%error, "the files cannot be watched; send SIGHUP after a change");
}

/// Says what was found in the files as events.
pub fn report(problems: &Problems) {
    for problem in problems {
        match problem.severity {
            Severity::Error => tracing::error!(%problem, "configuration"),
            Severity::Warning => tracing::warn!(%problem, "configuration"),
        }
    }
}

/// Says which sections were changed in vain until a restart.
fn waiting_for_restart(running: &Config, written: &Config) {
    let (now, then) = (&running.fixed, &written.fixed);
    for (section, same) in [
        ("listen", now.listen == then.listen),
        ("admin", now.admin == then.admin),
        ("workers", now.workers == then.workers),
        ("log", now.log == then.log),
    ] {
        if !same {
            tracing::warn!(section, "changed, and waits for a restart; everything else is in force");
        }
    }
}

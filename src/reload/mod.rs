//! Watches the files and swaps the snapshot, or keeps the last good one and says so.
//!
//! Configuration and keys are files with fates of their own: a mistake in the one never holds back the other, and a
//! revocation least of all.

mod files;
mod kept;
mod pairs;
mod stamp;

use std::collections::BTreeSet;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use notify::{RecommendedWatcher, RecursiveMode, Watcher as _};
use tokio::sync::mpsc;
use tokio::time::{interval, timeout};

use crate::config::Config;
use crate::config::file::{self, Loaded};
use crate::config::trust::Trust;
use crate::keys::change::{Change, Changes, Which};
use crate::observe::events::report;
use crate::observe::metrics::{Metrics, Reload};
use crate::snapshot::{Current, Snapshot};
pub use files::Files;
use kept::around;

/// Editors and the kubelet change a folder in several steps; this long without another is the end of them.
const SETTLE: Duration = Duration::from_millis(15);
/// A folder that never rests is looked at all the same.
const SETTLE_AT_MOST: Duration = Duration::from_millis(500);

/// How often it is said that a certificate ends soon: each shift hears it once.
const EXPIRY: Duration = Duration::from_secs(8 * 60 * 60);

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
        let mut this =
            Self { files, current, metrics, told, watcher, watched: BTreeSet::new(), changes, hash };
        this.in_force();
        this.watch();
        this
    }

    /// Follows the files for as long as the process lives; `signal` (SIGHUP) asks for it too.
    pub async fn run(mut self, mut signal: impl AsyncFnMut()) {
        // What changed between the first reading and the watch.
        self.look(Instant::now()).await;
        let mut expiry = interval(EXPIRY);
        loop {
            tokio::select! {
                _ = expiry.tick() => {
                    self.files.tls.iter().flatten().for_each(|pairs| pairs.tell_expiry(&self.metrics));
                    continue;
                }
                changed = self.changes.recv() => if changed.is_none() { std::future::pending::<()>().await },
                () = signal() => {
                    tracing::info!("told to reload");
                    self.files.forget_stamps();
                }
            }
            let began = Instant::now();
            while began.elapsed() < SETTLE_AT_MOST && timeout(SETTLE, self.changes.recv()).await.is_ok() {}
            self.look(began).await;
        }
    }

    /// Reads the files again, and puts in force what is new and good of them. The keys first, since
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
        self.files.tls.iter_mut().flatten().for_each(|pairs| pairs.look(&self.metrics));
        self.files.look_at_trust(&self.current.load().upstreams, &self.metrics);
        self.watch();
    }

    fn build(&self) -> Snapshot {
        let previous = self.current.load();
        let (config, tables) = (self.files.config.clone(), self.files.tables());
        Snapshot::build(config, &tables, Some(&previous), &self.metrics, &self.told)
    }

    /// For the next request; what is under way on a key that has died ends. `began` is when that was heard.
    fn put_in_force(&self, snapshot: Snapshot, began: Instant) {
        self.current.swap(snapshot);
        self.told.tell(Change { which: Which::Any, ending: self.metrics.ending_since(began) });
        self.in_force();
    }

    /// True where a new configuration is good.
    fn look_at_config(&mut self) -> bool {
        if self.files.config_stamp.is_still(&self.files.path) {
            return false;
        }
        let read = file::read(&self.files.path);
        if read.is_err() {
            self.files.config_stamp.forget();
        }
        if read.as_ref().is_ok_and(|text| *text == self.files.config_text) {
            return false;
        }
        let parsed = read.and_then(|text| {
            self.files.config_text.clone_from(&text);
            let mut parsed = file::parse(&self.files.path, &text)?;
            let good = files::can_be_trusted(&parsed.value.live, &mut parsed.problems);
            if good { Ok(parsed) } else { Err(parsed.problems) }
        });
        match parsed {
            Ok(Loaded { value, problems }) => {
                report(&problems);
                waiting_for_restart(&self.files.config, &value);
                self.metrics.reloaded("config", Reload::Applied);
                self.hash = self.files.hash();
                // What is fixed stays as it runs.
                self.files.take(Config { fixed: self.files.config.fixed.clone(), live: value.live });
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
        let mut changed = false;
        let hashing = &self.files.config.fixed.key_digest.hashing;
        for kept in &mut self.files.keys {
            changed |= kept.look(&self.files.config.live.scopes, hashing, &self.metrics).await;
        }
        changed
    }

    fn in_force(&self) {
        let snapshot = self.current.load();
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        self.metrics.configured(&self.hash, snapshot.generation, now);
        let (keys, _) = snapshot.keys.count();
        tracing::info!(generation = snapshot.generation, hash = %self.hash, keys, "in force");
    }

    /// Watches the folders: a watch on a file ends when Kubernetes or an editor puts another in its place.
    fn watch(&mut self) {
        let Some(watcher) = &mut self.watcher else { return };
        let mut wanted = BTreeSet::from_iter(around(&self.files.path));
        wanted.extend(self.files.keys.iter().flat_map(kept::Kept::folders));
        wanted.extend(self.files.tls.iter().flatten().flat_map(pairs::Pairs::folders));
        let trusts = self.files.config.live.upstreams.iter().filter_map(|upstream| upstream.tls.as_ref());
        wanted.extend(trusts.flat_map(Trust::files).flat_map(around));
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

fn unwatched(error: &notify::Error) {
    tracing::error!(%error, "the files cannot be watched; send SIGHUP after a change");
}

/// Says which sections were changed in vain until a restart.
fn waiting_for_restart(running: &Config, written: &Config) {
    let (now, then) = (&running.fixed, &written.fixed);
    for (section, same) in [
        ("listen", now.listen == then.listen),
        ("admin", now.admin == then.admin),
        ("workers", now.workers == then.workers),
        ("log", now.log == then.log),
        ("key_digest", now.key_digest == then.key_digest),
    ] {
        if !same {
            tracing::warn!(section, "changed, and waits for a restart; everything else is in force");
        }
    }
}

//! Keys that live on a server: what a worker sees of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot};

use super::cache::{Age, Cache};
use super::change::Changes;
use super::http::Http;
use super::keeper::{Ask, Keeper};
use super::presented::{Plain, Presented};
use super::redis::Redis;
use super::{Entry, KeySource, SourceError};
use crate::config::endpoint::Sent;
use crate::config::sources::{self, Server};
use crate::identity::scope::Scopes;
use crate::observe::metrics::Metrics;
use crate::observe::source::SourceMeters;

/// Questions that wait for the keeper: as many as requests may be under way.
const WAITING: usize = 4_096;

/// Seconds between two warnings of the same.
const WARN_EVERY: u64 = 10;

/// Keys that live on a server, with what is kept of its answers.
#[derive(Debug)]
pub struct Remote {
    config: sources::Remote,
    platform: Scopes,
    name: &'static str,
    cache: Arc<Cache>,
    asks: mpsc::Sender<Ask>,
    ready: Arc<AtomicBool>,
    meters: SourceMeters,
    began: Instant,
    /// In seconds since: until then it is not warned of again.
    quiet_until: AtomicU64,
}

/// What a server must be able to do.
pub(super) trait Source: 'static {
    /// What it knows of a key.
    async fn fetch(&self, presented: &Presented<'_>) -> Result<Option<super::row::Row>, SourceError>;

    /// Hears of changes for as long as the connection holds; says [`super::news::News::Listening`] once it does, or
    /// [`super::news::News::Silent`] where there will be none.
    async fn listen(&self, hear: &dyn Fn(super::news::News)) -> SourceError;
}

impl Remote {
    /// Starts the thread that talks to the server. It ends when nobody holds this any more.
    #[must_use]
    pub fn start(
        config: &sources::Remote,
        platform: &Scopes,
        changes: &Changes,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let name = match &config.server {
            Server::Redis(_) => "redis",
            Server::Http(_) => "http",
        };
        let cache = Arc::new(Cache::new(config.cache));
        let (asks, asked) = mpsc::channel(WAITING);
        let ready = Arc::<AtomicBool>::default();
        let meters = metrics.source(name);
        let keeper = Keeper {
            name,
            bounds: config.cache,
            cache: Arc::clone(&cache),
            platform: platform.clone(),
            changes: changes.clone(),
            ready: Arc::clone(&ready),
            metrics: Arc::clone(metrics),
            meters: meters.clone(),
        };
        match &config.server {
            Server::Redis(redis) => keeper.start(Redis::new(redis.clone(), config.cache.timeout), asked),
            Server::Http(http) => keeper.start(Http::new((**http).clone(), &config.cache), asked),
        }
        let (config, platform) = (config.clone(), platform.clone());
        let (began, quiet_until) = (Instant::now(), AtomicU64::new(0));
        Arc::new(Self { config, platform, name, cache, asks, ready, meters, began, quiet_until })
    }

    /// Whether this is what another configuration asks for.
    #[must_use]
    pub fn serves(&self, config: &sources::Remote, platform: &Scopes) -> bool {
        self.config == *config && self.platform == *platform
    }

    /// Whether the server has ever been reached.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// As the configuration names it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Once in a while: it may be so for every request.
    fn warn_of_stale(&self, age: Duration) {
        let now = self.began.elapsed().as_secs();
        let quiet = self.quiet_until.load(Ordering::Relaxed);
        let again = now + WARN_EVERY;
        // Of several workers one warns.
        let mine =
            || self.quiet_until.compare_exchange(quiet, again, Ordering::Relaxed, Ordering::Relaxed).is_ok();
        if now >= quiet && mine() {
            let age_s = age.as_secs();
            tracing::warn!(
                source = self.name,
                age_s,
                "the source of keys does not answer; what it said before is used"
            );
        }
    }

    async fn ask(&self, presented: &Presented<'_>, stranger: bool) -> Result<Option<Entry>, SourceError> {
        let (answer, answered) = oneshot::channel();
        let busy = || SourceError::Busy { name: self.name };
        let ask = self.question(presented, stranger, answer)?;
        self.asks.try_send(ask).map_err(|_| busy())?;
        let gone = || SourceError::Down { name: self.name, cause: "its thread has ended".to_owned() };
        answered.await.unwrap_or_else(|_| Err(gone()))
    }

    /// The key goes along only to a source that is asked with it. One that is asked for again, without a request, cannot be.
    fn question(
        &self,
        presented: &Presented<'_>,
        stranger: bool,
        answer: oneshot::Sender<Result<Option<Entry>, SourceError>>,
    ) -> Result<Ask, SourceError> {
        let keyless = || SourceError::Keyless { name: self.name };
        let plain = match &self.config.server {
            Server::Http(http) if http.send == Sent::Key => {
                Some(Plain::of(presented.key.ok_or_else(keyless)?))
            }
            Server::Http(_) | Server::Redis(_) => None,
        };
        Ok(Ask { digest: presented.digest, plain, stranger, answer })
    }
}

impl KeySource for Remote {
    async fn find(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        match self.at_hand(presented) {
            Some(found) => Ok(found),
            // In a box of its own: most requests do not wait, and need no room for it.
            None => Box::pin(self.ask_first(presented)).await,
        }
    }
}

impl Remote {
    /// What is good without asking; the outer nothing where the server must be asked.
    fn at_hand(&self, presented: &Presented<'_>) -> Option<Option<Entry>> {
        let digest = &presented.digest;
        let Some(known) = self.cache.known(digest) else {
            return self.cache.is_unknown(digest).then_some(None);
        };
        match self.cache.age(&known, Instant::now()) {
            Age::Fresh => {}
            Age::Stale => {
                if known.begins_refresh() {
                    // Nobody waits for it; where there is no room now, the next request tries.
                    let (answer, _) = oneshot::channel();
                    let ask = self.question(presented, false, answer);
                    if !ask.is_ok_and(|ask| self.asks.try_send(ask).is_ok()) {
                        known.ends_refresh();
                    }
                }
            }
            Age::Old => return None,
        }
        Some(Some(known.entry.clone()))
    }

    /// What the server says, or, where it does not answer, what it said before, if that may be used.
    async fn ask_first(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        let known = self.cache.known(&presented.digest);
        match (self.ask(presented, known.is_none()).await, known) {
            (Err(_), Some(known)) if self.cache.outlasts(&known, Instant::now()) => {
                self.meters.stale();
                self.warn_of_stale(known.age(Instant::now()));
                Ok(Some(known.entry.clone()))
            }
            (answer, _) => answer,
        }
    }
}

//! Keys that live on a server: what a worker sees of them.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::mpsc::error::TrySendError;
use tokio::sync::{Notify, mpsc, oneshot};
use tokio::time::timeout;

use super::cache::{Age, Cache, Known};
use super::change::Changes;
use super::http::Http;
use super::keeper::{Ask, Keeper, Message};
#[cfg(feature = "kubernetes")]
use super::kubernetes::Kubernetes;
use super::last_good;
use super::news::News;
use super::postgres::Postgres;
use super::presented::{Plain, Presented};
use super::redis::Redis;
use super::row::Row;
use super::{Entry, SourceError};
use crate::config::endpoint::Sent;
use crate::config::sources::{self, LastGood, Server};
use crate::identity::hashing::Hashing;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;
use crate::observe::metrics::Metrics;
use crate::observe::seldom::Seldom;
use crate::observe::source::SourceMeters;

/// Questions that wait for the keeper: as many as requests may be under way.
const WAITING: usize = 4_096;

/// Keys that live on a server, with what is kept of its answers.
#[derive(Debug)]
pub struct Remote {
    config: sources::Remote,
    platform: Scopes,
    name: &'static str,
    cache: Arc<Cache>,
    desk: mpsc::Sender<Message>,
    ready: Arc<AtomicBool>,
    retired: Arc<Notify>,
    meters: SourceMeters,
    /// When that may be warned of.
    stale: Seldom,
}

/// What a server must be able to do.
pub(super) trait Source: 'static {
    /// What it knows of a key.
    async fn fetch(&self, presented: &Presented<'_>) -> Result<Option<Row>, SourceError>;

    /// Hears of changes for as long as the connection holds; says [`News::Listening`] once it does, or
    /// [`News::Silent`] where there will be none.
    async fn listen(&self, hear: &dyn Fn(News)) -> SourceError;
}

/// What events and metrics call a server: its kind, and which of them where there are several. A number, so that it is
/// bounded; the fourth and those behind it share theirs.
fn names(server: &Server) -> [&'static str; 4] {
    match server {
        Server::Redis(_) => ["redis", "redis-2", "redis-3", "redis-4"],
        Server::Postgres(_) => ["postgres", "postgres-2", "postgres-3", "postgres-4"],
        Server::Http(_) => ["http", "http-2", "http-3", "http-4"],
        Server::Kubernetes(_) => ["kubernetes", "kubernetes-2", "kubernetes-3", "kubernetes-4"],
    }
}

fn name(server: &Server, taken: &[&'static str]) -> &'static str {
    let names = names(server);
    let [.., last] = names;
    names.into_iter().find(|name| !taken.contains(name)).unwrap_or(last)
}

/// Whether a server can be asked and heard, as things are now.
pub fn probe(config: &sources::Remote, platform: &Scopes, hashing: &Hashing) -> Result<(), SourceError> {
    let (name, most) = (name(&config.server, &[]), config.cache.timeout);
    let runtime = Builder::new_current_thread()
        .enable_all()
        .build_local(LocalOptions::default())
        .expect("a runtime of the system's");
    // With tasks of its own, as the keeper's thread has them.
    runtime.block_on(async {
        match &config.server {
            Server::Redis(redis) => probed(name, &Redis::new(redis.clone(), most), most).await,
            Server::Postgres(postgres) => {
                probed(name, &Postgres::new((**postgres).clone(), most), most).await
            }
            Server::Http(http) => probed(name, &Http::new((**http).clone(), &config.cache), most).await,
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(secrets) => {
                let metrics = Metrics::new("");
                let meters = metrics.source(name);
                let source =
                    Kubernetes::new((**secrets).clone(), most, (platform, hashing), &metrics, meters);
                probed(name, &source, most).await
            }
            #[cfg(not(feature = "kubernetes"))]
            Server::Kubernetes(_) => left_out(platform, hashing),
        }
    })
}

#[cfg(not(feature = "kubernetes"))]
fn left_out(_: &Scopes, _: &Hashing) -> ! {
    unreachable!("a configuration with `kubernetes` is refused by who was built without it")
}

async fn probed(name: &'static str, source: &impl Source, most: Duration) -> Result<(), SourceError> {
    let listening = Notify::new();
    let hear = |news| {
        if matches!(news, News::Listening | News::Silent) {
            listening.notify_one();
        }
    };
    let heard = timeout(most, async {
        tokio::select! {
            error = source.listen(&hear) => Err(error),
            () = listening.notified() => Ok(()),
        }
    });
    heard.await.unwrap_or(Err(SourceError::Late { name }))?;
    // No client can send a key without a byte.
    let asked = timeout(most, source.fetch(&Presented::now(b""))).await;
    asked.unwrap_or(Err(SourceError::Late { name })).map(|_| ())
}

/// Takes what was kept over a start; false where there is nothing that can be used.
fn restore(from: &LastGood, name: &str, cache: &Cache, platform: &Scopes) -> bool {
    match last_good::read(from) {
        Ok((rows, age)) => {
            let (keys, age_s) = (rows.len(), age.as_secs());
            tracing::info!(
                source = name,
                keys,
                age_s,
                "what the source of keys said before this start is used"
            );
            cache.restore(rows, platform, from.max_age);
            true
        }
        Err(error) => {
            let file = from.file.display();
            tracing::warn!(source = name, %file, error = format!("{error:#}"), "what was said before is not used");
            false
        }
    }
}

impl Remote {
    /// Starts the thread that talks to the server, which is called as none of those that are `taken`, with what was known
    /// of the same server `before`, or before this start. It ends when nobody holds this any more, or soon after it is
    /// retired.
    #[must_use]
    pub fn start(
        config: &sources::Remote,
        (taken, before): (&[&'static str], Option<&Self>),
        (platform, hashing): (&Scopes, &Hashing),
        changes: &Changes,
        metrics: &Arc<Metrics>,
    ) -> Arc<Self> {
        let name = name(&config.server, taken);
        let cache = Arc::new(Cache::new(config.cache));
        let (desk, told) = mpsc::channel(WAITING);
        let restored = match (before, &config.last_good) {
            (Some(before), _) => {
                cache.take_over(&before.cache, &before.platform, platform);
                false
            }
            (None, Some(last_good)) => restore(last_good, name, &cache, platform),
            (None, None) => false,
        };
        let ready = Arc::new(AtomicBool::new(restored));
        let retired = Arc::<Notify>::default();
        let meters = metrics.source(name);
        let keeper = Keeper {
            name,
            bounds: config.cache,
            last_good: config.last_good.clone(),
            cache: Arc::clone(&cache),
            written: before.is_none(),
            platform: platform.clone(),
            changes: changes.clone(),
            ready: Arc::clone(&ready),
            retired: Arc::clone(&retired),
            metrics: Arc::clone(metrics),
            meters: meters.clone(),
        };
        let most = config.cache.timeout;
        match &config.server {
            Server::Redis(redis) => keeper.start(Redis::new(redis.clone(), most), told),
            Server::Postgres(postgres) => keeper.start(Postgres::new((**postgres).clone(), most), told),
            Server::Http(http) => keeper.start(Http::new((**http).clone(), &config.cache), told),
            #[cfg(feature = "kubernetes")]
            Server::Kubernetes(secrets) => {
                let secrets = (**secrets).clone();
                let source = Kubernetes::new(secrets, most, (platform, hashing), metrics, meters.clone());
                keeper.start(source, told);
            }
            #[cfg(not(feature = "kubernetes"))]
            Server::Kubernetes(_) => left_out(platform, hashing),
        }
        let (config, platform) = (config.clone(), platform.clone());
        let stale = Seldom::default();
        Arc::new(Self { config, platform, name, cache, desk, ready, retired, meters, stale })
    }

    /// Another has taken its place. What still holds it asks nothing any more, or will not for long.
    pub fn retire(&self) {
        self.retired.notify_one();
    }

    /// Whether this is what another configuration asks for.
    #[must_use]
    pub fn serves(&self, config: &sources::Remote, platform: &Scopes) -> bool {
        self.config == *config && self.platform == *platform
    }

    /// Whether this talks to that server, whatever is kept of its answers.
    #[must_use]
    pub fn talks_to(&self, server: &Server) -> bool {
        self.config.server == *server
    }

    /// Whether the server has ever been reached.
    #[must_use]
    pub fn is_ready(&self) -> bool {
        self.ready.load(Ordering::Relaxed)
    }

    /// As events and metrics name it.
    #[must_use]
    pub fn name(&self) -> &'static str {
        self.name
    }

    fn warn_of_stale(&self, age: Duration) {
        if self.stale.is_time() {
            let age_s = age.as_secs();
            tracing::warn!(
                source = self.name,
                age_s,
                "the source of keys does not answer; what it said before is used"
            );
        }
    }

    /// Says what has changed on the server, which may not say so itself. True once nothing is used any more that was kept
    /// before.
    pub async fn tell(&self, news: News) -> bool {
        let (heard, hearing) = oneshot::channel();
        timeout(self.config.cache.timeout, async {
            self.desk.send(Message::News(news, heard)).await.is_ok() && hearing.await.is_ok()
        })
        .await
        .unwrap_or(false)
    }

    async fn ask(&self, presented: &Presented<'_>, stranger: bool) -> Result<Option<Entry>, SourceError> {
        let (answer, answered) = oneshot::channel();
        let gone = || SourceError::Down { name: self.name, cause: "its thread has ended".to_owned() };
        let ask = self.question(presented, stranger, answer)?;
        self.desk.try_send(Message::Ask(ask)).map_err(|error| match error {
            TrySendError::Full(_) => SourceError::Busy { name: self.name },
            TrySendError::Closed(_) => gone(),
        })?;
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
            Server::Http(_) | Server::Redis(_) | Server::Postgres(_) | Server::Kubernetes(_) => None,
        };
        Ok(Ask { digest: presented.digest, plain, stranger, answer })
    }
}

impl Remote {
    /// Whether it knew the key at some time.
    pub(super) fn knew(&self, digest: &Digest) -> bool {
        self.cache.known(digest).is_some()
    }

    /// What is good without asking, or what is known and too old for that.
    pub(super) fn at_hand(&self, presented: &Presented<'_>) -> Result<Option<Entry>, Option<Arc<Known>>> {
        let digest = &presented.digest;
        let Some(known) = self.cache.known(digest) else {
            return if self.cache.is_unknown(digest) { Ok(None) } else { Err(None) };
        };
        match self.cache.age(&known, Instant::now()) {
            Age::Fresh => {}
            Age::Stale => {
                if known.begins_refresh() {
                    // Nobody waits for it; where there is no room now, the next request tries.
                    let (answer, _) = oneshot::channel();
                    let ask = self.question(presented, false, answer);
                    if !ask.is_ok_and(|ask| self.desk.try_send(Message::Ask(ask)).is_ok()) {
                        known.ends_refresh();
                    }
                }
            }
            Age::Old => return Err(Some(known)),
        }
        Ok(Some(known.entry.clone()))
    }

    /// What the server says, or, where it does not answer, what it said before, if that may be used.
    pub(super) async fn ask_first(
        &self,
        presented: &Presented<'_>,
        stranger: bool,
        known: Option<Arc<Known>>,
    ) -> Result<Option<Entry>, SourceError> {
        match (self.ask(presented, stranger && known.is_none()).await, known) {
            (Err(_), Some(known)) if !presented.strictly && self.cache.outlasts(&known, Instant::now()) => {
                self.meters.stale();
                self.warn_of_stale(known.age(Instant::now()));
                Ok(Some(known.entry.clone()))
            }
            (answer, _) => answer,
        }
    }
}

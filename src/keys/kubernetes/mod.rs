//! Keys in Secrets of Kubernetes, listed and then watched through the API: a mounted Secret lags by a minute.
//!
//! All of them are in memory, so a question is answered from there. What is kept here is where the list came from, and
//! whether more of it is heard.

mod secrets;

use std::cell::{Cell, RefCell};
use std::convert::Infallible;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::StreamExt as _;
use k8s_openapi::api::core::v1::Secret;
use kube::api::{ListParams, WatchEvent, WatchParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use tokio::sync::Mutex;
use tokio::time::timeout;

use super::SourceError;
use super::news::News;
use super::presented::Presented;
use super::remote::Source;
use super::row::Row;
use super::table::Table;
use crate::config::sources;
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;
use crate::observe::metrics::Metrics;
use crate::observe::seldom::Seldom;
use crate::observe::source::SourceMeters;
use secrets::{Secrets, name};

const NAME: &str = "kubernetes";
/// A watch is asked for anew this often, so that one whose other end is gone without a word is found out.
const WATCH: Duration = Duration::from_secs(30);
/// A watch that ends sooner has not been one.
const SHORTEST: Duration = Duration::from_secs(1);
/// What is read of a list at a time.
const PAGE: u32 = 500;
/// Changes that have arrived together are put in force together.
const TOGETHER: usize = 256;

/// The Secrets of a namespace.
#[derive(Debug)]
pub(super) struct Kubernetes {
    config: sources::Kubernetes,
    timeout: Duration,
    platform: Scopes,
    meters: SourceMeters,
    /// The listener's.
    secrets: Mutex<Secrets>,
    /// What they say; `None` until they have been listed.
    table: RefCell<Option<Arc<Table>>>,
    /// When the API was heard last.
    heard: Cell<Instant>,
    /// It is not heard now, for this reason.
    lost: RefCell<Option<String>>,
    /// When that may be warned of.
    stale: Seldom,
}

impl Kubernetes {
    pub(super) fn new(
        config: sources::Kubernetes,
        timeout: Duration,
        (platform, hashing): (&Scopes, &Hashing),
        metrics: &Arc<Metrics>,
        meters: SourceMeters,
    ) -> Self {
        let secrets = Mutex::new(Secrets::new(platform, hashing, metrics));
        let (table, heard) = (RefCell::default(), Cell::new(Instant::now()));
        let (platform, lost) = (platform.clone(), RefCell::default());
        let stale = Seldom::default();
        Self { config, timeout, platform, meters, secrets, table, heard, lost, stale }
    }

    /// Lists and then watches, until something breaks.
    async fn follow(&self, hear: &dyn Fn(News)) -> Result<Infallible, String> {
        let mut secrets = self.secrets.lock().await;
        let api = self.api().await?;
        let (listed, mut version) = self.list(&api).await?;
        secrets.only(&listed.iter().map(name).collect());
        if listed.is_empty() {
            let labels = &self.config.labels;
            tracing::warn!(%labels, "no Secret has these labels: nobody has a key by this source");
        }
        for secret in listed {
            secrets.take(secret).await;
        }
        self.put(&secrets).await?;
        self.heard.set(Instant::now());
        self.lost.replace(None);
        hear(News::Listening);
        loop {
            self.watch(&api, &mut version, &mut secrets, hear).await?;
        }
    }

    /// Hears of changes until the watch ends, as it does by itself.
    async fn watch(
        &self,
        api: &Api<Secret>,
        version: &mut String,
        secrets: &mut Secrets,
        hear: &dyn Fn(News),
    ) -> Result<(), String> {
        let began = Instant::now();
        let seconds = u32::try_from(WATCH.as_secs()).unwrap_or_default();
        let asked = WatchParams::default().labels(&self.config.labels).timeout(seconds);
        let events = self.in_time(api.watch(&asked, version)).await?;
        self.heard.set(Instant::now());
        let mut events = pin!(events.ready_chunks(TOGETHER));
        let most = WATCH + self.timeout;
        while let Some(together) = timeout(most, events.next()).await.map_err(|_| "its watch is silent")? {
            self.heard.set(Instant::now());
            let mut moved = false;
            for event in together {
                moved |= match event.map_err(told)? {
                    WatchEvent::Added(secret) | WatchEvent::Modified(secret) => {
                        *version = secret.metadata.resource_version.clone().unwrap_or_default();
                        secrets.take(secret).await
                    }
                    WatchEvent::Deleted(secret) => {
                        *version = secret.metadata.resource_version.clone().unwrap_or_default();
                        secrets.remove(&name(&secret))
                    }
                    WatchEvent::Bookmark(bookmark) => {
                        *version = bookmark.metadata.resource_version;
                        false
                    }
                    // 410 where its history does not reach so far back: everything is listed anew.
                    WatchEvent::Error(status) => {
                        return Err(format!("its watch has ended with {}: {status}", status.code));
                    }
                };
            }
            if moved {
                self.put(secrets).await?;
                hear(News::All);
            }
        }
        if began.elapsed() < SHORTEST {
            Err("its watch ends as soon as it begins".to_owned())
        } else {
            Ok(())
        }
    }

    /// Puts what they say in force.
    async fn put(&self, secrets: &Secrets) -> Result<(), String> {
        let table = secrets.table().await.ok_or("the table of its keys could not be made")?;
        self.table.replace(Some(Arc::new(table)));
        Ok(())
    }

    async fn list(&self, api: &Api<Secret>) -> Result<(Vec<Secret>, String), String> {
        let (mut found, mut asked) =
            (Vec::new(), ListParams::default().labels(&self.config.labels).limit(PAGE));
        loop {
            let page = self.in_time(api.list(&asked)).await?;
            found.extend(page.items);
            match page.metadata.continue_.filter(|more| !more.is_empty()) {
                Some(more) => asked = asked.continue_token(&more),
                None => return Ok((found, page.metadata.resource_version.unwrap_or_default())),
            }
        }
    }

    /// Read anew for each connection: a token, an authority and a kubeconfig may be other ones by now.
    async fn api(&self) -> Result<Api<Secret>, String> {
        let mut config = match &self.config.kubeconfig {
            Some(file) => {
                let read = Kubeconfig::read_from(file).map_err(told)?;
                Config::from_custom_kubeconfig(read, &KubeConfigOptions::default()).await.map_err(told)?
            }
            None => Config::incluster().map_err(told)?,
        };
        config.connect_timeout = Some(self.timeout);
        // Whoever listens tries again, after pauses of its own.
        config.default_retry = false;
        let namespace = self.config.namespace.as_deref().unwrap_or(&config.default_namespace).to_owned();
        let client = Client::try_from(config).map_err(told)?;
        Ok(Api::namespaced(client, &namespace))
    }

    async fn in_time<T>(&self, asked: impl Future<Output = kube::Result<T>>) -> Result<T, String> {
        match timeout(self.timeout, asked).await {
            Ok(answer) => answer.map_err(told),
            Err(_) => Err("it does not answer in time".to_owned()),
        }
    }
}

impl Source for Kubernetes {
    async fn fetch(&self, presented: &Presented<'_>) -> Result<Option<Row>, SourceError> {
        let down = |cause: &str| SourceError::Down { name: NAME, cause: cause.to_owned() };
        let table = self.table.borrow().clone();
        let lost = self.lost.borrow();
        if let Some(cause) = &*lost {
            if table.is_none() || self.heard.get().elapsed() > self.config.stale_for {
                return Err(down(cause));
            }
            self.meters.stale();
            if self.stale.is_time() {
                let age_s = self.heard.get().elapsed().as_secs();
                tracing::warn!(source = NAME, age_s, %cause, "the API of Kubernetes is not heard; the last list is used");
            }
        }
        let table = table.ok_or_else(|| down("its Secrets have not been listed yet"))?;
        Ok(table.get(&presented.digest).map(|entry| Row::of(&entry, &self.platform)))
    }

    async fn listen(&self, hear: &dyn Fn(News)) -> SourceError {
        let Err(cause) = self.follow(hear).await;
        self.lost.replace(Some(cause.clone()));
        SourceError::Down { name: NAME, cause }
    }
}

/// An error and what is behind it, in a line.
fn told(error: impl std::error::Error) -> String {
    let mut text = error.to_string();
    let mut behind = error.source();
    while let Some(error) = behind {
        let more = error.to_string();
        if !text.contains(&more) {
            text += &format!(": {more}");
        }
        behind = error.source();
    }
    text
}

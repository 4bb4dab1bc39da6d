//! Who minted a session, as all replicas know it: in Redis, where keys are looked up there.
//!
//! | what | holds |
//! | --- | --- |
//! | text `PREFIXsession:HEX` | `{"key":HEX,"id":…,"team":…}` for a day: the digest of the session's id, that of the key, whose it is |
//!
//! A channel waits for it no longer than [`PATIENCE`], an answer not at all, and nothing fails because of it: what cannot
//! be told is counted.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::thread;
use std::time::Duration;

use prometheus::IntCounterVec;
use redis::{Cmd, FromRedisValue};
use serde::{Deserialize, Serialize};
use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep, timeout};

use super::{LONGEST, Owner};
use crate::config::sources;
use crate::identity::caller::{Caller, Team};
use crate::identity::key::Digest;
use crate::identity::scope::ScopeSet;
use crate::keys::SourceError;
use crate::keys::redis::{Redis, invalid};
use crate::keys::row::is_word;
use crate::observe::metrics::Metrics;
use crate::observe::seldom::Seldom;

/// So long a channel waits to be told whose it is: a person does not notice, and a server that is near takes a hundredth.
const PATIENCE: Duration = Duration::from_millis(250);
/// A session that is not there is looked for once more after this: the replica that passed its answer may be about to note it.
const AGAIN: Duration = Duration::from_millis(50);
/// Channels that wait, and notes that do: as many as requests may be under way. Beyond it, it is not told whose they are.
const WAITING: usize = 4_096;
/// Commands at once: whoever makes up sessions does not get all of the server.
const AT_ONCE: usize = 64;
/// A server that has failed so often in a row is not asked by channels for so long; one that is late in a bad moment is.
const FAILURES: u32 = 8;
const REST: Duration = Duration::from_secs(1);
/// A note that could not be kept is tried again after each of these: a server that fails over is back by then.
const PAUSES: [Duration; 4] =
    [Duration::from_millis(250), Duration::from_secs(1), Duration::from_secs(4), Duration::from_secs(16)];

/// Where replicas tell each other who minted which session.
#[derive(Debug)]
pub struct Ledger {
    config: sources::Redis,
    timeout: Duration,
    desk: mpsc::Sender<Message>,
    counter: IntCounterVec,
}

#[derive(Debug)]
enum Message {
    Keep(Digest, Owner),
    Find(Digest, oneshot::Sender<Option<Owner>>),
}

/// What Redis holds of a session.
#[derive(Debug, Serialize, Deserialize)]
struct Note {
    key: String,
    id: Box<str>,
    team: Box<str>,
}

/// The thread's own.
struct Desk {
    redis: Redis,
    prefix: Box<str>,
    counter: IntCounterVec,
    finds: Arc<Semaphore>,
    keeps: Arc<Semaphore>,
    turns: Semaphore,
    /// In a row.
    failures: Cell<u32>,
    rests_until: Cell<Option<Instant>>,
    failed: Seldom,
}

impl Ledger {
    /// Starts the thread that talks to the server; it ends when nobody can ask any more.
    #[must_use]
    pub fn start(config: &sources::Redis, timeout: Duration, metrics: &Metrics) -> Arc<Self> {
        let counter = metrics.session_ledger.clone();
        let (desk, told) = mpsc::channel(WAITING);
        let (theirs, counted) = (config.clone(), counter.clone());
        let spawned = thread::Builder::new().name("sessions".to_owned()).spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .expect("a runtime of the system's");
            let desk = Desk {
                prefix: theirs.prefix.clone(),
                redis: Redis::new(theirs, timeout),
                counter: counted,
                finds: Arc::new(Semaphore::new(WAITING)),
                keeps: Arc::new(Semaphore::new(WAITING)),
                turns: Semaphore::new(AT_ONCE),
                failures: Cell::default(),
                rests_until: Cell::default(),
                failed: Seldom::default(),
            };
            runtime.block_on(Rc::new(desk).run(told));
        });
        if let Err(error) = spawned {
            tracing::error!(%error, "no thread could be started for the sessions");
        }
        Arc::new(Self { config: config.clone(), timeout, desk, counter })
    }

    /// Whether this is what another configuration asks for.
    #[must_use]
    pub fn serves(&self, config: &sources::Redis, timeout: Duration) -> bool {
        self.config == *config && self.timeout == timeout
    }

    /// Notes who minted a session; nobody waits for it.
    pub(super) fn keep(&self, session: Digest, owner: Owner) {
        if self.desk.try_send(Message::Keep(session, owner)).is_err() {
            self.counter.with_label_values(&["keep", "busy"]).inc();
        }
    }

    /// Who minted a session, where that can be told in time.
    pub async fn owner(&self, session: Digest) -> Option<Owner> {
        let (answer, answered) = oneshot::channel();
        if self.desk.try_send(Message::Find(session, answer)).is_err() {
            self.counter.with_label_values(&["find", "busy"]).inc();
            return None;
        }
        timeout(PATIENCE, answered).await.ok()?.ok()?
    }
}

impl Desk {
    async fn run(self: Rc<Self>, mut told: mpsc::Receiver<Message>) {
        while let Some(message) = told.recv().await {
            let this = Rc::clone(&self);
            match message {
                Message::Keep(session, owner) => match Arc::clone(&self.keeps).try_acquire_owned() {
                    Ok(place) => drop(spawn_local(async move {
                        this.keep(&session, &owner).await;
                        drop(place);
                    })),
                    Err(_) => self.count("keep", "busy"),
                },
                Message::Find(session, answer) => match Arc::clone(&self.finds).try_acquire_owned() {
                    Ok(place) => drop(spawn_local(async move {
                        // Who has left is not told.
                        let _ = answer.send(this.find(&session).await);
                        drop(place);
                    })),
                    Err(_) => self.count("find", "busy"),
                },
            }
        }
    }

    fn count(&self, action: &str, result: &str) {
        self.counter.with_label_values(&[action, result]).inc();
    }

    fn name(&self, session: &Digest) -> String {
        format!("{}session:{}", self.prefix, session.hex())
    }

    /// Its time is its own: that who asks has left says nothing of the server.
    async fn find(&self, session: &Digest) -> Option<Owner> {
        if self.rests_until.get().is_some_and(|end| Instant::now() < end) {
            self.count("find", "failed");
            return None;
        }
        let asking = timeout(PATIENCE, async {
            if let Some(owner) = self.read(session).await? {
                return Ok(Some(owner));
            }
            sleep(AGAIN).await;
            self.read(session).await
        });
        let error = match asking.await {
            Ok(Ok(owner)) => {
                self.failures.set(0);
                self.count("find", if owner.is_some() { "known" } else { "unknown" });
                return owner;
            }
            Ok(Err(error)) => error,
            Err(_) => SourceError::Late { name: "redis" },
        };
        self.count("find", "failed");
        self.warn(&error);
        // What stands there of one session says nothing of the server.
        if !matches!(error, SourceError::Invalid { .. }) {
            self.failures.set(self.failures.get() + 1);
        }
        if self.failures.get() >= FAILURES {
            // One more is enough when it has rested.
            self.failures.set(FAILURES - 1);
            self.rests_until.set(Some(Instant::now() + REST));
        }
        None
    }

    fn warn(&self, error: &SourceError) {
        if self.failed.is_time() {
            tracing::warn!(%error, "who minted which session is not shared with other replicas; scopegate_session_ledger_total counts that");
        }
    }

    async fn read(&self, session: &Digest) -> Result<Option<Owner>, SourceError> {
        let text: Option<String> = self.ask(redis::cmd("GET").arg(self.name(session))).await?;
        text.map(|text| owner(&text)).transpose()
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SourceError> {
        let _turn = self.turns.acquire().await;
        self.redis.ask_again(command).await
    }

    async fn keep(&self, session: &Digest, owner: &Owner) {
        let mut pauses = PAUSES.into_iter();
        loop {
            let error = match self.write(session, owner).await {
                Ok(true) => return self.count("keep", "kept"),
                Ok(false) => return self.count("keep", "taken"),
                Err(error) => error,
            };
            self.warn(&error);
            let Some(pause) = pauses.next() else { return self.count("keep", "failed") };
            sleep(pause).await;
        }
    }

    /// False where another team has it.
    async fn write(&self, session: &Digest, owner: &Owner) -> Result<bool, SourceError> {
        let caller = &owner.caller;
        let note = Note { key: owner.digest.hex(), id: caller.key_id().into(), team: caller.team().into() };
        let note = serde_json::to_string(&note).expect("words are JSON");
        let name = self.name(session);
        let mut set = redis::cmd("SET");
        set.arg(&name).arg(&note).arg("EX").arg(LONGEST.as_secs());
        let kept: Option<String> = self.ask(set.clone().arg("NX")).await?;
        if kept.is_some() {
            return Ok(true);
        }
        let there = self.read(session).await?;
        if there.is_some_and(|there| there.caller.team() != caller.team()) {
            return Ok(false);
        }
        self.ask::<Option<String>>(&set).await?;
        Ok(true)
    }
}

/// What a note says; its scopes are looked up with the key, where they matter.
fn owner(text: &str) -> Result<Owner, SourceError> {
    let bad = || invalid("what is noted of a session cannot be read");
    let Note { key, id, team } = serde_json::from_str(text).map_err(|_| bad())?;
    if !is_word(&id) || !is_word(&team) {
        return Err(bad());
    }
    let digest = Digest::from_hex(&key).map_err(|_| bad())?;
    let team = Team { name: team, scopes: ScopeSet::default() };
    Ok(Owner { digest, caller: Caller::new(&id, ScopeSet::default(), team) })
}

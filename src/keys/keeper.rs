//! The one thread that talks to a server, asks each question once at a time, and hears what changes there.
//!
//! Answers and news meet here alone, so their order is known: an answer to a question that was asked before the news is
//! not kept and not given, but asked for again.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use tokio::runtime::{Builder, LocalOptions};
use tokio::sync::{Notify, Semaphore, mpsc, oneshot};
use tokio::task::spawn_local;
use tokio::time::{sleep, timeout};

use super::cache::Cache;
use super::change::{Change, Changes, Which};
use super::last_good::Writer;
use super::news::News;
use super::presented::{Plain, Presented};
use super::remote::Source;
use super::row::Row;
use super::strangers::Strangers;
use super::undefined::Undefined;
use super::{Entry, SourceError};
use crate::config::sources::{self, LastGood};
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;
use crate::observe::metrics::Metrics;
use crate::observe::seldom::Seldom;
use crate::observe::source::SourceMeters;

/// How often a question is asked again because the answer was overtaken by news.
const OVERTAKEN: usize = 4;
/// Requests that wait for keys which are not kept: half of those that may be under way by default, and for one key a quarter
/// of that. Beyond it they are refused, so that a slow server and made-up keys never keep out who is known.
const WAITING: usize = 2_048;
const WAITING_FOR_ONE: usize = 512;
/// Between two attempts to reach a server, at first and at most; each waits for some part of it, so that replicas do not
/// come all at once.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// What the thread is told.
#[derive(Debug)]
pub(super) enum Message {
    /// A worker asks.
    Ask(Ask),
    /// Somebody else than the server knows of a change, and wants to know when it has been heard.
    News(News, oneshot::Sender<()>),
}

/// A worker's question.
#[derive(Debug)]
pub(super) struct Ask {
    /// About this key.
    pub(super) digest: Digest,
    /// Itself, where the source is asked with it.
    pub(super) plain: Option<Plain>,
    /// It is not kept: those that turn out to be unknown are limited, since anybody can make them up.
    pub(super) stranger: bool,
    /// Where the answer goes.
    pub(super) answer: oneshot::Sender<Result<Option<Entry>, SourceError>>,
}

/// What the thread needs.
#[derive(Debug)]
pub(super) struct Keeper {
    pub(super) name: &'static str,
    pub(super) bounds: sources::Cache,
    pub(super) last_good: Option<LastGood>,
    pub(super) cache: Arc<Cache>,
    /// What is in that stands in the file of `last_good`.
    pub(super) written: bool,
    pub(super) platform: Scopes,
    pub(super) changes: Changes,
    pub(super) ready: Arc<AtomicBool>,
    /// Another has taken its place.
    pub(super) retired: Arc<Notify>,
    pub(super) metrics: Arc<Metrics>,
    pub(super) meters: SourceMeters,
}

/// A question that is under way, and who waits for its answer.
#[derive(Debug, Default)]
struct Flight {
    waiting: Vec<oneshot::Sender<Result<Option<Entry>, SourceError>>>,
    stranger: bool,
    /// News of this key, or of any.
    overtaken: bool,
    /// News of these teams: whose the key is will be known with the answer.
    teams: Vec<Box<str>>,
}

/// The thread's own.
struct Desk<S> {
    keeper: Keeper,
    source: S,
    flights: RefCell<HashMap<Digest, Flight>>,
    turns: Semaphore,
    writer: Writer,
    /// When that may be warned of.
    garbage: Seldom,
    undefined: Undefined,
    strangers: Strangers,
    /// Requests that wait for strange keys.
    waiting: Cell<usize>,
}

/// A question that ends however it may: who waits for one that has broken off is told so, and it can be asked again.
struct Landing<'d, S: Source> {
    desk: &'d Desk<S>,
    digest: Digest,
}

impl<S: Source> Drop for Landing<'_, S> {
    fn drop(&mut self) {
        if self.desk.land(&self.digest).is_some() {
            if let Some(known) = self.desk.keeper.cache.known(&self.digest) {
                known.ends_refresh();
            }
            // Else the source is given up, as by a reload.
            if thread::panicking() {
                tracing::error!(source = self.desk.keeper.name, "a question about a key has broken off");
            }
        }
    }
}

impl Keeper {
    /// Starts the thread; it ends when nobody can ask any more.
    pub(super) fn start<S: Source + Send>(self, source: S, told: mpsc::Receiver<Message>) {
        let name = format!("keys-{}", self.name);
        let spawned = thread::Builder::new().name(name).spawn(move || {
            let runtime = Builder::new_current_thread()
                .enable_all()
                .build_local(LocalOptions::default())
                .expect("a runtime of the system's");
            let turns = Semaphore::new(self.bounds.at_once);
            let strangers = Strangers::new(self.bounds.rate, Instant::now());
            let (flights, garbage) = Default::default();
            let (writer, waiting) = (Writer::new(self.written), Cell::new(0));
            let undefined = Undefined::default();
            let desk =
                Desk { keeper: self, source, flights, turns, writer, garbage, undefined, strangers, waiting };
            let desk = Rc::new(desk);
            runtime.block_on(desk.run(told));
        });
        if let Err(error) = spawned {
            // Every question will be answered with 503, since nobody takes it.
            tracing::error!(%error, "no thread could be started for the keys");
        }
    }
}

impl<S: Source> Desk<S> {
    async fn run(self: Rc<Self>, mut told: mpsc::Receiver<Message>) {
        let listening = spawn_local(Rc::clone(&self).listen());
        let writing = spawn_local(Rc::clone(&self).write());
        tokio::select! {
            () = self.serve(&mut told) => {}
            () = self.keeper.retired.notified() => {}
        }
        listening.abort();
        writing.abort();
        // Who had come before another took this one's place waits for a turn, and then for an answer.
        let _ = timeout(self.keeper.bounds.timeout * 2, self.serve(&mut told)).await;
    }

    /// Takes what it is told, until nobody can tell it anything.
    async fn serve(self: &Rc<Self>, told: &mut mpsc::Receiver<Message>) {
        while let Some(message) = told.recv().await {
            match message {
                Message::Ask(ask) => self.take(ask),
                Message::News(news, heard) => {
                    self.hear(&news);
                    let _ = heard.send(());
                }
            }
        }
    }

    fn take(self: &Rc<Self>, Ask { digest, plain, stranger, answer }: Ask) {
        let mut flights = self.flights.borrow_mut();
        let flight = flights.get_mut(&digest);
        if flight.as_ref().map_or(stranger, |flight| flight.stranger) {
            let for_it = flight.as_ref().map_or(0, |flight| flight.waiting.len());
            // Who is known elsewhere, or is inside, waits whoever else does.
            if stranger && (self.waiting.get() >= WAITING || for_it >= WAITING_FOR_ONE) {
                self.keeper.meters.lookup("refused", None);
                let _ = answer.send(Err(SourceError::Busy { name: self.keeper.name }));
                return;
            }
            self.waiting.set(self.waiting.get() + 1);
        }
        if let Some(flight) = flight {
            flight.waiting.push(answer);
        } else {
            flights.insert(digest, Flight { waiting: vec![answer], stranger, ..Flight::default() });
            spawn_local(Rc::clone(self).answer(digest, plain));
        }
    }

    /// Writes what is kept for the next start, for as long as the process lives.
    async fn write(self: Rc<Self>) {
        if let Some(last_good) = &self.keeper.last_good {
            self.writer.run(last_good, &self.keeper.cache, &self.keeper.platform).await;
        }
    }

    /// Asks one question, and answers everybody who waits for it.
    async fn answer(self: Rc<Self>, digest: Digest, plain: Option<Plain>) {
        // News of it have been told of already.
        let before = self.keeper.cache.known(&digest).filter(|known| !self.keeper.cache.is_overtaken(known));
        let _landing = Landing { desk: &self, digest };
        let stranger = self.flights.borrow().get(&digest).is_some_and(|flight| flight.stranger);
        let fetched = if !stranger || self.strangers.enter(self.keeper.bounds.timeout).await {
            // The wait for a turn counts.
            let asked = Presented { key: plain.as_ref().map(Plain::bytes), ..Presented::before(digest) };
            let asking = async {
                let _turn = self.turns.acquire().await;
                self.fetch(&asked).await
            };
            let late = Err(SourceError::Late { name: self.keeper.name });
            timeout(self.keeper.bounds.timeout, asking).await.unwrap_or(late)
        } else {
            self.keeper.meters.lookup("refused", None);
            Err(SourceError::Busy { name: self.keeper.name })
        };
        // Without a wait from here on: what was fetched is of after all news that have been heard.
        let flight = self.land(&digest).unwrap_or_default();
        if flight.stranger && matches!(fetched, Ok((Some(_), _))) {
            self.strangers.was_known();
        }
        let answer = match fetched {
            Ok((row, at)) => {
                self.writer.learnt();
                self.undefined.look(row.as_ref(), &self.keeper);
                let cache = &self.keeper.cache;
                let entry = cache.keep(digest, row.as_ref(), &self.keeper.platform, at);
                // Who is inside on it need not wait to be looked at.
                if before.is_some_and(|before| entry.as_ref() != Some(&before.entry)) {
                    self.writer.overtaken();
                    self.tell(Which::One(digest));
                }
                Ok(entry)
            }
            Err(error) => {
                if let Some(known) = before {
                    known.ends_refresh();
                }
                Err(error)
            }
        };
        for waiting in flight.waiting {
            // Who has left is not told.
            let _ = waiting.send(answer.clone());
        }
    }

    /// Nobody waits for this question any more.
    fn land(&self, digest: &Digest) -> Option<Flight> {
        let flight = self.flights.borrow_mut().remove(digest)?;
        if flight.stranger {
            self.waiting.set(self.waiting.get().saturating_sub(flight.waiting.len()));
        }
        Some(flight)
    }

    /// An answer that no news has overtaken, and when it was asked for.
    async fn fetch(&self, asked: &Presented<'_>) -> Result<(Option<Row>, Instant), SourceError> {
        let digest = &asked.digest;
        let (name, most) = (self.keeper.name, self.keeper.bounds.timeout);
        for _ in 0..OVERTAKEN {
            if let Some(flight) = self.flights.borrow_mut().get_mut(digest) {
                flight.overtaken = false;
                flight.teams.clear();
            }
            let at = Instant::now();
            let fetched = timeout(most, self.source.fetch(asked)).await;
            let row = fetched.unwrap_or(Err(SourceError::Late { name }));
            self.keeper.meters.lookup(
                match &row {
                    Ok(Some(_)) => "known",
                    Ok(None) => "unknown",
                    Err(_) => "failed",
                },
                Some(at.elapsed()),
            );
            let row = row?;
            if !self.is_overtaken(digest, row.as_ref()) {
                return Ok((row, at));
            }
        }
        Err(SourceError::Unsettled { name })
    }

    fn is_overtaken(&self, digest: &Digest, row: Option<&Row>) -> bool {
        // One that is not known may be of a team that has just come.
        let of_its_team = |teams: &[Box<str>]| row.map_or(!teams.is_empty(), |row| teams.contains(&row.team));
        let flights = self.flights.borrow();
        flights.get(digest).is_some_and(|flight| flight.overtaken || of_its_team(&flight.teams))
    }

    /// Hears of changes for as long as the process lives, over one connection after the other.
    async fn listen(self: Rc<Self>) {
        let mut pause = FIRST_PAUSE;
        loop {
            let began = Instant::now();
            let error = self.source.listen(&|news| self.hear(&news)).await;
            self.keeper.meters.up.set(0);
            if began.elapsed() > LONGEST_PAUSE {
                pause = FIRST_PAUSE;
            }
            tracing::warn!(source = self.keeper.name, %error, "the source of keys is not heard; trying again");
            sleep(pause.mul_f64(0.5 + fastrand::f64() / 2.0)).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// What is kept is overtaken first, then who is asking is told to ask again, then the workers look at who is inside.
    fn hear(&self, news: &News) {
        let Keeper { cache, meters, .. } = &self.keeper;
        match news {
            News::Listening | News::Silent => cache.reach(),
            News::Key(_) | News::Team(_) | News::All | News::Garbage => self.writer.overtaken(),
        }
        if *news != News::Silent {
            meters.news(news.kind());
        }
        let mut flights = self.flights.borrow_mut();
        let which = match news {
            News::Listening => {
                cache.doubt_all();
                flights.values_mut().for_each(|flight| flight.overtaken = true);
                self.listening();
                Which::Any
            }
            News::Silent => {
                self.listening();
                Which::Due
            }
            News::Key(digest) => {
                cache.overtake(digest);
                if let Some(flight) = flights.get_mut(digest) {
                    flight.overtaken = true;
                }
                Which::One(*digest)
            }
            News::Team(team) => {
                cache.overtake_team(team);
                flights.values_mut().for_each(|flight| flight.teams.push(team.clone()));
                Which::Team((&**team).into())
            }
            News::All | News::Garbage => {
                cache.overtake_all();
                flights.values_mut().for_each(|flight| flight.overtaken = true);
                Which::Any
            }
        };
        if *news == News::Garbage && self.garbage.is_time() {
            tracing::warn!(
                source = self.keeper.name,
                "news that cannot be read: all keys are looked up again"
            );
        }
        self.tell(which);
    }

    fn tell(&self, which: Which) {
        self.keeper.changes.tell(Change { which, ending: self.keeper.metrics.ending() });
    }

    fn listening(&self) {
        let first = !self.keeper.ready.swap(true, Ordering::Relaxed);
        if first || self.keeper.meters.up.get() != 1 {
            self.keeper.meters.up.set(1);
            tracing::info!(source = self.keeper.name, first, "the source of keys is heard");
        }
    }
}

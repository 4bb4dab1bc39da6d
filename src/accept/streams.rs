//! The streams of a connection of HTTP/2: each is a task of its own, so that one can be ended without the others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use http_body::Body as _;
use hyper::body::Incoming;
use hyper::rt::Executor;
use tokio::task::{AbortHandle, Id, spawn_local};
use tokio::time::timeout;

use super::Taken;
use super::http2::LINGER;
use super::peer::Peer;
use super::upload::Upload;
use super::watched::{Pace, Watched};

/// The streams of a connection, by the tasks that serve them.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    peer: Rc<Peer>,
    open: Rc<RefCell<HashMap<Id, Stream>>>,
    /// Those whose tasks have ended, and of which something is still on its way.
    left: Rc<RefCell<Vec<Rc<Pace>>>>,
    /// Of streams that are about to switch, by their tasks.
    switching: Rc<RefCell<HashMap<Id, Rc<Sender>>>>,
}

/// A stream.
#[derive(Debug)]
struct Stream {
    task: AbortHandle,
    pace: Rc<Pace>,
}

impl Streams {
    pub(super) fn new(peer: Rc<Peer>) -> Self {
        Self { peer, open: Rc::default(), left: Rc::default(), switching: Rc::default() }
    }

    /// None is open, and nothing is on its way on any.
    pub(super) fn is_empty(&self) -> bool {
        let mut left = self.left.borrow_mut();
        left.retain(|pace| pace.is_open());
        left.is_empty() && self.open.borrow().is_empty()
    }

    /// The body of the request on the stream of this task, if it has one.
    pub(super) fn upload(&self, body: Incoming) -> Option<Rc<Upload>> {
        (!body.is_end_stream()).then(|| Upload::new(body, &self.pace()))
    }

    /// Of the stream of this task, or of what goes on beside one.
    fn pace(&self) -> Rc<Pace> {
        let open = self.open.borrow();
        let stream = tokio::task::try_id().and_then(|id| open.get(&id));
        let beside = || Rc::new(Pace::new(Rc::clone(&self.peer), false));
        stream.map_or_else(beside, |stream| Rc::clone(&stream.pace))
    }

    /// Reads for no use what is left of a body, beside its stream.
    pub(super) fn read_off(&self, rest: impl Future<Output = ()> + 'static) {
        self.enter(false, rest);
    }

    /// The body of an answer on the stream of this task.
    pub(super) fn watched<B: Taken>(&self, mut body: B, patience: Duration) -> Watched<B> {
        let id = tokio::task::try_id();
        let open = self.open.borrow();
        let pace = id.and_then(|id| open.get(&id)).map(|Stream { task, pace }| {
            body.cut_with(task.clone());
            Rc::clone(pace)
        });
        let patience = body.patience().unwrap_or(patience);
        let pace = pace.unwrap_or_else(|| Rc::new(Pace::new(Rc::clone(&self.peer), false)));
        Watched::new(body, pace, patience)
    }

    /// Ends those of which the client takes nothing for too long, and waits for the next; false where one has been answered
    /// whole, and ends with the connection alone.
    #[must_use]
    pub(super) fn end_stuck(&self) -> bool {
        let now = self.peer.clock().now();
        let mut next = None;
        let mut wait = |end| next = Some(next.map_or(end, |next: Instant| next.min(end)));
        for Stream { task, pace } in self.open.borrow().values() {
            let Some(end) = pace.until() else { continue };
            if end <= now {
                pace.end();
                task.abort();
                // What is left of it by then was on its way out: the client does not read its socket either.
                wait(now + LINGER);
            } else {
                wait(end);
            }
        }
        for end in self.left.borrow().iter().filter_map(|pace| pace.until()) {
            if end <= now {
                return false;
            }
            wait(end);
        }
        match next {
            Some(next) => self.peer.wait(next.duration_since(now)),
            None => self.peer.rest(),
        }
        true
    }
}

/// Tasks of a connection stay on its worker.
impl<F: Future<Output: 'static> + 'static> Executor<F> for Streams {
    fn execute(&self, task: F) {
        // What hyper spawns from within a stream that switches is what sends on it from now on.
        match tokio::task::try_id().and_then(|id| self.switched(id)) {
            None => drop(self.spawn(task)),
            Some(sender) => {
                let ends = Ends(Rc::clone(&sender));
                let task = self.enter(false, async move {
                    let _ends = ends;
                    task.await
                });
                sender.task.replace(Some(task));
            }
        }
    }
}

impl Streams {
    /// Serves a stream of the connection, which is not idle for as long.
    pub(super) fn spawn<F: Future<Output: 'static> + 'static>(&self, task: F) -> AbortHandle {
        self.enter(true, task)
    }

    /// The same, or what goes on beside a stream.
    fn enter<F: Future<Output: 'static> + 'static>(&self, is_stream: bool, task: F) -> AbortHandle {
        let entered = Entered(self.clone());
        let spawned = spawn_local(async move {
            let _entered = entered;
            task.await
        });
        let task = spawned.abort_handle();
        let pace = Rc::new(Pace::new(Rc::clone(&self.peer), is_stream));
        self.open.borrow_mut().insert(spawned.id(), Stream { task: task.clone(), pace });
        task
    }

    /// What is to send on the stream of this task, where that is about to switch. Most connections have none.
    fn switched(&self, task: Id) -> Option<Rc<Sender>> {
        let mut switching = self.switching.borrow_mut();
        if switching.is_empty() { None } else { switching.remove(&task) }
    }

    /// The stream of this task is about to be answered with a switch: what will send on it.
    pub(super) fn switches(&self) -> Rc<Sender> {
        let sender = Rc::<Sender>::default();
        if let Some(id) = tokio::task::try_id() {
            self.switching.borrow_mut().insert(id, Rc::clone(&sender));
        }
        sender
    }
}

/// A stream's task, for as long as it lives.
struct Entered(Streams);

impl Drop for Entered {
    fn drop(&mut self) {
        let Streams { open, left, peer, .. } = &self.0;
        if let Some(id) = tokio::task::try_id() {
            let stream = open.borrow_mut().remove(&id);
            left.borrow_mut().extend(stream.map(|Stream { pace, .. }| pace).filter(|pace| pace.is_open()));
            self.0.switched(id);
        }
        // The last stream has ended: the connection may be waited for again.
        peer.wake();
    }
}

/// What sends the bytes of a stream that has switched: it ends when all of them have been taken, or the stream is reset.
#[derive(Debug, Default)]
pub(super) struct Sender {
    task: RefCell<Option<AbortHandle>>,
    ended: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Notes the end of what sends.
struct Ends(Rc<Sender>);

impl Drop for Ends {
    fn drop(&mut self) {
        self.0.ended.set(true);
        if let Some(waker) = self.0.waker.take() {
            waker.wake();
        }
    }
}

impl Sender {
    /// Aborting it resets the stream.
    pub(super) fn task(&self) -> Option<AbortHandle> {
        self.task.borrow().clone()
    }

    /// Ready when nothing is sent any more.
    pub(super) fn poll_ended(&self, cx: &Context<'_>) -> Poll<()> {
        if self.ended.get() {
            return Poll::Ready(());
        }
        self.waker.replace(Some(cx.waker().clone()));
        Poll::Pending
    }

    /// What is left may still be taken, for so long; then the stream is reset.
    pub(super) async fn finish(&self, limit: Duration) {
        if timeout(limit, poll_fn(|cx| self.poll_ended(cx))).await.is_err()
            && let Some(task) = self.task()
        {
            task.abort();
        }
    }
}

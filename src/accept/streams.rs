//! The streams of a connection of HTTP/2: each is a task of its own, so that one can be ended without the others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::future::poll_fn;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::task::{AbortHandle, Id, spawn_local};
use tokio::time::timeout;

use super::Taken;
use super::peer::Peer;

/// The streams of a connection, by the tasks that serve them.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    peer: Rc<Peer>,
    open: Rc<RefCell<HashMap<Id, Stream>>>,
    /// Of streams that are about to switch, by their tasks.
    switching: Rc<RefCell<HashMap<Id, Rc<Sender>>>>,
}

/// A stream.
#[derive(Debug)]
struct Stream {
    task: AbortHandle,
    pace: Rc<Pace>,
}

/// How fast the client takes the answer of a stream.
#[derive(Debug, Default)]
struct Pace {
    /// Until when a piece must have been taken, where there is one.
    until: Cell<Option<Instant>>,
    /// Too slow.
    ended: Cell<bool>,
}

impl Streams {
    pub(super) fn new(peer: Rc<Peer>) -> Self {
        Self { peer, open: Rc::default(), switching: Rc::default() }
    }

    /// None is open.
    pub(super) fn is_empty(&self) -> bool {
        self.open.borrow().is_empty()
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
        Watched { body, peer: Rc::clone(&self.peer), pace: pace.unwrap_or_default(), patience }
    }

    /// Ends those of which the client takes nothing for too long, and waits for the next.
    pub(super) fn end_stuck(&self) {
        let now = self.peer.clock().now();
        let mut next = None;
        for Stream { task, pace } in self.open.borrow().values() {
            let Some(end) = pace.until.get() else { continue };
            if end <= now {
                pace.ended.set(true);
                task.abort();
            } else if next.is_none_or(|next| end < next) {
                next = Some(end);
            }
        }
        match next {
            Some(next) => self.peer.wait(next.duration_since(now)),
            None => self.peer.rest(),
        }
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
                let task = self.spawn(async move {
                    let _ends = ends;
                    task.await
                });
                sender.task.replace(Some(task));
            }
        }
    }
}

impl Streams {
    /// Serves a part of the connection, which is not idle for as long.
    pub(super) fn spawn<F: Future<Output: 'static> + 'static>(&self, task: F) -> AbortHandle {
        let entered = Entered(self.clone());
        let spawned = spawn_local(async move {
            let _entered = entered;
            task.await
        });
        let task = spawned.abort_handle();
        self.open.borrow_mut().insert(spawned.id(), Stream { task: task.clone(), pace: Rc::default() });
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
        let Streams { open, peer, .. } = &self.0;
        if let Some(id) = tokio::task::try_id() {
            open.borrow_mut().remove(&id);
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

/// The body of an answer, which notes when the client has something to take.
#[derive(Debug)]
pub(super) struct Watched<B: Taken> {
    body: B,
    peer: Rc<Peer>,
    pace: Rc<Pace>,
    patience: Duration,
}

impl<B: Taken> Drop for Watched<B> {
    fn drop(&mut self) {
        if self.pace.ended.get() {
            self.body.too_slow();
        }
    }
}

impl<B: Taken> Body for Watched<B> {
    type Data = Bytes;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, B::Error>>> {
        let this = self.get_mut();
        let polled = Pin::new(&mut this.body).poll_frame(cx);
        // A piece that was handed on has been taken when the next is asked for.
        this.pace.until.set(polled.is_ready().then(|| this.peer.clock().now() + this.patience));
        if polled.is_ready() {
            this.peer.wait_no_longer(this.patience);
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

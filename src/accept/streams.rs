//! The streams of a connection of HTTP/2: each is a task of its own, so that one can be ended without the others.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http_body::{Body, Frame, SizeHint};
use hyper::rt::Executor;
use tokio::task::{AbortHandle, Id, spawn_local};

use super::Taken;
use super::peer::Peer;

/// The streams of a connection, by the tasks that serve them.
#[derive(Debug, Clone)]
pub(super) struct Streams {
    peer: Rc<Peer>,
    open: Rc<RefCell<HashMap<Id, Stream>>>,
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
        Self { peer, open: Rc::default() }
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
        let open = Rc::clone(&self.open);
        let peer = Rc::clone(&self.peer);
        let spawned = spawn_local(async move {
            let _entered = Entered { open, peer };
            task.await
        });
        let stream = Stream { task: spawned.abort_handle(), pace: Rc::default() };
        self.open.borrow_mut().insert(spawned.id(), stream);
    }
}

/// A stream's task, for as long as it lives.
struct Entered {
    open: Rc<RefCell<HashMap<Id, Stream>>>,
    peer: Rc<Peer>,
}

impl Drop for Entered {
    fn drop(&mut self) {
        if let Some(id) = tokio::task::try_id() {
            self.open.borrow_mut().remove(&id);
        }
        // The last stream has ended: the connection may be waited for again.
        self.peer.wake();
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

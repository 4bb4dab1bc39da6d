//! One request on a connection of HTTP/2: its place there, and who is being waited for on it.

use std::cell::RefCell;
use std::rc::Rc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use super::connection::Connection;
use crate::accept::clock::Clock;
use crate::forward::client::Target;
use crate::forward::fault::Fault;
use crate::forward::watch::Watch;

/// A connection over which nothing has come for so long while an answer was waited for may be dead. Less is no sign: a
/// client may leave at once.
const SILENCE: Duration = Duration::from_secs(1);

/// One request on a connection of HTTP/2. Its place is free again when this is dropped.
#[derive(Debug)]
pub struct Stream {
    /// Who is being waited for on it.
    pub watch: Watch,
    /// Where it is.
    pub connection: Rc<Connection>,
    /// It is not the connection's first.
    used: bool,
    clock: Rc<Clock>,
    began: Instant,
    /// Bytes that had come over the connection before it.
    heard: u64,
    /// How long the connection is kept when it is free.
    life: Duration,
    waker: RefCell<Option<Waker>>,
}

impl Stream {
    /// Takes a place on a connection, for a request to this target.
    pub(super) fn begin(connection: Rc<Connection>, target: &Target<'_>, clock: &Rc<Clock>) -> Rc<Self> {
        let used = connection.enter();
        let watch = Watch::new(Rc::clone(clock));
        watch.begin(target.timeouts, target.until);
        Rc::new(Self {
            watch,
            used,
            heard: connection.heard(),
            connection,
            clock: Rc::clone(clock),
            began: clock.now(),
            life: target.timeouts.pool,
            waker: RefCell::new(None),
        })
    }

    /// The wait that was too long, if one was; if none was, this task is woken when one is.
    pub(super) fn fault(&self, cx: &Context<'_>) -> Option<Fault> {
        let fault = self.watch.fault();
        let mut waker = self.waker.borrow_mut();
        if fault.is_none() && !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        fault
    }

    /// Its connection had been used before, and may have grown old.
    pub(super) fn was_used(&self) -> bool {
        self.used
    }

    /// False once there is nothing to look at any more.
    pub(super) fn look(&self, now: Instant) -> bool {
        let over = self.watch.is_over(now);
        if over && let Some(waker) = self.waker.take() {
            waker.wake();
        }
        !over
    }
}

/// A request that the upstream gives no room to go on in, for as long as that lasts.
#[derive(Debug)]
pub(super) struct Starving(Rc<Stream>);

impl Starving {
    pub(super) fn new(stream: &Rc<Stream>) -> Self {
        stream.connection.starve(stream.clock.now());
        Self(Rc::clone(stream))
    }
}

impl Drop for Starving {
    fn drop(&mut self) {
        self.0.connection.feed(self.0.clock.now());
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        let now = self.clock.now();
        // Over HTTP/1 a request that is given up takes its connection with it, so that the next does not find a dead one.
        if self.connection.heard() == self.heard && now.saturating_duration_since(self.began) >= SILENCE {
            self.connection.retire();
        }
        self.connection.leave(now + self.life);
    }
}

//! Who is being waited for on a connection to an upstream, and for how long.
//!
//! A request only notes what it waits for; one sweep a worker looks at all notes every [`SWEEP`], so that no
//! request pays for a timer of its own.

use std::cell::{Cell, OnceCell, RefCell};
use std::rc::{Rc, Weak};
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::fault::Fault;
use crate::config::limits::Timeouts;

/// How often deadlines are looked at, and so how late one may be noticed.
pub const SWEEP: Duration = Duration::from_millis(50);

/// Who is being waited for, and so whose fault a silence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The upstream: the first byte of its answer.
    FirstByte,
    /// The upstream: the next piece of its answer.
    Answer,
    /// The client: the next piece of its body.
    Client,
}

/// One connection to an upstream.
#[derive(Debug, Default)]
pub struct Wire {
    waiting: Cell<Option<(Waiting, Instant)>>,
    expired: Cell<Option<Waiting>>,
    answered: Cell<bool>,
    connection: OnceCell<AbortHandle>,
}

/// All wires of a worker.
#[derive(Debug, Default)]
pub struct Wires(RefCell<Vec<Weak<Wire>>>);

impl Wires {
    /// A wire for a connection that is about to be used.
    pub fn open(&self) -> Rc<Wire> {
        let wire = Rc::new(Wire::default());
        self.0.borrow_mut().push(Rc::downgrade(&wire));
        wire
    }

    /// Ends the connections whose wait is over, and forgets those that have gone.
    pub fn sweep(&self, now: Instant) {
        self.0.borrow_mut().retain(|wire| wire.upgrade().is_some_and(|wire| wire.look(now)));
    }
}

impl Wire {
    /// The task that owns the socket: ending it is how a wait ends.
    pub fn owned_by(&self, connection: AbortHandle) {
        let _ = self.connection.set(connection);
    }

    /// A request begins on this wire.
    pub fn begin(&self, timeouts: &Timeouts) {
        self.answered.set(false);
        self.waiting.set(Some((Waiting::FirstByte, Instant::now() + timeouts.first_byte)));
    }

    /// The head of the answer is there.
    pub fn answered(&self) {
        self.answered.set(true);
        self.waiting.set(None);
    }

    /// The client's body went on, or is waited for. Before the answer begins, one side has the word at a time;
    /// after that, an open upload may rest for as long as the answer goes on, as streams both ways do.
    pub fn upload(&self, waiting_for_client: bool, timeouts: &Timeouts) {
        if self.answered.get() {
            return;
        }
        let now = Instant::now();
        self.waiting.set(Some(if waiting_for_client {
            (Waiting::Client, now + timeouts.idle)
        } else {
            (Waiting::FirstByte, now + timeouts.first_byte)
        }));
    }

    /// The next piece of the answer is waited for.
    pub fn wait(&self, timeouts: &Timeouts) {
        self.waiting.set(Some((Waiting::Answer, Instant::now() + timeouts.idle)));
    }

    /// The answer is whole, and the client's body is not: it may finish it, at a client's pace and no longer.
    pub fn let_finish(&self, timeouts: &Timeouts) {
        self.answered.set(false);
        self.upload(true, timeouts);
    }

    /// Nobody is waited for.
    pub fn rest(&self) {
        self.waiting.set(None);
    }

    /// The wait that was too long, if one was.
    pub fn fault(&self) -> Option<Fault> {
        self.expired.get().map(|waiting| match waiting {
            Waiting::FirstByte => Fault::FirstByteTimeout,
            Waiting::Answer => Fault::IdleTimeout,
            Waiting::Client => Fault::ClientTimeout,
        })
    }

    /// False once there is nothing to look at any more.
    fn look(&self, now: Instant) -> bool {
        let over = self.waiting.get().filter(|(_, deadline)| *deadline <= now);
        if let Some((waiting, _)) = over {
            self.expired.set(Some(waiting));
            if let Some(connection) = self.connection.get() {
                connection.abort();
            }
        }
        over.is_none()
    }
}

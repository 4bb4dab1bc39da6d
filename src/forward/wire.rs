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

/// What a connection's request waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Waiting {
    /// The first byte of the answer, once the request is out.
    FirstByte,
    /// The next piece of the answer.
    Answer,
    /// The next piece of the client's body.
    Client,
}

/// One connection to an upstream.
#[derive(Debug)]
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
        let wire = Rc::new(Wire {
            waiting: Cell::new(None),
            expired: Cell::new(None),
            answered: Cell::new(false),
            connection: OnceCell::new(),
        });
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
        self.wait(Waiting::FirstByte, timeouts);
    }

    /// The head of the answer is there.
    pub fn answered(&self) {
        self.answered.set(true);
        self.waiting.set(None);
    }

    /// The client's body went on: the upstream has the word, or the client has it.
    pub fn upload(&self, waiting_for_client: bool, timeouts: &Timeouts) {
        match (waiting_for_client, self.answered.get()) {
            (true, _) => self.wait(Waiting::Client, timeouts),
            (false, false) => self.wait(Waiting::FirstByte, timeouts),
            (false, true) => self.rest(),
        }
    }

    /// Waits from now on.
    pub fn wait(&self, waiting: Waiting, timeouts: &Timeouts) {
        let limit = match waiting {
            Waiting::FirstByte => timeouts.first_byte,
            Waiting::Answer | Waiting::Client => timeouts.idle,
        };
        self.waiting.set(Some((waiting, Instant::now() + limit)));
    }

    /// Nothing is waited for.
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
        match self.waiting.get() {
            Some((waiting, deadline)) if deadline <= now => {
                self.expired.set(Some(waiting));
                if let Some(connection) = self.connection.get() {
                    connection.abort();
                }
                false
            }
            _ => true,
        }
    }
}

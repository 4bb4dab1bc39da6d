//! How a process leaves: first it looks unready, then it closes its listeners, then it waits for what is open.

use std::cell::Cell;
use std::rc::Rc;

use tokio::sync::{Notify, watch};
use tokio::time::Instant;

/// Where the process is on its way out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Phase {
    /// It is not leaving.
    Serving,
    /// It still takes connections, but readiness says no.
    Unready,
    /// It takes no more connections; what is open may go on until then.
    Closing {
        /// After it, whatever is left is cut.
        deadline: Instant,
    },
}

/// Tells everybody about the phase.
#[derive(Debug)]
pub struct Leave(watch::Sender<Phase>);

/// What everybody listens to.
#[derive(Debug, Clone)]
pub struct Drain(watch::Receiver<Phase>);

impl Leave {
    /// A process that serves.
    #[must_use]
    pub fn new() -> (Self, Drain) {
        let (sender, receiver) = watch::channel(Phase::Serving);
        (Self(sender), Drain(receiver))
    }

    /// Goes on to a phase.
    pub fn enter(&self, phase: Phase) {
        self.0.send_replace(phase);
    }
}

impl Drain {
    /// Where the process is now.
    #[must_use]
    pub fn phase(&self) -> Phase {
        *self.0.borrow()
    }

    /// Ready when connections are to be closed as soon as they are free.
    pub async fn closing(&mut self) {
        self.deadline().await;
    }

    /// The same; says until when they may go on.
    pub async fn deadline(&mut self) -> Instant {
        let closing = self.0.wait_for(|phase| matches!(phase, Phase::Closing { .. })).await;
        match closing.as_deref() {
            Ok(Phase::Closing { deadline }) => *deadline,
            // The process has lost its end: nothing is left to wait for.
            Ok(Phase::Serving | Phase::Unready) | Err(_) => Instant::now(),
        }
    }
}

/// What a worker has open: connections and tunnels.
#[derive(Debug, Default)]
pub struct Open {
    count: Cell<usize>,
    none: Notify,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub struct Entered(Rc<Open>);

impl Open {
    /// One more.
    #[must_use]
    pub fn enter(this: &Rc<Self>) -> Entered {
        this.count.set(this.count.get() + 1);
        Entered(Rc::clone(this))
    }

    /// Ready when nothing is open.
    pub async fn none(&self) {
        while self.count.get() > 0 {
            self.none.notified().await;
        }
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 {
            self.0.none.notify_one();
        }
    }
}

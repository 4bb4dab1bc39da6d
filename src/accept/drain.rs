//! How a process leaves: first it looks unready, then it closes its listeners, then it waits for what is open.

use tokio::sync::watch;
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

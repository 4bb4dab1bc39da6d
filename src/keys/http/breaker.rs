//! Leaves an endpoint alone that does not answer, until it has answered a question of our own.

use std::cell::{Cell, RefCell};

use tokio::sync::watch;

use super::NAME;
use crate::keys::SourceError;

/// Open while the endpoint is left alone.
#[derive(Debug)]
pub(super) struct Breaker {
    most: u32,
    failed: Cell<u32>,
    last: RefCell<String>,
    state: watch::Sender<State>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum State {
    /// It has not been tried yet.
    Untried,
    Open,
    Closed,
}

/// One question. It has failed where nobody says what came of it: who asked has lost patience.
#[derive(Debug)]
pub(super) struct Trial<'b> {
    breaker: &'b Breaker,
    told: bool,
}

/// What came of a question.
#[derive(Debug)]
pub(super) enum Outcome {
    /// It was answered.
    Good,
    /// It was, in a way that cannot be read.
    Neither,
    /// It was not, since this happened.
    Failed(String),
}

impl Breaker {
    /// Open until the endpoint has answered, and again after this many failures in a row.
    pub(super) fn new(most: u32) -> Self {
        let state = watch::Sender::new(State::Untried);
        Self { most, failed: Cell::new(0), last: RefCell::default(), state }
    }

    /// Nothing while it is open. Who comes before the first try waits for that, so that a reload refuses nobody.
    pub(super) async fn begin(&self) -> Option<Trial<'_>> {
        let _ = self.state.subscribe().wait_for(|state| *state != State::Untried).await;
        let closed = *self.state.borrow() == State::Closed;
        closed.then(|| Trial { breaker: self, told: false })
    }

    /// Returns when it is open.
    pub(super) async fn opened(&self) {
        let _ = self.state.subscribe().wait_for(|state| *state == State::Open).await;
    }

    /// The endpoint has answered a question of our own.
    pub(super) fn close(&self) {
        self.failed.set(0);
        self.state.send_replace(State::Closed);
    }

    /// It has not.
    pub(super) fn open(&self, why: &SourceError) {
        self.failed.set(self.failed.get() + 1);
        self.last.replace(why.to_string());
        self.state.send_replace(State::Open);
    }

    /// Why it is open.
    pub(super) fn why(&self) -> SourceError {
        let (failed, last) = (self.failed.get(), self.last.borrow());
        let cause = format!("it is left alone after {failed} failures in a row, the last: {last}");
        SourceError::Down { name: NAME, cause }
    }

    fn count(&self, outcome: Outcome) {
        match outcome {
            // One that was asked before it opened says nothing of now.
            Outcome::Good if *self.state.borrow() == State::Closed => self.failed.set(0),
            Outcome::Good | Outcome::Neither => {}
            Outcome::Failed(cause) => {
                self.failed.set(self.failed.get() + 1);
                self.last.replace(cause);
                if self.failed.get() >= self.most {
                    self.state.send_replace(State::Open);
                }
            }
        }
    }
}

impl Trial<'_> {
    /// Says what came of it.
    pub(super) fn ended(mut self, outcome: Outcome) {
        self.told = true;
        self.breaker.count(outcome);
    }
}

impl Drop for Trial<'_> {
    fn drop(&mut self) {
        if !self.told {
            self.breaker.count(Outcome::Failed(SourceError::Late { name: NAME }.to_string()));
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::time::timeout;

    use super::*;

    #[tokio::test]
    async fn it_opens_after_failures_in_a_row_and_closes_with_an_answer() {
        let breaker = Breaker::new(3);
        let early = timeout(Duration::ZERO, breaker.begin()).await;
        assert!(early.is_err(), "it has not been tried yet");
        breaker.open(&SourceError::Late { name: NAME });
        assert!(breaker.begin().await.is_none(), "it has not answered");
        breaker.close();
        let ended = async |outcome| breaker.begin().await.expect("it is closed").ended(outcome);
        let failed = async || ended(Outcome::Failed("no route".to_owned())).await;
        for _ in 0..2 {
            failed().await;
            ended(Outcome::Neither).await;
            failed().await;
            ended(Outcome::Good).await;
        }
        failed().await;
        drop(breaker.begin().await);
        failed().await;
        assert!(breaker.begin().await.is_none());
        assert!(breaker.why().to_string().ends_with("no route"), "{}", breaker.why());
        breaker.close();
        failed().await;
        assert!(breaker.begin().await.is_some(), "it counts anew");
    }
}

//! Who is being waited for on a request that is under way, and for how long.
//!
//! A request only notes what it waits for; one look a worker sees to all notes every [`TICK`](crate::accept::clock::TICK), so that no
//! request pays for a timer, or for reading a clock, of its own.

use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::{Duration, Instant};

use tokio::task::AbortHandle;

use super::fault::Fault;
use crate::accept::body::Broken;
use crate::accept::clock::Clock;
use crate::config::limits::Timeouts;

/// Who is being waited for, and so whose fault a silence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The upstream: the first byte of its answer.
    FirstByte,
    /// The upstream: the next piece of its answer.
    Answer,
    /// The client: the next piece of its body.
    Client,
    /// Either of them has the word.
    Either,
    /// Both: the last byte of the answer.
    Whole,
}

/// Who is being waited for on a request that is under way.
#[derive(Debug)]
pub struct Watch {
    clock: Rc<Clock>,
    /// How long the upstream may take to its first byte, and how long each side between two pieces: of this request.
    limits: Cell<(Duration, Duration)>,
    waiting: Cell<Option<(Waiting, Instant)>>,
    /// When the answer must be whole.
    until: Cell<Option<Instant>>,
    expired: Cell<Option<Waiting>>,
    /// How the client's body failed beside its answer.
    broken: Cell<Option<Broken>>,
    answered: Cell<bool>,
    sent: Cell<bool>,
    /// Both sides may speak before the answer begins.
    converses: Cell<bool>,
    upload: RefCell<Option<AbortHandle>>,
}

impl Watch {
    /// Nobody is waited for.
    #[must_use]
    pub fn new(clock: Rc<Clock>) -> Self {
        Self {
            clock,
            limits: Cell::default(),
            waiting: Cell::new(None),
            until: Cell::new(None),
            expired: Cell::new(None),
            broken: Cell::new(None),
            answered: Cell::new(false),
            sent: Cell::new(false),
            converses: Cell::new(false),
            upload: RefCell::new(None),
        }
    }

    /// A request begins, whose answer must be whole by then.
    pub fn begin(&self, timeouts: &Timeouts, until: Option<Instant>) {
        self.until.set(until);
        self.limits.set((timeouts.first_byte, timeouts.idle));
        self.answered.set(false);
        self.sent.set(false);
        self.upload.replace(None);
        self.wait_for(Waiting::FirstByte);
    }

    /// The head of the answer is there.
    pub fn answered(&self) {
        self.answered.set(true);
        self.waiting.set(None);
    }

    /// The last byte of the request has been written.
    pub fn sent(&self) {
        self.sent.set(true);
    }

    /// Whether the upstream has all of the request.
    #[must_use]
    pub fn is_sent(&self) -> bool {
        self.sent.get()
    }

    /// The client's body goes on in this task, beside the answer.
    pub fn uploaded_by(&self, task: AbortHandle) {
        self.upload.replace(Some(task));
    }

    /// Nothing more of the client's body is wanted.
    pub fn end_upload(&self) {
        if let Some(upload) = self.upload.take() {
            upload.abort();
        }
    }

    /// The client's body went on, or is waited for. Before the answer begins, one side has the word at a time;
    /// after that, an open upload may rest for as long as the answer goes on, as streams both ways do.
    pub fn upload(&self, waiting_for_client: bool) {
        if self.answered.get() {
            // What a client says in the middle of its answer is no silence.
            if !waiting_for_client && matches!(self.waiting.get(), Some((Waiting::Answer, _))) {
                self.wait_for(Waiting::Answer);
            }
            return;
        }
        self.wait_for(match (waiting_for_client, self.converses.get()) {
            (false, _) => Waiting::FirstByte,
            (true, false) => Waiting::Client,
            (true, true) => Waiting::Either,
        });
    }

    /// Both sides may speak at once: a client that is quiet may have asked, and wait for its answer to begin.
    pub fn converses(&self) {
        self.converses.set(true);
    }

    /// The next piece of the answer is waited for, from the first time on that this is said.
    pub fn wait(&self) {
        if !matches!(self.waiting.get(), Some((Waiting::Answer, _))) {
            self.wait_for(Waiting::Answer);
        }
    }

    /// The answer is whole, and the client's body is not: it may finish it, at a client's pace and no longer.
    pub fn let_finish(&self) {
        self.answered.set(false);
        self.converses.set(false);
        self.upload(true);
    }

    /// Nobody is waited for.
    pub fn rest(&self) {
        self.waiting.set(None);
    }

    /// The answer is whole.
    pub fn end(&self) {
        self.waiting.set(None);
        self.until.set(None);
    }

    /// The client's body has failed while its answer is under way, which is about to be cut.
    pub fn broke(&self, broken: Broken) {
        self.broken.set(Some(broken));
    }

    /// The wait that was too long, if one was, or how the client's body failed.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        let expired = self.expired.get().map(|waiting| match waiting {
            Waiting::FirstByte | Waiting::Either => Fault::FirstByteTimeout,
            Waiting::Answer => Fault::IdleTimeout,
            Waiting::Client => Fault::ClientTimeout,
            Waiting::Whole => Fault::TotalTimeout,
        });
        expired.or(self.broken.get().map(Fault::Client))
    }

    fn wait_for(&self, whom: Waiting) {
        let (first_byte, idle) = self.limits.get();
        let limit = match whom {
            Waiting::FirstByte => first_byte,
            Waiting::Either => first_byte.max(idle),
            Waiting::Answer | Waiting::Client | Waiting::Whole => idle,
        };
        self.waiting.set(Some((whom, self.clock.after(limit))));
    }

    /// Whether a wait is over; what is left of the client's body goes nowhere then.
    pub fn is_over(&self, now: Instant) -> bool {
        let whole = self.until.get().map(|until| (Waiting::Whole, until));
        let over = [self.waiting.get(), whole].into_iter().flatten().find(|(_, deadline)| *deadline <= now);
        if let Some((waiting, _)) = over {
            self.expired.set(Some(waiting));
            self.end_upload();
        }
        over.is_some()
    }
}

//! One connection to an upstream: its socket, who is being waited for on it, and for how long.
//!
//! A request only notes what it waits for; one look a worker sees to all notes every [`TICK`](crate::accept::clock::TICK), so that no
//! request pays for a timer, or for reading a clock, of its own.

use std::cell::{Cell, RefCell};
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use tokio::io::AsyncWrite as _;
use tokio::task::AbortHandle;

use super::fault::Fault;
use crate::accept::clock::Clock;
use crate::config::limits::Timeouts;
use crate::message::chunk::Chunk;
use crate::socket::Socket;

/// Who is being waited for, and so whose fault a silence is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waiting {
    /// The upstream: the first byte of its answer.
    FirstByte,
    /// The upstream: the next piece of its answer.
    Answer,
    /// The client: the next piece of its body.
    Client,
    /// Both: the last byte of the answer.
    Whole,
}

/// One connection to an upstream.
#[derive(Debug)]
pub struct Wire {
    /// Where it leads.
    pub address: SocketAddr,
    socket: RefCell<Socket>,
    clock: Rc<Clock>,
    /// How long the upstream may take to its first byte, and how long each side between two pieces: of this request.
    limits: Cell<(Duration, Duration)>,
    waiting: Cell<Option<(Waiting, Instant)>>,
    /// When the answer must be whole.
    until: Cell<Option<Instant>>,
    expired: Cell<Option<Waiting>>,
    answered: Cell<bool>,
    sent: Cell<bool>,
    upload: RefCell<Option<AbortHandle>>,
}

/// All wires of a worker.
#[derive(Debug)]
pub struct Wires {
    all: RefCell<Vec<Weak<Wire>>>,
    clock: Rc<Clock>,
}

impl Wires {
    /// None yet.
    pub fn new(clock: Rc<Clock>) -> Self {
        Self { all: RefCell::default(), clock }
    }

    /// A wire for a socket that has just been connected.
    pub fn open(&self, socket: Socket, address: SocketAddr) -> Rc<Wire> {
        let wire = Rc::new(Wire {
            address,
            socket: RefCell::new(socket),
            clock: Rc::clone(&self.clock),
            limits: Cell::default(),
            waiting: Cell::new(None),
            until: Cell::new(None),
            expired: Cell::new(None),
            answered: Cell::new(false),
            sent: Cell::new(false),
            upload: RefCell::new(None),
        });
        self.all.borrow_mut().push(Rc::downgrade(&wire));
        wire
    }

    /// What time it is.
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// Ends the waits that are over, and forgets wires that have gone.
    pub fn sweep(&self, now: Instant) {
        self.all.borrow_mut().retain(|wire| wire.upgrade().is_some_and(|wire| wire.look(now)));
    }
}

impl Wire {
    /// Reads what has come; nothing is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, chunk: &Chunk) -> Poll<io::Result<Bytes>> {
        chunk.poll_fill(cx, Pin::new(&mut *self.socket.borrow_mut()))
    }

    /// Writes what it can of these parts.
    pub fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut socket = self.socket.borrow_mut();
        match parts {
            [only] => Pin::new(&mut *socket).poll_write(cx, only),
            several => Pin::new(&mut *socket).poll_write_vectored(cx, several),
        }
    }

    /// Sends what TLS holds back.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.socket.borrow_mut();
        if socket.is_buffered() { Pin::new(&mut *socket).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Open, and nothing has come that nobody asked for. Costs a system call only where something has.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.socket.borrow_mut().is_quiet()
    }

    /// The socket, where nobody else holds the wire.
    #[must_use]
    pub fn into_socket(this: Rc<Self>) -> Option<Socket> {
        Rc::into_inner(this).map(|wire| wire.socket.into_inner())
    }

    /// A request begins on this wire, whose answer must be whole by then.
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
            return;
        }
        if waiting_for_client {
            self.wait_for(Waiting::Client);
        } else {
            self.wait_for(Waiting::FirstByte);
        }
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

    /// Ends it for everybody who reads or writes on it.
    pub fn cut(&self) {
        self.socket.borrow().cut();
    }

    /// The wait that was too long, if one was.
    #[must_use]
    pub fn fault(&self) -> Option<Fault> {
        self.expired.get().map(|waiting| match waiting {
            Waiting::FirstByte => Fault::FirstByteTimeout,
            Waiting::Answer => Fault::IdleTimeout,
            Waiting::Client => Fault::ClientTimeout,
            Waiting::Whole => Fault::TotalTimeout,
        })
    }

    fn wait_for(&self, whom: Waiting) {
        let (first_byte, idle) = self.limits.get();
        let limit = match whom {
            Waiting::FirstByte => first_byte,
            Waiting::Answer | Waiting::Client | Waiting::Whole => idle,
        };
        self.waiting.set(Some((whom, self.clock.after(limit))));
    }

    /// False once there is nothing to look at any more.
    fn look(&self, now: Instant) -> bool {
        let whole = self.until.get().map(|until| (Waiting::Whole, until));
        let over = [self.waiting.get(), whole].into_iter().flatten().find(|(_, deadline)| *deadline <= now);
        if let Some((waiting, _)) = over {
            self.expired.set(Some(waiting));
            self.cut();
            self.end_upload();
        }
        over.is_none()
    }
}

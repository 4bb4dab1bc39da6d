//! A request on its way to the upstream: its head, and the client's body, passed on as it comes and never gathered.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::fmt;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use tokio::task::AbortHandle;

use super::headers::{self, Announced};
use super::wire::Wire;
use crate::accept::body::{Broken, Incoming};
use crate::keys::guests::Guest;
use crate::message::invalid::Invalid;
use crate::message::pieces::Pieces;

/// A request on its way to the upstream.
pub struct Upload {
    pieces: Pieces,
    body: Option<Incoming>,
    announced: Announced,
    /// The most bytes of the body.
    most: u64,
    /// No byte of it has left.
    untouched: bool,
    /// The upstream takes no more; what is still to come goes nowhere.
    lost: bool,
    progress: Option<Rc<Progress>>,
}

/// What is known of a client's body.
#[derive(Debug)]
pub struct Progress {
    /// Bytes that came from the client.
    pub received: Cell<u64>,
    /// What passes it on beside the answer.
    task: RefCell<Option<AbortHandle>>,
    /// Who sends it, where the answer is whole before it.
    guest: RefCell<Option<Box<dyn Any>>>,
}

impl Progress {
    fn new() -> Rc<Self> {
        Rc::new(Self { received: Cell::new(0), task: RefCell::default(), guest: RefCell::default() })
    }

    /// This task passes on the rest of it, beside the answer.
    pub(super) fn goes_on_in(&self, task: AbortHandle) {
        self.task.replace(Some(task));
    }

    /// The answer is whole: what is left of the body goes on for as long as its key is good.
    pub fn outlives_answer<S: 'static>(&self, guest: Guest<S>) {
        if let Some(task) = self.task.take().filter(|task| !task.is_finished()) {
            guest.leaves_with(&task);
            self.guest.replace(Some(Box::new(guest)));
        }
    }
}

/// A head holds a key: it is not shown.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("body", &self.body).finish_non_exhaustive()
    }
}

/// How the end of a client's body is announced to the upstream.
#[must_use]
pub fn announced(body: &Incoming) -> Announced {
    match (body.is_end_stream(), body.size_hint().exact()) {
        (true, _) => Announced::Nothing,
        (false, Some(length)) => Announced::Length(length),
        (false, None) => Announced::Chunked,
    }
}

impl Upload {
    /// A request with this head, which announced the client's body so.
    #[must_use]
    pub fn new(head: Vec<u8>, body: Incoming, announced: Announced, most: u64) -> Self {
        let body = (announced != Announced::Nothing).then_some(body);
        Self {
            pieces: Pieces::new(head),
            progress: body.is_some().then(Progress::new),
            body,
            announced,
            most,
            untouched: true,
            lost: false,
        }
    }

    /// What is known of the body, where there is one.
    #[must_use]
    pub fn progress(&self) -> Option<&Rc<Progress>> {
        self.progress.as_ref()
    }

    /// Back to the beginning, where that loses nothing and, unless `again`, nothing of it has left.
    pub fn rewind(&mut self, again: bool) -> bool {
        let whole = self.untouched || (again && self.progress.is_none());
        if whole {
            self.pieces.rewind();
            (self.untouched, self.lost) = (true, false);
        }
        whole
    }

    /// Writes what there is to write; ready when the upstream has all of it, or takes no more.
    pub fn poll(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Poll<Result<(), Broken>> {
        loop {
            let pending = !self.pieces.is_written();
            if !pending && self.body.is_some() {
                // Before the next is read: what it was read into can be used again.
                self.untouched = false;
                self.pieces.clear();
            }
            // A body that came with its head goes with it.
            if (!pending || self.pieces.takes()) && self.poll_body(cx, pending, wire)?.is_pending() {
                // Whoever waits for more of it has what came. Where that fails, the next write or read says so.
                let _ = wire.poll_flush(cx);
                return Poll::Pending;
            }
            if self.pieces.is_written() {
                if self.body.is_some() {
                    continue;
                }
                self.lost |= ready!(wire.poll_flush(cx)).is_err();
                if self.progress.is_some() {
                    wire.upload(false);
                }
                if !self.lost {
                    wire.sent();
                }
                return Poll::Ready(Ok(()));
            }
            // A server may answer before it has the whole body, and close: 413 is the common case. What it wrote is
            // still there to be read, and says what became of the request; the client may finish what it began.
            match ready!(self.pieces.poll_write(|parts| wire.poll_write(cx, parts))) {
                Ok(()) => self.untouched = false,
                // All of it is still here, to be sent on another connection.
                Err(_) if self.untouched => {
                    self.lost = true;
                    return Poll::Ready(Ok(()));
                }
                Err(_) => {
                    self.lost = true;
                    self.pieces.skip();
                }
            }
            if !self.lost && self.progress.is_some() {
                wire.upload(false);
            }
        }
    }

    /// Takes the next piece of the body; pending where that has not come and nothing else is `pending`.
    fn poll_body(&mut self, cx: &mut Context<'_>, pending: bool, wire: &Wire) -> Result<Poll<()>, Broken> {
        let chunked = self.announced == Announced::Chunked;
        let Some(body) = &mut self.body else { return Ok(Poll::Ready(())) };
        if body.is_end_stream() && !chunked {
            return self.ended().map(Poll::Ready);
        }
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Pending if pending => return Ok(Poll::Ready(())),
            Poll::Pending => {
                wire.upload(true);
                return Ok(Poll::Pending);
            }
            Poll::Ready(frame) => frame.transpose()?,
        };
        match frame.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.take(data)?,
            Some(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if chunked {
                    self.pieces.text().extend_from_slice(b"0\r\n");
                    headers::write_trailers(self.pieces.text(), &trailers);
                }
                self.ended()?;
            }
            None => {
                if chunked {
                    self.pieces.text().extend_from_slice(b"0\r\n\r\n");
                }
                self.ended()?;
            }
        }
        Ok(Poll::Ready(()))
    }

    /// A body that is shorter than its head said would have the next request read as the rest of it.
    fn ended(&mut self) -> Result<(), Broken> {
        self.body = None;
        match self.announced {
            Announced::Length(length) if length != self.received() => Err(Broken::Gone),
            Announced::Nothing | Announced::Length(_) | Announced::Chunked => Ok(()),
        }
    }

    fn take(&mut self, data: Bytes) -> Result<(), Broken> {
        let received = self.received() + data.len() as u64;
        if let Some(progress) = &self.progress {
            progress.received.set(received);
        }
        if received > self.most {
            return Err(Broken::TooLarge);
        }
        if let Announced::Length(length) = self.announced {
            if received > length {
                return Err(Broken::Invalid(Invalid::Length));
            }
            if received == length {
                // It is not asked for more: what comes next on its connection is another request.
                self.body = None;
            }
        }
        self.pieces.data(data, self.announced == Announced::Chunked);
        Ok(())
    }

    fn received(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.received.get())
    }
}

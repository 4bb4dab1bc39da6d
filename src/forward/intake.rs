//! A client's body, counted as it comes, and held against what its head announced and what it may be.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http::HeaderMap;
use http_body::Body as _;
use tokio::task::AbortHandle;

use super::headers::Announced;
use crate::accept::body::{Broken, Incoming};
use crate::keys::guests::Guest;
use crate::message::framing;
use crate::message::invalid::Invalid;

/// A client's body on its way.
#[derive(Debug)]
pub struct Intake {
    /// `None` once all of it has come.
    body: Option<Incoming>,
    announced: Announced,
    /// The most bytes of the body.
    most: u64,
    progress: Option<Rc<Progress>>,
}

/// What comes of a body.
#[derive(Debug)]
pub enum Piece {
    /// Some of it.
    Data(Bytes),
    /// Fields after it; it is whole.
    Trailers(HeaderMap),
    /// It is whole.
    End,
}

/// What is known of a client's body.
#[derive(Debug)]
pub struct Progress {
    /// Bytes that came from the client.
    pub received: Cell<u64>,
    /// What passes it on beside the answer.
    task: RefCell<Option<AbortHandle>>,
    /// Who sends it, and that it is in flight, where the answer is whole before it.
    outlives: RefCell<Option<Box<dyn Any>>>,
}

impl Progress {
    fn new() -> Rc<Self> {
        Rc::new(Self { received: Cell::new(0), task: RefCell::default(), outlives: RefCell::default() })
    }

    /// This task passes on the rest of it, beside the answer.
    pub(super) fn goes_on_in(&self, task: AbortHandle) {
        self.task.replace(Some(task));
    }

    /// The answer is whole: what is left of the body goes on for as long as its key is good, and until then it is counted.
    pub fn outlives_answer<S: 'static>(&self, guest: Option<Guest<S>>, counted: impl Any) {
        if let Some(task) = self.task.take().filter(|task| !task.is_finished()) {
            if let Some(guest) = &guest {
                guest.leaves_with(&task);
            }
            self.outlives.replace(Some(Box::new((guest, counted))));
        }
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

impl Intake {
    /// A body, which was announced so.
    #[must_use]
    pub fn new(body: Incoming, announced: Announced, most: u64) -> Self {
        let body = (announced != Announced::Nothing).then_some(body);
        Self { progress: body.is_some().then(Progress::new), body, announced, most }
    }

    /// What is known of the body, where there is one.
    #[must_use]
    pub fn progress(&self) -> Option<&Rc<Progress>> {
        self.progress.as_ref()
    }

    /// Its pieces say how long they are.
    #[must_use]
    pub fn is_chunked(&self) -> bool {
        self.announced == Announced::Chunked
    }

    /// All of it has come.
    #[must_use]
    pub fn is_over(&self) -> bool {
        self.body.is_none()
    }

    /// The next piece of a body that is not over.
    pub fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        let Some(body) = &mut self.body else { return Poll::Ready(Ok(Piece::End)) };
        if body.is_end_stream() && self.announced != Announced::Chunked {
            return Poll::Ready(self.ended().map(|()| Piece::End));
        }
        let frame = ready!(Pin::new(body).poll_frame(cx)).transpose()?;
        Poll::Ready(match frame.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.take(&data).map(|()| Piece::Data(data)),
            Some(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if framing::fit(&trailers) {
                    self.ended().map(|()| Piece::Trailers(trailers))
                } else {
                    Err(Broken::Invalid(Invalid::TooLarge))
                }
            }
            None => self.ended().map(|()| Piece::End),
        })
    }

    /// A body that is shorter than its head said would have the next request read as the rest of it.
    fn ended(&mut self) -> Result<(), Broken> {
        self.body = None;
        match self.announced {
            Announced::Length(length) if length != self.received() => Err(Broken::Gone),
            Announced::Nothing | Announced::Length(_) | Announced::Chunked => Ok(()),
        }
    }

    fn take(&mut self, data: &Bytes) -> Result<(), Broken> {
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
        Ok(())
    }

    fn received(&self) -> u64 {
        self.progress.as_ref().map_or(0, |progress| progress.received.get())
    }
}

//! A request on its way to the upstream: its head, and the client's body, passed on as it comes and never gathered.

use std::cell::Cell;
use std::error::Error as _;
use std::fmt;
use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::Body as _;
use hyper::body::Incoming;

use super::headers::{self, Announced};
use super::wire::Wire;
use crate::accept::peer::{Busy, Peer};
use crate::config::limits::Timeouts;

/// A request on its way to the upstream.
pub struct Upload {
    /// The head of the request, or what frames the piece after it.
    text: Vec<u8>,
    piece: Bytes,
    /// The end of a chunk.
    end: &'static [u8],
    /// Bytes of these three that have been written.
    written: usize,
    body: Option<Incoming>,
    announced: Announced,
    /// No byte of it has left.
    untouched: bool,
    /// The upstream takes no more; what is still to come goes nowhere.
    lost: bool,
    progress: Option<Rc<Progress>>,
    timeouts: Timeouts,
}

/// What is known of a client's body.
#[derive(Debug)]
pub struct Progress {
    /// Bytes that came from the client.
    pub received: Cell<u64>,
    /// It comes over this connection, though the answer may be whole.
    _connection: Busy,
}

/// How a client's body failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its connection ended.
    Gone,
    /// Its bytes are no body.
    Invalid,
}

impl From<&hyper::Error> for Broken {
    fn from(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let malformed = matches!(cause, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData));
        if malformed || error.is_parse() { Self::Invalid } else { Self::Gone }
    }
}

/// A head holds a key: it is not shown.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload")
            .field("written", &self.written)
            .field("body", &self.body)
            .finish_non_exhaustive()
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
    pub fn new(
        head: Vec<u8>,
        body: Incoming,
        announced: Announced,
        peer: &Rc<Peer>,
        timeouts: Timeouts,
    ) -> Self {
        let body = (announced != Announced::Nothing).then_some(body);
        let progress = || Rc::new(Progress { received: Cell::new(0), _connection: Peer::busy(peer) });
        Self {
            text: head,
            piece: Bytes::new(),
            end: b"",
            written: 0,
            progress: body.is_some().then(progress),
            body,
            announced,
            untouched: true,
            lost: false,
            timeouts,
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
            (self.written, self.untouched, self.lost) = (0, true, false);
        }
        whole
    }

    /// Writes what there is to write; ready when the upstream has all of it, or takes no more.
    pub fn poll(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Poll<Result<(), Broken>> {
        loop {
            let pending = self.written < self.length();
            // A body that came with its head goes with it.
            if (!pending || (self.untouched && self.piece.is_empty()))
                && self.poll_body(cx, pending, wire)?.is_pending()
            {
                return Poll::Pending;
            }
            if self.written == self.length() {
                if self.body.is_some() {
                    continue;
                }
                if self.progress.is_some() {
                    wire.upload(false, &self.timeouts);
                }
                if !self.lost {
                    wire.sent();
                }
                return Poll::Ready(Ok(()));
            }
            // A server may answer before it has the whole body, and close: 413 is the common case. What it wrote is
            // still there to be read, and says what became of the request; the client may finish what it began.
            self.lost |= ready!(self.poll_write(cx, wire)).is_err();
            if self.lost && self.untouched {
                // All of it is still here, to be sent on another connection.
                return Poll::Ready(Ok(()));
            }
            if self.lost {
                self.written = self.length();
            } else if self.body.is_some() {
                wire.upload(false, &self.timeouts);
            }
        }
    }

    fn is_chunked(&self) -> bool {
        self.announced == Announced::Chunked
    }

    fn length(&self) -> usize {
        self.text.len() + self.piece.len() + self.end.len()
    }

    /// Takes the next piece of the body; pending where that has not come and nothing else is `pending`.
    fn poll_body(&mut self, cx: &mut Context<'_>, pending: bool, wire: &Wire) -> Result<Poll<()>, Broken> {
        let chunked = self.is_chunked();
        let Some(body) = &mut self.body else { return Ok(Poll::Ready(())) };
        if body.is_end_stream() && !chunked {
            return self.ended().map(Poll::Ready);
        }
        let frame = match Pin::new(body).poll_frame(cx) {
            Poll::Pending if pending => return Ok(Poll::Ready(())),
            Poll::Pending => {
                wire.upload(true, &self.timeouts);
                return Ok(Poll::Pending);
            }
            Poll::Ready(frame) => frame.transpose().map_err(|error| Broken::from(&error))?,
        };
        if !pending {
            self.untouched = false;
            self.text.clear();
            (self.written, self.piece, self.end) = (0, Bytes::new(), b"");
        }
        match frame.map(http_body::Frame::into_data) {
            Some(Ok(data)) => self.take(data),
            Some(Err(frame)) => {
                let trailers = frame.into_trailers().unwrap_or_default();
                if chunked {
                    self.text.extend_from_slice(b"0\r\n");
                    headers::write_trailers(&mut self.text, &trailers);
                }
                self.ended()?;
            }
            None => {
                if chunked {
                    self.text.extend_from_slice(b"0\r\n\r\n");
                }
                self.ended()?;
            }
        }
        Ok(Poll::Ready(()))
    }

    /// A body that is shorter than its head said would have the next request read as the rest of it.
    fn ended(&mut self) -> Result<(), Broken> {
        self.body = None;
        let received = self.progress.as_ref().map_or(0, |progress| progress.received.get());
        match self.announced {
            Announced::Length(length) if length != received => Err(Broken::Gone),
            Announced::Nothing | Announced::Length(_) | Announced::Chunked => Ok(()),
        }
    }

    fn take(&mut self, data: Bytes) {
        if let Some(progress) = &self.progress {
            progress.received.set(progress.received.get() + data.len() as u64);
        }
        if self.is_chunked() && !data.is_empty() {
            // Writing to memory cannot fail.
            let _ = write!(self.text, "{:x}\r\n", data.len());
            self.end = b"\r\n";
        }
        self.piece = data;
    }

    fn poll_write(&mut self, cx: &mut Context<'_>, wire: &Wire) -> Poll<io::Result<()>> {
        let mut skip = self.written;
        let parts = [&*self.text, &*self.piece, self.end].map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            part.get(from..).unwrap_or_default()
        });
        let count = match parts {
            [text, [], []] => ready!(wire.poll_write(cx, &[IoSlice::new(text)]))?,
            parts => ready!(wire.poll_write(cx, &parts.map(IoSlice::new)))?,
        };
        if count == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        self.untouched = false;
        self.written += count;
        Poll::Ready(Ok(()))
    }
}

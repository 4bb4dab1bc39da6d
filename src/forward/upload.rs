//! A request on its way to the upstream over HTTP/1: its head, and the client's body, passed on as it comes and never gathered.

use std::fmt;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use super::headers;
use super::intake::{Intake, Piece, Progress};
use super::wire::Wire;
use crate::accept::body::Broken;
use crate::message::pieces::Pieces;

/// A request on its way to the upstream.
pub struct Upload {
    pieces: Pieces,
    intake: Intake,
    /// No byte of it has left.
    untouched: bool,
    /// The upstream takes no more; what is still to come goes nowhere.
    lost: bool,
}

/// A head holds a key: it is not shown.
impl fmt::Debug for Upload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Upload").field("intake", &self.intake).finish_non_exhaustive()
    }
}

impl Upload {
    /// A request with this head, which announced this body.
    #[must_use]
    pub fn new(head: Vec<u8>, intake: Intake) -> Self {
        Self { pieces: Pieces::new(head), intake, untouched: true, lost: false }
    }

    /// What is known of the body, where there is one.
    #[must_use]
    pub fn progress(&self) -> Option<&Rc<Progress>> {
        self.intake.progress()
    }

    /// Back to the beginning, where that loses nothing and, unless `again`, nothing of it has left.
    pub fn rewind(&mut self, again: bool) -> bool {
        let whole = self.untouched || (again && self.intake.progress().is_none());
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
            if !pending && !self.intake.is_over() {
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
                if !self.intake.is_over() {
                    continue;
                }
                self.lost |= ready!(wire.poll_flush(cx)).is_err();
                if self.intake.progress().is_some() {
                    wire.watch.upload(false);
                }
                if !self.lost {
                    wire.watch.sent();
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
            if !self.lost && self.intake.progress().is_some() {
                wire.watch.upload(false);
            }
        }
    }

    /// Takes the next piece of the body; pending where that has not come and nothing else is `pending`.
    fn poll_body(&mut self, cx: &mut Context<'_>, pending: bool, wire: &Wire) -> Result<Poll<()>, Broken> {
        if self.intake.is_over() {
            return Ok(Poll::Ready(()));
        }
        let chunked = self.intake.is_chunked();
        let piece = match self.intake.poll_next(cx) {
            Poll::Pending if pending => return Ok(Poll::Ready(())),
            Poll::Pending => {
                wire.watch.upload(true);
                return Ok(Poll::Pending);
            }
            Poll::Ready(piece) => piece?,
        };
        match piece {
            Piece::Data(data) => {
                // The client has said its part: it is the upstream that may not take it.
                wire.watch.upload(false);
                self.pieces.data(data, chunked);
            }
            Piece::Trailers(trailers) if chunked => {
                self.pieces.text().extend_from_slice(b"0\r\n");
                headers::write_trailers(self.pieces.text(), &trailers);
            }
            Piece::End if chunked => self.pieces.text().extend_from_slice(b"0\r\n\r\n"),
            Piece::Trailers(_) | Piece::End => {}
        }
        Ok(Poll::Ready(()))
    }
}

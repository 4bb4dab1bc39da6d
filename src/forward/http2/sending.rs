//! A client's body on its way over HTTP/2, as far as the upstream takes it.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::{Bytes, BytesMut};
use h2::{Reason, SendStream};

use super::stream::{Starving, Stream};
use crate::accept::body::Broken;
use crate::forward::headers::passing;
use crate::forward::intake::{Intake, Piece, Progress};

/// So much of a body can be sent again: a message of most calls of gRPC, and what may be copied and held while an answer
/// is waited for.
const AGAIN: usize = 4 * 1024;
/// Pieces up to this length are put together with what has come behind them, up to a frame that every server takes
/// (RFC 9113, 4.2): many small frames are a flood to it, which ends the connection for all who share it.
const SMALL: usize = 1024;
const FRAME: usize = 16 * 1024;

/// A client's body on its way.
#[derive(Debug)]
pub(super) struct Sending {
    intake: Intake,
    /// `None` before there is one, and once the upstream takes no more: what is still to come goes nowhere.
    stream: Option<SendStream<Bytes>>,
    /// What has come, and has not been taken.
    piece: Bytes,
    /// What has come behind it.
    next: Option<Result<Piece, Broken>>,
    /// All that has come, where that is little.
    come: Option<Bytes>,
    /// The upstream gives it no room to go on.
    starving: Option<Starving>,
    /// Its end has been said.
    ended: bool,
}

impl Sending {
    /// Of this body.
    pub(super) fn new(intake: Intake) -> Self {
        let ended = intake.is_over();
        Self {
            intake,
            stream: None,
            piece: Bytes::new(),
            next: None,
            come: Some(Bytes::new()),
            starving: None,
            ended,
        }
    }

    /// There is none.
    pub(super) fn is_nothing(&self) -> bool {
        self.intake.progress().is_none()
    }

    /// Back to the beginning, for another stream, where all that has come is still here.
    pub(super) fn rewind(&mut self) -> bool {
        let Some(come) = &self.come else { return false };
        self.piece = come.clone();
        (self.stream, self.ended) = (None, self.is_nothing());
        true
    }

    /// The answer has begun: it is not sent again.
    pub(super) fn forget(&mut self) {
        self.come = None;
    }

    fn keep(&mut self, data: &Bytes) {
        self.come = match self.come.take() {
            // A copy: what it came in is used again.
            Some(come) if come.len() + data.len() <= AGAIN => Some([&*come, &**data].concat().into()),
            Some(_) | None => None,
        };
    }

    /// What is known of it, where there is one.
    pub(super) fn progress(&self) -> Option<&Rc<Progress>> {
        self.intake.progress()
    }

    /// It goes over this one.
    pub(super) fn on(&mut self, stream: SendStream<Bytes>) {
        self.stream = Some(stream);
    }

    /// Half a body must not look like a whole one.
    pub(super) fn cut(&mut self) {
        if let Some(stream) = &mut self.stream {
            stream.send_reset(Reason::CANCEL);
        }
    }

    /// Sends what there is to send; ready when the upstream has all of it, or takes no more.
    pub(super) fn poll(&mut self, cx: &mut Context<'_>, place: &Rc<Stream>) -> Poll<Result<(), Broken>> {
        let watch = &place.watch;
        loop {
            while !self.piece.is_empty() {
                ready!(self.poll_piece(cx, place));
                if self.stream.is_some() {
                    watch.upload(false);
                }
            }
            if self.is_over() {
                if !std::mem::replace(&mut self.ended, true) {
                    self.send(Bytes::new(), true);
                }
                watch.sent();
                return Poll::Ready(Ok(()));
            }
            let Poll::Ready(next) = self.poll_next(cx) else {
                watch.upload(true);
                return Poll::Pending;
            };
            match next? {
                Piece::Data(data) => {
                    // The client has said its part: it is the upstream that may not take it.
                    watch.upload(false);
                    self.keep(&data);
                    self.piece = data;
                }
                Piece::Trailers(trailers) => {
                    self.come = None;
                    let passing = passing(&trailers).map(|(name, value)| (name.clone(), value.clone()));
                    let trailers = passing.collect();
                    self.ended = true;
                    if self.stream.as_mut().is_some_and(|stream| stream.send_trailers(trailers).is_err()) {
                        self.stream = None;
                    }
                }
                Piece::End => {}
            }
        }
    }

    /// Nothing comes behind the piece.
    fn is_over(&self) -> bool {
        self.next.is_none() && self.intake.is_over()
    }

    /// What comes next; of many small pieces, all that are here.
    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Piece, Broken>> {
        let next = self.next.take();
        let next = next.map_or_else(|| self.intake.poll_next(cx), Poll::Ready);
        let Poll::Ready(Ok(Piece::Data(first))) = next else { return next };
        if first.len() > SMALL || self.is_over() {
            return Poll::Ready(Ok(Piece::Data(first)));
        }
        let mut all = BytesMut::from(&*first);
        while all.len() < FRAME && !self.intake.is_over() {
            match self.intake.poll_next(cx) {
                Poll::Ready(Ok(Piece::Data(more))) if more.len() <= SMALL => all.extend_from_slice(&more),
                Poll::Ready(Ok(Piece::End)) | Poll::Pending => break,
                Poll::Ready(other) => {
                    self.next = Some(other);
                    break;
                }
            }
        }
        Poll::Ready(Ok(Piece::Data(all.freeze())))
    }

    /// Sends as much of the piece as the upstream takes.
    fn poll_piece(&mut self, cx: &mut Context<'_>, place: &Rc<Stream>) -> Poll<()> {
        let Some(stream) = &mut self.stream else {
            self.piece.clear();
            return Poll::Ready(());
        };
        stream.reserve_capacity(self.piece.len());
        while stream.capacity() == 0 {
            let Poll::Ready(capacity) = stream.poll_capacity(cx) else {
                self.starving.get_or_insert_with(|| Starving::new(place));
                return Poll::Pending;
            };
            if !matches!(capacity, Some(Ok(_))) {
                // What the upstream has answered says what became of the request.
                (self.stream, self.starving) = (None, None);
                return Poll::Ready(());
            }
        }
        self.starving = None;
        let part = self.piece.split_to(stream.capacity().min(self.piece.len()));
        self.ended = self.piece.is_empty() && self.is_over();
        self.send(part, self.ended);
        Poll::Ready(())
    }

    fn send(&mut self, data: Bytes, ends: bool) {
        if self.stream.as_mut().is_some_and(|stream| stream.send_data(data, ends).is_err()) {
            self.stream = None;
        }
    }
}

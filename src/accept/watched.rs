//! The answer on a stream of HTTP/2, and how fast its client takes it.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::{Duration, Instant};

use bytes::{Buf, Bytes};
use http::HeaderMap;
use http_body::{Body, Frame, SizeHint};

use super::Taken;
use super::peer::Peer;

/// An answer of one piece ends with that, up to this length, which is that of a frame (RFC 9113, 4.2). The end of every
/// other one is said when all of it has been taken: until then its stream can be ended alone.
const SMALL: usize = 16 * 1024;
/// Pieces that wait for a client: each costs some 300 bytes beside what it holds, which the bound of bytes does not see.
const PIECES: usize = 64;

/// How fast the client takes the answer of a stream.
#[derive(Debug)]
pub(super) struct Pace {
    peer: Rc<Peer>,
    is_stream: bool,
    /// Until when the client must take some of what there is for it, where there is something.
    until: Cell<Option<Instant>>,
    /// Pieces that it has not taken whole.
    untaken: Cell<usize>,
    /// The body of the request is on its way.
    uploads: Cell<bool>,
    /// Too slow.
    ended: Cell<bool>,
    /// Who waits until no more pieces than this are untaken.
    waker: RefCell<Option<(usize, Waker)>>,
}

/// The body of an answer, which notes when the client has something to take.
#[derive(Debug)]
pub(super) struct Watched<B: Taken> {
    body: B,
    pace: Rc<Pace>,
    patience: Duration,
    place: Place,
}

/// How far an answer has been handed on.
#[derive(Debug)]
enum Place {
    /// Nothing of it.
    Begin,
    /// All of it, in one small piece.
    Whole,
    /// Some of it.
    Within,
    /// All but its end, and the trailers that come with that.
    End(Option<HeaderMap>),
}

/// A piece of an answer, until the client has taken it.
#[derive(Debug)]
pub(super) struct Piece {
    bytes: Bytes,
    pace: Rc<Pace>,
    patience: Duration,
}

impl Pace {
    /// Of a stream of this client, which has one more for as long as this is there; or of what goes on beside one.
    pub(super) fn new(peer: Rc<Peer>, is_stream: bool) -> Self {
        if is_stream {
            peer.opens();
        }
        let (until, untaken, uploads, ended, waker) = Default::default();
        Self { peer, is_stream, until, untaken, uploads, ended, waker }
    }

    /// Until when the client must take some of what there is for it, where there is something.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until.get()
    }

    /// The client has yet to take something.
    pub(super) fn is_untaken(&self) -> bool {
        self.untaken.get() > 0
    }

    /// Something is under way, whether its task has ended or not.
    pub(super) fn is_open(&self) -> bool {
        self.is_untaken() || self.uploads.get()
    }

    /// Whether the body of the request is on its way.
    pub(super) fn uploads(&self, uploads: bool) {
        self.uploads.set(uploads);
        // Nothing may be under way any more.
        self.peer.wake();
    }

    /// It was too slow.
    pub(super) fn end(&self) {
        self.ended.set(true);
    }

    /// Ready when no more pieces than this are untaken.
    fn poll_taken(&self, but: usize, cx: &Context<'_>) -> Poll<()> {
        if self.untaken.get() <= but {
            return Poll::Ready(());
        }
        self.waker.replace(Some((but, cx.waker().clone())));
        Poll::Pending
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        if self.is_stream {
            self.peer.ends();
        }
    }
}

impl<B: Taken> Watched<B> {
    pub(super) fn new(body: B, pace: Rc<Pace>, patience: Duration) -> Self {
        Self { body, pace, patience, place: Place::Begin }
    }

    fn piece(&mut self, bytes: Bytes) -> Piece {
        let is_whole =
            matches!(self.place, Place::Begin) && bytes.len() <= SMALL && self.body.is_end_stream();
        self.place = if is_whole { Place::Whole } else { Place::Within };
        let Self { pace, patience, .. } = self;
        pace.untaken.set(pace.untaken.get() + 1);
        pace.until.set(Some(pace.peer.clock().now() + *patience));
        pace.peer.wait_no_longer(*patience);
        Piece { bytes, pace: Rc::clone(pace), patience: *patience }
    }
}

impl<B: Taken> Drop for Watched<B> {
    fn drop(&mut self) {
        if self.pace.ended.get() {
            self.body.too_slow();
        }
    }
}

impl<B: Taken> Body for Watched<B> {
    type Data = Piece;
    type Error = B::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Piece>, B::Error>>> {
        let this = self.get_mut();
        if !matches!(this.place, Place::End(_)) {
            ready!(this.pace.poll_taken(PIECES - 1, cx));
            let frame = match ready!(Pin::new(&mut this.body).poll_frame(cx)) {
                None => None,
                Some(frame) => match frame?.into_data() {
                    Ok(bytes) => return Poll::Ready(Some(Ok(Frame::data(this.piece(bytes))))),
                    Err(frame) => frame.into_trailers().ok(),
                },
            };
            this.place = Place::End(frame);
        }
        ready!(this.pace.poll_taken(0, cx));
        let Place::End(trailers) = &mut this.place else { return Poll::Ready(None) };
        Poll::Ready(trailers.take().map(|trailers| Ok(Frame::trailers(trailers))))
    }

    fn is_end_stream(&self) -> bool {
        match self.place {
            Place::Begin => self.body.is_end_stream(),
            Place::Whole => true,
            Place::Within | Place::End(_) => false,
        }
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Buf for Piece {
    fn remaining(&self) -> usize {
        self.bytes.len()
    }

    fn chunk(&self) -> &[u8] {
        &self.bytes
    }

    fn advance(&mut self, count: usize) {
        self.bytes.advance(count);
        self.pace.until.set(Some(self.pace.peer.clock().now() + self.patience));
    }
}

impl Drop for Piece {
    fn drop(&mut self) {
        let pace = &self.pace;
        pace.untaken.set(pace.untaken.get() - 1);
        if pace.untaken.get() == 0 {
            pace.until.set(None);
        }
        if let Some((_, waker)) = pace.waker.borrow_mut().take_if(|(but, _)| pace.untaken.get() <= *but) {
            waker.wake();
        }
    }
}

//! A client's HTTP/1 connection: its socket, what has been read from it, and the body that is on its way.

use std::cell::{Cell, RefCell};
use std::fmt;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker, ready};
use std::time::Duration;

use bytes::Bytes;
use http_body::Frame;
use tokio::io::AsyncWrite as _;

use super::body::Broken;
use super::peer::Peer;
use super::upload::UNWANTED;
use crate::message::chunk::Chunk;
use crate::message::framing::{Framing, Step};
use crate::socket::Socket;

/// Asks the client for its body (RFC 9110, 15.2.1).
const CONTINUE: &[u8] = b"HTTP/1.1 100 Continue\r\n\r\n";

/// A client's HTTP/1 connection.
pub(super) struct Link {
    /// The other end.
    pub(super) peer: Rc<Peer>,
    socket: RefCell<Socket>,
    chunk: Rc<Chunk>,
    read: RefCell<Bytes>,
    /// Of the request's body, what is still to come.
    coming: RefCell<Option<Framing>>,
    /// Counts the requests: who has held the body of one may not read that of the next.
    turn: Cell<u64>,
    /// What is left to be said of [`CONTINUE`].
    asking: Cell<&'static [u8]>,
    /// Something of it may rest in TLS.
    rests: Cell<bool>,
    /// The client waits to be asked for its body, and will not be.
    unasked: Cell<bool>,
    /// Nobody reads the body any more.
    left: Cell<bool>,
    /// Nobody serves it any more.
    dead: Cell<bool>,
    /// Who waits for the body.
    reader: RefCell<Option<Waker>>,
}

impl fmt::Debug for Link {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Link").field("peer", &self.peer.ip).finish_non_exhaustive()
    }
}

impl Link {
    /// Of a socket, from which this has been read.
    pub(super) fn new(socket: Socket, read: Bytes, peer: Rc<Peer>, chunk: Rc<Chunk>) -> Self {
        Self {
            peer,
            socket: RefCell::new(socket),
            chunk,
            read: RefCell::new(read),
            coming: RefCell::new(None),
            turn: Cell::new(0),
            asking: Cell::new(b""),
            rests: Cell::new(false),
            unasked: Cell::new(false),
            left: Cell::new(false),
            dead: Cell::new(false),
            reader: RefCell::new(None),
        }
    }

    /// What has been read, and not used.
    pub(super) fn take_read(&self) -> Bytes {
        self.read.take()
    }

    /// Something has been read that is not used yet.
    pub(super) fn has_read(&self) -> bool {
        !self.read.borrow().is_empty()
    }

    /// It is used later.
    pub(super) fn put_back(&self, read: Bytes) {
        // Nothing that is over holds on to a chunk.
        if !read.is_empty() {
            self.read.replace(read);
        }
    }

    /// Reads what has come; nothing is the end.
    pub(super) fn poll_read(&self, cx: &mut Context<'_>) -> Poll<io::Result<Bytes>> {
        self.chunk.poll_fill(cx, Pin::new(&mut *self.socket.borrow_mut()))
    }

    /// Writes what it can of these parts, which TLS may hold back; an error where the client takes nothing for too long.
    pub(super) fn poll_write(
        &self,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
        limit: Duration,
    ) -> Poll<io::Result<usize>> {
        let written = self.socket.borrow_mut().poll_put(cx, parts);
        if written.is_pending() { self.poll_late(cx, limit).map(Err) } else { written }
    }

    /// Sends what TLS holds back; an error where the client takes nothing for too long.
    pub(super) fn poll_flush(&self, cx: &mut Context<'_>, limit: Duration) -> Poll<io::Result<()>> {
        let mut socket = self.socket.borrow_mut();
        if !socket.is_buffered() {
            return Poll::Ready(Ok(()));
        }
        let flushed = Pin::new(&mut *socket).poll_flush(cx);
        if flushed.is_pending() {
            return self.poll_late(cx, limit).map(Err);
        }
        self.peer.rest();
        flushed
    }

    /// Sends what TLS holds back; ready when the client has left, or takes nothing for too long.
    pub(super) fn poll_lost(&self, cx: &mut Context<'_>, limit: Duration) -> Poll<()> {
        match self.poll_flush(cx, limit) {
            Poll::Ready(Err(_)) => Poll::Ready(()),
            Poll::Ready(Ok(())) | Poll::Pending => self.poll_gone(cx),
        }
    }

    /// Ready when the client has taken nothing for too long.
    fn poll_late(&self, cx: &mut Context<'_>, limit: Duration) -> Poll<io::Error> {
        if self.peer.is_late() {
            return Poll::Ready(ErrorKind::TimedOut.into());
        }
        self.peer.watch(cx);
        if !self.peer.is_waited_for() {
            self.peer.wait(limit);
        }
        Poll::Pending
    }

    /// A request begins, with this body.
    pub(super) fn begin(&self, body: Option<Framing>, asks: bool) {
        self.turn.set(self.turn.get() + 1);
        self.unasked.set(false);
        self.asking.set(if asks && body.is_some() { CONTINUE } else { b"" });
        self.coming.replace(body);
        self.left.set(false);
    }

    /// The number of the request that is served.
    pub(super) fn turn(&self) -> u64 {
        self.turn.get()
    }

    /// Bytes of the body that are still to come, where that is known; `None` where its end is not.
    pub(super) fn length(&self) -> Option<u64> {
        self.coming.borrow().as_ref().map_or(Some(0), Framing::left)
    }

    /// All of the body has been read.
    pub(super) fn is_whole(&self) -> bool {
        self.coming.borrow().is_none()
    }

    /// Reads the next piece of the body, after asking for it where the client wants to be asked.
    pub(super) fn poll_body(&self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        let mut coming = self.coming.borrow_mut();
        if self.dead.get() {
            return Poll::Ready(Some(Err(Broken::Gone)));
        }
        let frame = loop {
            let Some(framing) = &mut *coming else { return Poll::Ready(None) };
            let step = framing.next(&mut self.read.borrow_mut());
            match step.map_err(Broken::Invalid)? {
                Step::Data(data) => break Some(Frame::data(data)),
                Step::Trailers(trailers) => break Some(Frame::trailers(trailers)),
                Step::End => break None,
                Step::More => {}
            }
            ready!(self.poll_ask(cx)).map_err(|_| Broken::Gone)?;
            let Poll::Ready(read) = self.poll_read(cx) else {
                self.reader.replace(Some(cx.waker().clone()));
                return Poll::Pending;
            };
            let read = read.map_err(|_| Broken::Gone)?;
            if read.is_empty() {
                self.dead.set(true);
                return Poll::Ready(Some(Err(Broken::Gone)));
            }
            self.read.replace(read);
        };
        if coming.as_ref().is_some_and(Framing::is_end) {
            *coming = None;
            // Whoever serves the connection may read from it again.
            self.peer.wake();
        }
        Poll::Ready(frame.map(Ok))
    }

    /// An answer begins: the client is not asked any more; where that was begun, it is finished.
    pub(super) fn stop_asking(&self, out: &mut Vec<u8>) {
        let left = self.asking.take();
        if left.len() == CONTINUE.len() {
            self.unasked.set(true);
        } else {
            out.extend_from_slice(left);
        }
    }

    fn poll_ask(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while let asking @ [_, ..] = self.asking.get() {
            let written = ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_write(cx, asking))?;
            self.asking.set(asking.get(written..).unwrap_or_default());
            self.rests.set(true);
        }
        // Where there is nothing, it is not asked: a socket wakes the last who asked, and that may be the answer's to hear.
        if self.rests.get() {
            ready!(Pin::new(&mut *self.socket.borrow_mut()).poll_flush(cx))?;
            self.rests.set(false);
        }
        Poll::Ready(Ok(()))
    }

    /// Nobody reads the body any more.
    pub(super) fn leave(&self) {
        self.left.set(true);
        self.peer.wake();
    }

    /// Whether the connection can be used again after this request: its body has an end that is near, or somebody reads it.
    pub(super) fn can_go_on(&self) -> bool {
        let near = !self.unasked.get() && self.length().is_some_and(|length| length <= UNWANTED);
        self.is_whole() || near || !self.left.get()
    }

    /// Ready when the body is whole: whoever reads it has read it, or what nobody wants has been thrown away.
    pub(super) fn poll_whole(&self, cx: &mut Context<'_>) -> Poll<Result<(), Broken>> {
        self.peer.watch(cx);
        while self.left.get() && !self.is_whole() {
            if self.peer.is_late() || !self.can_go_on() {
                return Poll::Ready(Err(Broken::Gone));
            }
            if let Some(Err(broken)) = ready!(self.poll_body(cx)) {
                return Poll::Ready(Err(broken));
            }
        }
        if self.is_whole() { Poll::Ready(Ok(())) } else { Poll::Pending }
    }

    /// Ready when the client has left. It is not asked where the body is on its way, which says so itself, nor where a
    /// next request has come.
    pub(super) fn poll_gone(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.peer.watch(cx);
        if !self.is_whole() || self.has_read() {
            return Poll::Pending;
        }
        match ready!(self.poll_read(cx)) {
            Ok(read) if !read.is_empty() => {
                self.read.replace(read);
                Poll::Pending
            }
            Ok(_) | Err(_) => Poll::Ready(()),
        }
    }

    /// Says goodbye, with the next flush, to a client that sends no other request, where nothing of it is left to be read;
    /// false where something is.
    pub(super) fn say_goodbye(&self, cx: &mut Context<'_>) -> bool {
        let over = self.poll_gone(cx).is_pending() && self.is_whole() && !self.has_read();
        if over {
            self.socket.borrow_mut().say_goodbye();
        }
        over
    }

    /// Nobody serves it any more, or nobody should: the client has ended in the middle of a body.
    pub(super) fn is_dead(&self) -> bool {
        self.dead.get()
    }

    /// Nobody serves it any more: who still reads a body from it hears that the client has left.
    pub(super) fn die(&self) {
        self.dead.set(true);
        if let Some(reader) = self.reader.take() {
            reader.wake();
        }
    }

    /// Ready when the client has been told that nothing more is sent, or cannot be told.
    pub(super) fn poll_end(&self, cx: &mut Context<'_>) -> Poll<()> {
        Pin::new(&mut *self.socket.borrow_mut()).poll_shutdown(cx).map(drop)
    }

    /// Reads on, for nobody; ready when the client has ended too. While somebody reads the body, that is waited for.
    pub(super) fn poll_read_out(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.peer.watch(cx);
        while self.is_whole() || self.left.get() {
            match ready!(self.poll_read(cx)) {
                Ok(read) if !read.is_empty() => {}
                Ok(_) | Err(_) => return Poll::Ready(()),
            }
        }
        Poll::Pending
    }

    /// The connection is to end without a goodbye: what has been sent must not look whole.
    pub(super) fn reset(&self) {
        self.socket.borrow().reset_at_end();
    }

    /// The socket, and what has been read from it; `None` where somebody still reads.
    pub(super) fn into_socket(this: Rc<Self>) -> Option<(Socket, Bytes)> {
        Rc::into_inner(this).map(|link| (link.socket.into_inner(), link.read.into_inner()))
    }
}

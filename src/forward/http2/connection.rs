//! One connection of HTTP/2 to an upstream, which many requests share.

use std::cell::Cell;
use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::Bytes;
use h2::SendStream;
use h2::client::{Builder, ResponseFuture, SendRequest};
use http::Request;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::spawn_local;

use super::fault;
use crate::forward::fault::Fault;
use crate::forward::upstream::Upstream;
use crate::message::frames::{self, Frames};
use crate::socket::Socket;

/// Requests at once on a connection, where the upstream allows as many: what most servers allow (RFC 9113, 6.5.2).
const STREAMS: u16 = 100;
/// What an upstream may have on its way to us that its client has not taken, on each stream. All of them fit into the
/// connection's: a client that takes nothing holds up nobody else.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * STREAMS as u32;
/// What small pieces cost beside what they hold, all that their clients have not taken together: four times as much. One
/// window in pieces of ten bytes costs a sixteenth of it.
const PIECES: usize = CONNECTION_WINDOW as usize * 4;
/// What waits for an upstream that does not take it, on each stream.
const UNTAKEN: usize = 64 * 1024;
/// The head of an answer, and its trailers, may have this many bytes each: what they may have over HTTP/1.
const HEAD: usize = 64 * 1024;
/// What may be on its way to an upstream on all streams together, before it grants more (RFC 9113, 6.9.2).
const FIRST_WINDOW: u64 = 65_535;
/// Where a request that its service does not read has taken all of that, and those that wait for some have got none for so
/// long, the next go elsewhere.
const STARVED: Duration = Duration::from_millis(100);
/// The head of a frame (RFC 9113, 4.1).
const FRAME_HEAD: u64 = 9;

/// One connection of HTTP/2 to an upstream.
#[derive(Debug)]
pub struct Connection {
    /// Where it leads.
    address: SocketAddr,
    sender: SendRequest<Bytes>,
    state: Rc<State>,
    /// Requests on it.
    open: Cell<usize>,
    /// There has been one.
    used: Cell<bool>,
    /// Until when it is kept while there are none.
    until: Cell<Instant>,
    /// Requests that wait for room to go on in, and since when none of them has got any.
    starving: Cell<(usize, Instant)>,
}

/// What is known of it beside its requests.
#[derive(Debug, Default)]
struct State {
    /// Bytes that have come.
    heard: Cell<u64>,
    /// Bytes of bodies that have gone, and that the upstream has granted beyond the first.
    sent: Cell<u64>,
    granted: Cell<u64>,
    /// It takes no more requests.
    closed: Cell<bool>,
}

impl Connection {
    /// Says hello, and waits until the upstream has: what does not speak HTTP/2 gets no request.
    pub(super) async fn open(socket: Socket, address: SocketAddr, until: Instant) -> Result<Self, Fault> {
        let state = Rc::<State>::default();
        let (read, written) = (Frames::of_server(HEAD), Frames::of_client(usize::MAX));
        let socket = Heard { socket, state: Rc::clone(&state), read, written };
        let (sender, mut connection) = Builder::new()
            .enable_push(false)
            .initial_window_size(STREAM_WINDOW)
            .initial_connection_window_size(CONNECTION_WINDOW)
            .max_send_buffer_size(UNTAKEN)
            .max_header_list_size(frames::told(HEAD))
            .data_frame_budget(PIECES)
            // What comes behind a reset of ours counts here too: clients that leave would end the streams of others.
            .max_local_error_reset_streams(None)
            .handshake(socket)
            .await
            .map_err(fault)?;
        poll_fn(|cx| match Pin::new(&mut connection).poll(cx) {
            Poll::Ready(Err(error)) => Poll::Ready(Err(fault(error))),
            Poll::Ready(Ok(())) => Poll::Ready(Err(Fault::Closed(ErrorKind::UnexpectedEof.into()))),
            Poll::Pending if state.heard.get() >= FRAME_HEAD => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await?;
        let closed = Rc::clone(&state);
        spawn_local(async move {
            // Its requests are told how it ended.
            let _ = connection.await;
            closed.closed.set(true);
        });
        let (open, used, starving) = (Cell::new(0), Cell::new(false), Cell::new((0, until)));
        Ok(Self { address, sender, state, open, used, until: Cell::new(until), starving })
    }

    /// Whether it takes another request.
    pub(super) fn has_room(&self, upstream: &Upstream, now: Instant) -> bool {
        let most = self.sender.current_max_send_streams().min(STREAMS.into());
        let (starving, since) = self.starving.get();
        let window = (FIRST_WINDOW + self.state.granted.get()).saturating_sub(self.state.sent.get());
        let starved = window == 0 && starving > 0 && now.saturating_duration_since(since) >= STARVED;
        self.is_kept(now) && self.open.get() < most && !starved && upstream.is_at(&self.address)
    }

    /// A request begins to wait for room to go on in.
    pub(super) fn starve(&self, now: Instant) {
        let (starving, since) = self.starving.get();
        self.starving.set((starving + 1, if starving == 0 { now } else { since }));
    }

    /// One of them has got some, or has gone.
    pub(super) fn feed(&self, now: Instant) {
        self.starving.set((self.starving.get().0 - 1, now));
    }

    /// Whether it may still take requests.
    pub(super) fn is_kept(&self, now: Instant) -> bool {
        !self.state.closed.get() && (self.open.get() > 0 || self.until.get() > now)
    }

    /// It takes no more requests; those that are on it go on.
    pub(super) fn retire(&self) {
        self.state.closed.set(true);
    }

    /// Bytes that have come over it.
    pub(super) fn heard(&self) -> u64 {
        self.state.heard.get()
    }

    /// A request comes; true where there was one before.
    pub(super) fn enter(&self) -> bool {
        self.open.set(self.open.get() + 1);
        self.used.replace(true)
    }

    /// A request has gone; after the last it is kept until then.
    pub(super) fn leave(&self, until: Instant) {
        self.open.set(self.open.get() - 1);
        self.until.set(until);
    }

    /// Sends the head of a request, which is all of it where it `ends` so.
    pub(super) fn send(
        &self,
        request: Request<()>,
        ends: bool,
    ) -> Result<(ResponseFuture, SendStream<Bytes>), h2::Error> {
        self.sender.clone().send_request(request, ends)
    }
}

/// A socket that counts what comes and goes.
struct Heard {
    socket: Socket,
    state: Rc<State>,
    read: Frames,
    written: Frames,
}

impl Heard {
    /// So many of these bytes have gone.
    fn wrote<'b>(&mut self, mut count: usize, parts: impl IntoIterator<Item = &'b [u8]>) {
        for part in parts {
            let gone = part.get(..count).unwrap_or(part);
            // How large its heads are is the h2 crate's concern.
            let _ = self.written.pass(gone);
            count -= gone.len();
        }
        self.state.sent.set(self.written.data());
    }
}

impl AsyncRead for Heard {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        let read = Pin::new(&mut this.socket).poll_read(cx, buffer);
        let came = buffer.filled().get(before..).unwrap_or_default();
        this.state.heard.set(this.state.heard.get() + came.len() as u64);
        // Frames that do nothing for a request are not counted: the upstream is no stranger.
        this.read.pass(came).map_err(|error| io::Error::new(ErrorKind::InvalidData, error))?;
        this.state.granted.set(this.read.granted());
        read
    }
}

impl AsyncWrite for Heard {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        if let Poll::Ready(Ok(count)) = written {
            this.wrote(count, [bytes]);
        }
        written
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().socket).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.socket.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write_vectored(cx, parts);
        if let Poll::Ready(Ok(count)) = written {
            this.wrote(count, parts.iter().map(|part| &**part));
        }
        written
    }
}

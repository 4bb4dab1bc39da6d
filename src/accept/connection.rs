//! One client connection: which HTTP it speaks, and its requests until it ends.

use std::convert::Infallible;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::{Executor, ReadBufCursor};
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Door;
use super::drain::Drain;
use super::peer::Peer;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// How long a client may go on sending after our last answer.
const LINGER: Duration = Duration::from_secs(2);

/// Serves a connection to its end. What ends it is the client's matter, or has been told by its requests.
pub async fn serve<D: Door>(stream: TcpStream, peer: Rc<Peer>, door: Rc<D>, mut drain: Drain) {
    let sniffed = tokio::select! {
        sniffed = Sniffed::new(stream) => sniffed,
        () = drain.closing() => return,
    };
    let Ok(Some(io)) = sniffed else { return };
    let is_http2 = io.seen().starts_with(PREFACE);
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, peer) = (Rc::clone(&door), Rc::clone(&peer));
        async move { Ok::<_, Infallible>(door.serve(peer, request).await) }
    });
    if is_http2 {
        let mut connection = pin!(http2::Builder::new(Local).serve_connection(io, service));
        tokio::select! {
            _ = &mut connection => return,
            () = drain.closing() => connection.as_mut().graceful_shutdown(),
        }
        let _ = connection.await;
    } else {
        let mut connection = http1::Builder::new().serve_connection(io, service).with_upgrades();
        tokio::select! {
            _ = &mut connection => {
                // An upgraded connection is somebody else's now.
                if let Some(parts) = connection.into_parts() {
                    Box::pin(linger(parts.io.stream.into_inner(), drain)).await;
                }
            }
            () = drain.closing() => {
                Pin::new(&mut connection).graceful_shutdown();
                let _ = connection.await;
            }
        }
    }
}

/// Reads on for a moment after our last answer. A client that is still sending, since it was answered early, would
/// lose that answer if the socket were closed under its bytes (RFC 9112, 9.6).
async fn linger(mut stream: TcpStream, mut drain: Drain) {
    let ended = async {
        let mut scratch = vec![0; 16 * 1024];
        let _ = stream.shutdown().await;
        while let Ok(1..) = stream.read(&mut scratch).await {}
    };
    tokio::select! {
        _ = timeout(LINGER, ended) => {}
        () = drain.closing() => {}
    }
}

/// The socket of a connection that has been upgraded, and what was read from it beyond the request.
///
/// # Panics
///
/// Where the connection is not one of [`serve`].
#[must_use]
pub fn taken_over(upgraded: Upgraded) -> (TcpStream, Bytes) {
    let parts = upgraded.downcast::<Sniffed>().expect("clients are upgraded on connections of ours alone");
    (parts.io.stream.into_inner(), parts.read_buf)
}

/// Tasks of a connection stay on its worker.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

/// A socket whose first bytes have been looked at, and are read again. Until a client says something, this and
/// the socket are all that it costs.
#[derive(Debug)]
struct Sniffed {
    seen: [u8; PREFACE.len()],
    length: usize,
    again: usize,
    stream: TokioIo<TcpStream>,
}

impl Sniffed {
    /// Reads until it is clear which HTTP this is; `None` where the client has left before.
    async fn new(mut stream: TcpStream) -> io::Result<Option<Self>> {
        let mut seen = [0; PREFACE.len()];
        let mut length = 0;
        while length < seen.len() {
            let count = stream.read(seen.get_mut(length..).unwrap_or_default()).await?;
            length += count;
            let so_far = seen.get(..length).unwrap_or_default();
            if count == 0 && length == 0 {
                return Ok(None);
            }
            if count == 0 || !PREFACE.starts_with(so_far) {
                break;
            }
        }
        Ok(Some(Self { seen, length, again: 0, stream: TokioIo::new(stream) }))
    }

    fn seen(&self) -> &[u8] {
        self.seen.get(..self.length).unwrap_or_default()
    }
}

impl hyper::rt::Read for Sniffed {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.again < this.length {
            let left = this.seen.get(this.again..this.length).unwrap_or_default();
            let count = left.len().min(buffer.remaining());
            buffer.put_slice(left.get(..count).unwrap_or_default());
            this.again += count;
            return Poll::Ready(Ok(()));
        }
        Pin::new(&mut this.stream).poll_read(cx, buffer)
    }
}

impl hyper::rt::Write for Sniffed {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().stream).poll_write_vectored(cx, parts)
    }
}

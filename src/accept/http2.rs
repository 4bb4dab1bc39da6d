//! Requests of a client over HTTP/2, which hyper reads.

use std::convert::Infallible;
use std::error::Error as _;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;

use super::body::Incoming;
use super::peer::Peer;
use super::streams::Streams;
use super::{Door, Malformed};
use crate::message::head::Head;
use crate::socket::Socket;

/// What a client may have on its way to us that we have not taken: a stream's first window, and all of them together.
/// The protocol's own 64 KiB would have a connection wait for every stream in turn.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What waits for a client that does not take it, on each stream.
const UNTAKEN: usize = 64 * 1024;
/// After a goodbye of ours.
const LINGER: Duration = Duration::from_secs(2);

/// Serves a connection to its end. What ends it is the client's matter, or has been told by its requests.
pub(super) async fn serve<D: Door>(socket: Socket, read: Bytes, peer: Rc<Peer>, door: Rc<D>) {
    let bounds = door.bounds();
    let streams = Streams::new(Rc::clone(&peer));
    let (served, watching, serving) = (Rc::clone(&peer), streams.clone(), Rc::clone(&door));
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (door, peer, streams) = (Rc::clone(&serving), Rc::clone(&served), watching.clone());
        async move {
            let (parts, body) = request.into_parts();
            let answer = match Head::of(&parts, &bounds.size) {
                Ok(head) => door.serve(peer, head, Incoming::Http2(body)).await.answer,
                Err(invalid) => door.refuse(&peer, None, Malformed::Invalid(invalid)),
            };
            let mut response = Response::new(streams.watched(answer.body, bounds.patience));
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.fields.into_map();
            Ok::<_, Infallible>(response)
        }
    });
    let socket = Again { socket: TokioIo::new(socket), read };
    let connection = http2::Builder::new(streams.clone())
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(u32::try_from(bounds.size.head).unwrap_or(u32::MAX))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(UNTAKEN)
        .max_pending_accept_reset_streams(bounds.resets)
        .max_local_error_reset_streams(bounds.resets)
        .serve_connection(socket, service);
    let mut connection = pin!(connection);
    let (mut closing, mut idle) = (false, true);
    // Until the first request it has as long as a head may take.
    peer.wait(bounds.head_wait);
    let ended = poll_fn(|cx| {
        peer.watch(cx);
        if idle && peer.is_late() && closing {
            return Poll::Ready(Ok(()));
        }
        if !closing && (peer.is_closing() || (idle && peer.is_late())) {
            closing = true;
            connection.as_mut().graceful_shutdown();
            peer.wait(LINGER);
        } else if !idle && peer.is_late() {
            streams.end_stuck(bounds.patience);
        }
        let polled = connection.as_mut().poll(cx);
        if idle != streams.is_empty() {
            idle = !idle;
            if idle {
                peer.idle(if closing { LINGER } else { bounds.idle });
            } else {
                peer.rest();
            }
        }
        polled
    })
    .await;
    if let Err(error) = ended {
        door.broke(reason(&error));
    }
}

/// What ended a connection that did not end well, by the protocol's own names (RFC 9113, 7).
fn reason(error: &hyper::Error) -> &'static str {
    let cause =
        error.source().and_then(|cause| cause.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    let named = |known: &(h2::Reason, &'static str)| (Some(known.0) == cause).then_some(known.1);
    NAMES.iter().find_map(named).unwrap_or("io")
}

const NAMES: [(h2::Reason, &str); 8] = [
    (h2::Reason::PROTOCOL_ERROR, "protocol_error"),
    (h2::Reason::INTERNAL_ERROR, "internal_error"),
    (h2::Reason::FLOW_CONTROL_ERROR, "flow_control_error"),
    (h2::Reason::SETTINGS_TIMEOUT, "settings_timeout"),
    (h2::Reason::STREAM_CLOSED, "stream_closed"),
    (h2::Reason::FRAME_SIZE_ERROR, "frame_size_error"),
    (h2::Reason::COMPRESSION_ERROR, "compression_error"),
    (h2::Reason::ENHANCE_YOUR_CALM, "enhance_your_calm"),
];

/// A socket of which something has been read that is read again.
struct Again {
    socket: TokioIo<Socket>,
    read: Bytes,
}

impl Read for Again {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.read.is_empty() {
            return Pin::new(&mut this.socket).poll_read(cx, buffer);
        }
        let count = this.read.len().min(buffer.remaining());
        buffer.put_slice(&this.read.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl Write for Again {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write(cx, bytes)
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
        parts: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().socket).poll_write_vectored(cx, parts)
    }
}

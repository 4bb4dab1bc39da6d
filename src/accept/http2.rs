//! Requests of a client over HTTP/2, which hyper reads.

use std::convert::Infallible;
use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response};
use hyper::rt::{Executor, Read, ReadBufCursor, Write};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

use super::Door;
use super::body::Incoming;
use super::peer::Peer;
use crate::message::head::Head;

/// Serves a connection to its end. What ends it is the client's matter, or has been told by its requests.
pub(super) async fn serve<D: Door>(socket: TcpStream, read: Bytes, peer: Rc<Peer>, door: Rc<D>) {
    let served = Rc::clone(&peer);
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        let (door, peer) = (Rc::clone(&door), Rc::clone(&served));
        async move {
            let (parts, body) = request.into_parts();
            let head = Head::of(&parts);
            let answer = door.serve(peer, head, Incoming::Http2(body)).await.answer;
            let mut response = Response::new(answer.body);
            *response.status_mut() = answer.status;
            *response.headers_mut() = answer.fields.into_map();
            Ok::<_, Infallible>(response)
        }
    });
    let socket = Again { socket: TokioIo::new(socket), read };
    let mut connection = pin!(http2::Builder::new(Local).serve_connection(socket, service));
    let mut closing = false;
    poll_fn(|cx| {
        peer.watch(cx);
        if peer.is_closing() && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// A socket of which something has been read that is read again.
struct Again {
    socket: TokioIo<TcpStream>,
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

/// Tasks of a connection stay on its worker.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

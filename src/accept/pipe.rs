//! A client that has switched to another protocol: bytes both ways.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use hyper::upgrade::Upgraded;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::task::AbortHandle;

use super::streams::Sender;
use crate::socket::Socket;

/// What the bytes of a channel pass through.
#[derive(Debug)]
pub enum Pipe {
    /// A connection that was HTTP/1.
    Connection(Socket),
    /// A stream of a connection of HTTP/2.
    Stream(Stream),
}

/// A stream that was answered with 200 (RFC 8441, 5). Dropping it ends it well, once what was written has gone.
#[derive(Debug)]
pub struct Stream {
    io: TokioIo<Upgraded>,
    sender: Rc<Sender>,
}

impl Pipe {
    pub(super) fn stream(upgraded: Upgraded, sender: Rc<Sender>) -> Self {
        Self::Stream(Stream { io: TokioIo::new(upgraded), sender })
    }

    /// Aborting this resets the stream, where it is one: its client sees a cut and no end.
    #[must_use]
    pub fn cut(&self) -> Option<AbortHandle> {
        match self {
            Self::Connection(_) => None,
            Self::Stream(stream) => stream.sender.task(),
        }
    }
}

impl AsyncRead for Pipe {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(socket) => Pin::new(socket).poll_read(cx, buffer),
            Self::Stream(stream) => Pin::new(&mut stream.io).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Pipe {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Connection(socket) => Pin::new(socket).poll_write(cx, bytes),
            Self::Stream(stream) => {
                // A larger piece would be held whole while its client takes nothing.
                let piece = bytes.get(..PIECE).unwrap_or(bytes);
                Pin::new(&mut stream.io).poll_write(cx, piece)
            }
        }
    }

    /// Says that a stream was reset, too: one that is read looks the same as one that has ended.
    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(socket) => Pin::new(socket).poll_flush(cx),
            Self::Stream(stream) => {
                if stream.sender.poll_ended(cx).is_ready() {
                    return Poll::Ready(Err(ErrorKind::ConnectionReset.into()));
                }
                Pin::new(&mut stream.io).poll_flush(cx)
            }
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Connection(socket) => Pin::new(socket).poll_shutdown(cx),
            Self::Stream(stream) => Pin::new(&mut stream.io).poll_shutdown(cx),
        }
    }
}

/// What is handed to a stream at once: a frame of the size that every client takes (RFC 9113, 4.2).
const PIECE: usize = 16 * 1024;

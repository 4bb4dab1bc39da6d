//! A client's socket.

use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::io::AsyncReadExt as _;
use tokio::net::TcpStream;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// Parts that have this many bytes together are written as one: to copy them costs less than to tell the system of each.
const SMALL: usize = 1024;

/// A client's socket, and what has been read from it and is read again.
#[derive(Debug)]
pub struct Socket {
    stream: TokioIo<TcpStream>,
    again: Bytes,
    stuck: Stuck,
}

/// Whether something is still to be written that the client did not take. Atomic since hyper wants what it upgrades to
/// be `Send`; all of it stays on one thread.
#[derive(Debug, Clone, Default)]
pub struct Stuck(Arc<AtomicBool>);

/// Which HTTP a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Speaks {
    /// HTTP/1.1, or something that is answered in it.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
}

impl Socket {
    /// One that has just been accepted.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: TokioIo::new(stream), again: Bytes::new(), stuck: Stuck::default() }
    }

    /// Reads until it is clear which HTTP this is; `None` where the client has left before. Until it says something,
    /// the socket is all that it costs.
    pub async fn hear(&mut self) -> io::Result<Option<Speaks>> {
        let mut seen = [0; PREFACE.len()];
        let mut length = 0;
        while length < seen.len() {
            let count = self.stream.inner_mut().read(seen.get_mut(length..).unwrap_or_default()).await?;
            length += count;
            let so_far = seen.get(..length).unwrap_or_default();
            if count == 0 && length == 0 {
                return Ok(None);
            }
            if count == 0 || !PREFACE.starts_with(so_far) {
                break;
            }
        }
        let heard = seen.get(..length).unwrap_or_default();
        self.again = Bytes::copy_from_slice(heard);
        Ok(Some(if heard == PREFACE { Speaks::Http2 } else { Speaks::Http1 }))
    }

    /// Ready when there is something new to read, be it the end. What is read again is not new: it was no whole request.
    pub fn poll_readable(&self, cx: &mut Context<'_>) -> Poll<()> {
        self.stream.inner().poll_read_ready(cx).map(drop)
    }

    /// The same socket, with these bytes to be read before what is left of others. They are copied: a slice of nothing
    /// would hold a buffer.
    #[must_use]
    pub fn reading_again(self, first: &[u8]) -> Self {
        Self { again: [first, &*self.again].concat().into(), ..self }
    }

    /// Whether something is still to be written.
    #[must_use]
    pub fn stuck(&self) -> Stuck {
        self.stuck.clone()
    }

    /// Whatever has been read is left behind.
    #[must_use]
    pub fn into_stream(self) -> TcpStream {
        self.stream.into_inner()
    }
}

impl Stuck {
    /// The client takes no more for now.
    #[must_use]
    pub fn is_set(&self) -> bool {
        self.0.load(Ordering::Relaxed)
    }

    fn note(&self, written: Poll<io::Result<usize>>, offered: usize) -> Poll<io::Result<usize>> {
        let whole = matches!(written, Poll::Ready(Ok(count)) if count == offered);
        self.0.store(!whole, Ordering::Relaxed);
        written
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        mut buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        if this.again.is_empty() {
            return Pin::new(&mut this.stream).poll_read(cx, buffer);
        }
        let count = this.again.len().min(buffer.remaining());
        buffer.put_slice(&this.again.split_to(count));
        Poll::Ready(Ok(()))
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        this.stuck.note(Pin::new(&mut this.stream).poll_write(cx, bytes), bytes.len())
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
        let this = self.get_mut();
        let offered = parts.iter().map(|part| part.len()).sum();
        let mut flat = [0; SMALL];
        let written = match flat.get_mut(..offered) {
            Some(flat) => {
                let mut rest = &mut *flat;
                for part in parts {
                    let (here, behind) = rest.split_at_mut(part.len());
                    here.copy_from_slice(part);
                    rest = behind;
                }
                Pin::new(&mut this.stream).poll_write(cx, flat)
            }
            None => Pin::new(&mut this.stream).poll_write_vectored(cx, parts),
        };
        this.stuck.note(written, offered)
    }
}

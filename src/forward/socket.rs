//! A connection to an upstream that is read to its end, though it can no longer be written to.
//!
//! A server may answer before it has the whole body, and close: 413 is the common case. What was still being sent then
//! fails, while the answer lies there to be read. So a write that fails is no failure here: what is written goes
//! nowhere, and reading tells what became of the request.

use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;

/// The socket, and whether the other side still takes what is written.
#[derive(Debug)]
pub struct Socket {
    stream: TokioIo<TcpStream>,
    refused: bool,
}

impl Socket {
    /// One that has just been connected.
    #[must_use]
    pub fn new(stream: TcpStream) -> Self {
        Self { stream: TokioIo::new(stream), refused: false }
    }

    /// What was written, or all of it where it goes nowhere any more.
    fn forgive(&mut self, written: io::Result<usize>, all: usize) -> io::Result<usize> {
        match written {
            Err(error) if matches!(error.kind(), ErrorKind::BrokenPipe | ErrorKind::ConnectionReset) => {
                self.refused = true;
                Ok(all)
            }
            written => written,
        }
    }
}

impl Read for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: ReadBufCursor<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().stream).poll_read(cx, buffer)
    }
}

impl Write for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        if this.refused {
            return Poll::Ready(Ok(bytes.len()));
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write(cx, bytes));
        Poll::Ready(this.forgive(written, bytes.len()))
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
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let all = parts.iter().map(|part| part.len()).sum();
        if this.refused {
            return Poll::Ready(Ok(all));
        }
        let written = ready!(Pin::new(&mut this.stream).poll_write_vectored(cx, parts));
        Poll::Ready(this.forgive(written, all))
    }
}

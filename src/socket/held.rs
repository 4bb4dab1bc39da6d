//! A TCP connection under TLS, which sends what TLS says of itself with what is sent anyway.

use std::io::{self, ErrorKind, IoSlice};
use std::iter::once;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;
use tokio_rustls::rustls::ProtocolVersion;

/// Holds what is written while hands are shaken until something is to be read; what is still held then goes with what is
/// written next, and a flush or a shutdown waits for it as for anything.
#[derive(Debug)]
pub struct Held {
    tcp: TcpStream,
    /// What is held.
    back: Vec<u8>,
    /// Hands are being shaken.
    shaking: bool,
}

impl From<TcpStream> for Held {
    fn from(tcp: TcpStream) -> Self {
        Self { tcp, back: Vec::new(), shaking: true }
    }
}

impl Held {
    /// The connection itself.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        &self.tcp
    }

    /// Sends what a handshake that has failed leaves: why it has. Who does not want to hear it need not.
    pub async fn give_up(mut self) {
        self.shaking = false;
        let _ = self.flush().await;
    }

    /// Sends what is held.
    fn poll_send(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if self.back.is_empty() { Poll::Ready(Ok(())) } else { self.poll_send_with(cx, &[]).map_ok(drop) }
    }

    /// Sends what is held, and behind it what it can of these parts: says how much of them.
    fn poll_send_with(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        loop {
            let parts = parts.iter().map(|part| IoSlice::new(part));
            let all: Vec<_> = once(IoSlice::new(&self.back)).chain(parts).collect();
            let written = ready!(Pin::new(&mut self.tcp).poll_write_vectored(cx, &all))?;
            if written == 0 {
                return Poll::Ready(Err(ErrorKind::WriteZero.into()));
            }
            if let Some(more) = written.checked_sub(self.back.len()) {
                // Its room is given back: it is not needed again.
                self.back = Vec::new();
                return Poll::Ready(Ok(more));
            }
            self.back.drain(..written);
        }
    }
}

/// Hands have been shaken. A ticket of TLS 1.3, or our last word to a server, may go with what is written first; in TLS 1.2
/// the other end waits for ours.
pub async fn settle(stream: impl Into<TlsStream<Held>>) -> io::Result<Box<TlsStream<Held>>> {
    let mut stream = Box::new(stream.into());
    let (held, session) = stream.get_mut();
    held.shaking = false;
    if session.protocol_version() != Some(ProtocolVersion::TLSv1_3) {
        stream.flush().await?;
    }
    Ok(stream)
}

impl AsyncRead for Held {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if self.shaking {
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.tcp).poll_read(cx, buffer)
    }
}

impl AsyncWrite for Held {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        self.poll_write_vectored(cx, &[IoSlice::new(bytes)])
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        if !self.shaking {
            ready!(self.poll_send(cx))?;
        }
        Pin::new(&mut self.tcp).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        ready!(self.poll_send(cx))?;
        Pin::new(&mut self.tcp).poll_shutdown(cx)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        if self.shaking {
            let before = self.back.len();
            for part in parts {
                self.back.extend_from_slice(part);
            }
            return Poll::Ready(Ok(self.back.len() - before));
        }
        if !self.back.is_empty() {
            let more = ready!(self.poll_send_with(cx, parts))?;
            if more > 0 {
                return Poll::Ready(Ok(more));
            }
        }
        Pin::new(&mut self.tcp).poll_write_vectored(cx, parts)
    }
}

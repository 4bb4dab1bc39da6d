//! A TCP connection, bare or under TLS, that is read and written in the same way.

pub mod held;

use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::net::Shutdown;
use std::pin::Pin;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use socket2::SockRef;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::TlsStream;

use held::Held;

/// Bytes that the system takes of us and has not sent yet. By itself it takes megabytes, and wants more only when a third of
/// its room is free: who reads steadily, and slowly, would look as if he took nothing.
pub const UNSENT: u32 = 128 * 1024;

/// A TCP connection, bare or under TLS. Dropping it sends no `close_notify`: only [`AsyncWrite::poll_shutdown`] and
/// [`Socket::say_goodbye`] do, so that what is cut never looks whole (RFC 8446, 6.1).
#[derive(Debug)]
pub enum Socket {
    /// Bare.
    Plain(TcpStream),
    /// Under TLS, whichever end we are. In a box, so that a bare one costs no more than it must.
    Tls(Box<TlsStream<Held>>),
}

impl From<TcpStream> for Socket {
    fn from(tcp: TcpStream) -> Self {
        Self::Plain(tcp)
    }
}

impl Socket {
    /// The TCP connection below.
    #[must_use]
    pub fn tcp(&self) -> &TcpStream {
        match self {
            Self::Plain(tcp) => tcp,
            Self::Tls(tls) => tls.get_ref().0.tcp(),
        }
    }

    /// Whether both ends have agreed on HTTP/2 (RFC 7301); `None` where they have agreed on nothing.
    #[must_use]
    pub fn agreed_on_http2(&self) -> Option<bool> {
        match self {
            Self::Plain(_) => None,
            Self::Tls(tls) => tls.get_ref().1.alpn_protocol().map(|protocol| protocol == b"h2"),
        }
    }

    /// What is written may rest in here until it is flushed.
    #[must_use]
    pub fn is_buffered(&self) -> bool {
        matches!(self, Self::Tls(_))
    }

    /// Writes what it can of these parts. Under TLS that rests in here until it is flushed, while there is room.
    pub fn poll_put(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        if let Self::Tls(tls) = self {
            let mut writer = match &mut **tls {
                TlsStream::Client(stream) => stream.get_mut().1.writer(),
                TlsStream::Server(stream) => stream.get_mut().1.writer(),
            };
            match writer.write_vectored(parts) {
                // It is full: some of what rests is sent first.
                Ok(0) => {}
                put => return Poll::Ready(put),
            }
        }
        match parts {
            [only] => Pin::new(self).poll_write(cx, only),
            several => Pin::new(self).poll_write_vectored(cx, several),
        }
    }

    /// Under TLS, the next flush says that nothing more is written.
    pub fn say_goodbye(&mut self) {
        if let Self::Tls(tls) = self {
            tls.get_mut().1.send_close_notify();
        }
    }

    /// Ends the TCP connection for everybody who reads or writes on it, without a goodbye.
    pub fn cut(&self) {
        // A socket that cannot be shut down has been already.
        let _ = SockRef::from(self.tcp()).shutdown(Shutdown::Both);
    }

    /// When it is dropped, the other end gets a reset, and nothing that has not been sent yet.
    pub fn reset_at_end(&self) {
        // A socket that cannot be told so has ended already.
        let _ = SockRef::from(self.tcp()).set_linger(Some(Duration::ZERO));
    }

    /// Open, and nothing has come that nobody asked for. Costs a system call only where something has. What TLS says of
    /// itself (tickets, keys) is read here and is nothing.
    #[must_use]
    pub fn is_quiet(&mut self) -> bool {
        match self {
            Self::Plain(tcp) => {
                matches!(tcp.try_read(&mut [0]), Err(error) if error.kind() == ErrorKind::WouldBlock)
            }
            Self::Tls(tls) => {
                let mut byte = [0];
                let mut byte = ReadBuf::new(&mut byte);
                Pin::new(tls).poll_read(&mut Context::from_waker(Waker::noop()), &mut byte).is_pending()
            }
        }
    }
}

impl AsyncRead for Socket {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_read(cx, buffer),
            Self::Tls(tls) => Pin::new(tls).poll_read(cx, buffer),
        }
    }
}

impl AsyncWrite for Socket {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write(cx, bytes),
            Self::Tls(tls) => Pin::new(tls).poll_write(cx, bytes),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(tcp) => Pin::new(tcp).poll_write_vectored(cx, parts),
            Self::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, parts),
        }
    }
}

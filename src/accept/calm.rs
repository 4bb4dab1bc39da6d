//! How many frames of a client do nothing for any request. The h2 crate bounds those that cost memory; these cost it work,
//! and there is no end to them by themselves.

use std::cell::Cell;
use std::io::{self, ErrorKind, IoSlice};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::peer::Peer;
use crate::message::frames::Frames;

/// So many seconds' worth may come at once: who connects, or wakes up, says much in a moment.
const AT_ONCE: u32 = 10;
/// For so many bytes that it takes a client may send one frame more: it says what it has taken, for the stream and for the
/// connection, and what we send in small pieces is counted by the piece.
const TAKEN: usize = 32;

/// A connection of HTTP/2, of which something has been read already; reading fails once its client is too busy.
pub(super) struct Calm<S> {
    socket: S,
    read: Bytes,
    frames: Frames,
    allowance: Allowance,
    peer: Rc<Peer>,
    signs: Rc<Signs>,
}

/// What is seen of a client in its frames.
#[derive(Debug, Default)]
pub(super) struct Signs {
    /// It takes nothing of what there is for it.
    pub(super) blocked: Cell<bool>,
    /// It has begun to say a head, or trailers.
    pub(super) in_block: Cell<bool>,
}

/// How many frames may still come.
struct Allowance {
    /// A second.
    rate: u32,
    left: u32,
    since: Instant,
    /// Bytes that the client has taken since the last frame that they were worth.
    taken: usize,
}

impl<S> Calm<S> {
    /// At most `rate` such frames a second, in the long run.
    pub(super) fn new(socket: S, read: Bytes, frames: Frames, rate: u32, peer: Rc<Peer>) -> Self {
        let allowance = Allowance::new(rate, peer.clock().now());
        Self { socket, read, frames, allowance, peer, signs: Rc::default() }
    }

    /// What is seen of the client, as it goes on.
    pub(super) fn signs(&self) -> Rc<Signs> {
        Rc::clone(&self.signs)
    }

    /// Looks at what has been read.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let passed = self.frames.pass(bytes);
        self.signs.in_block.set(self.frames.is_in_block());
        let count = passed.map_err(|error| io::Error::new(ErrorKind::FileTooLarge, error))?;
        if count > 0 && !self.allowance.takes(count, self.peer.clock().now()) {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.signs.blocked.set(written.is_pending());
        if let Poll::Ready(Ok(count)) = written {
            self.allowance.took(count);
        }
        written
    }
}

impl Allowance {
    fn new(rate: u32, now: Instant) -> Self {
        Self { rate, left: rate.saturating_mul(AT_ONCE), since: now, taken: 0 }
    }

    /// Whether so many more may come now.
    fn takes(&mut self, count: u32, now: Instant) -> bool {
        let earned = now.saturating_duration_since(self.since).as_secs_f64() * f64::from(self.rate);
        if earned >= 1.0 {
            // Below the rate for ten seconds, which is a number of frames.
            #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "it saturates")]
            self.earn(earned as u32);
            self.since = now;
        }
        let left = self.left.checked_sub(count);
        self.left = left.unwrap_or_default();
        left.is_some()
    }

    /// The client took so many bytes.
    fn took(&mut self, count: usize) {
        self.taken += count;
        self.earn(u32::try_from(self.taken / TAKEN).unwrap_or(u32::MAX));
        self.taken %= TAKEN;
    }

    fn earn(&mut self, more: u32) {
        self.left = self.left.saturating_add(more).min(self.rate.saturating_mul(AT_ONCE));
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Calm<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let before = buffer.filled().len();
        if this.read.is_empty() {
            ready!(Pin::new(&mut this.socket).poll_read(cx, buffer))?;
        } else {
            let count = this.read.len().min(buffer.remaining());
            buffer.put_slice(&this.read.split_to(count));
        }
        Poll::Ready(this.look(buffer.filled().get(before..).unwrap_or_default()))
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Calm<S> {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let this = self.get_mut();
        let written = Pin::new(&mut this.socket).poll_write(cx, bytes);
        this.wrote(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = self.get_mut();
        let flushed = Pin::new(&mut this.socket).poll_flush(cx);
        this.signs.blocked.set(flushed.is_pending());
        flushed
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
        this.wrote(written)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn so_many_may_come_at_once_and_so_many_a_second() {
        let began = Instant::now();
        let mut allowance = Allowance::new(100, began);
        assert!(allowance.takes(1_000, began));
        assert!(!allowance.takes(1, began + Duration::from_millis(5)));
        // Time earns the rate, and never more than may come at once.
        assert!(allowance.takes(100, began + Duration::from_secs(1)));
        assert!(!allowance.takes(50, began + Duration::from_millis(1_400)));
        assert!(allowance.takes(1_000, began + Duration::from_secs(1_000)));
        assert!(!allowance.takes(1, began + Duration::from_secs(1_000)));
        // What the client takes earns one for some bytes, however they are cut.
        (0..64).for_each(|_| allowance.took(1));
        assert!(allowance.takes(2, began + Duration::from_secs(1_000)));
        assert!(!allowance.takes(1, began + Duration::from_secs(1_000)));
    }
}

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

/// So many seconds' worth may come at once: who connects, or wakes up, says much in a moment.
const AT_ONCE: u32 = 10;
/// For so many bytes that it takes a client may send one frame more: it says what it has taken, for the stream and for the
/// connection, and what we send in small pieces is counted by the piece.
const TAKEN: usize = 32;
/// What a connection of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: usize = 24;

/// A connection of HTTP/2, of which something has been read already; reading fails once its client is too busy.
pub(super) struct Calm<S> {
    socket: S,
    read: Bytes,
    frames: Frames,
    allowance: Allowance,
    peer: Rc<Peer>,
    /// The client takes nothing of what there is for it.
    blocked: Rc<Cell<bool>>,
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
    /// At most `rate` such frames a second, in the long run; says in `blocked` whether the client takes nothing.
    pub(super) fn new(socket: S, read: Bytes, rate: u32, peer: Rc<Peer>, blocked: Rc<Cell<bool>>) -> Self {
        let allowance = Allowance::new(rate, peer.clock().now());
        Self { socket, read, frames: Frames::default(), allowance, peer, blocked }
    }

    /// Looks at what has been read.
    fn look(&mut self, bytes: &[u8]) -> io::Result<()> {
        let count = self.frames.pass(bytes);
        if count > 0 && !self.allowance.takes(count, self.peer.clock().now()) {
            return Err(ErrorKind::QuotaExceeded.into());
        }
        Ok(())
    }

    fn wrote(&mut self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        self.blocked.set(written.is_pending());
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

/// Where frames begin, by their headers alone (RFC 9113, 4.1).
struct Frames {
    header: [u8; HEADER],
    have: usize,
    /// Of the frame that has begun, or of the preface.
    left: usize,
}

const HEADER: usize = 9;

impl Default for Frames {
    fn default() -> Self {
        Self { header: [0; HEADER], have: 0, left: PREFACE }
    }
}

impl Frames {
    /// Passes bytes; says how many frames have begun in them that do nothing for a request.
    fn pass(&mut self, mut bytes: &[u8]) -> u32 {
        let mut count = 0;
        loop {
            let skipped = self.left.min(bytes.len());
            self.left -= skipped;
            bytes = bytes.get(skipped..).unwrap_or_default();
            if bytes.is_empty() {
                return count;
            }
            let slots = self.header.get_mut(self.have..).unwrap_or_default();
            let copied = slots.iter_mut().zip(bytes).map(|(slot, byte)| *slot = *byte).count();
            self.have += copied;
            bytes = bytes.get(copied..).unwrap_or_default();
            if self.have == HEADER {
                let [a, b, c, kind, ..] = self.header;
                self.left = u32::from_be_bytes([0, a, b, c]) as usize;
                self.have = 0;
                count += u32::from(!is_of_a_request(kind));
            }
        }
    }
}

/// DATA, HEADERS and CONTINUATION: the h2 crate sees to it that there is something in them.
fn is_of_a_request(kind: u8) -> bool {
    matches!(kind, 0 | 1 | 9)
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
        this.blocked.set(flushed.is_pending());
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

    /// A frame with so many bytes behind its header.
    fn frame(kind: u8, length: u32) -> Vec<u8> {
        let [_, a, b, c] = length.to_be_bytes();
        [&[a, b, c, kind, 0, 0, 0, 0, 0][..], &vec![0xff; length as usize]].concat()
    }

    #[test]
    fn frames_are_found_wherever_the_reads_end() {
        let mut bytes = vec![b'P'; PREFACE];
        for (kind, length) in [(4, 6), (6, 8), (0, 300), (1, 0), (9, 1), (8, 4), (0x7f, 0), (0, 0), (3, 4)] {
            bytes.extend(frame(kind, length));
        }
        for piece in 1..bytes.len() {
            let mut frames = Frames::default();
            let count: u32 = bytes.chunks(piece).map(|piece| frames.pass(piece)).sum();
            assert_eq!((count, frames.have, frames.left), (5, 0, 0), "in pieces of {piece}");
        }
    }

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

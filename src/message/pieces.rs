//! A message on its way out: its head, and its body as it comes, never gathered.

use std::io::{self, ErrorKind, IoSlice, Write as _};
use std::task::{Poll, ready};

use bytes::Bytes;

/// Pieces up to this length are written with what stands before them: to copy them costs less than to tell the system
/// of each.
const SMALL: usize = 1024;
/// Text with this many bytes is written before more is added to it.
const ENOUGH: usize = 16 * 1024;

/// What is to be written next: text of ours, a piece of a body, and what ends that piece.
#[derive(Default)]
pub struct Pieces {
    text: Vec<u8>,
    piece: Bytes,
    end: &'static [u8],
    /// Bytes of these three that have been written.
    written: usize,
}

impl Pieces {
    /// Begins with this text.
    #[must_use]
    pub fn new(text: Vec<u8>) -> Self {
        Self { text, ..Self::default() }
    }

    /// All of it has been written.
    #[must_use]
    pub fn is_written(&self) -> bool {
        self.written == self.text.len() + self.piece.len() + self.end.len()
    }

    /// There is text alone, and not much: a piece may be added before it leaves.
    #[must_use]
    pub fn takes(&self) -> bool {
        self.written == 0 && self.piece.is_empty() && self.end.is_empty() && self.text.len() < ENOUGH
    }

    /// Forgets what has been written, and what has not.
    pub fn clear(&mut self) {
        self.text.clear();
        (self.written, self.piece, self.end) = (0, Bytes::new(), b"");
    }

    /// Back to the first byte of what is here.
    pub fn rewind(&mut self) {
        self.written = 0;
    }

    /// What has not been written is not going to be.
    pub fn skip(&mut self) {
        self.written = self.text.len() + self.piece.len() + self.end.len();
    }

    /// The next piece of a body, which says how long it is where it comes in chunks (RFC 9112, 7.1).
    pub fn data(&mut self, data: Bytes, chunked: bool) {
        if chunked && !data.is_empty() {
            // Writing to memory cannot fail.
            let _ = write!(self.text, "{:x}\r\n", data.len());
            self.end = b"\r\n";
        }
        if self.written == 0 && data.len() <= SMALL {
            self.text.extend_from_slice(&data);
            self.text.extend_from_slice(std::mem::take(&mut self.end));
        } else {
            self.piece = data;
        }
    }

    /// Text that stands behind what is here.
    pub fn text(&mut self) -> &mut Vec<u8> {
        &mut self.text
    }

    /// Writes what it can.
    pub fn poll_write(
        &mut self,
        write: impl FnOnce(&[IoSlice<'_>]) -> Poll<io::Result<usize>>,
    ) -> Poll<io::Result<()>> {
        let mut skip = self.written;
        let parts = [&*self.text, &*self.piece, self.end].map(|part| {
            let from = skip.min(part.len());
            skip -= from;
            part.get(from..).unwrap_or_default()
        });
        let count = match parts {
            [only, [], []] | [[], only, []] => ready!(write(&[IoSlice::new(only)]))?,
            parts => ready!(write(&parts.map(IoSlice::new)))?,
        };
        if count == 0 {
            return Poll::Ready(Err(ErrorKind::WriteZero.into()));
        }
        self.written += count;
        Poll::Ready(Ok(()))
    }
}

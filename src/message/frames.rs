//! Frames of HTTP/2 as they pass, by their headers alone (RFC 9113, 4.1).
//!
//! The h2 crate leaves out of trailers, without a word, the first field that goes beyond what it was told they may have, and
//! all behind it. So it is told four times what is taken: whoever counts what it hands on knows that the first one left out
//! is three times as long as all of that may be. Huffman's code (RFC 7541, appendix B) makes no letter shorter than five bits,
//! so that such a field takes more than one and a half times as much on the wire, and no block of fields may have that.

use super::framing;

/// What a connection of HTTP/2 begins with (RFC 9113, 3.4).
const PREFACE: usize = 24;
/// The header of a frame (RFC 9113, 4.1).
const HEADER: usize = 9;
const DATA: u8 = 0;
const HEADERS: u8 = 1;
const WINDOW_UPDATE: u8 = 8;
const CONTINUATION: u8 = 9;
const END_HEADERS: u8 = 4;

/// What passes on a connection of HTTP/2.
#[derive(Debug)]
pub struct Frames {
    header: [u8; HEADER],
    have: usize,
    /// Of the frame that has begun, or of the preface.
    left: usize,
    /// Of the block of fields that has begun, and the most that there may be of one.
    block: usize,
    most: usize,
    /// That block goes on.
    open: bool,
    /// What the frame that has begun grants, as far as it has come.
    grant: u32,
    /// Bytes of DATA.
    data: u64,
    /// Bytes that may come back, on all streams together (RFC 9113, 6.9).
    granted: u64,
}

/// A block of fields is longer than any may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("a head or trailers of HTTP/2 are longer than they may be")]
pub struct TooLarge;

/// What the h2 crate is told that a head, or trailers, may have, where a head may have so many bytes.
#[must_use]
pub fn told(head: usize) -> u32 {
    u32::try_from(head.max(framing::TRAILERS).saturating_mul(4)).unwrap_or(u32::MAX)
}

impl Frames {
    /// Those of a client, whose heads may have so many bytes.
    #[must_use]
    pub fn of_client(head: usize) -> Self {
        Self { left: PREFACE, ..Self::of_server(head) }
    }

    /// Those of a server.
    #[must_use]
    pub fn of_server(head: usize) -> Self {
        let most = head.max(framing::TRAILERS).saturating_mul(3) / 2;
        Self {
            header: [0; HEADER],
            have: 0,
            left: 0,
            block: 0,
            most,
            open: false,
            grant: 0,
            data: 0,
            granted: 0,
        }
    }

    /// A block of fields has begun and is not whole.
    #[must_use]
    pub fn is_in_block(&self) -> bool {
        self.open || self.left > 0 && matches!(self.kind(), HEADERS | CONTINUATION)
    }

    fn kind(&self) -> u8 {
        let [_, _, _, kind, ..] = self.header;
        kind
    }

    /// Passes bytes; says how many frames have begun in them that do nothing for a request.
    pub fn pass(&mut self, mut bytes: &[u8]) -> Result<u32, TooLarge> {
        let mut count = 0;
        loop {
            let (payload, behind) = bytes.split_at(self.left.min(bytes.len()));
            self.payload(payload);
            bytes = behind;
            if bytes.is_empty() {
                return Ok(count);
            }
            let slots = self.header.get_mut(self.have..).unwrap_or_default();
            let copied = slots.iter_mut().zip(bytes).map(|(slot, byte)| *slot = *byte).count();
            self.have += copied;
            bytes = bytes.get(copied..).unwrap_or_default();
            if self.have == HEADER {
                self.have = 0;
                self.begin()?;
                count += u32::from(!is_of_a_request(self.kind()));
            }
        }
    }

    /// Some of a frame, or all of it.
    fn payload(&mut self, bytes: &[u8]) {
        self.left -= bytes.len();
        let [_, _, _, WINDOW_UPDATE, _, stream @ ..] = self.header else { return };
        self.grant = bytes.iter().fold(self.grant, |grant, byte| grant << 8 | u32::from(*byte));
        if self.left == 0 && stream == [0; 4] {
            self.granted += u64::from(std::mem::take(&mut self.grant) & (u32::MAX >> 1));
        }
    }

    /// Bytes of DATA that have passed, or are announced.
    #[must_use]
    pub fn data(&self) -> u64 {
        self.data
    }

    /// Bytes of DATA that may go the other way, but for the first window.
    #[must_use]
    pub fn granted(&self) -> u64 {
        self.granted
    }

    /// A frame begins.
    fn begin(&mut self) -> Result<(), TooLarge> {
        let [a, b, c, kind, flags, ..] = self.header;
        self.left = u32::from_be_bytes([0, a, b, c]) as usize;
        self.grant = 0;
        match kind {
            DATA => {
                self.data += self.left as u64;
                return Ok(());
            }
            HEADERS => self.block = self.left,
            CONTINUATION => self.block += self.left,
            _ => return Ok(()),
        }
        self.open = flags & END_HEADERS == 0;
        if self.block > self.most { Err(TooLarge) } else { Ok(()) }
    }
}

/// DATA, HEADERS and CONTINUATION: the h2 crate sees to it that there is something in them.
fn is_of_a_request(kind: u8) -> bool {
    matches!(kind, DATA | HEADERS | CONTINUATION)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A frame with so many bytes behind its header.
    fn frame(kind: u8, flags: u8, length: u32) -> Vec<u8> {
        let [_, a, b, c] = length.to_be_bytes();
        [&[a, b, c, kind, flags, 0, 0, 0, 0][..], &vec![0xff; length as usize]].concat()
    }

    #[test]
    fn frames_are_found_wherever_the_reads_end() {
        let mut bytes = vec![b'P'; PREFACE];
        for (kind, length) in [(4, 6), (6, 8), (0, 300), (1, 0), (9, 1), (8, 4), (0x7f, 0), (0, 0), (3, 4)] {
            bytes.extend(frame(kind, END_HEADERS, length));
        }
        for piece in 1..bytes.len() {
            let mut frames = Frames::of_client(0);
            let count: u32 = bytes.chunks(piece).map(|piece| frames.pass(piece).expect("small")).sum();
            assert_eq!((count, frames.have, frames.left), (5, 0, 0), "in pieces of {piece}");
            assert!(!frames.is_in_block());
        }
    }

    #[test]
    fn what_is_sent_and_what_is_granted_are_counted() {
        let grant = |stream: u8, bytes: u32| {
            let mut grant = frame(WINDOW_UPDATE, 0, 0);
            (grant[2], grant[8]) = (4, stream);
            [grant, bytes.to_be_bytes().to_vec()].concat()
        };
        // On one stream alone it is granted to that; the first bit means nothing (RFC 9113, 6.9).
        let all =
            [frame(0, 0, 70), grant(0, 1_000), grant(3, 5_000), frame(0, 1, 0), grant(0, (1 << 31) + 70_000)];
        let bytes = all.concat();
        for piece in 1..bytes.len() {
            let mut frames = Frames::of_server(0);
            bytes.chunks(piece).for_each(|piece| assert!(frames.pass(piece).is_ok()));
            assert_eq!((frames.data(), frames.granted()), (70, 71_000), "in pieces of {piece}");
        }
    }

    #[test]
    fn blocks_of_fields_have_an_end_and_a_size() {
        let most = u32::try_from(framing::TRAILERS * 3 / 2).expect("a number");
        let check = |frames: &[(u8, u8, u32)], whole: bool, fits: bool| {
            let mut all = Frames::of_server(1_024);
            let passed = frames
                .iter()
                .try_for_each(|(kind, flags, length)| all.pass(&frame(*kind, *flags, *length)).map(|_| ()));
            assert_eq!((all.is_in_block(), passed.is_ok()), (!whole, fits), "{frames:?}");
        };
        check(&[(1, 4, most)], true, true);
        check(&[(1, 0, most), (9, 4, 0)], true, true);
        check(&[(1, 0, most)], false, true);
        check(&[(1, 0, most), (9, 4, 1)], false, false);
        check(&[(1, 4, most), (0, 0, 9), (1, 4, most)], true, true);
        // Another frame is none of it.
        check(&[(1, 0, 1), (0, 4, 1)], false, true);
        let mut cut = Frames::of_server(0);
        let head = frame(1, END_HEADERS, 9);
        cut.pass(head.get(..12).expect("most of it")).expect("small");
        assert!(cut.is_in_block());
        cut.pass(head.get(12..).expect("the rest")).expect("small");
        assert!(!cut.is_in_block());
    }
}

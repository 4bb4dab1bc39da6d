//! The bytes of a head as they come.

use bytes::{Buf as _, Bytes};
use memchr::memmem;

use super::head::{Head, Limits};
use super::invalid::Invalid;

/// Empty lines before a head: one is what old clients sent behind a body.
const BLANK: usize = 8;

/// What has come of a head.
#[derive(Default)]
pub struct Gathered {
    bytes: Vec<u8>,
    /// Empty lines before it, which are none of it (RFC 9112, 2.2).
    blank: usize,
}

impl Gathered {
    /// Whether nothing of a head has come.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// Whether it asks for the head of an answer alone, before all of it can be read; `more` has come behind it.
    #[must_use]
    pub fn is_to_head(&self, more: &[u8]) -> bool {
        let first = if self.bytes.is_empty() { more } else { &self.bytes };
        first.starts_with(b"HEAD ")
    }

    /// Takes a head off what has come, when all of it is there; `more` is left with what stands behind it. What is
    /// there of one is looked at again when its end has come: a head that comes byte by byte is not read once a byte.
    pub fn head(&mut self, more: &mut Bytes, limits: &Limits) -> Result<Option<Head>, Invalid> {
        self.skip_blank(more)?;
        let Self { bytes, .. } = self;
        if bytes.is_empty() {
            if let Some((head, length)) = Head::read(more, limits)? {
                more.advance(length);
                return Ok(Some(head));
            }
            bytes.extend_from_slice(&std::mem::take(more));
            return Ok(None);
        }
        let before = bytes.len();
        bytes.extend_from_slice(more);
        let seen = bytes.get(before.saturating_sub(3)..).unwrap_or_default();
        let ended = memmem::find(seen, b"\n\r\n").is_some() || memmem::find(seen, b"\n\n").is_some();
        if !ended && bytes.len() < limits.head {
            more.clear();
            return Ok(None);
        }
        let Some((head, length)) = Head::read(bytes, limits)? else { return Err(Invalid::LineEnd) };
        more.advance(length.saturating_sub(before).min(more.len()));
        Ok(Some(head))
    }

    fn skip_blank(&mut self, more: &mut Bytes) -> Result<(), Invalid> {
        loop {
            // Such a line may have been cut in two.
            let length = match (&*self.bytes, &**more) {
                ([], [b'\r', b'\n', ..]) => 2,
                ([b'\r'], [b'\n', ..]) => 1,
                _ => return Ok(()),
            };
            self.bytes.clear();
            more.advance(length);
            self.blank += 1;
            if self.blank > BLANK {
                return Err(Invalid::LineEnd);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LIMITS: Limits = Limits { head: 64, fields: 4, target: 16 };

    /// What is left behind the head where these bytes come in pieces of this size.
    fn left(bytes: &[u8], size: usize) -> Option<usize> {
        let mut gathered = Gathered::default();
        let mut pieces = bytes.chunks(size);
        loop {
            let mut more = Bytes::copy_from_slice(pieces.next()?);
            if gathered.head(&mut more, &LIMITS).ok()?.is_some() {
                return Some(more.len() + pieces.map(<[u8]>::len).sum::<usize>());
            }
        }
    }

    #[test]
    fn a_head_is_the_same_however_its_bytes_are_cut() {
        let check = |text: &str, wanted: Option<usize>| {
            for size in 1..=text.len() {
                assert_eq!(left(text.as_bytes(), size), wanted, "{text:?} in pieces of {size}");
            }
        };
        let head = "GET / HTTP/1.1\r\nA: b\r\n\r\n";
        check(head, Some(0));
        check(&format!("{head}GET"), Some(3));
        for blank in [1, 2, BLANK] {
            check(&format!("{}{head}x", "\r\n".repeat(blank)), Some(1));
        }
        check(&format!("{}{head}", "\r\n".repeat(BLANK + 1)), None);
        check(&head.replace("\r\n", "\n"), None);
        check(&format!("\n{head}"), None);
    }
}

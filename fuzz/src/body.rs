//! The body of a message, whatever pieces it comes in.
//!
//! The first line of the input is `s` (chunks of a client), `p` (chunks of an upstream) or a length, and what is behind
//! the line is the body; it is cut by its own bytes.

use std::task::Poll;

use bytes::Bytes;
use scopegate::message::framing::{Chunks, Framing, Step};
use scopegate::message::invalid::Invalid;
use scopegate::message::pieces::Pieces;

/// What came of a body.
#[derive(Debug, PartialEq)]
struct Got {
    data: Vec<u8>,
    trailers: Vec<(String, Vec<u8>)>,
    /// Bytes of the input that belong to it; `None` where it has not ended.
    length: Option<usize>,
    wrong: Option<Invalid>,
}

pub fn run(input: &[u8]) {
    let Some(end) = input.iter().position(|byte| *byte == b'\n') else { return };
    let (kind, body) = (&input[..end], &input[end + 1..]);
    let framing = || match kind {
        b"s" => Some(Framing::Chunked(Chunks::strict())),
        b"p" => Some(Framing::Chunked(Chunks::padded())),
        digits => Some(Framing::Length(std::str::from_utf8(digits).ok()?.parse().ok()?)),
    };
    let Some(whole) = framing().map(|framing| read(framing, body, |left| left)) else { return };
    let one = read(framing().expect("as before"), body, |_| 1);
    assert_eq!(one, whole, "byte by byte");
    let mut turn = 0;
    let some = read(framing().expect("as before"), body, |_| {
        turn += 1;
        usize::from(body[turn % body.len()] % 16) + 1
    });
    assert_eq!(some, whole, "in pieces");
    assert!(whole.data.len() <= body.len());
    if let (b"s" | b"p", Some(length)) = (kind, whole.length) {
        assert_eq!(plainly(&body[..length], kind == b"p").as_ref(), Some(&whole.data), "as others read it");
        again(&whole.data);
    } else if let Some(length) = whole.length {
        assert_eq!(whole.data, &body[..length]);
    }
    if kind == b"s" && whole.wrong.is_none() {
        assert_eq!(
            read(Framing::Chunked(Chunks::padded()), body, |left| left),
            whole,
            "an upstream may do more"
        );
    }
}

/// Reads a body in pieces, each as long as `cut` says of what is left.
fn read(mut framing: Framing, body: &[u8], mut cut: impl FnMut(usize) -> usize) -> Got {
    let mut got = Got { data: Vec::new(), trailers: Vec::new(), length: None, wrong: None };
    let mut rest = body;
    let mut piece = Bytes::new();
    loop {
        match framing.next(&mut piece) {
            Ok(Step::More) if rest.is_empty() => return got,
            Ok(Step::More) => {
                assert!(piece.is_empty(), "what is not taken would be lost");
                let (next, behind) = rest.split_at(cut(rest.len()).min(rest.len()));
                (piece, rest) = (Bytes::copy_from_slice(next), behind);
            }
            Ok(Step::Data(data)) => {
                assert!(!data.is_empty(), "an empty piece would be the end of the next one's chunks");
                got.data.extend_from_slice(&data);
            }
            Ok(Step::Trailers(map)) => {
                got.trailers =
                    map.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())).collect();
                assert!(framing.is_end());
            }
            Ok(Step::End) => {
                assert!(framing.is_end());
                got.length = Some(body.len() - rest.len() - piece.len());
                return got;
            }
            Err(invalid) => {
                got.wrong = Some(invalid);
                return got;
            }
        }
    }
}

/// A chunked body as a plain reader has it: all of these bytes, or `None`.
fn plainly(mut body: &[u8], padded: bool) -> Option<Vec<u8>> {
    let mut data = Vec::new();
    loop {
        let end = body.windows(2).position(|two| two == b"\r\n")?;
        let line = &body[..end];
        let size = std::str::from_utf8(line.split(|byte| *byte == b';').next()?).ok()?;
        // Before an extension blanks may stand in any body (RFC 9112, 7.1.1).
        let blanks = padded || line.contains(&b';');
        let size = if blanks { size.trim_end_matches([' ', '\t']) } else { size };
        let hex = !size.is_empty() && size.bytes().all(|byte| byte.is_ascii_hexdigit());
        let size = usize::from_str_radix(size, 16).ok().filter(|_| hex)?;
        body = &body[end + 2..];
        if size == 0 {
            let ends = body == b"\r\n"
                || body.windows(4).position(|four| four == b"\r\n\r\n") == body.len().checked_sub(4);
            return ends.then_some(data);
        }
        data.extend_from_slice(body.get(..size)?);
        body = body.get(size..)?.strip_prefix(b"\r\n")?;
    }
}

/// Written in chunks as we send them, it is read as the same.
fn again(data: &[u8]) {
    let mut out = Vec::new();
    for piece in data.chunks(5).chain([&b""[..]]) {
        let mut pieces = Pieces::default();
        pieces.data(Bytes::copy_from_slice(piece), true);
        while !pieces.is_written() {
            let written = pieces.poll_write(|parts| {
                // As a socket may: not all of it.
                let part = parts.iter().find(|part| !part.is_empty()).expect("it is not written");
                let count = part.len().min(3);
                out.extend_from_slice(&part[..count]);
                Poll::Ready(Ok(count))
            });
            assert!(matches!(written, Poll::Ready(Ok(()))));
        }
    }
    out.extend_from_slice(b"0\r\n\r\n");
    let got = read(Framing::Chunked(Chunks::strict()), &out, |left| left);
    assert_eq!((got.data.as_slice(), got.length), (data, Some(out.len())));
}

//! Where the body of a message ends (RFC 9112, 6).

use bytes::{Buf as _, Bytes, BytesMut};
use http::{HeaderMap, HeaderName, HeaderValue};

use super::field::{Kind, Nominated};
use super::invalid::Invalid;

/// Trailers, and what is ignored of a client's body (extensions, zeros before a size), may have this many bytes: what a head may have, and more than anybody
/// sends.
const LIMIT: usize = 64 * 1024;
/// A chunk may have this many bytes: the most that may be written as a limit of a whole body.
const CHUNK_MOST: u64 = 1 << 40;

/// How the end of a body is found, and how much of it is still to come.
#[derive(Debug)]
pub enum Framing {
    /// So many bytes.
    Length(u64),
    /// Pieces that say how long they are.
    Chunked(Chunks),
    /// Until the sender hangs up; of answers only.
    Close,
}

/// What comes next of a body.
#[derive(Debug)]
pub enum Step {
    /// More must be read first.
    More,
    /// A piece of it.
    Data(Bytes),
    /// Fields after the last piece.
    Trailers(HeaderMap),
    /// It is whole.
    End,
}

/// Where in a chunked body we are (RFC 9112, 7.1).
#[derive(Debug)]
pub struct Chunks {
    place: Place,
    /// Blanks may stand between a size and the end of its line, as old servers pad it; a client has no such excuse.
    padded: bool,
    /// Of the chunk: while its size is read, what that has come to; then what its data lacks.
    left: u64,
    /// Of the line of a size, a digit has come.
    sized: bool,
    /// Bytes beside it, which are read and forgotten: in a client's body of all lines, else of this one.
    ignored: usize,
    trailers: BytesMut,
    /// Names of fields that are for one connection only, trailers among them (RFC 9110, 7.6.1).
    hops: Box<[Box<[u8]>]>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Place {
    Size,
    Padding,
    /// Ignored: nobody may rely on it (RFC 9112, 7.1.1).
    Extension,
    SizeEnd,
    Data,
    DataCr,
    DataLf,
    Trailers,
    End,
}

impl Framing {
    /// Takes the next piece off the bytes that have been read.
    pub fn next(&mut self, read: &mut Bytes) -> Result<Step, Invalid> {
        match self {
            Self::Length(0) => Ok(Step::End),
            Self::Length(_) | Self::Close if read.is_empty() => Ok(Step::More),
            Self::Length(left) => {
                let count = usize::try_from(*left).unwrap_or(usize::MAX).min(read.len());
                *left -= count as u64;
                Ok(Step::Data(read.split_to(count)))
            }
            Self::Chunked(chunks) => chunks.next(read),
            Self::Close => Ok(Step::Data(std::mem::take(read))),
        }
    }

    /// Whether nothing more is to come.
    #[must_use]
    pub fn is_end(&self) -> bool {
        match self {
            Self::Length(left) => *left == 0,
            Self::Chunked(chunks) => chunks.place == Place::End,
            Self::Close => false,
        }
    }

    /// Bytes that are still to come, where that is known.
    #[must_use]
    pub fn left(&self) -> Option<u64> {
        match self {
            Self::Length(left) => Some(*left),
            Self::Chunked(_) | Self::Close => None,
        }
    }
}

impl Chunks {
    /// Of a client.
    #[must_use]
    pub fn strict() -> Self {
        let (trailers, hops) = (BytesMut::new(), Box::default());
        Self { place: Place::Size, padded: false, left: 0, sized: false, ignored: 0, trailers, hops }
    }

    /// Of an upstream.
    #[must_use]
    pub fn padded() -> Self {
        Self { padded: true, ..Self::strict() }
    }

    /// Without the trailers that its head lists in `Connection`.
    #[must_use]
    pub fn without(self, nominated: &Nominated<'_>) -> Self {
        Self { hops: nominated.names().map(Box::from).collect(), ..self }
    }

    fn next(&mut self, read: &mut Bytes) -> Result<Step, Invalid> {
        loop {
            match self.place {
                Place::End => return Ok(Step::End),
                Place::Trailers => return self.trailers(read),
                Place::Data if self.left == 0 => self.place = Place::DataCr,
                Place::Data => {
                    if read.is_empty() {
                        return Ok(Step::More);
                    }
                    let count = usize::try_from(self.left).unwrap_or(usize::MAX).min(read.len());
                    self.left -= count as u64;
                    return Ok(Step::Data(read.split_to(count)));
                }
                Place::Size
                | Place::Padding
                | Place::Extension
                | Place::SizeEnd
                | Place::DataCr
                | Place::DataLf => {
                    let Some(byte) = read.first().copied() else { return Ok(Step::More) };
                    read.advance(1);
                    self.place = self.after(byte)?;
                }
            }
        }
    }

    /// Where a byte between two pieces of data leads.
    fn after(&mut self, byte: u8) -> Result<Place, Invalid> {
        match (self.place, byte) {
            (Place::DataCr, b'\r') => Ok(Place::DataLf),
            (Place::DataLf, b'\n') => {
                self.sized = false;
                if self.padded {
                    self.ignored = 0;
                }
                Ok(Place::Size)
            }
            (Place::Size, b'0') if self.left == 0 => {
                self.sized = true;
                self.ignore(Place::Size)
            }
            (Place::Size, _) if byte.is_ascii_hexdigit() => {
                let digit = char::from(byte).to_digit(16).map_or(0, u64::from);
                self.sized = true;
                self.left = self.left * 16 + digit;
                if self.left > CHUNK_MOST { Err(Invalid::Chunk) } else { Ok(Place::Size) }
            }
            (Place::Size, _) if !self.sized => Err(Invalid::Chunk),
            (Place::Size | Place::Extension, b'\r') => Ok(Place::SizeEnd),
            (Place::Padding, b'\r') if self.padded => Ok(Place::SizeEnd),
            (Place::Size | Place::Padding, b' ' | b'\t') => self.ignore(Place::Padding),
            (Place::Size | Place::Padding, b';') | (Place::Extension, b'\t' | b' '..=b'~' | 0x80..) => {
                self.ignore(Place::Extension)
            }
            (Place::SizeEnd, b'\n') => Ok(if self.left == 0 { Place::Trailers } else { Place::Data }),
            _ => Err(Invalid::Chunk),
        }
    }

    /// Goes on to a place, past a byte that nobody is told of.
    fn ignore(&mut self, place: Place) -> Result<Place, Invalid> {
        self.ignored += 1;
        if self.ignored > LIMIT { Err(Invalid::Chunk) } else { Ok(place) }
    }

    /// Gathers lines up to the empty one, which ends the message.
    fn trailers(&mut self, read: &mut Bytes) -> Result<Step, Invalid> {
        while let Some(end) = read.iter().position(|byte| *byte == b'\n') {
            self.gather(&read.split_to(end + 1))?;
            if !self.trailers.ends_with(b"\r\n") {
                return Err(Invalid::LineEnd);
            }
            if *self.trailers == *b"\r\n" || self.trailers.ends_with(b"\n\r\n") {
                self.place = Place::End;
                return trailers(&self.trailers, &self.hops)
                    .map(|trailers| if trailers.is_empty() { Step::End } else { Step::Trailers(trailers) });
            }
        }
        let rest = std::mem::take(read);
        self.gather(&rest)?;
        Ok(Step::More)
    }

    fn gather(&mut self, bytes: &[u8]) -> Result<(), Invalid> {
        if self.trailers.len() + bytes.len() > LIMIT {
            return Err(Invalid::TooLarge);
        }
        self.trailers.extend_from_slice(bytes);
        Ok(())
    }
}

/// A body's trailers may have so many fields, and so many bytes.
const FIELDS: usize = 64;
pub(super) const TRAILERS: usize = LIMIT;

/// Whether trailers that another library has read are what they may be.
#[must_use]
pub fn fit(trailers: &HeaderMap) -> bool {
    trailers.len() <= FIELDS && length(trailers) <= TRAILERS
}

/// What fields have in bytes, as HTTP/1 writes them.
#[must_use]
pub fn length(fields: &HeaderMap) -> usize {
    fields.iter().map(|(name, value)| name.as_str().len() + value.len() + 4).sum()
}

/// The fields after a body, without those that could not stand there (RFC 9110, 6.5.1).
fn trailers(bytes: &[u8], hops: &[Box<[u8]>]) -> Result<HeaderMap, Invalid> {
    let mut fields = [httparse::EMPTY_HEADER; FIELDS];
    let httparse::Status::Complete((_, parsed)) = httparse::parse_headers(bytes, &mut fields)? else {
        return Err(Invalid::Field);
    };
    let mut trailers = HeaderMap::with_capacity(parsed.len());
    for field in parsed {
        let name = HeaderName::from_bytes(field.name.as_bytes()).map_err(|_| Invalid::Field)?;
        let value = HeaderValue::from_bytes(field.value).map_err(|_| Invalid::Field)?;
        let hop = hops.iter().any(|hop| hop.eq_ignore_ascii_case(name.as_str().as_bytes()));
        if !hop && Kind::of(name.as_str().as_bytes()) == Kind::Plain {
            trailers.append(name, value);
        }
    }
    Ok(trailers)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What comes of these bytes, cut into pieces of this length: the body, the trailers' names, and what is left.
    fn read(
        mut framing: Framing,
        bytes: &[u8],
        cut: usize,
    ) -> Result<(Vec<u8>, Vec<String>, usize), Invalid> {
        let (mut body, mut names, mut passed) = (Vec::new(), Vec::new(), 0);
        for piece in bytes.chunks(cut) {
            passed += piece.len();
            let mut piece = Bytes::copy_from_slice(piece);
            loop {
                match framing.next(&mut piece)? {
                    Step::More => break,
                    Step::Data(data) => body.extend_from_slice(&data),
                    Step::Trailers(map) => names.extend(map.keys().map(ToString::to_string)),
                    Step::End => return Ok((body, names, bytes.len() - passed + piece.len())),
                }
            }
        }
        Err(Invalid::Chunk)
    }

    #[test]
    fn a_body_is_the_same_however_its_bytes_are_cut() {
        let check = |bytes: &[u8], body: &[u8], names: &[&str], left: usize| {
            for cut in [1, 2, 3, 5, 7, 1000] {
                let got = read(Framing::Chunked(Chunks::padded()), bytes, cut).expect("a body");
                assert_eq!((&*got.0, got.1), (body, names.iter().map(ToString::to_string).collect()));
                assert!(cut < 1000 || got.2 == left, "{}", String::from_utf8_lossy(bytes));
            }
        };
        check(b"0\r\n\r\n", b"", &[], 0);
        check(b"3\r\nabc\r\n0\r\n\r\n", b"abc", &[], 0);
        check(b"0003;a=b\r\nabc\r\nA \t\r\n0123456789\r\n0\r\n\r\nHTTP", b"abc0123456789", &[], 4);
        check(b"1\r\nx\r\n0\r\nA: 1\r\nb: 2\r\n\r\n", b"x", &["a", "b"], 0);
        check(b"1\r\n\n\r\n00\r\nConnection: x\r\nA: 1\r\n\r\n", b"\n", &["a"], 0);
        check(b"1\r\n\r\r\n0\r\n\r\n", b"\r", &[], 0);
        let got = read(Framing::Length(3), b"abcd", 1000).expect("a body");
        assert_eq!((&*got.0, got.2), (&b"abc"[..], 1));
    }

    #[test]
    fn a_client_pads_no_size_but_before_an_extension() {
        for (bytes, strict) in [
            (&b"3 \r\nabc\r\n0\r\n\r\n"[..], false),
            (b"3 ;a=b\r\nabc\r\n0\r\n\r\n", true),
            (b" 3\r\nabc\r\n0\r\n\r\n", false),
            (b"3;a\x07\r\nabc\r\n0\r\n\r\n", false),
        ] {
            let got = read(Framing::Chunked(Chunks::strict()), bytes, 1000);
            assert_eq!(got.is_ok(), strict, "{:?}", String::from_utf8_lossy(bytes));
        }
    }

    #[test]
    fn what_is_ignored_has_an_end() {
        // So many chunks, each with so many bytes of an extension, or before its size; the last has one too.
        let body = |chunks: usize, size: String| [size.repeat(chunks), "0\r\n\r\n".to_owned()].concat();
        for (chunks, bytes, strict, padded) in [
            (1, LIMIT - 1, true, true),
            (1, LIMIT + 1, false, false),
            (63, 1024, true, true),
            (64, 1024, false, true),
            (LIMIT - 1, 1, true, true),
            (LIMIT, 1, false, true),
        ] {
            let extended = body(chunks, format!("1;{}\r\nx\r\n", "a".repeat(bytes - 1)));
            let zeros = body(chunks, format!("{}1\r\nx\r\n", "0".repeat(bytes)));
            for body in [extended, zeros] {
                let taken = |chunks| read(Framing::Chunked(chunks), body.as_bytes(), 65_536).is_ok();
                let what = format!("{chunks} of {bytes} bytes: {:?}", &body[..6]);
                assert_eq!((taken(Chunks::strict()), taken(Chunks::padded())), (strict, padded), "{what}");
            }
        }
    }

    #[test]
    fn what_is_no_chunk_is_refused() {
        let cases: [&[u8]; 13] = [
            b"\r\n",
            b";a\r\n",
            b"-1\r\n",
            b"0x1\r\nx\r\n0\r\n\r\n",
            b"1\nx\r\n0\r\n\r\n",
            b"1\r\nxy\r\n0\r\n\r\n",
            b"1\r\nx\n0\r\n\r\n",
            b"1;a\nb\r\nx\r\n0\r\n\r\n",
            b"10000000000000000\r\n",
            b"ffffffffffffffff\r\n",
            b"10000000001\r\n",
            b"1 1\rx\r\n",
            b"0\r\nno colon\r\n\r\n",
        ];
        for bytes in cases {
            for cut in [1, 1000] {
                let got = read(Framing::Chunked(Chunks::padded()), bytes, cut);
                assert!(got.is_err(), "{:?}: {got:?}", String::from_utf8_lossy(bytes));
            }
        }
    }
}

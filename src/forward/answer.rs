//! The head of an upstream's answer.
//!
//! An upstream is not trusted to speak HTTP well: what has two readings is refused, and what belongs to its connection
//! ends here.

use std::mem::MaybeUninit;

use bytes::{Buf as _, Bytes};
use http::response::Parts;
use http::{Method, StatusCode};
use memchr::memmem;

use crate::message::field::{Kind, Nominated, is_token, words};
use crate::message::fields::Fields;
use crate::message::framing::{self, Chunks, Framing};
use crate::message::head::{digits, ends_in_pairs};
use crate::message::invalid::Invalid;

/// A head may have this many bytes, and this many fields: four times what any server is set to send.
const LIMIT: usize = 64 * 1024;
const FIELDS: usize = 128;
/// What we say of our own in a head.
const OURS: usize = 64;

/// The head of an upstream's answer, its fields made ours.
#[derive(Debug)]
pub struct Head {
    /// What it answers.
    pub status: StatusCode,
    /// Its words for that, where they are not the usual ones.
    pub reason: Option<Box<str>>,
    /// What may be passed on.
    pub fields: Fields,
    /// How the body ends; `None` where there is none.
    pub framing: Option<Framing>,
    /// The upstream takes another request on this connection.
    pub keeps_alive: bool,
    /// The connection is a WebSocket from here on, and nothing else (RFC 6455, 4.1).
    pub switches: bool,
}

impl Head {
    /// Takes a head off the bytes that have been read, when all of it is there; `method` is what was asked.
    pub fn read(read: &mut Bytes, method: &Method) -> Result<Option<Self>, Invalid> {
        let Some((head, length)) = Self::parse(read, method)? else { return Ok(None) };
        read.advance(length);
        if read.is_empty() {
            // Nothing of a chunk holds on to all of it.
            *read = Bytes::new();
        }
        Ok(Some(head))
    }

    fn parse(bytes: &[u8], method: &Method) -> Result<Option<(Self, usize)>, Invalid> {
        // Only a server may overlook empty lines (RFC 9112, 2.2): before an answer they are the end of another.
        if matches!(bytes.first(), Some(b'\r' | b'\n')) {
            return Err(Invalid::LineEnd);
        }
        let mut fields = [const { MaybeUninit::uninit() }; FIELDS];
        let mut parsed = httparse::Response::new(&mut []);
        let parser = httparse::ParserConfig::default();
        let length = match parser.parse_response_with_uninit_headers(&mut parsed, bytes, &mut fields)? {
            httparse::Status::Complete(length) if length <= LIMIT => length,
            httparse::Status::Partial if bytes.len() < LIMIT => return Ok(None),
            httparse::Status::Complete(_) | httparse::Status::Partial => return Err(Invalid::TooLarge),
        };
        let text = bytes.get(..length).unwrap_or_default();
        ends_in_pairs(text)?;
        let status = parsed.code.and_then(|code| StatusCode::from_u16(code).ok()).ok_or(Invalid::Status)?;
        let reason = parsed.reason.filter(|reason| Some(*reason) != status.canonical_reason());
        // These two say no length (RFC 9110, 8.6).
        let lengthless = status.is_informational() || status == StatusCode::NO_CONTENT;
        let fields = Reader::read(text, parsed.headers, lengthless)?;
        let no_body = lengthless || *method == Method::HEAD || status == StatusCode::NOT_MODIFIED;
        let framing = if no_body { None } else { Some(fields.framing(parsed.version)?) };
        let head = Self {
            status,
            reason: reason.map(Into::into),
            keeps_alive: parsed.version == Some(1)
                && !fields.close
                && !matches!(framing, Some(Framing::Close)),
            framing: framing.filter(|framing| !framing.is_end()),
            fields: fields.passed,
            // HTTP/1.0 has no such thing (RFC 9110, 7.8).
            switches: status == StatusCode::SWITCHING_PROTOCOLS
                && parsed.version == Some(1)
                && switches(parsed.headers),
        };
        Ok(Some((head, length)))
    }

    /// Of an answer over HTTP/2, whose frames say where its body ends: the framing is the length that it announces, or
    /// [`Framing::Close`].
    pub fn of(parts: &Parts, method: &Method) -> Result<Self, Invalid> {
        if parts.headers.len() > FIELDS || framing::length(&parts.headers) > LIMIT {
            return Err(Invalid::TooLarge);
        }
        let lengthless = parts.status == StatusCode::NO_CONTENT;
        let mut reader = Reader::new(b"", 512 + OURS, parts.headers.len(), lengthless);
        for (name, value) in &parts.headers {
            if !is_token(name.as_str()) {
                return Err(Invalid::Field);
            }
            reader.field(name.as_str().as_bytes(), value.as_bytes())?;
        }
        if reader.chunked {
            return Err(Invalid::Coding);
        }
        let no_body = lengthless || *method == Method::HEAD || parts.status == StatusCode::NOT_MODIFIED;
        Ok(Self {
            status: parts.status,
            reason: None,
            keeps_alive: true,
            framing: (!no_body).then(|| reader.length.map_or(Framing::Close, Framing::Length)),
            fields: reader.passed,
            switches: false,
        })
    }
}

fn switches(fields: &[httparse::Header<'_>]) -> bool {
    let all = |name: &'static str| {
        let named = fields.iter().filter(move |field| field.name.eq_ignore_ascii_case(name));
        named.flat_map(|field| words(field.value))
    };
    let mut protocols = all("upgrade");
    protocols.next().is_some_and(|protocol| protocol.eq_ignore_ascii_case(b"websocket"))
        && protocols.next().is_none()
        && all("connection").any(|word| word.eq_ignore_ascii_case(b"upgrade"))
}

/// What has come of a head that was cut. It is read again when its end has come: one that comes byte by byte is not read
/// once a byte.
#[derive(Debug, Default)]
pub struct Gathered(Vec<u8>);

impl Gathered {
    /// Whether nothing has been cut.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Adds what is in `read`, which has no end, and `more`; all of it goes back to `read` where it is to be read again.
    pub fn add(&mut self, read: &mut Bytes, more: &[u8]) {
        let Self(bytes) = self;
        bytes.extend_from_slice(&std::mem::take(read));
        let seen = bytes.len().saturating_sub(3);
        bytes.extend_from_slice(more);
        let new = bytes.get(seen..).unwrap_or_default();
        if bytes.len() >= LIMIT
            || memmem::find(new, b"\n\r\n").is_some()
            || memmem::find(new, b"\n\n").is_some()
        {
            *read = std::mem::take(bytes).into();
        }
    }
}

/// The fields of a head: those that go on, and what the others said.
struct Reader<'m> {
    text: &'m [u8],
    passed: Fields,
    nominated: Nominated<'m>,
    lengthless: bool,
    length: Option<u64>,
    chunked: bool,
    close: bool,
}

impl<'m> Reader<'m> {
    /// With room for so many bytes of ours, and for so many fields and one of ours.
    fn new(text: &'m [u8], bytes: usize, count: usize, lengthless: bool) -> Self {
        let (passed, nominated) = (Fields::of(text, bytes, count + 1), Nominated::default());
        Self { text, passed, nominated, lengthless, length: None, chunked: false, close: false }
    }

    fn read(text: &'m [u8], parsed: &[httparse::Header<'m>], lengthless: bool) -> Result<Self, Invalid> {
        let mut reader = Self::new(text, OURS, parsed.len(), lengthless);
        for field in parsed.iter().filter(|field| field.name.eq_ignore_ascii_case("connection")) {
            reader.close |= words(field.value).any(|word| word.eq_ignore_ascii_case(b"close"));
            reader.nominated.read(field.value);
        }
        for field in parsed {
            reader.field(field.name.as_bytes(), field.value)?;
        }
        Ok(reader)
    }

    fn field(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let kind = Kind::of(name);
        if kind == Kind::Length {
            self.length(name, value)?;
        } else if kind == Kind::Coding {
            self.coding(value)?;
        } else if !kind.ends_here() && !self.nominated.has(name) {
            self.pass(kind, name, value);
        }
        Ok(())
    }

    fn pass(&mut self, kind: Kind, name: &[u8], value: &[u8]) {
        if self.text.is_empty() {
            self.passed.push_as(kind, name, value);
        } else {
            self.passed.place(kind, self.text, name, value);
        }
    }

    /// Several are one if they say the same (RFC 9112, 6.3).
    fn length(&mut self, name: &[u8], value: &[u8]) -> Result<(), Invalid> {
        let length = digits(value).ok_or(Invalid::Length)?;
        match self.length {
            Some(other) if other != length => Err(Invalid::Length),
            Some(_) => Ok(()),
            None => {
                self.length = Some(length);
                if !self.lengthless {
                    self.pass(Kind::Length, name, value);
                }
                Ok(())
            }
        }
    }

    /// `chunked`, once: what another coding would have done to the body nobody behind us would know.
    fn coding(&mut self, value: &[u8]) -> Result<(), Invalid> {
        if self.chunked || !value.eq_ignore_ascii_case(b"chunked") {
            return Err(Invalid::Coding);
        }
        self.chunked = true;
        Ok(())
    }

    fn framing(&self, version: Option<u8>) -> Result<Framing, Invalid> {
        match (self.chunked, self.length) {
            (true, Some(_)) => Err(Invalid::Length),
            // Chunks came with HTTP/1.1 (RFC 9112, 6.1).
            (true, None) if version != Some(1) => Err(Invalid::Coding),
            (true, None) => Ok(Framing::Chunked(Chunks::padded().without(&self.nominated))),
            (false, Some(length)) => Ok(Framing::Length(length)),
            (false, None) => Ok(Framing::Close),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(method: &Method, text: &str) -> Result<Option<Head>, Invalid> {
        Head::read(&mut Bytes::copy_from_slice(text.as_bytes()), method)
    }

    #[test]
    fn where_the_body_ends_has_one_reading_or_none() {
        let check = |text: &str, wanted: &str| {
            let head = read(&Method::GET, &format!("HTTP/1.1 200 OK\r\n{text}\r\n"));
            let got = match head.map(|head| head.map(|head| head.framing)) {
                Ok(Some(None)) => "empty".to_owned(),
                Ok(Some(Some(Framing::Length(length)))) => length.to_string(),
                Ok(Some(Some(Framing::Chunked(_)))) => "chunked".to_owned(),
                Ok(Some(Some(Framing::Close))) => "close".to_owned(),
                Ok(None) => "partial".to_owned(),
                Err(_) => "invalid".to_owned(),
            };
            assert_eq!(got, wanted, "{text}");
        };
        check("", "close");
        check("Content-Length: 5\r\n", "5");
        check("Content-Length: 0\r\n", "empty");
        check("Content-Length: 5\r\ncontent-length: 5\r\n", "5");
        check("Content-Length: 5\r\nContent-Length: 6\r\n", "invalid");
        for length in ["5, 5", "+5", "-1", "0x5", "5 5", "", "18446744073709551616"] {
            check(&format!("Content-Length: {length}\r\n"), "invalid");
        }
        check("Transfer-Encoding: chunked\r\n", "chunked");
        check("Transfer-Encoding: Chunked\r\n", "chunked");
        check("Transfer-Encoding: chunked\r\nContent-Length: 5\r\n", "invalid");
        for coding in ["gzip", "gzip, chunked", "chunked, chunked", "xchunked", "identity", ""] {
            check(&format!("Transfer-Encoding: {coding}\r\n"), "invalid");
        }
        check("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n", "invalid");
        check("No Name: 1\r\n", "invalid");
        check("A: 1\r\n folded\r\n", "invalid");
        check("A : 1\r\n", "invalid");
        check("A: \0\r\n", "invalid");
        assert!(read(&Method::GET, "HTTP/1.1 200 OK\r\nA: 1\r\n\r").expect("no fault so far").is_none());
    }

    #[test]
    fn some_answers_have_no_body_whatever_they_say() {
        for (method, status) in
            [(Method::HEAD, "200 OK"), (Method::GET, "204 No Content"), (Method::GET, "304 x")]
        {
            let head = read(&method, &format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\n\r\n"));
            assert!(head.expect("valid").expect("whole").framing.is_none(), "{status}");
        }
    }

    #[test]
    fn a_connection_is_kept_where_nobody_said_otherwise() {
        let check = |line: &str, fields: &str, wanted: bool| {
            let head = read(&Method::GET, &format!("{line}\r\n{fields}Content-Length: 1\r\n\r\n"))
                .expect("valid")
                .expect("whole");
            assert_eq!(head.keeps_alive, wanted, "{line} {fields}");
        };
        check("HTTP/1.1 200 OK", "", true);
        check("HTTP/1.1 200 OK", "Connection: x, Close\r\n", false);
        check("HTTP/1.1 200 OK", "Connection: keep-alive\r\n", true);
        check("HTTP/1.0 200 OK", "", false);
    }

    #[test]
    fn what_belongs_to_the_connection_ends_here() {
        let fields = "Connection: X-Mine, content-length\r\nX-Mine: 1\r\nKeep-Alive: 5\r\nUpgrade: h2c\r\n\
             Scopegate-Reason: forged\r\nX-Request-Id: theirs\r\nContent-Length: 1\r\nSet-Cookie: a\r\nSet-Cookie: b\r\n";
        let head = read(&Method::GET, &format!("HTTP/1.1 200 Fine\r\n{fields}\r\n"));
        let head = head.expect("valid").expect("whole");
        let names: Vec<_> = head.fields.iter().map(|field| field.name.to_ascii_lowercase()).collect();
        assert_eq!(names, [&b"content-length"[..], b"set-cookie", b"set-cookie"]);
        assert_eq!(head.reason.as_deref(), Some("Fine"));
    }

    #[test]
    fn a_head_is_the_same_however_its_bytes_are_cut() {
        for (text, rest) in [
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nbody", Some(4)),
            ("HTTP/1.1 200 OK\r\nContent-Length: 4\n\nbody", None),
        ] {
            for size in 1..=text.len() {
                let (mut gathered, mut read) = (Gathered::default(), Bytes::new());
                let mut pieces = text.as_bytes().chunks(size);
                let got = loop {
                    match Head::read(&mut read, &Method::GET) {
                        Ok(Some(_)) => break Some(read.len() + pieces.map(<[u8]>::len).sum::<usize>()),
                        Ok(None) => gathered.add(&mut read, pieces.next().expect("a head")),
                        Err(_) => break None,
                    }
                };
                assert_eq!(got, rest, "in pieces of {size}");
            }
        }
        let (mut gathered, mut read) = (Gathered::default(), Bytes::new());
        while read.is_empty() {
            gathered.add(&mut read, b"HTTP/1.1 200 OK and more");
        }
        assert!(Head::read(&mut read, &Method::GET).is_err());
    }
}

//! The head of a request: one reading, or none (RFC 9112, 2 to 6).

use std::fmt;
use std::mem::MaybeUninit;
use std::rc::Rc;

use data_encoding::BASE64;
use http::header::{CONTENT_TYPE, COOKIE};
use http::request::Parts;
use http::{Method, Version};
use hyper::ext::Protocol;

use super::field::{Kind, Nominated, is_token, words};
use super::fields::Fields;
use super::framing::{self, Chunks, Framing};
use super::invalid::Invalid;

/// The most fields that a limit may allow.
pub const MOST_FIELDS: usize = 256;

/// The most fields that `Connection` may list: each is looked for among all others.
const NOMINATED: usize = 32;

/// How large a head may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// All of it, in bytes.
    pub head: usize,
    /// Its fields, in number; at most [`MOST_FIELDS`].
    pub fields: usize,
    /// Its target, in bytes.
    pub target: usize,
}

/// The head of a request. It holds a key: it is not shown.
pub struct Head {
    /// As it came.
    pub method: Method,
    /// Of the client's connection.
    pub version: Version,
    /// Its fields.
    pub fields: Fields,
    /// Path and query, as they came.
    pub target: Rc<str>,
    /// How much of it is the path.
    path: usize,
    /// What names a server in the target, if anything does.
    authority: Option<Box<str>>,
    extended: bool,
}

impl fmt::Debug for Head {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Head").field("method", &self.method).finish_non_exhaustive()
    }
}

impl Head {
    /// Reads a head at the beginning of these bytes, when all of it is there; and says how long it is.
    pub fn read(bytes: &[u8], limits: &Limits) -> Result<Option<(Self, usize)>, Invalid> {
        let mut room = [const { MaybeUninit::uninit() }; MOST_FIELDS];
        let mut parsed = httparse::Request::new(&mut []);
        let room = room.get_mut(..limits.fields.min(MOST_FIELDS)).unwrap_or_default();
        let length =
            match parsed.parse_with_uninit_headers(bytes, room).map_err(|error| said(error, bytes))? {
                httparse::Status::Complete(length) if length <= limits.head => length,
                httparse::Status::Partial if bytes.len() < limits.head => return Ok(None),
                httparse::Status::Complete(_) | httparse::Status::Partial => {
                    return Err(too_large(bytes, limits));
                }
            };
        let text = bytes.get(..length).unwrap_or_default();
        ends_in_pairs(text)?;
        let method =
            Method::from_bytes(parsed.method.unwrap_or_default().as_bytes()).map_err(|_| Invalid::Target)?;
        let version = if parsed.version == Some(1) { Version::HTTP_11 } else { Version::HTTP_10 };
        let whole = parsed.path.unwrap_or_default();
        let target = Target::read(whole, &method)?;
        if whole.len() > limits.target {
            return Err(Invalid::TargetTooLong);
        }
        let mut head = Self {
            method,
            version,
            fields: Fields::of(text, 0, parsed.headers.len()),
            path: target.length,
            target: target.path.into(),
            authority: target.authority.map(Into::into),
            extended: false,
        };
        for field in &*parsed.headers {
            let name = field.name.as_bytes();
            head.fields.place(Kind::of(name), text, name, field.value);
        }
        if head.fields.has(Kind::Connection)
            && head.fields.all(Kind::Connection).flat_map(words).count() > NOMINATED
        {
            return Err(Invalid::TooLarge);
        }
        Ok(Some((head, length)))
    }

    /// Of a request that another library has read. Extended CONNECT for a WebSocket (RFC 8441) becomes the GET that
    /// HTTP/1.1 asks the same with, and gets the key that it has no use for itself.
    pub fn of(parts: &Parts, limits: &Limits) -> Result<Self, Invalid> {
        // In as many fields as it likes (RFC 9113, 8.2.3): it becomes one.
        let cookies = parts.headers.get_all(COOKIE).iter().count().saturating_sub(1);
        if parts.headers.len() - cookies > limits.fields || framing::length(&parts.headers) > limits.head {
            return Err(Invalid::TooLarge);
        }
        let target = parts.uri.path_and_query().map_or("", |target| target.as_str());
        if !path_of(target).is_ascii() || parts.uri.scheme_str().is_some_and(|scheme| !is_ours(scheme)) {
            return Err(Invalid::Target);
        }
        if target.len() > limits.target {
            return Err(Invalid::TargetTooLong);
        }
        let extended = is_extended(parts);
        let mut fields = Fields::with_capacity(512, parts.headers.len() + usize::from(extended));
        for (name, value) in &parts.headers {
            // There is no place for blanks around it (RFC 9113, 8.2.1).
            if value.as_bytes().trim_ascii().len() < value.len() || !is_token(name.as_str()) {
                return Err(Invalid::Field);
            }
            let name = name.as_str().as_bytes();
            if !(extended && Kind::of(name) == Kind::WebSocketKey) {
                fields.push(name, value.as_bytes());
            }
        }
        if extended {
            // It proves that the answer is to this handshake, and hides nothing.
            let key = BASE64.encode(&fastrand::u128(..).to_be_bytes());
            fields.push(b"sec-websocket-key", key.as_bytes());
        }
        let head = Self {
            method: if extended { Method::GET } else { parts.method.clone() },
            version: parts.version,
            fields,
            target: target.into(),
            path: parts.uri.path().len(),
            authority: parts.uri.authority().map(|authority| authority.as_str().into()),
            extended,
        };
        head.expects()?;
        // As over HTTP/1; what its value says has been looked at where it was read.
        if head.fields.all(Kind::Length).nth(1).is_some() { Err(Invalid::Length) } else { Ok(head) }
    }

    /// Of a request that another library has read, and that is none to us: as much as its answer depends on.
    #[must_use]
    pub fn outline(parts: &Parts) -> Self {
        let mut fields = Fields::default();
        if let Some(kind) = parts.headers.get(CONTENT_TYPE) {
            fields.push_as(Kind::Plain, CONTENT_TYPE.as_str().as_bytes(), kind.as_bytes());
        }
        let (method, version) = (parts.method.clone(), parts.version);
        Self { method, version, fields, target: "".into(), path: 0, authority: None, extended: false }
    }

    /// The path as it came. It is `/` where the target is an address without one (RFC 9110, 4.2.3).
    #[must_use]
    pub fn path(&self) -> &str {
        match self.target.get(..self.path) {
            Some(path) if !path.is_empty() => path,
            _ => "/",
        }
    }

    /// The query, without its question mark.
    #[must_use]
    pub fn query(&self) -> Option<&str> {
        self.target.get(self.path + 1..)
    }

    /// What names a server in the target, if anything does.
    #[must_use]
    pub fn authority(&self) -> Option<&str> {
        self.authority.as_deref()
    }

    /// Whether it came as extended CONNECT: only a WebSocket may be the answer, or a refusal.
    #[must_use]
    pub fn is_extended(&self) -> bool {
        self.extended
    }

    /// Where its body ends; `None` where there is none (RFC 9112, 6.3).
    pub fn framing(&self) -> Result<Option<Framing>, Invalid> {
        let mut codings = self.fields.all(Kind::Coding);
        let mut lengths = self.fields.all(Kind::Length);
        match (codings.next(), codings.next(), lengths.next(), lengths.next()) {
            (None, _, None, _) => Ok(None),
            (None, _, Some(length), None) => {
                let length = digits(length).ok_or(Invalid::Length)?;
                Ok((length > 0).then_some(Framing::Length(length)))
            }
            (Some(coding), None, None, _) if coding.eq_ignore_ascii_case(b"chunked") => {
                // Chunks came with HTTP/1.1 (RFC 9112, 6.1).
                if self.version == Version::HTTP_11 {
                    Ok(Some(Framing::Chunked(Chunks::strict().without(&self.nominated()))))
                } else {
                    Err(Invalid::Length)
                }
            }
            (Some(_), _, None, _) => Err(self.no_end()),
            (_, _, Some(_), _) => Err(Invalid::Length),
        }
    }

    /// What is wrong with its codings: where `chunked` is not the last of them, and only the last, the end of the body
    /// is not known (RFC 9112, 6.3).
    fn no_end(&self) -> Invalid {
        let chunked = |word: &[u8]| word.eq_ignore_ascii_case(b"chunked");
        let mut codings = self.fields.all(Kind::Coding).flat_map(words).map(chunked);
        if codings.find(|chunked| *chunked).is_some() && codings.next().is_none() {
            Invalid::Coding
        } else {
            Invalid::Length
        }
    }

    /// What it lists in `Connection`.
    fn nominated(&self) -> Nominated<'_> {
        let mut nominated = Nominated::default();
        self.fields.all(Kind::Connection).for_each(|value| nominated.read(value));
        nominated
    }

    /// Whether the client wants to be asked for its body (RFC 9110, 10.1.1).
    pub fn expects(&self) -> Result<bool, Invalid> {
        let mut expectations = self.fields.all(Kind::Expect);
        match (expectations.next(), expectations.next()) {
            (None, _) => Ok(false),
            (Some(value), None) if value.eq_ignore_ascii_case(b"100-continue") => {
                // A client of HTTP/1.0 cannot mean it.
                Ok(self.version == Version::HTTP_11)
            }
            (Some(_), _) => Err(Invalid::Expectation),
        }
    }

    /// Whether the client takes an answer after which the connection stays (RFC 9112, 9.3).
    #[must_use]
    pub fn keeps_alive(&self) -> bool {
        let says = |word| self.fields.lists(Kind::Connection, word);
        if self.version == Version::HTTP_10 { says("keep-alive") && !says("close") } else { !says("close") }
    }
}

/// Whether it is CONNECT for a WebSocket; for anything else it is a CONNECT like others.
fn is_extended(parts: &Parts) -> bool {
    parts.method == Method::CONNECT
        && parts.extensions.get::<Protocol>().is_some_and(|protocol| protocol.as_str() == "websocket")
}

/// The parts of a target (RFC 9112, 3.2).
struct Target<'a> {
    authority: Option<&'a str>,
    /// With the query.
    path: &'a str,
    /// How much of that is the path.
    length: usize,
}

impl<'a> Target<'a> {
    fn read(target: &'a str, method: &Method) -> Result<Self, Invalid> {
        // A fragment is never sent (RFC 9110, 4.2.5): who cuts it off reads another target. Nor is a path with a byte
        // outside of ASCII (RFC 3986, 2), of which one server makes another character than the next; a query is the
        // upstream's to read, and some clients send one so.
        let path = path_of(target);
        if *method == Method::CONNECT || target.as_bytes().contains(&b'#') || !path.is_ascii() {
            return Err(Invalid::Target);
        }
        let (authority, rest) = if target.starts_with('/') {
            (None, target)
        } else {
            let (scheme, rest) = target.split_once("://").ok_or(Invalid::Target)?;
            if !is_ours(scheme) {
                return Err(Invalid::Target);
            }
            let end = rest.find(['/', '?']).unwrap_or(rest.len());
            let (authority, rest) = rest.split_at(end);
            (Some(authority), rest)
        };
        Ok(Self { authority, path: rest, length: path.len().saturating_sub(target.len() - rest.len()) })
    }
}

/// Without the query.
fn path_of(target: &str) -> &str {
    let end = target.bytes().position(|byte| byte == b'?').unwrap_or(target.len());
    target.get(..end).unwrap_or_default()
}

/// `https` too: who ended TLS in front of us may say what a client said.
fn is_ours(scheme: &str) -> bool {
    ["http", "https"].iter().any(|known| scheme.eq_ignore_ascii_case(known))
}

/// A number of bytes: digits, and nothing else (RFC 9110, 8.6).
#[must_use]
pub fn digits(value: &[u8]) -> Option<u64> {
    let digits = std::str::from_utf8(value).ok().filter(|_| value.iter().all(u8::is_ascii_digit))?;
    digits.parse().ok()
}

/// Every line ends with CR LF. The parser takes LF alone too, where others would read one line. Without a way out in the
/// middle, so that many bytes are looked at at once.
pub fn ends_in_pairs(text: &[u8]) -> Result<(), Invalid> {
    let behind = text.get(1..).unwrap_or_default();
    let alone = |(before, byte): (&u8, &u8)| u8::from(*byte == b'\n') & u8::from(*before != b'\r');
    let any = text.iter().zip(behind).fold(0, |any, pair| any | alone(pair));
    if any != 0 || text.first() == Some(&b'\n') { Err(Invalid::LineEnd) } else { Ok(()) }
}

fn too_large(bytes: &[u8], limits: &Limits) -> Invalid {
    let line = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
    if line > limits.target { Invalid::TargetTooLong } else { Invalid::TooLarge }
}

/// Whether there could be such a version (RFC 9112, 2.3), or people speak of one by that name.
fn is_version(version: &[u8]) -> bool {
    matches!(version, [major] | [major, b'.', _] if major.is_ascii_digit())
        && version.last().is_some_and(u8::is_ascii_digit)
}

/// What the parser says, in our words where they say more.
fn said(error: httparse::Error, bytes: &[u8]) -> Invalid {
    let line = bytes.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let third = line.splitn(3, |byte| *byte == b' ').nth(2).unwrap_or_default();
    let version = third.strip_suffix(b"\r").unwrap_or(third).strip_prefix(b"HTTP/");
    if error == httparse::Error::TooManyHeaders {
        Invalid::TooLarge
    } else if error == httparse::Error::Version && version.is_some_and(is_version) {
        Invalid::Version
    } else {
        Invalid::Syntax(error)
    }
}

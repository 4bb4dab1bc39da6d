//! One reading of the path, or none.
//!
//! What is matched must be what the upstream's router reads. TelAPI's router (find-my-way, in Fastify)
//! decodes once, is case-sensitive, and merges neither slashes nor dots. A path that two routers could
//! read differently is refused before it is matched, so that no reading of it can open another route;
//! tests/it/router.rs holds that against find-my-way itself.

use std::borrow::Cow;

/// A request's path that has one reading. Borrowed; the bytes stay as they came.
#[derive(Debug, Clone, Copy)]
pub struct Path<'a> {
    raw: &'a str,
    encoded: bool,
    encoded_slash: bool,
}

/// Why a path has more than one reading. The text goes to the log, not to the client.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PathProblem {
    /// `*`, or the authority alone.
    #[error("not a path that starts with a slash")]
    NotAbsolute,
    /// `//`: some servers merge them.
    #[error("an empty segment")]
    EmptySegment,
    /// `.` or `..`, plain or encoded: some servers resolve them.
    #[error("a dot segment")]
    DotSegment,
    /// `%` without two hexadecimal digits behind it.
    #[error("a broken percent-encoding")]
    BrokenEncoding,
    /// `%2F` outside of a tail that may hold it: a slash to some, a letter to others.
    #[error("an encoded slash")]
    EncodedSlash,
    /// `%5C` or `\`: a slash to some.
    #[error("a backslash")]
    Backslash,
    /// `%00` to `%1F` and `%7F`, or such a byte itself.
    #[error("a control character")]
    Control,
    /// `%25` before two hexadecimal digits, plain or encoded: a second decoding would go on.
    #[error("a double encoding")]
    DoubleEncoding,
    /// `#`: the end of the path to some, a letter to others.
    #[error("a fragment")]
    Fragment,
    /// `;`: the start of a parameter to some, of a query to others.
    #[error("a semicolon")]
    Semicolon,
    /// A raw byte above 127.
    #[error("a byte outside of ASCII")]
    NotAscii,
    /// Encoded bytes that are no UTF-8: the router cannot decode them.
    #[error("an encoding that is not UTF-8")]
    NotUtf8,
    /// A router that is less exact, or takes longer parameters, finds a route that demands more.
    #[error("a path that is nearly one of another route")]
    NearlyAnother,
    /// A name of the query that says whose the request is: some take the first of two, some the last.
    #[error("a query parameter that stands twice")]
    RepeatedQuery,
}

impl<'a> Path<'a> {
    /// Looks at every byte once.
    pub fn read(raw: &'a str) -> Result<Self, PathProblem> {
        let mut path = Self { raw, encoded: false, encoded_slash: false };
        let mut segment = Segment::default();
        let mut rest = raw.as_bytes().strip_prefix(b"/").ok_or(PathProblem::NotAbsolute)?;
        let mut high = false;
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            match byte {
                b'/' => {
                    if segment.is_empty() {
                        return Err(PathProblem::EmptySegment);
                    }
                    segment.end()?;
                    segment = Segment::default();
                }
                b'.' => segment.dot(),
                b'%' => {
                    let decoded = decode(behind).ok_or(PathProblem::BrokenEncoding)?;
                    rest = behind.get(2..).unwrap_or_default();
                    path.encoded = true;
                    match decoded {
                        b'.' => segment.dot(),
                        b'/' => {
                            path.encoded_slash = true;
                            segment.end()?;
                            segment = Segment { goes_on: true, ..Segment::default() };
                        }
                        b'\\' => return Err(PathProblem::Backslash),
                        b'%' if is_double(rest) => return Err(PathProblem::DoubleEncoding),
                        0..=0x1f | 0x7f => return Err(PathProblem::Control),
                        0x80.. => {
                            high = true;
                            segment.letter();
                        }
                        _ => segment.letter(),
                    }
                }
                b'\\' => return Err(PathProblem::Backslash),
                b';' => return Err(PathProblem::Semicolon),
                b'#' => return Err(PathProblem::Fragment),
                0..=0x1f | 0x7f => return Err(PathProblem::Control),
                0x80.. => return Err(PathProblem::NotAscii),
                _ => segment.letter(),
            }
        }
        segment.end()?;
        if high && percent_encoding::percent_decode_str(raw).decode_utf8().is_err() {
            return Err(PathProblem::NotUtf8);
        }
        Ok(path)
    }

    /// The path as it came.
    #[must_use]
    pub fn as_str(self) -> &'a str {
        self.raw
    }

    /// Everything behind the first slash, in which segments are looked for.
    pub(super) fn behind_slash(self) -> &'a str {
        self.raw.get(1..).unwrap_or_default()
    }

    /// True where `%2F` stands somewhere.
    #[must_use]
    pub fn has_encoded_slash(self) -> bool {
        self.encoded_slash
    }

    /// The literal that a raw segment of this path is once decoded, as find-my-way reads it: everything is decoded but the
    /// characters that `decodeURI` leaves alone, and a segment with one of those encoded is no literal.
    pub(super) fn decoded(self, segment: &'a str) -> Option<Cow<'a, str>> {
        if !self.encoded || !segment.contains('%') {
            return Some(Cow::Borrowed(segment));
        }
        let mut bytes = Vec::with_capacity(segment.len());
        let mut rest = segment.as_bytes();
        while let Some((&byte, behind)) = rest.split_first() {
            rest = behind;
            if byte == b'%' {
                let decoded = decode(behind).filter(|decoded| !b";/?:@&=+$,#".contains(decoded))?;
                rest = behind.get(2..).unwrap_or_default();
                bytes.push(decoded);
            } else {
                bytes.push(byte);
            }
        }
        String::from_utf8(bytes).ok().map(Cow::Owned)
    }
}

/// The most that find-my-way takes for a parameter, as Fastify has it: in UTF-16, once decoded.
const LONGEST_PARAM: usize = 100;

/// Whether a raw segment is longer than a parameter may be: the upstream's router gives the path to a wider route.
pub(super) fn is_long(segment: &str) -> bool {
    segment.len() > LONGEST_PARAM && all_decoded(segment).encode_utf16().count() > LONGEST_PARAM
}

/// What a raw segment, or a literal, is to a router that decodes everything and cares for no case.
pub(super) fn folded(segment: &str) -> Cow<'_, str> {
    let is_folded = |byte: u8| byte.is_ascii() && !byte.is_ascii_uppercase() && byte != b'%';
    if segment.bytes().all(is_folded) {
        return segment.into();
    }
    // One letter outside of ASCII, the sign of Kelvin, is a `k` in lower case.
    all_decoded(segment).to_lowercase().into()
}

fn all_decoded(segment: &str) -> Cow<'_, str> {
    percent_encoding::percent_decode_str(segment).decode_utf8_lossy()
}

/// What has been seen of a segment: enough to tell a dot segment.
#[derive(Default)]
struct Segment {
    length: usize,
    dots: usize,
    /// It follows a `%2F`: to who reads that as a letter, this is the middle of a segment.
    goes_on: bool,
}

impl Segment {
    fn letter(&mut self) {
        self.length += 1;
    }

    fn dot(&mut self) {
        self.length += 1;
        self.dots += 1;
    }

    fn is_empty(&self) -> bool {
        self.length == 0 && !self.goes_on
    }

    fn end(&self) -> Result<(), PathProblem> {
        let is_dots = self.length == self.dots && (1..=2).contains(&self.dots);
        if is_dots { Err(PathProblem::DotSegment) } else { Ok(()) }
    }
}

/// Whether these bytes, once decoded, are an encoding together with the `%25` before them.
fn is_double(behind: &[u8]) -> bool {
    let mut rest = behind;
    let mut digit = || {
        let (first, next) = rest.split_first()?;
        let byte = if *first == b'%' { decode(next)? } else { *first };
        rest = if *first == b'%' { next.get(2..)? } else { next };
        byte.is_ascii_hexdigit().then_some(())
    };
    digit().and_then(|()| digit()).is_some()
}

/// Two hexadecimal digits as a byte.
fn decode(digits: &[u8]) -> Option<u8> {
    let [high, low, ..] = digits else { return None };
    let value = |digit: u8| char::from(digit).to_digit(16).and_then(|value| u8::try_from(value).ok());
    Some(value(*high)? << 4 | value(*low)?)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_reading_or_none() {
        use PathProblem as P;
        let check = |raw: &str, wanted: Result<(), P>| {
            assert_eq!(Path::read(raw).map(|_| ()), wanted, "{raw}");
        };
        for raw in
            ["/", "/a", "/a/", "/a/b.c", "/a/...", "/a/%41", "/a/%C3%A9", "/a%20b", "/100%25", "/a%2Fb"]
                .into_iter()
                .chain(["/100%25%20off", "/50%25percent", "/5%252", "/%25%25"])
        {
            check(raw, Ok(()));
        }
        for (raw, problem) in [
            ("", P::NotAbsolute),
            ("*", P::NotAbsolute),
            ("a/b", P::NotAbsolute),
            ("//", P::EmptySegment),
            ("/a//b", P::EmptySegment),
            ("/.", P::DotSegment),
            ("/a/../b", P::DotSegment),
            ("/a/%2e%2E/b", P::DotSegment),
            ("/a/.%2e", P::DotSegment),
            ("/a/..%2fb", P::DotSegment),
            ("/a/x%2f..", P::DotSegment),
            ("/a/%", P::BrokenEncoding),
            ("/a/%4", P::BrokenEncoding),
            ("/a/%zz", P::BrokenEncoding),
            ("/a/%+1", P::BrokenEncoding),
            ("/a\\b", P::Backslash),
            ("/a%5cb", P::Backslash),
            ("/a%00", P::Control),
            ("/a%0a", P::Control),
            ("/a%7F", P::Control),
            ("/a%252e", P::DoubleEncoding),
            ("/a%25%32e", P::DoubleEncoding),
            ("/a%252%65", P::DoubleEncoding),
            ("/a%25%32%65", P::DoubleEncoding),
            ("/a%25%2541", P::DoubleEncoding),
            ("/a%25zz%2541", P::DoubleEncoding),
            ("/a;b=c", P::Semicolon),
            ("/a#b", P::Fragment),
            ("/é", P::NotAscii),
            ("/%C0%AF", P::NotUtf8),
            ("/%FF", P::NotUtf8),
        ] {
            check(raw, Err(problem));
        }
    }

    #[test]
    fn encoded_letters_are_matched_decoded_and_reserved_ones_are_not() {
        let same = |raw: &str, literal: &str| {
            let path = Path::read(raw).expect("one reading");
            path.decoded(path.behind_slash()).is_some_and(|decoded| decoded == literal)
        };
        assert!(same("/%61pps", "apps"));
        assert!(same("/apps", "apps"));
        assert!(!same("/Apps", "apps"));
        assert!(!same("/app", "apps"));
        assert!(!same("/appss", "apps"));
        assert!(!same("/%40me", "@me"));
        assert!(same("/%21me", "!me"));
    }
}

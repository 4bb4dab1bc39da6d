//! The fields of a head: its bytes, and where in them each field stands.

use std::fmt;

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue};

use super::field::Kind;

/// The fields of a head, in their order.
#[derive(Default)]
pub struct Fields {
    text: Vec<u8>,
    places: Vec<Place>,
    seen: Seen,
    /// Their text is more than their lines: the head that they were read in.
    is_read: bool,
}

/// One of them may hold a key: they are not shown.
impl fmt::Debug for Fields {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} fields", self.places.len())
    }
}

/// One field.
#[derive(Clone, Copy, PartialEq, Eq)]
pub struct Field<'a> {
    /// What it is to us.
    pub kind: Kind,
    /// As it came.
    pub name: &'a [u8],
    /// Without the blanks around it.
    pub value: &'a [u8],
    /// Both as they stand in the head, where that is `name: value` and the end of a line.
    line: Option<&'a [u8]>,
}

impl Field<'_> {
    /// Writes it as a line of a head.
    pub fn write(&self, out: &mut Vec<u8>) {
        match self.line {
            Some(line) => out.extend_from_slice(line),
            None => line(out, self.name, self.value),
        }
    }
}

/// Writes a line of a head.
pub fn line(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.reserve(name.len() + value.len() + 4);
    out.extend_from_slice(name);
    out.extend_from_slice(b": ");
    out.extend_from_slice(value);
    out.extend_from_slice(b"\r\n");
}

/// A part of a head: where it begins, and where it has ended. A head is far below four gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
struct Span {
    from: u32,
    to: u32,
}

#[derive(Clone, Copy)]
struct Place {
    kind: Kind,
    name: Span,
    value: Span,
}

/// Kinds of fields that stand somewhere.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Seen(u32);

impl Seen {
    /// One more.
    pub fn add(&mut self, kind: Kind) {
        self.0 |= 1 << kind as u32;
    }

    /// Whether it is one of them.
    #[must_use]
    pub fn has(self, kind: Kind) -> bool {
        self.0 & 1 << kind as u32 != 0
    }
}

impl Span {
    /// Of a part of these bytes.
    fn of(part: &[u8], whole: &[u8]) -> Self {
        let from = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        Self::new(from, from + part.len())
    }

    fn new(from: usize, to: usize) -> Self {
        let at = |place| u32::try_from(place).unwrap_or(u32::MAX);
        Self { from: at(from), to: at(to) }
    }
}

impl Fields {
    /// None yet of a head with this text; there is room for so many bytes more, and so many fields.
    #[must_use]
    pub fn of(text: &[u8], bytes: usize, fields: usize) -> Self {
        let mut all = Self::with_capacity(text.len() + bytes, fields);
        all.text.extend_from_slice(text);
        all.is_read = true;
        all
    }

    /// One that stands in the text of its head already.
    pub fn place(&mut self, kind: Kind, text: &[u8], name: &[u8], value: &[u8]) {
        self.put(kind, Span::of(name, text), Span::of(value, text));
    }

    fn put(&mut self, kind: Kind, name: Span, value: Span) {
        self.seen.add(kind);
        self.places.push(Place { kind, name, value });
    }

    /// One that comes behind all others.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        self.push_as(Kind::of(name), name, value);
    }

    /// The same, where it is known what it is to us.
    pub fn push_as(&mut self, kind: Kind, name: &[u8], value: &[u8]) {
        let from = self.text.len();
        line(&mut self.text, name, value);
        let behind = from + name.len() + 2;
        self.put(kind, Span::new(from, from + name.len()), Span::new(behind, behind + value.len()));
    }

    /// Room for so many bytes and so many fields, and nothing in it.
    #[must_use]
    pub fn with_capacity(bytes: usize, count: usize) -> Self {
        let (text, places) = (Vec::with_capacity(bytes), Vec::with_capacity(count));
        Self { text, places, seen: Seen::default(), is_read: false }
    }

    /// The same, with room for so many bytes more, and so many fields.
    #[must_use]
    pub fn with_room(&self, bytes: usize, count: usize) -> Self {
        let mut all = Self::with_capacity(self.text.len() + bytes, self.places.len() + count);
        all.text.extend_from_slice(&self.text);
        all.places.extend_from_slice(&self.places);
        Self { seen: self.seen, is_read: self.is_read, ..all }
    }

    /// As another library has them. Nothing is lost: what is in a head has been read, and what we add can be a field.
    #[must_use]
    pub fn into_map(self) -> HeaderMap {
        let text = Bytes::from(self.text);
        let part = |span: Span| text.slice(span.from as usize..span.to as usize);
        let mut map = HeaderMap::with_capacity(self.places.len());
        for place in self.places {
            let name = HeaderName::from_bytes(&part(place.name));
            if let (Ok(name), Ok(mut value)) = (name, HeaderValue::from_maybe_shared(part(place.value))) {
                // A key is kept in no table of a connection (RFC 7541, 7.1.3).
                value.set_sensitive(matches!(place.kind, Kind::Authorization | Kind::ApiKey | Kind::Cookie));
                map.append(name, value);
            }
        }
        map
    }

    fn part(&self, span: Span) -> &[u8] {
        self.text.get(span.from as usize..span.to as usize).unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        self.places.iter().map(|place| Field {
            kind: place.kind,
            name: self.part(place.name),
            value: self.part(place.value),
            line: self.line(place),
        })
    }

    /// All of them as lines of a head, where they were written here.
    #[must_use]
    pub fn lines(&self) -> Option<&[u8]> {
        (!self.is_read).then_some(&self.text)
    }

    fn line(&self, place: &Place) -> Option<&[u8]> {
        let between = self.part(Span { from: place.name.to, to: place.value.from });
        let behind = self.part(Span { from: place.value.to, to: place.value.to + 2 });
        let line = self.part(Span { from: place.name.from, to: place.value.to + 2 });
        (between == b": " && behind == b"\r\n").then_some(line)
    }

    /// Whether there is one of this kind.
    #[must_use]
    pub fn has(&self, kind: Kind) -> bool {
        self.seen.has(kind)
    }

    /// The values of this kind. What is not there is not looked for.
    pub fn all(&self, kind: Kind) -> impl Iterator<Item = &[u8]> {
        let places: &[Place] = if self.seen.has(kind) { &self.places } else { &[] };
        places.iter().filter(move |place| place.kind == kind).map(|place| self.part(place.value))
    }

    /// The first value of this kind.
    #[must_use]
    pub fn first(&self, kind: Kind) -> Option<&[u8]> {
        self.all(kind).next()
    }

    /// Whether one of the lists of this kind has this word, in any case.
    #[must_use]
    pub fn lists(&self, kind: Kind, word: &str) -> bool {
        self.all(kind)
            .flat_map(super::field::words)
            .any(|listed| listed.eq_ignore_ascii_case(word.as_bytes()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_marked_for_who_would_keep_it() {
        let mut fields = Fields::default();
        for name in ["authorization", "X-API-Key", "cookie", "accept"] {
            fields.push(name.as_bytes(), b"value");
        }
        let map = fields.into_map();
        let marked = ["authorization", "x-api-key", "cookie", "accept"].map(|name| map[name].is_sensitive());
        assert_eq!(marked, [true, true, true, false]);
    }
}

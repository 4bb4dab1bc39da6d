//! The fields of a head: its bytes, and where in them each field stands.

use super::field::Kind;

/// Names up to this length can be more than plain or one of a family.
const LONGEST: usize = 40;

/// The fields of a head, in their order.
#[derive(Default)]
pub struct Fields {
    text: Vec<u8>,
    places: Vec<Place>,
    seen: Seen,
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
}

/// A part of a head: where it begins, and where it has ended. A head is far below four gigabytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Span {
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
    pub(super) fn of(part: &[u8], whole: &[u8]) -> Self {
        let from = part.as_ptr().addr().saturating_sub(whole.as_ptr().addr());
        Self::new(from, from + part.len())
    }

    pub(super) fn new(from: usize, to: usize) -> Self {
        let at = |place| u32::try_from(place).unwrap_or(u32::MAX);
        Self { from: at(from), to: at(to) }
    }
}

impl Fields {
    /// Of a head with these bytes, and room for so many fields.
    pub(super) fn with(text: Vec<u8>, count: usize) -> Self {
        Self { text, places: Vec::with_capacity(count), seen: Seen::default() }
    }

    /// One that stands in the bytes already.
    pub(super) fn place(&mut self, name: Span, value: Span) {
        let mut lower = [0; LONGEST];
        let letters = self.part(name);
        let known = lower.iter_mut().zip(letters).map(|(to, from)| *to = from.to_ascii_lowercase()).count();
        let kind = Kind::of(lower.get(..known).unwrap_or_default());
        self.seen.add(kind);
        self.places.push(Place { kind, name, value });
    }

    /// One that comes behind all others.
    pub fn push(&mut self, name: &[u8], value: &[u8]) {
        let (name, value) = (self.write(name), self.write(value));
        self.place(name, value);
    }

    /// Writes a part of a head behind what is there.
    pub(super) fn write(&mut self, part: &[u8]) -> Span {
        let from = self.text.len();
        self.text.extend_from_slice(part);
        Span::new(from, self.text.len())
    }

    pub(super) fn part(&self, span: Span) -> &[u8] {
        self.text.get(span.from as usize..span.to as usize).unwrap_or_default()
    }

    /// All of them.
    pub fn iter(&self) -> impl Iterator<Item = Field<'_>> {
        let read = |place: &Place| Field {
            kind: place.kind,
            name: self.part(place.name),
            value: self.part(place.value),
        };
        self.places.iter().map(read)
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

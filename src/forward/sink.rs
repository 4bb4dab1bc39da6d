//! What the fields of a request are written to.

use crate::message::field::Kind;
use crate::message::fields::{Field, Fields, line};

/// What fields are written to: the text of HTTP/1, or what HTTP/2 makes frames of.
pub(super) trait Sink {
    /// One of the client's.
    fn pass(&mut self, field: Field<'_>);
    /// One of ours.
    fn line(&mut self, name: &[u8], value: &[u8]);
    /// One of ours, of several words.
    fn list<'v>(&mut self, name: &[u8], words: impl Iterator<Item = &'v [u8]>);
}

impl Sink for Vec<u8> {
    fn pass(&mut self, field: Field<'_>) {
        field.write(self);
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        line(self, name, value);
    }

    fn list<'v>(&mut self, name: &[u8], words: impl Iterator<Item = &'v [u8]>) {
        self.extend_from_slice(name);
        let mut between = &b": "[..];
        for word in words {
            self.extend_from_slice(between);
            self.extend_from_slice(word);
            between = b", ";
        }
        self.extend_from_slice(b"\r\n");
    }
}

impl Sink for Fields {
    fn pass(&mut self, field: Field<'_>) {
        if field.kind != Kind::Host {
            self.push_as(field.kind, field.name, field.value);
        }
    }

    fn line(&mut self, name: &[u8], value: &[u8]) {
        self.push_as(Kind::Plain, name, value);
    }

    fn list<'v>(&mut self, name: &[u8], words: impl Iterator<Item = &'v [u8]>) {
        Sink::line(self, name, &words.collect::<Vec<_>>().join(&b", "[..]));
    }
}

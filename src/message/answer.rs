//! An answer to a request.

use http::StatusCode;

use super::fields::Fields;

/// An answer to a request: its head, and a body of some kind.
pub struct Answer<B> {
    /// What became of the request.
    pub status: StatusCode,
    /// Words for that, where they are not the usual ones.
    pub reason: Option<Box<str>>,
    /// Its fields.
    pub fields: Fields,
    /// Its body.
    pub body: B,
}

impl<B> Answer<B> {
    /// The usual words.
    #[must_use]
    pub fn new(status: StatusCode, fields: Fields, body: B) -> Self {
        Self { status, reason: None, fields, body }
    }

    /// The same with another body.
    pub fn map<C>(self, other: impl FnOnce(B) -> C) -> Answer<C> {
        let Self { status, reason, fields, body } = self;
        Answer { status, reason, fields, body: other(body) }
    }
}

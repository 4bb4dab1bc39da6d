//! A key as it is looked up.

use std::fmt;

use zeroize::Zeroizing;

use crate::identity::key::Digest;

/// A key that is looked up.
#[derive(Clone, Copy)]
pub struct Presented<'k> {
    /// What it is known by.
    pub digest: Digest,
    /// Itself, where the head of its request is still there: whoever is inside already is looked up without.
    pub key: Option<&'k [u8]>,
    /// What its source said before an outage is no answer.
    pub strictly: bool,
}

/// A copy of a key, for a source that is asked with it. Nothing is left of it when it is dropped.
pub(super) struct Plain(Zeroizing<Box<[u8]>>);

impl<'k> Presented<'k> {
    /// As a request carries it.
    #[must_use]
    pub fn now(key: &'k [u8]) -> Self {
        Self { digest: Digest::of(key), key: Some(key), strictly: false }
    }

    /// The key of who is inside on it.
    #[must_use]
    pub fn before(digest: Digest) -> Self {
        Self { digest, key: None, strictly: false }
    }

    /// The same, after something has changed: who is inside need not be admitted, and can wait for an answer.
    #[must_use]
    pub fn again(digest: Digest) -> Self {
        Self { strictly: true, ..Self::before(digest) }
    }
}

impl fmt::Debug for Presented<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.digest, f)
    }
}

impl Plain {
    pub(super) fn of(key: &[u8]) -> Self {
        Self(Zeroizing::new(key.into()))
    }

    pub(super) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl fmt::Debug for Plain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a key")
    }
}

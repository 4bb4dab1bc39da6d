//! What we keep of an API key: a digest of 32 bytes, never the key.

use std::fmt;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// What the name of a client's certificate is digested behind. It holds a space, and no key does: nobody can send a key that
/// is taken for a certificate.
pub const CERTIFICATE: &str = "certificate ";

/// The digest of an API key's bytes: SHA-256, or what [`super::hashing::Hashing`] makes of them.
///
/// A key has enough randomness that a fast hash is safe: there is no dictionary to try.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// Why a text is not a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum DigestError {
    /// No `sha256:` in front: most likely the key itself.
    #[error("not a digest: it does not start with `sha256:`")]
    Prefix,
    /// Made otherwise than the configuration says.
    #[error("not a digest of the kind that the configuration asks for")]
    Other,
    /// Not 64 digits behind the prefix.
    #[error("a sha256 digest has 64 hexadecimal digits, this one has {0}")]
    Length(usize),
    /// Something else than `0-9 a-f A-F`.
    #[error("`{0}` is not a hexadecimal digit")]
    Digit(char),
}

impl Digest {
    /// The digest of a key as the client sent it.
    #[must_use]
    pub fn of(key: &[u8]) -> Self {
        Self(Sha256::digest(key).into())
    }

    /// These 32 bytes, however they were made.
    pub(super) fn from_bytes(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Reads `sha256:` and 64 hexadecimal digits.
    pub fn parse(text: &str) -> Result<Self, DigestError> {
        Self::from_hex(text.strip_prefix("sha256:").ok_or(DigestError::Prefix)?)
    }

    /// Reads 64 hexadecimal digits.
    pub fn from_hex(digits: &str) -> Result<Self, DigestError> {
        if let Some(odd) = digits.chars().find(|c| !c.is_ascii_hexdigit()) {
            return Err(DigestError::Digit(odd));
        }
        if digits.len() != 64 {
            return Err(DigestError::Length(digits.len()));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.as_bytes().chunks_exact(2)) {
            *byte = pair.iter().fold(0, |value, digit| value << 4 | nibble(*digit));
        }
        Ok(Self(bytes))
    }

    /// Its 64 hexadecimal digits, in small letters.
    #[must_use]
    pub fn hex(&self) -> String {
        HEXLOWER.encode(&self.0)
    }
}

impl AsRef<[u8]> for Digest {
    fn as_ref(&self) -> &[u8] {
        &self.0
    }
}

fn nibble(digit: u8) -> u8 {
    match digit {
        b'0'..=b'9' => digit - b'0',
        b'a'..=b'f' => digit - b'a' + 10,
        _ => digit.wrapping_sub(b'A') + 10,
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "sha256:{}", self.hex())
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digest_of_a_key_is_sha256_and_round_trips() {
        let digest = Digest::of(b"abc");
        let text = "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(digest.to_string(), text);
        assert_eq!(Digest::parse(text), Ok(digest));
        assert_eq!(Digest::parse(&text.replace("ba78", "BA78")), Ok(digest));
    }

    #[test]
    fn what_is_not_a_digest_says_why() {
        assert_eq!(Digest::parse("sk_live_abc"), Err(DigestError::Prefix));
        assert_eq!(Digest::parse("sha256:00"), Err(DigestError::Length(2)));
        assert_eq!(Digest::parse("sha256:zz"), Err(DigestError::Digit('z')));
    }
}

//! How a key becomes the digest that sources know it by.

use std::fmt;
use std::sync::Arc;

use hmac::{Hmac, KeyInit as _, Mac as _};
use sha2::Sha256;

use super::key::{Digest, DigestError};

/// How a key becomes the digest that sources know it by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub enum Hashing {
    /// SHA-256 of the key alone.
    #[default]
    Sha256,
    /// HMAC-SHA-256 under a pepper: who has the digests and not the pepper cannot even try a key.
    HmacSha256(Arc<Pepper>),
}

/// A secret that digests are made with. It is not shown.
pub struct Pepper {
    begun: Hmac<Sha256>,
    /// Of no key, so that two can be told apart.
    mark: [u8; 32],
}

impl Hashing {
    /// Under this pepper.
    #[must_use]
    pub fn with_pepper(pepper: &[u8]) -> Self {
        let begun = Hmac::<Sha256>::new_from_slice(pepper).expect("any length will do");
        let mark = begun.clone().finalize().into_bytes().into();
        Self::HmacSha256(Arc::new(Pepper { begun, mark }))
    }

    /// The digest of a key as the client sent it.
    #[must_use]
    pub fn digest(&self, key: &[u8]) -> Digest {
        match self {
            Self::Sha256 => Digest::of(key),
            Self::HmacSha256(pepper) => {
                let mut mac = pepper.begun.clone();
                mac.update(key);
                Digest::from_bytes(mac.finalize().into_bytes().into())
            }
        }
    }

    /// A digest as a file has it.
    #[must_use]
    pub fn written(&self, digest: &Digest) -> String {
        format!("{}{}", self.prefix(), digest.hex())
    }

    /// What its digests begin with in a file.
    #[must_use]
    pub fn prefix(&self) -> &'static str {
        match self {
            Self::Sha256 => "sha256:",
            Self::HmacSha256(_) => "hmac-sha256:",
        }
    }

    /// Reads the prefix and 64 hexadecimal digits. A digest of the other kind is none: no key would ever match it.
    pub fn parse(&self, text: &str) -> Result<Digest, DigestError> {
        let other = match self {
            Self::Sha256 => "hmac-sha256:",
            Self::HmacSha256(_) => "sha256:",
        };
        match text.strip_prefix(self.prefix()) {
            Some(digits) => Digest::from_hex(digits),
            None if text.starts_with(other) => Err(DigestError::Other),
            None => Err(DigestError::Prefix),
        }
    }
}

impl PartialEq for Pepper {
    fn eq(&self, other: &Self) -> bool {
        self.mark == other.mark
    }
}

impl Eq for Pepper {}

impl fmt::Debug for Pepper {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pepper")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pepper_is_the_key_of_an_hmac() {
        // RFC 4231, test case 2.
        let hashing = Hashing::with_pepper(b"Jefe");
        let wanted = "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843";
        assert_eq!(hashing.digest(b"what do ya want for nothing?").hex(), wanted);
        assert_eq!(Hashing::Sha256.digest(b"abc"), Digest::of(b"abc"));
        assert_eq!(hashing, Hashing::with_pepper(b"Jefe"));
        assert_ne!(hashing, Hashing::with_pepper(b"Joe"));
        assert!(!format!("{hashing:?}").contains("Jefe"));
    }

    #[test]
    fn a_digest_of_the_other_kind_is_none() {
        let (plain, peppered) = (Hashing::Sha256, Hashing::with_pepper(b"Jefe"));
        let digits = "0".repeat(64);
        let (short, long) = (format!("sha256:{digits}"), format!("hmac-sha256:{digits}"));
        assert!(plain.parse(&short).is_ok() && peppered.parse(&long).is_ok());
        assert_eq!(plain.parse(&long), Err(DigestError::Other));
        assert_eq!(peppered.parse(&short), Err(DigestError::Other));
        assert_eq!(peppered.parse("sk_live_abc"), Err(DigestError::Prefix));
        assert_eq!(peppered.parse("hmac-sha256:00"), Err(DigestError::Length(2)));
    }
}

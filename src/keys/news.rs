//! What servers say of changes, and how they write it.

use crate::identity::key::Digest;

/// A server says that something has changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum News {
    /// From now on nothing is missed; what was before may have been.
    Listening,
    /// It answers, and never tells of changes, so that who is inside is looked at again. Said once in a while.
    Silent,
    /// This key.
    Key(Digest),
    /// This team, and so all of its keys.
    Team(Box<str>),
    /// Anything.
    All,
    /// It said something that cannot be read, which is taken as [`News::All`].
    Garbage,
}

impl News {
    /// Reads `key HEX`, `team NAME` or `all`: what a trigger sends, or a person publishes.
    #[must_use]
    pub fn read(payload: &str) -> Self {
        match payload.trim().split_once(' ') {
            Some(("key", digest)) => Digest::from_hex(digest.trim()).map_or(Self::Garbage, Self::Key),
            Some(("team", name)) if !name.trim().is_empty() => Self::Team(name.trim().into()),
            None if payload.trim() == "all" => Self::All,
            Some(_) | None => Self::Garbage,
        }
    }

    /// For the metric.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Listening => "listening",
            Self::Silent => "silent",
            Self::Key(_) => "key",
            Self::Team(_) => "team",
            Self::All => "all",
            Self::Garbage => "garbage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cannot_be_read_may_be_about_anything() {
        let digest = Digest::of(b"abc");
        let hex = digest.to_string().replace("sha256:", "");
        for (payload, wanted) in [
            (format!("key {hex}"), News::Key(digest)),
            (format!(" key  {} \n", hex.to_uppercase()), News::Key(digest)),
            ("team acme".to_owned(), News::Team("acme".into())),
            ("team two words".to_owned(), News::Team("two words".into())),
            ("all".to_owned(), News::All),
            (String::new(), News::Garbage),
            ("team ".to_owned(), News::Garbage),
            ("key sk_live_1".to_owned(), News::Garbage),
            ("{\"key\":1}".to_owned(), News::Garbage),
            ("all of it".to_owned(), News::Garbage),
        ] {
            assert_eq!(News::read(&payload), wanted, "{payload}");
        }
    }
}

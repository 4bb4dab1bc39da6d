//! What one request will say of itself when it ends.

use std::net::IpAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{Method, Version};
use uuid::Builder;
use uuid::fmt::Hyphenated;

use super::reason::Reason;
use crate::identity::caller::Caller;

/// Filled in as the request goes along, told once.
#[derive(Debug)]
pub struct Record {
    /// When its head had been read, for people.
    pub at: SystemTime,
    /// The same, for durations.
    pub began: Instant,
    /// Names the request in every log that it passes.
    pub id: Id,
    /// The other end of the connection: of its socket, or as a PROXY header says.
    pub peer: Rc<str>,
    /// The client that this peer, which is a trusted proxy, names.
    pub client: Option<IpAddr>,
    /// Method and version as the client sent them; `None` where what it sent could not be read.
    pub asked: Option<(Method, Version)>,
    /// The path, as far as it may be shown.
    pub path: Path,
    /// The admitted or refused caller, where the key is known.
    pub caller: Option<Caller>,
    /// What the connection's certificate is named: [`crate::identity::key::CERTIFICATE`] and the name.
    pub certificate: Option<Rc<str>>,
    /// The status that the client was sent; 0 where none was.
    pub status: u16,
    /// How it ended; `None` until somebody knows.
    pub reason: Option<Reason>,
    /// Why, for the operator: what was missing, or the cause of a fault.
    pub detail: Option<Arc<str>>,
    /// The layer that lacks a missing scope.
    pub layer: Option<&'static str>,
    /// From the head to the decision.
    pub decided: Duration,
    /// From the decision to the head of the upstream's answer.
    pub upstream: Option<Duration>,
    /// Bytes of body from the client.
    pub received: u64,
    /// Bytes of body to the client.
    pub sent: u64,
}

/// Names a request in the logs of everybody whom it passes: one word of visible ASCII.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Id {
    /// A UUID.
    Ours([u8; Hyphenated::LENGTH]),
    /// Of a hop that is trusted.
    Theirs(Box<str>),
}

impl Id {
    /// An id of a trusted hop is taken up to this length: a UUID has 36, a trace id 32.
    const LONGEST: usize = 128;

    /// A new one. Nothing is guarded by it: it must be rare, not secret.
    #[must_use]
    pub fn random() -> Self {
        let id = Builder::from_random_bytes(fastrand::u128(..).to_ne_bytes()).into_uuid();
        let mut text = [0; Hyphenated::LENGTH];
        id.hyphenated().encode_lower(&mut text);
        Self::Ours(text)
    }

    /// One that a trusted hop has given, if it can stand in a log.
    #[must_use]
    pub fn of(given: &[u8]) -> Option<Self> {
        let word = |byte: &u8| byte.is_ascii_alphanumeric() || b"-_.:/+=@".contains(byte);
        let good = (1..=Self::LONGEST).contains(&given.len()) && given.iter().all(word);
        std::str::from_utf8(given).ok().filter(|_| good).map(|given| Self::Theirs(given.into()))
    }

    /// The word.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Ours(text) => std::str::from_utf8(text).unwrap_or_default(),
            Self::Theirs(text) => text,
        }
    }

    /// Its bytes.
    #[must_use]
    pub fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Ours(text) => text,
            Self::Theirs(text) => text.as_bytes(),
        }
    }
}

/// How much of a path a log may show. Never the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Nothing: it may hold a secret.
    Hidden,
    /// This much of the target.
    Shown {
        /// Path and query.
        target: Rc<str>,
        /// Of the path.
        length: usize,
    },
    /// The path with everything hidden that is not in the configuration.
    Masked(Box<str>),
}

impl Path {
    /// What may be shown.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Hidden => None,
            Self::Shown { target, length } => target.get(..*length),
            Self::Masked(path) => Some(path),
        }
    }
}

impl Record {
    /// A request whose head had been read at this moment, which people call so.
    #[must_use]
    pub fn open(
        (began, at): (Instant, SystemTime),
        peer: Rc<str>,
        asked: Option<(Method, Version)>,
        id: Id,
    ) -> Self {
        Self {
            at,
            began,
            id,
            peer,
            client: None,
            asked,
            path: Path::Hidden,
            caller: None,
            certificate: None,
            status: 0,
            reason: None,
            detail: None,
            layer: None,
            decided: Duration::ZERO,
            upstream: None,
            received: 0,
            sent: 0,
        }
    }

    /// The head of the upstream's answer is there, or will not come.
    pub fn forwarded(&mut self) {
        self.upstream = Some(self.began.elapsed().saturating_sub(self.decided));
    }

    /// The last byte has been handed on.
    pub fn ended(&mut self) {
        self.reason.get_or_insert(Reason::Passed);
    }

    /// How it ended. Where nobody has said it, the client has left.
    #[must_use]
    pub fn end(&self) -> Reason {
        self.reason.unwrap_or(Reason::ClientGone)
    }

    /// It was refused, or it broke off.
    pub fn refused(&mut self, reason: Reason, detail: Option<Arc<str>>) {
        self.reason = Some(reason);
        self.detail = detail;
    }
}

//! What one request will say of itself when it ends.

use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use http::{HeaderValue, Method, Version};

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
    pub id: HeaderValue,
    /// Who the socket says that the client is.
    pub peer: Rc<str>,
    /// Method and version as the client sent them; `None` where what it sent could not be read.
    pub asked: Option<(Method, Version)>,
    /// The path, as far as it may be shown.
    pub path: Path,
    /// The admitted or refused caller, where the key is known.
    pub caller: Option<Arc<Caller>>,
    /// The status that the client was sent; 0 where none was.
    pub status: u16,
    /// How it ended; `None` until somebody knows.
    pub reason: Option<Reason>,
    /// Why, for the operator: what was missing, or the cause of a fault.
    pub detail: Option<Box<str>>,
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

/// How much of a path a log may show. Never the query.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Path {
    /// Nothing: it may hold a secret.
    Hidden,
    /// This much of it.
    Shown(Box<str>),
}

impl Path {
    /// What may be shown.
    #[must_use]
    pub fn as_str(&self) -> Option<&str> {
        match self {
            Self::Hidden => None,
            Self::Shown(path) => Some(path),
        }
    }
}

impl Record {
    /// A request whose head has just been read.
    #[must_use]
    pub fn open(peer: Rc<str>, asked: Option<(Method, Version)>, id: HeaderValue) -> Self {
        Self {
            at: SystemTime::now(),
            began: Instant::now(),
            id,
            peer,
            asked,
            path: Path::Hidden,
            caller: None,
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
    pub fn refused(&mut self, reason: Reason, detail: Option<Box<str>>) {
        self.reason = Some(reason);
        self.detail = detail;
    }
}

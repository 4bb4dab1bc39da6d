//! Reads an answer that mints a session, as it passes.

use std::sync::Arc;

use bytes::Bytes;
use http::StatusCode;
use serde_json::Value;

use super::ledger::Ledger;
use super::{Owner, Sessions};
use crate::identity::key::Digest;

/// An answer that names a session is read up to this length: TelAPI's has some 300 bytes.
const ANSWER: usize = 16 * 1024;

/// Reads an answer that mints a session, as it passes.
#[derive(Debug)]
pub struct Minting {
    sessions: Arc<Sessions>,
    /// Where other replicas learn of it.
    ledger: Option<Arc<Ledger>>,
    /// The member of the answer that names it.
    member: Box<str>,
    owner: Owner,
    text: Vec<u8>,
}

impl Minting {
    /// Of a success; what is not JSON is let be.
    #[must_use]
    pub fn of(
        status: StatusCode,
        member: Box<str>,
        owner: Owner,
        sessions: &Arc<Sessions>,
        ledger: Option<&Arc<Ledger>>,
    ) -> Option<Self> {
        let (sessions, ledger) = (Arc::clone(sessions), ledger.map(Arc::clone));
        status.is_success().then(|| Self { sessions, ledger, member, owner, text: Vec::new() })
    }

    /// A piece of the body is about to leave. True where nothing more need be read.
    #[must_use]
    pub fn read(&mut self, piece: &Bytes) -> bool {
        if self.text.len() + piece.len() > ANSWER {
            return true;
        }
        self.text.extend_from_slice(piece);
        // Who has the whole answer may open the channel at once: it must be known before its last byte leaves.
        if self.text.trim_ascii_end().last() != Some(&b'}') {
            return false;
        }
        let Ok(Value::Object(answer)) = serde_json::from_slice(&self.text) else { return false };
        if let Some(session) = answer.get(&*self.member).and_then(Value::as_str) {
            let session = Digest::of(session.as_bytes());
            if self.sessions.minted(session, self.owner.clone())
                && let Some(ledger) = &self.ledger
            {
                ledger.keep(session, self.owner.clone());
            }
        }
        true
    }
}

//! When certificates end, and when newer lists of those that were taken back are due.

use std::path::PathBuf;
use std::time::{Duration, SystemTime};

use super::read;
use crate::config::problem::Problem;

/// Enough for somebody to come back from a holiday; who renews by machine (ACME: 30 days ahead) is long done by then.
const WARN_AHEAD: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Of the life of a list, which may be hours or months: most are made anew long before the last part of it. Of a list that
/// lives for a day it is as long as the time between two warnings.
const LAST_PART: u32 = 3;

/// When something ends that was read from a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Where it was read.
    pub file: PathBuf,
    /// Its last moment.
    pub at: SystemTime,
    /// What ends.
    pub of: Of,
}

/// What ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Of {
    /// A certificate of ours.
    Certificate,
    /// A list of certificates that were taken back: a newer one is due.
    List {
        /// When it was made.
        since: SystemTime,
    },
}

impl Expiry {
    /// What is to be said of it at this time.
    #[must_use]
    pub fn problem(&self, now: SystemTime) -> Option<Problem> {
        let when = humantime::format_rfc3339_seconds(self.at);
        let (message, hint) = match (self.of, self.is_over(now)) {
            (_, false) if now + self.ahead() < self.at => return None,
            (Of::Certificate, true) => (format!("this certificate has expired: it ended at {when}"), RENEW),
            (Of::Certificate, false) => (format!("this certificate ends soon: at {when}"), RENEW),
            (Of::List { .. }, true) => {
                (format!("this revocation list has expired: a newer one was due at {when}"), REPLACE)
            }
            (Of::List { .. }, false) => {
                (format!("a newer revocation list than this is due soon: at {when}"), REPLACE)
            }
        };
        Some(read::warning(&self.file, &message, hint))
    }

    /// It has ended.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.at <= now
    }

    /// So long before its end it is said.
    fn ahead(&self) -> Duration {
        match self.of {
            Of::Certificate => WARN_AHEAD,
            Of::List { since } => self.at.duration_since(since).unwrap_or_default() / LAST_PART,
        }
    }
}

const RENEW: &str = "renew it and put it in the same place: it is read again without a restart";
const REPLACE: &str =
    "put a newer one in the same place; `crl_expired` says what becomes of clients until then";

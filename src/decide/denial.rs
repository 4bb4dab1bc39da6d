//! Why a call was refused. Not a fault: an answer.

use std::sync::Arc;

use super::path::PathProblem;
use super::scope::Missing;
use crate::identity::caller::Caller;
use crate::keys::SourceError;
use crate::observe::reason::Reason;

/// Why a call was refused, with what the operator needs to see why.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Denial {
    /// CONNECT, `*`, or an authority that is not Host.
    TargetInvalid,
    /// None, two, or no host at all.
    HostInvalid,
    /// More than one reading.
    PathAmbiguous(PathProblem),
    /// No route; the operator may have chosen the status.
    RouteUnknown {
        /// From `unmatched:`.
        status: u16,
    },
    /// The path takes these methods.
    MethodUnknown {
        /// The value of `Allow`.
        allow: Box<str>,
        /// Who asked, where the path is behind a key.
        caller: Option<Caller>,
    },
    /// The query lacks this name.
    QueryMissing {
        /// As the route has it.
        name: Box<str>,
    },
    /// A WebSocket route, and no handshake.
    UpgradeRequired,
    /// A handshake without a key, or with something else.
    HandshakeInvalid,
    /// This flag is off.
    FlagOff {
        /// As the configuration has it.
        flag: Box<str>,
    },
    /// No key.
    KeyMissing,
    /// No certificate.
    CertificateMissing,
    /// Nobody's certificate.
    CertificateUnknown,
    /// The certificate of another team than the key's.
    CertificateForeign {
        /// Who holds the key.
        caller: Caller,
        /// The certificate's.
        team: Box<str>,
    },
    /// No key in a key's header.
    KeyMalformed,
    /// A key's header twice.
    KeyRepeated,
    /// Two keys.
    KeyConflict,
    /// Nobody's key.
    KeyUnknown,
    /// A known key that may not be used.
    KeyRefused {
        /// Whose.
        caller: Caller,
        /// [`Reason::KeyExpired`], [`Reason::KeyDisabled`] or [`Reason::TeamDisabled`].
        reason: Reason,
    },
    /// The key source has no answer.
    KeysUnavailable {
        /// [`Reason::KeysUnavailable`], or [`Reason::KeysBusy`].
        reason: Reason,
        /// For the operator.
        cause: Box<str>,
    },
    /// The key that the session was minted with may not be used any more.
    SessionEnded {
        /// Whose.
        caller: Caller,
        /// What is wrong with the key.
        reason: Reason,
    },
    /// The key lacks a scope.
    ScopeMissing {
        /// Whose.
        caller: Caller,
        /// Which.
        missing: Arc<Missing>,
        /// Which layer lacks it.
        layer: Layer,
    },
}

/// A layer of the ceiling: effective scopes are key ∩ team ∩ platform.
///
/// The platform's layer is not here: a route that demands what the platform does not define is not loaded.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Layer {
    /// The team may not; raising the key would change nothing.
    Team,
    /// The team may, the key was not given it.
    Key,
}

impl From<SourceError> for Denial {
    fn from(error: SourceError) -> Self {
        let reason = match error {
            SourceError::Busy { .. } => Reason::KeysBusy,
            SourceError::Down { .. }
            | SourceError::Late { .. }
            | SourceError::Invalid { .. }
            | SourceError::Unsettled { .. }
            | SourceError::Keyless { .. } => Reason::KeysUnavailable,
        };
        Self::KeysUnavailable { reason, cause: error.to_string().into() }
    }
}

impl Denial {
    /// Its row of the table.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::TargetInvalid => Reason::TargetInvalid,
            Self::HostInvalid => Reason::HostInvalid,
            Self::PathAmbiguous(_) => Reason::PathAmbiguous,
            Self::RouteUnknown { .. } => Reason::RouteUnknown,
            Self::MethodUnknown { .. } => Reason::MethodUnknown,
            Self::QueryMissing { .. } => Reason::QueryMissing,
            Self::UpgradeRequired => Reason::UpgradeRequired,
            Self::HandshakeInvalid => Reason::HandshakeInvalid,
            Self::FlagOff { .. } => Reason::FlagOff,
            Self::KeyMissing => Reason::KeyMissing,
            Self::CertificateMissing => Reason::CertificateMissing,
            Self::CertificateUnknown | Self::CertificateForeign { .. } => Reason::CertificateUnknown,
            Self::KeyMalformed => Reason::KeyMalformed,
            Self::KeyRepeated => Reason::KeyRepeated,
            Self::KeyConflict => Reason::KeyConflict,
            Self::KeyUnknown => Reason::KeyUnknown,
            Self::KeyRefused { reason, .. } | Self::KeysUnavailable { reason, .. } => *reason,
            Self::SessionEnded { .. } => Reason::KeyRevoked,
            Self::ScopeMissing { .. } => Reason::ScopeMissing,
        }
    }

    /// What the operator is told beside the reason.
    #[must_use]
    pub fn detail(&self) -> Option<Arc<str>> {
        match self {
            Self::PathAmbiguous(problem) => Some(problem.to_string().into()),
            Self::QueryMissing { name: said }
            | Self::FlagOff { flag: said }
            | Self::KeysUnavailable { cause: said, .. } => Some((&**said).into()),
            Self::CertificateForeign { team, .. } => Some(format!("it is of the team {team}").into()),
            Self::ScopeMissing { missing, .. } => Some(Arc::clone(&missing.names)),
            Self::SessionEnded { reason, .. } => Some(reason.code().into()),
            Self::MethodUnknown { allow, .. } => Some(format!("allowed: {allow}").into()),
            Self::TargetInvalid
            | Self::HostInvalid
            | Self::RouteUnknown { .. }
            | Self::UpgradeRequired
            | Self::HandshakeInvalid
            | Self::KeyMissing
            | Self::CertificateMissing
            | Self::CertificateUnknown
            | Self::KeyMalformed
            | Self::KeyRepeated
            | Self::KeyConflict
            | Self::KeyUnknown
            | Self::KeyRefused { .. } => None,
        }
    }

    /// Who was refused, where that is known.
    #[must_use]
    pub fn caller(&self) -> Option<&Caller> {
        match self {
            Self::KeyRefused { caller, .. }
            | Self::CertificateForeign { caller, .. }
            | Self::SessionEnded { caller, .. }
            | Self::ScopeMissing { caller, .. } => Some(caller),
            Self::MethodUnknown { caller, .. } => caller.as_ref(),
            Self::TargetInvalid
            | Self::HostInvalid
            | Self::PathAmbiguous(_)
            | Self::RouteUnknown { .. }
            | Self::QueryMissing { .. }
            | Self::UpgradeRequired
            | Self::HandshakeInvalid
            | Self::FlagOff { .. }
            | Self::KeyMissing
            | Self::CertificateMissing
            | Self::CertificateUnknown
            | Self::KeyMalformed
            | Self::KeyRepeated
            | Self::KeyConflict
            | Self::KeyUnknown
            | Self::KeysUnavailable { .. } => None,
        }
    }
}

impl Layer {
    /// As log and metric have it.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Team => "team",
            Self::Key => "key",
        }
    }
}

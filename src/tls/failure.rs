//! Why a handshake failed.

use std::io;

use tokio_rustls::rustls::{AlertDescription, CertificateError, Error, PeerIncompatible};

use super::inner;

/// Why a handshake failed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Failure {
    /// The client spoke something else.
    NotTls,
    /// It spoke TLS where none is spoken.
    Unexpected,
    /// It took too long.
    Timeout,
    /// It left.
    Gone,
    /// No version in common.
    NoSharedVersion,
    /// No cipher suite, group or signature in common.
    NoSharedSuite,
    /// No protocol in common (RFC 7301).
    NoSharedAlpn,
    /// It named a server that no certificate is for.
    UnknownName,
    /// It had to show a certificate.
    ClientCertificateMissing,
    /// It showed one that nobody vouches for whom we believe, or one that is broken.
    ClientCertificateInvalid(String),
    /// It showed one that is too old, or too young.
    ClientCertificateExpired,
    /// It showed one that was taken back.
    ClientCertificateRevoked,
    /// Of a list that says whether it was taken back, a newer one is due.
    RevocationListExpired,
    /// It did not like what we proved ourselves with, or something else: an alert of its own.
    Alert(AlertDescription),
    /// What it sent is no TLS of ours.
    Other(String),
}

impl Failure {
    /// Every name, in the order of [`Failure::index`].
    pub const NAMES: [&'static str; 15] = [
        "not_tls",
        "tls_on_plain_port",
        "timeout",
        "client_gone",
        "no_shared_version",
        "no_shared_suite",
        "no_shared_alpn",
        "unknown_name",
        "client_certificate_missing",
        "client_certificate_invalid",
        "client_certificate_expired",
        "client_certificate_revoked",
        "revocation_list_expired",
        "client_alert",
        "other",
    ];

    /// Its place in [`Failure::NAMES`].
    #[must_use]
    pub fn index(&self) -> usize {
        match self {
            Self::NotTls => 0,
            Self::Unexpected => 1,
            Self::Timeout => 2,
            Self::Gone => 3,
            Self::NoSharedVersion => 4,
            Self::NoSharedSuite => 5,
            Self::NoSharedAlpn => 6,
            Self::UnknownName => 7,
            Self::ClientCertificateMissing => 8,
            Self::ClientCertificateInvalid(_) => 9,
            Self::ClientCertificateExpired => 10,
            Self::ClientCertificateRevoked => 11,
            Self::RevocationListExpired => 12,
            Self::Alert(_) => 13,
            Self::Other(_) => 14,
        }
    }

    /// The label of its metric.
    #[must_use]
    pub fn name(&self) -> &'static str {
        Self::NAMES.get(self.index()).copied().unwrap_or_default()
    }

    /// What more there is to say.
    #[must_use]
    pub fn detail(&self) -> String {
        match self {
            Self::ClientCertificateInvalid(why) | Self::Other(why) => why.clone(),
            Self::Alert(alert) => format!("{alert:?}"),
            Self::NotTls
            | Self::Unexpected
            | Self::Timeout
            | Self::Gone
            | Self::NoSharedVersion
            | Self::NoSharedSuite
            | Self::NoSharedAlpn
            | Self::UnknownName
            | Self::ClientCertificateMissing
            | Self::ClientCertificateExpired
            | Self::ClientCertificateRevoked
            | Self::RevocationListExpired => String::new(),
        }
    }

    /// What ended a handshake.
    pub(super) fn of(error: &io::Error) -> Self {
        inner(error).map_or(Self::Gone, Self::from)
    }
}

impl From<&Error> for Failure {
    #[allow(
        clippy::wildcard_enum_match_arm,
        reason = "rustls may add to these, and what it adds has a label"
    )]
    fn from(error: &Error) -> Self {
        match error {
            Error::NoApplicationProtocol => Self::NoSharedAlpn,
            Error::NoCertificatesPresented => Self::ClientCertificateMissing,
            Error::PeerIncompatible(why) => match why {
                PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig => Self::NoSharedVersion,
                PeerIncompatible::NoCertificateRequestSignatureSchemesInCommon
                | PeerIncompatible::NoCipherSuitesInCommon
                | PeerIncompatible::NoKxGroupsInCommon
                | PeerIncompatible::NoSignatureSchemesInCommon => Self::NoSharedSuite,
                why => Self::Other(format!("{why:?}")),
            },
            Error::InvalidCertificate(why) => match why {
                CertificateError::Expired
                | CertificateError::ExpiredContext { .. }
                | CertificateError::NotValidYet
                | CertificateError::NotValidYetContext { .. } => Self::ClientCertificateExpired,
                CertificateError::ExpiredRevocationList
                | CertificateError::ExpiredRevocationListContext { .. } => Self::RevocationListExpired,
                CertificateError::Revoked => Self::ClientCertificateRevoked,
                why => Self::ClientCertificateInvalid(why.to_string()),
            },
            Error::AlertReceived(alert) => Self::Alert(*alert),
            Error::InvalidMessage(_) => Self::Other("what came is no TLS".to_owned()),
            // What rustls says where the resolver has none; it has no kind of its own for that.
            Error::General(why) if why.contains("no server certificate") => Self::UnknownName,
            error => Self::Other(error.to_string()),
        }
    }
}

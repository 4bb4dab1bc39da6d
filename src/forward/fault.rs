//! The upstream or the wire failed us after a permit.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

use httparse::Error::TooManyHeaders;

use crate::accept::body::Broken;
use crate::message::invalid::Invalid;
use crate::observe::reason::Reason;

/// What failed, and so whose fault it was.
#[derive(Debug, thiserror::Error)]
pub enum Fault {
    /// The name was never resolved.
    #[error("no address is known for the upstream `{upstream}`")]
    Unresolved {
        /// Its name in the configuration.
        upstream: Box<str>,
    },
    /// None of its addresses takes a connection.
    #[error("cannot connect to {address}")]
    Refused {
        /// The last one that was tried.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// It did not prove that it is who it should be, or did not believe us.
    #[error("no TLS with {address}")]
    Tls {
        /// The last one that was tried.
        address: SocketAddr,
        /// What went wrong in the handshake.
        source: io::Error,
    },
    /// No connection in time.
    #[error("no connection to {address} in time")]
    ConnectTimeout {
        /// The last one that was tried.
        address: SocketAddr,
    },
    /// No answer in time.
    #[error("no first byte from the upstream in time")]
    FirstByteTimeout,
    /// Silence in the middle of an answer.
    #[error("silence from the upstream in the middle of its answer")]
    IdleTimeout,
    /// All of it took too long.
    #[error("the answer was not whole within the time that all of it may take")]
    TotalTimeout,
    /// It hung up too early.
    #[error("the upstream hung up before its answer was whole")]
    Closed(#[source] io::Error),
    /// Not HTTP, or with two readings.
    #[error("the upstream's answer is not valid HTTP")]
    Invalid(#[from] Invalid),
    /// Not HTTP/2, or more than it may send.
    #[error("the upstream's HTTP/2 is not valid")]
    Http2(#[source] h2::Error),
    /// A target that HTTP/2 cannot carry as it came.
    #[error("the request's target has a character that cannot be said over HTTP/2")]
    Target,
    /// A switch of protocols that nobody asked for, or that does not fit what was asked.
    #[error("the upstream switched protocols in a way that does not fit the request")]
    Upgrade,
    /// The client stopped sending.
    #[error("the client's body did not arrive in time")]
    ClientTimeout,
    /// The key died while the request was under way, or nobody can say any more that it has not.
    #[error("the API key may not be used any more: {}", .0.code())]
    Revoked(Reason),
    /// The client's body did not come whole.
    #[error(transparent)]
    Client(#[from] Broken),
}

impl Fault {
    /// Its row of the table.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unresolved { .. } => Reason::UpstreamUnresolved,
            Self::Refused { .. } => Reason::UpstreamRefused,
            Self::Tls { .. } => Reason::UpstreamTls,
            Self::ConnectTimeout { .. } => Reason::UpstreamConnectTimeout,
            Self::FirstByteTimeout => Reason::UpstreamFirstByteTimeout,
            Self::IdleTimeout => Reason::UpstreamIdleTimeout,
            Self::TotalTimeout => Reason::TotalTimeout,
            Self::Closed(_) => Reason::UpstreamClosed,
            Self::Invalid(_) | Self::Http2(_) | Self::Upgrade => Reason::UpstreamInvalid,
            Self::Target => Reason::TargetInvalid,
            Self::ClientTimeout => Reason::ClientTimeout,
            // An outage is no revocation: it may pass.
            Self::Revoked(Reason::KeysUnavailable) => Reason::KeysUnavailable,
            Self::Revoked(_) => Reason::KeyRevoked,
            Self::Client(Broken::TooLarge) => Reason::BodyTooLarge,
            Self::Client(Broken::Gone) => Reason::ClientGone,
            // Of trailers there may be as much as of a head.
            Self::Client(Broken::Invalid(Invalid::TooLarge | Invalid::Syntax(TooManyHeaders))) => {
                Reason::HeadTooLarge
            }
            Self::Client(Broken::Invalid(_)) => Reason::ClientInvalid,
        }
    }

    /// The fault and its causes in one line, for the operator.
    #[must_use]
    pub fn detail(&self) -> Box<str> {
        let mut line = self.to_string();
        let mut cause = self.source();
        while let Some(error) = cause {
            line.push_str(": ");
            line.push_str(&error.to_string());
            cause = error.source();
        }
        line.into()
    }
}

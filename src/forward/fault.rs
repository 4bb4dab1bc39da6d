//! The upstream or the wire failed us after a permit.

use std::error::Error;
use std::io;
use std::net::SocketAddr;

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
    /// It hung up too early.
    #[error("the upstream hung up before its answer was whole")]
    Closed(#[source] io::Error),
    /// Not HTTP, or with two readings.
    #[error("the upstream's answer is not valid HTTP")]
    Invalid(#[from] Invalid),
    /// A switch of protocols that nobody asked for, or that does not fit what was asked.
    #[error("the upstream switched protocols in a way that does not fit the request")]
    Upgrade,
    /// The client stopped sending.
    #[error("the client's body did not arrive in time")]
    ClientTimeout,
    /// The client left while it was sending.
    #[error("the client left in the middle of its body")]
    ClientGone,
    /// The client's body was malformed.
    #[error("the client's body is not what its head announced")]
    ClientInvalid,
}

/// What is wrong with an upstream's answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// Its head cannot be read at all.
    #[error(transparent)]
    Syntax(#[from] httparse::Error),
    /// More than a head, or a body's trailers, may have.
    #[error("its head or its trailers are too large")]
    TooLarge,
    /// Not from 100 to 999.
    #[error("its status is no status")]
    Status,
    /// A name or a value.
    #[error("one of its fields has a name or a value that no field may have")]
    Field,
    /// `Content-Length` is no number, is there twice, or contradicts `Transfer-Encoding`.
    #[error("the length of its body has no reading, or more than one")]
    Length,
    /// `Transfer-Encoding` is not `chunked`.
    #[error("its transfer coding is not `chunked`, once, over HTTP/1.1")]
    Coding,
    /// A chunk is no chunk.
    #[error("its body is not in chunks, as its head said")]
    Chunk,
    /// Too many interim answers.
    #[error("it sends interim answers without end")]
    Interim,
}

impl Fault {
    /// Its row of the table.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Unresolved { .. } => Reason::UpstreamUnresolved,
            Self::Refused { .. } => Reason::UpstreamRefused,
            Self::ConnectTimeout { .. } => Reason::UpstreamConnectTimeout,
            Self::FirstByteTimeout => Reason::UpstreamFirstByteTimeout,
            Self::IdleTimeout => Reason::UpstreamIdleTimeout,
            Self::Closed(_) => Reason::UpstreamClosed,
            Self::Invalid(_) | Self::Upgrade => Reason::UpstreamInvalid,
            Self::ClientTimeout => Reason::ClientTimeout,
            Self::ClientGone => Reason::ClientGone,
            Self::ClientInvalid => Reason::ClientInvalid,
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

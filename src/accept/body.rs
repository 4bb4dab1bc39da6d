//! The body of a client's request, as it comes.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::link::Link;
use crate::message::invalid::Invalid;

/// The body of a client's request.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    Nothing,
    /// Over HTTP/1.
    Http1(Arriving),
    /// Over HTTP/2.
    Http2(hyper::body::Incoming),
}

/// A body over HTTP/1; the connection is told when nobody wants it any more.
#[derive(Debug)]
pub struct Arriving(Rc<Link>);

/// How a client's body failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Broken {
    /// Its connection ended.
    #[error("the client left in the middle of its body")]
    Gone,
    /// It is more than we take.
    #[error("the client's body is larger than it may be")]
    TooLarge,
    /// Its bytes are no body.
    #[error("the client's body is not what its head announced")]
    Invalid(#[source] Invalid),
}

impl Incoming {
    /// What comes over this connection.
    pub(super) fn over(link: &Rc<Link>) -> Self {
        if link.is_whole() { Self::Nothing } else { Self::Http1(Arriving(Rc::clone(link))) }
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl From<&hyper::Error> for Broken {
    fn from(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let malformed = matches!(cause, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData));
        if malformed || error.is_parse() { Self::Invalid(Invalid::Length) } else { Self::Gone }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Http1(Arriving(link)) => link.poll_body(cx),
            Self::Http2(body) => Pin::new(body)
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|error| Broken::from(&error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http1(Arriving(link)) => link.is_whole(),
            Self::Http2(body) => body.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Http1(Arriving(link)) => link.length().map_or_else(SizeHint::default, SizeHint::with_exact),
            Self::Http2(body) => body.size_hint(),
        }
    }
}

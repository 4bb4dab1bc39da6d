//! The client's body on its way to the upstream: passed on as it comes, never gathered.

use std::cell::{Cell, RefCell};
use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::headers;
use super::wire::Wire;
use crate::config::limits::Timeouts;

/// The client's body on its way to the upstream.
#[derive(Debug)]
pub enum Upload {
    /// There is none.
    Empty,
    /// It is passed on as it comes.
    Stream {
        /// From the client.
        incoming: Incoming,
        /// What the request knows of it.
        progress: Rc<Progress>,
    },
}

/// What a request knows of its body while the connection's task sends it.
#[derive(Debug)]
pub struct Progress {
    /// Bytes that came from the client.
    pub received: Cell<u64>,
    /// The client left, or sent what is no body.
    pub broken: Cell<Option<Broken>>,
    /// The connection that the request has now.
    pub wire: RefCell<Option<Rc<Wire>>>,
    /// How long each side may take.
    pub timeouts: Timeouts,
}

/// How a client's body failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Broken {
    /// Its connection ended.
    Gone,
    /// Its bytes are no body.
    Invalid,
}

impl From<&hyper::Error> for Broken {
    fn from(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let malformed = matches!(cause, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData));
        if malformed || error.is_parse() { Self::Invalid } else { Self::Gone }
    }
}

impl Upload {
    /// The body of a request, and what will be known of it.
    #[must_use]
    pub fn new(incoming: Incoming, timeouts: Timeouts) -> (Self, Option<Rc<Progress>>) {
        if incoming.is_end_stream() {
            return (Self::Empty, None);
        }
        let progress = Rc::new(Progress {
            received: Cell::new(0),
            broken: Cell::new(None),
            wire: RefCell::new(None),
            timeouts,
        });
        (Self::Stream { incoming, progress: Rc::clone(&progress) }, Some(progress))
    }
}

impl Progress {
    fn upload(&self, waiting_for_client: bool) {
        if let Some(wire) = &*self.wire.borrow() {
            wire.upload(waiting_for_client, &self.timeouts);
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        let Self::Stream { incoming, progress } = self.get_mut() else { return Poll::Ready(None) };
        let polled = Pin::new(incoming).poll_frame(cx);
        progress.upload(polled.is_pending());
        let frame = match ready!(polled) {
            None => None,
            Some(Err(error)) => {
                progress.broken.set(Some(Broken::from(&error)));
                Some(Err(error))
            }
            Some(Ok(frame)) => Some(Ok(match frame.into_trailers() {
                Ok(mut trailers) => {
                    headers::trailers(&mut trailers);
                    Frame::trailers(trailers)
                }
                Err(frame) => {
                    let length = frame.data_ref().map_or(0, Bytes::len);
                    progress.received.set(progress.received.get() + length as u64);
                    frame
                }
            })),
        };
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Stream { incoming, .. } => incoming.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Stream { incoming, .. } => incoming.size_hint(),
        }
    }
}

//! The body of an answer on its way to the client: streamed piece by piece, never gathered.

use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use super::client::Lease;
use super::fault::Fault;
use crate::config::limits::Timeouts;

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// One of ours.
    Full(Bytes),
    /// The upstream's.
    Stream(Box<Download>),
}

/// An upstream's body, with the connection that it comes over.
#[derive(Debug)]
pub struct Download {
    incoming: Incoming,
    lease: Option<Lease>,
    timeouts: Timeouts,
}

impl Body {
    /// An answer's body; a connection whose answer has none is free again at once.
    #[must_use]
    pub fn stream(incoming: Incoming, lease: Lease, timeouts: Timeouts) -> Self {
        if incoming.is_end_stream() {
            lease.finish();
            return Self::Empty;
        }
        Self::Stream(Box::new(Download { incoming, lease: Some(lease), timeouts }))
    }
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        match this {
            Self::Empty => Poll::Ready(None),
            Self::Full(bytes) => {
                let bytes = std::mem::take(bytes);
                *this = Self::Empty;
                Poll::Ready((!bytes.is_empty()).then(|| Ok(Frame::data(bytes))))
            }
            Self::Stream(download) => download.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            // Only once the connection has been given back: hyper asks before it would poll for the end.
            Self::Stream(download) => download.lease.is_none(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(download) => download.incoming.size_hint(),
        }
    }
}

impl Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let polled = Pin::new(&mut self.incoming).poll_frame(cx);
        let Some(lease) = &self.lease else { return Poll::Ready(None) };
        match polled {
            Poll::Pending => {
                lease.wire().wait(&self.timeouts);
                Poll::Pending
            }
            Poll::Ready(Some(Ok(frame))) => {
                lease.wire().rest();
                if self.incoming.is_end_stream()
                    && let Some(lease) = self.lease.take()
                {
                    lease.finish();
                }
                Poll::Ready(Some(Ok(frame)))
            }
            Poll::Ready(Some(Err(error))) => {
                let fault = lease.wire().fault().unwrap_or(Fault::Closed(error));
                self.lease = None;
                Poll::Ready(Some(Err(fault)))
            }
            Poll::Ready(None) => {
                if let Some(lease) = self.lease.take() {
                    lease.finish();
                }
                Poll::Ready(None)
            }
        }
    }
}

//! The body of an answer on its way to the client: streamed piece by piece, never gathered.

use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use http_body::{Frame, SizeHint};

use super::client::Lease;
use super::fault::Fault;
use super::http2::received::Received;
use crate::message::framing::{Framing, Step};

/// The body of an answer.
#[derive(Debug)]
pub enum Body {
    /// Nothing.
    Empty,
    /// One of ours, or one that came with its head.
    Full(Bytes),
    /// The upstream's.
    Stream(Box<Download>),
    /// The same over HTTP/2.
    Http2(Box<Received>),
}

/// An upstream's body, with the connection that it comes over.
#[derive(Debug)]
pub struct Download {
    framing: Framing,
    /// Read, and not yet passed on.
    read: Bytes,
    lease: Option<Lease>,
    /// Told at the next poll: what came before it is sent first.
    fault: Option<Fault>,
}

impl Body {
    /// An answer's body, of which `read` has been read. The connection is free again at once where that is all of it.
    #[must_use]
    pub fn new(framing: Option<Framing>, mut read: Bytes, lease: Lease) -> Self {
        match framing {
            None => {
                lease.finish(&read);
                Self::Empty
            }
            Some(Framing::Length(length)) if length <= read.len() as u64 => {
                let body = read.split_to(usize::try_from(length).unwrap_or(read.len()));
                lease.finish(&read);
                Self::Full(body)
            }
            Some(framing) => {
                Self::Stream(Box::new(Download { framing, read, lease: Some(lease), fault: None }))
            }
        }
    }
}

impl Body {
    /// It comes as the upstream sends it.
    #[must_use]
    pub fn is_streamed(&self) -> bool {
        matches!(self, Self::Stream(_) | Self::Http2(_))
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
            Self::Http2(received) => received.poll_frame(cx),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Empty => true,
            Self::Full(bytes) => bytes.is_empty(),
            // Only once the connection has been given back: hyper asks before it would poll for the end.
            Self::Stream(download) => download.lease.is_none(),
            Self::Http2(received) => received.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Empty => SizeHint::with_exact(0),
            Self::Full(bytes) => SizeHint::with_exact(bytes.len() as u64),
            Self::Stream(download) => {
                download.framing.left().map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Http2(received) => received.size_hint(),
        }
    }
}

impl Download {
    fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Some(fault) = self.fault.take() {
            // Dropping it closes the connection.
            self.lease = None;
            return Poll::Ready(Some(Err(fault)));
        }
        match ready!(self.poll_step(cx)) {
            Ok(frame) => {
                if self.framing.is_end()
                    && let Some(lease) = self.lease.take()
                {
                    lease.finish(&self.read);
                }
                Poll::Ready(frame.map(Ok))
            }
            Err(fault) => {
                self.fault = Some(fault);
                cx.waker().wake_by_ref();
                Poll::Pending
            }
        }
    }

    fn poll_step(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Fault>> {
        let Some(lease) = &self.lease else { return Poll::Ready(Ok(None)) };
        loop {
            match self.framing.next(&mut self.read)? {
                Step::Data(data) => return Poll::Ready(Ok(Some(Frame::data(data)))),
                Step::Trailers(trailers) => return Poll::Ready(Ok(Some(Frame::trailers(trailers)))),
                Step::End => return Poll::Ready(Ok(None)),
                Step::More => {}
            }
            let Poll::Ready(read) = lease.poll_read(cx) else {
                lease.watch().wait();
                return Poll::Pending;
            };
            lease.watch().rest();
            match (read?, &self.framing) {
                (Some(read), _) => self.read = read,
                (None, Framing::Close) => {
                    self.framing = Framing::Length(0);
                    return Poll::Ready(Ok(None));
                }
                (None, Framing::Length(_) | Framing::Chunked(_)) => {
                    let early = io::Error::from(ErrorKind::UnexpectedEof);
                    return Poll::Ready(Err(Fault::Closed(early)));
                }
            }
        }
    }
}

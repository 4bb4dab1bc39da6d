//! The body of an answer over HTTP/2 on its way to the client.

use std::rc::Rc;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::RecvStream;
use http::HeaderMap;
use http_body::{Frame, SizeHint};
use tokio::task::AbortHandle;

use super::fault;
use super::stream::Stream;
use crate::forward::fault::Fault;
use crate::forward::headers::passing;
use crate::message::framing;
use crate::message::invalid::Invalid;

/// The body of an answer over HTTP/2.
#[derive(Debug)]
pub struct Received {
    body: RecvStream,
    /// Bytes that are still to come, where that is known; that it is true sees the h2 crate to.
    left: Option<u64>,
    /// Passed on; the upstream may send as many more once they have been taken.
    passed: usize,
    /// All data has come, and trailers may.
    last: bool,
    /// `None` once all of it has come.
    stream: Option<Rc<Stream>>,
    going: Going,
    /// Told at the next poll: what came before it is sent first.
    fault: Option<Fault>,
}

/// What is left of a request, which goes on beside its answer and ends with it.
#[derive(Debug, Default)]
pub(super) struct Going(pub(super) Option<AbortHandle>);

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(task) = &self.0 {
            task.abort();
        }
    }
}

impl Received {
    pub(super) fn new(body: RecvStream, left: Option<u64>, stream: Rc<Stream>, going: Going) -> Self {
        Self { body, left, passed: 0, last: false, stream: Some(stream), going, fault: None }
    }

    /// All of it has come.
    #[must_use]
    pub fn is_end_stream(&self) -> bool {
        self.stream.is_none()
    }

    /// Bytes that are still to come, where that is known.
    #[must_use]
    pub fn size_hint(&self) -> SizeHint {
        self.left.map_or_else(SizeHint::default, SizeHint::with_exact)
    }

    /// The next piece.
    pub fn poll_frame(&mut self, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        if let Some(fault) = self.fault.take() {
            self.stream = None;
            return Poll::Ready(Some(Err(fault)));
        }
        let Some(stream) = self.stream.clone() else { return Poll::Ready(None) };
        let polled = match stream.fault(cx) {
            Some(fault) => Poll::Ready(Err(fault)),
            None => self.poll_next(cx),
        };
        let Poll::Ready(next) = polled else {
            stream.watch.wait();
            return Poll::Pending;
        };
        stream.watch.rest();
        match next {
            Ok(frame) => {
                if frame.is_none() || self.body.is_end_stream() {
                    self.finish();
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

    fn poll_next(&mut self, cx: &mut Context<'_>) -> Poll<Result<Option<Frame<Bytes>>, Fault>> {
        if self.passed > 0 {
            // Where it has ended, nobody waits for room.
            let _ = self.body.flow_control().release_capacity(std::mem::take(&mut self.passed));
        }
        while !self.last {
            match ready!(self.body.poll_data(cx)).transpose().map_err(fault)? {
                Some(data) if data.is_empty() => {}
                Some(data) => {
                    self.passed = data.len();
                    self.left = self.left.map(|left| left.saturating_sub(data.len() as u64));
                    return Poll::Ready(Ok(Some(Frame::data(data))));
                }
                None => self.last = true,
            }
        }
        let trailers = ready!(self.body.poll_trailers(cx)).map_err(fault)?.unwrap_or_default();
        if !framing::fit(&trailers) {
            return Poll::Ready(Err(Invalid::TooLarge.into()));
        }
        let passing: HeaderMap =
            passing(&trailers).map(|(name, value)| (name.clone(), value.clone())).collect();
        Poll::Ready(Ok((!passing.is_empty()).then(|| Frame::trailers(passing))))
    }

    /// The answer is whole. The client may finish what it began: many read no answer before that.
    fn finish(&mut self) {
        if let Some(stream) = self.stream.take() {
            finish(&stream, &mut self.going);
        }
    }
}

/// The answer on a stream is whole.
pub(super) fn finish(stream: &Stream, going: &mut Going) {
    stream.watch.end();
    if !stream.watch.is_sent() {
        stream.watch.let_finish();
        going.0 = None;
    }
}

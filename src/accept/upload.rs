//! The body of a request on a stream of HTTP/2: the stream is not over before it is, whatever has been answered.

use std::cell::{Cell, RefCell};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use tokio::time::timeout;

use super::http2::LINGER;
use super::watched::Pace;

/// What is read of a body that nobody wants, so that the connection can stay: a refusal of a small request costs a client
/// no connection. Over HTTP/2 for [`LINGER`]: what is on its way when it is refused is not held against the client.
pub(super) const UNWANTED: u64 = 64 * 1024;

/// A body on its way.
#[derive(Debug)]
pub(super) struct Upload {
    body: RefCell<Option<Incoming>>,
    pace: Rc<Pace>,
    wanted: Cell<bool>,
}

impl Upload {
    /// On the stream that has this pace.
    pub(super) fn new(body: Incoming, pace: &Rc<Pace>) -> Rc<Self> {
        pace.uploads(true);
        Rc::new(Self { body: RefCell::new(Some(body)), pace: Rc::clone(pace), wanted: Cell::new(true) })
    }

    /// The next piece.
    pub(super) fn poll_frame(
        &self,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        match &mut *self.body.borrow_mut() {
            Some(body) => Pin::new(body).poll_frame(cx),
            None => Poll::Ready(None),
        }
    }

    /// All of it has come.
    pub(super) fn is_end_stream(&self) -> bool {
        self.body.borrow().as_ref().is_none_or(Incoming::is_end_stream)
    }

    /// What is known of its length.
    pub(super) fn size_hint(&self) -> SizeHint {
        self.body.borrow().as_ref().map_or_else(|| SizeHint::with_exact(0), Incoming::size_hint)
    }

    /// Nobody wants more of it.
    pub(super) fn leave(&self) {
        self.wanted.set(false);
        self.body.borrow_mut().take_if(|body| body.is_end_stream());
        self.pace.uploads(false);
    }

    /// What is to be read of it for no use, where nobody wants it and it is not whole.
    pub(super) fn rest(&self) -> Option<impl Future<Output = ()> + use<>> {
        let mut body = self.body.borrow_mut().take_if(|_| !self.wanted.get())?;
        // Its stream is one of its client's until then.
        let pace = Rc::clone(&self.pace);
        Some(async move {
            let _pace = pace;
            let mut read = 0;
            let reading = async {
                while read <= UNWANTED
                    && let Some(Ok(frame)) = body.frame().await
                {
                    read += frame.data_ref().map_or(0, |data| data.len() as u64);
                }
            };
            // What it has not said by then is reset.
            let _ = timeout(LINGER, reading).await;
        })
    }
}

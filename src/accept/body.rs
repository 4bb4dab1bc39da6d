//! The body of a client's request, as it comes.

use std::error::Error as _;
use std::io::{self, ErrorKind};
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};

use super::link::Link;
use super::upload::Upload;
use crate::message::invalid::Invalid;

/// The body of a client's request.
#[derive(Debug)]
pub enum Incoming {
    /// There is none.
    Nothing,
    /// Over HTTP/1.
    Http1(Arriving),
    /// Over HTTP/2.
    Http2(Streamed),
}

/// A body over HTTP/2; its stream is told when nobody wants it any more.
#[derive(Debug)]
pub struct Streamed(Rc<Upload>);

/// A body over HTTP/1; the connection is told when nobody wants it any more.
#[derive(Debug)]
pub struct Arriving {
    link: Rc<Link>,
    /// Of the request whose body it is. The connection may have gone on to the next.
    turn: u64,
}

impl Arriving {
    /// The connection, while it still serves the request of this body.
    fn link(&self) -> Option<&Rc<Link>> {
        Some(&self.link).filter(|link| link.turn() == self.turn)
    }
}

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
        if link.is_whole() {
            Self::Nothing
        } else {
            Self::Http1(Arriving { link: Rc::clone(link), turn: link.turn() })
        }
    }

    /// Its head says that there is one. Over HTTP/2 that may be known by its end alone, which some clients say in a frame of
    /// its own where there is none.
    #[must_use]
    pub fn is_announced(&self) -> bool {
        match self {
            Self::Nothing => false,
            Self::Http1(_) => self.size_hint().exact() != Some(0),
            Self::Http2(_) => self.size_hint().exact().is_some_and(|length| length > 0),
        }
    }

    /// What comes on this stream of HTTP/2.
    pub(super) fn on(upload: &Rc<Upload>) -> Self {
        Self::Http2(Streamed(Rc::clone(upload)))
    }
}

impl Drop for Streamed {
    fn drop(&mut self) {
        self.0.leave();
    }
}

impl Drop for Arriving {
    fn drop(&mut self) {
        if let Some(link) = self.link() {
            link.leave();
        }
    }
}

impl From<&hyper::Error> for Broken {
    fn from(error: &hyper::Error) -> Self {
        let cause = error.source().and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
        let malformed = matches!(cause, Some(ErrorKind::InvalidInput | ErrorKind::InvalidData));
        // What the h2 crate resets a stream for is the client's doing: another length than was announced, most of all.
        let reset = error.source().and_then(|cause| cause.downcast_ref::<h2::Error>());
        let reset = reset.is_some_and(|error| error.is_library() && error.is_reset());
        if malformed || reset || error.is_parse() { Self::Invalid(Invalid::Length) } else { Self::Gone }
    }
}

impl http_body::Body for Incoming {
    type Data = Bytes;
    type Error = Broken;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Broken>>> {
        match self.get_mut() {
            Self::Nothing => Poll::Ready(None),
            Self::Http1(body) => body.link().map_or(Poll::Ready(None), |link| link.poll_body(cx)),
            Self::Http2(streamed) => streamed
                .0
                .poll_frame(cx)
                .map(|frame| frame.map(|frame| frame.map_err(|error| Broken::from(&error)))),
        }
    }

    fn is_end_stream(&self) -> bool {
        match self {
            Self::Nothing => true,
            Self::Http1(body) => body.link().is_none_or(|link| link.is_whole()),
            Self::Http2(streamed) => streamed.0.is_end_stream(),
        }
    }

    fn size_hint(&self) -> SizeHint {
        match self {
            Self::Nothing => SizeHint::with_exact(0),
            Self::Http1(body) => {
                let length = body.link().map_or(Some(0), |link| link.length());
                length.map_or_else(SizeHint::default, SizeHint::with_exact)
            }
            Self::Http2(streamed) => streamed.0.size_hint(),
        }
    }
}

#[cfg(test)]
mod tests {
    use std::task::Waker;

    use super::super::clock::Clock;
    use super::super::peer::Peer;
    use super::*;
    use crate::message::framing::Framing;

    #[test]
    fn a_body_ends_with_its_request() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        runtime.block_on(async {
            let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            let _client = tokio::net::TcpStream::connect(address).await.expect("a connection");
            let (socket, from) = listener.accept().await.expect("a client");
            let peer = Rc::new(Peer::new(from, &Rc::new(Clock::default())));
            let link = Rc::new(Link::new(socket.into(), Bytes::from_static(b"onetwo"), peer, Rc::default()));
            let mut cx = Context::from_waker(Waker::noop());
            let mut next = |body: &mut Incoming| match Pin::new(body).poll_frame(&mut cx) {
                Poll::Ready(frame) => frame.map(|frame| frame.expect("whole").into_data().expect("data")),
                Poll::Pending => panic!("all of it is there"),
            };
            link.begin(Some(Framing::Length(3)), false);
            let mut one = Incoming::over(&link);
            assert_eq!(next(&mut one).as_deref(), Some(&b"one"[..]));
            link.begin(Some(Framing::Length(3)), false);
            let mut two = Incoming::over(&link);
            assert!(one.is_end_stream() && !two.is_end_stream());
            assert_eq!(next(&mut one), None);
            drop(one);
            assert_eq!(next(&mut two).as_deref(), Some(&b"two"[..]));
            assert!(two.is_end_stream());
        });
    }
}

//! One client connection: which HTTP it speaks.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use bytes::Bytes;

use super::link::Link;
use super::peer::Peer;
use super::{Door, http1, http2};
use crate::socket::Socket;
use crate::tls::HANDSHAKE;
use crate::tls::failure::Failure;

/// What an HTTP/2 client with prior knowledge begins with (RFC 9113, 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// What a client speaks.
enum Speaks {
    /// HTTP/1.1, or something that is answered in it.
    Http1,
    /// HTTP/2, with prior knowledge.
    Http2,
    /// TLS, where none is spoken.
    Tls,
}

/// Serves a connection, from which this has been read, to its end.
pub(super) async fn serve<D: Door>(socket: Socket, read: Bytes, peer: Rc<Peer>, door: Rc<D>) {
    let (agreed, tls) = (socket.agreed_on_http2(), socket.is_buffered());
    let link = Rc::new(Link::new(socket, read, peer, Rc::clone(&door.worker().chunk)));
    let heard = hear(&link, &*door).await;
    // What was agreed on counts: who speaks the other one all the same is told off by the one that it should speak.
    let agreed = agreed.map(|http2| if http2 { Speaks::Http2 } else { Speaks::Http1 });
    match heard.map(|heard| agreed.unwrap_or(heard)) {
        Some(Speaks::Http1) => http1::serve(link, door).await,
        Some(Speaks::Http2) => {
            let peer = Rc::clone(&link.peer);
            if let Some((socket, read)) = Link::into_socket(link) {
                Box::pin(http2::serve(socket, read, peer, door)).await;
            }
        }
        Some(Speaks::Tls) => door.unshaken(&link.peer, &Failure::Unexpected),
        // Nothing was under way that would look whole. Who does not hear it finds the connection closed.
        None if tls => {
            poll_fn(|cx| Poll::Ready(link.poll_end(cx).is_ready())).await;
        }
        None => {}
    }
}

/// Reads until it is clear which HTTP this is; `None` where the client leaves before, or takes too long. Until it says
/// something, the socket is all that it costs.
async fn hear(link: &Link, door: &impl Door) -> Option<Speaks> {
    let bounds = door.bounds();
    link.peer.idle(bounds.head_wait);
    let mut heard: Vec<u8> = Vec::new();
    poll_fn(|cx| {
        loop {
            link.peer.watch(cx);
            let come = match link.take_read() {
                read if read.is_empty() => link.poll_read(cx),
                read => Poll::Ready(Ok(read)),
            };
            let read = match come {
                Poll::Ready(Ok(read)) if !read.is_empty() => read,
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(None),
                Poll::Pending if link.peer.is_late() => {
                    door.cut_short(if heard.is_empty() { "silent" } else { "preface" });
                    return Poll::Ready(None);
                }
                Poll::Pending if link.peer.is_closing() && heard.is_empty() => return Poll::Ready(None),
                Poll::Pending => return Poll::Pending,
            };
            let read = if heard.is_empty() { read } else { [&*heard, &*read].concat().into() };
            let begin = read.len().min(PREFACE.len());
            let (speaks, known) = if read.first() == Some(&HANDSHAKE) {
                (Speaks::Tls, true)
            } else if PREFACE.starts_with(read.get(..begin).unwrap_or_default()) {
                (Speaks::Http2, begin == PREFACE.len())
            } else {
                (Speaks::Http1, true)
            };
            if known {
                link.put_back(read);
                return Poll::Ready(Some(speaks));
            }
            if heard.is_empty() {
                link.peer.wait(bounds.head_wait);
            }
            heard = read.to_vec();
        }
    })
    .await
}

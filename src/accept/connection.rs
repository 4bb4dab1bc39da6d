//! One client connection: which HTTP it speaks, and its requests until it ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Request;
use hyper::body::Incoming;
use hyper::rt::Executor;
use hyper::server::conn::{http1, http2};
use hyper::service::service_fn;
use hyper::upgrade::Upgraded;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::Door;
use super::peer::{Peer, Wish};
use super::socket::{Socket, Speaks};

/// How long a client may go on sending after our last answer.
const LINGER: Duration = Duration::from_secs(2);
/// What is read at a time of that.
const SCRATCH: usize = 16 * 1024;

/// Serves a connection to its end. What ends it is the client's matter, or has been told by its requests.
pub async fn serve<D: Door>(stream: TcpStream, peer: Rc<Peer>, door: Rc<D>) {
    let mut socket = Socket::new(stream);
    let heard = tokio::select! {
        heard = socket.hear() => heard,
        () = unwanted(&peer) => return,
    };
    match heard {
        Ok(Some(Speaks::Http2)) => Box::pin(http2(socket, peer, door)).await,
        Ok(Some(Speaks::Http1)) => {
            // While nothing is asked of it, a connection costs its socket and little else.
            loop {
                peer.woke();
                match Box::pin(http1(socket, &peer, &door)).await {
                    Some(rested) if is_wanted(&rested, &peer).await => socket = rested,
                    Some(_) | None => return,
                }
            }
        }
        // The client has left without a word.
        Ok(None) | Err(_) => {}
    }
}

/// Ready when the worker wants no more of it.
async fn unwanted(peer: &Peer) {
    poll_fn(|cx| if peer.wish(cx) == Wish::Close { Poll::Ready(()) } else { Poll::Pending }).await;
}

/// Ready when the client has said something, or false when the worker wants no more of it.
async fn is_wanted(socket: &Socket, peer: &Peer) -> bool {
    poll_fn(|cx| match peer.wish(cx) {
        Wish::Close => Poll::Ready(false),
        Wish::Serve | Wish::Rest => socket.poll_readable(cx).map(|()| true),
    })
    .await
}

/// Serves requests; the socket where the connection is to rest, or nothing where it has ended.
async fn http1<D: Door>(socket: Socket, peer: &Rc<Peer>, door: &Rc<D>) -> Option<Socket> {
    let service = service_fn(|request: Request<Incoming>| {
        let (door, peer) = (Rc::clone(door), Rc::clone(peer));
        async move { Ok::<_, Infallible>(door.serve(peer, request).await) }
    });
    let stuck = socket.stuck();
    let mut connection = http1::Builder::new().serve_connection(socket, service).with_upgrades();
    let mut closing = false;
    let rests = poll_fn(|cx| {
        match peer.wish(cx) {
            // Once: it would cut the end of an answer off that waits to be sent.
            Wish::Close if !closing => {
                closing = true;
                Pin::new(&mut connection).graceful_shutdown();
            }
            Wish::Rest if !stuck.is_set() => return Poll::Ready(true),
            Wish::Serve | Wish::Rest | Wish::Close => {}
        }
        Pin::new(&mut connection).poll(cx).map(|_| false)
    })
    .await;
    // An upgraded connection is somebody else's now.
    let parts = connection.into_parts()?;
    if rests {
        return Some(parts.io.reading_again(&parts.read_buf));
    }
    Box::pin(linger(parts.io.into_stream(), peer)).await;
    None
}

async fn http2<D: Door>(socket: Socket, peer: Rc<Peer>, door: Rc<D>) {
    let served = Rc::clone(&peer);
    let service = service_fn(move |request: Request<Incoming>| {
        let (door, peer) = (Rc::clone(&door), Rc::clone(&served));
        async move { Ok::<_, Infallible>(door.serve(peer, request).await) }
    });
    let mut connection = pin!(http2::Builder::new(Local).serve_connection(socket, service));
    let mut closing = false;
    poll_fn(|cx| {
        if peer.wish(cx) == Wish::Close && !closing {
            closing = true;
            connection.as_mut().graceful_shutdown();
        }
        connection.as_mut().poll(cx).map(drop)
    })
    .await;
}

/// Reads on for a moment after our last answer. A client that is still sending, since it was answered early, would
/// lose that answer if the socket were closed under its bytes (RFC 9112, 9.6).
async fn linger(mut stream: TcpStream, peer: &Peer) {
    let ended = async {
        let mut scratch = vec![0; SCRATCH];
        let _ = stream.shutdown().await;
        while let Ok(1..) = stream.read(&mut scratch).await {}
    };
    tokio::select! {
        _ = timeout(LINGER, ended) => {}
        () = unwanted(peer) => {}
    }
}

/// The socket of a connection that has been upgraded, and what was read from it beyond the request.
///
/// # Panics
///
/// Where the connection is not one of [`serve`].
#[must_use]
pub fn taken_over(upgraded: Upgraded) -> (TcpStream, Bytes) {
    let parts = upgraded.downcast::<Socket>().expect("clients are upgraded on connections of ours alone");
    (parts.io.into_stream(), parts.read_buf)
}

/// Tasks of a connection stay on its worker.
#[derive(Debug, Clone, Copy)]
struct Local;

impl<F: Future<Output: 'static> + 'static> Executor<F> for Local {
    fn execute(&self, task: F) {
        tokio::task::spawn_local(task);
    }
}

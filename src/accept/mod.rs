//! Bytes become requests.

mod answer;
pub mod body;
mod calm;
pub mod clock;
mod connection;
pub mod crowd;
pub mod drain;
mod http1;
mod http2;
mod link;
pub mod open;
pub mod origin;
pub mod peer;
pub mod pipe;
mod proxied;
pub mod proxy_protocol;
mod streams;
mod upload;
mod watched;

use std::future::poll_fn;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http_body::Body;
use socket2::{Domain, Protocol, Type};
use tokio::net::TcpStream;
use tokio::task::AbortHandle;
use tokio_rustls::rustls::HandshakeKind;

use crate::config::listen::{HttpsOnly, Listen, ProxyProtocol};
use crate::message::answer::Answer;
use crate::message::chunk::Chunk;
use crate::message::head::{Head, Limits};
use crate::message::invalid::Invalid;
use crate::observe::seldom::Seldom;
use crate::socket::{Socket, UNSENT};
use crate::tls::failure::Failure;
use crate::tls::subject;
use crate::tls::{Accepted, Terminator};
use body::Incoming;
use clock::Clock;
use crowd::{Crowd, Most};
use drain::Drain;
use open::Open;
use peer::Peer;
use pipe::Pipe;
use proxy_protocol::Unproxied;

/// Connections that the kernel holds for us: what a burst of a second brings.
const BACKLOG: i32 = 4096;
/// After the system refused a connection for want of something (file descriptors, memory), others get this long
/// to give some back.
const PAUSE: Duration = Duration::from_millis(50);

/// What a connection hands its requests to.
pub trait Door: 'static {
    /// What it answers with.
    type Body: Taken + 'static;

    /// Answers one request.
    fn serve(
        self: Rc<Self>,
        peer: Rc<Peer>,
        head: Head,
        body: Incoming,
    ) -> impl Future<Output = Reply<Self::Body>>;

    /// Answers what is no request, though it may have a head.
    fn refuse(&self, peer: &Rc<Peer>, head: Option<&Head>, malformed: Malformed) -> Answer<Self::Body>;

    /// How much is taken of a client, and how long it may take.
    fn bounds(&self) -> Bounds;

    /// A connection of HTTP/2 has broken, for this reason.
    fn broke(&self, reason: &'static str);

    /// A connection has ended that was still owed, or owed us, a request, for this reason.
    fn cut_short(&self, reason: &'static str);

    /// A connection without the PROXY header that it had to begin with was closed.
    fn turned_away(&self, hop: &Peer, why: Unproxied);

    /// A client has shaken hands over TLS, for the first time or again.
    fn shaken(&self, resumed: bool);

    /// A client has not, and its connection was closed.
    fn unshaken(&self, peer: &Peer, why: &Failure);

    /// Whether an address stands for many clients.
    fn is_trusted(&self, peer: &Peer) -> bool;

    /// What its connections share.
    fn worker(&self) -> &Worker;
}

/// The body of an answer, as a client takes it.
pub trait Taken: Body<Data = Bytes, Error: std::error::Error + Send + Sync + 'static> + Unpin {
    /// The client took nothing of it for too long, and gets no more.
    fn too_slow(&mut self);

    /// How long the client may take nothing of it; `None` is as long as of any.
    fn patience(&self) -> Option<Duration> {
        None
    }

    /// Ready when nothing of it may be sent any more, though the client has yet to take what came before.
    fn poll_cut(&mut self, _cx: &mut Context<'_>) -> Poll<()> {
        Poll::Pending
    }

    /// This task sends it, and is aborted when nothing of it may be sent any more.
    fn cut_with(&mut self, _task: AbortHandle) {}
}

/// How a listener takes connections in.
#[derive(Debug, Clone, Default)]
pub struct Entrance {
    /// Whether they begin with a PROXY header.
    pub proxy_protocol: ProxyProtocol,
    /// What becomes of what came over plain HTTP.
    pub https_only: HttpsOnly,
    /// What ends their TLS.
    pub tls: Option<Arc<Terminator>>,
}

impl Entrance {
    /// As it was written, with what ends the TLS of its clients.
    #[must_use]
    pub fn new(listen: &Listen, tls: Option<Arc<Terminator>>) -> Self {
        Self { proxy_protocol: listen.proxy_protocol, https_only: listen.https_only, tls }
    }
}

/// What the connections of a worker share.
#[derive(Debug)]
pub struct Worker {
    /// What they read into.
    pub chunk: Rc<Chunk>,
    /// What time it is for them.
    pub clock: Rc<Clock>,
    /// Where they are known.
    pub open: Rc<Open>,
    /// With the connections of all other workers.
    pub crowd: Arc<Crowd>,
}

/// How much is taken of a client, and how long it may take.
#[derive(Debug, Clone, Copy)]
pub struct Bounds {
    /// Of a head.
    pub size: Limits,
    /// For a head, from its first byte to its last.
    pub head_wait: Duration,
    /// For the next request.
    pub idle: Duration,
    /// For a client that takes nothing of its answer.
    pub patience: Duration,
    /// Connections.
    pub connections: Most,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// Streams that were reset, and are not forgotten yet.
    pub resets: usize,
    /// Frames a second, on one connection of HTTP/2, that do nothing for any request.
    pub control_frames: u32,
    /// Somewhere a WebSocket may be the answer.
    pub channels: bool,
}

/// Why what has come is no request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Malformed {
    /// It cannot be read, or in more than one way.
    Invalid(Invalid),
    /// The rest of it did not come in time.
    Late,
}

/// What a request is answered with.
pub struct Reply<B> {
    /// The answer.
    pub answer: Answer<B>,
    /// Who has the connection, or the stream, after it, where it switches protocols.
    pub switch: Option<Switch>,
}

impl<B> From<Answer<B>> for Reply<B> {
    fn from(answer: Answer<B>) -> Self {
        Self { answer, switch: None }
    }
}

/// Takes what the client sends and is sent from now on, and what has been read of that.
pub type Switch = Box<dyn FnOnce(Pipe, Bytes) -> Pin<Box<dyn Future<Output = ()>>>>;

/// One socket a worker for one address, so that the kernel deals out connections (`SO_REUSEPORT`).
///
/// Sharing a port must not hide a second instance of this program, so the address is first bound alone.
pub fn bind(address: SocketAddr, workers: usize) -> io::Result<Vec<TcpListener>> {
    let alone = socket(address, false)?;
    // Port 0 has found a free one, which stays ours only as long as a socket of ours has it.
    let address = alone.local_addr()?.as_socket().unwrap_or(address);
    drop(alone);
    (0..workers).map(|_| socket(address, true)).map(|socket| socket.map(TcpListener::from)).collect()
}

fn socket(address: SocketAddr, shared: bool) -> io::Result<socket2::Socket> {
    let socket = socket2::Socket::new(Domain::for_address(address), Type::STREAM, Some(Protocol::TCP))?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(shared)?;
    socket.set_nonblocking(true)?;
    // What it accepts has these from it, and need not be told so one by one.
    socket.set_tcp_nodelay(true)?;
    // Where a system does not have it, who reads slowly is told apart less well, and served all the same.
    let _ = socket.set_tcp_notsent_lowat(UNSENT);
    socket.bind(&address.into())?;
    socket.listen(BACKLOG)?;
    Ok(socket)
}

/// Takes connections until the drain closes the listener.
pub async fn run<D: Door>(
    listener: tokio::net::TcpListener,
    entrance: Entrance,
    door: Rc<D>,
    mut drain: Drain,
) {
    let said = Seldom::default();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            () = drain.closing() => return door.worker().open.close(),
        };
        match accepted {
            Ok((stream, address)) => {
                let Worker { crowd, .. } = door.worker();
                if crowd.is_full(door.bounds().connections) {
                    // Who came in the same turn has not been listened to yet, and could make no room.
                    tokio::task::yield_now().await;
                }
                take(stream, address, &entrance, &door);
            }
            Err(error) => {
                if said.is_time() {
                    tracing::warn!(%error, "a connection could not be accepted");
                }
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

/// Serves a connection, or closes it where there is no place for it.
fn take<D: Door>(stream: TcpStream, address: SocketAddr, entrance: &Entrance, door: &Rc<D>) {
    let Worker { clock, open, crowd, .. } = door.worker();
    let peer = Rc::new(Peer::new(address, clock).through(entrance));
    let (most, trusted) = (door.bounds().connections, door.is_trusted(&peer));
    if entrance.proxy_protocol == ProxyProtocol::Required && !trusted {
        return door.turned_away(&peer, Unproxied::Untrusted);
    }
    let most = if trusted { Most { of_one: None, ..most } } else { most };
    let Some(place) = Crowd::enter(crowd, peer.ip, most, || make_room(open, &**door)) else { return };
    let (entered, door) = (Open::connect(open, &peer), Rc::clone(door));
    let Entrance { proxy_protocol: proxied, tls, .. } = entrance.clone();
    tokio::task::spawn_local(async move {
        let met = match proxied {
            ProxyProtocol::Refused => Some((peer, entered, place)),
            // In a box of its own: others need no room for it.
            ProxyProtocol::Required => Box::pin(proxied::meet(&stream, (peer, entered, place), &door)).await,
        };
        let Some((peer, entered, place)) = met else { return };
        if !door.is_trusted(&peer) {
            peer.counts_in(place.streams());
        }
        let socket = match tls {
            None => Some((Socket::Plain(stream), Bytes::new())),
            // In a box, which is gone when the handshake is.
            Some(tls) => Box::pin(shake(stream, &tls, &peer, &*door)).await,
        };
        if let Some((socket, read)) = socket {
            connection::serve(socket, read, peer, door).await;
        }
        drop((entered, place));
    });
}

/// Ends the connection that is oldest of those on which nothing is asked; false where there is none.
pub fn make_room(open: &Open, door: &impl Door) -> bool {
    let made = open.make_room();
    if made {
        door.cut_short("room");
    }
    made
}

/// Shakes hands over TLS; says what has been read that is no TLS, too. `None` where that fails, or the connection is to end.
/// Who speaks HTTP instead is served, so that it can be told what is wrong in the form that it knows. Until it has, nothing
/// is lost with it: it makes room for others, and holds up no drain.
async fn shake<D: Door>(
    stream: TcpStream,
    tls: &Terminator,
    peer: &Peer,
    door: &D,
) -> Option<(Socket, Bytes)> {
    peer.idle(door.bounds().idle);
    let closing = poll_fn(|cx| {
        peer.watch(cx);
        if peer.is_closing() { Poll::Ready(()) } else { Poll::Pending }
    });
    let shaken = tokio::select! {
        shaken = tls.accept(stream) => shaken,
        () = closing => return None,
    };
    match shaken {
        Ok(Accepted::Plain(tcp, read)) => {
            door.unshaken(peer, &Failure::NotTls);
            peer.has_come_in_plain();
            Some((Socket::Plain(tcp), read))
        }
        Ok(Accepted::Tls(stream)) => {
            let session = stream.get_ref().1;
            door.shaken(session.handshake_kind() == Some(HandshakeKind::Resumed));
            if let Some(leaf) = session.peer_certificates().and_then(<[_]>::first) {
                peer.has_proved(subject::of(leaf).map(Rc::from));
            }
            Some((Socket::Tls(stream), Bytes::new()))
        }
        Err(why) => {
            door.unshaken(peer, &why);
            None
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

    use super::*;

    #[test]
    fn what_is_accepted_waits_for_nothing_before_it_sends() {
        let check = |listeners: &[TcpListener]| {
            let listener = listeners.first().expect("one worker has one");
            let address = listener.local_addr().expect("an address");
            let _client = std::net::TcpStream::connect(address).expect("a connection");
            listener.set_nonblocking(false).expect("a socket");
            let (accepted, _) = listener.accept().expect("a client");
            assert!(accepted.nodelay().expect("a socket"), "{address}");
        };
        let at = |ip: IpAddr| bind(SocketAddr::new(ip, 0), 1);
        check(&at(Ipv4Addr::LOCALHOST.into()).expect("every machine has this"));
        // Not every machine has this.
        if let Ok(listeners) = at(Ipv6Addr::LOCALHOST.into()) {
            check(&listeners);
        }
    }
}

//! Requests of a client over HTTP/2, which hyper reads.

use std::error::Error as _;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response, header};
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;

use super::body::Incoming;
use super::calm::Calm;
use super::peer::Peer;
use super::pipe::Pipe;
use super::streams::Streams;
use super::watched::Watched;
use super::{Bounds, Door, Malformed, Reply, Switch};
use crate::message::frames::{self, Frames};
use crate::message::head::Head;
use crate::socket::Socket;

/// What a client may have on its way to us that we have not taken: a stream's first window, and all of them together.
/// The protocol's own 64 KiB would have a connection wait for every stream in turn.
const STREAM_WINDOW: u32 = 64 * 1024;
const CONNECTION_WINDOW: u32 = 1024 * 1024;
/// What waits for a client that does not take it, on each stream.
const UNTAKEN: usize = 64 * 1024;
/// A connection may meet so many times `limits.resets` streams that we have to reset, while it lives: what a client sends
/// behind a refusal that it has not seen yet is none of its fault.
const MISHAPS: usize = 10;
/// Why a connection ends whose client takes nothing.
const SLOW: &str = "client_slow";
/// After a goodbye or a refusal of ours: what is on its way then may still come.
pub(super) const LINGER: Duration = Duration::from_secs(2);

/// What a connection waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Waits {
    /// A stream.
    Busy,
    /// The client, which takes nothing of what is left to say of streams that have ended.
    Blocked,
    /// The rest of a head.
    Head,
    /// The next request.
    Idle,
}

/// Serves a connection to its end. What ends it is the client's matter, or has been told by its requests.
pub(super) async fn serve<D: Door>(socket: Socket, read: Bytes, peer: Rc<Peer>, door: Rc<D>) {
    let bounds = door.bounds();
    let streams = Streams::new(Rc::clone(&peer));
    let (served, watching, serving) = (Rc::clone(&peer), streams.clone(), Rc::clone(&door));
    let service = service_fn(move |request| {
        let (door, peer, streams) = (Rc::clone(&serving), Rc::clone(&served), watching.clone());
        // In a box, which is gone when the answer begins: that may have to wait for long.
        Box::pin(async move { exchange(request, door, peer, &streams).await })
    });
    let frames = Frames::of_client(bounds.size.head);
    let socket = Calm::new(socket, read, frames, bounds.control_frames, Rc::clone(&peer));
    let signs = socket.signs();
    let mut builder = http2::Builder::new(streams.clone());
    if bounds.channels {
        builder.enable_connect_protocol();
    }
    let connection = builder
        .max_concurrent_streams(bounds.streams)
        .max_header_list_size(frames::told(bounds.size.head))
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_send_buf_size(UNTAKEN)
        .max_pending_accept_reset_streams(bounds.resets)
        .max_local_error_reset_streams(bounds.resets.saturating_mul(MISHAPS))
        .serve_connection(TokioIo::new(socket), service);
    let mut connection = pin!(connection);
    let mut course = Course { waits: Waits::Idle, begun: false, closing: false };
    // Until the first request it has as long as a head may take, and makes room for others.
    peer.idle(bounds.head_wait);
    let ended = poll_fn(|cx| {
        peer.watch(cx);
        if peer.is_late() && course.is_over(&streams, &*door)? {
            return Poll::Ready(Ok(()));
        }
        if !course.closing && (peer.is_closing() || (course.waits == Waits::Idle && peer.is_late())) {
            course.closing = true;
            connection.as_mut().graceful_shutdown();
            peer.wait(LINGER);
        }
        let polled = connection.as_mut().poll(cx).map_err(|error| reason(&error));
        let waits = match (streams.is_empty(), signs.blocked.get(), signs.in_block.get()) {
            (false, ..) => Waits::Busy,
            (true, true, _) => Waits::Blocked,
            (true, false, true) if course.begun => Waits::Head,
            (true, false, _) => Waits::Idle,
        };
        if waits != course.waits {
            course.turn(waits, &peer, &*door);
        }
        polled
    })
    .await;
    if let Err(reason) = ended {
        door.broke(reason);
    }
}

/// How far a connection has come.
struct Course {
    waits: Waits,
    /// Something has been asked of it.
    begun: bool,
    /// The client has been told that nothing more will be answered.
    closing: bool,
}

impl Course {
    /// What it has waited for takes too long: whether it ends at once, or breaks.
    fn is_over(&self, streams: &Streams, door: &impl Door) -> Result<bool, &'static str> {
        match self.waits {
            Waits::Busy if streams.end_stuck() => Ok(false),
            Waits::Busy | Waits::Blocked => Err(SLOW),
            Waits::Head => {
                door.cut_short("head");
                Ok(true)
            }
            Waits::Idle => {
                if !self.begun && !self.closing {
                    door.cut_short("preface");
                }
                Ok(self.closing)
            }
        }
    }

    /// It waits for something else from now on.
    fn turn(&mut self, waits: Waits, peer: &Peer, door: &impl Door) {
        (self.waits, self.begun) = (waits, true);
        match waits {
            Waits::Busy => peer.rest(),
            Waits::Idle if !self.closing => peer.idle(door.bounds().idle),
            Waits::Blocked if !self.closing => peer.wait(door.bounds().patience),
            Waits::Head if !self.closing => peer.wait(door.bounds().head_wait),
            Waits::Idle | Waits::Blocked | Waits::Head => peer.wait(LINGER),
        }
    }
}

/// One request and its answer; an error resets its stream.
async fn exchange<D: Door>(
    request: Request<hyper::body::Incoming>,
    door: Rc<D>,
    peer: Rc<Peer>,
    streams: &Streams,
) -> Result<Response<Watched<D::Body>>, h2::Error> {
    let (mut parts, body) = request.into_parts();
    // As they are now, and not when the connection began: a reload is for the next request.
    let Bounds { size, patience, connections, .. } = door.bounds();
    if peer.has_more_than(connections.of_one) {
        // An answer that it does not take would be one more.
        door.worker().crowd.refuse("streams_per_client", peer.ip);
        return Err(h2::Reason::REFUSED_STREAM.into());
    }
    let head = Head::of(&parts, &size).map_err(|invalid| (invalid, Head::outline(&parts)));
    let upgrade = parts.extensions.remove::<OnUpgrade>();
    let upload = streams.upload(body);
    let body = upload.as_ref().map_or(Incoming::Nothing, Incoming::on);
    // Not held while the upstream thinks.
    drop(parts);
    let Reply { answer, switch } = match head {
        Ok(head) => door.serve(peer, head, body).await,
        Err((invalid, head)) => {
            drop(body);
            door.refuse(&peer, Some(&head), Malformed::Invalid(invalid)).into()
        }
    };
    if let Some(rest) = upload.and_then(|upload| upload.rest()) {
        streams.read_off(rest);
    }
    let mut response = Response::new(streams.watched(answer.body, patience));
    *response.status_mut() = answer.status;
    *response.headers_mut() = answer.fields.into_map();
    if let (Some(switch), Some(upgrade)) = (switch, upgrade) {
        // Only HTTP/1.1 has it (RFC 8441, 5).
        response.headers_mut().remove(header::SEC_WEBSOCKET_ACCEPT);
        switched(streams, upgrade, switch);
    }
    Ok(response)
}

/// The stream of this task is somebody else's once it has been answered.
fn switched(streams: &Streams, upgrade: OnUpgrade, switch: Switch) {
    let sender = streams.switches();
    streams.spawn(async move {
        // Where the client has left before, there is nobody to switch with.
        if let Ok(upgraded) = upgrade.await {
            switch(Pipe::stream(upgraded, Rc::clone(&sender)), Bytes::new()).await;
            sender.finish(LINGER).await;
        }
    });
}

/// What ended a connection that did not end well, by the protocol's own names (RFC 9113, 7), or by the limit that it was
/// over.
fn reason(error: &hyper::Error) -> &'static str {
    let cause = error.source();
    let io = cause.and_then(|cause| cause.downcast_ref::<io::Error>()).map(io::Error::kind);
    match io {
        Some(ErrorKind::QuotaExceeded) => return "control_frames",
        Some(ErrorKind::FileTooLarge) => return "head_too_large",
        Some(_) | None => {}
    }
    let cause = cause.and_then(|cause| cause.downcast_ref::<h2::Error>()).and_then(h2::Error::reason);
    let named = |known: &(h2::Reason, &'static str)| (Some(known.0) == cause).then_some(known.1);
    NAMES.iter().find_map(named).unwrap_or("io")
}

const NAMES: [(h2::Reason, &str); 8] = [
    (h2::Reason::PROTOCOL_ERROR, "protocol_error"),
    (h2::Reason::INTERNAL_ERROR, "internal_error"),
    (h2::Reason::FLOW_CONTROL_ERROR, "flow_control_error"),
    (h2::Reason::SETTINGS_TIMEOUT, "settings_timeout"),
    (h2::Reason::STREAM_CLOSED, "stream_closed"),
    (h2::Reason::FRAME_SIZE_ERROR, "frame_size_error"),
    (h2::Reason::COMPRESSION_ERROR, "compression_error"),
    (h2::Reason::ENHANCE_YOUR_CALM, "enhance_your_calm"),
];

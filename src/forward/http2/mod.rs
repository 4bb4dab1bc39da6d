//! Requests to upstreams over HTTP/2, on the h2 crate.
//!
//! A stream that is dropped is reset: that is how a client that has left cancels its request, and how a wait that was
//! too long ends one.

pub mod connection;
pub mod pool;
pub mod received;
mod sending;
pub mod stream;

use std::future::poll_fn;
use std::io;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Poll, ready};

use h2::{Reason, RecvStream};
use http::uri::{Authority, PathAndQuery, Scheme};
use http::{Method, Request, Uri, Version};
use tokio::task::spawn_local;

use super::answer::Head;
use super::body::Body;
use super::client::{Client, INFORMATIONAL, Target};
use super::fault::Fault;
use super::headers::is_idempotent;
use super::intake::Intake;
use crate::message::framing::Framing;
use crate::message::head;
use crate::message::invalid::Invalid;
use received::{Going, Received, finish};
use sending::Sending;
use stream::Stream;

/// A request is tried so often: each of several connections may be one that the upstream is just closing.
const TRIES: usize = 3;

/// A request that is about to be sent.
pub(super) struct Outgoing {
    /// Its head.
    pub(super) request: Request<()>,
    /// Its body.
    pub(super) intake: Intake,
    /// The client may send and hear at once.
    pub(super) converses: bool,
}

/// What failed, and whether the upstream may have done something.
struct Failed {
    fault: Fault,
    /// It has not looked at the request (RFC 9113, 8.7).
    refused: bool,
    /// The connection has gone.
    gone: bool,
}

/// Sends a request on a stream and waits for the head of its answer.
///
/// One that the upstream did not look at is sent again on another connection, whatever its method; one whose connection
/// has gone only where that cannot do anything twice (RFC 9110, 9.2.2).
pub(super) async fn send(
    client: &Client,
    target: &Target<'_>,
    mut stream: Rc<Stream>,
    outgoing: Outgoing,
) -> Result<(Head, Body), Fault> {
    let Outgoing { request, intake, converses } = outgoing;
    let (method, mut sending) = (request.method().clone(), Sending::new(intake));
    let mut tried = Vec::new();
    loop {
        if converses {
            stream.watch.converses();
        }
        let Failed { fault, refused, gone } =
            match exchange(&stream, target, request.clone(), &mut sending).await {
                Ok((head, body)) => return Ok(answered(head, body, stream, sending)),
                Err(failed) => failed,
            };
        let again = refused || gone && sending.is_nothing() && is_idempotent(&method) && stream.was_used();
        tried.push(Rc::clone(&stream.connection));
        if !again || tried.len() == TRIES || !sending.rewind() {
            return Err(fault);
        }
        let Some(other) = client.http2.place(client, target, &tried).await? else { return Err(fault) };
        target.upstream.meters.retries.inc();
        stream = other;
    }
}

/// Sends a request and reads the head of the answer, whichever comes first.
async fn exchange(
    stream: &Rc<Stream>,
    target: &Target<'_>,
    request: Request<()>,
    sending: &mut Sending,
) -> Result<(Head, RecvStream), Failed> {
    let method = request.method().clone();
    let (mut response, send) = stream.connection.send(request, sending.is_nothing()).map_err(|error| {
        stream.connection.retire();
        Failed { refused: true, ..Failed::from(error) }
    })?;
    sending.on(send);
    let (mut sent, mut informational) = (false, 0);
    poll_fn(|cx| {
        if !sent && let Poll::Ready(ended) = sending.poll(cx, stream) {
            sent = true;
            ended.map_err(|broken| stream.watch.fault().unwrap_or(Fault::Client(broken)))?;
        }
        if let Some(fault) = stream.fault(cx) {
            return Poll::Ready(Err(fault.into()));
        }
        // Nobody downstream has a use for it.
        while let Poll::Ready(Some(Ok(_))) = response.poll_informational(cx) {
            target.upstream.meters.informational.inc();
            informational += 1;
            if informational > INFORMATIONAL {
                return Poll::Ready(Err(Fault::from(Invalid::Interim).into()));
            }
        }
        let (parts, body) = ready!(Pin::new(&mut response).poll(cx))?.into_parts();
        let head = Head::of(&parts, &method).map_err(Fault::from)?;
        stream.watch.answered();
        Poll::Ready(Ok((head, body)))
    })
    .await
}

/// An answer, and what is left of its request, which goes on beside it.
fn answered(head: Head, body: RecvStream, stream: Rc<Stream>, sending: Sending) -> (Head, Body) {
    let mut going = go_on(&stream, sending);
    let left = match &head.framing {
        Some(Framing::Length(length)) => Some(*length),
        Some(Framing::Close | Framing::Chunked(_)) | None => None,
    };
    let body = if body.is_end_stream() || head.framing.is_none() {
        finish(&stream, &mut going);
        Body::Empty
    } else {
        Body::Http2(Box::new(Received::new(body, left, stream, going)))
    };
    (head, body)
}

fn go_on(stream: &Rc<Stream>, mut sending: Sending) -> Going {
    if stream.watch.is_sent() {
        return Going::default();
    }
    sending.forget();
    let (beside, progress) = (Rc::clone(stream), sending.progress().cloned());
    let task = spawn_local(async move {
        if let Err(broken) = poll_fn(|cx| sending.poll(cx, &beside)).await {
            beside.watch.broke(broken);
            sending.cut();
        }
    });
    if let Some(progress) = progress {
        progress.goes_on_in(task.abort_handle());
    }
    stream.watch.uploaded_by(task.abort_handle());
    Going(Some(task.abort_handle()))
}

/// Where a request goes (RFC 9113, 8.3.1), path and query as they came. Some of what a client may send over HTTP/1 cannot
/// be said so.
pub(super) fn uri(head: &head::Head, host: &[u8], secure: bool) -> Result<Uri, Fault> {
    let target = match head.query() {
        Some(query) => format!("{}?{query}", head.path()),
        None => head.path().to_owned(),
    };
    let uri = Uri::builder()
        .scheme(if secure { Scheme::HTTPS } else { Scheme::HTTP })
        .authority(Authority::try_from(host).map_err(|_| Fault::Target)?)
        .path_and_query(PathAndQuery::try_from(target).map_err(|_| Fault::Target)?)
        .build();
    uri.map_err(|_| Fault::Target)
}

/// A request with this head.
pub(super) fn request(method: Method, uri: Uri, fields: http::HeaderMap) -> Request<()> {
    let mut request = Request::new(());
    (*request.method_mut(), *request.uri_mut()) = (method, uri);
    (*request.version_mut(), *request.headers_mut()) = (Version::HTTP_2, fields);
    request
}

impl From<Fault> for Failed {
    fn from(fault: Fault) -> Self {
        Self { fault, refused: false, gone: false }
    }
}

impl From<h2::Error> for Failed {
    fn from(error: h2::Error) -> Self {
        let refused =
            error.is_remote() && (error.is_go_away() || error.reason() == Some(Reason::REFUSED_STREAM));
        Self { refused, gone: error.is_io(), fault: fault(error) }
    }
}

/// Whose fault an error is: what the upstream ends has ended, and what the h2 crate ends was no HTTP/2.
fn fault(error: h2::Error) -> Fault {
    if error.is_library() {
        return Fault::Http2(error);
    }
    Fault::Closed(if error.is_io() {
        error.into_io().unwrap_or_else(|| io::ErrorKind::UnexpectedEof.into())
    } else {
        io::Error::other(error)
    })
}

//! Permits become responses.

pub mod answer;
pub mod body;
pub mod client;
pub mod fault;
pub mod frames;
pub mod headers;
pub mod http2;
pub mod intake;
pub mod resolve;
mod sink;
pub mod tunnel;
pub mod upload;
pub mod upstream;
pub mod watch;
pub mod wire;

use std::rc::Rc;

use bytes::Bytes;
use data_encoding::BASE64;
use http::{StatusCode, Version};
use sha1::{Digest as _, Sha1};

use crate::accept::body::{Broken, Incoming};
use crate::config::upstream::Protocol;
use crate::decide::permit::{Ask, Permit};
use crate::message::answer::Answer;
use crate::message::chunk::Chunk;
use crate::message::field::Kind;
use crate::message::fields::Fields;
use crate::message::head::Head;
use crate::observe::record::Id;
use crate::socket::Socket;

use body::Body;
use client::{Answered, Client, Target};
use fault::Fault;
use headers::{Announced, Outbound, X_REQUEST_ID};
use http2::Outgoing;
use intake::{Intake, Progress, announced};
use upload::Upload;

/// What came of a request that was forwarded.
pub struct Forwarded {
    /// The upstream's answer, with a body that streams.
    pub answer: Answer<Body>,
    /// Set where it switched to WebSocket.
    pub switched: Option<Switched>,
}

/// The upstream's end of a WebSocket connection that is about to begin.
#[derive(Debug)]
pub struct Switched {
    /// Its socket.
    pub upstream: Socket,
    /// What it has said already.
    pub early: Bytes,
    /// What the worker reads into.
    pub chunk: Rc<Chunk>,
}

/// Sends an admitted request to the upstream of its surface.
pub async fn forward(
    client: &Rc<Client>,
    target: &Target<'_>,
    permit: &Permit<'_>,
    head: &Head,
    body: Incoming,
    outbound: &Outbound<'_>,
    progress: &mut Option<Rc<Progress>>,
) -> Result<Forwarded, Fault> {
    let host = head.authority().unwrap_or(&target.upstream.host);
    let announced = announced(&body);
    if matches!(announced, Announced::Length(length) if length > outbound.body_most) {
        return Err(Fault::Client(Broken::TooLarge));
    }
    let body = if target.upstream.config.protocol == Protocol::Http1 || permit.ask == Ask::Channel {
        body
    } else {
        // Seldom, and large.
        let sent = Box::pin(over_http2(client, target, permit, head, (body, announced), outbound, progress));
        match sent.await? {
            Sent::Http2(forwarded) => return Ok(forwarded),
            Sent::Not(body) => body,
        }
    };
    let text = headers::write(head, host, announced, permit, outbound);
    let intake = Intake::new(body, announced, outbound.body_most);
    *progress = intake.progress().cloned();
    let mut upload = Upload::new(text, intake);
    let Answered { head: answer, rest, lease } = client.send(target, &head.method, &mut upload).await?;
    let lease = lease.sends_on(upload);
    let status = answer.status;
    match permit.ask {
        Ask::Channel if status == StatusCode::SWITCHING_PROTOCOLS => {
            if !answer.switches || !is_accepted(&answer.fields, head.fields.first(Kind::WebSocketKey)) {
                return Err(Fault::Upgrade);
            }
            let Some((upstream, chunk)) = lease.into_socket() else { return Err(Fault::Upgrade) };
            let answer = made(answer, outbound.id, Body::Empty);
            let answer = switching(head.version, answer);
            Ok(Forwarded { answer, switched: Some(Switched { upstream, early: rest, chunk }) })
        }
        Ask::Request | Ask::Preflight if status == StatusCode::SWITCHING_PROTOCOLS => Err(Fault::Upgrade),
        // To extended CONNECT that would say that the channel is open.
        Ask::Channel if head.is_extended() && status.is_success() => Err(Fault::Upgrade),
        ask @ (Ask::Request | Ask::Preflight | Ask::Channel) => {
            let lease = if ask == Ask::Channel { lease.for_one_request() } else { lease };
            let (framing, answer) = (answer.framing, answer::Head { framing: None, ..answer });
            let body = Body::new(framing, rest, lease);
            Ok(Forwarded { answer: made(answer, outbound.id, body), switched: None })
        }
    }
}

/// What came of it where the upstream may speak HTTP/2.
enum Sent {
    /// It does.
    Http2(Forwarded),
    /// It does not, and the body has not been touched.
    Not(Incoming),
}

async fn over_http2(
    client: &Rc<Client>,
    target: &Target<'_>,
    permit: &Permit<'_>,
    head: &Head,
    (body, announced): (Incoming, Announced),
    outbound: &Outbound<'_>,
    progress: &mut Option<Rc<Progress>>,
) -> Result<Sent, Fault> {
    let Some(stream) = client.http2.place(client, target, &[]).await? else {
        return Ok(Sent::Not(body));
    };
    let host = head.authority().unwrap_or(&target.upstream.host);
    let authority = head.fields.first(Kind::Host).unwrap_or(host.as_bytes());
    let uri = http2::uri(head, authority, target.upstream.tls.is_some())?;
    let fields = headers::fields(head, host, announced, permit, outbound);
    let intake = Intake::new(body, announced, outbound.body_most);
    *progress = intake.progress().cloned();
    let converses = announced == Announced::Chunked && head.version == Version::HTTP_2;
    let request = http2::request(head.method.clone(), uri, fields);
    let (answer, body) = http2::send(client, target, stream, Outgoing { request, intake, converses }).await?;
    Ok(Sent::Http2(Forwarded { answer: made(answer, outbound.id, body), switched: None }))
}

fn made(head: answer::Head, id: &Id, body: Body) -> Answer<Body> {
    let answer::Head { status, reason, mut fields, .. } = head;
    fields.push_as(Kind::RequestId, X_REQUEST_ID, id.as_bytes());
    Answer { status, reason, fields, body }
}

/// Whether an answer proves, once, that it is to this key (RFC 6455, 4.1 and 11.3.3).
fn is_accepted(fields: &Fields, key: Option<&[u8]>) -> bool {
    let mut said = fields.iter().filter(|field| field.name.eq_ignore_ascii_case(b"sec-websocket-accept"));
    let fits = |key| said.next().is_some_and(|field| field.value == accept_of(key).as_bytes());
    key.is_some_and(fits) && said.next().is_none()
}

/// What a server answers to `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_of(key: &[u8]) -> String {
    let mut hash = Sha1::new_with_prefix(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    BASE64.encode(&hash.finalize())
}

/// An answer that switches to WebSocket: 101 (RFC 6455, 4.2.2), or 200 on a stream of HTTP/2 (RFC 8441, 5).
#[must_use]
pub fn switching(version: Version, mut answer: Answer<Body>) -> Answer<Body> {
    if version == Version::HTTP_2 {
        return Answer { status: StatusCode::OK, ..answer };
    }
    answer.fields.push(b"connection", b"upgrade");
    answer.fields.push(b"upgrade", b"websocket");
    Answer { status: StatusCode::SWITCHING_PROTOCOLS, ..answer }
}

//! Permits become responses.

pub mod answer;
pub mod body;
pub mod client;
pub mod fault;
pub mod frames;
pub mod headers;
pub mod resolve;
pub mod tunnel;
pub mod upload;
pub mod upstream;
pub mod wire;

use std::rc::Rc;

use bytes::Bytes;
use data_encoding::BASE64;
use http::header::{CONNECTION, HeaderValue, SEC_WEBSOCKET_ACCEPT, UPGRADE};
use http::{HeaderMap, Response, StatusCode};
use sha1::{Digest as _, Sha1};
use tokio::net::TcpStream;

use crate::accept::body::Incoming;
use crate::decide::permit::{Ask, Permit};
use crate::message::chunk::Chunk;
use crate::message::field::Kind;
use crate::message::head::Head;

use body::Body;
use client::{Answered, Client, Target};
use fault::Fault;
use headers::{Outbound, X_REQUEST_ID};
use upload::{Progress, Upload, announced};

/// An upstream's answer.
#[derive(Debug)]
pub struct Answer {
    /// Its head, with a body that streams.
    pub response: Response<Body>,
    /// Set where it switched to WebSocket.
    pub switched: Option<Switched>,
}

/// The upstream's end of a WebSocket connection that is about to begin.
#[derive(Debug)]
pub struct Switched {
    /// Its socket.
    pub upstream: TcpStream,
    /// What it has said already.
    pub early: Bytes,
    /// What the worker reads into.
    pub chunk: Rc<Chunk>,
}

/// Sends an admitted request to the upstream of its surface.
pub async fn forward(
    client: &Rc<Client>,
    target: Target<'_>,
    permit: &Permit<'_>,
    head: &Head,
    body: Incoming,
    outbound: &Outbound<'_>,
    progress: &mut Option<Rc<Progress>>,
) -> Result<Answer, Fault> {
    let host = head.authority().unwrap_or(&target.upstream.host);
    let announced = announced(&body);
    let text = headers::write(head, host, announced, permit, outbound);
    let upload = Upload::new(text, body, announced, *target.timeouts);
    *progress = upload.progress().cloned();
    let Answered { head: answer, rest, lease } = client.send(target, &head.method, upload).await?;
    let status = answer.status;
    match permit.ask {
        Ask::Channel if status == StatusCode::SWITCHING_PROTOCOLS => {
            let accept = head.fields.first(Kind::WebSocketKey).map(accept_of);
            if accept.is_none() || answer.headers.get(SEC_WEBSOCKET_ACCEPT) != accept.as_ref() {
                return Err(Fault::Upgrade);
            }
            let Some((upstream, chunk)) = lease.into_socket() else { return Err(Fault::Upgrade) };
            let mut response = response(answer, outbound.id, Body::Empty);
            switch(response.headers_mut());
            Ok(Answer { response, switched: Some(Switched { upstream, early: rest, chunk }) })
        }
        Ask::Request | Ask::Preflight if status == StatusCode::SWITCHING_PROTOCOLS => Err(Fault::Upgrade),
        ask @ (Ask::Request | Ask::Preflight | Ask::Channel) => {
            let lease = if ask == Ask::Channel { lease.for_one_request() } else { lease };
            let (framing, answer) = (answer.framing, answer::Head { framing: None, ..answer });
            let body = Body::new(framing, rest, lease);
            Ok(Answer { response: response(answer, outbound.id, body), switched: None })
        }
    }
}

fn response(head: answer::Head, id: &HeaderValue, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = head.status;
    *response.headers_mut() = head.headers;
    response.headers_mut().insert(X_REQUEST_ID, id.clone());
    if let Some(reason) = head.reason {
        response.extensions_mut().insert(reason);
    }
    response
}

/// What a server answers to `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_of(key: &[u8]) -> HeaderValue {
    let mut hash = Sha1::new_with_prefix(key);
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::from_str(&BASE64.encode(&hash.finalize())).expect("base64 is visible ASCII")
}

/// The fields of an answer that switches to WebSocket.
pub fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

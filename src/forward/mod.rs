//! Permits become responses.

pub mod body;
pub mod client;
pub mod fault;
pub mod frames;
pub mod headers;
pub mod resolve;
pub mod socket;
pub mod tunnel;
pub mod upload;
pub mod wire;

use std::rc::Rc;

use data_encoding::BASE64;
use http::header::{
    CONNECTION, CONTENT_LENGTH, HOST, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY,
    TRANSFER_ENCODING, UPGRADE,
};
use http::request::Parts;
use http::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper::body::Incoming;
use hyper::upgrade::OnUpgrade;
use sha1::{Digest as _, Sha1};

use crate::config;
use crate::decide::permit::{Ask, Permit};

use body::Body;
use client::{Client, Lease, Target, Upstream};
use fault::Fault;
use headers::Outbound;
use upload::{Progress, Upload};

/// An upstream's answer.
#[derive(Debug)]
pub struct Answer {
    /// Its head, with a body that streams.
    pub response: Response<Body>,
    /// Set where it switched to WebSocket.
    pub switched: Option<Switched>,
}

/// Both ends of a WebSocket connection that is about to begin.
#[derive(Debug)]
pub struct Switched {
    /// Ready when the client has been sent the answer.
    pub client: OnUpgrade,
    /// Ready when the upstream has sent it.
    pub upstream: OnUpgrade,
    /// Keeps the upstream's connection until then.
    pub lease: Lease,
}

/// Sends an admitted request to the upstream of its surface.
pub async fn forward(
    client: &Rc<Client>,
    target: Target<'_>,
    permit: &Permit<'_>,
    head: &mut Parts,
    body: Incoming,
    outbound: &Outbound<'_>,
    progress: &mut Option<Rc<Progress>>,
) -> Result<Answer, Fault> {
    let Target { upstream, timeouts } = target;
    host(&mut head.headers, &head.uri, upstream);
    origin_form(&mut head.uri);
    headers::request(&mut head.headers, permit, outbound);
    let (upload, known) = Upload::new(body, *timeouts);
    *progress = known;
    // Of a GET or HEAD whose head announces no body, the library would send none.
    if progress.is_some()
        && matches!(head.method, Method::GET | Method::HEAD)
        && !head.headers.contains_key(CONTENT_LENGTH)
    {
        head.headers.insert(TRANSFER_ENCODING, HeaderValue::from_static("chunked"));
    }
    let switching = (permit.ask == Ask::Channel).then(|| {
        let accept = head.headers.get(SEC_WEBSOCKET_KEY).map(accept_of);
        (accept, head.extensions.remove::<OnUpgrade>())
    });
    let mut ours = Request::new(upload);
    *ours.method_mut() = head.method.clone();
    *ours.uri_mut() = std::mem::take(&mut head.uri);
    *ours.headers_mut() = std::mem::take(&mut head.headers);
    let informational = upstream.meters.informational.clone();
    hyper::ext::on_informational(&mut ours, move |_| informational.inc());

    let (response, lease) = client.send(target, ours, progress.as_ref()).await?;
    let (mut parts, incoming) = response.into_parts();
    // The version is of one connection; the client's own is another.
    parts.version = Version::HTTP_11;
    let Some((accept, client)) = switching else {
        if parts.status == StatusCode::SWITCHING_PROTOCOLS {
            return Err(Fault::Upgrade);
        }
        headers::response(&mut parts.headers, outbound.id);
        let body = Body::stream(incoming, lease, *timeouts);
        return Ok(Answer { response: Response::from_parts(parts, body), switched: None });
    };
    if parts.status != StatusCode::SWITCHING_PROTOCOLS {
        headers::response(&mut parts.headers, outbound.id);
        let body = Body::stream(incoming, lease.for_one_request(), *timeouts);
        return Ok(Answer { response: Response::from_parts(parts, body), switched: None });
    }
    let (Some(client), Some(on_upgrade)) = (client, parts.extensions.remove::<OnUpgrade>()) else {
        return Err(Fault::Upgrade);
    };
    if accept.is_none() || parts.headers.get(SEC_WEBSOCKET_ACCEPT) != accept.as_ref() {
        return Err(Fault::Upgrade);
    }
    headers::response(&mut parts.headers, outbound.id);
    switch(&mut parts.headers);
    let switched = Switched { client, upstream: on_upgrade, lease };
    Ok(Answer { response: Response::from_parts(parts, Body::Empty), switched: Some(switched) })
}

/// What a server answers to `Sec-WebSocket-Key` (RFC 6455, 4.2.2).
#[must_use]
pub fn accept_of(key: &HeaderValue) -> HeaderValue {
    let mut hash = Sha1::new_with_prefix(key.as_bytes().trim_ascii());
    hash.update(b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11");
    HeaderValue::from_str(&BASE64.encode(&hash.finalize())).expect("base64 is visible ASCII")
}

/// The fields of an answer that switches to WebSocket.
pub fn switch(headers: &mut HeaderMap) {
    headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
}

/// HTTP/2 names the host in the target, HTTP/1.0 may not name it at all.
fn host(headers: &mut HeaderMap, uri: &Uri, upstream: &Upstream) {
    if headers.contains_key(HOST) {
        return;
    }
    let named = uri.authority().map(|authority| authority.as_str().to_owned());
    let named = named.unwrap_or_else(|| match &upstream.config.address {
        config::upstream::Address::Socket(address) => address.to_string(),
        config::upstream::Address::Name { host, port } => format!("{host}:{port}"),
    });
    if let Ok(named) = HeaderValue::from_str(&named) {
        headers.insert(HOST, named);
    }
}

/// The target that a server is sent (RFC 9112, 3.2.1); the bytes of path and query stay as they came.
fn origin_form(uri: &mut Uri) {
    if uri.scheme().is_some() || uri.authority().is_some() {
        let path = uri.path_and_query().cloned();
        *uri = path.map_or_else(Uri::default, Uri::from);
    }
}

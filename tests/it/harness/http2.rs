//! A client with prior knowledge of HTTP/2.

use std::net::SocketAddr;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::client::conn::http2::{SendRequest, handshake};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;

use super::raw::Reply;
use super::soon;

/// A connection over which many requests can be under way.
pub(crate) async fn connect(address: SocketAddr) -> SendRequest<Full<Bytes>> {
    let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
    let (sender, connection) = handshake(TokioExecutor::new(), TokioIo::new(stream)).await.unwrap();
    tokio::spawn(connection);
    sender
}

/// One request over such a connection.
pub(crate) async fn ask(
    sender: &mut SendRequest<Full<Bytes>>,
    method: &str,
    path: &str,
    headers: &[(&str, &str)],
    body: &'static str,
) -> Reply {
    let mut request = Request::builder().method(method).uri(format!("http://api.example{path}"));
    for (name, value) in headers {
        request = request.header(*name, *value);
    }
    let request = request.body(Full::new(body.into())).unwrap();
    let response = soon("an answer", sender.send_request(request)).await.unwrap();
    read(response).await
}

async fn read(response: Response<Incoming>) -> Reply {
    let (head, body) = response.into_parts();
    let text = |map: &http::HeaderMap| {
        map.iter()
            .map(|(name, value)| (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned()))
            .collect()
    };
    let body = soon("a body", body.collect()).await.unwrap();
    let trailers = body.trailers().map(text).unwrap_or_default();
    Reply { status: head.status.as_u16(), headers: text(&head.headers), body: body.to_bytes().into(), trailers }
}

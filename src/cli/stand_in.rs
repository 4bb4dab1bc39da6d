//! A small service that answers as TelAPI does, for the demo: it checks nothing, so what is refused was refused by
//! scopegate.

use std::convert::Infallible;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_TYPE, HeaderValue, SEC_WEBSOCKET_ACCEPT, SEC_WEBSOCKET_KEY, UPGRADE};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::runtime::{Builder, LocalOptions};
use tokio::task::spawn_local;
use tokio::time::timeout;

use crate::forward;
use crate::forward::tunnel::Stop;
use crate::observe::reason::Reason;

/// How long a demo channel stays open: long enough to see it.
const OPEN: Duration = Duration::from_secs(1);

/// The two services, on a thread of their own until the process ends.
#[derive(Debug)]
pub(super) struct StandIn {
    pub(super) telapi: SocketAddr,
    pub(super) webhooks: SocketAddr,
}

impl StandIn {
    pub(super) fn start() -> anyhow::Result<Self> {
        let bind = || -> std::io::Result<TcpListener> {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?;
            listener.set_nonblocking(true)?;
            Ok(listener)
        };
        let (telapi, webhooks) = (bind()?, bind()?);
        let started = Self { telapi: telapi.local_addr()?, webhooks: webhooks.local_addr()? };
        std::thread::Builder::new().name("stand-in".into()).spawn(move || {
            if let Err(error) = run(telapi, webhooks) {
                tracing::error!(%error, "the stand-in for TelAPI has ended: start the demo anew");
            }
        })?;
        Ok(started)
    }
}

fn run(telapi: TcpListener, webhooks: TcpListener) -> std::io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build_local(LocalOptions::default())?;
    runtime.block_on(async { tokio::try_join!(serve(telapi), serve(webhooks)) })?;
    Ok(())
}

async fn serve(listener: TcpListener) -> std::io::Result<()> {
    let listener = tokio::net::TcpListener::from_std(listener)?;
    loop {
        let (stream, _) = listener.accept().await?;
        spawn_local(async move {
            let connection = http1::Builder::new().serve_connection(TokioIo::new(stream), service_fn(answer));
            // A demo's connection may end as it likes.
            let _ = connection.with_upgrades().await;
        });
    }
}

async fn answer(mut request: Request<Incoming>) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().strip_prefix("/api/v1").unwrap_or(request.uri().path()).to_owned();
    let segments: Vec<&str> = path.split('/').skip(1).collect();
    let (status, body) = match (request.method().clone(), segments.as_slice()) {
        (Method::GET, ["health"]) => (200, r#"{"status":"ok"}"#.to_owned()),
        (Method::POST, ["call-tokens"]) => {
            (201, r#"{"token":"t-1","endpointId":"ep-1","expiresAt":"2030-01-01T00:00:00Z"}"#.to_owned())
        }
        (Method::GET, ["call-tokens", id]) => (200, format!(r#"{{"token":"{id}","endpointId":"ep-1"}}"#)),
        (Method::GET, ["apps", ..]) => {
            (200, r#"{"apps":[{"id":"app-1","name":"Front desk","endpoints":["ep-1"]}]}"#.to_owned())
        }
        (Method::POST, ["sessions", "token"]) => {
            (200, r#"{"sessionId":"s-1","wsToken":"t-1","wsTokenExpiresIn":300,"expiresIn":3600}"#.to_owned())
        }
        (Method::GET, ["runtime", "capabilities"]) => {
            (200, r#"{"endpointId":"ep-1","interactionModes":{"text":true}}"#.to_owned())
        }
        (Method::POST, ["webhooks", ..]) => {
            let bytes = request.body_mut().collect().await.map_or(0, |body| body.to_bytes().len());
            (202, format!(r#"{{"accepted":{bytes}}}"#))
        }
        (Method::GET, ["ws", _]) if request.headers().contains_key(SEC_WEBSOCKET_KEY) => {
            return Ok(channel(request));
        }
        _ => (404, r#"{"error":{"code":"not_found","message":"no such thing","requestId":""}}"#.to_owned()),
    };
    let mut response = Response::new(Full::from(body));
    *response.status_mut() = StatusCode::from_u16(status).unwrap_or_default();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    Ok(response)
}

/// Says that it is connected, as TelAPI does, and closes a moment later.
fn channel(mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let accept = request
        .headers()
        .get(SEC_WEBSOCKET_KEY)
        .and_then(|key| HeaderValue::try_from(forward::accept_of(key.as_bytes())).ok());
    let client = hyper::upgrade::on(&mut request);
    spawn_local(async move {
        let Ok(client) = client.await else { return };
        let mut client = TokioIo::new(client);
        let message =
            r#"{"type":"status","sessionId":"s-1","direction":"to_browser","status":{"state":"connected"}}"#;
        let hello = Stop { reason: Reason::Passed, code: 1000, message: Some(message.to_owned()) };
        let mut scratch = [0; 512];
        let _ = timeout(OPEN, client.read(&mut scratch)).await;
        let _ = client.write_all(&hello.goodbye()).await;
        let _ = client.shutdown().await;
    });
    let mut response = Response::new(Full::default());
    *response.status_mut() = StatusCode::SWITCHING_PROTOCOLS;
    let headers = response.headers_mut();
    headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
    headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    headers.extend(accept.map(|accept| (SEC_WEBSOCKET_ACCEPT, accept)));
    response
}

//! The operator's door.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 as long as the process runs |
//! | `/readyz` | 200 once everything is there that a request needs, 503 before that and while draining |
//! | `/metrics` | Prometheus' text format |
//! | `/config` | the configuration in force, as JSON, to peers on this machine |
//! | `/keys/previous` | who still uses keys that others have replaced, as JSON, to peers on this machine |
//! | `/sessions` | how many sessions each key has minted, and how many of their channels are open, likewise |
//! | `POST /keys` | from peers on this machine: `key HEX`, `team NAME` or `all` has changed where keys live |

mod shown;
mod users;

use std::collections::VecDeque;
use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};
use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

use crate::accept::drain::Phase;
use crate::keys::news::News;
use crate::snapshot::Shared;
use shown::shown;
use users::{previous, sessions};

/// Bytes of news: more than a digest, and the name of any team.
const NEWS_MOST: usize = 1024;
/// After the system refused a connection, it gets this long to recover.
const PAUSE: Duration = Duration::from_millis(50);

/// Connections that are open: kubelets, scrapers and people have a few. The oldest makes room for a new one, so that nobody
/// can keep a probe out.
const OPEN_MOST: usize = 64;

/// Answers operators for as long as the process lives, through the drain too.
pub async fn run(listener: TcpListener, shared: Shared) {
    let mut open = VecDeque::new();
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let shared = shared.clone();
        open.retain(|task: &JoinHandle<()>| !task.is_finished());
        if open.len() == OPEN_MOST
            && let Some(oldest) = open.pop_front()
        {
            oldest.abort();
        }
        // For a head, and for the pause before it.
        let wait = shared.current.load().live().timeouts.head;
        open.push_back(tokio::task::spawn_local(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, peer, request).await) }
            });
            // How a connection of an operator ends is no news.
            let mut builder = http1::Builder::new();
            builder.timer(TokioTimer::new()).header_read_timeout(wait);
            let _ = builder.serve_connection(TokioIo::new(stream), service).await;
        }));
    }
}

async fn answer(shared: &Shared, peer: SocketAddr, request: Request<Incoming>) -> Response<Full<Bytes>> {
    let is_near = peer.ip().to_canonical().is_loopback();
    if request.uri().path() == "/keys" && *request.method() == Method::POST {
        return if is_near && is_no_page(&request) {
            changed(shared, request.into_body()).await
        } else {
            too_far()
        };
    }
    if !matches!(*request.method(), Method::GET | Method::HEAD) {
        let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET and HEAD");
        response.headers_mut().insert(ALLOW, HeaderValue::from_static("GET, HEAD"));
        return response;
    }
    match request.uri().path() {
        "/livez" => text(StatusCode::OK, "live"),
        "/readyz" => match (shared.drain.phase(), shared.current.is_ready()) {
            (Phase::Serving, true) => text(StatusCode::OK, "ready"),
            (Phase::Serving, false) => {
                let what = shared.current.waits_for().unwrap_or("ask again");
                text(StatusCode::SERVICE_UNAVAILABLE, &format!("not ready: {what}"))
            }
            (Phase::Unready | Phase::Closing { .. }, _) => text(StatusCode::SERVICE_UNAVAILABLE, "draining"),
        },
        "/metrics" => {
            let known = i64::try_from(shared.sessions.count()).unwrap_or(i64::MAX);
            shared.metrics.sessions_known.set(known);
            typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", shared.metrics.text())
        }
        "/config" | "/keys/previous" | "/sessions" if !is_near || !is_no_page(&request) => too_far(),
        "/config" => {
            let snapshot = shared.current.load();
            page(&json!({ "generation": snapshot.generation, "config": shown(&snapshot.config) }))
        }
        "/keys/previous" => page(&previous(&shared.metrics.stragglers)),
        "/sessions" => page(&sessions(&shared.sessions)),
        _ => text(
            StatusCode::NOT_FOUND,
            "/livez /readyz /metrics /config /keys/previous /sessions, and POST /keys",
        ),
    }
}

/// Whether no page of a browser asks, which may be anybody's: one says where it comes from, or is asked by a name that
/// its owner has pointed here.
fn is_no_page(request: &Request<Incoming>) -> bool {
    let is_page = ["origin", "sec-fetch-site"].iter().any(|name| request.headers().contains_key(*name));
    let host = request.headers().get(HOST).and_then(|host| host.to_str().ok()).unwrap_or_default();
    let name = host.rsplit_once(':').map_or(host, |(name, _)| name).trim_matches(['[', ']']);
    !is_page && (name == "localhost" || name.parse::<IpAddr>().is_ok())
}

fn too_far() -> Response<Full<Bytes>> {
    text(StatusCode::FORBIDDEN, "only from this machine: ask inside the pod, or through a port-forward")
}

/// Somebody knows of a change of keys: what is kept of it is forgotten, and what lives on it is looked at.
async fn changed(shared: &Shared, body: Incoming) -> Response<Full<Bytes>> {
    let read = Limited::new(body, NEWS_MOST).collect().await;
    let news = read.map_or(News::Garbage, |body| News::read(&String::from_utf8_lossy(&body.to_bytes())));
    if news == News::Garbage {
        return text(StatusCode::BAD_REQUEST, "write `key HEX`, `team NAME` or `all`");
    }
    let snapshot = shared.current.load();
    if snapshot.keys.remotes().next().is_none() {
        return text(StatusCode::CONFLICT, "keys are in files alone, which are watched");
    }
    let mut heard = true;
    for remote in snapshot.keys.remotes() {
        if !remote.tell(news.clone()).await {
            heard = false;
            tracing::warn!(
                kind = news.kind(),
                source = remote.name(),
                "told of a change of keys, which was not heard in time"
            );
        }
    }
    if !heard {
        return text(StatusCode::SERVICE_UNAVAILABLE, "not heard in time: say it again");
    }
    tracing::info!(kind = news.kind(), "told of a change of keys");
    text(StatusCode::OK, "told")
}

fn page(value: &Value) -> Response<Full<Bytes>> {
    typed(StatusCode::OK, "application/json", format!("{value:#}\n").into())
}

fn text(status: StatusCode, text: &str) -> Response<Full<Bytes>> {
    typed(status, "text/plain; charset=utf-8", format!("{text}\n").into())
}

fn typed(status: StatusCode, kind: &'static str, body: Vec<u8>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(kind));
    response
}

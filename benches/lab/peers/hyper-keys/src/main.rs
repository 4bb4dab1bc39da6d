//! The least that hyper does with a key check: hyper-util's server and pooled client, a `HashMap` of keys, five rules,
//! and nothing else. What scopegate costs beyond this is the price of what it does beyond this.
//!
//! A worker is one current-thread runtime with a listener (SO_REUSEPORT) and a pool of its own: the cheapest shape that
//! this stack has.

use std::collections::HashMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::Arc;

use http_body_util::{combinators::BoxBody, BodyExt, Empty};
use hyper::body::{Bytes, Incoming};
use hyper::header::{HeaderName, HeaderValue, AUTHORIZATION, CONNECTION, HOST};
use hyper::http::uri::{Authority, Parts, Scheme};
use hyper::service::service_fn;
use hyper::{HeaderMap, Method, Request, Response, StatusCode, Uri, Version};
use hyper_util::client::legacy::{connect::HttpConnector, Client};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use hyper_util::server::conn::auto;
use tokio::net::TcpListener;

type Body = BoxBody<Bytes, hyper::Error>;

const CREATE_CALL_TOKEN: u32 = 1;
const READ_CALL_TOKEN: u32 = 2;
const READ_TEAM_APPS: u32 = 4;
/// Asked for by what no rule names: no key has it.
const NOBODY: u32 = 1 << 31;

const HOP: [HeaderName; 6] = [
    CONNECTION,
    HeaderName::from_static("keep-alive"),
    HeaderName::from_static("proxy-connection"),
    HeaderName::from_static("te"),
    HeaderName::from_static("transfer-encoding"),
    HeaderName::from_static("upgrade"),
];

struct Shared {
    keys: HashMap<Vec<u8>, u32>,
    upstream: Authority,
    webhooks: Authority,
}

impl Shared {
    fn refuse(&self, request: &Request<Incoming>) -> Option<StatusCode> {
        let path = request.uri().path();
        if path.starts_with("/api/v1/webhooks/") {
            return None;
        }
        let key =
            request.headers().get(AUTHORIZATION).and_then(|field| field.as_bytes().strip_prefix(b"Bearer "));
        let Some(held) = key.and_then(|key| self.keys.get(key)) else {
            return Some(StatusCode::UNAUTHORIZED);
        };
        let needed = match (request.method(), path) {
            (&Method::POST, "/api/v1/call-tokens" | "/api/v1/sessions/token") => CREATE_CALL_TOKEN,
            (&Method::GET, "/api/v1/apps") => READ_TEAM_APPS,
            (&Method::GET, path) if path.starts_with("/api/v1/call-tokens/") => READ_CALL_TOKEN,
            _ => NOBODY,
        };
        (held & needed == 0).then_some(StatusCode::FORBIDDEN)
    }
}

fn empty(status: StatusCode) -> Response<Body> {
    let mut response = Response::new(Empty::new().map_err(|never: Infallible| match never {}).boxed());
    *response.status_mut() = status;
    response
}

fn drop_hop(headers: &mut HeaderMap) {
    for name in &HOP {
        headers.remove(name);
    }
}

async fn forward(
    shared: Arc<Shared>,
    client: Client<HttpConnector, Incoming>,
    mut request: Request<Incoming>,
) -> Result<Response<Body>, Infallible> {
    if let Some(status) = shared.refuse(&request) {
        return Ok(empty(status));
    }
    let webhook = request.uri().path().starts_with("/api/v1/webhooks/");
    let to = if webhook { &shared.webhooks } else { &shared.upstream };
    if !request.headers().contains_key(HOST) {
        // An HTTP/2 request names its host in :authority.
        if let Some(Ok(host)) = request.uri().authority().map(|host| HeaderValue::from_str(host.as_str())) {
            request.headers_mut().insert(HOST, host);
        }
    }
    let mut parts = Parts::default();
    parts.scheme = Some(Scheme::HTTP);
    parts.authority = Some(to.clone());
    parts.path_and_query = request.uri().path_and_query().cloned();
    *request.uri_mut() = match Uri::from_parts(parts) {
        Ok(uri) => uri,
        Err(_) => return Ok(empty(StatusCode::BAD_REQUEST)),
    };
    *request.version_mut() = Version::HTTP_11;
    drop_hop(request.headers_mut());
    match client.request(request).await {
        Ok(response) => {
            let (mut head, body) = response.into_parts();
            drop_hop(&mut head.headers);
            Ok(Response::from_parts(head, body.boxed()))
        }
        Err(_) => Ok(empty(StatusCode::BAD_GATEWAY)),
    }
}

fn listen(address: SocketAddr) -> std::io::Result<std::net::TcpListener> {
    let socket = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None)?;
    socket.set_reuse_address(true)?;
    socket.set_reuse_port(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&address.into())?;
    socket.listen(4096)?;
    Ok(socket.into())
}

async fn serve(shared: Arc<Shared>, address: SocketAddr) {
    let mut connector = HttpConnector::new();
    connector.set_nodelay(true);
    let client: Client<HttpConnector, Incoming> = Client::builder(TokioExecutor::new())
        .pool_max_idle_per_host(256)
        .pool_timer(TokioTimer::new())
        .build(connector);
    let server = auto::Builder::new(TokioExecutor::new());
    let listener = listen(address).and_then(TcpListener::from_std).expect("an address to listen on");
    loop {
        let Ok((stream, _)) = listener.accept().await else { continue };
        let _ = stream.set_nodelay(true);
        let (shared, client, server) = (shared.clone(), client.clone(), server.clone());
        tokio::spawn(async move {
            let service = service_fn(move |request| forward(shared.clone(), client.clone(), request));
            let _ = server.serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// A line is a client, its key and its scopes, with tabs between and commas between scopes.
fn keys(path: &str) -> HashMap<Vec<u8>, u32> {
    let bit = |scope: &str| match scope {
        "CREATE_CALL_TOKEN" => CREATE_CALL_TOKEN,
        "READ_CALL_TOKEN" => READ_CALL_TOKEN,
        "READ_TEAM_APPS" => READ_TEAM_APPS,
        _ => 0,
    };
    let row = |line: &str| {
        let mut columns = line.split('\t').skip(1);
        let (key, scopes) = (columns.next()?, columns.next()?);
        Some((key.as_bytes().to_vec(), scopes.split(',').map(bit).fold(0, |all, one| all | one)))
    };
    let text = std::fs::read_to_string(path).expect("the table of keys");
    text.lines().filter_map(row).collect()
}

/// peer-hyper-keys THREADS LISTEN UPSTREAM WEBHOOKS KEYS_TSV
fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let [threads, address, upstream, webhooks, table] = arguments.as_slice() else {
        panic!("peer-hyper-keys THREADS LISTEN UPSTREAM WEBHOOKS KEYS_TSV");
    };
    let address: SocketAddr = address.parse().expect("an address to listen on");
    let shared = Arc::new(Shared {
        keys: keys(table),
        upstream: upstream.parse().expect("an upstream"),
        webhooks: webhooks.parse().expect("an upstream for webhooks"),
    });
    let workers: Vec<_> = (0..threads.parse().expect("a number of threads"))
        .map(|_: usize| {
            let shared = shared.clone();
            std::thread::spawn(move || {
                let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
                runtime.expect("a runtime").block_on(serve(shared, address));
            })
        })
        .collect();
    for worker in workers {
        let _ = worker.join();
    }
}

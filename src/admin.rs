//! The operator's door.
//!
//! | path | answer |
//! | --- | --- |
//! | `/livez` | 200 as long as the process runs |
//! | `/readyz` | 200 once everything is there that a request needs, 503 before that and while draining |
//! | `/metrics` | Prometheus' text format |
//! | `/config` | the configuration in force, as JSON, to peers on this machine |
//! | `POST /keys` | from peers on this machine: `key HEX`, `team NAME` or `all` has changed where keys live |

use std::convert::Infallible;
use std::net::{IpAddr, SocketAddr};

use bytes::Bytes;
use http::header::{ALLOW, CONTENT_TYPE, HOST, HeaderValue};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::net::TcpListener;

use crate::accept::drain::Phase;
use crate::config::cors::Origins;
use crate::config::endpoint::{Http, Sent};
use crate::config::key_digest::KeyDigest;
use crate::config::listen::Events;
use crate::config::route::{Access, ErrorForm, Proof, Requirement, Route};
use crate::config::sources::{Cache, Columns, DigestForm, Fail, Postgres, Redis, Server, Source, Tls};
use crate::config::surface::{ChannelRefusal, OnFlagOff, OnRevoke, Surface};
use crate::config::upstream::Address;
use crate::config::values::size;
use crate::config::{Config, Credential, Live};
use crate::keys::news::News;
use crate::snapshot::Shared;

/// Bytes of news: more than a digest, and the name of any team.
const NEWS_MOST: usize = 1024;
/// After the system refused a connection, it gets this long to recover.
const PAUSE: std::time::Duration = std::time::Duration::from_millis(50);

/// Answers operators for as long as the process lives, through the drain too.
pub async fn run(listener: TcpListener, shared: Shared) {
    loop {
        let Ok((stream, peer)) = listener.accept().await else {
            tokio::time::sleep(PAUSE).await;
            continue;
        };
        let shared = shared.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request: Request<Incoming>| {
                let shared = shared.clone();
                async move { Ok::<_, Infallible>(answer(&shared, peer, request).await) }
            });
            // How a connection of an operator ends is no news.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
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
            typed(StatusCode::OK, "text/plain; version=0.0.4; charset=utf-8", shared.metrics.text())
        }
        "/config" if is_near && is_no_page(&request) => {
            let snapshot = shared.current.load();
            let config = json!({ "generation": snapshot.generation, "config": shown(&snapshot.config) });
            typed(StatusCode::OK, "application/json", format!("{config:#}\n").into())
        }
        "/config" => too_far(),
        _ => text(StatusCode::NOT_FOUND, "/livez /readyz /metrics /config, and POST /keys"),
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
    for remote in snapshot.keys.remotes() {
        remote.tell(news.clone()).await;
    }
    tracing::info!(kind = news.kind(), "told of a change of keys");
    text(StatusCode::OK, "told")
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

/// The configuration with every default filled in. Nothing in it is secret: keys are a path.
fn shown(config: &Config) -> Value {
    let Config { fixed, live } = config;
    let Live { timeouts, limits, drain, .. } = live;
    let named = |upstream: &crate::config::upstream::Upstream| {
        let address = match &upstream.address {
            Address::Socket(address) => address.to_string(),
            Address::Name { host, port } => format!("{host}:{port}"),
        };
        (upstream.name.to_string(), json!({ "address": address }))
    };
    json!({
        "listen": fixed.listen.iter().map(|listen| json!({ "address": listen.address })).collect::<Value>(),
        "admin": { "address": fixed.admin.address },
        "workers": fixed.workers.unwrap_or_else(num_cpus::get),
        "log": {
            "access": fixed.log.access,
            "events": match fixed.log.events { Events::Json => "json", Events::Text => "text" },
        },
        "key_digest": key_digest(&fixed.key_digest),
        "trusted_proxies": live.trusted_proxies.iter().map(ToString::to_string).collect::<Value>(),
        "upstreams": live.upstreams.iter().map(named).collect::<serde_json::Map<_, _>>(),
        "flags": live.flags.iter().map(|flag| (flag.name.to_string(), json!(flag.on))).collect::<serde_json::Map<_, _>>(),
        "scopes": live.scopes.all().collect::<Value>(),
        "keys": live.keys.iter().map(source).collect::<Value>(),
        "credential": match live.credential { Credential::Forward => "forward", Credential::Strip => "strip" },
        "identity_headers": live.identity_headers,
        "unmatched": live.unmatched,
        "cors": live.cors.as_ref().map(|cors| json!({
            "origins": match &cors.origins { Origins::Any => json!("*"), Origins::These(these) => json!(these) },
            "headers": cors.headers,
            "max_age": humantime::format_duration(cors.max_age).to_string(),
            "credentials": cors.credentials,
        })),
        "timeouts": {
            "head": humantime::format_duration(timeouts.head).to_string(),
            "keep_alive": humantime::format_duration(timeouts.keep_alive).to_string(),
            "connect": humantime::format_duration(timeouts.connect).to_string(),
            "first_byte": humantime::format_duration(timeouts.first_byte).to_string(),
            "idle": humantime::format_duration(timeouts.idle).to_string(),
            "tunnel": humantime::format_duration(timeouts.tunnel).to_string(),
            "pool": humantime::format_duration(timeouts.pool).to_string(),
        },
        "limits": {
            "head": size(limits.head as u64),
            "fields": limits.fields,
            "target": size(limits.target as u64),
            "body": size(limits.body),
            "connections": limits.connections,
            "connections_per_client": limits.connections_per_client,
            "in_flight": limits.in_flight,
            "streams": limits.streams,
            "resets": limits.resets,
        },
        "drain": {
            "delay": humantime::format_duration(drain.delay).to_string(),
            "grace": humantime::format_duration(drain.grace).to_string(),
        },
        "surfaces": live.surfaces.iter().map(|each| (each.name.to_string(), surface(live, each))).collect::<serde_json::Map<_, _>>(),
    })
}

fn key_digest(KeyDigest { pepper_file, .. }: &KeyDigest) -> Value {
    match pepper_file {
        Some(file) => json!({ "hmac_sha256": file }),
        None => json!("sha256"),
    }
}

fn source(source: &Source) -> Value {
    let remote = match source {
        Source::File(file) => return json!({ "file": file }),
        Source::Folder(folder) => return json!({ "folder": folder }),
        Source::Remote(remote) => remote,
    };
    let (kind, server) = match &remote.server {
        Server::Redis(Redis { url, password_file, prefix, channel }) => (
            "redis",
            json!({ "url": url, "password_file": password_file, "prefix": prefix, "channel": channel }),
        ),
        Server::Postgres(server) => ("postgres", postgres(server)),
        Server::Http(http) => ("http", endpoint(http)),
    };
    let Cache { fresh, stale, unknown, size: bytes, rate, at_once, timeout, fail } = remote.cache;
    let time = |time| humantime::format_duration(time).to_string();
    json!({
        kind: server,
        "last_good": remote.last_good.as_ref().map(|last| json!({ "file": last.file, "max_age": humantime::format_duration(last.max_age).to_string() })),
        "cache": {
            "fresh": time(fresh),
            "stale": time(stale),
            "unknown": time(unknown),
            "size": size(bytes),
            "rate": rate,
            "at_once": at_once,
            "timeout": time(timeout),
            "fail": match fail { Fail::Closed => json!("closed"), Fail::StaleFor(for_) => json!({ "stale_for": time(for_) }) },
        },
    })
}

fn postgres(server: &Postgres) -> Value {
    let Postgres { url, password_file, tls, query, digest, columns, channel, pool } = server;
    let Columns { id, team, scopes, team_scopes, disabled, team_disabled, expires, sunset, since } = columns;
    let may = |written: &Option<Box<str>>, name: &str| written.as_deref().unwrap_or(name).to_owned();
    json!({
        "url": url,
        "password_file": password_file,
        "tls": tls.as_ref().map(|tls| match tls {
            Tls::System => json!("system"),
            Tls::Authority(file) => json!({ "ca_file": file }),
        }),
        "query": query,
        "digest": match digest {
            DigestForm::Bytea => "bytea",
            DigestForm::Hex => "hex",
            DigestForm::Base64 => "base64",
        },
        "columns": {
            "id": id,
            "team": team,
            "scopes": scopes,
            "team_scopes": may(team_scopes, "team_scopes"),
            "disabled": may(disabled, "disabled"),
            "team_disabled": may(team_disabled, "team_disabled"),
            "expires": may(expires, "expires"),
            "sunset": may(sunset, "sunset"),
            "since": may(since, "since"),
        },
        "channel": channel,
        "pool": pool,
    })
}

fn endpoint(http: &Http) -> Value {
    let Http { url, send, field, bearer_file, ca_file, retries, failures, answer } = http;
    json!({
        "url": url.text,
        "send": match send { Sent::Digest => "digest", Sent::Key => "key" },
        "field": field,
        "bearer_file": bearer_file,
        "ca_file": ca_file,
        "retries": retries,
        "failures": failures,
        "answer": {
            "active": answer.active,
            "id": answer.id,
            "team": answer.team,
            "scopes": answer.scopes,
            "expires": answer.expires,
            "team_scopes": answer.team_scopes,
            "disabled": answer.disabled,
            "team_disabled": answer.team_disabled,
        },
    })
}

fn surface(live: &Live, surface: &Surface) -> Value {
    let flag = |place: &usize| live.flags.get(*place).map(|flag| flag.name.to_string());
    json!({
        "access": match (surface.access, surface.proof) {
            (Access::Open, _) => "open",
            (Access::Key, Proof::Key) => "key",
            (Access::Key, Proof::Certificate) => "certificate",
            (Access::Key, Proof::Both) => "key_and_certificate",
        },
        "upstream": live.upstreams.get(surface.upstream).map(|upstream| upstream.name.clone()),
        "flags": surface.flags.iter().filter_map(flag).collect::<Value>(),
        "private": surface.private,
        "encoded_slash": surface.encoded_slash,
        "channel": surface.channel.as_ref().map(|channel| json!({
            "refusal": match &channel.refusal {
                ChannelRefusal::Close { code, message } => json!({ "as": "close", "code": code, "message": message }),
                ChannelRefusal::Http => json!({ "as": "http" }),
            },
            "revoke_code": channel.revoke_code,
            "session": channel.session,
            "on_revoke": match channel.on_revoke { OnRevoke::Keep => "keep", OnRevoke::Close => "close" },
            "on_flag_off": match channel.on_flag_off { OnFlagOff::Close => "close", OnFlagOff::Keep => "keep" },
        })),
        "routes": surface.routes.iter().map(|each| route(live, each)).collect::<Value>(),
    })
}

fn route(live: &Live, route: &Route) -> Value {
    let names = |set| live.scopes.names(set).collect::<Value>();
    json!({
        "method": route.method,
        "path": route.pattern.template,
        "query": route.query,
        "mints": route.mints,
        "errors": match route.errors { ErrorForm::Object => "object", ErrorForm::Text => "text" },
        "requires": match route.requirement {
            Requirement::Nothing => json!("nothing"),
            Requirement::Key => json!("a key"),
            Requirement::Any(set) => json!({ "any": names(set) }),
            Requirement::All(set) => json!({ "all": names(set) }),
        },
    })
}

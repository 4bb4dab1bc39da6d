//! The configuration in force, as `/config` shows it.

use std::time::Duration;

use serde_json::{Value, json};

use crate::config::cors::Origins;
use crate::config::endpoint::{Http, Sent};
use crate::config::key_digest::KeyDigest;
use crate::config::listen::{Events, HttpsOnly, Listen, ProxyProtocol};
use crate::config::route::{Access, ErrorForm, Proof, Requirement, Route};
use crate::config::sources::{
    Cache, Columns, DigestForm, Fail, Kubernetes, Postgres, Redis, Server, Source, Tls as Roots,
};
use crate::config::surface::{ChannelRefusal, OnFlagOff, OnRevoke, Surface};
use crate::config::tls::{Clients, CrlDepth, CrlExpired, MinVersion, Pair, Tls, UnknownName};
use crate::config::trust::Trust;
use crate::config::upstream::{Address, Upstream};
use crate::config::values::size;
use crate::config::{Config, Credential, Live};

/// The configuration with every default filled in. Nothing in it is secret: keys are a path.
pub(super) fn shown(config: &Config) -> Value {
    let Config { fixed, live } = config;
    let Live { timeouts, limits, drain, .. } = live;
    json!({
        "listen": fixed.listen.iter().map(listen).collect::<Value>(),
        "admin": { "address": fixed.admin.address },
        "workers": fixed.workers.unwrap_or_else(num_cpus::get),
        "log": {
            "access": fixed.log.access,
            "events": match fixed.log.events { Events::Json => "json", Events::Text => "text" },
        },
        "key_digest": key_digest(&fixed.key_digest),
        "key_prefix": live.key_prefix,
        "trusted_proxies": live.trusted_proxies.iter().map(ToString::to_string).collect::<Value>(),
        "upstreams": live.upstreams.iter().map(upstream).collect::<serde_json::Map<_, _>>(),
        "flags": live.flags.iter().map(|flag| (flag.name.to_string(), json!(flag.on))).collect::<serde_json::Map<_, _>>(),
        "scopes": live.scopes.all().collect::<Value>(),
        "keys": live.keys.iter().map(source).collect::<Value>(),
        "credential": match live.credential { Credential::Forward => "forward", Credential::Strip => "strip" },
        "identity_headers": live.identity_headers,
        "unmatched": live.unmatched,
        "cors": live.cors.as_ref().map(|cors| json!({
            "origins": match &cors.origins { Origins::Any => json!("*"), Origins::These(these) => json!(these) },
            "headers": cors.headers,
            "max_age": time(cors.max_age),
            "credentials": cors.credentials,
        })),
        "timeouts": {
            "head": time(timeouts.head),
            "keep_alive": time(timeouts.keep_alive),
            "connect": time(timeouts.connect),
            "first_byte": time(timeouts.first_byte),
            "idle": time(timeouts.idle),
            "total": timeouts.total.map_or_else(|| "off".to_owned(), time),
            "tunnel": time(timeouts.tunnel),
            "pool": time(timeouts.pool),
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
            "control_frames": limits.control_frames,
        },
        "drain": {
            "delay": time(drain.delay),
            "grace": time(drain.grace),
        },
        "surfaces": live.surfaces.iter().map(|each| (each.name.to_string(), surface(live, each))).collect::<serde_json::Map<_, _>>(),
    })
}

fn upstream(Upstream { name, address, tls, protocol }: &Upstream) -> (String, Value) {
    let address = match address {
        Address::Socket(address) => address.to_string(),
        Address::Name { host, port } => format!("{host}:{port}"),
    };
    let shown = json!({ "address": address, "tls": tls.as_ref().map(trusted), "protocol": protocol.name() });
    (name.to_string(), shown)
}

fn time(time: Duration) -> String {
    humantime::format_duration(time).to_string()
}

fn listen(Listen { address, proxy_protocol, https_only, tls }: &Listen) -> Value {
    json!({
        "address": address,
        "proxy_protocol": match proxy_protocol {
            ProxyProtocol::Refused => "refused",
            ProxyProtocol::Required => "required",
        },
        "https_only": match https_only {
            HttpsOnly::Off => "off",
            HttpsOnly::Refuse => "refuse",
            HttpsOnly::Redirect => "redirect",
        },
        "tls": tls.as_ref().map(terminated),
    })
}

fn trusted(Trust { ca_file, server_name, identity }: &Trust) -> Value {
    json!({
        "ca_file": ca_file,
        "server_name": server_name.to_str(),
        "certificate": identity.as_ref().map(|pair| &pair.certificate),
        "key": identity.as_ref().map(|pair| &pair.key),
    })
}

fn terminated(Tls { certificates, min_version, unknown_name, handshake, clients }: &Tls) -> Value {
    let pair = |Pair { certificate, key }: &Pair| json!({ "certificate": certificate, "key": key });
    json!({
        "certificates": certificates.iter().map(pair).collect::<Value>(),
        "min_version": match min_version { MinVersion::Tls12 => "1.2", MinVersion::Tls13 => "1.3" },
        "unknown_name": match unknown_name { UnknownName::First => "first", UnknownName::Refuse => "refuse" },
        "handshake": time(*handshake),
        "client_certificates": clients.as_ref().map(|Clients { ca, required, crl, crl_expired, crl_depth }| {
            json!({
                "ca": ca,
                "required": required,
                "crl": crl,
                "crl_expired": match crl_expired { CrlExpired::Refuse => "refuse", CrlExpired::Accept => "accept" },
                "crl_depth": match crl_depth { CrlDepth::Chain => "chain", CrlDepth::Leaf => "leaf" },
            })
        }),
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
        Server::Kubernetes(secrets) => return json!({ "kubernetes": kubernetes(secrets) }),
    };
    let Cache { fresh, stale, unknown, size: bytes, rate, at_once, timeout, fail } = remote.cache;
    json!({
        kind: server,
        "last_good": remote.last_good.as_ref().map(|last| json!({ "file": last.file, "max_age": time(last.max_age) })),
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
            Roots::System => json!("system"),
            Roots::Authority(file) => json!({ "ca_file": file }),
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
            "sunset": answer.sunset,
            "since": answer.since,
        },
    })
}

fn kubernetes(Kubernetes { namespace, labels, kubeconfig, stale_for }: &Kubernetes) -> Value {
    let stale_for = humantime::format_duration(*stale_for).to_string();
    json!({ "namespace": namespace, "labels": labels, "kubeconfig": kubeconfig, "stale_for": stale_for })
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
        "body": surface.body.unwrap_or(live.limits.body),
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
        "timeouts": {
            "connect": time(route.timeouts.connect),
            "first_byte": time(route.timeouts.first_byte),
            "idle": time(route.timeouts.idle),
            "total": route.timeouts.total.map_or_else(|| "off".to_owned(), time),
        },
        "errors": match route.errors { ErrorForm::Object => "object", ErrorForm::Text => "text" },
        "requires": match route.requirement {
            Requirement::Nothing => json!("nothing"),
            Requirement::Key => json!("a key"),
            Requirement::Any(set) => json!({ "any": names(set) }),
            Requirement::All(set) => json!({ "all": names(set) }),
        },
    })
}

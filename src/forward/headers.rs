//! The header fields of a request on its way to the upstream, and of an answer on its way back.
//!
//! First everything is removed that belongs to one connection or that only we may say; what we say ourselves is
//! added after that, so that nothing a client lists in `Connection` can take it away again.

use http::HeaderMap;
use http::header::{
    CONNECTION, CONTENT_LENGTH, EXPECT, Entry, FORWARDED, HOST, HeaderName, HeaderValue, PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};

use crate::decide::credential::X_API_KEY;
use crate::decide::permit::{Ask, Permit};
use crate::identity::scope::Scopes;

/// Names a request in the logs of everybody whom it passes.
pub const X_REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");
/// What scopegate made itself says so, with the reason.
pub const SCOPEGATE_REASON: HeaderName = HeaderName::from_static("scopegate-reason");
const X_FORWARDED_FOR: HeaderName = HeaderName::from_static("x-forwarded-for");
const X_FORWARDED_HOST: HeaderName = HeaderName::from_static("x-forwarded-host");
/// Tells an upstream that takes HTTPS only how the client came.
pub const X_FORWARDED_PROTO: HeaderName = HeaderName::from_static("x-forwarded-proto");
const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");
const PROXY_CONNECTION: HeaderName = HeaderName::from_static("proxy-connection");
const X_SCOPEGATE_TEAM: HeaderName = HeaderName::from_static("x-scopegate-team");
const X_SCOPEGATE_KEY_ID: HeaderName = HeaderName::from_static("x-scopegate-key-id");
const X_SCOPEGATE_SCOPES: HeaderName = HeaderName::from_static("x-scopegate-scopes");

const HOPS: usize = 9;
/// What belongs to one connection (RFC 9110, 7.6.1), and what has been answered on it.
static HOP: [HeaderName; HOPS] = [
    CONNECTION,
    KEEP_ALIVE,
    PROXY_CONNECTION,
    PROXY_AUTHENTICATE,
    PROXY_AUTHORIZATION,
    TE,
    TRANSFER_ENCODING,
    UPGRADE,
    EXPECT,
];

/// What a request is sent with.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The peer of the client's socket, as a header value.
    pub peer: &'a HeaderValue,
    /// The peer may say where a request really came from.
    pub trusted: bool,
    /// Of the client's connection: `http` or `https`.
    pub scheme: HeaderValue,
    /// Names the request.
    pub id: &'a HeaderValue,
    /// The upstream does not see credentials.
    pub strip_credential: bool,
    /// Tell the upstream who called, with the platform's names of scopes.
    pub identity: Option<&'a Scopes>,
}

/// Makes the fields of a client's request those of ours.
pub fn request(headers: &mut HeaderMap, permit: &Permit<'_>, with: &Outbound<'_>) {
    let trailers_wanted = wants_trailers(headers);
    remove_hop_by_hop(headers);
    remove_forgeries(headers, with.trusted);
    if !permit.surface.private {
        remove_overrides(headers);
    }
    forwarded(headers, with);
    // A webhook's own request id is part of "as it came".
    if !(permit.surface.private && headers.contains_key(&X_REQUEST_ID)) {
        headers.insert(X_REQUEST_ID, with.id.clone());
    }
    if permit.ask == Ask::Preflight || (with.strip_credential && permit.caller.is_some()) {
        headers.remove(http::header::AUTHORIZATION);
        headers.remove(X_API_KEY);
    }
    if permit.ask == Ask::Preflight {
        headers.remove(http::header::COOKIE);
    }
    if let (Some(scopes), Some(caller)) = (with.identity, &permit.caller) {
        let scopes: Vec<_> = scopes.names(caller.scopes()).collect();
        for (name, value) in [
            (X_SCOPEGATE_TEAM, &*caller.team),
            (X_SCOPEGATE_KEY_ID, &*caller.key_id),
            (X_SCOPEGATE_SCOPES, &*scopes.join(" ")),
        ] {
            // A team that cannot be a header value is not told rather than told wrongly.
            if let Ok(value) = HeaderValue::from_str(value) {
                headers.insert(name, value);
            }
        }
    }
    if permit.ask == Ask::Channel {
        headers.insert(CONNECTION, HeaderValue::from_static("Upgrade"));
        headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
    } else if trailers_wanted {
        headers.insert(TE, HeaderValue::from_static("trailers"));
        headers.insert(CONNECTION, HeaderValue::from_static("te"));
    }
    for (_, value) in
        headers.iter_mut().filter(|(name, _)| **name == http::header::AUTHORIZATION || **name == X_API_KEY)
    {
        value.set_sensitive(true);
    }
}

/// Makes the fields of an upstream's answer those of ours.
pub fn response(headers: &mut HeaderMap, id: &HeaderValue) {
    remove_hop_by_hop(headers);
    headers.remove(SCOPEGATE_REASON);
    headers.insert(X_REQUEST_ID, id.clone());
}

/// Removes from a client's trailers what could not be in its head either, and what frames or routes a message.
pub fn trailers(trailers: &mut HeaderMap) {
    remove_hop_by_hop(trailers);
    remove_forgeries(trailers, false);
    remove_overrides(trailers);
    for name in [HOST, CONTENT_LENGTH, TRAILER, http::header::AUTHORIZATION, X_API_KEY, X_REQUEST_ID] {
        trailers.remove(name);
    }
}

fn wants_trailers(headers: &HeaderMap) -> bool {
    let values = headers.get_all(TE).into_iter().filter_map(|value| value.to_str().ok());
    values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case("trailers"))
}

/// Most messages have one of these or none: one look at each name tells which, where asking for each of them would
/// hash nine names.
fn remove_hop_by_hop(headers: &mut HeaderMap) {
    let mut there = [false; HOPS];
    for name in headers.keys() {
        for (hop, there) in HOP.iter().zip(&mut there) {
            *there |= hop == name;
        }
    }
    if !there.contains(&true) {
        return;
    }
    let nominated: Vec<HeaderName> = headers
        .get_all(CONNECTION)
        .iter()
        .flat_map(|value| value.as_bytes().split(|byte| *byte == b','))
        .filter_map(|name| HeaderName::from_bytes(name.trim_ascii()).ok())
        // What every message needs is not for one connection only, whatever a client says.
        .filter(|name| ![HOST, CONTENT_LENGTH, TRAILER, CONNECTION, KEEP_ALIVE].contains(name))
        .collect();
    for (hop, _) in HOP.iter().zip(there).filter(|(_, there)| *there) {
        headers.remove(hop);
    }
    for name in nominated {
        headers.remove(name);
    }
}

/// Removes what a client may not say of itself: who it is, and, unless we trust the peer, where it came from.
/// Every spelling counts that a backend may fold together with ours.
fn remove_forgeries(headers: &mut HeaderMap, trusted: bool) {
    let forged = |name: &HeaderName| {
        let spelled = name.as_str();
        let odd = || spelled.bytes().any(|byte| byte == b'_' || byte == b'.');
        match spelled.as_bytes() {
            [b'x', b'-' | b'_' | b'.', ..] if folds_to(spelled, "x-scopegate-") => true,
            [b'x', b'-' | b'_' | b'.', ..] if folds_to(spelled, "x-forwarded-") => !trusted || odd(),
            [b'x', b'-' | b'_' | b'.', ..] if spelled.len() == 9 && folds_to(spelled, "x-real-ip") => {
                !trusted || odd()
            }
            _ => *name == FORWARDED && !trusted,
        }
    };
    // Most requests have none, and pay for one look at each name.
    if headers.keys().any(forged) {
        let names: Vec<_> = headers.keys().filter(|name| forged(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// What would have the upstream read another method or target than the one that was decided.
const OVERRIDES: [&str; 5] =
    ["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Removes overrides of method and target. A private surface has no scope that they could change, and its headers
/// are the upstream's to read.
fn remove_overrides(headers: &mut HeaderMap) {
    let overrides = |name: &HeaderName| {
        let spelled = name.as_str();
        spelled.starts_with('x')
            && OVERRIDES.iter().any(|known| known.len() == spelled.len() && folds_to(spelled, known))
    };
    if headers.keys().any(overrides) {
        let names: Vec<_> = headers.keys().filter(|name| overrides(name)).cloned().collect();
        for name in names {
            headers.remove(name);
        }
    }
}

/// Whether a name begins so once `_` and `.` are read as `-`; names are in lower case already.
fn folds_to(name: &str, start: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' || byte == b'.' { b'-' } else { byte };
    name.len() >= start.len() && name.bytes().zip(start.bytes()).all(|(byte, wanted)| folded(byte) == wanted)
}

fn forwarded(headers: &mut HeaderMap, with: &Outbound<'_>) {
    match headers.entry(X_FORWARDED_FOR) {
        Entry::Vacant(none) => {
            none.insert(with.peer.clone());
        }
        Entry::Occupied(mut hops) => {
            let mut all: Vec<_> = hops.iter().map(HeaderValue::as_bytes).collect();
            all.push(with.peer.as_bytes());
            // Values that came in headers can go in one.
            if let Ok(all) = HeaderValue::from_bytes(&all.join(&b", "[..])) {
                hops.insert(all);
            }
        }
    }
    headers.entry(X_FORWARDED_PROTO).or_insert_with(|| with.scheme.clone());
    if !headers.contains_key(X_FORWARDED_HOST)
        && let Some(host) = headers.get(HOST).cloned()
    {
        headers.insert(X_FORWARDED_HOST, host);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn map(lines: &[(&str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in lines {
            let name = HeaderName::from_bytes(name.as_bytes()).expect("a name");
            headers.append(name, HeaderValue::from_str(value).expect("a value"));
        }
        headers
    }

    #[test]
    fn what_belongs_to_one_connection_ends_here() {
        let mut headers = map(&[
            ("connection", "close, X-Mine"),
            ("connection", "host, keep-alive"),
            ("x-mine", "1"),
            ("keep-alive", "timeout=5"),
            ("te", "gzip"),
            ("transfer-encoding", "gzip, chunked"),
            ("upgrade", "h2c"),
            ("proxy-authorization", "x"),
            ("host", "a"),
            ("x-kept", "1"),
        ]);
        remove_hop_by_hop(&mut headers);
        let mut left: Vec<_> = headers.keys().map(HeaderName::as_str).collect();
        left.sort_unstable();
        assert_eq!(left, ["host", "x-kept"]);
    }

    #[test]
    fn nobody_but_us_says_who_called() {
        for name in ["x-scopegate-team", "x_scopegate_team", "x.scopegate-key.id", "x-scopegate-anything"] {
            for trusted in [false, true] {
                let mut headers = map(&[(name, "evil"), ("x-scope", "kept")]);
                remove_forgeries(&mut headers, trusted);
                assert_eq!(headers.len(), 1, "{name} {trusted}");
            }
        }
    }

    #[test]
    fn only_a_trusted_peer_says_where_a_request_came_from() {
        for name in ["x-forwarded-for", "x-forwarded-proto", "x-forwarded-port", "forwarded", "x-real-ip"] {
            for trusted in [false, true] {
                let mut headers = map(&[(name, "evil")]);
                remove_forgeries(&mut headers, trusted);
                assert_eq!(headers.contains_key(name), trusted, "{name}");
            }
        }
        for name in ["x_forwarded_for", "x-forwarded_proto", "x_real_ip"] {
            let mut headers = map(&[(name, "evil")]);
            remove_forgeries(&mut headers, true);
            assert!(headers.is_empty(), "{name}");
        }
    }
}

//! The header fields of a request on its way to the upstream.
//!
//! They are looked at once, in their order, and written as the upstream gets them: what belongs to the client's
//! connection, or what only we may say, is left out, and what we say ourselves comes last, so that nothing a client
//! lists in `Connection` can take it away again.

use std::rc::Rc;

use http::header::{CONNECTION, HeaderName, HeaderValue};
use http::{HeaderMap, Method};

use super::sink::Sink;
use crate::accept::peer::Peer;
use crate::config::route::Access;
use crate::decide::credential::is_bearer;
use crate::decide::permit::{Ask, Permit};
use crate::identity::scope::Scopes;
use crate::message::field::{Kind, Nominated, is_token, words};
use crate::message::fields::{Field, Fields, Seen, line};
use crate::message::head::Head;
use crate::observe::record::Id;

/// Names a request in the logs of everybody whom it passes.
pub const X_REQUEST_ID: &[u8] = b"x-request-id";
/// What scopegate made itself says so, with the reason.
pub const SCOPEGATE_REASON: &[u8] = b"scopegate-reason";
/// As many names as a body may have trailers.
const TRAILERS: usize = 64;

/// What a request is sent with.
#[derive(Debug)]
pub struct Outbound<'a> {
    /// The other end of the client's connection.
    pub peer: &'a Rc<Peer>,
    /// The peer may say where a request really came from.
    pub trusted: bool,
    /// Of the client's connection: `http` or `https`.
    pub scheme: &'static str,
    /// Names the request.
    pub id: &'a Id,
    /// The upstream does not see credentials.
    pub strip_credential: bool,
    /// The most bytes of its body.
    pub body_most: u64,
    /// Tell the upstream who called, with the platform's names of scopes.
    pub identity: Option<&'a Scopes>,
}

/// How the upstream is told where a request's body ends (RFC 9112, 6).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Announced {
    /// There is no body.
    Nothing,
    /// It has so many bytes.
    Length(u64),
    /// Its pieces say how long they are.
    Chunked,
}

/// Writes the head of a client's request as the upstream is sent it: origin-form (RFC 9112, 3.2.1), the bytes of
/// path and query as they came. `host` is said where the request names none.
#[must_use]
pub fn write(
    head: &Head,
    host: &str,
    announced: Announced,
    permit: &Permit<'_>,
    with: &Outbound<'_>,
) -> Vec<u8> {
    let mut out = Vec::with_capacity(1024);
    out.extend_from_slice(head.method.as_str().as_bytes());
    out.push(b' ');
    out.extend_from_slice(head.path().as_bytes());
    if let Some(query) = head.query() {
        out.push(b'?');
        out.extend_from_slice(query.as_bytes());
    }
    out.extend_from_slice(b" HTTP/1.1\r\n");
    if !head.fields.has(Kind::Host) {
        line(&mut out, b"host", host.as_bytes());
    }
    let (mut out, seen) = pass(out, head, host, permit, with);
    if permit.ask == Ask::Channel {
        out.extend_from_slice(b"connection: Upgrade\r\nupgrade: websocket\r\n");
    } else if seen.has(Kind::Te) {
        out.extend_from_slice(b"te: trailers\r\nconnection: te\r\n");
    }
    match announced {
        Announced::Nothing if seen.has(Kind::Length) => out.extend_from_slice(b"content-length: 0\r\n"),
        Announced::Nothing => {}
        Announced::Length(length) => {
            line(&mut out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Announced::Chunked => out.extend_from_slice(b"transfer-encoding: chunked\r\n"),
    }
    out.extend_from_slice(b"\r\n");
    out
}

/// The same for HTTP/2, whose request says method, target and host elsewhere (RFC 9113, 8.3.1), and where its body ends
/// in its frames.
#[must_use]
pub fn fields(
    head: &Head,
    host: &str,
    announced: Announced,
    permit: &Permit<'_>,
    with: &Outbound<'_>,
) -> HeaderMap {
    let (mut out, seen) = pass(Fields::with_capacity(1024, 16), head, host, permit, with);
    if seen.has(Kind::Te) {
        out.push_as(Kind::Te, b"te", b"trailers");
    }
    match announced {
        Announced::Nothing if seen.has(Kind::Length) => out.push_as(Kind::Length, b"content-length", b"0"),
        Announced::Length(length) => {
            out.push_as(Kind::Length, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        Announced::Nothing | Announced::Chunked => {}
    }
    out.into_map()
}

/// Looks at each of the client's fields, and says what is ours to say.
fn pass<'h, S: Sink>(
    out: S,
    head: &'h Head,
    host: &'h str,
    permit: &Permit<'_>,
    with: &Outbound<'_>,
) -> (S, Seen) {
    let host = head.fields.first(Kind::Host).unwrap_or(host.as_bytes());
    let mut nominated = Nominated::default();
    for value in head.fields.all(Kind::Connection) {
        nominated.read(value);
    }
    let mut writer = Writer { out, nominated, host, hops: Vec::new(), seen: Seen::default() };
    for field in head.fields.iter() {
        writer.field(head, field, permit, with);
    }
    writer.ours(permit, with);
    (writer.out, writer.seen)
}

/// A head that is being written, and what has been seen of the client's.
struct Writer<'h, S> {
    out: S,
    nominated: Nominated<'h>,
    host: &'h [u8],
    hops: Vec<&'h [u8]>,
    seen: Seen,
}

impl<'h, S: Sink> Writer<'h, S> {
    /// One of the client's fields.
    fn field(&mut self, head: &'h Head, field: Field<'h>, permit: &Permit<'_>, with: &Outbound<'_>) {
        let Field { kind, name, value, .. } = field;
        // What we have decided by, and who sent it, the upstream sees as we have: nobody can have it taken away on the way.
        let may_go = matches!(
            kind,
            Kind::Plain | Kind::Cookie | Kind::Date | Kind::Override | Kind::Reason | Kind::RequestId
        );
        if may_go && self.nominated.has(name) {
            return;
        }
        let preflight = permit.ask == Ask::Preflight;
        let stripped = with.strip_credential && permit.caller.is_some();
        let passes = match kind {
            Kind::Plain
            | Kind::Host
            | Kind::Reason
            | Kind::Page
            | Kind::AskedMethod
            | Kind::WebSocketKey
            | Kind::Date => true,
            Kind::Connection | Kind::Upgrade | Kind::Expect | Kind::Hop | Kind::Coding | Kind::Forged => {
                false
            }
            // Another scheme is not ours to strip.
            Kind::Authorization => !(preflight || stripped && is_bearer(value)),
            Kind::ApiKey => !(preflight || stripped),
            Kind::Cookie => {
                if !preflight && !self.seen.has(kind) {
                    self.seen.add(kind);
                    self.cookie(head);
                }
                false
            }
            Kind::Trailer => self.trailer(field),
            // How long the body is we say ourselves; that there is none may be said or not.
            Kind::Length => {
                if value == b"0" {
                    self.seen.add(kind);
                }
                false
            }
            Kind::Te => {
                if words(value).any(|word| word.eq_ignore_ascii_case(b"trailers")) {
                    self.seen.add(kind);
                }
                false
            }
            // Of a webhook both are part of "as it came": there is no scope that they could change, and its headers are
            // the upstream's to read.
            Kind::RequestId | Kind::Override => {
                permit.surface.private && permit.surface.access == Access::Open
            }
            Kind::ForwardedFor => {
                if with.trusted {
                    self.hops.push(value);
                }
                false
            }
            Kind::ForwardedProto | Kind::ForwardedHost | Kind::Forwarded => with.trusted,
        };
        if passes {
            self.seen.add(kind);
            self.out.pass(field);
        }
    }

    /// Whether it announces only what may come behind a body. Where it does not, the rest of it is written. One that
    /// announces more than may come says nothing: each of its names is looked at.
    fn trailer(&mut self, field: Field<'h>) -> bool {
        if words(field.value).nth(TRAILERS).is_some() {
            return false;
        }
        let passes = |name: &&[u8]| Kind::of(name) == Kind::Plain && !self.nominated.has(name);
        let left: Vec<_> = words(field.value).filter(passes).collect();
        let whole = left.len() == words(field.value).count();
        if !whole && !left.is_empty() {
            self.out.list(field.name, left.into_iter());
        }
        whole
    }

    /// In one line, whatever number HTTP/2 had them in (RFC 9113, 8.2.3).
    fn cookie(&mut self, head: &Head) {
        let values: Vec<_> = head.fields.all(Kind::Cookie).collect();
        self.out.line(b"cookie", &values.join(&b"; "[..]));
    }

    /// What we say ourselves.
    fn ours(&mut self, permit: &Permit<'_>, with: &Outbound<'_>) {
        let out = &mut self.out;
        out.list(b"x-forwarded-for", self.hops.iter().copied().chain([with.peer.text.as_bytes()]));
        if !self.seen.has(Kind::ForwardedProto) {
            out.line(b"x-forwarded-proto", with.scheme.as_bytes());
        }
        if !self.seen.has(Kind::ForwardedHost) {
            out.line(b"x-forwarded-host", self.host);
        }
        if !self.seen.has(Kind::RequestId) {
            out.line(X_REQUEST_ID, with.id.as_bytes());
        }
        if let (Some(scopes), Some(caller)) = (with.identity, &permit.caller) {
            let scopes: Vec<_> = scopes.names(caller.scopes()).collect();
            for (name, value) in [
                ("x-scopegate-team", caller.team()),
                ("x-scopegate-key-id", caller.key_id()),
                ("x-scopegate-scopes", &*scopes.join(" ")),
            ] {
                // A team that cannot be a header value is not told rather than told wrongly.
                if HeaderValue::from_str(value).is_ok() {
                    out.line(name.as_bytes(), value.as_bytes());
                }
            }
        }
    }
}

/// Writes a client's trailers and the empty line after them.
pub fn write_trailers(out: &mut Vec<u8>, trailers: &HeaderMap) {
    for (name, value) in passing(trailers) {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

/// Trailers without what could not stand in a head either, and without what frames or routes a message.
pub fn passing(trailers: &HeaderMap) -> impl Iterator<Item = (&HeaderName, &HeaderValue)> {
    let mut nominated = Nominated::default();
    for value in trailers.get_all(CONNECTION) {
        nominated.read(value.as_bytes());
    }
    trailers.iter().filter(move |(name, _)| {
        let token = is_token(name.as_str());
        let name = name.as_str().as_bytes();
        token && Kind::of(name) == Kind::Plain && !nominated.has(name)
    })
}

/// Sent twice, it does what it does when it is sent once (RFC 9110, 9.2.2).
#[must_use]
pub fn is_idempotent(method: &Method) -> bool {
    [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(method)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_trailer_says_nothing_that_a_head_may_not() {
        let mut trailers = HeaderMap::new();
        for name in [
            "x-scopegate-team",
            "host",
            "authorization",
            "x-api-key",
            "content-length",
            "connection",
            "x-mine",
        ] {
            trailers.insert(HeaderName::from_static(name), HeaderValue::from_static("x-mine"));
        }
        trailers.insert("grpc-status", HeaderValue::from_static("0"));
        let mut out = Vec::new();
        write_trailers(&mut out, &trailers);
        assert_eq!(String::from_utf8_lossy(&out), "grpc-status: 0\r\n\r\n");
    }
}

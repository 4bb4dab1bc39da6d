//! One request as the policy sees it.

use std::borrow::Cow;
use std::net::Ipv6Addr;
use std::rc::Rc;
use std::time::SystemTime;

use http::{Method, Version};

use super::denial::Denial;
use super::path::PathProblem;
use crate::message::field::Kind;
use crate::message::fields::{Field, Fields};
use crate::message::head::Head;

/// One request as the policy sees it. Borrowed; it has no body.
#[derive(Clone, Copy)]
pub struct Call<'a> {
    /// As it came.
    pub method: &'a Method,
    /// Of the client's connection.
    pub version: Version,
    /// The path as it came, without the query.
    pub path: &'a str,
    /// The query, without its question mark.
    pub query: Option<&'a str>,
    /// Credentials and what browsers ask are read from here.
    pub fields: &'a Fields,
    /// Who its connection has proved to come from, where it has shown a certificate: [`crate::identity::key::CERTIFICATE`]
    /// and a name, if it names somebody. A reference to where that is kept: each of its words is one of every request that
    /// is under way.
    pub certificate: Option<&'a Option<Rc<str>>>,
    /// When it came: keys expire.
    pub now: SystemTime,
    /// It came as extended CONNECT (RFC 8441).
    pub extended: bool,
    /// It has a body.
    pub with_body: bool,
}

impl<'a> Call<'a> {
    /// Reads the head of a request, whose target and Host must name one thing (RFC 9112, 3.2).
    pub fn read(head: &'a Head, now: SystemTime) -> Result<Self, Denial> {
        // HTTP/2 can ask for what has no path, too (RFC 9113, 8.3.1).
        if head.method == Method::CONNECT || !head.path().starts_with('/') {
            return Err(Denial::TargetInvalid);
        }
        host(head)?;
        let Head { method, fields, version, .. } = head;
        Ok(Self {
            method,
            version: *version,
            path: head.path(),
            query: head.query(),
            fields,
            certificate: None,
            now,
            extended: head.is_extended(),
            with_body: false,
        })
    }

    /// The method that a CORS preflight asks for (Fetch standard, "CORS-preflight fetch"); `None` for
    /// everything else, where a field of it stands twice, and with a body, which no browser sends.
    #[must_use]
    pub fn preflight(&self) -> Option<&'a str> {
        if *self.method != Method::OPTIONS || self.with_body {
            return None;
        }
        let (mut pages, mut methods) = (self.fields.all(Kind::Page), self.fields.all(Kind::AskedMethod));
        match (pages.next(), pages.next(), methods.next(), methods.next()) {
            (Some(_), None, Some(method), None) => std::str::from_utf8(method).ok(),
            _ => None,
        }
    }

    /// The key of the WebSocket handshake that it starts (RFC 6455, 4.2.1), of the one version that there is. One with a
    /// body is none: what would be a body to one side would be frames to the other.
    pub fn handshake(&self) -> Result<&'a [u8], Denial> {
        let asks = self.extended
            || *self.method == Method::GET
                && self.version == Version::HTTP_11
                && !self.fields.has(Kind::Coding)
                && self.fields.all(Kind::Length).all(|length| length == b"0")
                && self.fields.lists(Kind::Upgrade, "websocket")
                && self.fields.lists(Kind::Connection, "upgrade");
        let is_version = |field: &Field<'_>| field.name.eq_ignore_ascii_case(b"sec-websocket-version");
        let mut versions = self.fields.iter().filter(is_version);
        if !asks || versions.next().is_none_or(|field| field.value != b"13") || versions.next().is_some() {
            return Err(Denial::UpgradeRequired);
        }
        let mut keys = self.fields.all(Kind::WebSocketKey);
        match (keys.next(), keys.next()) {
            (Some(key), None) if is_nonce(key) => Ok(key),
            _ => Err(Denial::HandshakeInvalid),
        }
    }

    /// The value of a name in the query; a name that stands there twice, in any spelling, has two.
    pub fn query(&self, name: &str) -> Result<Option<Cow<'_, str>>, Denial> {
        let decoded = |text| percent_encoding::percent_decode_str(text).decode_utf8_lossy();
        let pairs = self.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let mut values = pairs.filter(|(known, _)| decoded(known) == name).map(|(_, value)| decoded(value));
        match (values.next(), values.next()) {
            (_, Some(_)) => Err(Denial::PathAmbiguous(PathProblem::RepeatedQuery)),
            (value, None) => Ok(value),
        }
    }

    /// Whether the query has a value for this name.
    pub(super) fn has_query(&self, name: &str) -> bool {
        let pairs = self.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().any(|(known, value)| known == name && !value.is_empty())
    }
}

/// Whether these are 16 bytes in base64 (RFC 6455, 4.1). The bits that are over stand for nothing.
fn is_nonce(key: &[u8]) -> bool {
    let is_digit = |byte: &u8| byte.is_ascii_alphanumeric() || b"+/".contains(byte);
    key.strip_suffix(b"==").is_some_and(|digits| digits.len() == 22 && digits.iter().all(is_digit))
}

/// Exactly one valid Host, and no other in the target (RFC 9112, 3.2); HTTP/2 may name it in the target alone, and
/// HTTP/1.0 not at all.
fn host(head: &Head) -> Result<(), Denial> {
    let target = head.authority();
    if target.is_some_and(|target| !is_host(target.as_bytes())) {
        return Err(Denial::TargetInvalid);
    }
    let mut hosts = head.fields.all(Kind::Host);
    match (hosts.next(), hosts.next(), target) {
        (Some(host), None, _) if !is_host(host) => Err(Denial::HostInvalid),
        (Some(_), Some(_), _) => Err(Denial::HostInvalid),
        (Some(host), None, Some(target)) if !host.eq_ignore_ascii_case(target.as_bytes()) => {
            Err(Denial::TargetInvalid)
        }
        (None, _, _) if head.version == Version::HTTP_11 => Err(Denial::HostInvalid),
        (None, _, None) if head.version == Version::HTTP_2 => Err(Denial::HostInvalid),
        _ => Ok(()),
    }
}

/// A name, an IPv4 address, or an IPv6 address in brackets; with a port, or not (RFC 3986, 3.2.2). Nobody's name has
/// the other characters that the RFC would allow, or an empty label: to who keeps a folder for each name `..` is a path.
/// Nor is there a port above 65535.
fn is_host(host: &[u8]) -> bool {
    let end = match host {
        [b'[', ..] => host.iter().position(|byte| *byte == b']').map(|end| end + 1),
        _ => Some(host.iter().position(|byte| *byte == b':').unwrap_or(host.len())),
    };
    let Some((name, port)) = end.and_then(|end| host.split_at_checked(end)) else { return false };
    let name_is_fine = match name {
        [b'[', address @ .., b']'] => {
            std::str::from_utf8(address).is_ok_and(|text| text.parse::<Ipv6Addr>().is_ok())
        }
        name => {
            let mut in_label = false;
            let fits = |byte: &u8| {
                let was_in_label = std::mem::replace(&mut in_label, *byte != b'.');
                let is_letter = byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'_' | b'~');
                is_letter || *byte == b'.' && was_in_label
            };
            !name.is_empty() && name.iter().all(fits)
        }
    };
    let port_is_fine = match port {
        [] | [b':'] => true,
        [b':', port @ ..] => {
            let number = |number: u32, byte: &u8| {
                let digit = char::from(*byte).to_digit(10)?;
                Some(number.saturating_mul(10).saturating_add(digit))
            };
            port.iter().try_fold(0, number).is_some_and(|port| u16::try_from(port).is_ok())
        }
        _ => false,
    };
    name_is_fine && port_is_fine
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;
    use crate::message::head::{Head, Limits};

    const LIMITS: Limits = Limits { head: 1024, fields: 16, target: 512 };

    #[test]
    fn target_and_host_name_one_thing() {
        let check = |target: &str, version: &str, hosts: &[&str], wanted: Result<(), Denial>| {
            let hosts: String = hosts.iter().map(|host| format!("Host: {host}\r\n")).collect();
            let text = format!("GET {target} {version}\r\n{hosts}\r\n");
            let (head, _) = Head::read(text.as_bytes(), &LIMITS).expect("valid").expect("whole");
            let got = Call::read(&head, SystemTime::UNIX_EPOCH).map(|_| ());
            assert_eq!(got, wanted, "{target} {version} {hosts:?}");
        };
        let (v10, v11) = ("HTTP/1.0", "HTTP/1.1");
        for host in ["a.example", "a.example:8080", "a_b", "1.2.3.4:80", "[::1]:8080", "[::1]", "a:"] {
            check("/a", v11, &[host], Ok(()));
        }
        for host in
            ["", ":80", "a b", "u@a", "a,b", "a/b", "a:b", "a:123456", "[::1", "[a]", "[::1]x", "a%41", "é"]
        {
            check("/a", v11, &[host], Err(Denial::HostInvalid));
        }
        check("/a", v11, &[], Err(Denial::HostInvalid));
        check("/a", v10, &[], Ok(()));
        check("/a", v11, &["a", "a"], Err(Denial::HostInvalid));
        check("http://a/a", v11, &[], Err(Denial::HostInvalid));
        check("http://a/a", v10, &[], Ok(()));
        check("http://a.example/a", v11, &["a.example"], Ok(()));
        check("http://A.example/a", v11, &["a.example"], Ok(()));
        check("http://b.example/a", v11, &["a.example"], Err(Denial::TargetInvalid));
        check("http://u@a.example/a", v11, &["a.example"], Err(Denial::TargetInvalid));
    }

    #[test]
    fn over_http2_the_target_may_name_the_host_alone() {
        let check = |method: &str, target: &str, wanted: Result<(), Denial>| {
            let request = Request::builder().method(method).uri(target).version(Version::HTTP_2);
            let (parts, ()) = request.body(()).expect("a request").into_parts();
            let got =
                Call::read(&Head::of(&parts, &LIMITS).expect("small"), SystemTime::UNIX_EPOCH).map(|_| ());
            assert_eq!(got, wanted, "{method} {target}");
        };
        check("GET", "http://a.example/a", Ok(()));
        check("GET", "http://u@a.example/a", Err(Denial::TargetInvalid));
        check("OPTIONS", "*", Err(Denial::TargetInvalid));
        check("CONNECT", "a.example:443", Err(Denial::TargetInvalid));
    }
}

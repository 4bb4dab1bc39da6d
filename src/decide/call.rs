//! One request as the policy sees it.

use std::time::SystemTime;

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, CONNECTION, HOST, ORIGIN, SEC_WEBSOCKET_KEY, UPGRADE};
use http::request::Parts;
use http::uri::Authority;
use http::{HeaderMap, Method, Version};

use super::denial::Denial;

/// One request as the policy sees it. Borrowed; it has no body.
#[derive(Debug, Clone, Copy)]
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
    pub headers: &'a HeaderMap,
    /// When it came: keys expire.
    pub now: SystemTime,
}

impl<'a> Call<'a> {
    /// Reads the head of a request, whose target and Host must name one thing (RFC 9112, 3.2).
    pub fn read(head: &'a Parts, now: SystemTime) -> Result<Self, Denial> {
        let scheme = head.uri.scheme_str().is_none_or(|scheme| ["http", "https"].contains(&scheme));
        if head.method == Method::CONNECT || !scheme || !head.uri.path().starts_with('/') {
            return Err(Denial::TargetInvalid);
        }
        host(head)?;
        let Parts { method, uri, headers, version, .. } = head;
        Ok(Self { method, version: *version, path: uri.path(), query: uri.query(), headers, now })
    }

    /// The method that a CORS preflight asks for (Fetch standard, "CORS-preflight fetch"); `None` for
    /// everything else.
    #[must_use]
    pub fn preflight(&self) -> Option<&'a str> {
        if *self.method != Method::OPTIONS || !self.headers.contains_key(ORIGIN) {
            return None;
        }
        self.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?.to_str().ok()
    }

    /// Whether it is the start of a WebSocket handshake (RFC 6455, 4.1).
    #[must_use]
    pub fn is_websocket(&self) -> bool {
        let has = |name, token: &str| {
            let values = self.headers.get_all(name).into_iter().filter_map(|value| value.to_str().ok());
            values.flat_map(|value| value.split(',')).any(|part| part.trim().eq_ignore_ascii_case(token))
        };
        let opens = *self.method == Method::GET && self.version == Version::HTTP_11;
        opens
            && self.headers.contains_key(SEC_WEBSOCKET_KEY)
            && has(UPGRADE, "websocket")
            && has(CONNECTION, "upgrade")
    }

    /// Whether the query has a value for this name.
    pub(super) fn has_query(&self, name: &str) -> bool {
        let pairs = self.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        pairs.into_iter().any(|(known, value)| known == name && !value.is_empty())
    }
}

/// Exactly one valid Host, and no other in the target; HTTP/2 may name it in the target alone, and HTTP/1.0 not
/// at all.
fn host(head: &Parts) -> Result<(), Denial> {
    if head.uri.authority().is_some_and(|target| target.as_str().contains('@')) {
        return Err(Denial::TargetInvalid);
    }
    let mut hosts = head.headers.get_all(HOST).into_iter();
    let named = match (hosts.next(), hosts.next()) {
        (None, _) => None,
        (Some(host), None) => {
            let host = Authority::try_from(host.as_bytes()).map_err(|_| Denial::HostInvalid)?;
            if host.as_str().contains('@') {
                return Err(Denial::HostInvalid);
            }
            Some(host)
        }
        (Some(_), Some(_)) => return Err(Denial::HostInvalid),
    };
    match (head.uri.authority(), named) {
        (Some(target), Some(host)) if *target != host => Err(Denial::TargetInvalid),
        (None, None) if head.version >= Version::HTTP_11 => Err(Denial::HostInvalid),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use http::Request;

    use super::*;

    #[test]
    fn target_and_host_name_one_thing() {
        let check =
            |method: &str, target: &str, version: Version, hosts: &[&str], wanted: Result<(), Denial>| {
                let mut request = Request::builder().method(method).uri(target).version(version);
                for host in hosts {
                    request = request.header(HOST, *host);
                }
                let (head, ()) = request.body(()).expect("a request").into_parts();
                let got = Call::read(&head, SystemTime::UNIX_EPOCH).map(|_| ());
                assert_eq!(got, wanted, "{method} {target} {version:?} {hosts:?}");
            };
        let (v10, v11, v2) = (Version::HTTP_10, Version::HTTP_11, Version::HTTP_2);
        check("GET", "/a", v11, &["a.example"], Ok(()));
        check("GET", "/a", v11, &["a.example:8080"], Ok(()));
        check("GET", "/a", v11, &["[::1]:8080"], Ok(()));
        check("GET", "/a", v11, &[], Err(Denial::HostInvalid));
        check("GET", "/a", v10, &[], Ok(()));
        check("GET", "/a", v11, &["a", "a"], Err(Denial::HostInvalid));
        check("GET", "/a", v11, &[""], Err(Denial::HostInvalid));
        check("GET", "/a", v11, &["a b"], Err(Denial::HostInvalid));
        check("GET", "/a", v11, &["u@a"], Err(Denial::HostInvalid));
        check("GET", "http://a.example/a", v11, &["a.example"], Ok(()));
        check("GET", "http://A.example/a", v11, &["a.example"], Ok(()));
        check("GET", "http://b.example/a", v11, &["a.example"], Err(Denial::TargetInvalid));
        check("GET", "http://a.example/a", v2, &[], Ok(()));
        check("GET", "ftp://a.example/a", v11, &["a.example"], Err(Denial::TargetInvalid));
        check("GET", "http://u@a.example/a", v2, &[], Err(Denial::TargetInvalid));
        check("OPTIONS", "*", v11, &["a"], Err(Denial::TargetInvalid));
        check("CONNECT", "a.example:443", v11, &["a.example:443"], Err(Denial::TargetInvalid));
    }
}

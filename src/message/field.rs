//! What a header field is to us, by its name.

/// What a field is to us; most are plain. Every spelling counts that a backend may fold together with ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// Passed on as it came.
    Plain,
    /// `Host`.
    Host,
    /// `Content-Length`.
    Length,
    /// `Transfer-Encoding`.
    Coding,
    /// `Connection`.
    Connection,
    /// `Upgrade`.
    Upgrade,
    /// `Expect`.
    Expect,
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// Another that belongs to one connection (RFC 9110, 7.6.1).
    Hop,
    /// `Authorization`.
    Authorization,
    /// `X-API-Key`.
    ApiKey,
    /// `Date`.
    Date,
    /// `Cookie`.
    Cookie,
    /// `Origin`: the page that asks, where a browser says so.
    Page,
    /// `Access-Control-Request-Method`.
    AskedMethod,
    /// `Sec-WebSocket-Key`.
    WebSocketKey,
    /// `X-Request-Id`.
    RequestId,
    /// `Scopegate-Reason`.
    Reason,
    /// `X-Forwarded-For`.
    ForwardedFor,
    /// `X-Forwarded-Proto`.
    ForwardedProto,
    /// `X-Forwarded-Host`.
    ForwardedHost,
    /// Another field that says where a request came from, or which host it asked for: what load balancers write, and what
    /// libraries that look for a client's address read.
    Forwarded,
    /// What only we may say, or another spelling of a field that means something to us.
    Forged,
    /// Would have the upstream read another method or target than the one that was decided.
    Override,
}

/// The names that are more than plain, by their first letter: a to z. The larger a group, the rarer are its names.
const NAMES: [&[(&str, Kind)]; 26] = [
    &[("authorization", Kind::Authorization), ("access-control-request-method", Kind::AskedMethod)],
    &[],
    &[
        ("cookie", Kind::Cookie),
        ("connection", Kind::Connection),
        ("content-length", Kind::Length),
        ("client-ip", Kind::Forwarded),
        // Of who ends TLS in front of us (RFC 9440, 2.4).
        ("client-cert", Kind::Forwarded),
        ("client-cert-chain", Kind::Forwarded),
        ("cf-connecting-ip", Kind::Forwarded),
        ("cf-pseudo-ipv4", Kind::Forwarded),
    ],
    &[("date", Kind::Date)],
    &[("expect", Kind::Expect)],
    &[
        ("forwarded", Kind::Forwarded),
        ("forwarded-for", Kind::Forwarded),
        ("fastly-client-ip", Kind::Forwarded),
        ("front-end-https", Kind::Forwarded),
    ],
    &[],
    &[("host", Kind::Host), ("http2-settings", Kind::Hop)],
    &[],
    &[],
    &[("keep-alive", Kind::Hop)],
    &[],
    &[],
    &[],
    &[("origin", Kind::Page)],
    &[
        ("proxy-connection", Kind::Hop),
        ("proxy-authenticate", Kind::Hop),
        ("proxy-authorization", Kind::Hop),
        ("proxy-client-ip", Kind::Forwarded),
        // CGI makes of it the variable that says through which proxy to ask others.
        ("proxy", Kind::Override),
    ],
    &[],
    &[],
    &[("sec-websocket-key", Kind::WebSocketKey), ("scopegate-reason", Kind::Reason)],
    &[
        ("te", Kind::Te),
        ("trailer", Kind::Trailer),
        ("transfer-encoding", Kind::Coding),
        ("true-client-ip", Kind::Forwarded),
    ],
    &[("upgrade", Kind::Upgrade)],
    &[],
    &[("wl-proxy-client-ip", Kind::Forwarded), ("wl-proxy-ssl", Kind::Forwarded)],
    &[
        ("x-api-key", Kind::ApiKey),
        ("x-request-id", Kind::RequestId),
        ("x-forwarded-for", Kind::ForwardedFor),
        ("x-forwarded-proto", Kind::ForwardedProto),
        ("x-forwarded-host", Kind::ForwardedHost),
        ("x-forwarded", Kind::Forwarded),
        ("x-original-forwarded-for", Kind::Forwarded),
        ("x-real-ip", Kind::Forwarded),
        ("x-client-ip", Kind::Forwarded),
        ("x-cluster-client-ip", Kind::Forwarded),
        ("x-originating-ip", Kind::Forwarded),
        ("x-remote-ip", Kind::Forwarded),
        ("x-remote-addr", Kind::Forwarded),
        ("x-azure-clientip", Kind::Forwarded),
        ("x-azure-socketip", Kind::Forwarded),
        ("x-envoy-external-address", Kind::Forwarded),
        ("x-url-scheme", Kind::Forwarded),
        ("x-appengine-user-ip", Kind::Forwarded),
        ("x-host", Kind::Forwarded),
        ("x-original-host", Kind::Forwarded),
        ("x-http-host-override", Kind::Forwarded),
        ("x-http-method", Kind::Override),
        ("x-http-method-override", Kind::Override),
        ("x-method-override", Kind::Override),
        ("x-original-method", Kind::Override),
        ("x-http-path-override", Kind::Override),
        ("x-original-path", Kind::Override),
        ("x-envoy-original-path", Kind::Override),
        ("x-original-uri", Kind::Override),
        ("x-original-url", Kind::Override),
        ("x-override-url", Kind::Override),
        ("x-rewrite-uri", Kind::Override),
        ("x-rewrite-url", Kind::Override),
    ],
    &[],
    &[],
];

/// Families of names, by how they begin.
const FAMILIES: [(&str, Kind); 2] = [("x-scopegate-", Kind::Forged), ("x-forwarded-", Kind::Forwarded)];

impl Kind {
    /// Of a name in any case. A backend may take one with `_` or `.` for the one with `-`: that is forged.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let letter = name.first().map_or(0, |first| first.to_ascii_lowercase().wrapping_sub(b'a'));
        let names = NAMES.get(usize::from(letter)).copied().unwrap_or_default();
        for (known, kind) in names.iter().filter(|(known, _)| known.len() == name.len()) {
            if is(name, known) {
                return *kind;
            }
            if is_spelling(name, known) {
                return kind.folded();
            }
        }
        if letter != b'x' - b'a' {
            return Self::Plain;
        }
        let begins = |start: &str| name.get(..start.len()).is_some_and(|begin| is_spelling(begin, start));
        match FAMILIES.iter().find(|(start, _)| begins(start)) {
            None => Self::Plain,
            Some((_, kind)) if name.iter().any(|byte| is_folded(*byte)) => kind.folded(),
            Some((_, kind)) => *kind,
        }
    }

    /// What it is in a spelling that only some take for it.
    fn folded(self) -> Self {
        if self == Self::Override { self } else { Self::Forged }
    }

    /// Of an answer: it belongs to the upstream's connection, or is ours to say.
    #[must_use]
    pub fn ends_here(self) -> bool {
        matches!(
            self,
            Self::Connection
                | Self::Hop
                | Self::Upgrade
                | Self::Expect
                | Self::Te
                | Self::RequestId
                | Self::Reason
        )
    }
}

/// CGI, and what came of it, has one letter for all of them.
fn is_folded(byte: u8) -> bool {
    byte == b'_' || byte == b'.'
}

/// Whether a name is this one in any case. Its bytes are those of a token (RFC 9110, 5.6.2): `| 0x20` makes letters small,
/// and makes no other of them one that stands in a name of ours.
fn is(name: &[u8], known: &str) -> bool {
    // Without a way out in the middle, so that many bytes are looked at at once.
    let differs = |any: u8, (byte, wanted): (&u8, u8)| any | (byte | 0x20) ^ wanted;
    name.len() == known.len() && name.iter().zip(known.bytes()).fold(0, differs) == 0
}

/// Whether a name in any case is this one, or becomes it once `_` and `.` are read as `-`.
fn is_spelling(name: &[u8], known: &str) -> bool {
    let is =
        |(byte, wanted): (&u8, u8)| byte.to_ascii_lowercase() == wanted || wanted == b'-' && is_folded(*byte);
    name.len() == known.len() && name.iter().zip(known.bytes()).all(is)
}

/// Whether what another library takes for a name is one (RFC 9110, 5.6.2): it takes quotation marks too.
#[must_use]
pub fn is_token(name: &str) -> bool {
    !name.contains('"')
}

/// The words of a list, without empty ones (RFC 9110, 5.6.1).
pub fn words(value: &[u8]) -> impl Iterator<Item = &[u8]> {
    value.split(|byte| *byte == b',').map(<[u8]>::trim_ascii).filter(|word| !word.is_empty())
}

/// What a message lists in `Connection`: fields for one connection only.
#[derive(Debug, Default)]
pub struct Nominated<'m>(Vec<&'m [u8]>);

/// What every message needs is not for one connection only, whatever a peer says.
const NEEDED: [&[u8]; 6] =
    [b"close", b"keep-alive", b"host", b"content-length", b"trailer", b"sec-websocket-version"];

impl<'m> Nominated<'m> {
    /// Takes a value of `Connection`.
    pub fn read(&mut self, value: &'m [u8]) {
        let names =
            words(value).filter(|word| !NEEDED.iter().any(|needed| word.eq_ignore_ascii_case(needed)));
        self.0.extend(names);
    }

    /// What it lists.
    pub(super) fn names(&self) -> impl Iterator<Item = &'m [u8]> {
        self.0.iter().copied()
    }

    /// Whether it lists this name.
    #[must_use]
    pub fn has(&self, name: &[u8]) -> bool {
        self.0.iter().any(|listed| listed.eq_ignore_ascii_case(name))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_what_only_we_may_say_is_known() {
        let check = |kind: Kind, names: &[&str]| {
            for name in names {
                assert_eq!(Kind::of(name.as_bytes()), kind, "{name}");
            }
        };
        check(
            Kind::Forged,
            &["x-scopegate-team", "x_scopegate_team", "x.scopegate-key.id", "x-scopegate-anything"],
        );
        check(Kind::Forged, &["x_forwarded_for", "x-forwarded_proto", "x_real_ip", "x.real-ip"]);
        check(Kind::Forwarded, &["client-cert", "client-cert-chain"]);
        check(Kind::Forged, &["client_cert", "client.cert-chain", "client-cert_chain"]);
        check(Kind::Plain, &["client-certs", "client-cert-chai", "client", "client-c"]);
        check(Kind::Forwarded, &["x-forwarded-port", "x-forwarded-anything", "x-real-ip", "forwarded"]);
        check(Kind::Forwarded, &["x-forwarded", "true-client-ip", "x-original-host"]);
        check(
            Kind::Forged,
            &["content_length", "transfer.encoding", "x_request_id", "client_ip", "keep_alive"],
        );
        check(Kind::ForwardedFor, &["x-forwarded-for"]);
        check(
            Kind::Override,
            &["x-http-method-override", "x_http_method", "x.original_url", "x-rewrite-url"],
        );
        check(
            Kind::Plain,
            &["x-scope", "x-real-ipx", "x-original-urls", "xscopegate-team", "accept", "x-", "x", "x_a", "_"],
        );
        check(Kind::Hop, &["keep-alive", "proxy-connection", "proxy-authorization"]);
        check(Kind::Forged, &["x_api_key", "x-api_key", "x.api.key"]);
        check(Kind::Host, &["host", "Host", "HOST"]);
        check(Kind::Plain, &["", "[", "{host", "hos", "hosts"]);
        let long = |end: &str| format!("X-Forwarded-{}{end}", "a".repeat(100));
        check(Kind::Forwarded, &[&long(""), &long("-b")]);
        check(Kind::Forged, &[&long("_b"), &long(".b")]);
    }

    #[test]
    fn every_name_stands_under_its_letter() {
        for (names, letter) in NAMES.iter().zip('a'..='z') {
            assert!(names.iter().all(|(name, _)| name.starts_with(letter)), "{letter}");
        }
    }
}

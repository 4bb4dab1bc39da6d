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

impl Kind {
    /// Of a name in lower case.
    #[must_use]
    pub fn of(name: &[u8]) -> Self {
        let kind = Self::as_written(name);
        if matches!(kind, Self::Plain | Self::Forwarded)
            && name.iter().fold(false, |any, byte| any | is_folded(*byte))
        {
            Self::of_spelling(name)
        } else {
            kind
        }
    }

    /// Of a name that a backend may take for another: with `_` or `.` for `-`.
    fn of_spelling(name: &[u8]) -> Self {
        let folded: Vec<_> = name.iter().map(|byte| if is_folded(*byte) { b'-' } else { *byte }).collect();
        let kind = Self::as_written(&folded);
        if matches!(kind, Self::Plain | Self::Override) { kind } else { Self::Forged }
    }

    fn as_written(name: &[u8]) -> Self {
        match name {
            b"host" => Self::Host,
            b"date" => Self::Date,
            b"cookie" => Self::Cookie,
            b"origin" => Self::Page,
            b"authorization" => Self::Authorization,
            b"connection" => Self::Connection,
            b"upgrade" => Self::Upgrade,
            b"expect" => Self::Expect,
            b"content-length" => Self::Length,
            b"transfer-encoding" => Self::Coding,
            b"te" => Self::Te,
            b"trailer" => Self::Trailer,
            b"forwarded" | b"forwarded-for" | b"client-ip" | b"true-client-ip" | b"fastly-client-ip"
            | b"cf-connecting-ip" | b"cf-pseudo-ipv4" => Self::Forwarded,
            // Of who ends TLS in front of us (RFC 9440, 2.4).
            b"client-cert" | b"client-cert-chain" => Self::Forwarded,
            b"sec-websocket-key" => Self::WebSocketKey,
            b"access-control-request-method" => Self::AskedMethod,
            b"scopegate-reason" => Self::Reason,
            b"keep-alive"
            | b"proxy-connection"
            | b"proxy-authenticate"
            | b"proxy-authorization"
            | b"http2-settings" => Self::Hop,
            [b'x', b'-', ..] => Self::of_extension(name),
            _ => Self::Plain,
        }
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

    fn of_extension(name: &[u8]) -> Self {
        match name {
            b"x-api-key" => Self::ApiKey,
            b"x-request-id" => Self::RequestId,
            b"x-forwarded-for" => Self::ForwardedFor,
            b"x-forwarded-proto" => Self::ForwardedProto,
            b"x-forwarded-host" => Self::ForwardedHost,
            b"x-forwarded"
            | b"x-original-forwarded-for"
            | b"x-real-ip"
            | b"x-client-ip"
            | b"x-cluster-client-ip"
            | b"x-originating-ip"
            | b"x-remote-ip"
            | b"x-remote-addr"
            | b"x-appengine-user-ip"
            | b"x-host"
            | b"x-original-host"
            | b"x-http-host-override" => Self::Forwarded,
            b"x-http-method"
            | b"x-http-method-override"
            | b"x-method-override"
            | b"x-original-method"
            | b"x-http-path-override"
            | b"x-original-path"
            | b"x-original-uri"
            | b"x-original-url"
            | b"x-override-url"
            | b"x-rewrite-uri"
            | b"x-rewrite-url" => Self::Override,
            _ if name.starts_with(b"x-scopegate-") => Self::Forged,
            _ if name.starts_with(b"x-forwarded-") => Self::Forwarded,
            _ => Self::Plain,
        }
    }
}

/// CGI, and what came of it, has one letter for all of them.
fn is_folded(byte: u8) -> bool {
    byte == b'_' || byte == b'.'
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
const NEEDED: [&[u8]; 5] = [b"close", b"keep-alive", b"host", b"content-length", b"trailer"];

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
    }
}

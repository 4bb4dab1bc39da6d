//! What a header field is to us, by its name.

use http::header::{CONTENT_LENGTH, HOST, HeaderName, HeaderValue, TRAILER};

const KEEP_ALIVE: HeaderName = HeaderName::from_static("keep-alive");

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
    /// `TE`.
    Te,
    /// `Trailer`.
    Trailer,
    /// Belongs to one connection (RFC 9110, 7.6.1), or has been answered on it.
    Hop,
    /// Where a key may be.
    Credential,
    /// `Cookie`.
    Cookie,
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
    /// Another field that says where a request came from.
    Origin,
    /// What only we may say, or a spelling of it.
    Forged,
    /// Would have the upstream read another method or target than the one that was decided.
    Override,
}

impl Kind {
    /// Of a name in lower case.
    #[must_use]
    pub fn of(name: &str) -> Self {
        match name {
            "host" => Self::Host,
            "cookie" => Self::Cookie,
            "connection" | "keep-alive" | "upgrade" | "expect" => Self::Hop,
            "content-length" => Self::Length,
            "transfer-encoding" => Self::Coding,
            "te" => Self::Te,
            "trailer" => Self::Trailer,
            "authorization" => Self::Credential,
            "forwarded" => Self::Origin,
            "scopegate-reason" => Self::Reason,
            _ => match name.as_bytes() {
                [b'x', b'-' | b'_' | b'.', ..] => Self::of_extension(name),
                [b'p', ..]
                    if ["proxy-connection", "proxy-authenticate", "proxy-authorization"].contains(&name) =>
                {
                    Self::Hop
                }
                _ => Self::Plain,
            },
        }
    }

    /// Of an answer: it belongs to the upstream's connection, or is ours to say.
    #[must_use]
    pub fn ends_here(self) -> bool {
        matches!(self, Self::Hop | Self::Te | Self::RequestId | Self::Reason)
    }

    fn of_extension(name: &str) -> Self {
        match name {
            "x-api-key" => Self::Credential,
            "x-request-id" => Self::RequestId,
            "x-forwarded-for" => Self::ForwardedFor,
            "x-forwarded-proto" => Self::ForwardedProto,
            "x-forwarded-host" => Self::ForwardedHost,
            _ if folds_to(name, "x-scopegate-") => Self::Forged,
            _ if folds_to(name, "x-forwarded-") || (name.len() == 9 && folds_to(name, "x-real-ip")) => {
                if name.bytes().any(|byte| byte == b'_' || byte == b'.') {
                    Self::Forged
                } else {
                    Self::Origin
                }
            }
            _ if OVERRIDES.iter().any(|known| known.len() == name.len() && folds_to(name, known)) => {
                Self::Override
            }
            _ => Self::Plain,
        }
    }
}

const OVERRIDES: [&str; 5] =
    ["x-http-method", "x-http-method-override", "x-method-override", "x-original-url", "x-rewrite-url"];

/// Whether a name begins so once `_` and `.` are read as `-`; names are in lower case already.
fn folds_to(name: &str, start: &str) -> bool {
    let folded = |byte: u8| if byte == b'_' || byte == b'.' { b'-' } else { byte };
    name.len() >= start.len() && name.bytes().zip(start.bytes()).all(|(byte, wanted)| folded(byte) == wanted)
}

/// What a message lists in `Connection`: fields for one connection only.
#[derive(Debug, Default)]
pub struct Nominated(Vec<HeaderName>);

impl Nominated {
    /// Takes a value of `Connection`; true where it says `close`.
    pub fn read(&mut self, value: &HeaderValue) -> bool {
        let mut close = false;
        for token in value.as_bytes().split(|byte| *byte == b',').map(<[u8]>::trim_ascii) {
            if token.eq_ignore_ascii_case(b"close") {
                close = true;
            } else if !token.eq_ignore_ascii_case(b"keep-alive")
                && let Ok(name) = HeaderName::from_bytes(token)
                // What every message needs is not for one connection only, whatever a peer says.
                && ![HOST, CONTENT_LENGTH, TRAILER, KEEP_ALIVE].contains(&name)
            {
                self.0.push(name);
            }
        }
        close
    }

    /// In the order of the message.
    #[must_use]
    pub fn names(&self) -> &[HeaderName] {
        &self.0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_spelling_of_what_only_we_may_say_is_known() {
        let check = |kind: Kind, names: &[&str]| {
            for name in names {
                assert_eq!(Kind::of(name), kind, "{name}");
            }
        };
        check(
            Kind::Forged,
            &["x-scopegate-team", "x_scopegate_team", "x.scopegate-key.id", "x-scopegate-anything"],
        );
        check(Kind::Forged, &["x_forwarded_for", "x-forwarded_proto", "x_real_ip", "x.real-ip"]);
        check(Kind::Origin, &["x-forwarded-port", "x-forwarded-anything", "x-real-ip", "forwarded"]);
        check(Kind::ForwardedFor, &["x-forwarded-for"]);
        check(
            Kind::Override,
            &["x-http-method-override", "x_http_method", "x.original_url", "x-rewrite-url"],
        );
        check(
            Kind::Plain,
            &["x-scope", "x-real-ipx", "x-original-urls", "xscopegate-team", "accept", "x-", "x"],
        );
        check(
            Kind::Hop,
            &["connection", "keep-alive", "proxy-connection", "proxy-authorization", "upgrade", "expect"],
        );
    }
}

//! Where a request comes from, and by which scheme: the one rule for logs, limits and headers.
//!
//! A connection comes from the other end of its socket; where that is a trusted proxy and the listener has PROXY
//! headers, from whom that header names ([`Peer::behind`]). Connections are counted by that, and the upstream is told
//! it. Where *that* is a trusted proxy, too, what it says in the fields of a request is believed, and nobody else's.

use std::net::{IpAddr, SocketAddr};

use ipnet::IpNet;

use super::peer::{Peer, Scheme, is_one_of};
use crate::message::field::{Kind, words};
use crate::message::fields::{Field, Fields};

/// The client that a trusted peer names in `X-Forwarded-For`, where it names one: from the right, the first that is no
/// trusted proxy itself. What stands to the left of that is its own word.
#[must_use]
pub fn client(proxies: &[IpNet], fields: &Fields) -> Option<IpAddr> {
    // From the left, so that nothing is kept of them: what stands behind is nearer to us, and overrules.
    fields.all(Kind::ForwardedFor).flat_map(words).fold(None, |client, hop| match (address(hop)?, client) {
        (address, Some(client)) if is_one_of(address, proxies) => Some(client),
        (address, _) => Some(address),
    })
}

/// As proxies write one: with a port or without, an IPv6 address in brackets or without.
fn address(text: &[u8]) -> Option<IpAddr> {
    let text = std::str::from_utf8(text).ok()?;
    let bare = text.strip_prefix('[').and_then(|text| text.strip_suffix(']')).unwrap_or(text);
    let address = bare.parse().or_else(|_| text.parse().map(|address: SocketAddr| address.ip()));
    address.ok().map(|address| address.to_canonical())
}

/// How a client came: over its connection, or as a trusted peer says. Where that says more than one thing, or something
/// else than HTTPS anywhere, it is not HTTPS.
#[must_use]
pub fn scheme(peer: &Peer, trusted: bool, fields: &Fields) -> Scheme {
    if !trusted {
        return peer.scheme;
    }
    let mut said = peer.scheme;
    let each = fields.all(Kind::ForwardedProto).flat_map(|value| value.split(|byte| *byte == b','));
    for word in each.map(<[u8]>::trim_ascii) {
        if !is_https(word) {
            return Scheme::Http;
        }
        said = Scheme::Https;
    }
    let forwarded =
        |field: &Field<'_>| field.kind == Kind::Forwarded && field.name.eq_ignore_ascii_case(b"forwarded");
    for field in fields.iter().filter(forwarded) {
        let Some(protos) = protos(field.value) else { return Scheme::Http };
        for word in protos {
            if !is_https(word) {
                return Scheme::Http;
            }
            said = Scheme::Https;
        }
    }
    said
}

/// `wss` is what some proxies write of a WebSocket over TLS.
fn is_https(word: &[u8]) -> bool {
    word.eq_ignore_ascii_case(b"https") || word.eq_ignore_ascii_case(b"wss")
}

/// Every `proto` of a `Forwarded` (RFC 7239, 4); `None` where it cannot be read.
fn protos(value: &[u8]) -> Option<Vec<&[u8]>> {
    let (mut protos, mut quoted, mut escaped, mut begin) = (Vec::new(), false, false, 0);
    for (at, byte) in value.iter().copied().chain([b';']).enumerate() {
        if quoted && at < value.len() {
            (quoted, escaped) = (escaped || byte != b'"', !escaped && byte == b'\\');
        } else if byte == b'"' {
            quoted = true;
        } else if byte == b';' || byte == b',' {
            let pair = value.get(begin..at)?.trim_ascii();
            begin = at + 1;
            if pair.is_empty() {
                continue;
            }
            let equals = pair.iter().position(|byte| *byte == b'=')?;
            let (name, word) = (pair.get(..equals)?, pair.get(equals + 1..)?);
            if name.eq_ignore_ascii_case(b"proto") {
                let inner = word.strip_prefix(b"\"").and_then(|word| word.strip_suffix(b"\""));
                protos.push(inner.unwrap_or(word));
            }
        }
    }
    (!quoted).then_some(protos)
}

#[cfg(test)]
mod tests {
    use std::rc::Rc;

    use super::super::clock::Clock;
    use super::*;

    fn fields(pairs: &[(&str, &str)]) -> Fields {
        let mut fields = Fields::default();
        for (name, value) in pairs {
            fields.push(name.as_bytes(), value.as_bytes());
        }
        fields
    }

    #[test]
    fn the_client_is_the_first_from_the_right_that_is_no_proxy() {
        let proxies = ["10.0.0.0/8", "2001:db8::/32"].map(|net| net.parse().expect("a network"));
        let check = |values: &[&str], wanted: Option<&str>| {
            let pairs: Vec<_> = values.iter().map(|value| ("x-forwarded-for", *value)).collect();
            let got = client(&proxies, &fields(&pairs)).map(|address| address.to_string());
            assert_eq!(got.as_deref(), wanted, "{values:?}");
        };
        check(&[], None);
        check(&["192.0.2.1"], Some("192.0.2.1"));
        check(&["203.0.113.9, 192.0.2.1, 10.0.0.1"], Some("192.0.2.1"));
        check(&["203.0.113.9", "192.0.2.1", "10.0.0.1,10.0.0.2"], Some("192.0.2.1"));
        check(&["10.0.0.1, 10.0.0.2"], Some("10.0.0.1"));
        check(&["192.0.2.1, unknown, 10.0.0.2"], Some("10.0.0.2"));
        check(&["unknown"], None);
        check(&["192.0.2.1:4711"], Some("192.0.2.1"));
        check(&["[2001:db9::1]:4711, 2001:db8::1"], Some("2001:db9::1"));
        check(&["[2001:db9::1]"], Some("2001:db9::1"));
        check(&["::ffff:10.0.0.1", "::ffff:192.0.2.1"], Some("192.0.2.1"));
        check(&["192.0.2.1, ::ffff:10.0.0.1"], Some("192.0.2.1"));
    }

    #[test]
    fn https_is_what_everybody_says_who_is_trusted() {
        let clock = Rc::new(Clock::default());
        let check = |pairs: &[(&str, &str)], wanted: Scheme| {
            let mut peer = Peer::new(SocketAddr::from(([10, 0, 0, 1], 1)), &clock);
            let fields = fields(pairs);
            assert_eq!(scheme(&peer, true, &fields), wanted, "{pairs:?}");
            assert_eq!(scheme(&peer, false, &fields), Scheme::Http, "{pairs:?}");
            peer.scheme = Scheme::Https;
            let over_tls = if pairs.is_empty() { Scheme::Https } else { wanted };
            assert_eq!(scheme(&peer, true, &fields), over_tls, "{pairs:?}");
            assert_eq!(scheme(&peer, false, &fields), Scheme::Https, "{pairs:?}");
        };
        let (proto, forwarded) = ("x-forwarded-proto", "forwarded");
        check(&[], Scheme::Http);
        for value in ["https", "HTTPS", "https, https", "wss"] {
            check(&[(proto, value)], Scheme::Https);
        }
        for value in ["http", "", "https,", "https,http", "http,https", "https http", "httpss", "\"https\""] {
            check(&[(proto, value)], Scheme::Http);
        }
        check(&[(proto, "https"), (proto, "http")], Scheme::Http);
        check(&[(proto, "https"), (proto, "https")], Scheme::Https);
        for value in [
            "proto=https",
            "for=1.2.3.4;Proto=HTTPS",
            "for=\"[::1]:80\";proto=\"https\"",
            "proto=https, for=1.2.3.4;proto=https",
            "for=\"a\\\"; proto=http\";proto=https",
        ] {
            check(&[(forwarded, value)], Scheme::Https);
            check(&[(proto, "http"), (forwarded, value)], Scheme::Http);
            check(&[(proto, "https"), (forwarded, value)], Scheme::Https);
        }
        for value in [
            "proto=http",
            "proto=https, proto=http",
            "proto=https;proto=http",
            "proto=",
            "proto=https;\"",
            "for=\"a;proto=https",
            "proto=https;x",
        ] {
            check(&[(forwarded, value)], Scheme::Http);
            check(&[(proto, "https"), (forwarded, value)], Scheme::Http);
        }
    }
}

//! `upstreams:`: the services behind us.

use std::net::SocketAddr;
use std::path::Path;

use super::fields::{Fields, Report};
use super::node::Node;
use super::trust::Trust;

/// A service that requests are forwarded to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// As surfaces and metrics name it.
    pub name: Box<str>,
    /// Where it is.
    pub address: Address,
    /// Set where it speaks TLS.
    pub tls: Option<Trust>,
    /// What else it speaks; [`Protocol::Http1`] unless written.
    pub protocol: Protocol,
}

/// What a service is spoken to with. HTTP/1.1 unless written: every server has it, and it costs less than HTTP/2 where
/// the server is near.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// HTTP/1.1.
    Http1,
    /// HTTP/2, known beforehand (RFC 9113, 3.3), or agreed on under TLS.
    Http2,
    /// What the service chooses of both under TLS (RFC 7301).
    Auto,
}

/// Where a service is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Address {
    /// Fixed.
    Socket(SocketAddr),
    /// Looked up at the start and every [`Address::RESOLVE_EVERY_SECONDS`] after.
    Name {
        /// A DNS name.
        host: Box<str>,
        /// Its port.
        port: u16,
    },
}

const PROTOCOLS: [(&str, Protocol); 3] =
    [("http1", Protocol::Http1), ("http2", Protocol::Http2), ("auto", Protocol::Auto)];

impl Protocol {
    /// As it is written.
    #[must_use]
    pub fn name(self) -> &'static str {
        PROTOCOLS.iter().find(|(_, known)| *known == self).map_or("", |(name, _)| name)
    }
}

impl Address {
    /// The system's resolver tells no time to live; half a minute is what cluster DNS serves by default.
    pub const RESOLVE_EVERY_SECONDS: u64 = 30;
}

impl Upstream {
    pub(super) fn read(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let entries = node.mapping("`upstreams`", report)?;
        if entries.is_empty() {
            report.error(
                node.place,
                "`upstreams` is empty",
                "where requests go: `telapi: { address: 127.0.0.1:3001 }`",
            );
        }
        // All of them are read, so that the problems of all are found.
        let read: Vec<_> = entries
            .iter()
            .map(|(name, value)| {
                let known = name.word("the name of an upstream", report);
                let upstream = Self::one(&name.text, value, folder, report);
                known.and(upstream)
            })
            .collect();
        read.into_iter().collect()
    }

    fn one(name: &str, node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let what = format!("upstream `{name}`");
        let mut fields = Fields::of(node, &what, report)?;
        let address = fields.need("address", "write it as `address: host:port`", report);
        let address = address.and_then(|node| Self::address(node, &what, report));
        let tls = fields.maybe("tls", report, |node, report| {
            // Where its address cannot be read, that has been said.
            Trust::read(node, address.as_ref()?, folder, report)
        });
        let protocol = fields.or("protocol", Protocol::Http1, report, |node, report| {
            let protocol = node.one_of(&format!("`protocol` of {what}"), &PROTOCOLS, report)?;
            if protocol == Protocol::Auto && matches!(tls, Some(None)) {
                let message = format!("`protocol: auto` of {what} needs `tls`, under which it is agreed on");
                let hint =
                    "add `tls: system` or `tls: { ca_file: … }`; without TLS, write `http1` or `http2`";
                report.error(node.place, message, hint);
                return None;
            }
            Some(protocol)
        });
        fields.done(report);
        Some(Self { name: name.into(), address: address?, tls: tls?, protocol: protocol? })
    }

    fn address(node: &Node, what: &str, report: &mut Report<'_>) -> Option<Address> {
        let text = node.text(&format!("`address` of {what}"), report)?;
        let address = Address::parse(text);
        if address.is_none() {
            let behind = text.rsplit(']').next().unwrap_or_default();
            let message = match (text.contains("://"), behind.contains(':')) {
                (true, _) => format!("`{text}` is a URL"),
                (false, false) => format!("`{text}` has no port"),
                (false, true) => format!("`{text}` is not a host with a port"),
            };
            let hint = "write it as 127.0.0.1:3001, [::1]:3001 or telapi.internal:3001";
            report.error(node.place, message, hint);
        }
        address
    }
}

impl Address {
    /// An address, or a name of letters, digits, `-` and `_` whose last label is no number: `300.1.1.1` is neither.
    pub(super) fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse::<SocketAddr>() {
            return (address.port() != 0).then_some(Self::Socket(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let port = port.parse().ok().filter(|port| *port != 0)?;
        let label = |label: &str| {
            let good = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
            (1..=63).contains(&label.len()) && label.bytes().all(good)
        };
        let name = host.strip_suffix('.').unwrap_or(host);
        let last = name.rsplit('.').next().unwrap_or_default();
        let is_name = name.len() <= 253 && name.split('.').all(label) && last.parse::<u64>().is_err();
        is_name.then(|| Self::Name { host: host.into(), port })
    }

    /// What is sent there leaves no machine.
    pub(super) fn is_this_machine(&self) -> bool {
        match self {
            Self::Socket(address) => address.ip().is_loopback(),
            Self::Name { host, .. } => **host == *"localhost",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(text: &str, wanted: Option<&str>) {
        let said = Address::parse(text).map(|address| match address {
            Address::Socket(address) => format!("socket {address}"),
            Address::Name { host, port } => format!("name {host} {port}"),
        });
        assert_eq!(said.as_deref(), wanted, "{text}");
    }

    #[test]
    fn addresses() {
        check("127.0.0.1:3001", Some("socket 127.0.0.1:3001"));
        check("[::1]:3001", Some("socket [::1]:3001"));
        check("hooks.internal:3002", Some("name hooks.internal 3002"));
        check("my_service:80", Some("name my_service 80"));
        check("host.:80", Some("name host. 80"));
        for text in [
            "",
            ":1",
            "host",
            "host:",
            "host:0",
            "127.0.0.1:0",
            "host:65536",
            "::1:3001",
            "[::1]",
            "300.1.1.1:80",
        ] {
            check(text, None);
        }
        for text in ["http://host:80", "host:80/path", "a..b:80", "user@host:80", "ho st:80", "hôst:80"] {
            check(text, None);
        }
    }
}

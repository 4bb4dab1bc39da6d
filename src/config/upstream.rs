//! `upstreams:`: the services behind us.

use std::net::SocketAddr;

use super::fields::{Fields, Report};
use super::node::Node;

/// A service that requests are forwarded to, over HTTP/1.1.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Upstream {
    /// As surfaces and metrics name it.
    pub name: Box<str>,
    /// Where it is.
    pub address: Address,
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

impl Address {
    /// The system's resolver tells no time to live; half a minute is what cluster DNS serves by default.
    pub const RESOLVE_EVERY_SECONDS: u64 = 30;
}

impl Upstream {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let entries = node.mapping("`upstreams`", report)?;
        if entries.is_empty() {
            report.error(
                node.place,
                "`upstreams` is empty",
                "where requests go: `telapi: { address: 127.0.0.1:3001 }`",
            );
        }
        entries
            .iter()
            .map(|(name, value)| {
                let what = format!("upstream `{}`", name.text);
                let mut fields = Fields::of(value, &what, report)?;
                let address = fields.need("address", "write it as `address: host:port`", report);
                fields.done(report);
                let address = address?;
                let text = address.text(&format!("`address` of {what}"), report)?;
                let parsed = Address::parse(text);
                if parsed.is_none() {
                    report.error(
                        address.place,
                        format!("`{text}` is no host with a port"),
                        "write it as 127.0.0.1:3001, [::1]:3001 or telapi.internal:3001",
                    );
                }
                Some(Self { name: name.text.as_str().into(), address: parsed? })
            })
            .collect()
    }
}

impl Address {
    fn parse(text: &str) -> Option<Self> {
        if let Ok(address) = text.parse() {
            return Some(Self::Socket(address));
        }
        let (host, port) = text.rsplit_once(':')?;
        let label = |label: &str| {
            (1..=63).contains(&label.len())
                && label.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_')
        };
        // What ends in digits is an address that is not one, such as 300.1.1.1.
        let name = host.trim_end_matches('.').split('.').all(label)
            && !host.ends_with(|last: char| last.is_ascii_digit())
            || host.contains(|c: char| c.is_ascii_alphabetic());
        let port = port.parse().ok().filter(|port| *port != 0)?;
        (name && host.len() <= 253 && host.trim_end_matches('.').split('.').all(label))
            .then(|| Self::Name { host: host.into(), port })
    }
}

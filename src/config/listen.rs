//! `listen:`, `admin:`, `workers:` and `log:`: what is bound once, at the start.

use std::net::SocketAddr;
use std::path::Path;

use super::fields::{Fields, Report};
use super::node::Node;
use super::tls::Tls;

/// One socket that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 takes any free port; the start-up log says which.
    pub address: SocketAddr,
    /// Set where clients speak TLS.
    pub tls: Option<Tls>,
}

/// The admin listener.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Admin {
    /// [`Admin::DEFAULT`] unless written.
    pub address: SocketAddr,
}

impl Admin {
    /// Loopback, so that nobody outside the pod reads metrics before somebody decides that; 9901 is
    /// where Envoy's users look for it.
    pub const DEFAULT: SocketAddr =
        SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9901);
}

/// What is written of requests and of ourselves.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Log {
    /// One JSON line a request on standard output; on unless written otherwise.
    pub access: bool,
    /// Events on standard error.
    pub events: Events,
}

/// The form of events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Events {
    /// For collectors; the default, since a sidecar's reader is a machine first.
    Json,
    /// For a terminal.
    Text,
}

impl Default for Admin {
    fn default() -> Self {
        Self { address: Self::DEFAULT }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self { access: true, events: Events::Json }
    }
}

impl Listen {
    pub(super) fn read(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let items = node.list("`listen`", report)?;
        if items.is_empty() {
            report.error(
                node.place,
                "`listen` is empty",
                "where clients connect: `listen: [{ address: 0.0.0.0:8080 }]`",
            );
        }
        let read = items.iter().map(|item| Self::read_one(item, path, report));
        // All of them are read, so that the problems of all are found.
        read.collect::<Vec<_>>().into_iter().collect()
    }

    fn read_one(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "an item of `listen`", report)?;
        let address = address(&mut fields, report);
        let tls = fields.maybe("tls", report, |node, report| Tls::read(node, path, report));
        fields.done(report);
        Some(Self { address: address?, tls: tls? })
    }
}

impl Admin {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`admin`", report)?;
        let address = address(&mut fields, report);
        fields.done(report);
        Some(Self { address: address? })
    }
}

impl Log {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, "`log`", report)?;
        let access =
            fields.or("access", default.access, report, |node, report| node.bool("`access`", report));
        let events = fields.take("events").map_or(Some(default.events), |node| {
            node.one_of("`events`", &[("json", Events::Json), ("text", Events::Text)], report)
        });
        fields.done(report);
        Some(Self { access: access?, events: events? })
    }
}

fn address(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<SocketAddr> {
    let node = fields.need("address", "write it as `address: 0.0.0.0:8080`", report)?;
    let text = node.text("`address`", report)?;
    let parsed = text.parse();
    if parsed.is_err() {
        report.error(
            node.place,
            format!("`{text}` is not an address with a port"),
            "write it as 0.0.0.0:8080 or [::]:8080; a name is not taken here",
        );
    }
    parsed.ok()
}

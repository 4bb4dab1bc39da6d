//! `listen:`, `admin:`, `workers:` and `log:`: what is bound once, at the start.

use std::net::SocketAddr;
use std::path::Path;

use ipnet::IpNet;

use super::fields::{Fields, Report};
use super::node::Node;
use super::problem::Place;
use super::tls::Tls;

/// One socket that clients connect to.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Listen {
    /// Port 0 takes any free port; the start-up log says which.
    pub address: SocketAddr,
    /// Whether its connections begin with a PROXY protocol header.
    pub proxy_protocol: ProxyProtocol,
    /// What becomes of a request that came over plain HTTP.
    pub https_only: HttpsOnly,
    /// Set where clients speak TLS.
    pub tls: Option<Tls>,
}

/// Whether connections begin with a PROXY protocol header. There is no "maybe": who may leave it out may write it himself.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum ProxyProtocol {
    /// Such a header is no HTTP. The default: most balancers send none.
    #[default]
    Refused,
    /// One of `trusted_proxies` sends it first.
    Required,
}

/// What becomes of a request that came over plain HTTP.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum HttpsOnly {
    /// It is as good as any. The default: behind a mesh or a balancer all of it is plain.
    #[default]
    Off,
    /// It is refused.
    Refuse,
    /// GET and HEAD are sent to the same place over HTTPS; everything else is refused.
    Redirect,
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
        // All of them are read, so that the problems of all are found.
        items.iter().map(|item| Self::read_one(item, path, report)).collect::<Vec<_>>().into_iter().collect()
    }

    fn read_one(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "an item of `listen`", report)?;
        let address = address(&mut fields, report);
        let proxy_protocol = fields.or("proxy_protocol", ProxyProtocol::Refused, report, |node, report| {
            let words = [("required", ProxyProtocol::Required), ("refused", ProxyProtocol::Refused)];
            node.one_of("`proxy_protocol`", &words, report)
        });
        let https_only = fields.or("https_only", HttpsOnly::Off, report, |node, report| {
            let words =
                [("off", HttpsOnly::Off), ("refuse", HttpsOnly::Refuse), ("redirect", HttpsOnly::Redirect)];
            node.one_of("`https_only`", &words, report)
        });
        let tls = fields.maybe("tls", report, |node, report| Tls::read(node, path, report));
        fields.done(report);
        Some(Self { address: address?, proxy_protocol: proxy_protocol?, https_only: https_only?, tls: tls? })
    }

    /// Clients are asked for a certificate.
    pub(super) fn asks(&self) -> bool {
        self.tls.as_ref().is_some_and(|tls| tls.clients.is_some())
    }

    /// Nobody could connect to a listener whose header nobody may send.
    pub(super) fn check(all: &[Self], trusted: &[IpNet], place: Place, report: &mut Report<'_>) {
        if trusted.is_empty() && all.iter().any(|listen| listen.proxy_protocol == ProxyProtocol::Required) {
            report.error(
                place,
                "`proxy_protocol: required`, and nobody may send it: there are no `trusted_proxies`",
                "list your balancer's addresses: `trusted_proxies: [10.0.0.0/8]`",
            );
        }
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

//! `tls:` of a listener: what it proves itself with, and whom it asks for a certificate.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::fields::{Fields, Report};
use super::node::Node;

/// How a listener speaks TLS.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tls {
    /// Never empty; the first is for clients that name no server.
    pub certificates: Vec<Pair>,
    /// The oldest version that is spoken.
    pub min_version: MinVersion,
    /// Who names a server that no certificate is for.
    pub unknown_name: UnknownName,
    /// How long a handshake may take.
    pub handshake: Duration,
    /// Set where clients are asked for a certificate.
    pub clients: Option<Clients>,
}

/// A certificate, and the key that it is for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pair {
    /// PEM: the certificate, then those that lead to its root.
    pub certificate: PathBuf,
    /// PEM: PKCS #8, PKCS #1 or SEC1.
    pub key: PathBuf,
}

/// The oldest version that is spoken.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MinVersion {
    /// The default: clients of before 2018 are still about, and with the suites of rustls it is no weaker.
    Tls12,
    /// For who knows all its clients.
    Tls13,
}

/// Who names a server that no certificate is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum UnknownName {
    /// Gets the first certificate, and may take it or leave. The default: probes and clients by address name none.
    First,
    /// Gets none. Who names no server gets the first all the same.
    Refuse,
}

/// Whom clients' certificates must come from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Clients {
    /// PEM: the authorities that are believed.
    pub ca: PathBuf,
    /// Who has none is not let in.
    pub required: bool,
    /// PEM: lists of what those authorities have taken back.
    pub crl: Vec<PathBuf>,
    /// When a newer list was due.
    pub crl_expired: CrlExpired,
    /// Whose certificates must not have been taken back.
    pub crl_depth: CrlDepth,
}

/// What becomes of clients whose authority has a list for which a newer one was due (`nextUpdate`: RFC 5280, 5.1.2.5).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlExpired {
    /// They are not let in. The default, as in nginx, HAProxy and Envoy: nobody can say what was taken back since, and who
    /// keeps lists from coming must not gain by it.
    Refuse,
    /// The list is read on. For who would rather let in one too many than none.
    Accept,
}

/// Which certificates of a chain are looked for in the lists.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrlDepth {
    /// All below the authority in `ca`, each of whose issuers must have a list. The default, as in nginx, HAProxy and Envoy:
    /// an authority that was taken back vouches for nobody.
    Chain,
    /// The client's own. For authorities whose root gives out no list.
    Leaf,
}

impl Tls {
    /// As long as a head may take: a phone on a bad line needs seconds, and who needs more holds a place for nothing.
    pub const HANDSHAKE: Duration = Duration::from_secs(10);

    pub(super) fn read(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`tls`", report)?;
        let folder = path.parent().unwrap_or(Path::new(""));
        let hint = "what it proves itself with: `certificates: [{ certificate: tls.crt, key: tls.key }]`";
        let certificates =
            fields.need("certificates", hint, report).and_then(|node| pairs(node, folder, hint, report));
        let min_version = fields.or("min_version", MinVersion::Tls12, report, |node, report| {
            let words = [("1.2", MinVersion::Tls12), ("1.3", MinVersion::Tls13)];
            node.one_of("`min_version`", &words, report)
        });
        let unknown_name = fields.or("unknown_name", UnknownName::First, report, |node, report| {
            let words = [("first", UnknownName::First), ("refuse", UnknownName::Refuse)];
            node.one_of("`unknown_name`", &words, report)
        });
        let handshake = fields
            .or("handshake", Self::HANDSHAKE, report, |node, report| node.duration("`handshake`", report));
        let clients =
            fields.maybe("client_certificates", report, |node, report| Clients::read(node, folder, report));
        fields.done(report);
        Some(Self {
            certificates: certificates?,
            min_version: min_version?,
            unknown_name: unknown_name?,
            handshake: handshake?,
            clients: clients?,
        })
    }

    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pairs = self.certificates.iter().flat_map(|pair| [&*pair.certificate, &*pair.key]);
        let clients = self.clients.iter().flat_map(|clients| {
            std::iter::once(&*clients.ca).chain(clients.crl.iter().map(PathBuf::as_path))
        });
        pairs.chain(clients)
    }
}

impl Clients {
    fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`client_certificates`", report)?;
        let ca = fields.need("ca", "the authorities that are believed: `ca: clients.pem`", report);
        let ca = ca.and_then(|node| node.text("`ca`", report));
        let required =
            fields.need("required", "`true`, or `false` where a key alone will do as well", report);
        let required = required.and_then(|node| node.bool("`required`", report));
        let crl = fields.or("crl", Vec::new(), report, |node, report| {
            let words = node.words("`crl`", report)?;
            Some(words.into_iter().map(|(_, word)| folder.join(word)).collect())
        });
        let crl_expired = fields.or("crl_expired", CrlExpired::Refuse, report, |node, report| {
            let words = [("refuse", CrlExpired::Refuse), ("accept", CrlExpired::Accept)];
            node.one_of("`crl_expired`", &words, report)
        });
        let crl_depth = fields.or("crl_depth", CrlDepth::Chain, report, |node, report| {
            let words = [("chain", CrlDepth::Chain), ("leaf", CrlDepth::Leaf)];
            node.one_of("`crl_depth`", &words, report)
        });
        fields.done(report);
        Some(Self {
            ca: folder.join(ca?),
            required: required?,
            crl: crl?,
            crl_expired: crl_expired?,
            crl_depth: crl_depth?,
        })
    }
}

fn pairs(node: &Node, folder: &Path, hint: &str, report: &mut Report<'_>) -> Option<Vec<Pair>> {
    let items = node.list("`certificates`", report)?;
    if items.is_empty() {
        report.error(node.place, "`certificates` is empty", hint);
    }
    let read = items.iter().map(|item| {
        let mut fields = Fields::of(item, "an item of `certificates`", report)?;
        let mut file = |name, why, report: &mut Report<'_>| {
            let node = fields.need(name, why, report)?;
            node.text(&format!("`{name}`"), report).map(|file| folder.join(file))
        };
        let certificate = file("certificate", "a PEM file: the certificate and its chain", report);
        let key = file("key", "a PEM file: the private key of the certificate", report);
        fields.done(report);
        Some(Pair { certificate: certificate?, key: key? })
    });
    // All of them are read, so that the problems of all are found.
    read.collect::<Vec<_>>().into_iter().collect()
}

//! `tls:` of an upstream: whom we believe to be it, and who we say we are.

use std::path::{Path, PathBuf};

use tokio_rustls::rustls::pki_types::ServerName;

use super::fields::{Fields, Report};
use super::node::{Node, Value};
use super::tls::Pair;
use super::upstream::Address;

/// How an upstream is spoken to over TLS. That it is who it says it is cannot be left unasked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trust {
    /// PEM: whose word is taken; the system's own authorities where it is `None`.
    pub ca_file: Option<PathBuf>,
    /// Who its certificate has to be for: the host of its address unless written.
    pub server_name: ServerName<'static>,
    /// What we prove ourselves with where it asks.
    pub identity: Option<Pair>,
}

impl Trust {
    /// Of an upstream at this address.
    pub(super) fn read(
        node: &Node,
        address: &Address,
        folder: &Path,
        report: &mut Report<'_>,
    ) -> Option<Self> {
        let host = match address {
            Address::Socket(address) => ServerName::from(address.ip()),
            // A dot at the end is for the resolver alone: no certificate has it.
            Address::Name { host, .. } => named(host.trim_end_matches('.'), node, report)?,
        };
        if let Value::Text(_) = node.value {
            let words = [("system", ())];
            return node.one_of("`tls`", &words, report).map(|()| Self {
                ca_file: None,
                server_name: host,
                identity: None,
            });
        }
        let mut fields = Fields::of(node, "`tls`", report)?;
        let mut file = |name, report: &mut Report<'_>| {
            fields.maybe(name, report, |node, report| {
                node.text(&format!("`{name}`"), report).map(|file| folder.join(file))
            })
        };
        let ca_file = file("ca_file", report);
        let (certificate, key) = (file("certificate", report), file("key", report));
        let server_name = fields.or("server_name", host, report, |node, report| {
            named(node.text("`server_name`", report)?, node, report)
        });
        fields.done(report);
        let identity = match (certificate?, key?) {
            (None, None) => None,
            (Some(certificate), Some(key)) => Some(Pair { certificate, key }),
            (Some(_), None) | (None, Some(_)) => {
                let hint = "write `certificate: client.crt` and `key: client.key`, or neither";
                report.error(node.place, "of `certificate` and `key` one is missing", hint);
                return None;
            }
        };
        Some(Self { ca_file: ca_file?, server_name: server_name?, identity })
    }
}

impl Trust {
    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let pair = self.identity.iter().flat_map(|pair| [&*pair.certificate, &*pair.key]);
        self.ca_file.iter().map(PathBuf::as_path).chain(pair)
    }
}

fn named(name: &str, node: &Node, report: &mut Report<'_>) -> Option<ServerName<'static>> {
    let read = ServerName::try_from(name.to_owned()).ok();
    if read.is_none() {
        let hint = "write `server_name:` as the certificate has it: a DNS name, or an IP address";
        report.error(node.place, format!("no certificate can be for `{name}`"), hint);
    }
    read
}

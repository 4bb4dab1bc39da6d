//! Which certificate a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_rustls::rustls::SignatureScheme;
use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::tls::UnknownName;

/// Certificates by the names that are in them.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// Without the `*.`, which stands for one label (RFC 9525, 6.3).
    wild: HashMap<Box<str>, Vec<Arc<CertifiedKey>>>,
    /// For who names no server.
    first: Option<Arc<CertifiedKey>>,
    unknown: UnknownName,
}

impl Names {
    /// No certificate yet.
    pub(super) fn new(unknown: UnknownName) -> Self {
        Self { exact: HashMap::new(), wild: HashMap::new(), first: None, unknown }
    }

    /// A certificate for these names. Where two are for one name, the first is used that the client can verify: an RSA key
    /// may stand behind an ECDSA one.
    pub(super) fn add(&mut self, names: &[String], pair: &Arc<CertifiedKey>) {
        self.first.get_or_insert_with(|| Arc::clone(pair));
        for name in names {
            let name = name.to_ascii_lowercase();
            let (names, name) = match name.strip_prefix("*.") {
                Some(rest) => (&mut self.wild, rest),
                None => (&mut self.exact, &*name),
            };
            names.entry(name.into()).or_default().push(Arc::clone(pair));
        }
    }

    fn find(&self, name: &str, schemes: &[SignatureScheme]) -> Option<&Arc<CertifiedKey>> {
        let wild = || self.wild.get(name.split_once('.')?.1);
        let all = self.exact.get(name).or_else(wild)?;
        all.iter().find(|pair| pair.key.choose_scheme(schemes).is_some()).or(all.first())
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return self.first.clone() };
        let found = self.find(&name.to_ascii_lowercase(), hello.signature_schemes());
        let unknown = || self.first.as_ref().filter(|_| self.unknown == UnknownName::First);
        found.or_else(unknown).cloned()
    }
}

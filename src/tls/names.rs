//! Which certificate a client gets.

use std::collections::HashMap;
use std::sync::Arc;

use tokio_rustls::rustls::server::{ClientHello, ResolvesServerCert};
use tokio_rustls::rustls::sign::CertifiedKey;

use crate::config::tls::UnknownName;

/// Certificates by the names that are in them.
#[derive(Debug)]
pub(super) struct Names {
    exact: HashMap<Box<str>, Arc<CertifiedKey>>,
    /// Without the `*.`, which stands for one label (RFC 9525, 6.3).
    wild: HashMap<Box<str>, Arc<CertifiedKey>>,
    first: Arc<CertifiedKey>,
    unknown: UnknownName,
}

impl Names {
    /// None but the first certificate yet.
    pub(super) fn new(first: Arc<CertifiedKey>, unknown: UnknownName) -> Self {
        Self { exact: HashMap::new(), wild: HashMap::new(), first, unknown }
    }

    /// A certificate for this name too. Where two are for one name, the first of them is used.
    pub(super) fn add(&mut self, name: &str, pair: &Arc<CertifiedKey>) {
        let name = name.to_ascii_lowercase();
        let (names, name) = match name.strip_prefix("*.") {
            Some(rest) => (&mut self.wild, rest),
            None => (&mut self.exact, &*name),
        };
        names.entry(name.into()).or_insert_with(|| Arc::clone(pair));
    }

    fn find(&self, name: &str) -> Option<&Arc<CertifiedKey>> {
        let wild = || self.wild.get(name.split_once('.')?.1);
        self.exact.get(name).or_else(wild)
    }
}

impl ResolvesServerCert for Names {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let Some(name) = hello.server_name() else { return Some(Arc::clone(&self.first)) };
        let found = self.find(&name.to_ascii_lowercase());
        let known = found.or_else(|| (self.unknown == UnknownName::First).then_some(&self.first));
        known.map(Arc::clone)
    }
}

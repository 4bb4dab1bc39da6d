//! From PEM files to certificates, keys, authorities and what those have taken back.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{self, CipherSuite, NamedGroup, RootCertStore};
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::expiry::{Expiry, Of};
use crate::config::problem::{Problem, Severity};
use crate::config::tls::Pair;

/// A key exchange that holds as long as one of its halves does, of which a quantum computer breaks one.
pub(super) const HYBRID: NamedGroup = NamedGroup::X25519MLKEM768;

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Proof {
    pub(super) pair: Arc<CertifiedKey>,
    /// The DNS names that it is for.
    pub(super) names: Vec<String>,
    pub(super) expiry: Expiry,
}

/// A file of lists of certificates that were taken back.
#[derive(Debug)]
pub(super) struct List {
    pub(super) lists: Vec<CertificateRevocationListDer<'static>>,
    /// `None` where none of them says when the next is due.
    pub(super) expiry: Option<Expiry>,
}

/// The provider's own, a hybrid with ML-KEM first: who records traffic today cannot read it with a quantum computer later.
/// Of the suites, those with AES-128 come first: processors have instructions for SHA-256 and seldom any for SHA-384, which
/// took a fifth of a handshake that resumes a session.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let first = [
            CipherSuite::TLS13_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
            CipherSuite::TLS_ECDHE_RSA_WITH_AES_128_GCM_SHA256,
        ];
        !first.contains(&suite.suite())
    });
    provider.kx_groups.sort_by_key(|group| group.name() != HYBRID);
    provider
}

/// A certificate with its key.
pub(super) fn proof(written: &Pair, provider: &Arc<CryptoProvider>) -> Result<Proof, Problem> {
    let file = &*written.certificate;
    let chain = certificates(file)?;
    let leaf = chain.first().and_then(|leaf| X509Certificate::from_der(leaf).ok().map(|(_, leaf)| leaf));
    let Some(leaf) = leaf else {
        return Err(unusable(
            file,
            "its first certificate cannot be read",
            "a PEM file of X.509 certificates",
        ));
    };
    let (names, at) = (names(&leaf), at(leaf.validity().not_after.timestamp()));
    let key = private_key(&written.key)?;
    let pair = CertifiedKey::from_der(chain, key, provider).map_err(|error| {
        if matches!(error, rustls::Error::InconsistentKeys(_)) {
            let message = format!("the key is not that of the certificate {}", file.display());
            return unusable(&written.key, &message, "give the key that the certificate was made for");
        }
        unusable(&written.key, &format!("cannot be used: {error}"), "an RSA, ECDSA or Ed25519 key")
    })?;
    Ok(Proof {
        pair: Arc::new(pair),
        names,
        expiry: Expiry { file: file.to_owned(), at, of: Of::Certificate },
    })
}

/// The same with the hybrid group alone; `None` where it has none.
pub(super) fn hybrid(provider: &CryptoProvider) -> Option<CryptoProvider> {
    let mut provider = provider.clone();
    provider.kx_groups.retain(|group| group.name() == HYBRID);
    (!provider.kx_groups.is_empty()).then_some(provider)
}

/// Whether this build may use a configuration that is, or is not, as FIPS 140-3 wants it.
pub(super) fn may_use(fips: bool) -> Result<(), &'static str> {
    if fips || !cfg!(feature = "fips") {
        Ok(())
    } else {
        Err("this build is for FIPS 140-3, and this is not so")
    }
}

/// Without a passphrase.
pub(super) fn private_key(file: &Path) -> Result<PrivateKeyDer<'static>, Problem> {
    PrivateKeyDer::from_pem_slice(&bytes(file)?).map_err(|_| {
        let hint = "a PEM file that holds a private key without a passphrase, as PKCS #8, PKCS #1 or SEC1";
        unusable(file, "there is no private key in it", hint)
    })
}

/// The DNS names of a certificate (RFC 9525, 6: the common name counts for nothing).
fn names(leaf: &X509Certificate<'_>) -> Vec<String> {
    let found = leaf.subject_alternative_name().ok().flatten();
    let names = found.iter().flat_map(|names| &names.value.general_names).filter_map(|name| {
        if let GeneralName::DNSName(name) = name { Some((*name).to_owned()) } else { None }
    });
    names.collect()
}

fn at(seconds: i64) -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(u64::try_from(seconds).unwrap_or(0))
}

/// The lists of a file: one at least.
pub(super) fn list(file: &Path) -> Result<List, Problem> {
    let bytes = bytes(file)?;
    let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
    let hint = "PEM: a block that begins with `-----BEGIN X509 CRL-----`";
    let none = || unusable(file, "there is no revocation list in it", hint);
    let lists = read.ok().filter(|lists| !lists.is_empty()).ok_or_else(none)?;
    let mut expiry: Option<Expiry> = None;
    for list in &lists {
        let (_, list) = CertificateRevocationList::from_der(list).map_err(|_| none())?;
        let Some(next) = list.next_update().map(|next| at(next.timestamp())) else { continue };
        if expiry.as_ref().is_none_or(|first| next < first.at) {
            let since = at(list.last_update().timestamp());
            expiry = Some(Expiry { file: file.to_owned(), at: next, of: Of::List { since } });
        }
    }
    Ok(List { lists, expiry })
}

/// The authorities of a file: one at least.
pub(super) fn roots(file: &Path) -> Result<RootCertStore, Problem> {
    let mut roots = RootCertStore::empty();
    for certificate in certificates(file)? {
        roots.add(certificate).map_err(|error| {
            let message = format!("a certificate in it cannot be an authority: {error}");
            unusable(file, &message, "give the certificates of the authorities alone")
        })?;
    }
    Ok(roots)
}

pub(super) fn certificates(file: &Path) -> Result<Vec<CertificateDer<'static>>, Problem> {
    let bytes = bytes(file)?;
    let read: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(&bytes).collect();
    let read = read.map_err(|error| unusable(file, &format!("is no good PEM: {error}"), "copy it again"))?;
    if read.is_empty() {
        let hint = "PEM: blocks that begin with `-----BEGIN CERTIFICATE-----`";
        return Err(unusable(file, "there is no certificate in it", hint));
    }
    Ok(read)
}

/// Nothing is left of them when they are dropped: they may be a key.
fn bytes(file: &Path) -> Result<Zeroizing<Vec<u8>>, Problem> {
    std::fs::read(file).map(Zeroizing::new).map_err(|error| {
        let hint = "give the path of a file that this user may read";
        unusable(file, &format!("cannot be read: {error}"), hint)
    })
}

pub(super) fn unusable(file: &Path, message: &str, hint: &str) -> Problem {
    Problem { severity: Severity::Error, ..warning(file, message, hint) }
}

pub(super) fn warning(file: &Path, message: &str, hint: &str) -> Problem {
    let (severity, message, hint) = (Severity::Warning, message.to_owned(), Some(hint.to_owned()));
    Problem { file: file.to_owned(), place: None, severity, message, hint }
}

//! From PEM files to what a listener proves itself with.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, WebPkiClientVerifier};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{self, NamedGroup, RootCertStore, ServerConfig};
use x509_parser::prelude::{FromDer as _, GeneralName, X509Certificate};
use zeroize::Zeroizing;

use super::names::Names;
use crate::config::problem::{Problem, Problems, Severity};
use crate::config::tls::{Clients, MinVersion, Pair, Tls};

/// Enough for somebody to come back from a holiday; who renews by machine (ACME: 30 days ahead) is long done by then.
pub const WARN_AHEAD: Duration = Duration::from_secs(14 * 24 * 60 * 60);
/// Towards clients, the best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What was read for a listener.
#[derive(Debug)]
pub struct Identity {
    /// For its handshakes.
    pub config: Arc<ServerConfig>,
    /// When each of its certificates ends.
    pub expiries: Vec<Expiry>,
}

/// When a certificate ends.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Expiry {
    /// Where it was read.
    pub file: PathBuf,
    /// Its last moment.
    pub at: SystemTime,
}

impl Expiry {
    /// What is to be said of it at this time.
    #[must_use]
    pub fn problem(&self, now: SystemTime) -> Option<Problem> {
        let when = humantime::format_rfc3339_seconds(self.at);
        let message = if self.is_over(now) {
            format!("this certificate has expired: it ended at {when}")
        } else if self.at <= now + WARN_AHEAD {
            format!("this certificate ends soon: at {when}")
        } else {
            return None;
        };
        let hint = "renew it and put it in the same place: it is read again without a restart";
        Some(problem(&self.file, Severity::Warning, message, hint))
    }

    /// It has ended.
    #[must_use]
    pub fn is_over(&self, now: SystemTime) -> bool {
        self.at <= now
    }
}

/// Reads all files of a listener's `tls:`.
pub fn read(tls: &Tls) -> Result<Identity, Problems> {
    let provider = Arc::new(provider());
    let (mut problems, mut pairs, mut expiries) = (Problems::default(), Vec::new(), Vec::new());
    for written in &tls.certificates {
        match pair(written, &provider) {
            Ok((pair, names, at)) => {
                pairs.push((Arc::new(pair), names));
                expiries.push(Expiry { file: written.certificate.clone(), at });
            }
            Err(problem) => problems.push(problem),
        }
    }
    let verifier = match tls.clients.as_ref().map(|clients| verifier(clients, &provider)).transpose() {
        Ok(verifier) => verifier,
        Err(problem) => {
            problems.push(problem);
            None
        }
    };
    let Some((first, _)) = pairs.first().filter(|_| problems.errors() == 0) else { return Err(problems) };
    let mut names = Names::new(Arc::clone(first), tls.unknown_name);
    for (pair, known) in &pairs {
        for name in known {
            names.add(name, pair);
        }
    }
    let config = config(tls, provider, verifier, names).map_err(|error| {
        let file = tls.certificates.first().map(|pair| pair.certificate.clone()).unwrap_or_default();
        Problems::of_file(&file, format!("cannot be used: {error}"), None)
    })?;
    Ok(Identity { config: Arc::new(config), expiries })
}

/// The provider's own, a hybrid with ML-KEM first: who records traffic today cannot read it with a quantum computer later.
pub(super) fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.kx_groups.sort_by_key(|group| group.name() != NamedGroup::X25519MLKEM768);
    provider
}

fn config(
    tls: &Tls,
    provider: Arc<CryptoProvider>,
    verifier: Option<Arc<dyn ClientCertVerifier>>,
    names: Names,
) -> Result<ServerConfig, rustls::Error> {
    let versions: &[_] = match tls.min_version {
        MinVersion::Tls12 => &[&TLS13, &TLS12],
        MinVersion::Tls13 => &[&TLS13],
    };
    let builder = ServerConfig::builder_with_provider(provider).with_protocol_versions(versions)?;
    let asks = verifier.is_some();
    let builder = match verifier {
        Some(verifier) => builder.with_client_cert_verifier(verifier),
        None => builder.with_no_client_auth(),
    };
    let mut config = builder.with_cert_resolver(Arc::new(names));
    config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
    // A lock that handshakes of all workers would share; tickets need none.
    config.session_storage = Arc::new(NoServerSessionStorage {});
    if asks {
        // A session that is resumed brings its certificate along unseen: one that has ended or was taken back since then
        // would open the door for as long as the ticket lives.
        config.send_tls13_tickets = 0;
    } else {
        config.ticketer = aws_lc_rs::Ticketer::new()?;
    }
    Ok(config)
}

/// A certificate with its key, the names that it is for, and when it ends.
fn pair(
    written: &Pair,
    provider: &Arc<CryptoProvider>,
) -> Result<(CertifiedKey, Vec<String>, SystemTime), Problem> {
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
    Ok((pair, names, at))
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

fn verifier(
    written: &Clients,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, Problem> {
    let roots = roots(&written.ca)?;
    let mut lists = Vec::new();
    for file in &written.crl {
        let bytes = bytes(file)?;
        let read: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(&bytes).collect();
        let read = read.ok().filter(|lists| !lists.is_empty());
        let hint = "PEM: a block that begins with `-----BEGIN X509 CRL-----`";
        lists.extend(read.ok_or_else(|| unusable(file, "there is no revocation list in it", hint))?);
    }
    let lists_given = !lists.is_empty();
    let builder = WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider));
    let mut builder = builder.with_crls(lists);
    if lists_given {
        // An authority between that has no list of its own has taken nothing back.
        builder = builder.only_check_end_entity_revocation();
    }
    if !written.required {
        builder = builder.allow_unauthenticated();
    }
    builder.build().map_err(|error| {
        let file = written.crl.first().unwrap_or(&written.ca);
        unusable(file, &format!("cannot be used: {error}"), "see `client_certificates` in docs/tls.md")
    })
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
    problem(file, Severity::Error, message.to_owned(), hint)
}

fn problem(file: &Path, severity: Severity, message: String, hint: &str) -> Problem {
    Problem { file: file.to_owned(), place: None, severity, message, hint: Some(hint.to_owned()) }
}

//! What a listener proves itself with, and whom it believes. Of each part what was good last is kept: a bad one holds back
//! no other, and a revocation least of all.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::server::danger::ClientCertVerifier;
use tokio_rustls::rustls::server::{NoServerSessionStorage, ProducesTickets, WebPkiClientVerifier};
use tokio_rustls::rustls::version::{TLS12, TLS13};
use tokio_rustls::rustls::{RootCertStore, ServerConfig};

use super::Terms;
use super::expiry::Expiry;
use super::names::Names;
use super::read::{self, List, Proof};
use crate::config::problem::{Problem, Problems};
use crate::config::tls::{CrlDepth, CrlExpired, MinVersion, Pair, Tls};

/// Towards clients, the best first (RFC 7301).
const PROTOCOLS: [&[u8]; 2] = [b"h2", b"http/1.1"];

/// What a listener proves itself with, and whom it believes.
#[derive(Debug)]
pub struct Identity {
    written: Tls,
    provider: Arc<CryptoProvider>,
    /// It outlives a change of the files: they say nothing of who may have a ticket.
    tickets: Arc<dyn ProducesTickets>,
    parts: Vec<(Part, Good)>,
}

/// What is good or bad by itself.
#[derive(Debug, Clone)]
pub enum Part {
    /// A certificate and its key.
    Proof(Pair),
    /// The authorities of clients.
    Roots(PathBuf),
    /// What they have taken back.
    List(PathBuf),
}

/// What was good in it last.
#[derive(Debug)]
enum Good {
    Proof(Proof),
    Roots(Arc<RootCertStore>),
    List(List),
}

impl Part {
    /// Of this `tls:`.
    pub fn all(written: &Tls) -> impl Iterator<Item = Self> {
        let proofs = written.certificates.iter().cloned().map(Self::Proof);
        let roots = written.clients.iter().map(|clients| Self::Roots(clients.ca.clone()));
        let lists = written.clients.iter().flat_map(|clients| clients.crl.iter().cloned().map(Self::List));
        proofs.chain(roots).chain(lists)
    }

    /// That it is read from, the one that it is known by first.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        let (first, second) = match self {
            Self::Proof(pair) => (&pair.certificate, Some(&pair.key)),
            Self::Roots(file) | Self::List(file) => (file, None),
        };
        std::iter::once(&**first).chain(second.map(|file| &**file))
    }

    fn read(&self, provider: &Arc<CryptoProvider>) -> Result<Good, Problem> {
        match self {
            Self::Proof(pair) => read::proof(pair, provider).map(Good::Proof),
            Self::Roots(file) => read::roots(file).map(Arc::new).map(Good::Roots),
            Self::List(file) => read::list(file).map(Good::List),
        }
    }
}

impl Good {
    fn expiry(&self) -> Option<&Expiry> {
        match self {
            Self::Proof(proof) => Some(&proof.expiry),
            Self::Roots(_) => None,
            Self::List(list) => list.expiry.as_ref(),
        }
    }

    fn is_over(&self, now: SystemTime) -> bool {
        self.expiry().is_some_and(|expiry| expiry.is_over(now))
    }
}

impl Identity {
    /// Reads all files of a listener's `tls:`, all of which must be good; with what its handshakes need.
    pub fn read(written: &Tls) -> Result<(Self, Terms), Problems> {
        let provider = Arc::new(read::provider());
        let (mut problems, mut parts) = (Problems::default(), Vec::new());
        for part in Part::all(written) {
            match part.read(&provider) {
                Ok(good) => parts.push((part, good)),
                Err(problem) => problems.push(problem),
            }
        }
        if problems.errors() > 0 {
            return Err(problems);
        }
        let blamed = |error: String| {
            let file = written.clients.iter().flat_map(|clients| &clients.crl).next();
            let file = file.or(written.certificates.first().map(|pair| &pair.certificate));
            Problems::of_file(file.map_or(Path::new(""), |file| file), error, None)
        };
        let tickets = aws_lc_rs::Ticketer::new().map_err(|error| blamed(error.to_string()))?;
        let this = Self { written: written.clone(), provider, tickets, parts };
        this.terms().map(|terms| (this, terms)).map_err(blamed)
    }

    /// Reads a part again, by its place in [`Part::all`]. On an error it stays what it was.
    pub fn look(&mut self, place: usize, now: SystemTime) -> Result<Terms, Problem> {
        let (part, good) = self.parts.get_mut(place).expect("a place is that of a part");
        let new = part.read(&self.provider)?;
        let file = part.files().next().expect("a part has a file").to_owned();
        // One that has ended is no better than what it would replace.
        if new.is_over(now) && !good.is_over(now) {
            let hint = "put one in its place that has not";
            return Err(read::unusable(&file, "has expired", hint));
        }
        let old = std::mem::replace(good, new);
        self.terms().map_err(|error| {
            if let Some((_, good)) = self.parts.get_mut(place) {
                *good = old;
            }
            read::unusable(&file, &error, "see docs/tls.md")
        })
    }

    fn terms(&self) -> Result<Terms, String> {
        let verifier = self.verifier()?;
        let names = Arc::new(self.names());
        let config = |provider| self.config(provider, verifier.clone(), Arc::clone(&names));
        let any = config(Arc::clone(&self.provider))?;
        let hybrid = read::hybrid(&self.provider).map(|provider| config(Arc::new(provider))).transpose()?;
        Ok(Terms { hybrid: hybrid.unwrap_or_else(|| Arc::clone(&any)), any })
    }

    fn config(
        &self,
        provider: Arc<CryptoProvider>,
        verifier: Option<Arc<dyn ClientCertVerifier>>,
        names: Arc<Names>,
    ) -> Result<Arc<ServerConfig>, String> {
        let versions: &[_] = match self.written.min_version {
            MinVersion::Tls12 => &[&TLS13, &TLS12],
            MinVersion::Tls13 => &[&TLS13],
        };
        let builder = ServerConfig::builder_with_provider(provider);
        let builder = builder.with_protocol_versions(versions).map_err(unusable)?;
        let asks = verifier.is_some();
        let builder = match verifier {
            Some(verifier) => builder.with_client_cert_verifier(verifier),
            None => builder.with_no_client_auth(),
        };
        let mut config = builder.with_cert_resolver(names);
        config.ignore_client_order = true;
        config.alpn_protocols = PROTOCOLS.map(<[u8]>::to_vec).to_vec();
        // A lock that handshakes of all workers would share; tickets need none.
        config.session_storage = Arc::new(NoServerSessionStorage {});
        // A client comes back with one; each that is sent is encrypted twice.
        config.send_tls13_tickets = 1;
        if asks {
            // A session that is resumed brings its certificate along unseen: one that has ended or was taken back since
            // then would open the door for as long as the ticket lives.
            config.send_tls13_tickets = 0;
        } else {
            config.ticketer = Arc::clone(&self.tickets);
        }
        read::may_use(config.fips()).map_err(unusable)?;
        Ok(Arc::new(config))
    }

    fn names(&self) -> Names {
        let mut names = Names::new(self.written.unknown_name);
        for (_, good) in &self.parts {
            if let Good::Proof(proof) = good {
                names.add(&proof.names, &proof.pair);
            }
        }
        names
    }

    /// What asks clients for a certificate, where they are asked.
    fn verifier(&self) -> Result<Option<Arc<dyn ClientCertVerifier>>, String> {
        let (mut authorities, mut lists) = (None, Vec::new());
        for (_, good) in &self.parts {
            match good {
                Good::Proof(_) => {}
                Good::Roots(roots) => authorities = Some(Arc::clone(roots)),
                Good::List(list) => lists.extend(list.lists.iter().cloned()),
            }
        }
        let (Some(clients), Some(roots)) = (&self.written.clients, authorities) else { return Ok(None) };
        let builder = WebPkiClientVerifier::builder_with_provider(roots, Arc::clone(&self.provider));
        let mut builder = builder.with_crls(lists);
        if clients.crl_expired == CrlExpired::Refuse {
            builder = builder.enforce_revocation_expiration();
        }
        if clients.crl_depth == CrlDepth::Leaf {
            builder = builder.only_check_end_entity_revocation();
        }
        if !clients.required {
            builder = builder.allow_unauthenticated();
        }
        builder.build().map(Some).map_err(unusable)
    }

    /// What is to be said of it at this time: what ends, and what nobody will see.
    pub fn warnings(&self, now: SystemTime) -> impl Iterator<Item = Problem> {
        let ends = self.expiries().filter_map(move |expiry| expiry.problem(now));
        let proofs = self.parts.iter().filter_map(|(_, good)| match good {
            Good::Proof(proof) => Some(proof),
            Good::Roots(_) | Good::List(_) => None,
        });
        let unseen = proofs.skip(1).filter(|proof| proof.names.is_empty());
        ends.chain(unseen.map(|proof| {
            let message =
                "no client gets this certificate: there is no DNS name in it, and it is not the first";
            let hint = "have it made with a subject alternative name; the common name counts for nothing";
            read::warning(&proof.expiry.file, message, hint)
        }))
    }

    /// When what it is made of ends.
    pub fn expiries(&self) -> impl Iterator<Item = &Expiry> {
        self.parts.iter().filter_map(|(_, good)| good.expiry())
    }
}

fn unusable(error: impl std::fmt::Display) -> String {
    format!("cannot be used: {error}")
}

//! TLS towards upstreams: whom we believe to be one, and who we say we are.

use std::io::{self, ErrorKind};
use std::net::TcpStream as Blocking;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore};

use super::read;
use crate::config::problem::Problem;
use crate::config::trust::Trust;
use crate::socket::Socket;

/// What we say on the way in (RFC 7301).
const PROTOCOL: &[u8] = b"http/1.1";

/// What begins TLS towards an upstream. All workers have the same; a change of its files is one for the next connection.
#[derive(Debug)]
pub struct Originator {
    written: Trust,
    /// `None` where its files have never been good.
    current: ArcSwapOption<ClientConfig>,
}

/// What its files say.
struct Material {
    authorities: Vec<CertificateDer<'static>>,
    identity: Option<(Vec<CertificateDer<'static>>, PrivateKeyDer<'static>)>,
}

impl Originator {
    /// With what its files say now.
    #[must_use]
    pub fn new(written: Trust) -> Self {
        let current = ArcSwapOption::from(Self::read(&written).ok());
        Self { written, current }
    }

    fn read(written: &Trust) -> Result<Arc<ClientConfig>, Problem> {
        Material::read(written)?.config(written)
    }

    /// What is wrong with its files.
    #[must_use]
    pub fn problem(written: &Trust) -> Option<Problem> {
        Self::read(written).err()
    }

    /// Reads its files again, for the next connection; where they are bad now, what was good stays.
    pub fn look(&self) -> Result<(), Problem> {
        self.current.store(Some(Self::read(&self.written)?));
        Ok(())
    }

    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.written.files()
    }

    /// Shakes hands.
    pub async fn connect(&self, tcp: TcpStream) -> io::Result<Socket> {
        let config = self.current.load_full();
        let config =
            config.ok_or_else(|| io::Error::other("no good authorities or certificate have been read"))?;
        let stream = TlsConnector::from(config).connect(self.written.server_name.clone(), tcp).await?;
        Ok(Socket::Tls(Box::new(stream.into())))
    }

    /// Shakes hands, and waits for it; for who asks whether it would work.
    pub fn try_once(written: &Trust, mut tcp: Blocking, limit: Duration) -> io::Result<()> {
        let config = Self::read(written).map_err(|problem| io::Error::other(problem.message))?;
        let mut connection =
            ClientConnection::new(config, written.server_name.clone()).map_err(io::Error::other)?;
        tcp.set_read_timeout(Some(limit))?;
        while connection.is_handshaking() {
            if connection.complete_io(&mut tcp)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        Ok(())
    }
}

impl Material {
    fn read(written: &Trust) -> Result<Self, Problem> {
        let authorities = match &written.ca_file {
            Some(file) => read::certificates(file)?,
            // What of a system's store cannot be read is nothing that anybody relies on.
            None => rustls_native_certs::load_native_certs().certs,
        };
        let identity = written
            .identity
            .as_ref()
            .map(|pair| Ok((read::certificates(&pair.certificate)?, read::private_key(&pair.key)?)));
        Ok(Self { authorities, identity: identity.transpose()? })
    }

    fn config(self, written: &Trust) -> Result<Arc<ClientConfig>, Problem> {
        let mut roots = RootCertStore::empty();
        let (added, _) = roots.add_parsable_certificates(self.authorities);
        if added == 0 {
            let message = "there is no authority to believe";
            let hint = "give its authorities: `tls: { ca_file: ca.pem }`";
            return Err(read::unusable(written.ca_file.as_deref().unwrap_or(SYSTEM.as_ref()), message, hint));
        }
        let builder = ClientConfig::builder_with_provider(Arc::new(read::provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| {
                read::unusable(SYSTEM.as_ref(), &error.to_string(), "this is a fault of the program")
            })?
            .with_root_certificates(roots);
        let mut config = match (self.identity, &written.identity) {
            (Some((chain, key)), Some(pair)) => {
                builder.with_client_auth_cert(chain, key).map_err(|error| {
                    let hint = "give the key that the certificate was made for";
                    read::unusable(&pair.key, &format!("cannot be used with its certificate: {error}"), hint)
                })?
            }
            _ => builder.with_no_client_auth(),
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        Ok(Arc::new(config))
    }
}

/// Where a problem is that is in no file of ours.
const SYSTEM: &str = "the system's authorities";

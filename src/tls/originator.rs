//! TLS towards upstreams: whom we believe to be one, and who we say we are.

use std::io::{self, ErrorKind};
use std::net::TcpStream as Blocking;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwapOption;
use tokio::net::TcpStream;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::{ClientConfig, ClientConnection};

use super::{believed, read};
use crate::config::problem::Problem;
use crate::config::tls::Pair;
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

impl Originator {
    /// With what its files say now.
    #[must_use]
    pub fn new(written: Trust) -> Self {
        let current = ArcSwapOption::from(Self::read(&written).ok());
        Self { written, current }
    }

    fn read(written: &Trust) -> Result<Arc<ClientConfig>, Problem> {
        let builder = believed::client(written.ca_file.as_deref())?;
        let mut config = match &written.identity {
            None => builder.with_no_client_auth(),
            Some(Pair { certificate, key }) => {
                let (chain, own) = (read::certificates(certificate)?, read::private_key(key)?);
                builder.with_client_auth_cert(chain, own).map_err(|error| {
                    let hint = "give the key that the certificate was made for";
                    read::unusable(key, &format!("cannot be used with its certificate: {error}"), hint)
                })?
            }
        };
        config.alpn_protocols = vec![PROTOCOL.to_vec()];
        read::may_use(config.fips())
            .map_err(|why| read::unusable(Path::new("upstreams"), why, "see docs/tls.md"))?;
        Ok(Arc::new(config))
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
        let config = Self::read(written).map_err(|problem| io::Error::other(problem.in_a_line()))?;
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

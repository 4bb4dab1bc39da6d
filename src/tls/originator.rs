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
use crate::socket::held::{self, Held};

/// HTTP/2, as TLS names it (RFC 9113, 3.2).
const HTTP2: &[u8] = b"h2";

/// What we offer to speak under TLS (RFC 7301).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Offer {
    /// HTTP/1.1. Who chooses nothing speaks that.
    Http1,
    /// HTTP/2.
    Http2,
    /// Both, and HTTP/2 first.
    Either,
}

impl Offer {
    fn names(self) -> Vec<Vec<u8>> {
        let names: &[&[u8]] = match self {
            Self::Http1 => &[b"http/1.1"],
            Self::Http2 => &[HTTP2],
            Self::Either => &[HTTP2, b"http/1.1"],
        };
        names.iter().map(|name| name.to_vec()).collect()
    }

    /// Whether HTTP/2 was chosen, which must be where nothing else was offered.
    fn chosen(self, name: Option<&[u8]>) -> io::Result<bool> {
        let http2 = name == Some(HTTP2);
        if self == Self::Http2 && !http2 {
            return Err(io::Error::other("it does not choose HTTP/2 (ALPN)"));
        }
        Ok(http2)
    }
}

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
        config.alpn_protocols = Offer::Http1.names();
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

    /// Shakes hands; says whether HTTP/2 was chosen, too.
    pub async fn connect(&self, tcp: TcpStream, offer: Offer) -> io::Result<(Socket, bool)> {
        let config = self.current.load_full();
        let mut config =
            config.ok_or_else(|| io::Error::other("no good authorities or certificate have been read"))?;
        if offer != Offer::Http1 {
            // The sessions that may be resumed are shared all the same.
            Arc::make_mut(&mut config).alpn_protocols = offer.names();
        }
        let connecting =
            TlsConnector::from(config).connect(self.written.server_name.clone(), Held::from(tcp));
        let stream = match connecting.into_fallible().await {
            Ok(stream) => held::settle(stream).await?,
            Err((error, held)) => {
                held.give_up().await;
                return Err(error);
            }
        };
        let http2 = offer.chosen(stream.get_ref().1.alpn_protocol())?;
        Ok((Socket::Tls(stream), http2))
    }

    /// Shakes hands, and waits for it; for who asks whether it would work.
    pub fn try_once(written: &Trust, offer: Offer, tcp: &mut Blocking, limit: Duration) -> io::Result<()> {
        let mut config = Self::read(written).map_err(|problem| io::Error::other(problem.in_a_line()))?;
        Arc::make_mut(&mut config).alpn_protocols = offer.names();
        let mut connection =
            ClientConnection::new(config, written.server_name.clone()).map_err(io::Error::other)?;
        tcp.set_read_timeout(Some(limit))?;
        while connection.is_handshaking() {
            if connection.complete_io(tcp)? == (0, 0) {
                return Err(ErrorKind::UnexpectedEof.into());
            }
        }
        offer.chosen(connection.alpn_protocol()).map(drop)
    }
}

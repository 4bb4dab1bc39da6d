//! TLS: what a listener proves itself with towards clients, how a handshake ends, and whom we believe to be an upstream.

pub mod believed;
pub mod expiry;
pub mod failure;
mod hello;
pub mod identity;
mod names;
pub mod originator;
pub mod read;
pub mod subject;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use bytes::Bytes;
use tokio::net::TcpStream;
use tokio_rustls::rustls::server::ClientHello;
use tokio_rustls::rustls::{CipherSuite, ServerConfig};
use tokio_rustls::{StartHandshake, TlsStream};

use crate::config::tls::Tls;
use crate::socket::held::{self, Held};
use failure::Failure;
use hello::First;

/// The first byte of a TLS record that begins a handshake (RFC 8446, 5.1).
pub const HANDSHAKE: u8 = 22;
/// The cipher suites of TLS 1.3 (RFC 8446, B.4) that we may have.
const SUITES_13: [CipherSuite; 3] = [
    CipherSuite::TLS13_AES_128_GCM_SHA256,
    CipherSuite::TLS13_AES_256_GCM_SHA384,
    CipherSuite::TLS13_CHACHA20_POLY1305_SHA256,
];

/// What a listener's handshakes need.
#[derive(Debug)]
pub struct Terms {
    any: Arc<ServerConfig>,
    /// The same with [`read::HYBRID`] alone, where we have that. rustls takes the first of a client's groups that we have;
    /// for who has this one, however far behind, we have no other.
    hybrid: Arc<ServerConfig>,
}

impl Terms {
    fn of(&self, hello: &ClientHello<'_>) -> Arc<ServerConfig> {
        let has_hybrid = hello.named_groups().is_some_and(|groups| groups.contains(&read::HYBRID));
        // It is for TLS 1.3, whose suites only who speaks that has.
        let speaks_13 = hello.cipher_suites().iter().any(|suite| SUITES_13.contains(suite));
        Arc::clone(if has_hybrid && speaks_13 { &self.hybrid } else { &self.any })
    }
}

/// A connection that can be answered on.
#[derive(Debug)]
pub enum Accepted {
    /// It has shaken hands.
    Tls(Box<TlsStream<Held>>),
    /// It speaks HTTP in plain, and has said this; it is to hear that nobody does that here.
    Plain(TcpStream, Bytes),
}

/// What ends the TLS of a listener's clients. All workers have the same; a change of the files is one for the next
/// handshake.
#[derive(Debug)]
pub struct Terminator {
    current: ArcSwap<Terms>,
    limit: Duration,
}

impl Terminator {
    /// With what has been read for this listener.
    #[must_use]
    pub fn new(terms: Terms, written: &Tls) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::from_pointee(terms), limit: written.handshake })
    }

    /// From the next handshake on.
    pub fn put_in_force(&self, terms: Terms) {
        self.current.store(Arc::new(terms));
    }

    /// Shakes hands; the connection of who does not is closed, but for one that looks like HTTP.
    pub async fn accept(&self, mut tcp: TcpStream) -> Result<Accepted, Failure> {
        let shaking = async {
            let hello = match hello::hear(&mut tcp).await? {
                First::Hello(hello) => StartHandshake::from_parts(*hello, Held::from(tcp)),
                First::Http(read) => return Ok(Accepted::Plain(tcp, read)),
            };
            let config = self.current.load().of(&hello.client_hello());
            match hello.into_stream(config).into_fallible().await {
                Ok(stream) => {
                    held::settle(stream).await.map(Accepted::Tls).map_err(|error| Failure::of(&error))
                }
                Err((error, held)) => {
                    held.give_up().await;
                    Err(Failure::of(&error))
                }
            }
        };
        tokio::time::timeout(self.limit, shaking).await.unwrap_or(Err(Failure::Timeout))
    }
}

/// An error of rustls inside one of a socket.
fn inner(error: &io::Error) -> Option<&tokio_rustls::rustls::Error> {
    error.get_ref()?.downcast_ref()
}

//! TLS: what a listener proves itself with towards clients, how a handshake ends, and whom we believe to be an upstream.

pub mod believed;
pub mod failure;
pub mod identity;
mod names;
pub mod originator;
pub mod read;
pub mod subject;

use std::io;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use tokio::net::TcpStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;

use crate::config::tls::Tls;
use failure::Failure;

/// The first byte of a TLS record that begins a handshake (RFC 8446, 5.1).
pub const HANDSHAKE: u8 = 22;
/// What somebody hears who speaks HTTP here.
const SPEAK_TLS: &[u8] = b"HTTP/1.1 400 Bad Request\r\ncontent-type: text/plain\r\nconnection: close\r\n\r\n\
    This port speaks HTTPS.\n";

/// What ends the TLS of a listener's clients. All workers have the same; a change of the files is one for the next
/// handshake.
#[derive(Debug)]
pub struct Terminator {
    current: ArcSwap<ServerConfig>,
    limit: Duration,
}

impl Terminator {
    /// With what has been read for this listener.
    #[must_use]
    pub fn new(config: Arc<ServerConfig>, written: &Tls) -> Arc<Self> {
        Arc::new(Self { current: ArcSwap::new(config), limit: written.handshake })
    }

    /// From the next handshake on.
    pub fn put_in_force(&self, config: Arc<ServerConfig>) {
        self.current.store(config);
    }

    /// Shakes hands; the connection of who does not is closed.
    pub async fn accept(
        &self,
        tcp: TcpStream,
    ) -> Result<tokio_rustls::server::TlsStream<TcpStream>, Failure> {
        let shaking = async {
            let mut first = [0];
            match tcp.peek(&mut first).await {
                Ok(1..) if first == [HANDSHAKE] => {}
                Ok(1..) => {
                    if first[0].is_ascii_uppercase() {
                        // Who does not hear it finds the connection closed.
                        let _ = tcp.try_write(SPEAK_TLS);
                        drain(&tcp);
                    }
                    return Err(Failure::NotTls);
                }
                Ok(0) | Err(_) => return Err(Failure::Gone),
            }
            let acceptor = TlsAcceptor::from(self.current.load_full());
            acceptor.accept(tcp).await.map_err(|error| Failure::of(&error))
        };
        tokio::time::timeout(self.limit, shaking).await.unwrap_or(Err(Failure::Timeout))
    }
}

/// What has come is read, so that closing does not throw away what was said last.
fn drain(tcp: &TcpStream) {
    let mut scratch = [0; 4096];
    while let Ok(1..) = tcp.try_read(&mut scratch) {}
}

/// An error of rustls inside one of a socket.
fn inner(error: &io::Error) -> Option<&tokio_rustls::rustls::Error> {
    error.get_ref()?.downcast_ref()
}

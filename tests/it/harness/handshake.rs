//! A client that shakes hands over TLS, and what it saw.

use std::io;
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use x509_parser::prelude::{FromDer as _, X509Certificate};

use super::PATIENCE;
use super::certificates::{Authority, Made};

pub type Stream = StreamOwned<ClientConnection, TcpStream>;

/// Who believes this authority, proves itself with this, and has the provider changed in this way.
pub fn believer(
    authority: &Authority,
    own: Option<&Made>,
    change: impl FnOnce(&mut CryptoProvider),
) -> ClientConfig {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.pem.as_bytes()).expect("PEM")).expect("a root");
    let mut provider = aws_lc_rs::default_provider();
    change(&mut provider);
    let builder = ClientConfig::builder_with_provider(Arc::new(provider));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let builder = builder.with_root_certificates(roots);
    match own {
        None => builder.with_no_client_auth(),
        Some(Made { certificate, key }) => {
            let chain = CertificateDer::pem_slice_iter(certificate.as_bytes());
            let chain = chain.collect::<Result<Vec<_>, _>>().expect("PEM");
            let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).expect("PEM");
            builder.with_client_auth_cert(chain, key).expect("a pair")
        }
    }
}

/// Shakes hands with who has this name. That a client's certificate is refused is seen by who reads.
pub fn shake(address: SocketAddr, name: &str, config: &Arc<ClientConfig>) -> io::Result<Stream> {
    let name = ServerName::try_from(name.to_owned()).expect("a name");
    let connection = ClientConnection::new(Arc::clone(config), name).expect("a client");
    let tcp = TcpStream::connect(address)?;
    tcp.set_read_timeout(Some(PATIENCE))?;
    tcp.set_nodelay(true)?;
    let mut stream = StreamOwned::new(connection, tcp);
    while stream.conn.is_handshaking() {
        stream.conn.complete_io(&mut stream.sock)?;
    }
    Ok(stream)
}

/// The number of the certificate that was shown.
pub fn serial(stream: &Stream) -> u64 {
    serial_of(&stream.conn)
}

/// The same of a connection.
pub fn serial_of(connection: &ClientConnection) -> u64 {
    let chain = connection.peer_certificates().expect("a certificate");
    let (_, leaf) = X509Certificate::from_der(chain.first().expect("a certificate")).expect("X.509");
    leaf.serial.iter_u64_digits().next().unwrap_or_default()
}

//! An authority of a test's own, and servers that it vouches for.

use std::net::SocketAddr;
use std::sync::Arc;

use rcgen::{BasicConstraints, Certificate, CertificateParams, IsCa, Issuer, KeyPair};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

/// Signs certificates.
pub struct Authority {
    certificate: Certificate,
    issuer: Issuer<'static, KeyPair>,
}

impl Authority {
    pub fn new() -> Self {
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { certificate, issuer: Issuer::new(params, key) }
    }

    /// What its friends put into a file.
    pub fn pem(&self) -> String {
        self.certificate.pem()
    }

    /// Speaks TLS as this name, on a port of its own, and passes what it hears on to a server that does not.
    pub fn vouch(&self, name: &str, behind: SocketAddr) -> SocketAddr {
        self.vouch_for(name, &[("", behind)])
    }

    /// The same for several servers, each of which speaks a protocol that TLS can choose (RFC 7301); a server of no
    /// protocol is there for who has named none that is.
    pub fn vouch_for(&self, name: &str, behind: &[(&'static str, SocketAddr)]) -> SocketAddr {
        let key = KeyPair::generate().expect("a key");
        let params = CertificateParams::new([name.to_owned()]).expect("a name");
        let certificate = params.signed_by(&key, &self.issuer).expect("a certificate");
        let builder = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
        let builder = builder.with_safe_default_protocol_versions().expect("versions");
        let key = PrivateKeyDer::try_from(key.serialize_der()).expect("a key");
        let config = builder.with_no_client_auth().with_single_cert(vec![certificate.der().clone()], key);
        let mut config = config.expect("a pair");
        let named = behind.iter().filter(|(protocol, _)| !protocol.is_empty());
        config.alpn_protocols = named.map(|(protocol, _)| protocol.as_bytes().to_vec()).collect();
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let behind = behind.to_vec();
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .expect("one");
            runtime.block_on(serve(listener, acceptor, behind));
        });
        address
    }
}

async fn serve(
    listener: std::net::TcpListener,
    acceptor: TlsAcceptor,
    behind: Vec<(&'static str, SocketAddr)>,
) {
    let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
    while let Ok((stream, _)) = listener.accept().await {
        let (acceptor, behind) = (acceptor.clone(), behind.clone());
        spawn_local(async move {
            // Who does not trust it goes away.
            let Ok(mut inside) = acceptor.accept(stream).await else { return };
            let chosen = inside.get_ref().1.alpn_protocol().unwrap_or_default();
            let server = behind.iter().find(|(protocol, _)| protocol.as_bytes() == chosen);
            let (_, server) = server.or(behind.first()).expect("a server");
            let mut outside = TcpStream::connect(server).await.expect("a server");
            let _ = tokio::io::copy_bidirectional(&mut inside, &mut outside).await;
        });
    }
}

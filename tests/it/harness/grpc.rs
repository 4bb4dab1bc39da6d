//! Calls of gRPC without generated code: tonic's client, and messages that are bytes.

use std::future::Future;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use bytes::{Buf as _, BufMut as _, Bytes};
use futures_util::stream::{self, Stream};
use http::Uri;
use http::uri::PathAndQuery;
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::sync::mpsc::{UnboundedSender, unbounded_channel};
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, RootCertStore};
use tonic::client::Grpc;
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::metadata::{AsciiMetadataKey, AsciiMetadataValue};
use tonic::transport::{Channel, Endpoint};
use tonic::{Request, Response, Status, Streaming};

use super::PATIENCE;

/// Messages as they are.
#[derive(Clone, Copy)]
pub struct Plain;

impl Codec for Plain {
    type Encode = Bytes;
    type Decode = Bytes;
    type Encoder = Self;
    type Decoder = Self;

    fn encoder(&mut self) -> Self {
        Self
    }

    fn decoder(&mut self) -> Self {
        Self
    }
}

impl Encoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn encode(&mut self, message: Bytes, to: &mut EncodeBuf<'_>) -> Result<(), Status> {
        to.put(message);
        Ok(())
    }
}

impl Decoder for Plain {
    type Item = Bytes;
    type Error = Status;

    fn decode(&mut self, from: &mut DecodeBuf<'_>) -> Result<Option<Bytes>, Status> {
        Ok(Some(from.copy_to_bytes(from.remaining())))
    }
}

/// tonic's client.
#[derive(Clone)]
pub struct Caller(Channel);

impl Caller {
    /// With prior knowledge.
    pub async fn connect(address: SocketAddr) -> Self {
        Self(endpoint(address).connect().await.expect("a connection"))
    }

    /// Over TLS, as somebody who trusts an authority and is offered HTTP/2.
    pub async fn connect_tls(address: SocketAddr, name: &str, authority: &str) -> Self {
        let dialer = Dialer { address, name: name.to_owned(), tls: connector(authority) };
        Self(endpoint(address).connect_with_connector(dialer).await.expect("a connection"))
    }

    /// A message for a message.
    pub async fn unary(&self, path: &str, request: Request<Bytes>) -> Result<Response<Bytes>, Status> {
        self.grpc().await.unary(request, at(path), Plain).await
    }

    /// One for many.
    pub async fn server_streaming(&self, path: &str, request: Request<Bytes>) -> Answers {
        self.grpc().await.server_streaming(request, at(path), Plain).await
    }

    /// Many for one.
    pub async fn client_streaming<S>(
        &self,
        path: &str,
        request: Request<S>,
    ) -> Result<Response<Bytes>, Status>
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        self.grpc().await.client_streaming(request, at(path), Plain).await
    }

    /// Many for many.
    pub async fn streaming<S>(&self, path: &str, request: Request<S>) -> Answers
    where
        S: Stream<Item = Bytes> + Send + 'static,
    {
        self.grpc().await.streaming(request, at(path), Plain).await
    }

    async fn grpc(&self) -> Grpc<Channel> {
        let mut grpc = Grpc::new(self.0.clone());
        grpc.ready().await.expect("a connection");
        grpc
    }
}

pub type Answers = Result<Response<Streaming<Bytes>>, Status>;

fn at(path: &str) -> PathAndQuery {
    PathAndQuery::try_from(path).expect("a path")
}

/// What a test sends when it likes, and the stream of that.
pub fn messages() -> (UnboundedSender<Bytes>, impl Stream<Item = Bytes> + Send + 'static) {
    let (sender, receiver) = unbounded_channel();
    (sender, stream::unfold(receiver, async |mut receiver| Some((receiver.recv().await?, receiver))))
}

/// A call with these fields.
pub fn call<M>(message: M, fields: &[(&str, &str)]) -> Request<M> {
    let mut request = Request::new(message);
    for (name, value) in fields {
        let name = AsciiMetadataKey::from_bytes(name.as_bytes()).expect("a name");
        request.metadata_mut().append(name, AsciiMetadataValue::try_from(*value).expect("a value"));
    }
    request
}

fn endpoint(address: SocketAddr) -> Endpoint {
    let endpoint = Endpoint::from_shared(format!("http://{address}")).expect("an address");
    // Little of a stream is on its way, and of many together much.
    let endpoint = endpoint.initial_stream_window_size(64 * 1024).initial_connection_window_size(8 << 20);
    endpoint.connect_timeout(PATIENCE)
}

fn connector(authority: &str) -> TlsConnector {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_slice(authority.as_bytes()).expect("PEM")).expect("an authority");
    let builder = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()));
    let builder = builder.with_safe_default_protocol_versions().expect("versions");
    let mut config = builder.with_root_certificates(roots).with_no_client_auth();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    TlsConnector::from(Arc::new(config))
}

/// Opens connections over TLS.
#[derive(Clone)]
struct Dialer {
    address: SocketAddr,
    name: String,
    tls: TlsConnector,
}

impl tower_service::Service<Uri> for Dialer {
    type Response = TokioIo<TlsStream<TcpStream>>;
    type Error = std::io::Error;
    type Future = Pin<Box<dyn Future<Output = std::io::Result<Self::Response>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: Uri) -> Self::Future {
        let Self { address, name, tls } = self.clone();
        Box::pin(async move {
            let name = ServerName::try_from(name).expect("a name");
            let stream = tls.connect(name, TcpStream::connect(address).await?).await?;
            assert_eq!(stream.get_ref().1.alpn_protocol(), Some(&b"h2"[..]));
            Ok(TokioIo::new(stream))
        })
    }
}

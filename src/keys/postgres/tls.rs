//! TLS towards a PostgreSQL server.

use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_postgres::tls::{ChannelBinding, MakeTlsConnect, TlsConnect, TlsStream};
use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::{TlsConnector, client};

use crate::config::sources::Tls;
use crate::tls::believed;

/// Whose word is taken; the file may be another by the next connection.
#[derive(Clone)]
pub(super) struct Securing(Option<Tls>);

/// The same for one server.
pub(super) struct One {
    connector: Option<TlsConnector>,
    server: String,
}

/// A connection that nobody else reads.
pub(super) struct Secured<S>(client::TlsStream<S>);

impl Securing {
    pub(super) fn new(tls: Option<Tls>) -> Self {
        Self(tls)
    }
}

fn connector(tls: &Tls) -> io::Result<TlsConnector> {
    let ca_file = match tls {
        Tls::System => None,
        Tls::Authority(file) => Some(&**file),
    };
    let builder = believed::client(ca_file).map_err(|problem| io::Error::other(problem.in_a_line()))?;
    Ok(TlsConnector::from(Arc::new(builder.with_no_client_auth())))
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> MakeTlsConnect<S> for Securing {
    type Stream = Secured<S>;
    type TlsConnect = One;
    type Error = io::Error;

    fn make_tls_connect(&mut self, server: &str) -> io::Result<One> {
        let connector = self.0.as_ref().map(connector).transpose()?;
        Ok(One { connector, server: server.to_owned() })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin + Send + 'static> TlsConnect<S> for One {
    type Stream = Secured<S>;
    type Error = io::Error;
    type Future = Pin<Box<dyn Future<Output = io::Result<Secured<S>>> + Send>>;

    fn connect(self, stream: S) -> Self::Future {
        Box::pin(async move {
            let connector = self.connector.ok_or(io::ErrorKind::Unsupported)?;
            let server = ServerName::try_from(self.server).map_err(io::Error::other)?;
            connector.connect(server, stream).await.map(Secured)
        })
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> TlsStream for Secured<S> {
    fn channel_binding(&self) -> ChannelBinding {
        ChannelBinding::none()
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncRead for Secured<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        into: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_read(context, into)
    }
}

impl<S: AsyncRead + AsyncWrite + Unpin> AsyncWrite for Secured<S> {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_shutdown(context)
    }
}

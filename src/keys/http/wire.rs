//! Connections to an endpoint: HTTP/1.1, over TLS or not, kept for a while.

use std::cell::RefCell;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::header::CONTENT_TYPE;
use http::{Request, StatusCode};
use http_body_util::{BodyExt as _, Full, LengthLimitError, Limited};
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpStream;
use tokio::task::spawn_local;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::pki_types::ServerName;

use super::Fault;
use crate::config::endpoint::Url;
use crate::config::upstream::Address;
use crate::tls::believed;

/// An answer has some hundred bytes. One that is longer than this is something else.
const LONGEST: usize = 64 * 1024;
/// A connection is used for no longer, so that a name that has moved is followed.
const KEPT: Duration = Duration::from_secs(60);

/// The connections.
#[derive(Debug)]
pub(super) struct Wires {
    url: Url,
    ca_file: Option<PathBuf>,
    idle: RefCell<Vec<Wire>>,
    trust: RefCell<Option<Trust>>,
}

/// One of them.
#[derive(Debug)]
struct Wire {
    requests: SendRequest<Full<Bytes>>,
    opened: Instant,
}

/// Who may sign the endpoint's certificate, and the text that says so.
#[derive(Debug)]
struct Trust {
    text: Vec<u8>,
    config: Arc<ClientConfig>,
}

/// An answer, whole.
#[derive(Debug)]
pub(super) struct Answered {
    pub(super) status: StatusCode,
    /// It is HTML.
    pub(super) is_page: bool,
    pub(super) body: Bytes,
}

impl Wires {
    pub(super) fn new(url: Url, ca_file: Option<PathBuf>) -> Self {
        Self { url, ca_file, idle: RefCell::default(), trust: RefCell::default() }
    }

    /// A request and its answer; once more where a connection that was kept had died unseen.
    pub(super) async fn exchange(&self, request: &Request<Full<Bytes>>) -> Result<Answered, Fault> {
        if let Some(wire) = self.kept().await {
            match self.over(wire, request.clone()).await {
                // The others are as old.
                Err(Fault::Wire(_)) => self.idle.borrow_mut().clear(),
                answer => return answer,
            }
        }
        self.over(self.connect().await?, request.clone()).await
    }

    async fn kept(&self) -> Option<Wire> {
        loop {
            let mut wire = self.idle.borrow_mut().pop()?;
            if wire.opened.elapsed() < KEPT && wire.requests.ready().await.is_ok() {
                return Some(wire);
            }
        }
    }

    async fn over(&self, mut wire: Wire, request: Request<Full<Bytes>>) -> Result<Answered, Fault> {
        let (head, body) = wire.requests.send_request(request).await.map_err(broken)?.into_parts();
        let body = Limited::new(body, LONGEST).collect().await.map_err(|error| {
            if error.is::<LengthLimitError>() {
                Fault::Unreadable("it is longer than 64KiB")
            } else {
                Fault::Wire(format!("its answer breaks off: {error}"))
            }
        })?;
        self.idle.borrow_mut().push(wire);
        let kind = head.headers.get(CONTENT_TYPE).map(|kind| kind.as_bytes().to_ascii_lowercase());
        let is_page = kind.is_some_and(|kind| kind.starts_with(b"text/html"));
        Ok(Answered { status: head.status, is_page, body: body.to_bytes() })
    }

    async fn connect(&self) -> Result<Wire, Fault> {
        let stream = match &self.url.address {
            Address::Socket(address) => TcpStream::connect(address).await,
            Address::Name { host, port } => TcpStream::connect((&**host, *port)).await,
        };
        let stream = stream.map_err(|error| self.unreachable(&error))?;
        stream.set_nodelay(true).map_err(|error| self.unreachable(&error))?;
        if !self.url.secure {
            return shake(stream).await;
        }
        let name = match &self.url.address {
            Address::Socket(address) => ServerName::from(address.ip()),
            Address::Name { host, .. } => ServerName::try_from(host.trim_end_matches('.').to_owned())
                .map_err(|error| self.unreachable(&error))?,
        };
        let tls = TlsConnector::from(self.trust()?);
        shake(tls.connect(name, stream).await.map_err(|error| self.unreachable(&error))?).await
    }

    fn unreachable(&self, error: &dyn std::fmt::Display) -> Fault {
        Fault::Wire(format!("{}: {error}", self.url.authority))
    }

    /// By the file as it is now, or by the system.
    fn trust(&self) -> Result<Arc<ClientConfig>, Fault> {
        let text = match &self.ca_file {
            Some(file) => std::fs::read(file).map_err(|error| ours(file, &error))?,
            None => Vec::new(),
        };
        if let Some(trust) = self.trust.borrow().as_ref().filter(|trust| trust.text == text) {
            return Ok(Arc::clone(&trust.config));
        }
        let builder = believed::client(self.ca_file.as_deref());
        let builder = builder.map_err(|problem| Fault::Ours(problem.in_a_line()))?;
        let config = Arc::new(builder.with_no_client_auth());
        self.trust.replace(Some(Trust { text, config: Arc::clone(&config) }));
        Ok(config)
    }
}

async fn shake<I: AsyncRead + AsyncWrite + Unpin + 'static>(io: I) -> Result<Wire, Fault> {
    let mut builder = http1::Builder::new();
    // What is sent is written from where it is, so that no copy of a key stays in a buffer.
    let (requests, connection) =
        builder.writev(true).max_buf_size(LONGEST).handshake(TokioIo::new(io)).await.map_err(broken)?;
    spawn_local(async move {
        // What breaks is told to whoever waits for an answer.
        let _ = connection.await;
    });
    Ok(Wire { requests, opened: Instant::now() })
}

#[allow(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn broken(error: hyper::Error) -> Fault {
    Fault::Wire(error.to_string())
}

fn ours(file: &Path, error: &dyn std::fmt::Display) -> Fault {
    Fault::Ours(format!("{}: {error}", file.display()))
}

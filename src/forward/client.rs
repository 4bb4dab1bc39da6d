//! Connections to upstreams: one pool a worker, nothing of it shared.
//!
//! A [`Lease`] belongs to one request. It goes back to the pool in one place, [`Lease::finish`], when the whole
//! answer has been read; dropping it unfinished closes the connection, and that is how a client that has left
//! cancels its request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use http::{Method, Request, Response};
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::fault::Fault;
use super::socket::Socket;
use super::upload::{Broken, Progress, Upload};
use super::wire::{Wire, Wires};
use crate::config;
use crate::config::limits::Timeouts;
use crate::observe::metrics::UpstreamMeters;

/// Unused connections that a worker keeps for each upstream: what a burst leaves behind, and no more.
const KEPT: usize = 256;

/// A service behind us, shared by all workers and kept over reloads that do not change it.
#[derive(Debug)]
pub struct Upstream {
    /// As the configuration says it.
    pub config: config::upstream::Upstream,
    /// Counters of its own.
    pub meters: UpstreamMeters,
    id: u64,
    addresses: ArcSwap<Vec<SocketAddr>>,
    looked_up: AtomicBool,
    turn: AtomicUsize,
}

/// Where a request goes, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The service.
    pub upstream: &'a Arc<Upstream>,
    /// How long it, and the client, may take.
    pub timeouts: &'a Timeouts,
}

/// The connections of one worker.
#[derive(Debug, Default)]
pub struct Client {
    pools: RefCell<Vec<(u64, VecDeque<Kept>)>>,
    wires: Wires,
}

#[derive(Debug)]
struct Kept {
    connection: Connection,
    until: Instant,
}

#[derive(Debug)]
struct Connection {
    sender: SendRequest<Upload>,
    wire: Rc<Wire>,
    address: SocketAddr,
}

/// A connection while one request has it.
#[derive(Debug)]
pub struct Lease {
    connection: Connection,
    client: Rc<Client>,
    upstream: Arc<Upstream>,
    timeouts: Timeouts,
    used_before: bool,
    for_one_request: bool,
}

impl Upstream {
    /// A service whose addresses are known where they are written as numbers.
    #[must_use]
    pub fn new(config: config::upstream::Upstream, meters: UpstreamMeters) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let addresses = match config.address {
            config::upstream::Address::Socket(address) => vec![address],
            config::upstream::Address::Name { .. } => Vec::new(),
        };
        Self {
            config,
            meters,
            id: NEXT.fetch_add(1, Ordering::Relaxed),
            looked_up: AtomicBool::new(!addresses.is_empty()),
            addresses: ArcSwap::from_pointee(addresses),
            turn: AtomicUsize::new(0),
        }
    }

    /// Whether an address is known.
    #[must_use]
    pub fn is_resolved(&self) -> bool {
        !self.addresses.load().is_empty()
    }

    /// Whether its addresses are its own, and not those of the upstream that it replaces.
    #[must_use]
    pub fn is_looked_up(&self) -> bool {
        self.looked_up.load(Ordering::Relaxed)
    }

    /// Takes over what another has, until its own name has been looked up.
    pub fn inherit(&self, other: &Self) {
        if !self.is_resolved() {
            self.addresses.store(other.addresses.load_full());
        }
    }

    /// Takes the addresses that its name has now; true where that is news.
    pub fn resolved(&self, mut addresses: Vec<SocketAddr>) -> bool {
        self.looked_up.store(true, Ordering::Relaxed);
        addresses.sort_unstable();
        addresses.dedup();
        let news = **self.addresses.load() != addresses;
        if news {
            self.addresses.store(Arc::new(addresses));
        }
        news
    }
}

impl Client {
    /// Sends a request and waits for the head of its answer.
    ///
    /// A kept connection may have died without our knowing. A request that was never written is sent again on a
    /// fresh one; one that was written only where that cannot do anything twice (RFC 9110, 9.2.2).
    pub async fn send(
        self: &Rc<Self>,
        target: Target<'_>,
        mut request: Request<Upload>,
        progress: Option<&Rc<Progress>>,
    ) -> Result<(Response<Incoming>, Lease), Fault> {
        let Target { upstream, timeouts } = target;
        let mut kept = self.take(upstream, timeouts);
        loop {
            let used_before = kept.is_some();
            let connection = match kept.take() {
                Some(connection) => connection,
                None => self.connect(upstream, timeouts).await?,
            };
            let mut lease = Lease {
                connection,
                client: Rc::clone(self),
                upstream: Arc::clone(upstream),
                timeouts: *timeouts,
                used_before,
                for_one_request: false,
            };
            if let Some(progress) = progress {
                progress.wire.replace(Some(Rc::clone(lease.wire())));
            }
            let spare = if lease.used_before { spare(&request) } else { None };
            lease.wire().begin(timeouts);
            let mut error = match lease.connection.sender.try_send_request(request).await {
                Ok(response) => {
                    lease.wire().answered();
                    return Ok((response, lease));
                }
                Err(error) => error,
            };
            let again = error.take_message().or(spare);
            let fault = lease.fault(error.into_error(), progress);
            request = match again {
                Some(again) if lease.used_before && matches!(fault, Fault::Closed(_)) => again,
                _ => return Err(fault),
            };
            upstream.meters.retries.inc();
        }
    }

    /// Ends waits that are over and connections that nobody used. The worker's tick calls it.
    pub fn sweep(&self, now: Instant) {
        self.wires.sweep(now);
        self.pools.borrow_mut().retain_mut(|(_, pool)| {
            pool.retain(|kept| kept.until > now && !kept.connection.sender.is_closed());
            !pool.is_empty()
        });
    }

    /// The connection that was used last: the others may grow old and go.
    fn take(&self, upstream: &Upstream, timeouts: &Timeouts) -> Option<Connection> {
        let mut pools = self.pools.borrow_mut();
        let (_, pool) = pools.iter_mut().find(|(id, _)| *id == upstream.id)?;
        let now = Instant::now();
        let addresses = upstream.addresses.load();
        while let Some(kept) = pool.pop_back() {
            let live = kept.connection.sender.is_ready() && kept.until.min(now + timeouts.pool) > now;
            if live && addresses.contains(&kept.connection.address) {
                return Some(kept.connection);
            }
        }
        None
    }

    fn keep(&self, upstream: &Upstream, connection: Connection, keep: Duration) {
        let kept = Kept { connection, until: Instant::now() + keep };
        let mut pools = self.pools.borrow_mut();
        if let Some((_, pool)) = pools.iter_mut().find(|(id, _)| *id == upstream.id) {
            if pool.len() == KEPT {
                pool.pop_front();
            }
            pool.push_back(kept);
        } else {
            pools.push((upstream.id, VecDeque::from([kept])));
        }
    }

    /// Tries each address, beginning with the one whose turn it is, in the time that one may take.
    async fn connect(&self, upstream: &Upstream, timeouts: &Timeouts) -> Result<Connection, Fault> {
        let addresses = upstream.addresses.load_full();
        let first = upstream.turn.fetch_add(1, Ordering::Relaxed);
        let mut fault = Fault::Unresolved { upstream: upstream.config.name.clone() };
        for turn in 0..addresses.len() {
            let Some(&address) = addresses.get((first.wrapping_add(turn)) % addresses.len()) else {
                continue;
            };
            match timeout(timeouts.connect, TcpStream::connect(address)).await {
                Ok(Ok(stream)) => {
                    upstream.meters.connects.inc();
                    return self.open(stream, address).await;
                }
                Ok(Err(source)) => fault = Fault::Refused { address, source },
                Err(_) => fault = Fault::ConnectTimeout { address },
            }
        }
        Err(fault)
    }

    async fn open(&self, stream: TcpStream, address: SocketAddr) -> Result<Connection, Fault> {
        // A failure here means that the peer has gone; the request that follows will say so.
        let _ = stream.set_nodelay(true);
        let (sender, connection) = http1::handshake(Socket::new(stream)).await.map_err(Fault::Closed)?;
        let task = tokio::task::spawn_local(async move {
            // Whatever ends a connection is told to the request that has it.
            let _ = connection.with_upgrades().await;
        });
        let wire = self.wires.open();
        wire.owned_by(task.abort_handle());
        Ok(Connection { sender, wire, address })
    }
}

impl Lease {
    /// Who is being waited for on it.
    #[must_use]
    pub fn wire(&self) -> &Rc<Wire> {
        &self.connection.wire
    }

    /// Never goes back to the pool: a server that refused an upgrade may not read this connection again.
    #[must_use]
    pub fn for_one_request(self) -> Self {
        Self { for_one_request: true, ..self }
    }

    /// The whole answer has been read: the connection is kept, if it is free for another request. It is not where
    /// one side said `close`, or where the request's body is still on its way.
    pub fn finish(self) {
        self.wire().rest();
        if !self.connection.sender.is_ready() {
            self.wire().let_finish(&self.timeouts);
        } else if !self.for_one_request {
            let Self { connection, client, upstream, timeouts, .. } = self;
            client.keep(&upstream, connection, timeouts.pool);
        }
    }

    fn fault(&self, error: hyper::Error, progress: Option<&Rc<Progress>>) -> Fault {
        if let Some(fault) = self.wire().fault() {
            return fault;
        }
        match progress.and_then(|progress| progress.broken.get()) {
            Some(Broken::Gone) => return Fault::ClientGone,
            Some(Broken::Invalid) => return Fault::ClientInvalid,
            None => {}
        }
        if error.is_parse() || error.is_parse_status() { Fault::Invalid(error) } else { Fault::Closed(error) }
    }
}

/// The request once more, where sending it twice does what sending it once does and no body is lost.
fn spare(request: &Request<Upload>) -> Option<Request<Upload>> {
    let safe =
        [Method::GET, Method::HEAD, Method::OPTIONS, Method::PUT, Method::DELETE].contains(request.method());
    if !safe || !matches!(request.body(), Upload::Empty) {
        return None;
    }
    let mut again = Request::new(Upload::Empty);
    *again.method_mut() = request.method().clone();
    *again.uri_mut() = request.uri().clone();
    *again.headers_mut() = request.headers().clone();
    Some(again)
}

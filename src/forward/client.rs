//! Connections of HTTP/1 to upstreams: one pool a worker, nothing of it shared.
//!
//! A [`Lease`] belongs to one request. It goes back to the pool in one place, [`Lease::finish`], when the whole
//! answer has been read; dropping it unfinished closes the connection, and that is how a client that has left
//! cancels its request.

use std::cell::RefCell;
use std::collections::VecDeque;
use std::future::poll_fn;
use std::io::{self, ErrorKind};
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{Method, StatusCode};
use socket2::SockRef;
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::answer::{Gathered, Head};
use super::fault::Fault;
use super::headers::is_idempotent;
use super::http2::pool::Pool;
use super::upload::Upload;
use super::upstream::Upstream;
use super::watch::Watch;
use super::wire::{Wire, Wires};
use crate::accept::body::Broken;
use crate::accept::clock::Clock;
use crate::config::limits::Timeouts;
use crate::message::chunk::Chunk;
use crate::message::invalid::Invalid;
use crate::socket::{Socket, UNSENT};
use crate::tls::originator::Offer;

/// Answers before the answer (RFC 9110, 15.2): more than anybody has a use for.
pub(super) const INFORMATIONAL: usize = 32;

/// Where a request goes, and how long that may take.
#[derive(Debug, Clone, Copy)]
pub struct Target<'a> {
    /// The service.
    pub upstream: &'a Arc<Upstream>,
    /// How long it, and the client, may take.
    pub timeouts: &'a Timeouts,
    /// When the answer must be whole.
    pub until: Option<Instant>,
}

/// The connections of one worker.
#[derive(Debug)]
pub struct Client {
    pools: RefCell<Vec<(u64, VecDeque<Kept>)>>,
    wires: Wires,
    /// Where HTTP/2 is spoken.
    pub(super) http2: Pool,
    chunk: Rc<Chunk>,
}

#[derive(Debug)]
struct Kept {
    wire: Rc<Wire>,
    until: Instant,
}

/// A connection while one request has it.
#[derive(Debug)]
pub struct Lease {
    wire: Rc<Wire>,
    client: Rc<Client>,
    upstream: Arc<Upstream>,
    /// How long it is kept when it is free.
    life: Duration,
    keeps_alive: bool,
    going: Option<Going>,
}

/// What is left of a request, which goes on beside its answer and ends with it.
#[derive(Debug)]
struct Going(Option<Rc<Wire>>);

impl Drop for Going {
    fn drop(&mut self) {
        if let Some(wire) = &self.0 {
            wire.watch.end_upload();
        }
    }
}

/// An answer whose head has been read.
#[derive(Debug)]
pub struct Answered {
    /// Its head.
    pub head: Head,
    /// What has been read behind it.
    pub rest: Bytes,
    /// The connection that it comes over.
    pub lease: Lease,
}

impl Client {
    /// None yet; what they read comes into this chunk.
    #[must_use]
    pub fn new(chunk: Rc<Chunk>, clock: Rc<Clock>) -> Self {
        Self { pools: RefCell::default(), wires: Wires::new(clock), http2: Pool::default(), chunk }
    }

    /// Sends a request and waits for the head of its answer.
    ///
    /// A kept connection may have died without our knowing. A request that was never written is sent again on a
    /// fresh one; one that was written only where that cannot do anything twice (RFC 9110, 9.2.2). What is left of it after
    /// the answer's head is for [`Lease::sends_on`].
    pub async fn send(
        self: &Rc<Self>,
        target: &Target<'_>,
        method: &Method,
        upload: &mut Upload,
    ) -> Result<Answered, Fault> {
        let Target { upstream, timeouts, .. } = target;
        let mut kept = self.take(upstream, timeouts);
        loop {
            let was_kept = kept.is_some();
            let wire = if let Some(wire) = kept.take() {
                wire
            } else {
                let dialled = self.connect(target, async |address| {
                    let (socket, _) = dial(upstream, address, Offer::Http1).await?;
                    Ok(self.wires.open(socket, address))
                });
                // Seldom, and large.
                Box::pin(dialled).await?
            };
            let mut lease = Lease {
                wire,
                client: Rc::clone(self),
                upstream: Arc::clone(upstream),
                life: timeouts.pool,
                keeps_alive: false,
                going: None,
            };
            match lease.exchange(method, target, upload).await {
                Ok((head, rest)) => {
                    lease.keeps_alive = head.keeps_alive;
                    return Ok(Answered { head, rest, lease });
                }
                Err(Fault::Closed(_)) if was_kept && upload.rewind(is_idempotent(method)) => {
                    upstream.meters.retries.inc();
                }
                Err(fault) => return Err(fault),
            }
        }
    }

    /// When an answer must be whole that is asked for now.
    #[must_use]
    pub fn until(&self, timeouts: &Timeouts) -> Option<Instant> {
        timeouts.total.map(|total| self.clock().after(total))
    }

    /// How long a connection may take to be made, of what is left.
    pub(super) fn limit(&self, Target { timeouts, until, .. }: &Target<'_>) -> Duration {
        let left = until.map(|until| until.saturating_duration_since(self.clock().now()));
        left.map_or(timeouts.connect, |left| left.min(timeouts.connect))
    }

    /// What time it is.
    pub(super) fn clock(&self) -> &Rc<Clock> {
        self.wires.clock()
    }

    /// Ends waits that are over, connections that nobody used, and what is kept beyond `most`. The worker's tick
    /// calls it.
    ///
    /// Many answers come in one turn, and many requests in the next: with fewer kept than were in use at once, each
    /// turn would close connections for the next to make again.
    pub fn sweep(&self, now: Instant, most: usize) {
        self.wires.sweep(now);
        self.http2.sweep(now);
        let mut pools = self.pools.borrow_mut();
        pools.retain_mut(|(_, pool)| {
            pool.retain(|kept| kept.until > now && kept.wire.is_quiet());
            !pool.is_empty()
        });
        let mut kept: usize = pools.iter().map(|(_, pool)| pool.len()).sum();
        while kept > most
            && let Some((_, longest)) = pools.iter_mut().max_by_key(|(_, pool)| pool.len())
        {
            longest.pop_front();
            kept -= 1;
        }
    }

    /// The connection that was used last: the others may grow old and go.
    fn take(&self, upstream: &Upstream, timeouts: &Timeouts) -> Option<Rc<Wire>> {
        let mut pools = self.pools.borrow_mut();
        let (_, pool) = pools.iter_mut().find(|(id, _)| *id == upstream.id)?;
        let now = self.wires.clock().now();
        while let Some(Kept { wire, until }) = pool.pop_back() {
            let live = until.min(now + timeouts.pool) > now && wire.is_quiet();
            if live && upstream.is_at(&wire.address) {
                return Some(wire);
            }
        }
        None
    }

    /// Whether a connection of HTTP/1 is kept for it.
    pub(super) fn has_kept(&self, upstream: &Upstream) -> bool {
        self.pools.borrow().iter().any(|(id, pool)| *id == upstream.id && !pool.is_empty())
    }

    /// Keeps a connection of HTTP/1 that was not meant to be one.
    pub(super) fn keep_new(&self, target: &Target<'_>, socket: Socket, address: SocketAddr) {
        self.keep(target.upstream, self.wires.open(socket, address), target.timeouts.pool);
    }

    fn keep(&self, upstream: &Upstream, wire: Rc<Wire>, life: Duration) {
        let kept = Kept { wire, until: self.wires.clock().now() + life };
        let mut pools = self.pools.borrow_mut();
        if let Some((_, pool)) = pools.iter_mut().find(|(id, _)| *id == upstream.id) {
            pool.push_back(kept);
        } else {
            pools.push((upstream.id, VecDeque::from([kept])));
        }
    }

    /// Tries each address, beginning with the one whose turn it is, in the time that one may take.
    pub(super) async fn connect<T>(
        &self,
        target: &Target<'_>,
        dial: impl AsyncFn(SocketAddr) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let Target { upstream, timeouts, .. } = target;
        let mut fault = upstream.unresolved();
        for address in upstream.addresses() {
            let limit = self.limit(target);
            match timeout(limit, dial(address)).await {
                Ok(Ok(made)) => {
                    upstream.meters.connects.inc();
                    return Ok(made);
                }
                Ok(Err(failed)) => fault = failed,
                Err(_) if limit < timeouts.connect => return Err(Fault::TotalTimeout),
                Err(_) => fault = Fault::ConnectTimeout { address },
            }
        }
        Err(fault)
    }
}

impl Lease {
    /// Who is being waited for on it.
    #[must_use]
    pub fn watch(&self) -> &Watch {
        &self.wire.watch
    }

    /// Never goes back to the pool: a server that refused an upgrade may not read this connection again.
    #[must_use]
    pub fn for_one_request(self) -> Self {
        Self { keeps_alive: false, ..self }
    }

    /// Reads what has come of the answer; `None` is its end.
    pub fn poll_read(&self, cx: &mut Context<'_>) -> Poll<Result<Option<Bytes>, Fault>> {
        Poll::Ready(match ready!(self.wire.poll_read(cx, &self.client.chunk)) {
            Ok(bytes) if bytes.is_empty() => self.wire.watch.fault().map_or(Ok(None), Err),
            Ok(bytes) => Ok(Some(bytes)),
            Err(error) => Err(self.wire.watch.fault().unwrap_or(Fault::Closed(error))),
        })
    }

    /// The whole answer has been read, and `rest` behind it: the connection is kept, if it is free for another
    /// request. It is not where one side said `close`, where the upstream said what it was not asked, or where the
    /// request's body is still on its way.
    pub fn finish(self, rest: &Bytes) {
        self.wire.watch.end();
        let Self { wire, client, upstream, life, keeps_alive, going } = self;
        if !wire.watch.is_sent() {
            wire.watch.let_finish();
            // The client may finish what it began: many read no answer before that.
            if let Some(mut going) = going {
                going.0 = None;
            }
        } else if keeps_alive && rest.is_empty() && wire.watch.fault().is_none() {
            client.keep(&upstream, wire, life);
        }
    }

    /// The socket of an answer that switched protocols, with what reads from it.
    #[must_use]
    pub fn into_socket(self) -> Option<(Socket, Rc<Chunk>)> {
        let Self { wire, client, .. } = self;
        Wire::into_socket(wire).map(|socket| (socket, Rc::clone(&client.chunk)))
    }

    /// Writes the request and reads the head of the answer, whichever comes first.
    async fn exchange(
        &self,
        method: &Method,
        Target { timeouts, until, .. }: &Target<'_>,
        upload: &mut Upload,
    ) -> Result<(Head, Bytes), Fault> {
        self.wire.watch.begin(timeouts, *until);
        let (mut sending, mut read, mut informational) = (true, Bytes::new(), 0);
        let mut gathered = Gathered::default();
        poll_fn(|cx| {
            if sending && let Poll::Ready(sent) = upload.poll(cx, &self.wire) {
                sending = false;
                sent.map_err(|broken| self.broken(broken))?;
            }
            loop {
                let head = if read.is_empty() { None } else { Head::read(&mut read, method)? };
                match head {
                    Some(head) if is_interim(head.status) => self.interim(&mut informational)?,
                    Some(head) => {
                        self.wire.watch.answered();
                        return Poll::Ready(Ok((head, std::mem::take(&mut read))));
                    }
                    None => match ready!(self.poll_read(cx))? {
                        Some(more) if read.is_empty() && gathered.is_empty() => read = more,
                        Some(more) => gathered.add(&mut read, &more),
                        None => {
                            let early = io::Error::from(ErrorKind::UnexpectedEof);
                            return Poll::Ready(Err(Fault::Closed(early)));
                        }
                    },
                }
            }
        })
        .await
    }

    /// Nobody downstream has a use for it.
    fn interim(&self, count: &mut usize) -> Result<(), Fault> {
        self.upstream.meters.informational.inc();
        *count += 1;
        if *count > INFORMATIONAL { Err(Invalid::Interim.into()) } else { Ok(()) }
    }

    /// What is left of the request goes on beside the answer.
    #[must_use]
    pub fn sends_on(mut self, mut upload: Upload) -> Self {
        if self.wire.watch.is_sent() {
            return self;
        }
        let (wire, progress) = (Rc::clone(&self.wire), upload.progress().cloned());
        let task = tokio::task::spawn_local(async move {
            if let Err(broken) = poll_fn(|cx| upload.poll(cx, &wire)).await {
                wire.watch.broke(broken);
                // Half a body must not look like a whole one.
                wire.cut();
            }
        });
        if let Some(progress) = progress {
            progress.goes_on_in(task.abort_handle());
        }
        self.wire.watch.uploaded_by(task.abort_handle());
        self.going = Some(Going(Some(Rc::clone(&self.wire))));
        self
    }

    fn broken(&self, broken: Broken) -> Fault {
        self.wire.watch.fault().unwrap_or(Fault::Client(broken))
    }
}

/// A connection to this address, under TLS where the upstream speaks it.
///
/// Says whether HTTP/2 is to be spoken; without TLS that is what was offered.
pub(super) async fn dial(
    upstream: &Upstream,
    address: SocketAddr,
    offer: Offer,
) -> Result<(Socket, bool), Fault> {
    let tcp = TcpStream::connect(address).await.map_err(|source| Fault::Refused { address, source })?;
    // A failure here means that the peer has gone; the request that follows will say so.
    let _ = tcp.set_nodelay(true).and_then(|()| SockRef::from(&tcp).set_tcp_notsent_lowat(UNSENT));
    match &upstream.tls {
        None => Ok((tcp.into(), offer == Offer::Http2)),
        Some(tls) => tls.connect(tcp, offer).await.map_err(|source| Fault::Tls { address, source }),
    }
}

/// An answer before the answer; a switch of protocols is one itself.
fn is_interim(status: StatusCode) -> bool {
    status.is_informational() && status != StatusCode::SWITCHING_PROTOCOLS
}

//! The connections of HTTP/2 of one worker.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Instant;

use tokio::io::AsyncWriteExt as _;
use tokio::sync::{Mutex, MutexGuard};
use tokio::time::timeout;

use super::connection::Connection;
use super::stream::Stream;
use crate::config::upstream::Protocol;
use crate::forward::client::{Client, Target, dial};
use crate::forward::fault::Fault;
use crate::forward::upstream::Upstream;
use crate::tls::originator::Offer;

/// The connections of HTTP/2 of one worker, and the requests on them.
#[derive(Debug, Default)]
pub struct Pool {
    sides: RefCell<Vec<(u64, Rc<Side>)>>,
    streams: RefCell<Vec<Weak<Stream>>>,
}

/// What a worker has towards one upstream.
#[derive(Debug, Default)]
struct Side {
    connections: RefCell<Vec<Rc<Connection>>>,
    /// Who connects: the others wait, and use what comes of it.
    turn: Mutex<()>,
    /// It last chose HTTP/1.1, where nobody can use the connection of another.
    http1: Cell<bool>,
}

impl Side {
    /// The first with room: the others may grow old and go.
    fn room(&self, upstream: &Upstream, now: Instant, but: &[Rc<Connection>]) -> Option<Rc<Connection>> {
        let mut connections = self.connections.borrow_mut();
        connections.retain(|connection| connection.is_kept(now));
        let fits = |connection: &&Rc<Connection>| {
            connection.has_room(upstream, now) && !but.iter().any(|other| Rc::ptr_eq(other, connection))
        };
        connections.iter().find(fits).cloned()
    }
}

impl Pool {
    /// A place for a request, on another connection than these; `None` where the upstream chose HTTP/1.1, and the
    /// client has a connection to go on with.
    pub(in crate::forward) async fn place(
        &self,
        client: &Client,
        target: &Target<'_>,
        but: &[Rc<Connection>],
    ) -> Result<Option<Rc<Stream>>, Fault> {
        let Target { upstream, timeouts, .. } = target;
        let side = self.side(upstream);
        let clock = client.clock();
        let begin = |connection| {
            let stream = Stream::begin(connection, target, clock);
            self.streams.borrow_mut().push(Rc::downgrade(&stream));
            Some(stream)
        };
        if let Some(connection) = side.room(upstream, clock.now(), but) {
            return Ok(begin(connection));
        }
        let auto = upstream.config.protocol == Protocol::Auto;
        if auto && client.has_kept(upstream) {
            return Ok(None);
        }
        let turn = if side.http1.get() { None } else { Some(Self::turn(client, target, &side).await?) };
        // Who had it before may have found out what there is.
        if let Some(connection) = side.room(upstream, clock.now(), but) {
            return Ok(begin(connection));
        }
        if auto && client.has_kept(upstream) {
            return Ok(None);
        }
        let _turn = turn.filter(|_| !side.http1.get());
        let offer = if auto { Offer::Either } else { Offer::Http2 };
        let dialled = client.connect(target, async |address| {
            let (mut socket, http2) = dial(upstream, address, offer).await?;
            if auto && !http2 {
                // It may rest before anything is written on it. A failure is found when it is taken.
                let _ = socket.flush().await;
                client.keep_new(target, socket, address);
                return Ok(None);
            }
            Connection::open(socket, address, clock.now() + timeouts.pool).await.map(Rc::new).map(Some)
        });
        let connection = dialled.await?;
        side.http1.set(connection.is_none());
        Ok(connection.and_then(|connection| {
            side.connections.borrow_mut().push(Rc::clone(&connection));
            begin(connection)
        }))
    }

    /// The right to connect, as soon as nobody else does; waited for as long as a connection may take.
    async fn turn<'s>(
        client: &Client,
        target: &Target<'_>,
        side: &'s Side,
    ) -> Result<MutexGuard<'s, ()>, Fault> {
        let Target { upstream, timeouts, .. } = target;
        let limit = client.limit(target);
        timeout(limit, side.turn.lock()).await.map_err(|_| match upstream.addresses().first() {
            _ if limit < timeouts.connect => Fault::TotalTimeout,
            Some(address) => Fault::ConnectTimeout { address: *address },
            None => upstream.unresolved(),
        })
    }

    fn side(&self, upstream: &Upstream) -> Rc<Side> {
        let mut sides = self.sides.borrow_mut();
        if let Some((_, side)) = sides.iter().find(|(id, _)| *id == upstream.id) {
            return Rc::clone(side);
        }
        let side = Rc::<Side>::default();
        sides.push((upstream.id, Rc::clone(&side)));
        side
    }

    /// Ends waits that are over and connections that nobody used.
    pub(in crate::forward) fn sweep(&self, now: Instant) {
        self.streams.borrow_mut().retain(|stream| stream.upgrade().is_some_and(|stream| stream.look(now)));
        self.sides.borrow_mut().retain(|(_, side)| {
            side.connections.borrow_mut().retain(|connection| connection.is_kept(now));
            Rc::strong_count(side) > 1 || !side.connections.borrow().is_empty()
        });
    }
}

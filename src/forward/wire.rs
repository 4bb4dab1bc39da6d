//! One connection of HTTP/1 to an upstream: its socket, and who is being waited for on it.

use std::cell::RefCell;
use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::rc::{Rc, Weak};
use std::task::{Context, Poll};
use std::time::Instant;

use bytes::Bytes;
use tokio::io::AsyncWrite as _;

use super::watch::Watch;
use crate::accept::clock::Clock;
use crate::message::chunk::Chunk;
use crate::socket::Socket;

/// One connection to an upstream, of HTTP/1.
#[derive(Debug)]
pub struct Wire {
    /// Where it leads.
    pub address: SocketAddr,
    /// Who is being waited for on it.
    pub watch: Watch,
    socket: RefCell<Socket>,
}

/// All wires of a worker.
#[derive(Debug)]
pub struct Wires {
    all: RefCell<Vec<Weak<Wire>>>,
    clock: Rc<Clock>,
}

impl Wires {
    /// None yet.
    pub fn new(clock: Rc<Clock>) -> Self {
        Self { all: RefCell::default(), clock }
    }

    /// A wire for a socket that has just been connected.
    pub fn open(&self, socket: Socket, address: SocketAddr) -> Rc<Wire> {
        let wire = Rc::new(Wire {
            address,
            watch: Watch::new(Rc::clone(&self.clock)),
            socket: RefCell::new(socket),
        });
        self.all.borrow_mut().push(Rc::downgrade(&wire));
        wire
    }

    /// What time it is.
    pub fn clock(&self) -> &Rc<Clock> {
        &self.clock
    }

    /// Ends the waits that are over, and forgets wires that have gone.
    pub fn sweep(&self, now: Instant) {
        self.all.borrow_mut().retain(|wire| wire.upgrade().is_some_and(|wire| wire.look(now)));
    }
}

impl Wire {
    /// Reads what has come; nothing is the end.
    pub fn poll_read(&self, cx: &mut Context<'_>, chunk: &Chunk) -> Poll<io::Result<Bytes>> {
        chunk.poll_fill(cx, Pin::new(&mut *self.socket.borrow_mut()))
    }

    /// Writes what it can of these parts.
    pub fn poll_write(&self, cx: &mut Context<'_>, parts: &[IoSlice<'_>]) -> Poll<io::Result<usize>> {
        let mut socket = self.socket.borrow_mut();
        match parts {
            [only] => Pin::new(&mut *socket).poll_write(cx, only),
            several => Pin::new(&mut *socket).poll_write_vectored(cx, several),
        }
    }

    /// Sends what TLS holds back.
    pub fn poll_flush(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let mut socket = self.socket.borrow_mut();
        if socket.is_buffered() { Pin::new(&mut *socket).poll_flush(cx) } else { Poll::Ready(Ok(())) }
    }

    /// Open, and nothing has come that nobody asked for. Costs a system call only where something has.
    #[must_use]
    pub fn is_quiet(&self) -> bool {
        self.socket.borrow_mut().is_quiet()
    }

    /// The socket, where nobody else holds the wire.
    #[must_use]
    pub fn into_socket(this: Rc<Self>) -> Option<Socket> {
        Rc::into_inner(this).map(|wire| wire.socket.into_inner())
    }

    /// Ends it for everybody who reads or writes on it.
    pub fn cut(&self) {
        self.socket.borrow().cut();
    }

    /// False once there is nothing to look at any more.
    fn look(&self, now: Instant) -> bool {
        let over = self.watch.is_over(now);
        if over {
            self.cut();
        }
        !over
    }
}

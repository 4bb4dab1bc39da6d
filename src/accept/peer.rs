//! Who is at the other end of a client's connection, how long it may take, and whether it is to end.

use std::cell::{Cell, OnceCell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Waker};
use std::time::{Duration, Instant};

use ipnet::IpNet;

use super::Entrance;
use super::clock::Clock;
use super::proxy_protocol::{Header, Source};
use crate::config::listen::HttpsOnly;

/// How a client came.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scheme {
    /// In plain.
    Http,
    /// Over TLS.
    Https,
}

impl Scheme {
    /// As a URI begins.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Http => "http",
            Self::Https => "https",
        }
    }
}

/// Whether an address is in one of these networks.
#[must_use]
pub fn is_one_of(address: IpAddr, networks: &[IpNet]) -> bool {
    networks.iter().any(|network| network.contains(&address))
}

/// The other end of a client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address; an IPv4 address that came over an IPv6 socket is the IPv4 address.
    pub ip: IpAddr,
    /// The same, as forwarded headers have it.
    pub text: Rc<str>,
    /// How it came: over the socket, or as a PROXY header says.
    pub scheme: Scheme,
    /// What becomes of its requests where they came over plain HTTP.
    pub https_only: HttpsOnly,
    /// A hop could not say who it is: `ip` is the hop's, and what is said is not.
    unknown: bool,
    /// Streams of its client, over all connections that he has; nobody counts those of many clients.
    streams: OnceCell<Arc<AtomicUsize>>,
    certificate: OnceCell<Option<Rc<str>>>,
    in_plain: Cell<bool>,
    clock: Rc<Clock>,
    deadline: Cell<Option<Instant>>,
    late: Cell<bool>,
    idle: Cell<bool>,
    closing: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

impl Peer {
    /// From the socket.
    #[must_use]
    pub fn new(address: SocketAddr, clock: &Rc<Clock>) -> Self {
        let ip = address.ip().to_canonical();
        Self {
            ip,
            text: ip.to_string().into(),
            scheme: Scheme::Http,
            https_only: HttpsOnly::Off,
            unknown: false,
            certificate: OnceCell::new(),
            streams: OnceCell::new(),
            in_plain: Cell::new(false),
            clock: Rc::clone(clock),
            deadline: Cell::new(None),
            late: Cell::new(false),
            idle: Cell::new(false),
            closing: Cell::new(false),
            waker: RefCell::new(None),
        }
    }

    /// The same, where it comes in through this.
    #[must_use]
    pub fn through(self, entrance: &Entrance) -> Self {
        let scheme = if entrance.tls.is_some() { Scheme::Https } else { Scheme::Http };
        Self { https_only: entrance.https_only, scheme, ..self }
    }

    /// Who is behind this hop, by its PROXY header.
    #[must_use]
    pub fn behind(&self, header: &Header) -> Self {
        let address = match header.source {
            Source::Client(address) => address,
            Source::Hop | Source::Unknown => SocketAddr::new(self.ip, 0),
        };
        Self {
            // What is under TLS here is so whatever a hop says of its own client.
            scheme: if self.scheme == Scheme::Https { Scheme::Https } else { header.scheme },
            https_only: self.https_only,
            unknown: header.source == Source::Unknown,
            ..Self::new(address, &self.clock)
        }
    }

    /// Whether it may say where its requests really came from.
    #[must_use]
    pub fn is_trusted(&self, proxies: &[IpNet]) -> bool {
        !self.unknown && is_one_of(self.ip, proxies)
    }

    /// Who it has proved to be, where it has shown a certificate: [`crate::identity::key::CERTIFICATE`] and a name, if it
    /// names somebody.
    #[must_use]
    pub fn certificate(&self) -> Option<&Option<Rc<str>>> {
        self.certificate.get()
    }

    /// It has proved this in its handshake.
    pub(super) fn has_proved(&self, name: Option<Rc<str>>) {
        // There is one handshake.
        let _ = self.certificate.set(name);
    }

    /// Its streams are counted here.
    pub(super) fn counts_in(&self, streams: &Arc<AtomicUsize>) {
        // It is one client's from its beginning.
        let _ = self.streams.set(Arc::clone(streams));
    }

    /// Its client has opened a stream of HTTP/2.
    pub(super) fn opens(&self) {
        if let Some(streams) = self.streams.get() {
            streams.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// One has ended, and been taken.
    pub(super) fn ends(&self) {
        if let Some(streams) = self.streams.get() {
            streams.fetch_sub(1, Ordering::Relaxed);
        }
    }

    /// Its client has more streams than this.
    pub(super) fn has_more_than(&self, most: Option<usize>) -> bool {
        let have = self.streams.get().map_or(0, |streams| streams.load(Ordering::Relaxed));
        most.is_some_and(|most| have > most)
    }

    /// It speaks in plain where TLS is spoken, whatever is said of its requests.
    #[must_use]
    pub fn is_in_plain(&self) -> bool {
        self.in_plain.get()
    }

    /// It does.
    pub(super) fn has_come_in_plain(&self) {
        self.in_plain.set(true);
    }

    /// What time it is.
    #[must_use]
    pub fn clock(&self) -> &Clock {
        &self.clock
    }

    /// The task of the connection is woken when it is late, when it is to end, and by [`Peer::wake`].
    pub fn watch(&self, cx: &Context<'_>) {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
    }

    /// Wakes the task of the connection.
    pub fn wake(&self) {
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }

    /// It may take so long from now on, and nothing is lost if it is not waited for.
    pub fn idle(&self, limit: Duration) {
        self.wait(limit);
        self.idle.set(true);
    }

    /// It may take so long from now on.
    pub fn wait(&self, limit: Duration) {
        self.idle.set(false);
        self.late.set(false);
        self.deadline.set(Some(self.clock.after(limit)));
    }

    /// It may take so long from now on, or as long as was said before where that is less.
    pub fn wait_no_longer(&self, limit: Duration) {
        if self.deadline.get().is_none_or(|deadline| deadline > self.clock.after(limit)) {
            self.wait(limit);
        }
    }

    /// Nobody waits for it.
    pub fn rest(&self) {
        self.idle.set(false);
        self.late.set(false);
        self.deadline.set(None);
    }

    /// Somebody waits for it.
    pub(super) fn is_waited_for(&self) -> bool {
        self.deadline.get().is_some()
    }

    /// It took too long.
    #[must_use]
    pub fn is_late(&self) -> bool {
        self.late.get()
    }

    /// The connection is to end as soon as it is free.
    #[must_use]
    pub fn is_closing(&self) -> bool {
        self.closing.get()
    }

    /// Nothing is asked on it, and nobody has told it to end.
    pub(super) fn is_idle(&self) -> bool {
        self.idle.get() && !self.closing.get()
    }

    /// The connection is to end as soon as it is free.
    pub(super) fn close(&self) {
        self.closing.set(true);
        self.wake();
    }

    /// Looks whether it has taken too long.
    pub(super) fn look(&self, now: Instant) {
        if self.deadline.get().is_some_and(|deadline| deadline <= now) {
            self.deadline.set(None);
            self.late.set(true);
            self.wake();
        }
    }
}

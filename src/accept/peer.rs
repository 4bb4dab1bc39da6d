//! Who is at the other end of a client's connection, and what the worker wants of that connection.

use std::cell::{Cell, RefCell};
use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::task::{Context, Waker};

use http::HeaderValue;
use ipnet::IpNet;

/// The other end of a client's connection.
#[derive(Debug)]
pub struct Peer {
    /// Its address; an IPv4 address that came over an IPv6 socket is the IPv4 address.
    pub ip: IpAddr,
    /// The same, as forwarded headers have it.
    pub text: HeaderValue,
    busy: Cell<usize>,
    /// Something was asked since the worker looked last.
    asked: Cell<bool>,
    wish: Cell<Wish>,
    waker: RefCell<Option<Waker>>,
}

/// What a worker wants of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Wish {
    /// Nothing.
    Serve,
    /// Nothing has been asked for a while: what serves it is taken apart until something is.
    Rest,
    /// It ends as soon as it is free.
    Close,
}

/// A request that needs its connection, for as long as it does.
#[derive(Debug)]
pub struct Busy(Rc<Peer>);

impl Peer {
    /// From the socket.
    #[must_use]
    pub fn new(address: SocketAddr) -> Self {
        let ip = address.ip().to_canonical();
        let text = HeaderValue::from_str(&ip.to_string()).expect("an address is visible ASCII");
        Self {
            ip,
            text,
            busy: Cell::new(0),
            asked: Cell::new(false),
            wish: Cell::new(Wish::Serve),
            waker: RefCell::new(None),
        }
    }

    /// Whether it may say where its requests really came from.
    #[must_use]
    pub fn is_trusted(&self, proxies: &[IpNet]) -> bool {
        proxies.iter().any(|net| net.contains(&self.ip))
    }

    /// One more request needs the connection.
    #[must_use]
    pub fn busy(this: &Rc<Self>) -> Busy {
        this.busy.set(this.busy.get() + 1);
        this.asked.set(true);
        this.serve();
        Busy(Rc::clone(this))
    }

    /// What the worker wants; the connection's task is woken when that changes.
    pub fn wish(&self, cx: &Context<'_>) -> Wish {
        let mut waker = self.waker.borrow_mut();
        if !waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
            *waker = Some(cx.waker().clone());
        }
        self.wish.get()
    }

    /// The connection is to end as soon as it is free.
    pub fn close(&self) {
        self.want(Wish::Close);
    }

    /// Looks whether the connection may rest: where nothing was asked since the last look, and nothing is under way.
    pub fn look(&self) {
        let asked = self.asked.replace(false);
        if !asked && self.busy.get() == 0 && self.wish.get() == Wish::Serve {
            self.want(Wish::Rest);
        }
    }

    /// The client has said something after a rest.
    pub fn woke(&self) {
        self.asked.set(true);
        self.serve();
    }

    fn serve(&self) {
        if self.wish.get() == Wish::Rest {
            self.wish.set(Wish::Serve);
        }
    }

    fn want(&self, wish: Wish) {
        self.wish.set(wish);
        if let Some(waker) = &*self.waker.borrow() {
            waker.wake_by_ref();
        }
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        self.0.busy.set(self.0.busy.get() - 1);
    }
}

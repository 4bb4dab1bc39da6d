//! What a worker has open: connections and tunnels.

use std::cell::{Cell, RefCell};
use std::rc::{Rc, Weak};
use std::time::Instant;

use tokio::sync::Notify;

use super::peer::Peer;

/// What a worker has open: connections and tunnels.
#[derive(Debug, Default)]
pub struct Open {
    count: Cell<usize>,
    none: Notify,
    peers: RefCell<Vec<Weak<Peer>>>,
}

/// One of them, for as long as it lives.
#[derive(Debug)]
pub struct Entered(Rc<Open>);

impl Open {
    /// One more.
    #[must_use]
    pub fn enter(this: &Rc<Self>) -> Entered {
        this.count.set(this.count.get() + 1);
        Entered(Rc::clone(this))
    }

    /// One more, which can be told what the worker wants.
    #[must_use]
    pub fn connect(this: &Rc<Self>, peer: &Rc<Peer>) -> Entered {
        this.peers.borrow_mut().push(Rc::downgrade(peer));
        Self::enter(this)
    }

    /// Ready when nothing is open.
    pub async fn none(&self) {
        while self.count.get() > 0 {
            self.none.notified().await;
        }
    }

    /// Every connection is to end as soon as it is free.
    pub fn close(&self) {
        self.each(Peer::close);
    }

    /// Looks who has taken too long.
    pub fn look(&self, now: Instant) {
        self.each(|peer| peer.look(now));
    }

    /// Ends the connection that is oldest of those on which nothing is asked; false where there is none.
    pub fn make_room(&self) -> bool {
        let peers = self.peers.borrow();
        let idle = peers.iter().filter_map(Weak::upgrade).find(|peer| peer.is_idle());
        idle.inspect(|peer| peer.close()).is_some()
    }

    fn each(&self, tell: impl Fn(&Peer)) {
        self.peers.borrow_mut().retain(|peer| {
            peer.upgrade().is_some_and(|peer| {
                tell(&peer);
                true
            })
        });
    }
}

impl Drop for Entered {
    fn drop(&mut self) {
        let left = self.0.count.get() - 1;
        self.0.count.set(left);
        if left == 0 {
            self.0.none.notify_one();
        }
    }
}

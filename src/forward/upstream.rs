//! A service behind us, and where it is.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use arc_swap::ArcSwap;

use super::fault::Fault;
use crate::config::upstream::{self as written, Address};
use crate::observe::metrics::UpstreamMeters;
use crate::tls::originator::Originator;

/// A service behind us, shared by all workers and kept over reloads that do not change it.
#[derive(Debug)]
pub struct Upstream {
    /// As the configuration says it.
    pub config: written::Upstream,
    /// Counters of its own.
    pub meters: UpstreamMeters,
    /// What it is called where a request names no host.
    pub host: Box<str>,
    /// No other has had it.
    pub id: u64,
    /// Set where it speaks TLS.
    pub tls: Option<Originator>,
    addresses: ArcSwap<Vec<SocketAddr>>,
    looked_up: AtomicBool,
    turn: AtomicUsize,
}

impl Upstream {
    /// A service whose addresses are known where they are written as numbers.
    #[must_use]
    pub fn new(config: written::Upstream, meters: UpstreamMeters) -> Self {
        static NEXT: AtomicU64 = AtomicU64::new(0);
        let (addresses, host) = match &config.address {
            Address::Socket(address) => (vec![*address], address.to_string()),
            Address::Name { host, port } => (Vec::new(), format!("{host}:{port}")),
        };
        let tls = config.tls.clone().map(Originator::new);
        Self {
            config,
            meters,
            tls,
            host: host.into(),
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

    /// What a request to it fails with where none is.
    #[must_use]
    pub fn unresolved(&self) -> Fault {
        Fault::Unresolved { upstream: self.config.name.clone() }
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

    /// Whether it is still at this address.
    #[must_use]
    pub fn is_at(&self, address: &SocketAddr) -> bool {
        match &self.config.address {
            Address::Socket(only) => only == address,
            Address::Name { .. } => self.addresses.load().contains(address),
        }
    }

    /// Its addresses, beginning with the one whose turn it is.
    #[must_use]
    pub fn addresses(&self) -> Vec<SocketAddr> {
        let addresses = self.addresses.load();
        let first = self.turn.fetch_add(1, Ordering::Relaxed) % addresses.len().max(1);
        addresses.iter().cycle().skip(first).take(addresses.len()).copied().collect()
    }
}

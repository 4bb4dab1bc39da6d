//! Who holds how many connections, over all workers.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::net::{IpAddr, Ipv6Addr};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use prometheus::{IntCounterVec, IntGauge};

use crate::observe::seldom::Seldom;

/// Connections of all clients. It is asked when one comes and when one goes, never for a request.
#[derive(Debug)]
pub struct Crowd {
    of: Mutex<HashMap<IpAddr, Client>>,
    all: IntGauge,
    refused: IntCounterVec,
    said: Seldom,
    /// Somebody came for whom his worker could make no room.
    wanted: AtomicBool,
}

/// What a client has.
#[derive(Debug, Default)]
struct Client {
    connections: usize,
    /// Streams of HTTP/2, over all of them.
    streams: Arc<AtomicUsize>,
}

/// How many there may be.
#[derive(Debug, Clone, Copy)]
pub struct Most {
    /// In all.
    pub all: usize,
    /// Of one address, or network of IPv6, and as many streams; `None` where that stands for many clients.
    pub of_one: Option<usize>,
}

/// A place in the crowd, for as long as its connection lives.
#[derive(Debug)]
pub struct Place {
    crowd: Arc<Crowd>,
    of: IpAddr,
    streams: Arc<AtomicUsize>,
}

impl Crowd {
    /// Nobody yet; this gauge follows it, and this counter those who are refused.
    #[must_use]
    pub fn new(all: IntGauge, refused: IntCounterVec) -> Arc<Self> {
        Arc::new(Self {
            of: Mutex::default(),
            all,
            refused,
            said: Seldom::default(),
            wanted: AtomicBool::new(false),
        })
    }

    /// A place for one more, if there is one; or where somebody who needs his no more has made room.
    pub fn enter(
        this: &Arc<Self>,
        client: IpAddr,
        most: Most,
        make_room: impl FnOnce() -> bool,
    ) -> Option<Place> {
        let of_whom = household(client);
        let mut of = this.of.lock().unwrap_or_else(PoisonError::into_inner);
        let have = of.get(&of_whom).map_or(0, |client| client.connections);
        let full = if this.is_full(most) && !make_room() {
            this.want_room();
            "connections"
        } else if most.of_one.is_some_and(|most| have >= most) {
            "connections_per_client"
        } else {
            let streams = Self::join(&mut of, of_whom);
            this.all.inc();
            return Some(Place { crowd: Arc::clone(this), of: of_whom, streams });
        };
        drop(of);
        this.refuse(full, client);
        None
    }

    /// Some worker is to make room.
    pub fn want_room(&self) {
        self.wanted.store(true, Ordering::Relaxed);
    }

    /// Whether somebody has found no room, and there still is none; who asks is to make some.
    pub fn wants_room(&self, most: Most) -> bool {
        let wanted = self.wanted.load(Ordering::Relaxed) && self.wanted.swap(false, Ordering::Relaxed);
        wanted && self.is_full(most)
    }

    /// Whether there are as many as there may be.
    pub(super) fn is_full(&self, most: Most) -> bool {
        usize::try_from(self.all.get()).unwrap_or_default() >= most.all
    }

    /// A connection or a stream of this client is not taken, for this limit.
    pub(super) fn refuse(&self, full: &str, client: IpAddr) {
        self.refused.with_label_values(&[full]).inc();
        if self.said.is_time() {
            tracing::warn!(limit = full, %client, "a connection or a stream was not taken; scopegate_connections_refused_total counts them");
        }
    }

    /// One connection more of this client.
    fn join(of: &mut HashMap<IpAddr, Client>, client: IpAddr) -> Arc<AtomicUsize> {
        let client = of.entry(client).or_default();
        client.connections += 1;
        Arc::clone(&client.streams)
    }

    /// One connection less of this client.
    fn leave(of: &mut HashMap<IpAddr, Client>, client: IpAddr) {
        if let Entry::Occupied(mut client) = of.entry(client) {
            client.get_mut().connections -= 1;
            if client.get().connections == 0 {
                client.remove();
            }
        }
    }
}

/// Whom an address stands for: of IPv6, who has one has its network of 64 bits (RFC 4291, 2.5.4).
fn household(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(_) => address,
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() >> 64 << 64).into(),
    }
}

impl Place {
    /// It turns out to be this client's, who may have no more than `of_one`; false where he has as many.
    pub fn passes_to(&mut self, client: IpAddr, of_one: Option<usize>) -> bool {
        let of_whom = household(client);
        let mut of = self.crowd.of.lock().unwrap_or_else(PoisonError::into_inner);
        let have = of.get(&of_whom).map_or(0, |client| client.connections);
        if of_one.is_some_and(|most| have >= most) {
            drop(of);
            self.crowd.refuse("connections_per_client", client);
            return false;
        }
        self.streams = Crowd::join(&mut of, of_whom);
        Crowd::leave(&mut of, std::mem::replace(&mut self.of, of_whom));
        true
    }

    /// Counts the streams of its client.
    pub(super) fn streams(&self) -> &Arc<AtomicUsize> {
        &self.streams
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        self.crowd.all.dec();
        Crowd::leave(&mut self.crowd.of.lock().unwrap_or_else(PoisonError::into_inner), self.of);
    }
}

#[cfg(test)]
mod tests {
    use prometheus::Opts;

    use super::*;

    #[test]
    fn places_are_given_back() {
        let gauge = IntGauge::new("all", "all").expect("a gauge");
        let refused = IntCounterVec::new(Opts::new("refused", "refused"), &["limit"]).expect("a counter");
        let crowd = Crowd::new(gauge.clone(), refused.clone());
        let [one, other]: [IpAddr; 2] = [[10, 0, 0, 1].into(), [10, 0, 0, 2].into()];
        let most = Most { all: 3, of_one: Some(2) };
        let enter = |who, most| Crowd::enter(&crowd, who, most, || false);
        let places = [enter(one, most).expect("room"), enter(one, most).expect("room")];
        assert!(enter(one, most).is_none());
        let last = enter(other, most).expect("room");
        assert!(enter(other, Most { of_one: None, ..most }).is_none());
        drop(Crowd::enter(&crowd, other, most, || true).expect("room was made"));
        for limit in ["connections", "connections_per_client"] {
            assert_eq!(refused.with_label_values(&[limit]).get(), 1, "{limit}");
        }
        drop(places);
        assert_eq!(gauge.get(), 1);
        let again = [enter(one, most).expect("room"), enter(one, most).expect("room")];
        let mut behind = enter(other, Most { of_one: None, all: 9 }).expect("room");
        assert!(!behind.passes_to(one, most.of_one) && behind.passes_to(one, None));
        assert_eq!(refused.with_label_values(&["connections_per_client"]).get(), 2);
        drop((again, last, behind));
        assert_eq!(gauge.get(), 0);
        assert!(crowd.of.lock().expect("no panic").is_empty());
    }

    #[test]
    fn a_network_of_ipv6_is_one_client() {
        let gauge = IntGauge::new("all", "all").expect("a gauge");
        let refused = IntCounterVec::new(Opts::new("refused", "refused"), &["limit"]).expect("a counter");
        let crowd = Crowd::new(gauge, refused);
        let most = Most { all: 9, of_one: Some(1) };
        let enter = |who: &str| Crowd::enter(&crowd, who.parse().expect("an address"), most, || false);
        let mut one = enter("2001:db8:0:1::1").expect("room");
        assert!(enter("2001:db8:0:1:ffff::2").is_none());
        let other = enter("2001:db8:0:2::1").expect("room");
        assert!(!one.passes_to([0x2001, 0xdb8, 0, 2, 0, 0, 0, 9].into(), most.of_one));
        drop((one, other));
        assert!(crowd.of.lock().expect("no panic").is_empty());
    }

    #[test]
    fn who_finds_no_room_is_told_of_while_there_is_none() {
        let gauge = IntGauge::new("all", "all").expect("a gauge");
        let refused = IntCounterVec::new(Opts::new("refused", "refused"), &["limit"]).expect("a counter");
        let crowd = Crowd::new(gauge, refused);
        let most = Most { all: 1, of_one: None };
        let enter = |has_room| Crowd::enter(&crowd, [10, 0, 0, 1].into(), most, || has_room);
        let places = [enter(false).expect("room"), enter(true).expect("room was made")];
        assert!(!crowd.wants_room(most));
        assert!(enter(false).is_none());
        assert!(crowd.wants_room(most) && !crowd.wants_room(most));
        crowd.want_room();
        drop(places);
        assert!(!crowd.wants_room(most), "there is some now");
    }
}

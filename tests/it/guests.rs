//! A key that ends while its request waits for something else.

use std::cell::Cell;
use std::pin::pin;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use scopegate::decide::usable;
use scopegate::identity::caller::{Caller, Team};
use scopegate::identity::key::Digest;
use scopegate::identity::scope::ScopeSet;
use scopegate::keys::guests::{Guests, Reception};
use scopegate::keys::presented::Presented;
use scopegate::keys::{Entry, KeySource, SourceError, State};
use scopegate::observe::reason::Reason;

/// Knows every key until this time; where it is said, the next look-up waits for one turn, and its key has no end.
struct Until(SystemTime, Cell<bool>);

impl KeySource for Until {
    async fn find(&self, _: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        let waits = self.1.take();
        if waits {
            tokio::task::yield_now().await;
        }
        let team = Team { name: "t".into(), scopes: ScopeSet::default() };
        let caller = Caller::new("k", ScopeSet::default(), team);
        Ok(Some(Entry { caller, state: State::Active { until: Some(self.0).filter(|_| !waits) } }))
    }
}

const HOUR: Duration = Duration::from_secs(3600);

#[test]
fn who_has_waited_past_the_end_of_a_key_at_hand_is_not_let_in_by_the_time_at_which_it_came() {
    let (now, guests) = (SystemTime::now(), Rc::new(Guests::<()>::default()));
    let keys = Until(now - Duration::from_secs(60), Cell::new(false));
    let reception = Reception::new(&keys, &guests);
    let found = pin!(reception.find(&Presented::before(Digest::of(b"k"))))
        .poll(&mut Context::from_waker(Waker::noop()))
        .map(|found| usable(found.expect("an answer"), now - HOUR));
    let Poll::Ready(Err(denial)) = found else {
        panic!("it came before the end, and is too late now: {found:?}")
    };
    assert_eq!(denial.reason(), Reason::KeyExpired);
}

#[test]
fn a_key_that_ended_while_another_was_looked_up_ends_its_guest() {
    let (end, guests) = (SystemTime::now() + HOUR, Rc::new(Guests::default()));
    let (keys, mut cx) = (Until(end, Cell::new(false)), Context::from_waker(Waker::noop()));
    let reception = Reception::new(&keys, &guests);
    let [key, certificate] = [&b"k"[..], b"c"].map(|shown| Presented::before(Digest::of(shown)));
    assert!(pin!(reception.find(&key)).poll(&mut cx).is_ready());
    keys.1.set(true);
    {
        let mut beside = pin!(reception.find_beside(&certificate));
        assert!(beside.as_mut().poll(&mut cx).is_pending());
        let late = end + Duration::from_secs(1);
        assert!(guests.expired(late).is_empty(), "who has not been admitted is not told to go");
        // `yield_now` outside of a runtime has woken at once.
        assert!(beside.poll(&mut cx).is_ready());
    }
    let guest = reception.into_guest().expect("a key was found");
    guest.admit(|_| ());
    assert_eq!(guests.expired(end + Duration::from_secs(1)).len(), 1);
}

//! Requests of a worker that are inside on a key, so that they end with it.
//!
//! A request is known here before it waits for anything. So a change of keys that comes in between is seen by the one side
//! or the other: by the look-up, or by the request, which then looks again.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use slab::Slab;
use tokio::task::AbortHandle;

use super::change::{Change, Which};
use super::presented::Presented;
use super::{Entry, KeySource, SourceError, State};
use crate::identity::caller::Caller;
use crate::identity::key::Digest;
use crate::observe::ending::Ending;
use crate::observe::reason::Reason;

const SEATED: &str = "a guest has a seat until it is dropped";

/// The requests of a worker that are inside on a key; `S` is what each was admitted to.
#[derive(Debug)]
pub struct Guests<S> {
    seats: RefCell<Slab<Seat<S>>>,
    /// No key of theirs ends by itself before.
    next_end: Cell<Option<SystemTime>>,
}

/// A request that is inside on a key, for as long as it lives.
#[derive(Debug)]
pub struct Guest<S> {
    guests: Rc<Guests<S>>,
    seat: usize,
}

#[derive(Debug)]
struct Seat<S> {
    digest: Digest,
    /// Who came, once that was found.
    caller: Option<Caller>,
    until: Option<SystemTime>,
    stay: Stay<S>,
    moved: bool,
    waker: Option<Waker>,
    task: Option<AbortHandle>,
    /// The same request, on what was shown beside the key: it ends with either.
    beside: Option<Guest<S>>,
}

#[derive(Debug)]
enum Stay<S> {
    /// Its key is being looked up.
    Pending,
    /// The same, and the keys have changed since: what is found may be of before.
    Moved,
    /// It was admitted to this.
    Admitted(S),
    /// Its key died.
    Ended(Ended),
}

/// Why a guest has to leave.
#[derive(Debug, Clone)]
pub struct Ended {
    /// What is wrong with its key now.
    pub reason: Reason,
    /// Measures how long it takes until the last has left.
    pub ending: Arc<Ending>,
}

impl<S> Default for Guests<S> {
    fn default() -> Self {
        Self { seats: RefCell::default(), next_end: Cell::new(None) }
    }
}

impl<S> Guests<S> {
    fn enter(this: &Rc<Self>, digest: Digest) -> Guest<S> {
        let seat = Seat {
            digest,
            caller: None,
            until: None,
            stay: Stay::Pending,
            moved: false,
            waker: None,
            task: None,
            beside: None,
        };
        Guest { guests: Rc::clone(this), seat: this.seats.borrow_mut().insert(seat) }
    }

    /// The digests of those whom a change may concern; who is being looked up is told to look again.
    pub fn concerned(&self, change: &Change) -> Vec<Digest> {
        let mut digests = Vec::new();
        for (_, seat) in self.seats.borrow_mut().iter_mut() {
            match seat.stay {
                _ if !change.which.may_be(&seat.digest, seat.caller.as_ref()) => {}
                Stay::Pending if change.which != Which::Due => seat.stay = Stay::Moved,
                Stay::Admitted(_) => digests.push(seat.digest),
                Stay::Pending | Stay::Moved | Stay::Ended(_) => {}
            }
        }
        distinct(digests)
    }

    /// Whether somebody is inside on this key.
    #[must_use]
    pub fn has(&self, digest: &Digest) -> bool {
        let admitted = |seat: &Seat<S>| seat.digest == *digest && matches!(seat.stay, Stay::Admitted(_));
        self.seats.borrow().iter().any(|(_, seat)| admitted(seat))
    }

    /// The digests of those whose key has ended by itself.
    pub fn expired(&self, now: SystemTime) -> Vec<Digest> {
        if self.next_end.get().is_none_or(|next| now < next) {
            return Vec::new();
        }
        let (mut digests, mut next) = (Vec::new(), None);
        for (_, Seat { digest, until, stay, .. }) in self.seats.borrow().iter() {
            match *until {
                Some(until) if until <= now && matches!(stay, Stay::Admitted(_)) => digests.push(*digest),
                Some(until) if until > now => {
                    next = Some(next.map_or(until, |next: SystemTime| next.min(until)));
                }
                Some(_) | None => {}
            }
        }
        self.next_end.set(next);
        distinct(digests)
    }

    /// Looks at each of this digest again, and ends those for which `look` finds something wrong.
    pub fn look(
        &self,
        digest: &Digest,
        (caller, until): (Option<&Caller>, Option<SystemTime>),
        ending: &Arc<Ending>,
        look: impl Fn(&S) -> Option<Reason>,
    ) {
        let mut wake = Vec::new();
        for (_, seat) in self.seats.borrow_mut().iter_mut().filter(|(_, seat)| seat.digest == *digest) {
            let Stay::Admitted(stay) = &seat.stay else { continue };
            seat.until = until;
            // It may be another team's now, whose news concern it from now on.
            seat.caller = caller.cloned().or(seat.caller.take());
            let Some(reason) = look(stay) else { continue };
            ending.concerns_somebody();
            seat.stay = Stay::Ended(Ended { reason, ending: Arc::clone(ending) });
            wake.push((seat.waker.take(), seat.task.take()));
        }
        self.expect(until);
        for (waker, task) in wake {
            if let Some(task) = task {
                task.abort();
            }
            if let Some(waker) = waker {
                waker.wake();
            }
        }
    }

    fn expect(&self, until: Option<SystemTime>) {
        if let Some(until) = until {
            self.next_end.set(Some(self.next_end.get().map_or(until, |next| next.min(until))));
        }
    }
}

fn distinct(mut digests: Vec<Digest>) -> Vec<Digest> {
    digests.sort_unstable();
    digests.dedup();
    digests
}

impl<S> Guest<S> {
    /// Its key is this one's, and ends by itself then.
    fn is(&self, caller: Option<Caller>, until: Option<SystemTime>) {
        self.with(|seat| (seat.caller, seat.until) = (caller, until));
        self.guests.expect(until);
    }

    /// It was admitted to this; `beside` is true for what was shown beside the key.
    pub fn admit(&self, stay: impl Fn(bool) -> S) {
        let mut beside = false;
        self.each(|seat| {
            seat.moved = matches!(seat.stay, Stay::Moved);
            seat.stay = Stay::Admitted(stay(beside));
            // Its end may have passed while nobody was admitted on it.
            self.guests.expect(seat.until);
            beside = true;
            None::<()>
        });
    }

    /// Something was shown beside its key.
    #[must_use]
    pub fn is_on_two(&self) -> bool {
        self.with(|seat| seat.beside.is_some())
    }

    /// The keys had changed between the time when its key was found and that when it was admitted: something else was
    /// waited for.
    #[must_use]
    pub fn has_moved(&self) -> bool {
        self.each(|seat| seat.moved.then_some(())).is_some()
    }

    /// Of its key.
    #[must_use]
    pub fn digest(&self) -> Digest {
        self.with(|seat| seat.digest)
    }

    /// Of all that it is inside on.
    #[must_use]
    pub fn digests(&self) -> Vec<Digest> {
        let mut all = Vec::new();
        self.each(|seat| {
            all.push(seat.digest);
            None::<()>
        });
        all
    }

    /// Why it has to leave, if it has to.
    #[must_use]
    pub fn ended(&self) -> Option<Ended> {
        self.each(|seat| if let Stay::Ended(ended) = &seat.stay { Some(ended.clone()) } else { None })
    }

    /// Ready when it has to leave.
    pub fn poll_ended(&self, cx: &Context<'_>) -> Poll<Ended> {
        let ended = self.each(|seat| {
            if let Stay::Ended(ended) = &seat.stay {
                return Some(ended.clone());
            }
            if !seat.waker.as_ref().is_some_and(|waker| waker.will_wake(cx.waker())) {
                seat.waker = Some(cx.waker().clone());
            }
            None
        });
        ended.map_or(Poll::Pending, Poll::Ready)
    }

    /// This task is aborted when it has to leave.
    pub fn leaves_with(&self, task: &AbortHandle) {
        self.each(|seat| {
            if matches!(seat.stay, Stay::Ended(_)) {
                task.abort();
            }
            seat.task = Some(task.clone());
            None::<()>
        });
    }

    /// The output of a future, unless the guest has to leave before.
    pub async fn unless_ended<F: Future + Unpin>(&self, mut future: F) -> Result<F::Output, Ended> {
        poll_fn(|cx| {
            // First: nothing may be done any more on a key that has died while something else was waited for.
            if let Some(ended) = self.ended() {
                return Poll::Ready(Err(ended));
            }
            match Pin::new(&mut future).poll(cx) {
                Poll::Ready(output) => Poll::Ready(Ok(output)),
                Poll::Pending => self.poll_ended(cx).map(Err),
            }
        })
        .await
    }

    /// What is found first, on its key and on what was shown beside.
    fn each<T>(&self, mut look: impl FnMut(&mut Seat<S>) -> Option<T>) -> Option<T> {
        let (seats, mut next) = (&mut *self.guests.seats.borrow_mut(), Some(self.seat));
        while let Some(place) = next {
            let seat = seats.get_mut(place).expect(SEATED);
            if let Some(found) = look(seat) {
                return Some(found);
            }
            next = seat.beside.as_ref().map(|beside| beside.seat);
        }
        None
    }

    fn with<T>(&self, look: impl FnOnce(&mut Seat<S>) -> T) -> T {
        look(self.guests.seats.borrow_mut().get_mut(self.seat).expect(SEATED))
    }
}

impl<S> Drop for Guest<S> {
    fn drop(&mut self) {
        // Outside of the borrow: what it was admitted to may be the last of a snapshot.
        let seat = self.guests.seats.borrow_mut().try_remove(self.seat);
        drop(seat);
    }
}

/// Looks keys up for a request that becomes a guest by it.
#[derive(Debug)]
pub struct Reception<'k, K, S> {
    keys: &'k K,
    guests: &'k Rc<Guests<S>>,
    arrival: RefCell<Option<Arrival<S>>>,
}

/// Whose key was looked up.
#[derive(Debug)]
enum Arrival<S> {
    /// It was at hand: nothing has been waited for since, and so nothing can have changed.
    AtHand { digest: Digest, caller: Option<Caller>, until: Option<SystemTime> },
    /// It was waited for.
    Seated(Guest<S>),
}

impl<'k, K, S> Reception<'k, K, S> {
    /// For one request.
    pub fn new(keys: &'k K, guests: &'k Rc<Guests<S>>) -> Self {
        Self { keys, guests, arrival: RefCell::new(None) }
    }

    /// Who has come, where a key was looked up.
    pub fn into_guest(self) -> Option<Guest<S>> {
        self.seated()
    }

    /// From now on something may be waited for.
    fn seated(&self) -> Option<Guest<S>> {
        Some(match self.arrival.take()? {
            Arrival::AtHand { digest, caller, until } => {
                let guest = Guests::enter(self.guests, digest);
                guest.is(caller, until);
                guest
            }
            Arrival::Seated(guest) => guest,
        })
    }
}

impl<K: KeySource, S> KeySource for Reception<'_, K, S> {
    async fn find(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        loop {
            let (mut finding, mut guest) = (pin!(self.keys.find(presented)), None);
            let mut found = poll_fn(|cx| {
                let polled = finding.as_mut().poll(cx);
                if polled.is_pending() {
                    guest.get_or_insert_with(|| Guests::enter(self.guests, presented.digest));
                }
                polled
            })
            .await;
            if let Ok(Some(Entry { state: State::Active { until: Some(until) }, .. })) = &mut found
                && *until <= SystemTime::now()
            {
                // It is compared with the time at which the request came, which may have waited past its end: here, or
                // for something before.
                *until = SystemTime::UNIX_EPOCH;
            }
            let (caller, until) = match &found {
                Ok(Some(Entry { caller, state })) => (Some(caller.clone()), state.until()),
                Ok(None) | Err(_) => (None, None),
            };
            let arrival = match guest {
                Some(guest) if found.is_ok() && guest.with(|seat| matches!(seat.stay, Stay::Moved)) => {
                    continue;
                }
                Some(guest) => {
                    guest.is(caller, until);
                    Arrival::Seated(guest)
                }
                None => Arrival::AtHand { digest: presented.digest, caller, until },
            };
            self.arrival.replace(Some(arrival));
            return found;
        }
    }

    async fn find_beside(&self, presented: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        let first = self.seated();
        let found = self.find(presented).await;
        let beside = self.seated();
        if let Some(first) = first {
            first.with(|seat| seat.beside = beside);
            self.arrival.replace(Some(Arrival::Seated(first)));
        }
        found
    }
}

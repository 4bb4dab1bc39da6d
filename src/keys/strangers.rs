//! How many keys that nobody knows a server is asked for.

use std::cell::Cell;
use std::time::{Duration, Instant};

use tokio::sync::{Mutex, Notify};
use tokio::time::{sleep, timeout};

/// Strangers that wait for room: a quarter of the requests that may be under way by default, so that they never keep out
/// who is known.
const WAITING: usize = 1_024;

/// So many unknown keys a second, and as many at once. A key that turns out to be known does not count: after a start,
/// everybody is a stranger.
#[derive(Debug)]
pub(super) struct Strangers {
    rate: f64,
    /// How many may come, as of then.
    room: Cell<(f64, Instant)>,
    waiting: Cell<usize>,
    /// Whose turn it is.
    first: Mutex<()>,
    more: Notify,
}

impl Strangers {
    pub(super) fn new(rate: u32, now: Instant) -> Self {
        let rate = f64::from(rate);
        let (waiting, first, more) = (Cell::new(0), Mutex::new(()), Notify::new());
        Self { rate, room: Cell::new((rate, now)), waiting, first, more }
    }

    /// Waits for room, in turn and for so long at the most; false where there is none.
    pub(super) async fn enter(&self, patience: Duration) -> bool {
        if self.waiting.get() >= WAITING {
            return false;
        }
        self.waiting.set(self.waiting.get() + 1);
        let entered = timeout(patience, async {
            let _first = self.first.lock().await;
            while let Err(wait) = self.try_enter(Instant::now()) {
                tokio::select! {
                    () = sleep(wait) => {}
                    () = self.more.notified() => {}
                }
            }
        });
        let entered = entered.await.is_ok();
        self.waiting.set(self.waiting.get() - 1);
        entered
    }

    /// One of them was none.
    pub(super) fn was_known(&self) {
        let (room, since) = self.room.get();
        self.room.set((room + 1.0, since));
        self.more.notify_one();
    }

    /// Lets one in, or says when there will be room.
    fn try_enter(&self, now: Instant) -> Result<(), Duration> {
        let (room, since) = self.room.get();
        let room = (room + now.saturating_duration_since(since).as_secs_f64() * self.rate).min(self.rate);
        let enters = room >= 1.0;
        self.room.set((if enters { room - 1.0 } else { room }, now));
        if enters { Ok(()) } else { Err(Duration::from_secs_f64((1.0 - room) / self.rate)) }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strangers_come_at_a_rate_and_others_do_not_count() {
        let began = Instant::now();
        let strangers = Strangers::new(10, began);
        let enter = |count: u32, after: u64| {
            let now = began + Duration::from_millis(after);
            (0..count).filter(|_| strangers.try_enter(now).is_ok()).count()
        };
        assert_eq!(enter(20, 0), 10, "as many at once");
        assert_eq!(enter(20, 99), 0);
        assert_eq!(enter(20, 100), 1);
        assert_eq!(enter(20, 1100), 10, "no more than that, however long nobody came");
        strangers.was_known();
        assert_eq!(enter(20, 1100), 1, "room that was not taken");
        assert_eq!(enter(100, 60_000), 10);
    }

    #[test]
    fn who_waits_has_a_turn_when_another_was_known_and_no_more_wait_than_may() {
        tokio::runtime::Builder::new_current_thread().enable_time().build().expect("a runtime").block_on(
            async {
                let strangers = Strangers::new(1, Instant::now());
                let long = Duration::from_secs(60);
                assert!(strangers.enter(long).await);
                assert!(!strangers.enter(Duration::ZERO).await, "no room in time");
                let (waits, ()) = tokio::join!(strangers.enter(long), async { strangers.was_known() });
                assert!(waits);
                strangers.waiting.set(WAITING);
                assert!(!strangers.enter(long).await, "at once");
            },
        );
    }
}

//! What time it is, as often as a worker looks.

use std::cell::{Cell, RefCell};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// How often a worker looks at its clock and at all deadlines, and so how late one may be noticed.
pub const TICK: Duration = Duration::from_millis(50);

/// The clock of a worker: late by [`TICK`] at the most, and read for nothing.
#[derive(Debug)]
pub struct Clock {
    now: Cell<Instant>,
    /// The same moment, for people.
    today: Cell<SystemTime>,
    date: RefCell<Date>,
}

/// The second in which it was read last, as HTTP writes it (RFC 9110, 5.6.7).
#[derive(Debug)]
struct Date {
    second: u64,
    text: String,
}

impl Default for Clock {
    fn default() -> Self {
        let clock = Self {
            now: Cell::new(Instant::now()),
            today: Cell::new(UNIX_EPOCH),
            date: RefCell::new(Date { second: 0, text: String::new() }),
        };
        clock.tick(Instant::now());
        clock
    }
}

impl Clock {
    /// The moment of the last look.
    #[must_use]
    pub fn now(&self) -> Instant {
        self.now.get()
    }

    /// When a wait of this length is over that begins now. The clock stands still between two looks: nobody is to be
    /// cut for that.
    #[must_use]
    pub fn after(&self, wait: Duration) -> Instant {
        self.now.get() + wait + TICK
    }

    /// What people call a moment that is not before the last look. Reading it off the system's clock would cost a request
    /// as much again as reading the moment.
    #[must_use]
    pub fn date_of(&self, moment: Instant) -> SystemTime {
        self.today.get() + moment.saturating_duration_since(self.now.get())
    }

    /// Looks.
    pub fn tick(&self, now: Instant) {
        self.now.set(now);
        let today = SystemTime::now();
        self.today.set(today);
        let second = today.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let mut date = self.date.borrow_mut();
        if date.second != second {
            *date = Date { second, text: httpdate::fmt_http_date(today) };
        }
    }

    /// Writes the field `Date`.
    pub fn write_date(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(b"date: ");
        out.extend_from_slice(self.date.borrow().text.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
}

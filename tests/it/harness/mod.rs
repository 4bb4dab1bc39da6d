//! What every test of the whole program needs: the program, an upstream, a client, and patience.

pub mod client;
pub mod find_my_way;
pub mod frames;
pub mod paths;
pub mod scopegate;
pub mod upstream;

use std::thread;
use std::time::{Duration, Instant};

/// Longer than anything that a test waits for takes on a busy machine.
pub const PATIENCE: Duration = Duration::from_secs(10);

/// What this gives as soon as it gives something; a test that waits in vain says for what.
pub fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + PATIENCE;
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(Instant::now() < end, "waited in vain for {what}");
        thread::yield_now();
    }
}

/// `Authorization: Bearer`, as a line of a head.
pub fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

//! What every test of the whole program needs: the program, an upstream, a client, and patience.

pub mod certificates;
pub mod client;
pub mod commands;
pub mod find_my_way;
pub mod frames;
pub mod grpc;
pub mod grpc_service;
pub mod handshake;
pub mod http2;
pub mod introspection;
#[cfg(feature = "kubernetes")]
pub mod kubernetes;
pub mod lives;
pub mod mount;
pub mod paths;
pub mod postgres;
pub mod redis;
pub mod scopegate;
pub mod stores;
pub mod tls;
pub mod upstream;

use std::io::Write as _;
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

/// A port of this machine that was free a moment ago.
pub fn free_port() -> u16 {
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}

/// Whether a server can be started.
pub fn installed(program: &str) -> bool {
    found(program, std::process::Command::new(program).arg("--version").output().is_ok())
}

/// Where a server is not there, that is said out loud, and is a failure where all tests are wanted.
pub fn found(program: &str, found: bool) -> bool {
    let wanted = std::env::var("SCOPEGATE_TESTS").as_deref() == Ok("full");
    assert!(found || !wanted, "{program} is not there; tests/run installs it");
    if !found {
        // Not println, which nobody sees of a test that passes.
        let skipped = format!("skipped: this test needs {program}, which tests/run installs");
        writeln!(std::io::stderr(), "{skipped}").expect("standard error");
    }
    found
}

/// `Authorization: Bearer`, as a line of a head.
pub fn bearer(key: &str) -> String {
    format!("Authorization: Bearer {key}\r\n")
}

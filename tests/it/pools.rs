//! Connections to upstreams that are kept for the requests that follow: as many as help, and no more than may be.

use std::sync::Barrier;

use crate::harness::client::{Client, request};
use crate::harness::eventually;
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;

/// All ask before the first of them is answered, as where all answers of one turn are read before the next requests.
fn at_once(clients: &mut [Client], target: &str) {
    for client in clients.iter_mut() {
        client.send(request("GET", target, "", ""));
    }
    for client in clients {
        assert_eq!(client.answer(false).status, 200);
    }
}

#[test]
fn as_many_connections_are_kept_as_were_in_use_at_once() {
    const MANY: usize = 400;
    let all = Barrier::new(MANY);
    let upstream = Upstream::with(move |exchange| {
        all.wait();
        exchange.reply("200 OK", "", "hello")
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { pool: 60s }").start();
    let mut clients: Vec<_> = (0..MANY).map(|_| Client::connect(scopegate.address)).collect();
    for _ in 0..3 {
        at_once(&mut clients, "/health");
    }
    assert_eq!(upstream.connections(), MANY);
}

#[test]
fn no_more_connections_are_kept_than_may_be_in_flight() {
    const MANY: usize = 20;
    let all = Barrier::new(MANY);
    let upstream = Upstream::with(move |exchange| {
        all.wait();
        exchange.reply("200 OK", "", "hello")
    });
    let setup = Setup::new(&upstream).and("timeouts: { pool: 60s }");
    let scopegate = setup.and(&format!("limits: {{ in_flight: {MANY} }}")).start();
    let mut clients: Vec<_> = (0..MANY).map(|_| Client::connect(scopegate.address)).collect();
    at_once(&mut clients, "/health");
    let open = scopegate.metric("process_open_fds");
    // Two upstreams of one address are two pools.
    at_once(&mut clients, "/api/v1/webhooks/a");
    assert_eq!(upstream.connections(), 2 * MANY);
    eventually("as few as before", || (scopegate.metric("process_open_fds") <= open).then_some(()));
}

//! SIGTERM: who is inside may finish, nobody new comes in, and the end is a clean one.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::{Client, get, request};
use crate::harness::eventually;
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

const DRAIN: &str = "drain: { delay: 100ms, grace: 5s }";

/// Waits until nobody new is taken in.
fn closed(scopegate: &Scopegate) {
    eventually("a closed listener", || TcpStream::connect(scopegate.address).is_err().then_some(()));
}

#[test]
fn readiness_fails_first_and_the_listener_closes_after_the_delay() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream).with(DRAIN, "drain: { delay: 700ms, grace: 5s }");
    let mut scopegate = setup.start();
    assert_eq!(scopegate.ask_admin("/readyz").status, 200);
    assert_eq!(scopegate.metric("scopegate_draining"), 0.0);
    let began = Instant::now();
    scopegate.signal("TERM");
    eventually("unreadiness", || (scopegate.ask_admin("/readyz").status == 503).then_some(()));
    assert_eq!(get(scopegate.address, "/health", "").status, 200, "the balancer may still send some");
    assert_eq!(scopegate.ask_admin("/livez").status, 200);
    assert_eq!(scopegate.metric("scopegate_draining"), 1.0);
    assert!(began.elapsed() < Duration::from_millis(700), "this machine is too slow for this test");
    closed(&scopegate);
    assert!(began.elapsed() >= Duration::from_millis(700), "{:?}", began.elapsed());
    assert!(scopegate.wait_exit().success());
    assert!(began.elapsed() < Duration::from_secs(4), "with nobody inside it does not wait for the deadline");
}

#[test]
fn a_request_that_is_under_way_finishes_and_idle_connections_close() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let upstream = Upstream::with(move |exchange| {
        if exchange.request.target == "/health" {
            return exchange.reply("200 OK", "", "quick");
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello ");
        released.lock().expect("no panic").recv().expect("the test goes on");
        exchange.write("world")
    });
    let mut scopegate = Setup::new(&upstream).start();
    let mut idle = Client::connect(scopegate.address);
    assert_eq!(idle.ask(request("GET", "/health", "", "")).status, 200);
    let mut silent = Client::connect(scopegate.address);
    let mut under_way = Client::connect(scopegate.address);
    under_way.send(request("GET", "/api/v1/webhooks/slow", "", ""));
    assert_eq!(under_way.head().0, 200);
    scopegate.signal("TERM");
    closed(&scopegate);
    assert!(idle.is_closed(), "a connection between two requests");
    assert!(silent.is_closed(), "a connection that has said nothing");
    release.send(()).expect("the upstream waits");
    let mut body = [0; 11];
    std::io::Read::read_exact(&mut under_way.stream, &mut body).expect("the whole answer");
    assert_eq!(&body, b"hello world");
    assert!(under_way.is_closed(), "no more requests on it");
    assert!(scopegate.wait_exit().success());
    let line = scopegate.log_line(|line| line["route"] == "/api/v1/webhooks/**");
    assert_eq!((&line["reason"], &line["sent"]), (&"passed".into(), &11.into()), "its line is not lost");
}

#[test]
fn a_body_that_is_still_coming_is_taken_to_its_end() {
    let upstream = Upstream::start();
    let mut scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    eventually("the upstream's connection", || (upstream.connections() == 1).then_some(()));
    scopegate.signal("TERM");
    closed(&scopegate);
    client.send("world");
    assert_eq!(client.answer(false).status, 200);
    assert_eq!(upstream.nth(0).body, b"helloworld");
    assert!(scopegate.wait_exit().success());
}

#[test]
fn at_the_deadline_it_ends_whatever_is_left() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello ");
        // Reads until the other side has ended: it never answers to the end.
        exchange.chunk();
        false
    });
    let setup = Setup::new(&upstream).with(DRAIN, "drain: { delay: 100ms, grace: 900ms }");
    let mut scopegate = setup.start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    assert_eq!(client.head().0, 200);
    let began = Instant::now();
    scopegate.signal("TERM");
    assert!(scopegate.wait_exit().success(), "the deadline is a clean end");
    let took = began.elapsed();
    assert!(took >= Duration::from_millis(850) && took < Duration::from_secs(4), "{took:?}");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
    assert_eq!(rest, b"hello ", "the client sees a cut");
    let line = scopegate.log_line(|line| line["route"] == "/health");
    assert_ne!(line["reason"], "passed", "{line}");
}

#[test]
fn requests_that_come_during_the_delay_are_served() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream).with(DRAIN, "drain: { delay: 500ms, grace: 5s }");
    let mut scopegate = setup.start();
    let mut client = Client::connect(scopegate.address);
    scopegate.signal("TERM");
    let mut served = 0;
    while TcpStream::connect(scopegate.address).is_ok() {
        // The connection may be closed between two of its requests, but never instead of an answer that has begun.
        client.send(request("GET", "/health", "", ""));
        match client.head().0 {
            200 => served += 1,
            status => {
                assert_eq!(status, 0, "closed, not refused");
                break;
            }
        }
        assert_eq!(std::io::Read::read(&mut client.stream, &mut [0; 64]).expect("a body"), 5);
        thread::yield_now();
    }
    assert!(served > 0);
    assert!(scopegate.wait_exit().success());
}

#[test]
fn an_interrupt_drains_too_and_a_second_signal_ends_at_once() {
    let upstream = Upstream::start();
    let mut scopegate = Setup::new(&upstream).start();
    scopegate.signal("INT");
    assert!(scopegate.wait_exit().success());
    let setup = Setup::new(&upstream).with(DRAIN, "drain: { delay: 59s, grace: 60s }");
    let mut scopegate = setup.start();
    scopegate.signal("TERM");
    eventually("unreadiness", || (scopegate.ask_admin("/readyz").status == 503).then_some(()));
    scopegate.signal("TERM");
    assert!(!scopegate.wait_exit().success());
}

//! Answers that come before their request is whole, and what becomes of the rest of it.

use std::io::Read as _;
use std::time::{Duration, Instant};

use crate::harness::client::{Client, request};
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, eventually};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SESSION: &str = "/ws/session?sessionId=s&token=t";

#[test]
fn a_handshake_has_no_body() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for body in
        ["Content-Length: 5\r\n\r\nhello", "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n"]
    {
        let mut client = Client::connect(scopegate.address);
        let answer = client.ask(format!("GET {SESSION} HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}{body}"));
        assert_eq!((answer.status, answer.reason()), (426, "upgrade_required"), "{body}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_switch_that_nobody_asked_for_leaves_nothing_open() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: x\r\n\r\n");
        let mut rest = Vec::new();
        let _ = exchange.stream.read_to_end(&mut rest);
        exchange.request.body = rest;
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 100\r\n\r\nsome");
    assert_eq!(client.answer(false).reason(), "upstream_invalid");
    eventually("nobody left", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
}

#[test]
fn a_refused_channel_hears_why_only_where_it_asked_for_one() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).with("webrtc: true", "webrtc: false").start();
    let key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (head, status) in [
        (format!("GET {SESSION} HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}\r\n"), 101),
        (format!("GET {SESSION} HTTP/1.1\r\nHost: a\r\n{key}\r\n"), 403),
        (format!("GET {SESSION} HTTP/1.0\r\nHost: a\r\n{HANDSHAKE}\r\n"), 403),
        (format!("GET {SESSION} HTTP/1.1\r\nHost: a\r\n{HANDSHAKE}Content-Length: 3\r\n\r\nabc"), 403),
    ] {
        let answer = Client::connect(scopegate.address).ask(&head);
        assert_eq!((answer.status, answer.reason()), (status, "flag_off"), "{head}");
    }
}

#[test]
fn a_broken_answer_ends_a_client_that_is_still_sending() {
    let upstream = Upstream::with(|exchange| {
        exchange.last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client
        .send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk().as_deref(), Some(&b"hello"[..]));
    assert!(client.is_closed(), "it sees a cut");
    eventually("nobody left", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
}

#[test]
fn an_early_answer_to_an_old_client_ends_when_it_ends() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n");
        let _ = exchange.stream.read(&mut [0]);
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.0\r\nHost: a\r\nContent-Length: 10\r\n\r\n");
    let began = Instant::now();
    let answer = client.answer(false);
    assert_eq!((answer.text().as_str(), answer.header("connection")), ("hello", Some("close")));
    assert!(began.elapsed() < PATIENCE / 2);
}

#[test]
fn an_empty_line_behind_a_body_is_nothing() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("timeouts: { head: 100ms }").start();
    let mut client = Client::connect(scopegate.address);
    let post = format!("{}\r\n", request("POST", "/api/v1/webhooks/a", "", "hi"));
    for _ in 0..3 {
        assert_eq!(client.ask(&post).status, 200);
        client.stream.get_ref().set_read_timeout(Some(Duration::from_millis(300))).expect("a timeout");
        assert!(client.stream.get_ref().read(&mut [0]).is_err(), "nobody has said anything");
        client.stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
    }
    client.send("\r\n".repeat(100));
    assert_eq!(client.answer(false).reason(), "request_invalid");
}

#[test]
fn an_answer_that_can_have_no_body_has_no_length() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 204 No Content\r\nContent-Length: 5\r\nETag: \"x\"\r\n\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let answer = Client::connect(scopegate.address).ask(request("GET", "/health", "", ""));
    assert_eq!(
        (answer.status, answer.header("content-length"), answer.header("etag")),
        (204, None, Some("\"x\""))
    );
}

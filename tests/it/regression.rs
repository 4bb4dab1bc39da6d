//! One test for each mistake that was found, so that it stays found.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::harness::bearer;
use crate::harness::client::{Client, ask, get, request};
use crate::harness::scopegate::{ALL, READ, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, eventually};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCHED: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                        Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const SESSION: &str = "/ws/session?sessionId=a&token=b";

#[test]
fn a_private_path_is_hidden_whatever_method_it_is_asked_with() {
    let upstream = Upstream::start();
    let setup =
        Setup::new(&upstream).with("routes: [/api/v1/webhooks/**]", "routes: [POST /api/v1/webhooks/**]");
    let setup = setup.with(
        "      GET /api/v1/both:",
        "      DELETE /api/v1/**: { key_only: true }\n      GET /api/v1/both:",
    );
    let scopegate = setup.start();
    for method in ["PUT", "GET", "DELETE", "POST"] {
        let answer = ask(scopegate.address, method, "/api/v1/webhooks/s3cret", "", "");
        scopegate.log_line(|line| line["id"] == answer.header("x-request-id").unwrap_or_default());
    }
    assert!(!scopegate.everything_said().contains("s3cret"), "{}", scopegate.everything_said());
}

#[test]
fn a_flag_that_is_turned_off_during_a_handshake_closes_the_channel() {
    let (tell, heard) = channel();
    let heard = Mutex::new(heard);
    let upstream = Upstream::with(move |exchange| {
        heard.lock().expect("no panic").recv_timeout(PATIENCE).expect("the test says when");
        exchange.write(SWITCHED);
        let _ = std::io::Read::read_to_end(exchange.stream, &mut Vec::new());
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", SESSION, HANDSHAKE, ""));
    eventually("the handshake at the upstream", || (upstream.connections() == 1).then_some(()));
    scopegate.edit("scopegate.yaml", "webrtc: true", "webrtc: false");
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") == 2.0).then_some(()));
    tell.send(()).expect("the upstream listens");
    assert_eq!(client.head().0, 101);
    let mut said = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut said);
    assert!(said.ends_with(&[0x88, 2, 0x0F, 0xA3]), "closed with 4003: {said:?}");
}

#[test]
fn overrides_of_method_and_target_end_here() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let overrides = "X-HTTP-Method-Override: POST\r\nX_HTTP_Method: POST\r\nX-Original-URL: /api/v1/apps\r\nX-Rewrite-URL: /a\r\n";
    assert_eq!(get(scopegate.address, "/api/v1/call-tokens/t", &(bearer(READ) + overrides)).status, 200);
    let preflight =
        "Origin: https://a.example\r\nAccess-Control-Request-Method: POST\r\n".to_owned() + overrides;
    assert_eq!(ask(scopegate.address, "OPTIONS", "/api/v1/call-tokens", &preflight, "").status, 200);
    for seen in upstream.seen() {
        let seen = format!("{seen:?}").to_lowercase();
        assert!(!seen.contains("override") && !seen.contains("x_http") && !seen.contains("url"), "{seen}");
    }
}

#[test]
fn an_upload_that_is_not_finished_after_an_early_answer_is_ended() {
    let (tell, heard) = channel();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok");
        let _ = std::io::Read::read_to_end(exchange.stream, &mut Vec::new());
        tell.lock().expect("no panic").send(()).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 300ms }").start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    assert_eq!(client.answer(false).text(), "ok");
    heard.recv_timeout(PATIENCE).expect("the upstream sees the end of the connection");
    assert!(client.is_closed());
}

#[test]
fn a_get_keeps_a_body_whose_length_is_not_announced() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    let chunked = "GET /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n";
    assert_eq!(client.ask(chunked).status, 200);
    assert_eq!(upstream.nth(0).body, b"hello");
}

#[test]
fn refused_channels_are_bounded_and_the_rest_is_told_so() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).with("webrtc: true", "webrtc: false").start();
    let mut held = Vec::new();
    let busy = eventually("the bound", || {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", SESSION, HANDSHAKE, ""));
        let (status, headers) = client.head();
        held.push(client);
        (status == 503).then_some(headers)
    });
    assert_eq!(held.len(), 257);
    assert!(busy.contains(&("retry-after".to_owned(), "1".to_owned())), "{busy:?}");
    let line = scopegate.log_line(|line| line["reason"] == "channels_busy");
    assert_eq!(line["status"], 503);
    // Who does not listen in time makes room.
    eventually("room", || {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", SESSION, HANDSHAKE, ""));
        (client.head().0 == 101).then_some(())
    });
}

#[test]
fn a_client_that_leaves_in_its_body_is_gone_and_no_fault_of_the_upstream() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhal");
    eventually("the request at the upstream", || (upstream.connections() == 1).then_some(()));
    drop(client);
    let line = scopegate.log_line(|line| line["surface"] == "webhooks");
    assert_eq!(line["reason"], "client_gone", "{line}");
    assert!(!scopegate.ask_admin("/metrics").text().contains("scopegate_upstream_faults_total{"));
}

#[test]
fn a_handshake_that_is_none_opens_no_session() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let old = format!("GET {SESSION} HTTP/1.0\r\nHost: a\r\n{HANDSHAKE}\r\n");
    assert_eq!(Client::connect(scopegate.address).ask(old).reason(), "upgrade_required");
    let without_key = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n";
    assert_eq!(get(scopegate.address, SESSION, without_key).reason(), "handshake_invalid");
    assert!(upstream.seen().is_empty());
}

#[test]
fn what_is_cut_at_the_end_of_a_drain_is_not_blamed_on_the_client() {
    let upstream = Upstream::with(|exchange| {
        let _ = std::io::Read::read_to_end(exchange.stream, &mut Vec::new());
        false
    });
    let mut scopegate = Setup::new(&upstream).with("grace: 5s", "grace: 400ms").start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/api/v1/apps", &bearer(ALL), ""));
    eventually("the request at the upstream", || (upstream.connections() == 1).then_some(()));
    scopegate.signal("TERM");
    assert!(scopegate.wait_exit().success());
    scopegate.log_line(|line| line["reason"] == "drained");
}

#[test]
fn a_drain_lets_a_frame_that_has_begun_end_before_it_closes() {
    let (tell, heard) = channel();
    let heard = Mutex::new(heard);
    let upstream = Upstream::with(move |exchange| {
        exchange.write(SWITCHED);
        exchange.write([0x82, 6, b'h', b'a', b'l']);
        heard.lock().expect("no panic").recv_timeout(PATIENCE).expect("the test says when");
        exchange.write([b'f', b' ', b'!', 0x81, 4, b'l', b'a', b't', b'e']);
        let _ = std::io::Read::read_to_end(exchange.stream, &mut Vec::new());
        false
    });
    let mut scopegate = Setup::new(&upstream).with("grace: 5s", "grace: 4s").start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", SESSION, HANDSHAKE, ""));
    assert_eq!(client.head().0, 101);
    let mut half = [0; 5];
    std::io::Read::read_exact(&mut client.stream, &mut half).expect("half a frame");
    let ordered = Instant::now() + Duration::from_millis(3300);
    scopegate.signal("TERM");
    eventually("the drain", || {
        let drained = scopegate.ask_admin("/readyz").status == 503;
        (drained && std::net::TcpStream::connect(scopegate.address).is_err()).then_some(())
    });
    // By then the order to close has come, at some moment of the window; it waits for the frame.
    let left = ordered.saturating_duration_since(Instant::now()).max(Duration::from_millis(1));
    client.stream.get_ref().set_read_timeout(Some(left)).expect("a timeout");
    assert!(std::io::Read::read(&mut client.stream, &mut [0]).is_err(), "nothing inside of the frame");
    client.stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
    tell.send(()).expect("the upstream listens");
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
    assert_eq!(rest, [b'f', b' ', b'!', 0x88, 2, 3, 0xE9], "the frame, then 1001, and nothing after it");
    assert!(scopegate.wait_exit().success());
}

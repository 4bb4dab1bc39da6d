//! What one client may take of us, and what happens beyond it.

use std::io::{Read as _, Write as _};
use std::sync::mpsc::channel;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use http::Request;
use http_body_util::{BodyExt as _, Empty, Full};
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};

use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};
use crate::http2::ask;

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

#[test]
fn a_body_may_be_so_long_and_no_longer() {
    let upstream = Upstream::start();
    let config = "limits: { body: 10B }";
    let setup = Setup::new(&upstream).and(config).with("private: true,", "private: true, body: 20B,");
    let scopegate = setup.start();
    let post =
        |target: &str, more: &str| format!("POST {target} HTTP/1.1\r\nHost: a\r\n{}{more}", bearer(ALL));
    let (token, hook) = ("/api/v1/call-tokens", "/api/v1/webhooks/a");
    for (target, more, status) in [
        (token, format!("Content-Length: 10\r\n\r\n{}", "x".repeat(10)), 200),
        (token, format!("Content-Length: 11\r\n\r\n{}", "x".repeat(11)), 413),
        (token, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nworld\r\n0\r\n\r\n".to_owned(), 200),
        (token, "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\nworlds\r\n0\r\n\r\n".to_owned(), 413),
        // Nobody is asked for what is not wanted.
        (token, "Expect: 100-continue\r\nContent-Length: 11\r\n\r\n".to_owned(), 413),
        (hook, format!("Content-Length: 20\r\n\r\n{}", "x".repeat(20)), 200),
        (hook, format!("Content-Length: 21\r\n\r\n{}", "x".repeat(21)), 413),
    ] {
        let mut client = Client::connect(scopegate.address);
        let answer = client.ask(post(target, &more));
        assert_eq!(answer.status, status, "{target} {more}");
        if status == 413 {
            assert_eq!((answer.reason(), answer.header("connection")), ("body_too_large", Some("close")));
            assert!(client.is_closed());
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.body.len() <= 20));
    let long = Request::post("http://a/api/v1/webhooks/a").body(Full::from("x".repeat(21)));
    assert_eq!(ask(&scopegate, vec![long.expect("a request")])[0].1, "body_too_large");
    assert_eq!(get(scopegate.address, "/health", "").text(), "hello");
}

#[test]
fn what_an_upstream_cannot_have_is_refused_at_once() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::with(move |exchange| {
        if exchange.request.target != "/health" {
            gone.lock().expect("no panic").recv().expect("the test lets it go on");
        }
        exchange.reply("200 OK", "", "hello")
    });
    let scopegate = Setup::new(&upstream).and("limits: { in_flight: 2 }").start();
    let mut waiting: Vec<_> = (0..2).map(|_| Client::connect(scopegate.address)).collect();
    for client in &mut waiting {
        client.send(request("GET", "/api/v1/apps", &bearer(ALL), ""));
    }
    eventually("both in flight", || (scopegate.metric("scopegate_requests_in_flight") == 2.0).then_some(()));
    let refused = get(scopegate.address, "/health", "");
    assert_eq!(
        (refused.status, refused.reason(), refused.header("retry-after")),
        (503, "overloaded", Some("1"))
    );
    // What is refused for its key was never in flight.
    assert_eq!(get(scopegate.address, "/api/v1/apps", "").status, 401);
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(scopegate.ask_admin(path).status, 200, "{path}");
    }
    // Whichever it is that the upstream holds first.
    for _ in &waiting {
        go.send(()).expect("the upstream waits");
    }
    for client in &mut waiting {
        assert_eq!(client.answer(false).status, 200);
    }
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
}

#[test]
fn connections_are_counted_in_all_and_for_each_client() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream).and("trusted_proxies: [127.0.0.3]");
    let scopegate = setup.and("limits: { connections: 6, connections_per_client: 2 }").start();
    let ask = || request("GET", "/health", "", "");
    let open = |from: &str| {
        let mut client = Client::connect_from(from, scopegate.address);
        // It may be closed before it has been sent.
        let _ = client.stream.get_mut().write_all(ask().as_bytes());
        let mut begin = [0; 12];
        client.stream.read_exact(&mut begin).ok().map(|()| client)
    };
    let one: Vec<_> = (0..2).map(|_| open("127.0.0.1").expect("room")).collect();
    assert!(open("127.0.0.1").is_none(), "the third of one client");
    let proxy: Vec<_> = (0..3).map(|_| open("127.0.0.3").expect("a proxy brings many")).collect();
    let mut busy = Client::connect_from("127.0.0.2", scopegate.address);
    busy.send("GET /health HTTP/1.1\r\n");
    eventually("all six", || (scopegate.metric("scopegate_connections") == 6.0).then_some(()));
    // Who asks nothing makes room for who does.
    let new = open("127.0.0.2").expect("room for a seventh");
    let mut oldest = one.into_iter().next().expect("the first");
    let mut rest = Vec::new();
    oldest.stream.read_to_end(&mut rest).expect("the first has ended");
    busy.send("Host: a\r\n\r\n");
    assert_eq!(busy.answer(false).status, 200);
    assert_eq!(
        scopegate.metric("scopegate_connections_refused_total{limit=\"connections_per_client\"}"),
        1.0
    );
    drop((new, proxy, oldest));
    eventually("room again", || open("127.0.0.1"));
}

#[test]
fn of_those_who_come_in_one_rush_the_first_make_room_for_the_last() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("limits: { connections: 4 }").start();
    scopegate.signal("STOP");
    let mut rush: Vec<_> = (0..12).map(|_| Client::connect(scopegate.address)).collect();
    scopegate.signal("CONT");
    let last = rush.last_mut().expect("twelve");
    last.send(request("GET", "/health", "", ""));
    assert_eq!(last.answer(false).status, 200);
    assert_eq!(scopegate.metric("scopegate_connections_cut_short_total{reason=\"room\"}"), 8.0);
    assert_eq!(scopegate.metric("scopegate_connections"), 4.0);
}

#[test]
fn where_everybody_is_busy_there_is_no_room() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("limits: { connections: 2 }").start();
    let mut busy: Vec<_> = (0..2).map(|_| Client::connect(scopegate.address)).collect();
    for client in &mut busy {
        client.send("GET /health HTTP/1.1\r\n");
    }
    eventually("both", || (scopegate.metric("scopegate_connections") == 2.0).then_some(()));
    let mut third = Client::connect(scopegate.address);
    assert!(third.is_closed());
    assert_eq!(scopegate.metric("scopegate_connections_refused_total{limit=\"connections\"}"), 1.0);
    let event = scopegate.event(|event| event["limit"] == "connections");
    assert_eq!(event["client"], "127.0.0.1", "{event}");
    // A limit that was raised holds at once: nobody who is inside asks for anything meanwhile.
    scopegate.edit("scopegate.yaml", "connections: 2", "connections: 3");
    eventually("room", || {
        let mut third = Client::connect(scopegate.address);
        third.stream.get_mut().write_all(request("GET", "/health", "", "").as_bytes()).ok()?;
        let mut begin = [0; 12];
        third.stream.read_exact(&mut begin).ok()
    });
    for client in &mut busy {
        client.send("Host: a\r\n\r\n");
        assert_eq!(client.answer(false).status, 200);
    }
}

#[test]
fn who_does_not_get_to_the_point_is_not_waited_for() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("timeouts: { head: 200ms, keep_alive: 300ms }").start();
    let settings = [PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat();
    for (bytes, told) in [
        (&b""[..], ""),
        (b"GET /health HTTP/1.1\r\nHo", "head_timeout"),
        (b"GET /health HTTP/1.1\r\nHost: a\r\n", "head_timeout"),
        (b"\r\n", ""),
        (b"PRI * HTTP", ""),
        (&settings, ""),
    ] {
        let mut client = Client::connect(scopegate.address);
        client.send(bytes);
        let mut all = Vec::new();
        client.stream.read_to_end(&mut all).expect("an end, in time");
        let all = String::from_utf8_lossy(&all);
        assert_eq!(told.is_empty(), !all.starts_with("HTTP/1.1 408"), "{bytes:?}: {all}");
        assert!(all.contains(told), "{bytes:?}: {all}");
    }
    let line = scopegate.log_line(|line| line["reason"] == "head_timeout");
    assert_eq!((&line["status"], &line["method"]), (&408.into(), &serde_json::Value::Null), "{line}");
    // Between two requests nobody is owed an answer.
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200);
    let mut rest = Vec::new();
    client.stream.read_to_end(&mut rest).expect("an end, in time");
    assert!(rest.is_empty(), "{}", String::from_utf8_lossy(&rest));
    eventually("nobody left", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
}

#[test]
fn who_takes_nothing_of_an_answer_is_cut_off() {
    let whole = Arc::new("x".repeat(32 << 20));
    let long = Arc::clone(&whole);
    let upstream = Upstream::with(move |exchange| exchange.reply("200 OK", "", &long));
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 400ms }").start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    let line = scopegate.log_line(|line| line["route"] == "/health");
    assert_eq!((&line["reason"], &line["status"]), (&"client_slow".into(), &200.into()), "{line}");
    assert!(!client.answer(false).whole);
    let resident = scopegate.metric("process_resident_memory_bytes");
    assert!(resident < f64::from(48 << 20), "{resident} bytes");
}

#[test]
fn a_stream_that_is_not_taken_ends_alone() {
    let upstream = Upstream::with(|exchange| {
        let long = "x".repeat(1 << 20);
        let body = if exchange.request.target == "/health" { "hello" } else { &long };
        exchange.reply("200 OK", "", body)
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 400ms }").start();
    tokio::runtime::Runtime::new().expect("a runtime").block_on(async {
        let stream = tokio::net::TcpStream::connect(scopegate.address).await.expect("a connection");
        let mut client = http2::Builder::new(TokioExecutor::new());
        client.initial_stream_window_size(65_535).initial_connection_window_size(1 << 20);
        let (mut sender, connection) = client.handshake(TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut ask = |target: &str| {
            let request = Request::get(format!("http://a{target}")).body(Empty::<Bytes>::new());
            sender.send_request(request.expect("a request"))
        };
        let stuck = ask("/api/v1/webhooks/long").await.expect("a head");
        assert_eq!(stuck.status(), 200);
        let cut = tokio::task::spawn_blocking({
            let line = scopegate.log_line(|line| line["surface"] == "webhooks");
            move || line
        });
        let line = cut.await.expect("a line");
        assert_eq!(line["reason"], "client_slow", "{line}");
        let other = ask("/health").await.expect("the connection goes on");
        assert_eq!(other.into_body().collect().await.expect("a body").to_bytes(), "hello");
        assert!(stuck.into_body().collect().await.is_err(), "the client sees a cut");
    });
}

#[test]
fn half_heads_take_no_more_memory_than_they_may() {
    const MANY: usize = 300;
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let half = format!("GET /health HTTP/1.1\r\nHost: a\r\nX: {}", "x".repeat(30_000));
    let resident = || scopegate.metric("process_resident_memory_bytes");
    let before = resident();
    let clients: Vec<_> = (0..MANY)
        .map(|_| {
            let mut client = Client::connect(scopegate.address);
            client.send(&half);
            client
        })
        .collect();
    eventually("all of them", || (scopegate.metric("scopegate_connections") >= 300.0).then_some(()));
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    let each = (resident() - before) / MANY as f64;
    assert!(each < f64::from(100 << 10), "{each} bytes each");
    drop(clients);
}

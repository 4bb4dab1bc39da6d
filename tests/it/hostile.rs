//! What honest clients and servers do not send: never a bypass, never another's answer, never a leak.

use std::net::TcpStream;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{ALL, APPS, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, bearer, eventually};

#[test]
fn no_framing_hides_a_second_request_in_a_body() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let hidden = format!("GET /api/v1/apps/hidden HTTP/1.1\r\nHost: a\r\n{}\r\n", bearer("wrong"));
    let length = hidden.len();
    let framings = [
        format!("Content-Length: {length}\r\nTransfer-Encoding: chunked\r\n"),
        format!("Transfer-Encoding: chunked\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: 0\r\nContent-Length: {length}\r\n"),
        format!("Content-Length: {length}\r\nContent-Length: 0\r\n"),
        format!("Content-Length: {length}, 0\r\n"),
        format!("Content-Length: +{length}\r\n"),
        "Content-Length: -1\r\n".to_owned(),
        "Content-Length: 99999999999999999999999\r\n".to_owned(),
        format!("Content-Length : {length}\r\n"),
        format!("X: y\r\n Content-Length: {length}\r\n"),
        format!("X: y\rContent-Length: {length}\r\n"),
        "Transfer-Encoding: xchunked\r\n".to_owned(),
        "Transfer-Encoding: chunked, identity\r\n".to_owned(),
        "Transfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n".to_owned(),
        "Transfer-Encoding:\u{b}chunked\r\n".to_owned(),
        "Transfer-Encoding\r\n: chunked\r\n".to_owned(),
        format!("Connection: Content-Length\r\nContent-Length: {length}\r\n"),
        format!("Connection: Transfer-Encoding\r\nContent-Length: {length}\r\n"),
    ];
    for framing in &framings {
        for body in [hidden.clone(), format!("0\r\n\r\n{hidden}")] {
            let mut client = Client::connect(scopegate.address);
            client.send(format!("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\n{framing}\r\n{body}"));
            client.finish();
            let mut answers = Vec::new();
            let _ = std::io::Read::read_to_end(&mut client.stream, &mut answers);
            assert!(
                !upstream.seen().iter().any(|seen| seen.target.contains("hidden")),
                "{framing:?} let a request without a valid key through"
            );
        }
    }
    // And the upstream's connections are in step still.
    for _ in 0..3 {
        assert_eq!(get(scopegate.address, "/health", "").text(), "hello");
    }
}

#[test]
fn what_an_upstream_sends_too_much_reaches_nobody() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        let evil = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
        match exchange.request.target.trim_start_matches("/health?") {
            "two" => exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood{evil}")),
            "long" => {
                exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood and more {evil}"))
            }
            "chunked" => exchange.write(format!(
                "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\n\r\n{evil}"
            )),
            "204" => exchange.write(format!("HTTP/1.1 204 No Content\r\n\r\n{evil}")),
            "304" => exchange.write(format!("HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n{evil}")),
            "head" => exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\n{evil}")),
            _ => exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nfine"),
        }
    });
    let scopegate = Setup::new(&upstream).start();
    for (method, how) in [
        ("GET", "two"),
        ("GET", "long"),
        ("GET", "chunked"),
        ("GET", "204"),
        ("GET", "304"),
        ("HEAD", "head"),
    ] {
        for _ in 0..10 {
            // The next request is there already when the first has been answered.
            let first = request(method, &format!("/health?{how}"), "", "");
            let next = request("GET", "/health?next", "", "");
            let mut client = Client::connect(scopegate.address);
            client.send(format!("{first}{next}"));
            let answer = client.answer(method == "HEAD");
            assert!(!answer.text().contains("evil"), "{how}: {answer:?}");
            let answer = client.answer(false);
            assert_eq!(answer.text(), "fine", "{how}: {answer:?}");
        }
    }
}

#[test]
fn an_answer_before_the_end_of_the_body_is_passed_on_and_its_connection_not_used_again() {
    let upstream = Upstream::with(|exchange| match &*exchange.request.method {
        "POST" => exchange.last("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n\r\nbig"),
        _ => exchange.reply("200 OK", "", "hello"),
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\nsome of it");
    let answer = client.answer(false);
    assert_eq!((answer.status, &*answer.text()), (413, "big"));
    assert_eq!(get(scopegate.address, "/health", "").text(), "hello");
}

#[test]
fn silence_behind_an_early_answer_is_still_the_upstreams() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
        while exchange.chunk().is_some() {}
        // It has the whole request, and says nothing more until the other side has had enough.
        let _ = std::io::Read::read_to_end(exchange.stream, &mut Vec::new());
        false
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 400ms }").start();
    let mut client = Client::connect(scopegate.address);
    client
        .send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk().as_deref(), Some(&b"half"[..]));
    client.send("0\r\n\r\n");
    assert!(client.is_closed(), "the client sees a cut");
    let line = scopegate.log_line(|line| line["surface"] == "webhooks");
    assert_eq!(line["reason"], "upstream_idle_timeout", "{line}");
}

#[test]
fn an_early_answer_may_go_on_while_the_client_thinks() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        while let Some(chunk) = exchange.chunk() {
            exchange.write(format!("{:x}\r\n", chunk.len()));
            exchange.write(chunk);
            exchange.write("\r\n");
        }
        exchange.write("0\r\n\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    let mut head = 0;
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        if head == 0 {
            head = client.head().0;
        }
        assert_eq!(client.chunk().as_deref(), Some(word.as_bytes()), "each word is answered before the next");
    }
    client.send("0\r\n\r\n");
    assert_eq!((head, client.chunk()), (200, None));
}

#[test]
fn clients_that_leave_at_any_moment_leave_nothing_behind() {
    let (tell, heard) = channel::<bool>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        if exchange.request.target == "/health" {
            return exchange.reply("200 OK", "", "hello");
        }
        tell.lock().expect("no panic").send(false).expect("the test listens");
        if exchange.request.target.ends_with("answer") {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome of it");
        }
        let mut rest = Vec::new();
        let _ = std::io::Read::read_to_end(exchange.stream, &mut rest);
        tell.lock().expect("no panic").send(true).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let post = "POST /api/v1/webhooks/body HTTP/1.1\r\nHost: a\r\n";
    let moments = [
        (String::new(), false),
        ("GET /he".to_owned(), false),
        ("GET /health HTTP/1.1\r\nHost:".to_owned(), false),
        (format!("{post}Content-Length: 100\r\n\r\nsome"), true),
        (format!("{post}Transfer-Encoding: chunked\r\n\r\n4\r\nso"), true),
        (request("GET", "/api/v1/webhooks/head", "", ""), true),
        (request("GET", "/api/v1/webhooks/answer", "", ""), true),
    ];
    for (bytes, reaches) in moments {
        let mut client = Client::connect(scopegate.address);
        client.send(&bytes);
        if reaches {
            assert!(!heard.recv_timeout(PATIENCE).expect("the request arrives"));
        }
        if bytes.contains("answer") {
            assert_eq!(client.head().0, 200);
        }
        drop(client);
        if reaches {
            heard.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the upstream was not told: {bytes}"));
        }
    }
    for gauge in ["scopegate_requests_in_flight", "scopegate_connections"] {
        eventually(&format!("{gauge} = 0"), || (scopegate.metric(gauge) == 0.0).then_some(()));
    }
    assert_eq!(get(scopegate.address, "/health", "").text(), "hello");
}

#[test]
fn what_names_the_connection_cannot_take_away_what_we_say() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("identity_headers: true").start();
    let names = "X-Forwarded-For, X-Forwarded-Proto, X-Request-Id, X-Scopegate-Team, X-Scopegate-Key-Id, \
                 X-Scopegate-Scopes, Host, Content-Length, Content-Type, Cookie";
    let headers = format!("{}Connection: close, {names}\r\n", bearer(APPS));
    assert_eq!(get(scopegate.address, "/api/v1/apps", &headers).status, 200);
    let seen = upstream.nth(0);
    for name in ["x-forwarded-for", "x-forwarded-proto", "x-request-id", "host"] {
        assert!(seen.header(name).is_some(), "{name}: {seen:?}");
    }
    assert_eq!(seen.header("x-scopegate-team"), Some("acme"));
    assert_eq!(seen.header("x-scopegate-key-id"), Some("id-apps"));
    assert_eq!(seen.header("x-scopegate-scopes"), Some("READ_TEAM_APPS"));
}

#[test]
fn no_upgrade_is_passed_on_where_there_is_no_channel() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for upgrade in ["websocket", "h2c", "TLS/1.2"] {
        let headers = format!(
            "{}Connection: Upgrade, HTTP2-Settings\r\nUpgrade: {upgrade}\r\nHTTP2-Settings: AAMAAABk\r\n\
             Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n",
            bearer(ALL)
        );
        for target in ["/api/v1/apps", "/api/v1/webhooks/a", "/health"] {
            assert_eq!(get(scopegate.address, target, &headers).status, 200, "{upgrade} {target}");
            let seen = upstream.seen().pop().expect("a request");
            assert_eq!((seen.header("upgrade"), seen.header("http2-settings")), (None, None), "{seen:?}");
        }
    }
}

#[test]
fn a_request_names_one_host() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for (target, hosts, status, reason) in [
        ("/health", "Host: a\r\n", 200, ""),
        ("/health", "Host: a:8080\r\n", 200, ""),
        ("/health", "Host: [::1]:8080\r\n", 200, ""),
        ("/health", "", 400, "host_invalid"),
        ("/health", "Host:\r\n", 400, "host_invalid"),
        ("/health", "Host: a\r\nHost: a\r\n", 400, "host_invalid"),
        ("/health", "Host: a\r\nHost: b\r\n", 400, "host_invalid"),
        ("/health", "Host: u@a\r\n", 400, "host_invalid"),
        ("/health", "Host: a, b\r\n", 400, "host_invalid"),
        ("/health", "Host: a/b\r\n", 400, "host_invalid"),
        ("http://u@a/health", "Host: a\r\n", 400, "target_invalid"),
        ("http://b/health", "Host: a\r\n", 400, "target_invalid"),
    ] {
        let answer = Client::connect(scopegate.address).ask(format!("GET {target} HTTP/1.1\r\n{hosts}\r\n"));
        assert_eq!((answer.status, answer.reason()), (status, reason), "{target} {hosts}");
        if status == 400 {
            assert_eq!(answer.json()["error"]["code"], reason);
        }
    }
    assert_eq!(upstream.seen().len(), 3);
}

#[test]
fn heads_beyond_all_measure_are_refused_and_others_are_not_hurt() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let long = "x".repeat(1 << 20);
    for bytes in [
        format!("GET /health?{long} HTTP/1.1\r\nHost: a\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: a\r\nX-Long: {long}\r\n\r\n"),
        format!("GET /health HTTP/1.1\r\nHost: a\r\n{}\r\n", "X-Many: y\r\n".repeat(10_000)),
        format!("{long} /health HTTP/1.1\r\nHost: a\r\n\r\n"),
    ] {
        let mut client = Client::connect(scopegate.address);
        // It may be refused before it has been read.
        let _ = std::io::Write::write_all(client.stream.get_mut(), bytes.as_bytes());
        let mut answer = Vec::new();
        let _ = std::io::Read::read_to_end(&mut client.stream, &mut answer);
        let answer = String::from_utf8_lossy(&answer).into_owned();
        assert!(answer.is_empty() || answer.starts_with("HTTP/1.1 4"), "{answer}");
        assert_eq!(get(scopegate.address, "/health", "").status, 200);
    }
    assert_eq!(upstream.seen().len(), 4);
}

#[test]
fn an_upstream_that_takes_no_connection_is_given_up_in_time() {
    // A listener whose queue is full does not answer at all.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None).expect("a socket");
    let nowhere: std::net::SocketAddr = "127.0.0.1:0".parse().expect("an address");
    full.bind(&nowhere.into()).expect("a port");
    full.listen(0).expect("a queue");
    let address = full.local_addr().expect("an address").as_socket().expect("an address");
    let patience = std::time::Duration::from_millis(200);
    let waiting: Vec<_> = (0..8).map_while(|_| TcpStream::connect_timeout(&address, patience).ok()).collect();
    let address = address.to_string();
    // For all, or for a route.
    let route = "{ GET /health: { timeouts: { connect: 300ms } } }";
    for (all, routes) in [("300ms", "[GET /health]"), ("60s", route)] {
        let setup = Setup::at(&address, &address).and(&format!("timeouts: {{ connect: {all} }}"));
        let scopegate = setup.with("[GET /health]", routes).start();
        let answer = get(scopegate.address, "/health", "");
        assert_eq!((answer.status, answer.reason()), (504, "upstream_connect_timeout"), "{all}");
    }
    drop(waiting);
}

#[test]
fn an_upstream_that_does_not_take_the_body_is_given_up_in_time() {
    let upstream = Upstream::with(|exchange| {
        // It reads nothing more, and waits for longer than the other side will.
        std::thread::park_timeout(PATIENCE);
        drop(exchange.request.clone());
        false
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { first_byte: 400ms }").start();
    let mut client = Client::connect(scopegate.address);
    let mut sender = client.stream.get_ref().try_clone().expect("a socket");
    let sending = std::thread::spawn(move || {
        let body = vec![b'x'; 32 << 20];
        let head =
            format!("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: {}\r\n\r\n", body.len());
        // It is cut off on the way.
        let _ = std::io::Write::write_all(&mut sender, head.as_bytes());
        let _ = std::io::Write::write_all(&mut sender, &body);
    });
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.reason()), (504, "upstream_first_byte_timeout"));
    let _ = client.stream.get_ref().shutdown(std::net::Shutdown::Both);
    sending.join().expect("a sender");
    let resident = scopegate.metric("process_resident_memory_bytes");
    assert!(resident < f64::from(48 << 20), "{resident} bytes");
}

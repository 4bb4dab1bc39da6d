//! What may pass is neither slowed, changed nor dropped, and what fails says whose fault it was.

use std::net::TcpListener;
use std::sync::Mutex;
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::harness::client::{Client, ask, get, request};
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, bearer, eventually};

/// What one side of a test tells the other.
fn signal<T: Send + 'static>() -> (Sender<T>, Mutex<Receiver<T>>) {
    let (sender, receiver) = channel();
    (sender, Mutex::new(receiver))
}

fn wait<T>(receiver: &Mutex<Receiver<T>>) -> T {
    receiver.lock().expect("no panic").recv_timeout(PATIENCE).expect("the other side says something")
}

#[test]
fn a_request_body_streams_and_is_not_gathered() {
    let (tell, heard) = signal::<Vec<u8>>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        while let Some(chunk) = exchange.chunk() {
            tell.lock().expect("no panic").send(chunk).expect("the test listens");
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for word in ["one", "two", "three"] {
        client.send(format!("{:x}\r\n{word}\r\n", word.len()));
        assert_eq!(wait(&heard), word.as_bytes(), "before the next piece is sent");
    }
    client.send("0\r\n\r\n");
    assert_eq!(client.answer(false).status, 200);
}

#[test]
fn an_answer_streams_and_is_not_gathered() {
    let (tell, heard) = signal::<()>();
    let upstream = Upstream::with(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n");
        for word in ["one", "two"] {
            exchange.write(format!("{:x}\r\n{word}\r\n", word.len()));
            wait(&heard);
        }
        exchange.write("0\r\n\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    assert_eq!(client.head().0, 200);
    for word in ["one", "two"] {
        assert_eq!(client.chunk().as_deref(), Some(word.as_bytes()), "before the next piece is sent");
        tell.send(()).expect("the upstream listens");
    }
    assert_eq!(client.chunk(), None);
}

#[test]
fn a_reader_that_stops_stops_the_sender_and_memory_stays_small() {
    const MOST: usize = 64 << 20;
    let (tell, heard) = signal::<usize>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {MOST}\r\n\r\n"));
        let stream = exchange.stream.get_mut();
        stream.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("a timeout");
        let mut sent = 0;
        while let Ok(count @ 1..) = std::io::Write::write(stream, &[b'x'; 16_384]) {
            sent += count;
        }
        tell.lock().expect("no panic").send(sent).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    assert_eq!(client.head().0, 200);
    let sent = wait(&heard);
    assert!(sent < MOST / 2, "the upstream could send {sent} bytes that nobody read");
    let resident = scopegate.metric("process_resident_memory_bytes");
    assert!(resident < f64::from(48 << 20), "{resident} bytes");
}

#[test]
fn trailers_pass_both_ways_but_for_those_that_claim_something() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        exchange.write(
            "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\nX-Sum: 7\r\n\r\n",
        )
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    let answer = client.ask(
        "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTE: trailers\r\nTrailer: X-Sum, X-Scopegate-Team, Authorization\r\n\
         Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\nX-Sum: 9\r\nX-Scopegate-Team: evil\r\nAuthorization: Bearer x\r\n\r\n",
    );
    assert_eq!(answer.body, b"ok");
    assert_eq!(answer.trailers, [("x-sum".to_owned(), "7".to_owned())]);
    let seen = upstream.nth(0);
    assert_eq!(seen.header("te"), Some("trailers"));
    let names: Vec<_> = seen.trailers.iter().map(|(name, _)| name.to_ascii_lowercase()).collect();
    assert_eq!(names, ["x-sum"]);
}

#[test]
fn interim_answers_are_dropped_and_counted() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 103 Early Hints\r\nLink: </a.css>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n");
        exchange.reply("200 OK", "", "done")
    });
    let scopegate = Setup::new(&upstream).start();
    assert_eq!(get(scopegate.address, "/health", "").text(), "done");
    assert_eq!(scopegate.metric(r#"scopegate_upstream_informational_total{upstream="telapi"}"#), 2.0);
}

#[test]
fn a_body_is_asked_for_only_once_the_request_is_admitted() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let head = |key: &str| {
        let key = bearer(key);
        format!(
            "POST /api/v1/call-tokens HTTP/1.1\r\nHost: a\r\n{key}Expect: 100-continue\r\nContent-Length: 2\r\n\r\n"
        )
    };
    let mut client = Client::connect(scopegate.address);
    client.send(head("unknown"));
    assert_eq!(client.head().0, 401, "and no 100 before it");
    let mut client = Client::connect(scopegate.address);
    client.send(head(ALL));
    assert_eq!(client.head().0, 100);
    client.send("{}");
    assert_eq!(client.answer(false).status, 200);
    let seen = upstream.nth(0);
    assert_eq!((seen.body, seen.headers.iter().any(|(name, _)| name == "expect")), (b"{}".to_vec(), false));
}

#[test]
fn answers_without_a_body_keep_their_heads() {
    let upstream = Upstream::with(|exchange| {
        let length = "Content-Length: 1234\r\nETag: \"x\"\r\n";
        match &*exchange.request.target {
            "/health?204" => exchange.write("HTTP/1.1 204 No Content\r\nETag: \"x\"\r\n\r\n"),
            "/health?304" => exchange.write(format!("HTTP/1.1 304 Not Modified\r\n{length}\r\n")),
            _ => exchange.write(format!("HTTP/1.1 200 OK\r\n{length}\r\n")),
        }
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    for (method, target, status, length) in [
        ("GET", "/health?204", 204, None),
        ("GET", "/health?304", 304, Some("1234")),
        ("HEAD", "/health", 200, Some("1234")),
        ("HEAD", "/health?304", 304, Some("1234")),
    ] {
        let answer = client.ask(request(method, target, "", ""));
        assert_eq!(
            (answer.status, answer.header("content-length"), answer.header("etag")),
            (status, length, Some("\"x\"")),
            "{method} {target}"
        );
    }
    assert_eq!(upstream.connections(), 1, "and the connection is free after each");
}

#[test]
fn connections_to_the_upstream_are_used_again() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    for _ in 0..20 {
        assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200);
        assert_eq!(client.ask(request("POST", "/api/v1/webhooks/a", "", "hello")).status, 200);
    }
    // Two upstreams of one address are two pools.
    assert_eq!(upstream.connections(), 2);
    assert_eq!(scopegate.metric(r#"scopegate_upstream_connects_total{upstream="telapi"}"#), 1.0);
}

#[test]
fn pipelined_requests_are_answered_in_order_and_decided_one_by_one() {
    let upstream = Upstream::with(|exchange| {
        let target = exchange.request.target.clone();
        exchange.reply("200 OK", "", &target)
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(
        request("GET", "/api/v1/apps/1", &bearer(ALL), "")
            + &request("GET", "/api/v1/apps/2", "", "")
            + &request("GET", "/health", "", ""),
    );
    assert_eq!(client.answer(false).text(), "/api/v1/apps/1");
    assert_eq!(client.answer(false).reason(), "key_missing");
    assert_eq!(client.answer(false).text(), "/health");
}

#[test]
fn an_old_client_gets_an_answer_that_it_understands() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    let answer = client.ask("GET /health HTTP/1.0\r\n\r\n");
    assert_eq!(
        (answer.status, answer.text().as_str(), answer.header("transfer-encoding")),
        (200, "ok", None)
    );
    assert!(upstream.nth(0).header("host").is_some());
}

#[test]
fn a_client_that_leaves_takes_its_request_with_it() {
    let (tell, heard) = signal::<bool>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        tell.lock().expect("no panic").send(false).expect("the test listens");
        let gone = matches!(std::io::Read::read(exchange.stream, &mut [0]), Ok(0) | Err(_));
        tell.lock().expect("no panic").send(gone).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    assert!(!wait(&heard), "the request has arrived");
    drop(client);
    assert!(wait(&heard), "the upstream sees the end of the connection");
    let line = scopegate.log_line(|line| line["reason"] == "client_gone");
    assert_eq!(line["status"], 0);
}

#[test]
fn whose_fault_it_was() {
    let refused = TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let upstream = Upstream::with(|exchange| {
        let target = exchange.request.target.clone();
        match target.trim_start_matches("/health?") {
            "garbage" => exchange.last("SSH-2.0-OpenSSH_9.2\r\n\r\n"),
            "close" => false,
            "cut-head" => exchange.last("HTTP/1.1 200 OK\r\nContent-Le"),
            "two-lengths" => {
                exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nab")
            }
            "switch" => exchange
                .write("HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n"),
            _ => {
                // It says nothing until the other side has had enough.
                let _ = std::io::Read::read(exchange.stream, &mut [0]);
                false
            }
        }
    });
    let scopegate = Setup::at(&upstream.address.to_string(), &refused.to_string())
        .and("timeouts: { first_byte: 300ms }")
        .start();
    for (target, status, reason) in [
        ("/api/v1/webhooks/a", 502, "upstream_refused"),
        ("/health?garbage", 502, "upstream_invalid"),
        ("/health?close", 502, "upstream_closed"),
        ("/health?cut-head", 502, "upstream_closed"),
        ("/health?two-lengths", 502, "upstream_invalid"),
        ("/health?switch", 502, "upstream_invalid"),
        ("/health?hang", 504, "upstream_first_byte_timeout"),
    ] {
        let answer = get(scopegate.address, target, "");
        assert_eq!((answer.status, answer.reason()), (status, reason), "{target}");
        assert_eq!(answer.json()["error"]["code"], reason);
        assert!(!answer.text().contains("127.0.0.1"), "no inside to the outside: {}", answer.text());
        let line = scopegate.log_line(|line| line["id"] == answer.header("x-request-id").unwrap_or_default());
        assert!(
            line["detail"]
                .as_str()
                .is_some_and(|detail| detail.contains("upstream") || detail.contains("connect")),
            "{line}"
        );
    }
    assert_eq!(
        scopegate.metric(r#"scopegate_upstream_faults_total{reason="upstream_refused",upstream="webhooks"}"#),
        1.0
    );
}

#[test]
fn an_answer_that_breaks_off_is_seen_to_be_cut() {
    let upstream = Upstream::with(|exchange| match &*exchange.request.target {
        "/health?length" => exchange.last("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf"),
        "/health?chunk" => {
            exchange.last("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n")
        }
        _ => {
            exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n");
            let _ = std::io::Read::read(exchange.stream, &mut [0]);
            false
        }
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 300ms }").start();
    for (target, reason) in [
        ("/health?length", "upstream_closed"),
        ("/health?chunk", "upstream_closed"),
        ("/health?silence", "upstream_idle_timeout"),
    ] {
        let answer = get(scopegate.address, target, "");
        assert_eq!((answer.status, answer.whole, answer.text().as_str()), (200, false, "half"), "{target}");
        scopegate.log_line(|line| {
            line["id"] == answer.header("x-request-id").unwrap_or_default() && line["reason"] == reason
        });
    }
}

#[test]
fn a_client_that_stops_sending_is_told_so() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 300ms }").start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhalf");
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.reason()), (408, "client_timeout"));
    let mut client = Client::connect(scopegate.address);
    client.send(
        "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nno length\r\n",
    );
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.reason()), (400, "client_invalid"));
}

/// An upstream that hangs up after its first answer on a connection, in the moment that the second request comes.
fn hangs_up_once() -> Upstream {
    let connection = Mutex::new(0);
    Upstream::with(move |exchange| {
        let mut count = connection.lock().expect("no panic");
        *count += 1;
        *count != 2 && exchange.reply("200 OK", "", "ok")
    })
}

#[test]
fn a_connection_that_died_unseen_costs_no_get_and_repeats_no_post() {
    let upstream = hangs_up_once();
    let scopegate = Setup::new(&upstream).start();
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    assert_eq!(get(scopegate.address, "/health", "").status, 200, "sent again on a fresh connection");
    assert_eq!((upstream.seen().len(), upstream.connections()), (3, 2));
    assert_eq!(scopegate.metric(r#"scopegate_upstream_retries_total{upstream="telapi"}"#), 1.0);

    let upstream = hangs_up_once();
    let scopegate = Setup::new(&upstream).start();
    let mint = |number| {
        let answer = ask(scopegate.address, "POST", "/api/v1/call-tokens", &bearer(ALL), "{}");
        (number, answer.status, answer.reason().to_owned())
    };
    assert_eq!(mint(1), (1, 200, String::new()));
    assert_eq!(mint(2), (2, 502, "upstream_closed".to_owned()));
    assert_eq!(upstream.seen().len(), 2, "what may do something is not done twice");
}

#[test]
fn names_are_looked_up_and_one_without_an_address_makes_unready() {
    let upstream = Upstream::start();
    let port = upstream.address.port();
    let scopegate = Setup::at(&format!("localhost:{port}"), "no-such-host.invalid:1").start();
    eventually("the name to be resolved", || {
        (get(scopegate.address, "/health", "").status == 200).then_some(())
    });
    let answer = get(scopegate.address, "/api/v1/webhooks/a", "");
    assert_eq!((answer.status, answer.reason()), (502, "upstream_unresolved"));
    assert_eq!(scopegate.ask_admin("/readyz").status, 503);
    assert_eq!(scopegate.ask_admin("/livez").status, 200);
}

#[test]
fn an_answer_that_comes_before_the_body_has_gone_is_not_lost() {
    let upstream = Upstream::with(|exchange| {
        exchange.last("HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig")
    });
    let scopegate = Setup::new(&upstream).start();
    let body = "x".repeat(3 << 20);
    for _ in 0..20 {
        let answer = ask(scopegate.address, "POST", "/api/v1/webhooks/a", "", &body);
        assert_eq!((answer.status, answer.text().as_str()), (413, "big"), "{}", answer.reason());
    }
    // The same for an answer of ours.
    for _ in 0..20 {
        let answer = ask(scopegate.address, "POST", "/api/v1/call-tokens", "", &body);
        assert_eq!((answer.status, answer.reason()), (401, "key_missing"));
    }
}

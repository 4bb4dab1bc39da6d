//! Upstreams over HTTP/2 that are slow, that leave, or that do not mean well.

use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use h2::Reason;
use http::Response;

use crate::harness::client::{Client, ask, get};
use crate::harness::frames::{block, frame};
use crate::harness::http2::{Call, Http2, reset, send};
use crate::harness::scopegate::Scopegate;
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, eventually};
use crate::http2_upstream::{check, setup};

fn retries(scopegate: &Scopegate) -> f64 {
    scopegate.metric("scopegate_upstream_retries_total{upstream=\"webhooks\"}")
}

#[test]
fn waits_end_as_they_do_over_http1() {
    let upstream = Http2::with(|mut call: Call| async move {
        let name = call.head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        if name == "late" {
            call.reset().await;
            return;
        }
        let mut stream = call.head(200, &[], false);
        send(&mut stream, "some of it", false);
        for _ in 0..if name == "total" { 40 } else { 0 } {
            tokio::time::sleep(Duration::from_millis(100)).await;
            send(&mut stream, "more", false);
        }
        reset(&mut stream).await;
    });
    let timeouts = "timeouts: { first_byte: 300ms, idle: 400ms, total: 1500ms }";
    let scopegate = setup(upstream.address).and(timeouts).start();
    let webhook = |name: &str| format!("/api/v1/webhooks/{name}");
    let late = get(scopegate.address, &webhook("late"), "");
    assert_eq!((late.status, late.reason()), (504, "upstream_first_byte_timeout"));
    for (name, reason) in [("idle", "upstream_idle_timeout"), ("total", "total_timeout")] {
        let answer = get(scopegate.address, &webhook(name), "");
        assert_eq!((answer.status, answer.whole), (200, false), "{name}");
        scopegate.log_line(|line| line["reason"] == reason && line["status"] == 200);
    }
    let mut slow = Client::connect(scopegate.address);
    slow.send("POST /api/v1/webhooks/late HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello");
    let slow = slow.answer(false);
    assert_eq!((slow.status, slow.reason()), (408, "client_timeout"));
    // It reads nothing of the body, of which more comes than its window holds.
    let full = ask(scopegate.address, "POST", &webhook("late"), "", &"x".repeat(150_000));
    assert_eq!((full.status, full.reason()), (504, "upstream_first_byte_timeout"));
}

#[test]
fn an_upstream_that_says_nothing_at_all_gets_no_request() {
    // It takes connections, and that is all.
    let silent = TcpListener::bind("127.0.0.1:0").expect("a port");
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let spoken = other.local_addr().expect("an address");
    std::thread::spawn(move || {
        for mut stream in other.incoming().map_while(Result::ok) {
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
            // To its end: a connection that is closed before that loses what was said on it.
            let _ = stream.read_to_end(&mut Vec::new());
        }
    });
    let closed = Upstream::with(|_| false);
    for (address, status, reason) in [
        (silent.local_addr().expect("an address"), 504, "upstream_connect_timeout"),
        (spoken, 502, "upstream_invalid"),
        (closed.address, 502, "upstream_closed"),
    ] {
        let scopegate = setup(address).and("timeouts: { connect: 400ms }").start();
        let began = Instant::now();
        let answer = ask(scopegate.address, "POST", "/api/v1/webhooks/a", "", "x");
        assert_eq!((answer.status, answer.reason()), (status, reason));
        assert!(began.elapsed() < Duration::from_secs(3));
        assert!(check(&scopegate).contains("no HTTP/2 with"), "{reason}");
    }
}

/// What becomes of an answer: status, whether it was whole, and why not.
fn fate(scopegate: &Scopegate, name: &str) -> (u16, bool, String) {
    let answer = get(scopegate.address, &format!("/api/v1/webhooks/{name}"), "");
    let reason = if answer.status == 200 && !answer.whole {
        let line = scopegate.log_line(|line| line["reason"] != "passed" && line["status"] == 200);
        line["reason"].as_str().unwrap_or_default().to_owned()
    } else {
        answer.reason().to_owned()
    };
    (answer.status, answer.whole, reason)
}

#[test]
fn half_an_answer_never_looks_whole() {
    let upstream = Http2::with(|mut call: Call| async move {
        let name = call.head.uri.path().rsplit('/').next().unwrap_or_default().to_owned();
        let reason = match name.as_str() {
            "reset" => return call.respond.send_reset(Reason::INTERNAL_ERROR),
            "head" => {
                let mut response = Response::new(());
                response.headers_mut().insert("x-long", "x".repeat(100_000).parse().expect("a value"));
                return drop(call.respond.send_response(response, true).expect("an open stream"));
            }
            "many" => {
                let mut response = Response::new(());
                for number in 0..200 {
                    let name = format!("x-{number}").parse::<http::HeaderName>().expect("a name");
                    response.headers_mut().insert(name, "1".parse().expect("a value"));
                }
                return drop(call.respond.send_response(response, true).expect("an open stream"));
            }
            "interim" => {
                for _ in 0..40 {
                    let early = Response::builder().status(103).body(()).expect("an answer");
                    call.respond.send_informational(early).expect("an open stream");
                }
                return call.reply(200, &[], "late");
            }
            "no_error" => Reason::NO_ERROR,
            "cancel" => Reason::CANCEL,
            _ => Reason::INTERNAL_ERROR,
        };
        let mut stream = call.head(200, &[], false);
        send(&mut stream, "half", false);
        // So that the half is on its way before the reset takes it back.
        tokio::time::sleep(Duration::from_millis(200)).await;
        stream.send_reset(reason);
    });
    for (name, status, reason) in [
        ("reset", 502, "upstream_closed"),
        ("head", 502, "upstream_invalid"),
        ("many", 502, "upstream_invalid"),
        ("interim", 502, "upstream_invalid"),
        ("no_error", 200, "upstream_closed"),
        ("cancel", 200, "upstream_closed"),
        ("internal", 200, "upstream_closed"),
    ] {
        let scopegate = setup(upstream.address).start();
        assert_eq!(fate(&scopegate, name), (status, status != 200, reason.to_owned()), "{name}");
        let fault = format!("scopegate_upstream_faults_total{{reason=\"{reason}\",upstream=\"webhooks\"}}");
        assert_eq!(scopegate.metric(&fault), 1.0, "{name}");
    }
}

/// What is said to the head of a request, by how many came before and its stream; nothing is the end of the connection.
type Said = dyn Fn(usize, u32) -> Option<Vec<u8>> + Send + Sync;

/// The same to the first request.
type First = Box<dyn Fn(u32) -> Option<Vec<u8>> + Send + Sync>;

/// A service that speaks HTTP/2 by hand, and the count of requests that it got.
fn by_hand(
    answer: impl Fn(usize, u32) -> Option<Vec<u8>> + Send + Sync + 'static,
) -> (SocketAddr, Arc<AtomicUsize>) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let (address, count) = (listener.local_addr().expect("an address"), Arc::new(AtomicUsize::new(0)));
    let (counted, answer): (_, Arc<Said>) = (Arc::clone(&count), Arc::new(answer));
    std::thread::spawn(move || {
        for stream in listener.incoming().map_while(Result::ok) {
            let (count, answer) = (Arc::clone(&counted), Arc::clone(&answer));
            std::thread::spawn(move || speak(stream, &count, &*answer));
        }
    });
    (address, count)
}

fn speak(mut stream: TcpStream, count: &AtomicUsize, answer: &Said) {
    if stream.read_exact(&mut [0; 24]).is_err() {
        return;
    }
    // Who has left does not miss it.
    let _ = stream.write_all(&frame(4, 0, 0, b""));
    let mut head = [0; 9];
    while stream.read_exact(&mut head).is_ok() {
        let [a, b, c, kind, _, id @ ..] = head;
        let length = u32::from_be_bytes([0, a, b, c]) as usize;
        if stream.read_exact(&mut vec![0; length]).is_err() {
            return;
        }
        if kind == 3 {
            // It was on its way when the stream was reset.
            let _ = stream.write_all(&frame(0, 0, u32::from_be_bytes(id), b"late"));
        }
        if kind != 1 {
            continue;
        }
        let said = answer(count.fetch_add(1, Ordering::SeqCst), u32::from_be_bytes(id));
        let Some(bytes) = said else { return };
        let _ = stream.write_all(&bytes);
    }
}

/// An answer of which the frames are these.
fn ok(stream: u32, length: &str, body: &[u8]) -> Vec<u8> {
    let fields = block(&[(":status", "200"), ("content-length", length)]);
    [frame(1, 4, stream, &fields), frame(0, 1, stream, body)].concat()
}

#[test]
fn a_length_that_is_a_lie_is_a_cut() {
    for (length, body) in [("5", &b"hell"[..]), ("3", b"hell")] {
        let (address, _) = by_hand(move |_, stream| Some(ok(stream, length, body)));
        let scopegate = setup(address).start();
        let answer = get(scopegate.address, "/api/v1/webhooks/a", "");
        assert!(answer.status == 502 || !answer.whole, "{length}: {answer:?}");
        scopegate.log_line(|line| line["reason"] == "upstream_invalid");
    }
}

#[test]
fn a_request_that_was_not_looked_at_is_sent_again_and_no_other() {
    let reset = |stream: u32, code: u32| Some(frame(3, 0, stream, &code.to_be_bytes()));
    let refused = move |stream: u32| reset(stream, 7);
    let goaway = |_| Some(frame(7, 0, 0, &[0; 8]));
    let (little, much) = ("body", "x".repeat(10_000));
    let cases: [(&str, &str, First, u16, usize); 8] = [
        ("POST", "", Box::new(refused), 200, 2),
        ("POST", "", Box::new(goaway), 200, 2),
        ("POST", little, Box::new(refused), 200, 2),
        // What has come of it is not held.
        ("POST", &much, Box::new(refused), 502, 1),
        // It was looked at.
        ("POST", "", Box::new(move |stream| reset(stream, 2)), 502, 1),
        ("GET", "", Box::new(move |stream| reset(stream, 2)), 502, 1),
        // The connection ended. It was new, so that it was not for its age.
        ("GET", "", Box::new(|_| None), 502, 1),
        ("POST", "", Box::new(|_| None), 502, 1),
    ];
    for (number, (method, body, first, status, times)) in cases.into_iter().enumerate() {
        let (address, count) =
            by_hand(
                move |before, stream| {
                    if before == 0 { first(stream) } else { Some(ok(stream, "5", b"hello")) }
                },
            );
        let scopegate = setup(address).start();
        let answer = ask(scopegate.address, method, "/api/v1/webhooks/a", "", body);
        assert_eq!(answer.status, status, "{number}: {answer:?}");
        assert_eq!(count.load(Ordering::SeqCst), times, "{number}");
        assert_eq!(retries(&scopegate), (times - 1) as f64, "{number}");
    }
}

#[test]
fn a_body_that_is_sent_again_is_whole() {
    let before = Arc::new(AtomicUsize::new(0));
    let upstream = Http2::with(move |mut call: Call| {
        let first = before.fetch_add(1, Ordering::SeqCst) == 0;
        async move {
            if first {
                // After it has come.
                let _ = call.body.data().await;
                return call.respond.send_reset(Reason::REFUSED_STREAM);
            }
            let (body, _) = call.rest().await;
            call.reply(200, &[], body);
        }
    });
    let scopegate = setup(upstream.address).start();
    let body = "x".repeat(3_000);
    let answer = ask(scopegate.address, "POST", "/api/v1/webhooks/a", "", &body);
    assert_eq!((answer.status, answer.text()), (200, body));
    let line = scopegate.log_line(|line| line["method"] == "POST");
    assert_eq!((&line["reason"], &line["received"]), (&"passed".into(), &3_000.into()));
}

#[test]
fn a_connection_that_ended_under_a_request_is_replaced_where_that_does_nothing_twice() {
    for (method, status) in [("GET", 200), ("POST", 502)] {
        // The second request finds a connection that has grown old.
        let (address, _) =
            by_hand(|before, stream| if before == 1 { None } else { Some(ok(stream, "5", b"hello")) });
        let scopegate = setup(address).start();
        assert_eq!(ask(scopegate.address, "GET", "/api/v1/webhooks/a", "", "").status, 200);
        let answer = ask(scopegate.address, method, "/api/v1/webhooks/a", "", "");
        assert_eq!(answer.status, status, "{method}");
    }
}

#[test]
fn a_goodbye_lets_streams_finish_and_the_next_request_finds_another_connection() {
    let upstream = Http2::with(|mut call: Call| async move {
        call.goodbye.notify_one();
        tokio::time::sleep(Duration::from_millis(200)).await;
        call.reply(200, &[], "done");
    });
    let scopegate = setup(upstream.address).start();
    for number in 1..=3 {
        assert_eq!(ask(scopegate.address, "POST", "/api/v1/webhooks/a", "", "x").body, b"done");
        assert_eq!(upstream.connections(), number);
    }
}

#[test]
fn an_answer_may_come_before_its_request_is_whole() {
    let upstream = Http2::with(|mut call: Call| async move {
        call.reply(413, &[], "too much");
        // A reset takes back what has not left yet.
        tokio::time::sleep(Duration::from_millis(200)).await;
        // And what is still to come is not wanted.
        call.respond.send_reset(Reason::NO_ERROR);
    });
    let scopegate = setup(upstream.address).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n");
    client.send([b'x'; 10_000]);
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.body, answer.whole), (413, b"too much".to_vec(), true));
}

#[test]
fn what_is_too_much_of_a_body_is_refused_and_goes_no_further() {
    let (tell, heard) = std::sync::mpsc::channel();
    let upstream = Http2::with(move |mut call: Call| {
        let tell = tell.clone();
        async move {
            tell.send(call.rest().await.0.len()).expect("the test listens");
        }
    });
    let scopegate = setup(upstream.address).and("limits: { body: 1KiB }").start();
    let mut client = Client::connect(scopegate.address);
    let piece = "x".repeat(1_000);
    client.send(format!(
        "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n3e8\r\n{piece}\r\n3e8\r\n{piece}\r\n"
    ));
    assert_eq!(client.answer(false).reason(), "body_too_large");
    assert!(heard.recv_timeout(PATIENCE).expect("an end") <= 1_024);
}

#[test]
fn a_connection_that_has_fallen_silent_is_used_by_nobody_else() {
    let deaf = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&deaf);
    // The first connection answers nothing at all, as one does whose other end has gone without a word.
    let (address, _) = by_hand(move |_, stream| {
        if count.fetch_add(1, Ordering::SeqCst) == 0 {
            Some(Vec::new())
        } else {
            Some(ok(stream, "5", b"hello"))
        }
    });
    let scopegate = setup(address).start();
    let mut first = Client::connect(scopegate.address);
    first.send("GET /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\n\r\n");
    eventually("a request", || (deaf.load(Ordering::SeqCst) == 1).then_some(()));
    // Longer than the silence that says something.
    std::thread::sleep(Duration::from_millis(1_300));
    drop(first);
    eventually("the client to be missed", || {
        (scopegate.metric("scopegate_requests_in_flight") == 0.0).then_some(())
    });
    assert_eq!(get(scopegate.address, "/api/v1/webhooks/a", "").body, b"hello");
    assert_eq!(scopegate.metric("scopegate_upstream_connects_total{upstream=\"webhooks\"}"), 2.0);
}

/// What is on its way when a stream is reset comes all the same, and is no fault of the upstream's.
#[test]
fn clients_that_leave_in_the_middle_end_no_stream_of_another() {
    let begins = |stream| frame(1, 4, stream, &block(&[(":status", "200")]));
    let (address, _) = by_hand(move |_, stream| Some(begins(stream)));
    let scopegate = setup(address).start();
    let mut beside = Client::connect(scopegate.address);
    beside.send("GET /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\n\r\n");
    assert_eq!(beside.head().0, 200);
    std::thread::scope(|threads| {
        for _ in 0..8 {
            threads.spawn(|| {
                for _ in 0..400 {
                    let mut client = Client::connect(scopegate.address);
                    client.send("GET /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\n\r\n");
                    assert_eq!(client.head().0, 200);
                }
            });
        }
    });
    let in_flight = || scopegate.metric("scopegate_requests_in_flight");
    eventually("the first alone", || (in_flight() == 1.0).then_some(()));
    assert_eq!(scopegate.metric("scopegate_upstream_connects_total{upstream=\"webhooks\"}"), 1.0);
}

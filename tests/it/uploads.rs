//! Where a client's body ends, and who is waited for after it.

use std::io::Read as _;

use bytes::Bytes;
use http::Request;
use hyper::body::Frame;

use crate::harness::client::{Client, request};
use crate::harness::frames::{DATA, END_HEADERS, Frames, HEADERS, Told, block, frame, get};
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, bearer};
use crate::http2::{ask, tokio_stream};

/// Of no known length: HTTP/2 ends it with an empty frame.
fn stream(
    pieces: &[&'static str],
) -> Request<impl hyper::body::Body<Data = Bytes, Error = std::convert::Infallible> + Unpin> {
    let frames: Vec<_> =
        pieces.iter().map(|piece| Frame::data(Bytes::from_static(piece.as_bytes()))).collect();
    let body = http_body_util::StreamBody::new(tokio_stream(frames));
    Request::post("http://a/api/v1/webhooks/a").body(body).expect("a request")
}

#[test]
fn a_stream_of_http2_that_ends_with_nothing_is_a_whole_body() {
    let upstream = Upstream::with(|exchange| exchange.reply("200 OK", "", "whole"));
    let scopegate = Setup::new(&upstream).and("timeouts: { first_byte: 2s }").start();
    for pieces in [&["x"][..], &["hello", " ", "world"], &["a", "", "b", ""], &[""]] {
        let answers = ask(&scopegate, vec![stream(pieces)]);
        assert_eq!((answers[0].0, &*answers[0].2), (200, &b"whole"[..]), "{pieces:?}: {}", answers[0].1);
        assert_eq!(upstream.seen().last().expect("it came").body, pieces.concat().as_bytes());
    }
}

#[test]
fn an_answer_that_needs_no_body_does_not_leave_half_a_request_behind() {
    // It answers from the head alone, and reads the body as the next request's head if it is not told where it ends.
    let upstream = Upstream::with(|exchange| {
        let target = exchange.request.target.clone();
        let answer = format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{target}", target.len());
        let answered = exchange.write(answer);
        exchange.read_body();
        answered
    });
    let scopegate = Setup::new(&upstream).start();
    for _ in 0..50 {
        assert_eq!(ask(&scopegate, vec![stream(&["x", "y"])])[0].2, "/api/v1/webhooks/a");
        let mut other = Client::connect(scopegate.address);
        assert_eq!(other.ask(request("GET", "/health", "", "")).text(), "/health");
    }
}

#[test]
fn silence_after_a_whole_body_is_the_upstreams() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        let _ = exchange.stream.read(&mut [0]);
        false
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { first_byte: 300ms, idle: 5s }").start();
    let mut client = Client::connect(scopegate.address);
    client
        .send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n");
    // The end comes by itself.
    while upstream.connections() == 0 {
        std::thread::yield_now();
    }
    client.send("0\r\n\r\n");
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.reason()), (504, "upstream_first_byte_timeout"));
}

/// While its answer is under way there is no status left to say so with.
#[test]
fn what_is_wrong_with_a_body_is_the_clients_fault_once_its_answer_has_begun_too() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nearly\r\n");
        while exchange.chunk().is_some() {}
        false
    });
    let scopegate = Setup::new(&upstream).and("limits: { body: 10B }").start();
    for (more, reason) in [("9\r\nand\u{20}so on\r\n", "body_too_large"), ("what\r\n", "client_invalid")] {
        let mut client = Client::connect(scopegate.address);
        let key = bearer(ALL);
        client.send(format!(
            "POST /api/v1/call-tokens HTTP/1.1\r\nHost: a\r\n{key}Transfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n"
        ));
        assert_eq!((client.head().0, client.chunk().as_deref()), (200, Some(&b"early"[..])));
        client.send(more);
        let mut rest = Vec::new();
        // However it is cut.
        let _ = client.stream.read_to_end(&mut rest);
        assert!(rest.is_empty(), "no clean end: {rest:?}");
        scopegate.log_line(|line| line["reason"] == reason && line["status"] == 200);
    }
    assert!(!scopegate.ask_admin("/metrics").text().contains("scopegate_upstream_faults_total{"));
}

#[test]
fn a_wish_for_trailers_survives_its_own_place_in_connection() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    let answer = client.ask("GET /health HTTP/1.1\r\nHost: a\r\nConnection: TE\r\nTE: trailers\r\n\r\n");
    assert_eq!(answer.status, 200);
    assert_eq!(upstream.nth(0).header("te"), Some("trailers"));
}

#[test]
fn an_upstream_that_reads_nothing_stops_the_client() {
    const MOST: usize = 48 << 20;
    let upstream = Upstream::with(|_| {
        std::thread::park_timeout(PATIENCE);
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let before = scopegate.metric("process_resident_memory_bytes");
    let mut frames = Frames::connect(scopegate.address, &[]);
    let asked =
        [(":method", "POST"), (":scheme", "http"), (":authority", "a"), (":path", "/api/v1/webhooks/a")];
    frames.send(frame(HEADERS, END_HEADERS, 1, &block(&asked)));
    // What a stream begins with while nobody has acknowledged the settings.
    let (mut window, mut sent) = (65_535, 0);
    while sent < MOST {
        if window < 16_384 {
            let Some(more) = frames.grows(1) else { break };
            window += more;
            continue;
        }
        frames.send(frame(DATA, 0, 1, &[b'y'; 16_384]));
        (sent, window) = (sent + 16_384, window - 16_384);
    }
    assert!(sent < MOST / 2, "{sent} bytes were taken that nobody read");
    let grown = scopegate.metric("process_resident_memory_bytes") - before;
    assert!(grown < f64::from(8 << 20), "memory grew by {grown}");
    // Others on the connection are not held up.
    frames
        .send(get(3, &[(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/nowhere")]));
    let told = frames.told(3);
    assert!(matches!(told, Told::Answer(404, _)), "{told:?}");
}

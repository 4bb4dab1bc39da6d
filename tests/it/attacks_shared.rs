//! What a client does to those who share something with it: a connection to the upstream, that of a balancer, the places of
//! requests, the log of events.

use std::time::Duration;

use tokio::time::sleep;

use crate::attacks::gate;
use crate::harness::client::{Client, get, request};
use crate::harness::eventually;
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, HEADERS, PING, Told, block, frame, get as stream,
};
use crate::harness::http2::{Call, Http2};
use crate::harness::scopegate::{APPS, Setup};
use crate::harness::upstream::Upstream;
use crate::http2_upstream::setup;

const IN_FLIGHT: &str = "scopegate_requests_in_flight";
const CHUNKED: &str = "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

fn ask<'a>(method: &'a str, path: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// The head of a request whose body is still to come.
fn begin(number: u32, path: &str) -> Vec<u8> {
    frame(HEADERS, END_HEADERS, number, &block(&ask("POST", path)))
}

#[test]
fn small_pieces_of_one_body_end_no_connection_to_the_upstream() {
    let upstream = Http2::with(|mut call: Call| async move {
        // Whoever thinks first has many pieces waiting then.
        sleep(Duration::from_millis(200)).await;
        let length = call.rest().await.0.len();
        call.reply(200, &[], format!("{length}"));
    });
    let scopegate = setup(upstream.address).start();
    let mut other = Client::connect(scopegate.address);
    other.send(request("GET", "/api/v1/webhooks/b", "", ""));
    let mut client = Client::connect(scopegate.address);
    let piece = format!("14\r\n{}\r\n", "x".repeat(20));
    client.send(format!("{CHUNKED}{}0\r\nX-Sum: 1\r\n\r\n", piece.repeat(3_000)));
    assert_eq!(client.answer(false).text(), "60000");
    assert_eq!(other.answer(false).status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn an_upload_that_nobody_reads_holds_up_no_other() {
    let upstream = Http2::with(|mut call: Call| async move {
        if call.head.uri.path().ends_with("stalled") {
            sleep(Duration::from_secs(60)).await;
        }
        let length = call.rest().await.0.len();
        call.reply(200, &[], format!("{length}"));
    });
    let scopegate = setup(upstream.address).start();
    let mut stalled = Client::connect(scopegate.address);
    // As much as fits into the window that a connection has by itself (RFC 9113, 6.9.2), and more.
    let head = "POST /api/v1/webhooks/stalled HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n";
    stalled.send([head.as_bytes(), &vec![b'x'; 100_000]].concat());
    eventually("a request", || (upstream.seen().len() == 1).then_some(()));
    // Those that came before anybody could know that nothing moves may wait for it.
    std::thread::sleep(Duration::from_millis(400));
    let mut other = Client::connect(scopegate.address);
    for _ in 0..3 {
        let answer = other.ask(request("POST", "/api/v1/webhooks/a", "", "ten bytes."));
        assert_eq!((answer.status, &*answer.text()), (200, "10"));
    }
    assert_eq!(upstream.connections(), 2);
}

#[test]
fn an_upload_that_harms_nobody_keeps_its_connection_for_others() {
    let roomy = |settings: &mut h2::server::Builder| {
        settings.initial_connection_window_size(64 << 20);
    };
    let upstream = Http2::set(roomy, |mut call: Call| async move {
        if call.head.uri.path().ends_with("paused") {
            // Its own window closes.
            sleep(Duration::from_secs(60)).await;
        }
        call.rest().await;
        if call.head.method == "POST" {
            sleep(Duration::from_secs(1)).await;
        }
        call.reply(200, &[], "done");
    });
    let scopegate = setup(upstream.address).start();
    let upload = |path: &str| {
        let mut client = Client::connect(scopegate.address);
        client.send(request("POST", path, "", &"x".repeat(300_000)));
        client
    };
    let paused: Vec<_> = (0..3).map(|_| upload("/api/v1/webhooks/paused")).collect();
    let mut thinks = upload("/api/v1/webhooks/a");
    for _ in 0..4 {
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(get(scopegate.address, "/api/v1/webhooks/b", "").body, b"done");
    }
    assert_eq!(thinks.answer(false).body, b"done");
    assert_eq!(upstream.connections(), 1);
    drop(paused);
}

#[test]
fn refusals_of_uploads_cost_a_balancer_no_connection() {
    let (upstream, scopegate) = gate();
    // Without a table of fields.
    let mut frames = Frames::connect(scopegate.address, &[0, 1, 0, 0, 0, 0]);
    let keyed = [ask("GET", "/api/v1/apps"), vec![("x-api-key", APPS)]].concat();
    for round in 0..4 {
        let uploads = || (0..90).map(|number| 200 * round + 2 * number + 1);
        frames.send(uploads().flat_map(|number| begin(number, "/api/v1/call-tokens")).collect::<Vec<u8>>());
        // The client has not heard of it yet when it says the rest.
        uploads().for_each(|number| assert_eq!(frames.begins(number), 401));
        let rest =
            |number| [frame(DATA, 0, number, b"some"), frame(DATA, END_STREAM, number, b"body")].concat();
        frames.send(uploads().flat_map(rest).collect::<Vec<u8>>());
        uploads().for_each(|number| assert!(matches!(frames.told(number), Told::Answer(401, _)), "{number}"));
        let next = 200 * round + 199;
        frames.send(stream(next, &keyed));
        assert_eq!(frames.told(next), Told::Answer(200, "hello".to_owned()));
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/api/v1/apps"));
    // Nor does it matter why.
    let large = [ask("POST", "/api/v1/call-tokens"), vec![("x", "y"); 200]].concat();
    frames.send(frame(HEADERS, END_HEADERS, 1_001, &block(&large)));
    assert_eq!(frames.begins(1_001), 431);
    frames.send(frame(DATA, END_STREAM, 1_001, b"body"));
    assert!(matches!(frames.told(1_001), Told::Answer(431, _)));
    // One that says no end is not waited for: its stream is reset.
    frames.send(begin(2_001, "/api/v1/call-tokens"));
    assert_eq!(frames.begins(2_001), 401);
    (0..5).for_each(|_| frames.send(frame(DATA, 0, 2_001, &[b'x'; 13_000])));
    frames.send(frame(DATA, 0, 2_001, &[b'x'; 500]));
    let (mut reset, mut number) = (false, 2_003);
    while !reset {
        let (kind, _, of, _) = frames.next().expect("a frame");
        reset = kind == 3 && of == 2_001;
        number += 2;
    }
    frames.send(stream(number, &keyed));
    assert_eq!(frames.told(number), Told::Answer(200, "hello".to_owned()));
}

#[test]
fn an_upload_that_goes_on_behind_its_answer_has_a_place() {
    let upstream = Upstream::with(|exchange| {
        if exchange.request.method != "POST" {
            return exchange.reply("200 OK", "", "hello");
        }
        exchange.write("HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n");
        exchange.read_body();
        false
    });
    let scopegate = Setup::new(&upstream).and("limits: { in_flight: 1 }").start();
    let counted = |count: f64| eventually("a count", || (scopegate.metric(IN_FLIGHT) == count).then_some(()));
    let mut client = Client::connect(scopegate.address);
    client.send(format!("{CHUNKED}1\r\nx\r\n"));
    assert_eq!(client.answer(false).status, 404);
    counted(1.0);
    assert_eq!(get(scopegate.address, "/health", "").reason(), "overloaded");
    client.send("0\r\n\r\n");
    counted(0.0);
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    // Over HTTP/2 its stream is one of its client's besides, and its connection is not idle: nobody has its room.
    let limits = "limits: { in_flight: 9, connections_per_client: 2, connections: 2 }";
    let scopegate = Setup::new(&upstream).and(limits).start();
    let counted = |count: f64| eventually("a count", || (scopegate.metric(IN_FLIGHT) == count).then_some(()));
    let mut frames = Frames::connect(scopegate.address, &[]);
    for number in [1, 3] {
        frames.send([begin(number, "/api/v1/webhooks/a"), frame(DATA, 0, number, b"x")].concat());
        assert_eq!(frames.told(number), Told::Answer(404, String::new()));
    }
    counted(2.0);
    frames.send(stream(5, &ask("GET", "/health")));
    assert_eq!(frames.told(5), Told::Reset(7), "REFUSED_STREAM");
    let others: Vec<_> = (0..2).map(|_| Client::connect_from("127.0.0.2", scopegate.address)).collect();
    eventually("somebody", || {
        (scopegate.metric("scopegate_connections_cut_short_total{reason=\"room\"}") == 1.0).then_some(())
    });
    for number in [1, 3] {
        frames.send(frame(DATA, END_STREAM, number, b"x"));
    }
    counted(0.0);
    frames.send(stream(7, &ask("GET", "/health")));
    assert_eq!(frames.told(7), Told::Answer(200, "hello".to_owned()));
    drop(others);
}

#[test]
fn a_client_cannot_fill_the_log_of_events() {
    let (_upstream, scopegate) = gate();
    for _ in 0..20 {
        let mut frames = Frames::connect(scopegate.address, &[]);
        // Answers to pings that nobody has sent, and streams that are refused.
        frames.send(frame(PING, 1, 0, b"12345678").repeat(50));
        let end = frame(HEADERS, END_HEADERS | END_STREAM, 1, &block(&[(":method", "GET")]));
        frames.send([end, stream(3, &ask("GET", "/health"))].concat());
        assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()));
    }
    let said = scopegate.everything_said();
    let events = said.lines().filter(|line| line.contains("WARN")).count();
    assert!(events < 20, "{events}: {said}");
    assert!(!said.to_ascii_lowercase().contains("ping"), "{said}");
}

#[test]
fn half_a_head_on_a_connection_that_was_used_is_not_waited_for_long() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("timeouts: { head: 300ms, keep_alive: 60s }").start();
    let cut = || scopegate.metric("scopegate_connections_cut_short_total{reason=\"head\"}");
    let head = block(&ask("GET", "/health"));
    let (one, two) = head.split_at(5);
    let half = frame(HEADERS, END_STREAM, 3, one);
    for (number, part) in [(1.0, &half[..]), (2.0, &half[..half.len() - 2])] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(stream(1, &ask("GET", "/health")));
        assert_eq!(frames.told(1), Told::Answer(200, "hello".to_owned()));
        frames.send(part);
        assert!(matches!(frames.told(3), Told::Goaway(_) | Told::End));
        eventually("a count", || (cut() == number).then_some(()));
    }
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(stream(1, &ask("GET", "/health")));
    assert_eq!(frames.told(1), Told::Answer(200, "hello".to_owned()));
    frames.send(half);
    frames.send(frame(CONTINUATION, END_HEADERS, 3, two));
    assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()));
    // Who asks nothing has as long as ever.
    std::thread::sleep(Duration::from_millis(600));
    frames.send(stream(5, &ask("GET", "/health")));
    assert_eq!(frames.told(5), Told::Answer(200, "hello".to_owned()));
}

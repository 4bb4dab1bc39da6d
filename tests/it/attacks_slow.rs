//! Who takes his time: what he holds of us meanwhile, and when that ends.

use std::io::{Read as _, Write as _};

use crate::harness::client::{Client, get, request};
use crate::harness::eventually;
use crate::harness::frames::{
    END_HEADERS, Frames, HEADERS, PREFACE, RESET, SETTINGS, Told, WINDOW, block, frame, get as stream,
};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

const REFUSED_STREAM: u32 = 7;
const BROKEN: &str = "scopegate_http2_broken_total{reason=\"client_slow\"}";

/// Windows of so many bytes, on each stream.
fn windows(bytes: u32) -> Vec<u8> {
    [&[0, 4][..], &bytes.to_be_bytes()].concat()
}

fn ask<'a>(method: &'a str, path: &'a str) -> Vec<(&'static str, &'a str)> {
    vec![(":method", method), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// So many requests, each on a stream of its own.
fn many(count: u32, method: &str, path: &str) -> Vec<u8> {
    (0..count).flat_map(|number| stream(2 * number + 1, &ask(method, path))).collect()
}

fn nobody_left(scopegate: &Scopegate, what: &str) {
    for gauge in ["scopegate_connections", "scopegate_requests_in_flight"] {
        eventually(&format!("{gauge}: {what}"), || (scopegate.metric(gauge) == 0.0).then_some(()));
    }
    assert_eq!(get(scopegate.address, "/health", "").status, 200, "{what}");
}

#[test]
fn who_is_refused_and_does_not_listen_is_not_in_flight() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("limits: { in_flight: 2 }").start();
    let mut deaf = Frames::connect(scopegate.address, &windows(0));
    deaf.send(many(10, "GET", "/api/v1/apps"));
    let mut refused = 0;
    while refused < 10 {
        let (kind, ..) = deaf.next().expect("a frame");
        refused += u32::from(kind == HEADERS);
    }
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    // Over HTTP/1 an answer is refused to the end of what the system holds.
    let mut piped = Client::connect(scopegate.address);
    piped.send(request("GET", "/api/v1/apps", "", "").repeat(100));
    assert_eq!(piped.head().0, 401);
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
}

#[test]
fn a_client_has_so_many_streams_over_all_of_its_connections() {
    let upstream = Upstream::start();
    let limits = "limits: { in_flight: 8, connections_per_client: 5 }";
    let scopegate = Setup::new(&upstream).and(limits).start();
    let refused = || scopegate.metric("scopegate_connections_refused_total{limit=\"streams_per_client\"}");
    // Bodies that never end, and refusals that nobody takes.
    let post = block(&ask("POST", "/api/v1/webhooks/a"));
    let bodies = (0..6).flat_map(|number| frame(HEADERS, END_HEADERS, 2 * number + 1, &post)).collect();
    for (what, streams, in_flight) in
        [("bodies", bodies, 5.0), ("refusals", many(6, "GET", "/api/v1/apps"), 0.0)]
    {
        let before = refused();
        let mut greedy: Vec<_> = (0..2).map(|_| Frames::connect(scopegate.address, &windows(0))).collect();
        greedy[0].send(&streams);
        eventually(what, || (refused() == before + 1.0).then_some(()));
        greedy[1].send(&streams);
        eventually(what, || (refused() == before + 7.0).then_some(()));
        for number in 0..6 {
            assert_eq!(greedy[1].told(2 * number + 1), Told::Reset(REFUSED_STREAM), "{what}");
        }
        let known = || scopegate.metric("scopegate_requests_in_flight") == in_flight;
        eventually(what, || known().then_some(()));
        let get = request("GET", "/health", "", "");
        assert_eq!(Client::connect_from("127.0.0.2", scopegate.address).ask(&get).status, 200, "{what}");
        // Who has ended one may open another; of six at once it is the first that was too much.
        greedy[0].send(frame(RESET, 0, 11, &[0, 0, 0, 8]));
        let mut number = 13;
        let told = eventually(what, || {
            number += 2;
            greedy[1].send(stream(number, &ask("HEAD", "/health")));
            Some(greedy[1].told(number)).filter(|told| *told != Told::Reset(REFUSED_STREAM))
        });
        assert_eq!(told, Told::Answer(200, String::new()), "{what}");
        drop(greedy);
        nobody_left(&scopegate, what);
    }
}

#[test]
fn answers_that_are_not_taken_end_however_small_they_are() {
    let upstream = Upstream::with(|exchange| {
        let size = exchange.request.target.rsplit('/').next().and_then(|size| size.parse().ok());
        let text = "x".repeat(size.unwrap_or(5));
        exchange.reply("200 OK", "", &text)
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 300ms }");
    let scopegate = scopegate.and("limits: { streams: 1000, connections_per_client: 1000 }").start();
    // Pieces that are larger than a frame end alone, smaller ones with their connection.
    for (window, size, alone) in [(0, 5, true), (1, 5, false), (1, 20_000, true), (1, 60_000, true)] {
        let what = format!("{size} bytes through a window of {window}");
        let mut frames = Frames::connect(scopegate.address, &windows(window));
        let before = scopegate.metric(BROKEN);
        frames.send(many(100, "GET", &format!("/api/v1/webhooks/{size}")));
        if alone {
            let mut reset = 0;
            while reset < 100 {
                let (kind, ..) = frames.next().expect(&what);
                reset += u32::from(kind == RESET);
            }
        } else {
            while frames.next().is_some() {}
            eventually(&what, || (scopegate.metric(BROKEN) == before + 1.0).then_some(()));
        }
        drop(frames);
        nobody_left(&scopegate, &what);
    }
    // All windows are open, and nothing is read.
    for size in [15_000, 60_000] {
        let what = format!("{size} bytes that nobody reads");
        let mut frames = Frames::small(scopegate.address, &windows(0x7fff_ffff));
        frames.send(frame(WINDOW, 0, 0, &[0x7f, 0, 0, 0]));
        // More than the system holds for both.
        let target = format!("/api/v1/webhooks/{size}");
        for round in 0..10 {
            let streams =
                (0..100).flat_map(|number| stream(200 * round + 2 * number + 1, &ask("GET", &target)));
            if !frames.try_send(streams.collect::<Vec<u8>>()) {
                break;
            }
        }
        nobody_left(&scopegate, &what);
    }
}

#[test]
fn who_does_not_read_its_socket_loses_it() {
    let upstream = Upstream::with(|exchange| exchange.reply("200 OK", "", &"x".repeat(4 << 20)));
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 300ms, keep_alive: 60s }").start();
    for count in [1, 20] {
        let before = scopegate.metric(BROKEN);
        let mut frames = Frames::small(scopegate.address, &windows(0x7fff_ffff));
        frames.send(frame(WINDOW, 0, 0, &[0x7f, 0, 0, 0]));
        frames.send(many(count, "GET", "/health"));
        eventually("it is told of", || (scopegate.metric(BROKEN) == before + 1.0).then_some(()));
        eventually("its end", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
        drop(frames);
    }
}

#[test]
fn who_takes_a_little_now_and_then_is_waited_for() {
    let upstream = Upstream::with(|exchange| exchange.reply("200 OK", "", &"x".repeat(40)));
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 1s }").start();
    let mut frames = Frames::connect(scopegate.address, &windows(1));
    frames.send(many(1, "GET", "/health"));
    for _ in 0..39 {
        // His pace: longer in all than he may take for one byte.
        std::thread::sleep(std::time::Duration::from_millis(50));
        frames.send(frame(WINDOW, 0, 1, &[0, 0, 0, 1]));
    }
    assert_eq!(frames.told(1), Told::Answer(200, "x".repeat(40)));
}

/// Reads steadily what comes, and slowly: less in a second than the system would like to hold.
fn sip(stream: &mut impl std::io::Read, total: usize) -> usize {
    let (mut part, mut all) = (vec![0; 24 << 10], 0);
    while all < total && stream.read_exact(&mut part).is_ok() {
        all += part.len();
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    all
}

#[test]
fn who_reads_slowly_and_steadily_is_not_cut_off() {
    const ALL: usize = 60 * (24 << 10);
    let upstream = Upstream::with(|exchange| {
        if exchange.request.method == "POST" {
            let read = sip(exchange.stream, ALL);
            return exchange.last(format!("HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\n{read}"));
        }
        exchange.reply("200 OK", "", &"x".repeat(64 << 20))
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 1s, first_byte: 1s }").start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    let down = std::thread::spawn(move || sip(&mut client.stream, ALL));
    let mut client = Client::connect(scopegate.address);
    let mut sends = client.stream.get_ref().try_clone().expect("a socket");
    let upload = request("POST", "/api/v1/webhooks/a", "", &"x".repeat(60 << 20));
    std::thread::spawn(move || sends.write_all(upload.as_bytes()));
    let answer = client.answer(false);
    assert_eq!((answer.status, answer.text()), (200, ALL.to_string()));
    assert_eq!(down.join().expect("no panic"), ALL);
    // What its system holds it would read of a connection that was cut, too.
    let line = scopegate.log_line(|line| line["surface"] == "health");
    assert_eq!(line["reason"], "client_gone");
}

#[test]
fn who_never_asks_is_not_waited_for_as_long_as_who_has_asked() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("timeouts: { head: 200ms }").start();
    let settings = [PREFACE, &frame(SETTINGS, 0, 0, b"")].concat();
    for (bytes, reason) in [
        (&b""[..], "silent"),
        (b"PRI * HTTP", "preface"),
        (PREFACE, "preface"),
        (&settings, "preface"),
        (b"\r\n", ""),
    ] {
        let cut = format!("scopegate_connections_cut_short_total{{reason=\"{reason}\"}}");
        let before = scopegate.metric(&cut);
        let mut client = Client::connect(scopegate.address);
        client.send(bytes);
        client.stream.read_to_end(&mut Vec::new()).expect("an end, in time");
        let counted = || (reason.is_empty() || scopegate.metric(&cut) == before + 1.0).then_some(());
        eventually(reason, counted);
    }
    // Who has asked once is waited for as ever.
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200);
    std::thread::sleep(std::time::Duration::from_millis(600));
    assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200);
}

#[test]
fn who_asks_nothing_over_http2_makes_room() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("limits: { connections: 2 }").start();
    let mut silent: Vec<_> = (0..2).map(|_| Frames::connect(scopegate.address, &[])).collect();
    for frames in &mut silent {
        let (kind, ..) = frames.next().expect("a frame");
        assert_eq!(kind, SETTINGS);
    }
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    assert_eq!(scopegate.metric("scopegate_connections_cut_short_total{reason=\"room\"}"), 1.0);
}

#[test]
fn who_leaves_in_a_head_is_counted() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send("GET /health HTTP/1.1\r\nHo");
    client.finish();
    assert!(client.is_closed());
    let cut = || scopegate.metric("scopegate_connections_cut_short_total{reason=\"head\"}");
    eventually("a count", || (cut() == 1.0).then_some(()));
}

#[test]
fn a_body_of_what_nobody_reads_has_an_end() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let head = "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    let extended = format!("1;{}\r\nx\r\n", "a".repeat(1_000));
    for (what, body, status) in [
        ("the largest number", "ffffffffffffffff\r\n".to_owned(), 400),
        ("more than any body", "10000000001\r\n".to_owned(), 400),
        ("many extensions", extended.repeat(66), 400),
        ("some extensions", format!("{}0\r\n\r\n", extended.repeat(60)), 200),
    ] {
        let answer = Client::connect(scopegate.address).ask(format!("{head}{body}"));
        assert_eq!(answer.status, status, "{what}");
        assert_eq!(answer.reason(), if status == 400 { "client_invalid" } else { "" }, "{what}");
    }
}

#[test]
fn nobody_keeps_a_probe_out() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("timeouts: { head: 9s }").start();
    let mut first = Client::connect(scopegate.admin);
    first.send("GET /livez HTTP/1.1\r\nHo");
    let _others: Vec<_> = (0..200).map(|_| Client::connect(scopegate.admin)).collect();
    for path in ["/livez", "/readyz", "/metrics"] {
        assert_eq!(scopegate.ask_admin(path).status, 200, "{path}");
    }
    assert!(first.is_closed(), "the oldest makes room");
    let open = scopegate.metric("process_open_fds");
    assert!(open < 150.0, "{open} descriptors");
    // Nor does it keep who never comes to the point.
    let scopegate = Setup::new(&upstream).and("timeouts: { head: 200ms }").start();
    for begin in ["", "GET /livez HTTP/1.1\r\nHo"] {
        let mut client = Client::connect(scopegate.admin);
        client.send(begin);
        assert!(client.is_closed(), "{begin}");
    }
}

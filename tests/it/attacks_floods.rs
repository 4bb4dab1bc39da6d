//! Frames of HTTP/2 that are none, or that cost more than they pay: who sends them is cut short or held back, and others
//! do not notice.

use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::harness::client::{Client, request};
use crate::harness::frames::{
    CONTINUATION, DATA, END_HEADERS, END_STREAM, Frames, GOAWAY, HEADERS, PING, PREFACE, PRIORITY, PUSH,
    RESET, SETTINGS, Told, WINDOW, block, frame, get,
};
use crate::harness::scopegate::{APPS, Scopegate, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, bearer, eventually};

const PROTOCOL_ERROR: u32 = 1;
const FLOW_CONTROL_ERROR: u32 = 3;
const FRAME_SIZE_ERROR: u32 = 6;
const COMPRESSION_ERROR: u32 = 9;
const REFUSED_STREAM: u32 = 7;
const ENHANCE_YOUR_CALM: u32 = 11;
/// What the program may need at most, whatever it is sent.
const MEMORY: u32 = 64 << 20;

fn health(path: &str) -> Vec<(&'static str, &str)> {
    vec![(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)]
}

/// Another client is served as ever, nothing is left behind, and memory stays small.
fn calm(scopegate: &Scopegate, what: &str) {
    let answer = Client::connect(scopegate.address).ask(request("GET", "/api/v1/apps", &bearer(APPS), ""));
    assert_eq!(answer.status, 200, "{what}");
    eventually(what, || (scopegate.metric("scopegate_requests_in_flight") == 0.0).then_some(()));
    let resident = scopegate.metric("process_resident_memory_bytes");
    assert!(resident < f64::from(MEMORY), "{what}: {resident} bytes");
}

#[test]
fn what_is_no_frame_ends_the_connection() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let health = block(&health("/health"));
    let open = frame(HEADERS, END_HEADERS, 1, &health);
    let many = |kind: u8, stream: u32, length: usize| frame(kind, 0, stream, &vec![0; length]);
    for (bytes, code) in [
        (frame(DATA, 0, 0, b"x"), PROTOCOL_ERROR),
        (frame(DATA, 0, 1, b"x"), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 0, &health), PROTOCOL_ERROR),
        (frame(HEADERS, END_HEADERS, 2, &health), PROTOCOL_ERROR),
        (frame(CONTINUATION, END_HEADERS, 1, &health), PROTOCOL_ERROR),
        ([frame(HEADERS, 0, 1, &health), frame(DATA, 0, 1, b"x")].concat(), PROTOCOL_ERROR),
        ([frame(HEADERS, 0, 1, &health), frame(CONTINUATION, END_HEADERS, 3, b"")].concat(), PROTOCOL_ERROR),
        (frame(PUSH, END_HEADERS, 1, &[&[0, 0, 0, 2], &*health].concat()), PROTOCOL_ERROR),
        (frame(RESET, 0, 1, &[0; 4]), PROTOCOL_ERROR),
        (many(RESET, 1, 3), FRAME_SIZE_ERROR),
        (many(SETTINGS, 1, 0), PROTOCOL_ERROR),
        (many(SETTINGS, 0, 5), FRAME_SIZE_ERROR),
        (frame(SETTINGS, 1, 0, &[0; 6]), FRAME_SIZE_ERROR),
        (many(PRIORITY, 1, 4), FRAME_SIZE_ERROR),
        (many(PING, 0, 7), FRAME_SIZE_ERROR),
        (many(PING, 1, 8), PROTOCOL_ERROR),
        (many(WINDOW, 0, 3), FRAME_SIZE_ERROR),
        (many(WINDOW, 0, 4), PROTOCOL_ERROR),
        (frame(WINDOW, 0, 0, &[0x7f, 0xff, 0xff, 0xff]), FLOW_CONTROL_ERROR),
        (frame(SETTINGS, 0, 0, &[0, 4, 0xff, 0xff, 0xff, 0xff]), FLOW_CONTROL_ERROR),
        ([open.clone(), many(DATA, 1, 16_385)].concat(), FRAME_SIZE_ERROR),
        (frame(HEADERS, END_HEADERS | END_STREAM | 8, 1, &[200, 1, 2]), PROTOCOL_ERROR),
        // Field blocks that cannot be read: no such place in a table, a number without end, a text without end.
        (frame(HEADERS, END_HEADERS, 1, &[0x80]), COMPRESSION_ERROR),
        (
            frame(HEADERS, END_HEADERS, 1, &[0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff]),
            COMPRESSION_ERROR,
        ),
        (frame(HEADERS, END_HEADERS, 1, &[0xfe]), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, &[0, 5, b'x']), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, &[0x3f, 0xe1, 0xff, 0x03]), COMPRESSION_ERROR),
        (frame(HEADERS, END_HEADERS, 1, &[0, 0x84, 0xff, 0xff, 0xff, 0xff, 0]), COMPRESSION_ERROR),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(&bytes);
        let told = frames.told(1);
        let gone =
            matches!(told, Told::Goaway(known) if known == code) || told == Told::Goaway(PROTOCOL_ERROR);
        assert!(gone, "{:?}…: {told:?}", &bytes[..bytes.len().min(24)]);
        while frames.next().is_some() {}
    }
    // What does not even begin as HTTP/2.
    for (bytes, status) in [
        (&b"PRI * HTTP/2.0\r\n\r\nSM\r\n\rx"[..], "HTTP/1.1 505"),
        (b"PRI * HTTP/2.0\r\n\r\n\r\n\r\n\r\n\r\n", "HTTP/1.1 505"),
    ] {
        let mut client = Client::connect(scopegate.address);
        client.send(bytes);
        assert!(client.line().starts_with(status));
    }
    let mut frames = Frames::silent(scopegate.address);
    frames.send([PREFACE, &frame(DATA, 0, 1, b"x")].concat());
    assert!(matches!(frames.told(1), Told::Goaway(_) | Told::End));
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn floods_of_frames_are_cut_short() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let part = frame(HEADERS, 0, 1, &block(&health("/health")));
    let more = |payload: &[u8]| frame(CONTINUATION, 0, 1, payload);
    let post = block(&[
        (":method", "POST"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/api/v1/webhooks/a"),
    ]);
    let open = frame(HEADERS, END_HEADERS, 1, &post);
    let field = block(&[("x", "y".repeat(4000))]);
    // Of a field that the table of the connection remembers, and a thousand times its place there.
    let remembered = [&[0x40], &block(&[("x", "y".repeat(3000))])[1..]].concat();
    let bomb = [&*block(&health("/health")), &remembered, &[0xbe; 10_000]].concat();
    let mut busy = 0.0;
    for (what, begin, flood, count, told) in [
        ("empty continuations", &part, more(b""), 100_000, Some(ENHANCE_YOUR_CALM)),
        ("small continuations", &part, more(&block(&[("x", "y")])), 100_000, Some(ENHANCE_YOUR_CALM)),
        ("large continuations", &part, more(&field), 10_000, Some(ENHANCE_YOUR_CALM)),
        ("empty pieces", &open, frame(DATA, 0, 1, b""), 1_000_000, Some(ENHANCE_YOUR_CALM)),
        ("padded pieces", &open, frame(DATA, 8, 1, &[0]), 1_000_000, Some(ENHANCE_YOUR_CALM)),
        ("settings", &Vec::new(), frame(SETTINGS, 0, 0, &[0, 3, 0, 0, 0, 9]), 100_000, None),
        ("pings", &Vec::new(), frame(PING, 0, 0, &[0; 8]), 100_000, None),
        ("answers to no ping", &Vec::new(), frame(PING, 1, 0, &[0; 8]), 100_000, None),
        ("priorities", &Vec::new(), frame(PRIORITY, 0, 3, &[0, 0, 0, 1, 9]), 100_000, None),
        ("unknown frames", &Vec::new(), frame(0x7f, 0xff, 0, &[0; 100]), 100_000, None),
        ("small windows", &Vec::new(), frame(WINDOW, 0, 0, &[0, 0, 0, 1]), 100_000, None),
        ("resets of what is gone", &get(1, &health("/health")), frame(RESET, 0, 1, &[0; 4]), 100_000, None),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(begin);
        let flood = flood.repeat(1_000);
        // Nobody reads what comes back meanwhile.
        let _ = (0..count / 1_000).all(|_| frames.try_send(&flood));
        if let Some(code) = told {
            let told = frames.told(1);
            assert!([Told::Goaway(code), Told::End].contains(&told), "{what}: {told:?}");
        } else {
            assert_eq!(frames.told(1), Told::End, "{what}");
            busy += 1.0;
            let broken = "scopegate_http2_broken_total{reason=\"control_frames\"}";
            eventually(what, || (scopegate.metric(broken) == busy).then_some(()));
        }
        drop(frames);
        calm(&scopegate, what);
    }
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(frame(HEADERS, END_HEADERS | END_STREAM, 1, &bomb));
    assert!(matches!(frames.told(1), Told::Answer(431, _) | Told::Goaway(_)));
    calm(&scopegate, "a bomb");
}

#[test]
fn a_list_of_fields_is_as_large_as_it_may_be_and_no_larger() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let long = "y".repeat(40 << 10);
    let many = |count: usize| [health("/health"), vec![("x", "y"); count]].concat();
    let path = format!("/health?{}", "x".repeat(17 << 10));
    for (fields, status, reason) in [
        (many(100), 200, ""),
        (many(101), 431, "head_too_large"),
        ([health("/health"), vec![("x", &long)]].concat(), 431, "head_too_large"),
        // In as many fields as a client likes, they are one (RFC 9113, 8.2.3).
        ([health("/health"), vec![("cookie", "a=b"); 110]].concat(), 200, ""),
        ([health("/health"), vec![("cookie", "a=b"); 3_000]].concat(), 431, "head_too_large"),
        (health(&path), 414, "target_too_long"),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        let block = block(&fields);
        let pieces: Vec<_> = block.chunks(16_000).collect();
        for (place, piece) in pieces.iter().enumerate() {
            let kind = if place == 0 { HEADERS } else { CONTINUATION };
            let flags = if place == 0 { END_STREAM } else { 0 }
                | if place + 1 == pieces.len() { END_HEADERS } else { 0 };
            frames.send(frame(kind, flags, 1, piece));
        }
        frames.send(get(3, &health("/health")));
        let Told::Answer(got, body) = frames.told(1) else { panic!("no answer: {status}") };
        assert_eq!(got, status);
        assert!(body.contains(reason), "{body}");
        assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()));
    }
}

#[test]
fn streams_that_are_opened_and_reset_do_little_and_end_soon() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let keyed = |key: &'static str| [health("/api/v1/apps"), vec![("x-api-key", key)]].concat();
    // A stream that we have to reset ourselves costs as much.
    for (how, kind, payload) in
        [("reset", RESET, [0, 0, 0, 8]), ("made to reset", WINDOW, [0x7f, 0xff, 0xff, 0xff])]
    {
        for key in [APPS, "unknown"] {
            let before = (upstream.seen().len(), upstream.connections());
            let mut frames = Frames::connect(scopegate.address, &[]);
            let streams: Vec<u8> = (0..5_000)
                .flat_map(|number| {
                    let stream = 2 * number + 1;
                    [get(stream, &keyed(key)), frame(kind, 0, stream, &payload)].concat()
                })
                .collect();
            frames.try_send(streams);
            let mut ended = false;
            while let Some((kind, _, _, payload)) = frames.next() {
                if kind == GOAWAY {
                    assert_eq!(payload[4..8], ENHANCE_YOUR_CALM.to_be_bytes(), "{how} {key}");
                    ended = true;
                }
            }
            assert!(ended, "{how} {key}: it went on");
            calm(&scopegate, how);
            let (seen, connections) = (upstream.seen().len() - before.0, upstream.connections() - before.1);
            let most = if key == APPS { 200 } else { 1 };
            assert!(
                seen <= most && connections <= most,
                "{how} {key}: {seen} requests, {connections} connections"
            );
        }
    }
}

#[test]
fn no_more_streams_are_open_than_are_allowed() {
    let (go, gone) = channel::<()>();
    let gone = Mutex::new(gone);
    let upstream = Upstream::with(move |exchange| {
        if exchange.request.target == "/health" {
            gone.lock().expect("no panic").recv_timeout(PATIENCE).expect("the test lets it go on");
        }
        exchange.reply("200 OK", "", "hello")
    });
    let scopegate = Setup::new(&upstream).and("limits: { streams: 4 }").start();
    let mut frames = Frames::connect(scopegate.address, &[]);
    let streams: Vec<u8> = (0..8).flat_map(|number| get(2 * number + 1, &health("/health"))).collect();
    frames.send(streams);
    let mut refused = Vec::new();
    while refused.len() < 4 {
        let (kind, _, stream, payload) = frames.next().expect("a frame");
        if kind == RESET {
            assert_eq!(payload, REFUSED_STREAM.to_be_bytes());
            refused.push(stream);
        }
    }
    assert_eq!(refused, [9, 11, 13, 15]);
    (0..4).for_each(|_| go.send(()).expect("the upstream waits"));
    assert_eq!(frames.told(7), Told::Answer(200, "hello".to_owned()));
    frames.send(get(17, &health("/nothing")));
    assert!(matches!(frames.told(17), Told::Answer(404, _)));
}

#[test]
fn windows_that_never_open_hold_little_and_not_for_long() {
    let long = "x".repeat(1 << 20);
    let upstream = Upstream::with(move |exchange| {
        let text = if exchange.request.target == "/health" { &long } else { "hello" };
        exchange.reply("200 OK", "", text)
    });
    let scopegate = Setup::new(&upstream).and("timeouts: { idle: 300ms }").start();
    // Windows of zero bytes, and of one.
    for window in [0, 1] {
        let mut frames = Frames::connect(scopegate.address, &[0, 4, 0, 0, 0, window]);
        let streams: Vec<u8> = (0..100).flat_map(|number| get(2 * number + 1, &health("/health"))).collect();
        frames.send(streams);
        let mut reset = 0;
        while reset < 100 {
            let (kind, ..) = frames.next().expect("a frame");
            reset += u32::from(kind == RESET);
        }
        calm(&scopegate, "windows");
    }
}

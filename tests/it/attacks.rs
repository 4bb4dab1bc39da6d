//! Heads that nobody honest sends over HTTP/1.1: each is refused by name before the upstream hears of it, and where
//! nobody can say where the next request begins, the connection ends.

use std::io::Read as _;

use crate::harness::client::{Answer, Client};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

/// Stands in the same packet behind every case: it is answered where the connection is kept, and never otherwise.
pub(crate) const NEXT: &str = "GET /health?next HTTP/1.1\r\nHost: a\r\n\r\n";

/// A program in front of an upstream that answers everything.
pub(crate) fn gate() -> (Upstream, Scopegate) {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).with("[GET /health]", "[GET /health, GET /]").start();
    (upstream, scopegate)
}

fn shown(bytes: &[u8]) -> String {
    let text = bytes.escape_ascii().to_string();
    if text.len() > 300 { format!("{}… ({} bytes)", &text[..300], bytes.len()) } else { text }
}

/// What these bytes are answered with, the next request behind them in the same packet.
pub(crate) fn ask(scopegate: &Scopegate, bytes: &[u8]) -> (Answer, Client) {
    let mut client = Client::connect(scopegate.address);
    client.send([bytes, NEXT.as_bytes()].concat());
    let answer = client.answer(bytes.trim_ascii_start().starts_with(b"HEAD "));
    (answer, client)
}

/// Refused, and nothing behind it is answered.
pub(crate) fn ends(upstream: &Upstream, scopegate: &Scopegate, bytes: &[u8], told: (u16, &str)) {
    let before = upstream.seen().len();
    let (answer, mut client) = ask(scopegate, bytes);
    let case = shown(bytes);
    assert_eq!((answer.status, answer.reason()), told, "{case}");
    assert_eq!(answer.header("connection"), Some("close"), "{case}");
    assert_eq!(answer.json()["error"]["code"], told.1, "{case}");
    assert!(client.is_closed(), "the connection stays: {case}");
    assert_eq!(upstream.seen().len(), before, "the upstream saw something: {case}");
}

/// Refused, and what follows is the next request.
pub(crate) fn stays(upstream: &Upstream, scopegate: &Scopegate, bytes: &[u8], told: (u16, &str)) {
    let before = upstream.seen().len();
    let (answer, mut client) = ask(scopegate, bytes);
    let case = shown(bytes);
    assert_eq!((answer.status, answer.reason()), told, "{case}");
    assert_eq!(answer.header("connection"), None, "{case}");
    assert_eq!(client.answer(false).status, 200, "the connection ends: {case}");
    let seen: Vec<_> = upstream.seen().drain(before..).map(|seen| seen.target).collect();
    assert_eq!(seen, ["/health?next"], "{case}");
}

/// Passed on, and what follows is the next request: the target that the upstream saw.
pub(crate) fn passes(upstream: &Upstream, scopegate: &Scopegate, bytes: &[u8]) -> String {
    let before = upstream.seen().len();
    let (answer, mut client) = ask(scopegate, bytes);
    let case = shown(bytes);
    assert_eq!((answer.status, answer.reason()), (200, ""), "{case}");
    assert_eq!(client.answer(false).status, 200, "the connection ends: {case}");
    let mut seen = upstream.seen().split_off(before);
    assert_eq!(seen.len(), 2, "{case}: {seen:?}");
    seen.swap_remove(0).target
}

/// A request with this line more.
fn with(line: impl AsRef<[u8]>) -> Vec<u8> {
    [b"GET /health HTTP/1.1\r\nHost: a\r\n", line.as_ref(), b"\r\n\r\n"].concat()
}

#[test]
fn a_request_line_has_three_words_and_one_blank_between_them() {
    let (upstream, scopegate) = gate();
    let cases: [(&[u8], &str); 46] = [
        (b"GET /health", "request_invalid"),
        (b"GET", "request_invalid"),
        (b"GET ", "request_invalid"),
        (b"/health HTTP/1.1", "request_invalid"),
        (b"GET HTTP/1.1", "request_invalid"),
        (b"GET  /health HTTP/1.1", "request_invalid"),
        (b"GET /health  HTTP/1.1", "request_invalid"),
        (b"GET /health HTTP/1.1 ", "request_invalid"),
        (b"GET /health HTTP/1.1\t", "request_invalid"),
        (b" GET /health HTTP/1.1", "request_invalid"),
        (b"\tGET /health HTTP/1.1", "request_invalid"),
        (b"GET\t/health HTTP/1.1", "request_invalid"),
        (b"GET /health\tHTTP/1.1", "request_invalid"),
        (b"GET\x0b/health HTTP/1.1", "request_invalid"),
        (b"GET /health\x0cHTTP/1.1", "request_invalid"),
        (b"GET /hea lth HTTP/1.1", "request_invalid"),
        (b"GET /health HTTP/1.1 HTTP/1.1", "request_invalid"),
        (b"GET /health http/1.1", "request_invalid"),
        (b"GET /health HTTP/1.10", "request_invalid"),
        (b"GET /health HTTP/1.1x", "request_invalid"),
        (b"GET /health HTTP1.1", "request_invalid"),
        (b"GET /health ICE/1.0", "request_invalid"),
        (b"G@T /health HTTP/1.1", "request_invalid"),
        (b"GET: /health HTTP/1.1", "request_invalid"),
        (b"\"GET\" /health HTTP/1.1", "request_invalid"),
        (b"G\0T /health HTTP/1.1", "request_invalid"),
        (b"G\xc3\x89T /health HTTP/1.1", "request_invalid"),
        (b"\0GET /health HTTP/1.1", "request_invalid"),
        (b"GET /health HTTP/0.9", "version_unknown"),
        (b"GET /health HTTP/1.2", "version_unknown"),
        (b"GET /health HTTP/2.0", "version_unknown"),
        (b"GET /health HTTP/3", "version_unknown"),
        (b"GET /health HTTP/9.9", "version_unknown"),
        (b"GET /health HTTP/2", "version_unknown"),
        (b"GET /health HTTP/", "request_invalid"),
        (b"GET /health HTTP/ 1.1", "request_invalid"),
        (b"GET /health HTTP/1.", "request_invalid"),
        (b"GET /health HTTP/11", "request_invalid"),
        (b"GET /health HTTP/1.x", "request_invalid"),
        (b"GET /health HTTP/1,1", "request_invalid"),
        (b"GET /health HTTP/\x001.1", "request_invalid"),
        (b"GET /health HTTP/1.\xff", "request_invalid"),
        (b"GET /health HTTP/12.1", "request_invalid"),
        (b"GET /health HTTP/2.0 ", "request_invalid"),
        (b"\r\nGET /health HTTP/2.0", "version_unknown"),
        (b"PRI * HTTP/2.0", "version_unknown"),
    ];
    for (line, reason) in cases {
        let status = if reason == "version_unknown" { 505 } else { 400 };
        ends(&upstream, &scopegate, &[line, b"\r\nHost: a\r\n\r\n"].concat(), (status, reason));
    }
    // A client may send an empty line too many behind a body (RFC 9112, 2.2), or some.
    let behind = |count: usize| "\r\n".repeat(count) + "GET /health HTTP/1.1\r\nHost: a\r\n\r\n";
    for count in [1, 2, 8] {
        assert_eq!(passes(&upstream, &scopegate, behind(count).as_bytes()), "/health");
    }
    for count in [9, 100_000] {
        ends(&upstream, &scopegate, behind(count).as_bytes(), (400, "request_invalid"));
    }
}

#[test]
fn a_method_that_no_route_has_opens_nothing() {
    let (upstream, scopegate) = gate();
    let long = "M".repeat(10_000);
    for method in ["get", "Get", "TRACE", "TRACK", "PROPFIND", "GETX", "G", "!#$%&'*+-.^_`|~1", &long] {
        for (target, told) in [("/health", (405, "method_unknown")), ("/api/v1/apps", (401, "key_missing"))] {
            let request = format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n");
            stays(&upstream, &scopegate, request.as_bytes(), told);
        }
    }
}

#[test]
fn a_line_ends_in_one_way_only() {
    let (upstream, scopegate) = gate();
    for bytes in [
        "GET /health HTTP/1.1\nHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n\n",
        "GET /health HTTP/1.1\nHost: a\n\n",
        "GET /health HTTP/1.1\r\nHost: a\nX: y\r\n\r\n",
        "\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "\rGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\r\nGET /health HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /health HTTP/1.1\rHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\r\nHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\rX: y\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n\r\r\n",
        "GET /health HTTP/1.1\r\nHost: a\n\rX: y\r\n\r\n",
        "GET /health HTTP/1.1\r\n\rHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n X: y\r\n\r\n",
        "GET /health HTTP/1.1\r\n Host: a\r\n\r\n",
        "GET /health HTTP/1.1\r\n\tX: y\r\nHost: a\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\n \r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nX: y\r\n\tz\r\n\r\n",
        "GET /health HTTP/1.1\r\nHost: a\r\nX:\r\n z\r\n\r\n",
    ] {
        ends(&upstream, &scopegate, bytes.as_bytes(), (400, "request_invalid"));
    }
}

#[test]
fn a_head_that_asks_for_no_body_gets_none_however_bad_it_is() {
    let (_upstream, scopegate) = gate();
    for (bytes, status) in [
        ("HEAD /health HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        ("\r\nHEAD /health HTTP/1.1\r\nHost: a\r\nX : y\r\n\r\n", 400),
        ("HEAD /health HTTP/2.0\r\nHost: a\r\n\r\n", 505),
        ("HEAD * HTTP/1.1\r\nHost: a\r\n\r\n", 400),
        ("HEAD /health HTTP/1.1\r\nHost: a\r\nContent-Length: x\r\n\r\n", 400),
        ("HEAD /health HTTP/1.1\r\nHost: b, a\r\n\r\n", 400),
    ] {
        for cut in [bytes.len(), 3] {
            let mut client = Client::connect(scopegate.address);
            client.send(&bytes[..cut]);
            client.send(&bytes[cut..]);
            assert_eq!(client.answer(true).status, status, "{bytes}");
            client.finish();
            let mut rest = Vec::new();
            client.stream.read_to_end(&mut rest).expect("an end");
            assert!(rest.is_empty(), "{bytes}: {rest:?}");
        }
    }
}

#[test]
fn a_field_has_a_name_and_a_value_that_a_field_may_have() {
    let (upstream, scopegate) = gate();
    let names: [&[u8]; 16] = [
        b"X : y",
        b"X\t: y",
        b": y",
        b" : y",
        b"no colon",
        b"X Y: z",
        b"X(: y",
        b"\"X\": y",
        b"X\xc3\xa9: y",
        b"X\xff: y",
        b"X\x0b: y",
        b"X\x7f: y",
        b"X\0: y",
        b"X;: y",
        b"X/: y",
        b"X@: y",
    ];
    for line in names {
        ends(&upstream, &scopegate, &with(line), (400, "request_invalid"));
    }
    // Every control byte, but the tab, which may stand in a value.
    for byte in (0..b' ').chain([0x7f]).filter(|byte| *byte != b'\t') {
        ends(&upstream, &scopegate, &with([b"X: a", &[byte][..], b"b"].concat()), (400, "request_invalid"));
        let target = [b"GET /hea", &[byte][..], b"lth HTTP/1.1\r\nHost: a\r\n\r\n"].concat();
        ends(&upstream, &scopegate, &target, (400, "request_invalid"));
    }
    let fine: [&[u8]; 5] = [b"X:", b"X: \t y \t", b"X: a\tb", b"X: \xff\x80", b"!#$%&'*+-.^_`|~: y"];
    for line in fine {
        assert_eq!(passes(&upstream, &scopegate, &with(line)), "/health");
    }
}

#[test]
fn a_head_is_as_large_as_it_may_be_and_no_larger() {
    let (upstream, scopegate) = gate();
    let (head, target, fields) = (32 * 1024, 16 * 1024, 100);
    let long = |length: usize| format!("GET /health?{} HTTP/1.1\r\nHost: a\r\n\r\n", "x".repeat(length - 8));
    let many = |count: usize| with("X: y\r\n".repeat(count - 1).trim_end());
    let large = |length: usize| {
        let empty = with("X: ").len();
        with(format!("X: {}", "x".repeat(length - empty)))
    };
    assert_eq!(passes(&upstream, &scopegate, long(target).as_bytes()).len(), target);
    passes(&upstream, &scopegate, &many(fields));
    passes(&upstream, &scopegate, &large(head));
    ends(&upstream, &scopegate, long(target + 1).as_bytes(), (414, "target_too_long"));
    ends(&upstream, &scopegate, long(40 * 1024).as_bytes(), (414, "target_too_long"));
    ends(&upstream, &scopegate, &many(fields + 1), (431, "head_too_large"));
    ends(&upstream, &scopegate, &large(head + 1), (431, "head_too_large"));
    let name = format!("{}: y", "x".repeat(head));
    ends(&upstream, &scopegate, &with(name), (431, "head_too_large"));
}

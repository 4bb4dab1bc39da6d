//! Who is inside on a key behind an endpoint, which tells of no changes.

use std::time::{Duration, Instant};

use crate::harness::client::{Client, request};
use crate::harness::introspection::{KEY, endpoint, form, json, ready, setup};
use crate::harness::scopegate::Scopegate;
use crate::harness::stores::Store as _;
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

#[test]
fn who_lives_on_a_key_that_nobody_can_ask_for_leaves_when_the_answer_is_old() {
    let upstream = streaming();
    let endpoint = endpoint();
    let cache = "fresh: 100ms, stale: 1s, timeout: 300ms";
    let scopegate = setup(&upstream, &endpoint.url(), ", send: key", cache).start();
    ready(&scopegate);
    let mut client = open(&scopegate);
    let began = Instant::now();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
    assert_eq!(rest, b"", "it is cut");
    let lasted = began.elapsed();
    assert!(lasted > Duration::from_millis(800), "{lasted:?}");
    assert_eq!(endpoint.asked(&format!("token={KEY}")), 1);
}

#[test]
fn who_is_inside_stays_while_nobody_can_say_and_leaves_when_somebody_does() {
    let upstream = streaming();
    let mut endpoint = endpoint();
    let cache = "fresh: 50ms, stale: 100ms, timeout: 200ms";
    let scopegate = setup(&upstream, &endpoint.url(), ", retries: 0, failures: 100", cache).start();
    ready(&scopegate);
    let mut client = open(&scopegate);
    let asked = || endpoint.asked(&form(KEY));
    let before = asked();
    endpoint.instead(|exchange| exchange.last(json("500 Oops", "")));
    eventually("three looks", || (asked() > before + 3).then_some(()));
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 1.0);
    endpoint.remove(KEY);
    endpoint.resume();
    let mut rest = Vec::new();
    let _ = std::io::Read::read_to_end(&mut client.stream, &mut rest);
    assert_eq!(rest, b"", "it is cut");
    let line = scopegate.log_line(|line| line["path"] == "/api/v1/apps" && line["bytes_out"] != 0);
    assert!(line.to_string().contains("key_"), "{line}");
}

/// Answers with the first piece of an answer that does not end.
fn streaming() -> Upstream {
    Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = std::io::Read::read(exchange.stream, &mut [0; 64]);
        false
    })
}

/// A request that is inside.
fn open(scopegate: &Scopegate) -> Client {
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/api/v1/apps", &bearer(KEY), ""));
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk().as_deref(), Some(&b"hello"[..]));
    client
}

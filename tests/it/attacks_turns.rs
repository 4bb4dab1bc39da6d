//! Requests one after the other on a connection, and who may send what when.

use crate::attacks::{NEXT, ends, gate};
use crate::attacks_bodies::{POST, mirror};
use crate::harness::client::{Client, request};
use crate::harness::scopegate::{ALL, APPS, MINT, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

#[test]
fn who_ends_in_the_middle_of_a_body_is_told_nothing() {
    let upstream = mirror();
    let scopegate = Setup::new(&upstream).start();
    for body in [
        "Content-Length: 10\r\n\r\nabc",
        "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n",
        "Transfer-Encoding: chunked\r\n\r\n0\r\n",
    ] {
        let mut client = Client::connect(scopegate.address);
        client.send(format!("{POST}{body}"));
        client.finish();
        assert_eq!(client.answer(false).status, 0, "{body}");
    }
    let counted = r#"scopegate_requests_total{method="POST",reason="client_gone",route="/api/v1/webhooks/**",status="4xx",surface="webhooks"}"#;
    let lines = || scopegate.metric(counted);
    eventually("three that have gone", || (lines() == 3.0).then_some(()));
    assert!(upstream.seen().iter().all(|seen| seen.method == "CUT"), "{:?}", upstream.seen());
}

#[test]
fn a_body_is_asked_for_when_it_is_wanted_and_never_before() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let post = |headers: &str| {
        format!("POST /api/v1/call-tokens HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n{headers}\r\n")
    };
    for (key, told) in [
        ("", (401, "key_missing")),
        (&*bearer("x"), (401, "key_unknown")),
        (&*bearer(APPS), (403, "scope_missing")),
    ] {
        // No 100 stands before the refusal, and what follows is a body or a request: nobody knows.
        ends(&upstream, &scopegate, post(&format!("Expect: 100-continue\r\n{key}")).as_bytes(), told);
    }
    for expect in [
        "Expect: x",
        "Expect:",
        "Expect: 100-continue, x",
        "Expect: 100-continue\r\nExpect: 100-continue",
        "Expect: 100",
        "Expect: \"100-continue\"",
    ] {
        ends(
            &upstream,
            &scopegate,
            (post(&format!("{expect}\r\n{}", bearer(ALL))) + "hi").as_bytes(),
            (417, "expectation_unknown"),
        );
    }
    let mut client = Client::connect(scopegate.address);
    client.send(post(&format!("Expect: 100-Continue\r\n{}", bearer(MINT))));
    assert_eq!(client.head().0, 100);
    client.send(format!("hi{NEXT}"));
    assert_eq!((client.answer(false).status, client.answer(false).status), (200, 200));
    let seen = upstream.nth(0);
    assert_eq!((&*seen.body, seen.header("expect")), (&b"hi"[..], None));
    // There is nothing to ask for, or nobody who would hear it.
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(request("GET", "/health", "Expect: 100-continue\r\n", "")).status, 200);
    let mut client = Client::connect(scopegate.address);
    client.send(
        post(&format!("Expect: 100-continue\r\n{}", bearer(MINT))).replace("HTTP/1.1", "HTTP/1.0") + "hi",
    );
    assert_eq!(client.answer(false).status, 200);
}

#[test]
fn each_request_of_a_packet_has_its_own_key_and_its_own_decision() {
    let (upstream, scopegate) = gate();
    let get = |key: &str| request("GET", "/api/v1/apps", key, "");
    let (apps, mint) = (bearer(APPS), bearer(MINT));
    let api_key = format!("X-API-Key: {APPS}\r\n");
    let order = [&*apps, "", &mint, &apps, &api_key, "", "X-API-Key: unknown\r\n"];
    let mut client = Client::connect(scopegate.address);
    client.send(order.map(get).concat());
    let told = order.map(|_| client.answer(false)).map(|answer| (answer.status, answer.reason().to_owned()));
    let wanted = [
        (200, ""),
        (401, "key_missing"),
        (403, "scope_missing"),
        (200, ""),
        (200, ""),
        (401, "key_missing"),
        (401, "key_unknown"),
    ];
    assert_eq!(told, wanted.map(|(status, reason)| (status, reason.to_owned())));
    assert_eq!(upstream.seen().len(), 3);

    // What a refused request carries in its body is a body still.
    let hidden = get(&bearer(ALL));
    let refused = request("POST", "/api/v1/call-tokens", "", &hidden) + &get(&apps);
    let mut client = Client::connect(scopegate.address);
    client.send(refused);
    assert_eq!((client.answer(false).status, client.answer(false).status), (401, 200));
    assert_eq!(upstream.seen().len(), 4);
    assert_eq!(upstream.nth(3).header("authorization"), Some(&*format!("Bearer {APPS}")));
    // Where its end is not known, or far, nothing behind it is read.
    let chunked = format!("Transfer-Encoding: chunked\r\n\r\n{:x}\r\n{hidden}\r\n0\r\n\r\n", hidden.len());
    let far = format!("Content-Length: 1000000\r\n\r\n{hidden}");
    for body in [chunked, far] {
        let bytes = format!("POST /api/v1/call-tokens HTTP/1.1\r\nHost: a\r\n{body}");
        ends(&upstream, &scopegate, bytes.as_bytes(), (401, "key_missing"));
    }
}

#[test]
fn who_says_that_it_is_the_last_request_is_taken_at_its_word() {
    let (upstream, scopegate) = gate();
    for (version, connection, stays) in [
        ("1.1", "close", false),
        ("1.1", "keep-alive, Close", false),
        ("1.1", "close, keep-alive", false),
        ("1.1", "x", true),
        ("1.0", "x", false),
        ("1.0", "close, keep-alive", false),
        ("1.0", "Keep-Alive", true),
    ] {
        let before = upstream.seen().len();
        let mut client = Client::connect(scopegate.address);
        client
            .send(format!("GET /health HTTP/{version}\r\nHost: a\r\nConnection: {connection}\r\n\r\n{NEXT}"));
        assert_eq!(client.answer(false).status, 200);
        assert_eq!(client.head().0, if stays { 200 } else { 0 }, "{version} {connection}");
        assert_eq!(upstream.seen().len() - before, 1 + usize::from(stays), "{version} {connection}");
    }
}

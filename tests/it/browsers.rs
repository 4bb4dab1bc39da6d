//! Pages of other origins: preflights carry no key, and refusals can be read.

use crate::harness::client::{Answer, ask};
use crate::harness::frames::{DATA, END_HEADERS, END_STREAM, Frames, HEADERS, Told, block, frame};
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::Upstream;

const CORS: &str = "cors: { origins: ['https://app.example'], max_age: 5m }";

fn preflight(address: std::net::SocketAddr, target: &str, origin: &str, method: &str) -> Answer {
    let asks = "Access-Control-Request-Headers: content-type,x-api-key\r\nAuthorization: Bearer x\r\nX-API-Key: x\r\nCookie: a=b\r\n";
    let headers = format!("Origin: {origin}\r\nAccess-Control-Request-Method: {method}\r\n{asks}");
    ask(address, "OPTIONS", target, &headers, "")
}

#[test]
fn without_a_section_preflights_of_matched_routes_go_to_the_upstream_without_credentials() {
    let upstream =
        Upstream::with(|exchange| exchange.reply("204 No Content", "Access-Control-Allow-Origin: *\r\n", ""));
    let scopegate = Setup::new(&upstream).start();
    let answer = preflight(scopegate.address, "/api/v1/apps", "https://any.example", "GET");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, Some("*")));
    let seen = upstream.nth(0);
    assert_eq!((&*seen.method, seen.header("access-control-request-method")), ("OPTIONS", Some("GET")));
    assert!(
        ["authorization", "x-api-key", "cookie"].iter().all(|name| seen.header(name).is_none()),
        "{seen:?}"
    );
    for (target, method, status, reason) in [
        ("/api/v1/apps", "DELETE", 401, "key_unknown"),
        ("/api/v1/nothing", "GET", 404, "route_unknown"),
        ("/api/v1/webhooks/../apps", "GET", 400, "path_ambiguous"),
    ] {
        let answer = preflight(scopegate.address, target, "https://any.example", method);
        assert_eq!((answer.status, answer.reason()), (status, reason), "{method} {target}");
    }
    let plain = ask(scopegate.address, "OPTIONS", "/api/v1/apps", "", "");
    assert_eq!(
        (plain.status, plain.reason()),
        (401, "key_missing"),
        "no preflight, so a method like any other"
    );
    assert_eq!(upstream.seen().len(), 1);
}

#[test]
fn what_is_only_dressed_as_a_preflight_asks_for_a_key() {
    let upstream = Upstream::start();
    let route = "      GET /api/v1/apps/**: READ_TEAM_APPS\n";
    let more =
        format!("{route}      OPTIONS /api/v1/own: READ_TEAM_APPS\n      /api/v1/any: READ_TEAM_APPS\n");
    let scopegate = Setup::new(&upstream).with(route, &more).start();
    let asks = "Origin: https://a.example\r\nAccess-Control-Request-Method";
    for (target, lines, body, reason) in [
        // No browser sends a body with one, and a route of its own for OPTIONS is meant.
        ("/api/v1/apps", format!("{asks}: GET\r\n"), "{}", "key_missing"),
        ("/api/v1/own", format!("{asks}: OPTIONS\r\n"), "", "key_missing"),
        ("/api/v1/own", format!("{asks}: GET\r\n"), "", "key_missing"),
        ("/api/v1/any", format!("{asks}: GET\r\n"), "{}", "key_missing"),
        ("/api/v1/any", format!("{asks}: OPTIONS\r\n"), "", ""),
        // What was decided on is what the upstream sees.
        (
            "/api/v1/apps",
            format!("{asks}: GET\r\nConnection: Origin, access-control-request-method\r\n"),
            "",
            "",
        ),
    ] {
        let answer = ask(scopegate.address, "OPTIONS", target, &lines, body);
        assert_eq!(answer.reason(), reason, "{target} {lines}");
    }
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("origin") == Some("https://a.example")), "{seen:?}");
    let asked = |place: usize| seen[place].header("access-control-request-method");
    assert_eq!((asked(0), asked(1)), (Some("OPTIONS"), Some("GET")));
}

/// Node ends a request without a body in a frame of its own.
#[test]
fn a_preflight_of_http2_may_end_late_and_has_no_body_all_the_same() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let fields = [
        (":method", "OPTIONS"),
        (":scheme", "http"),
        (":authority", "a"),
        (":path", "/api/v1/apps"),
        ("origin", "https://a.example"),
        ("access-control-request-method", "GET"),
    ];
    for (body, is_preflight) in [(&b""[..], true), (b"{}", false)] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(frame(HEADERS, END_HEADERS, 1, &block(&fields)));
        frames.send(frame(DATA, END_STREAM, 1, body));
        let told = frames.told(1);
        assert_eq!(matches!(told, Told::Answer(200, _)), is_preflight, "{told:?}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.body.is_empty()));
    let mut frames = Frames::connect(scopegate.address, &[]);
    let fields = [&fields[..], &[("content-length", "2")]].concat();
    frames.send(frame(HEADERS, END_HEADERS, 1, &block(&fields)));
    assert_eq!(frames.begins(1), 401);
}

#[test]
fn with_a_section_they_are_answered_from_it() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and(CORS).start();
    let answer = preflight(scopegate.address, "/api/v1/apps", "https://app.example", "GET");
    assert_eq!((answer.status, answer.reason()), (204, "preflight"));
    for (name, value) in [
        ("access-control-allow-origin", "https://app.example"),
        ("access-control-allow-methods", "GET"),
        ("access-control-allow-headers", "authorization, content-type, x-api-key"),
        ("access-control-max-age", "300"),
        ("vary", "origin"),
    ] {
        assert_eq!(answer.header(name), Some(value), "{name}");
    }
    let other = preflight(scopegate.address, "/api/v1/apps", "https://evil.example", "GET");
    assert_eq!((other.status, other.header("access-control-allow-origin")), (204, None));
    assert!(upstream.seen().is_empty());
    assert_eq!(preflight(scopegate.address, "/api/v1/webhooks/a", "https://app.example", "POST").status, 200);
    assert_eq!(upstream.seen().len(), 1, "an open surface answers for itself");
    let line = scopegate.log_line(|line| line["reason"] == "preflight");
    assert_eq!(line["status"], 204);
}

#[test]
fn a_page_can_read_a_refusal() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and(CORS).with("webrtc: true", "webrtc: false").start();
    let answer = preflight(scopegate.address, "/api/v1/apps", "https://app.example", "GET");
    assert_eq!(
        (answer.status, answer.header("access-control-allow-methods")),
        (204, Some("GET")),
        "the flag is off, and yet"
    );
    for (target, headers) in [
        ("/api/v1/apps", format!("X-API-Key: {ALL}\r\n")),
        ("/api/v1/nothing", String::new()),
        ("/api/v1/a%00b", String::new()),
    ] {
        for (origin, allowed) in
            [("https://app.example", Some("https://app.example")), ("https://evil.example", None)]
        {
            let answer = ask(scopegate.address, "GET", target, &format!("{headers}Origin: {origin}\r\n"), "");
            assert!(answer.status >= 400);
            assert_eq!(answer.header("access-control-allow-origin"), allowed, "{target}");
            assert_eq!(
                answer.header("access-control-expose-headers").is_some(),
                allowed.is_some(),
                "{target}"
            );
        }
    }
    let scopegate = Setup::new(&upstream).and("cors: { origins: '*' }").start();
    let answer = ask(scopegate.address, "GET", "/api/v1/apps", "Origin: https://any.example\r\n", "");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (401, Some("*")));
}

#[test]
fn with_the_flag_off_and_no_section_scopegate_still_answers_and_allows_nothing() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).with("webrtc: true", "webrtc: false").start();
    let answer = preflight(scopegate.address, "/api/v1/apps", "https://app.example", "GET");
    assert_eq!((answer.status, answer.header("access-control-allow-origin")), (204, None));
    assert!(upstream.seen().is_empty());
}

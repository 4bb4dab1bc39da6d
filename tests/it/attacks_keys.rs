//! Keys that are none, names that only we may say, and switches of protocols that nobody offered.

use std::io::Read as _;

use crate::attacks::{NEXT, ends, gate, passes, stays};
use crate::harness::bearer;
use crate::harness::client::{Client, request};
use crate::harness::scopegate::{ALL, APPS, EXPIRED, Setup};
use crate::harness::upstream::{Seen, Upstream};

const SESSION: &str = "/ws/session?sessionId=s&token=t";
/// The handshake of RFC 6455, 1.2.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const ACCEPT: &str = "Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

#[test]
fn what_is_nearly_a_key_is_none() {
    let (upstream, scopegate) = gate();
    let (upper, prefix, long) = (APPS.to_uppercase(), &APPS[..APPS.len() - 1], "x".repeat(10 << 10));
    let (missing, malformed, unknown) = ("key_missing", "key_malformed", "key_unknown");
    let (repeated, conflict) = ("key_repeated", "key_conflict");
    for (lines, reason) in [
        ("", missing),
        (&*format!("Cookie: Authorization=Bearer {APPS}; X-API-Key={APPS}\r\n"), missing),
        (&format!("Authorization: Basic {APPS}\r\n"), missing),
        (&format!("Authorization: Digest {APPS}\r\n"), missing),
        (&format!("Authorization: Bearer={APPS}\r\n"), missing),
        (&format!("Authorization: Bearer:{APPS}\r\n"), missing),
        (&format!("Authorization: Bearer{APPS}\r\n"), missing),
        (&format!("Authorization: \"Bearer\" {APPS}\r\n"), missing),
        (&format!("Authorization: X Bearer {APPS}\r\n"), missing),
        (&format!("Authorization: {APPS}\r\n"), missing),
        (&format!("Authorization: {APPS} Bearer\r\n"), missing),
        (&format!("Proxy-Authorization: Bearer {APPS}\r\n"), missing),
        (&format!("WWW-Authenticate: Bearer {APPS}\r\n"), missing),
        (&format!("X-Authorization: Bearer {APPS}\r\n"), missing),
        (&format!("Authorization2: Bearer {APPS}\r\n"), missing),
        (&format!("X_API_KEY: {APPS}\r\n"), missing),
        (&format!("X-API_KEY: {APPS}\r\n"), missing),
        (&format!("X.Api.Key: {APPS}\r\n"), missing),
        (&format!("X-API-Key2: {APPS}\r\n"), missing),
        (&format!("API-Key: {APPS}\r\n"), missing),
        (&format!("X-API-Key: \r\nX_API_KEY: {APPS}\r\n"), malformed),
        ("Authorization: Bearer\r\n", malformed),
        ("Authorization: Bearer \t \r\n", malformed),
        ("X-API-Key:\r\n", malformed),
        (&format!("X-API-Key: Bearer {APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer {APPS} x\r\n"), malformed),
        (&format!("Authorization: Bearer {APPS}\t{APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer {APPS}, Bearer {APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer {APPS}\u{e9}\r\n"), malformed),
        (&format!("Authorization: Bearer \u{a0}{APPS}\r\n"), malformed),
        (&format!("X-API-Key: \u{feff}{APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer\r\nX-API-Key: {APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer Bearer {APPS}\r\n"), malformed),
        // Who splits at blanks alone reads another scheme here, and who splits at any space this key.
        (&format!("Authorization: Bearer\t{APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer \t{APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer\t {APPS}\r\n"), malformed),
        (&format!("Authorization: Bearer\t{ALL}\r\nX-API-Key: {APPS}\r\n"), malformed),
        (&bearer(prefix), unknown),
        (&bearer(&format!("{APPS}x")), unknown),
        (&bearer(&format!("x{APPS}")), unknown),
        (&bearer(&upper), unknown),
        (&bearer(&APPS[..1]), unknown),
        (&bearer(&format!("\"{APPS}\"")), unknown),
        (&bearer(&format!("{APPS},")), unknown),
        (&bearer(&format!("{APPS}%00")), unknown),
        (&bearer(&APPS.replace('_', "%5f")), unknown),
        (&bearer(&long), unknown),
        (&format!("X-API-Key: {APPS}{long}\r\n"), unknown),
        (&format!("X-API-Key: {APPS},{APPS}\r\n"), unknown),
        (&bearer("id-apps"), unknown),
        (&bearer(EXPIRED), "key_expired"),
        (&format!("{0}{0}", bearer(APPS)), repeated),
        (&format!("{}authorization: Basic x\r\n", bearer(APPS)), repeated),
        (&format!("Authorization: Basic x\r\n{}", bearer(APPS)), repeated),
        (&format!("Authorization:\r\n{}", bearer(APPS)), repeated),
        (&format!("X-API-Key: {APPS}\r\nx-api-key: {APPS}\r\n"), repeated),
        (&format!("{}X-API-Key: {ALL}\r\n", bearer(APPS)), conflict),
        (&format!("{}X-API-Key: unknown\r\n", bearer(APPS)), conflict),
    ] {
        let bytes =
            request("GET", &format!("/api/v1/apps?key={APPS}&api_key={APPS}&access_token={APPS}"), lines, "");
        stays(&upstream, &scopegate, bytes.as_bytes(), (401, reason));
    }
    for lines in [
        format!("X-API-Key: {APPS}\0\r\n"),
        format!("X-API-Key: \0{APPS}\r\n"),
        format!("Authorization: Bearer {APPS}\0x\r\n"),
        format!("X-API-Key: {APPS}\u{b}\r\n"),
        format!("Authorization : Bearer {APPS}\r\n"),
        format!("X: y\r\n Authorization: Bearer {APPS}\r\n"),
    ] {
        ends(
            &upstream,
            &scopegate,
            request("GET", "/api/v1/apps", &lines, "").as_bytes(),
            (400, "request_invalid"),
        );
    }
    // Blanks around a value are not of it (RFC 9110, 5.5), and the name of a scheme has no case.
    for lines in [format!("X-API-Key: \t {APPS} \t\r\n"), format!("AUTHORIZATION:bEaReR  {APPS}\t \r\n")] {
        passes(&upstream, &scopegate, request("GET", "/api/v1/apps", &lines, "").as_bytes());
    }
}

#[test]
fn what_only_we_may_say_is_said_once_and_by_us() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("identity_headers: true").start();
    let forged = [
        "X-Scopegate-Team",
        "x-scopegate-team",
        "X_Scopegate_Team",
        "X.Scopegate.Team",
        "X-Scopegate_Team",
        "X-ScopeGate-Key-Id",
        "X_SCOPEGATE-KEY.ID",
        "X-Scopegate-Scopes",
        "X-Scopegate-Anything",
        "X_API_KEY",
        "X.Api-Key",
        "X-Forwarded-For",
        "X_Forwarded_For",
        "X.Forwarded.For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X_Forwarded_Host",
        "X-Forwarded-Port",
        "X-Forwarded-Prefix",
        "X-Real-IP",
        "X_Real_IP",
        "Forwarded",
        "X-HTTP-Method-Override",
        "X-HTTP-Method",
        "X-Method-Override",
        "X_HTTP_METHOD_OVERRIDE",
        "X-Original-Method",
        "X-Original-Path",
        "X-Original-URI",
        "X-Original-URL",
        "X.Original.URL",
        "X-Override-URL",
        "X-HTTP-Path-Override",
        "X-Rewrite-URI",
        "X-Rewrite-URL",
        "X_Rewrite_URL",
        "X-Forwarded",
        "X-Original-Forwarded-For",
        "X-Original-Host",
        "X-HTTP-Host-Override",
        "X-Host",
        "X-Client-IP",
        "X-Cluster-Client-IP",
        "X-Remote-Addr",
        "Forwarded-For",
        "Client-IP",
        "CLIENT_IP",
        "True-Client-IP",
        "True_Client.IP",
        "CF-Connecting-IP",
        "X-Request-Id",
        "X_Request_Id",
        "Content_Length",
        "Transfer_Encoding",
        "Transfer.Encoding",
        "Keep_Alive",
        "Proxy-Authorization",
        "Proxy-Connection",
        "Keep-Alive",
        "HTTP2-Settings",
        "Upgrade",
        "TE",
    ];
    let lines = |name: &str| format!("{name}: evil\r\n{}: evil\r\n", name.to_ascii_lowercase());
    // As many at once as may be named.
    let named = |names: &[&str]| format!("Connection: {}\r\nConnection: close\r\n", names.join(", "));
    let some = forged.chunks(25).flat_map(|names| {
        let all: String = names.iter().map(|name| lines(name)).collect();
        [all.clone() + &named(names), all]
    });
    let cases: Vec<_> = forged.iter().map(|name| lines(name)).chain(some).collect();
    for lines in cases {
        for target in ["/api/v1/apps", "/health"] {
            let before = upstream.seen().len();
            let mut client = Client::connect(scopegate.address);
            let answer = client.ask(request("GET", target, &format!("{}{lines}", bearer(APPS)), ""));
            assert_eq!(answer.status, 200, "{lines}");
            let seen = upstream.seen().split_off(before);
            let [seen] = &seen[..] else { panic!("{seen:?}") };
            assert!(seen.headers.iter().all(|(_, value)| !value.contains("evil")), "{lines}: {seen:?}");
            assert!(seen.headers.iter().all(|(name, _)| !name.contains(['_', '.'])), "{lines}: {seen:?}");
            let keyed = target.starts_with("/api");
            for (name, value) in [("team", "acme"), ("key-id", "id-apps"), ("scopes", "READ_TEAM_APPS")] {
                assert_eq!(seen.header(&format!("x-scopegate-{name}")), keyed.then_some(value), "{lines}");
            }
            for (name, value) in [
                ("x-forwarded-for", "127.0.0.1"),
                ("x-forwarded-proto", "http"),
                ("x-forwarded-host", "telapi.example"),
                ("host", "telapi.example"),
            ] {
                assert_eq!(seen.header(name), Some(value), "{lines}");
            }
            assert_eq!(seen.header("x-request-id"), answer.header("x-request-id"), "{lines}");
        }
    }
}

#[test]
fn what_would_change_a_request_passes_only_where_there_is_nothing_to_change() {
    let lines = "X-HTTP-Method-Override: DELETE\r\nX-Original-URI: /x\r\nX-Request-Id: theirs\r\n";
    let seen = |private: &str, target: &str| {
        let upstream = Upstream::start();
        let scopegate = Setup::new(&upstream).with("  sdk:\n", &format!("  sdk:\n{private}")).start();
        let answer = Client::connect(scopegate.address).ask(request(
            "GET",
            target,
            &format!("{}{lines}", bearer(APPS)),
            "",
        ));
        assert_eq!(answer.status, 200, "{private} {target}");
        upstream.nth(0)
    };
    for private in ["", "    private: true\n"] {
        let kept = |seen: Seen| {
            ["x-http-method-override", "x-original-uri"].map(|name| seen.header(name).is_some())
                == [true, true]
                && seen.header("x-request-id") == Some("theirs")
        };
        assert!(!kept(seen(private, "/api/v1/apps")), "{private}");
        let none = seen(private, "/api/v1/apps");
        assert!(
            none.headers.iter().all(|(_, value)| !["DELETE", "/x", "theirs"].contains(&&**value)),
            "{none:?}"
        );
        assert!(kept(seen(private, "/api/v1/webhooks/a")), "{private}");
    }
}

#[test]
fn a_preflight_asks_for_one_method() {
    let (upstream, scopegate) = gate();
    let asks = |lines: &str| request("OPTIONS", "/api/v1/apps", lines, "");
    let one = "Origin: https://a.example\r\nAccess-Control-Request-Method: GET\r\n";
    passes(&upstream, &scopegate, asks(one).as_bytes());
    for lines in [
        format!("{one}Access-Control-Request-Method: POST\r\n"),
        format!("{one}Access-Control-Request-Method: GET\r\n"),
        format!("{one}Origin: https://b.example\r\n"),
        one.replace("GET", "GET, POST"),
        one.replace("Origin", "Origins"),
    ] {
        stays(&upstream, &scopegate, asks(&lines).as_bytes(), (401, "key_missing"));
    }
}

#[test]
fn bytes_behind_a_handshake_that_came_to_nothing_are_no_request() {
    let upstream = Upstream::with(|exchange| match exchange.request.header("upgrade") {
        Some(_) => exchange.reply("403 Forbidden", "", "no"),
        None => exchange.reply("200 OK", "", "hello"),
    });
    let scopegate = Setup::new(&upstream).start();
    let handshake = |from: &str, to: &str| HANDSHAKE.replace(from, to);
    for (target, headers, status, reached) in [
        ("/api/v1/apps", handshake("", ""), 401, 0),
        ("/nothing", handshake("", ""), 404, 0),
        (SESSION, handshake("Upgrade: websocket", "Upgrade: h2c"), 426, 0),
        (SESSION, handshake("Upgrade: websocket", "Upgrade: websocketx"), 426, 0),
        (SESSION, handshake("Connection: Upgrade", "Connection: x"), 426, 0),
        (SESSION, handshake("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8"), 426, 0),
        (SESSION, handshake("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 8, 13"), 426, 0),
        (SESSION, handshake("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version: 013"), 426, 0),
        (SESSION, handshake("Sec-WebSocket-Version: 13", "Sec-WebSocket-Version:"), 426, 0),
        (SESSION, handshake("Sec-WebSocket-Version: 13\r\n", ""), 426, 0),
        (SESSION, format!("{HANDSHAKE}Sec-WebSocket-Version: 13\r\n"), 426, 0),
        (SESSION, handshake("Sec-WebSocket-Key", "Sec-WebSocket-Keys"), 400, 0),
        (SESSION, handshake("dGhlIHNhbXBsZSBub25jZQ==", ""), 400, 0),
        (SESSION, handshake("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ"), 400, 0),
        (SESSION, handshake("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZWU="), 400, 0),
        (SESSION, handshake("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25j"), 400, 0),
        (SESSION, handshake("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZ!=="), 400, 0),
        (SESSION, handshake("dGhlIHNhbXBsZSBub25jZQ==", "dGhlIHNhbXBsZSBub25jZQ==, x"), 400, 0),
        // A second key would have its own answer (RFC 6455, 11.3.1).
        (SESSION, format!("{HANDSHAKE}Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"), 400, 0),
        (SESSION, handshake("", ""), 403, 1),
        ("/health", handshake("", ""), 200, 1),
        ("/health", handshake("websocket", "h2c"), 200, 1),
        ("/health", handshake("websocket", "TLS/1.2"), 200, 1),
        ("/health", handshake("websocket", "unknown/1"), 200, 1),
    ] {
        let before = upstream.seen().len();
        let mut client = Client::connect(scopegate.address);
        // What is behind it may come later, too.
        let late = headers.to_ascii_lowercase().contains("upgrade: websocket\r\n");
        client.send(request("GET", target, &headers, "") + if late { "" } else { NEXT });
        let answer = client.answer(false);
        assert_eq!(answer.status, status, "{target} {headers}");
        assert_eq!(answer.header("sec-websocket-version"), (status == 426).then_some("13"), "{answer:?}");
        if late {
            let ends = answer.header("connection").is_some_and(|value| value.ends_with("close"));
            assert!(ends, "{target} {headers}: {answer:?}");
            client.send(NEXT);
        }
        assert!(client.is_closed(), "{target} {headers}");
        let seen = upstream.seen().split_off(before);
        assert_eq!(seen.len(), reached, "{target} {headers}");
        let passed = seen.iter().any(|seen| seen.header("upgrade").is_some());
        assert_eq!(passed, status == 403, "{target} {headers}");
    }
    // Nor is there a tunnel where a handshake asks for more than a GET over HTTP/1.1.
    for head in [
        format!("POST {SESSION} HTTP/1.1"),
        format!("GET {SESSION} HTTP/1.0"),
        format!("OPTIONS {SESSION} HTTP/1.1"),
    ] {
        let mut client = Client::connect(scopegate.address);
        client.send(format!("{head}\r\nHost: a\r\n{HANDSHAKE}\r\n{NEXT}"));
        assert!([405, 426].contains(&client.answer(false).status), "{head}");
        assert!(client.is_closed(), "{head}");
    }
}

#[test]
fn a_switch_that_nobody_asked_for_or_that_does_not_fit_is_none() {
    let switch = "Upgrade: websocket\r\nConnection: Upgrade\r\n";
    let with = |lines: &str| format!("{switch}{lines}");
    let wrong = ACCEPT.replace("s3pP", "S3pP");
    let cases = [
        ("/health", with(ACCEPT)),
        ("/api/v1/webhooks/a", with(ACCEPT)),
        (SESSION, with("")),
        (SESSION, with(&wrong)),
        (SESSION, with("Sec-WebSocket-Accept:\r\n")),
        (SESSION, with(&ACCEPT.replace('=', ""))),
        (SESSION, with(&ACCEPT.to_ascii_lowercase())),
        (SESSION, with(&ACCEPT.replace("=\r\n", "=, x\r\n"))),
        (SESSION, with(&format!("{wrong}{ACCEPT}"))),
        // RFC 6455, 11.3.3: once.
        (SESSION, with(&format!("{ACCEPT}{wrong}"))),
        (SESSION, with(&format!("{ACCEPT}{ACCEPT}"))),
        // RFC 6455, 4.1: it says what it switches to, and that it does.
        (SESSION, ACCEPT.to_owned()),
        (SESSION, format!("Upgrade: websocket\r\n{ACCEPT}")),
        (SESSION, format!("Connection: Upgrade\r\n{ACCEPT}")),
        (SESSION, format!("Upgrade: websocket\r\nConnection: close\r\n{ACCEPT}")),
        (SESSION, format!("Upgrade: h2c\r\nConnection: Upgrade\r\n{ACCEPT}")),
        (SESSION, format!("Upgrade: websocketx\r\nConnection: Upgrade\r\n{ACCEPT}")),
        (SESSION, format!("Upgrade: websocket, h2c\r\nConnection: Upgrade\r\n{ACCEPT}")),
        (SESSION, format!("Upgrade: h2c\r\n{switch}{ACCEPT}")),
    ];
    let cases = cases.into_iter().map(|(target, lines)| ("1.1", target, lines));
    for (version, target, lines) in cases.chain([("1.0", SESSION, with(ACCEPT))]) {
        let answer = format!(
            "HTTP/{version} 101 Switching Protocols\r\n{lines}\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil"
        );
        let upstream = Upstream::with(move |exchange| {
            if exchange.request.target.ends_with("next") {
                return exchange.reply("200 OK", "", "hello");
            }
            exchange.write(&answer);
            // Whatever still comes on this connection was to pass through a tunnel.
            let mut rest = Vec::new();
            let _ = exchange.stream.read_to_end(&mut rest);
            assert!(rest.is_empty(), "{rest:?}");
            false
        });
        let scopegate = Setup::new(&upstream).start();
        let mut client = Client::connect(scopegate.address);
        let answer = client.ask(request("GET", target, HANDSHAKE, ""));
        assert_eq!((answer.status, answer.reason()), (502, "upstream_invalid"), "{target} {lines}");
        assert!(client.is_closed(), "{target} {lines}");
        assert_eq!(Client::connect(scopegate.address).ask(NEXT).text(), "hello", "{target} {lines}");
        assert_eq!(upstream.connections(), 2, "{target} {lines}");
    }
}

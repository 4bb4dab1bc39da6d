//! Listeners that take HTTPS only.

use std::process::Command;

use crate::harness::bearer;
use crate::harness::client::{Client, ask, get, request};
use crate::harness::frames::{Frames, Told, connect};
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::Upstream;

const LISTEN: &str = "listen: [{ address: 127.0.0.1:0 }]";

fn setup(upstream: &Upstream, word: &str) -> Setup {
    let listen = format!("listen: [{{ address: 127.0.0.1:0, https_only: {word} }}]");
    Setup::new(upstream).with(LISTEN, &listen)
}

#[test]
fn what_came_in_plain_is_refused_before_its_key_is_looked_at() {
    let upstream = Upstream::start();
    for (word, trusted) in [("refuse", false), ("refuse", true)] {
        let more = if trusted { "trusted_proxies: [127.0.0.1]" } else { "trusted_proxies: [10.0.0.1]" };
        let scopegate = setup(&upstream, word).and(more).start();
        for (method, target, key) in [
            ("GET", "/health", String::new()),
            ("GET", "/api/v1/apps", bearer(ALL)),
            ("GET", "/api/v1/apps", bearer("sk_live_nobody")),
            ("GET", "/nowhere", String::new()),
            ("POST", "/api/v1/call-tokens", bearer(ALL)),
            (
                "OPTIONS",
                "/api/v1/apps",
                "Origin: https://a\r\nAccess-Control-Request-Method: GET\r\n".to_owned(),
            ),
        ] {
            let answer = ask(scopegate.address, method, target, &key, "");
            assert_eq!((answer.status, answer.reason()), (403, "https_required"), "{method} {target}");
            assert_eq!(answer.json()["error"]["code"], "https_required");
            assert_eq!(answer.header("location"), None);
        }
        let hook = get(scopegate.address, "/api/v1/webhooks/secret-token", "");
        let id = hook.header("x-request-id").expect("an id").to_owned();
        let line = scopegate.log_line(|line| line["id"] == id.as_str());
        assert_eq!((line["reason"].as_str(), line["status"].as_u64()), (Some("https_required"), Some(403)));
        assert!(!scopegate.everything_said().contains("secret-token"));
        // A head that cannot be read is what it is anywhere.
        assert_eq!(Client::connect(scopegate.address).ask("GET / HTTP/1.1\r\n\r\n").status, 400);
        // Probes have a listener of their own, which is asked in plain.
        assert_eq!(scopegate.ask_admin("/readyz").status, 200);
        let counted = r#"scopegate_requests_total{method="GET",reason="https_required",route="none",status="4xx",surface="none"}"#;
        assert_eq!(scopegate.metric(counted), 5.0);
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_trusted_hop_says_how_the_client_came_and_nobody_else_does() {
    let upstream = Upstream::start();
    let trusting = setup(&upstream, "refuse").and("trusted_proxies: [127.0.0.1]").start();
    let strict = setup(&upstream, "refuse").start();
    for (claim, passes) in [
        ("X-Forwarded-Proto: https\r\n", true),
        ("X-Forwarded-Proto: HTTPS\r\nForwarded: for=192.0.2.1;proto=https\r\n", true),
        ("Forwarded: for=\"[2001:db8::1]\";proto=https\r\n", true),
        ("X-Forwarded-Proto: https\r\nConnection: X-Forwarded-Proto\r\n", true),
        ("X-Forwarded-Proto: http\r\n", false),
        ("X-Forwarded-Proto: https, http\r\n", false),
        ("X-Forwarded-Proto: https\r\nX-Forwarded-Proto: http\r\n", false),
        ("X-Forwarded-Proto: https\r\nForwarded: proto=http\r\n", false),
        ("X-Forwarded-Proto: http\r\nForwarded: proto=https\r\n", false),
        ("X_Forwarded_Proto: https\r\n", false),
        ("X-Forwarded-Ssl: on\r\n", false),
        ("Forwarded: for=\"a;proto=https\r\n", false),
    ] {
        let answer = get(trusting.address, "/health", claim);
        assert_eq!(answer.status, if passes { 200 } else { 403 }, "{claim}");
        assert_eq!(get(strict.address, "/health", claim).reason(), "https_required", "{claim}");
    }
    assert_eq!(upstream.seen().len(), 4);
    // An absolute-form target is the client's own word.
    let absolute = "GET https://telapi.example/health HTTP/1.1\r\nHost: telapi.example\r\n\r\n";
    assert_eq!(Client::connect(strict.address).ask(absolute).reason(), "https_required");
}

#[test]
fn a_hop_that_ended_tls_may_say_so_in_its_proxy_header() {
    let upstream = Upstream::start();
    let listen = "listen: [{ address: 127.0.0.1:0, proxy_protocol: required, https_only: refuse }]";
    let setup = Setup::new(&upstream).with(LISTEN, listen).and("trusted_proxies: [127.0.0.1]");
    let scopegate = setup.start();
    let start =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x14\xc0\0\x02\x07\x7f\0\0\x01\x12\x67\0\x50\x20\0\x05".to_vec();
    for (tls, status) in [(1, 200), (0, 403)] {
        let mut client = Client::connect(scopegate.address);
        client.send([&start[..], &[tls, 0, 0, 0, 0]].concat());
        // The client behind it is no trusted hop.
        assert_eq!(client.ask(request("GET", "/health", "X-Forwarded-Proto: https\r\n", "")).status, status);
    }
}

#[test]
fn get_and_head_are_sent_to_the_same_place_over_https() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream, "redirect").start();
    let plain = |head: &str| Client::connect(scopegate.address).ask(head);
    for (target, host, location) in [
        ("/health", "telapi.example", "https://telapi.example/health"),
        ("/health?a=b%20c&d", "telapi.example:8080", "https://telapi.example/health?a=b%20c&d"),
        ("/nowhere/%2e%41?", "TelAPI.example:", "https://TelAPI.example/nowhere/%2e%41?"),
        ("/health", "[::1]:8080", "https://[::1]/health"),
        ("http://telapi.example", "telapi.example", "https://telapi.example/"),
    ] {
        for method in ["GET", "HEAD"] {
            let answer = plain(&format!("{method} {target} HTTP/1.1\r\nHost: {host}\r\n\r\n"));
            assert_eq!((answer.status, answer.reason()), (308, "https_required"), "{method} {target}");
            assert_eq!(answer.header("location"), Some(location));
            assert_eq!(answer.header("cache-control"), Some("no-store"));
        }
    }
    // An upgrade that nobody here takes is an ordinary request without it.
    let answer = get(scopegate.address, "/health", "Connection: Upgrade\r\nUpgrade: h2c\r\n");
    assert_eq!(answer.header("location"), Some("https://telapi.example/health"));
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (method, target, headers) in [
        ("POST", "/api/v1/call-tokens", ""),
        ("OPTIONS", "/health", ""),
        ("GET", "/ws/session?sessionId=1&token=1", handshake),
        // A secret in the path, or a path that might be read as one.
        ("GET", "/api/v1/webhooks/secret", ""),
        ("GET", "/x/../api/v1/webhooks/secret", ""),
        ("GET", "/health?\u{e9}", ""),
    ] {
        let answer = ask(scopegate.address, method, target, headers, "");
        assert_eq!((answer.status, answer.reason()), (403, "https_required"), "{method} {target}");
        assert_eq!(answer.header("location"), None, "{method} {target}");
    }
    // There is no place to send whom to.
    assert_eq!(plain("GET /health HTTP/1.0\r\n\r\n").status, 403);
    for host in ["a b", "evil.example/x", "a\tb", "u@a", ""] {
        let answer = plain(&format!("GET /health HTTP/1.1\r\nHost: {host}\r\n\r\n"));
        assert_eq!((answer.status, answer.header("location")), (400, None), "{host:?}");
    }
    let url = format!("http://{}/health?a", scopegate.address);
    let shown = ["-o", "/dev/null", "-w", "%{http_code} %{redirect_url}", &url];
    let curl = Command::new("curl").args(["-sS", "--http2-prior-knowledge"]).args(shown).output();
    let said = curl.expect("curl").stdout;
    assert_eq!(String::from_utf8_lossy(&said), "308 https://127.0.0.1/health?a");
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(connect(1, "/ws/session?sessionId=1&token=1", &[]));
    let Told::Answer(status, body) = frames.told(1) else { panic!("no answer to a handshake over HTTP/2") };
    assert!(status == 403 && body.contains("https_required"), "{status} {body}");
    assert!(upstream.seen().is_empty());
}

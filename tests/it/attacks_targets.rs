//! Targets, paths and hosts that two servers could read differently: each is refused by name, and what has one reading
//! goes on as it came.

use crate::attacks::{ends, gate, passes, stays};

#[test]
fn a_target_is_a_path_or_an_address_that_equals_host() {
    let (upstream, scopegate) = gate();
    let request =
        |method: &str, target: &str| format!("{method} {target} HTTP/1.1\r\nHost: a\r\n\r\n").into_bytes();
    for (method, target) in [
        ("GET", "/health#x"),
        ("GET", "/health?#"),
        ("GET", "#"),
        ("GET", "http://a#x"),
        ("GET", "*"),
        ("OPTIONS", "*"),
        ("CONNECT", "a:443"),
        ("CONNECT", "a"),
        ("CONNECT", "/health"),
        ("CONNECT", "http://a/health"),
        ("GET", "a:80"),
        ("GET", "a"),
        ("GET", "health"),
        ("GET", "../health"),
        ("GET", "?x"),
        ("GET", "\\health"),
        ("GET", "%2fhealth"),
        ("GET", "ftp://a/health"),
        ("GET", "file:///health"),
        ("GET", "http:/health"),
        ("GET", "http:health"),
        ("GET", "://a/health"),
        ("GET", "xhttp://a/health"),
        ("GET", "javascript:1"),
        ("GET", "/é"),
    ] {
        ends(&upstream, &scopegate, &request(method, target), (400, "target_invalid"));
    }
    for target in [
        "http:///health",
        "http://u@a/health",
        "http://u:p@a/health",
        "http://b/health",
        "http://a:80/health",
        "http://a,b/health",
        "http://a:x/health",
        "http://?x",
        "http://",
        "http://[a/health",
        "https://b/health",
    ] {
        stays(&upstream, &scopegate, &request("GET", target), (400, "target_invalid"));
    }
    let raw: [&[u8]; 2] =
        [b"GET /\xff HTTP/1.1\r\nHost: a\r\n\r\n", b"GET /health?\xc3 HTTP/1.1\r\nHost: a\r\n\r\n"];
    for bytes in raw {
        ends(&upstream, &scopegate, bytes, (400, "request_invalid"));
    }
    for (target, seen) in [
        ("http://a/health", "/health"),
        ("HTTP://A/health?x=%20", "/health?x=%20"),
        ("/health?é", "/health?é"),
        ("https://a/health", "/health"),
        ("http://a", "/"),
        ("http://a?x", "/?x"),
        ("http://a/?x?y", "/?x?y"),
        ("/health?http://b/", "/health?http://b/"),
    ] {
        assert_eq!(passes(&upstream, &scopegate, &request("GET", target)), seen);
    }
}

#[test]
fn a_path_with_two_readings_opens_no_route() {
    let (upstream, scopegate) = gate();
    for path in [
        "//health",
        "//a/health",
        "/./health",
        "/health/..",
        "/x/../health",
        "/%2e%2e/health",
        "/.%2e/health",
        "/health%2f",
        "/%2fhealth",
        "/api%2fv1/apps",
        "/api/v1/webhooks/../apps",
        "/api/v1/webhooks/..%2fapps",
        "/api/v1/webhooks/%2e%2e/apps",
        "/api/v1/webhooks%2fx",
        "/api/v1/webhooks/..%5capps",
        "/api/v1/webhooks\\x",
        "/health%00",
        "/health%0a",
        "/health%0d%0a",
        "/health%7f",
        "/health;x",
        "/health%",
        "/health%4",
        "/health%zz",
        "/health%252f",
        "/health%2525",
        "/health%25%32f",
        "/health%252%66",
        "/health%25%32%66",
        "/api/v1/webhooks/100%25ab",
        "/api/v1/webhooks/%c0%af",
        "/api/v1/webhooks/%ff",
        "/api/v1/call-tokens/",
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stays(&upstream, &scopegate, request.as_bytes(), (400, "path_ambiguous"));
    }
    // What a second decoding would leave alone has one reading.
    for path in [
        "/api/v1/webhooks/100%25",
        "/api/v1/webhooks/100%25%20off",
        "/api/v1/webhooks/50%25percent",
        "/api/v1/webhooks/50%25apples",
        "/api/v1/webhooks/1%252",
        "/api/v1/webhooks/%25%25",
        "/api/v1/webhooks/1%25/2",
    ] {
        assert_eq!(
            passes(&upstream, &scopegate, format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n").as_bytes()),
            path
        );
    }
    for (path, told) in [
        ("/HEALTH", (404, "route_unknown")),
        ("/health/", (404, "route_unknown")),
        ("/Api/v1/apps", (404, "route_unknown")),
        ("/api/v1/webhooksx", (404, "route_unknown")),
        ("/%61pi/v1/apps", (401, "key_missing")),
        ("/api/v1/%61pps", (401, "key_missing")),
    ] {
        let request = format!("GET {path} HTTP/1.1\r\nHost: a\r\n\r\n");
        stays(&upstream, &scopegate, request.as_bytes(), told);
    }
}

#[test]
fn there_is_one_host() {
    let (upstream, scopegate) = gate();
    for hosts in [
        "",
        "Host:\r\n",
        "Host: \t\r\n",
        "Host: a\r\nHost: a\r\n",
        "Host: a\r\nhost: b\r\n",
        "Host: a, b\r\n",
        "Host: a,\r\n",
        "Host: a b\r\n",
        "Host: u@a\r\n",
        "Host: a/b\r\n",
        "Host: a?b\r\n",
        "Host: a#b\r\n",
        "Host: http://a\r\n",
        "Host: a:b\r\n",
        "Host: a:+80\r\n",
        "Host: a:80:80\r\n",
        "Host: a:123456\r\n",
        "Host: a:65536\r\n",
        "Host: a:18446744073709551696\r\n",
        "Host: :80\r\n",
        "Host: .\r\n",
        "Host: ..\r\n",
        "Host: a..b\r\n",
        "Host: .a\r\n",
        "Host: a..\r\n",
        "Host: [::1\r\n",
        "Host: ::1\r\n",
        "Host: [::1]x\r\n",
        "Host: [::1%25lo]\r\n",
        "Host: [a]\r\n",
        "Host: a%41\r\n",
        "Host: a\\b\r\n",
        "Host: \"a\"\r\n",
        "Host: \u{e9}\r\n",
        "Host: a;b\r\n",
    ] {
        // An address in the target takes no Host's place (RFC 9112, 3.2).
        for target in ["/health", "http://a/health"] {
            let request = format!("GET {target} HTTP/1.1\r\n{hosts}\r\n");
            stays(&upstream, &scopegate, request.as_bytes(), (400, "host_invalid"));
        }
    }
    for host in [
        "a",
        "a.example:8080",
        "a:65535",
        "a:00080",
        "a:",
        "1.2.3.4",
        "[::1]",
        "[::1]:8080",
        "[::ffff:1.2.3.4]",
        "a_b",
        "a.",
        "-",
        "~",
    ] {
        let request = format!("GET /health HTTP/1.1\r\nHost:{host} \r\n\r\n");
        passes(&upstream, &scopegate, request.as_bytes());
        let seen =
            upstream.seen().into_iter().rev().find(|seen| seen.target == "/health").expect("a request");
        assert_eq!(seen.header("host"), Some(host));
    }
}

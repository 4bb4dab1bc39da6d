//! Bodies whose end has two readings, and what stands behind an end: one clean length leaves, or nothing does.

use std::io::{BufRead as _, Read as _};

use crate::attacks::{NEXT, ends, gate};
use crate::harness::client::{Client, request};
use crate::harness::eventually;
use crate::harness::scopegate::Setup;
use crate::harness::upstream::{Exchange, Upstream};

pub(crate) const POST: &str = "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\n";

#[test]
fn a_body_ends_in_one_place_or_is_not_taken() {
    let (upstream, scopegate) = gate();
    let (length, coding) = ((400, "request_invalid"), (501, "coding_unknown"));
    for (lines, told) in [
        ("Content-Length: 2\r\nContent-Length: 2", length),
        ("Content-Length: 2\r\nContent-Length: 3", length),
        ("Content-Length: 0\r\nContent-Length: 2", length),
        ("Content-Length: 2\r\ncontent-length: 0", length),
        ("Content-Length: 2, 2", length),
        ("Content-Length: 2, 3", length),
        ("Content-Length: 2,", length),
        ("Content-Length: ,2", length),
        ("Content-Length: +2", length),
        ("Content-Length: -2", length),
        ("Content-Length: -0", length),
        ("Content-Length: 0x2", length),
        ("Content-Length: 2h", length),
        ("Content-Length: two", length),
        ("Content-Length: 2.0", length),
        ("Content-Length: 2e0", length),
        ("Content-Length: 2_0", length),
        ("Content-Length: 2 2", length),
        ("Content-Length: 2;x", length),
        ("Content-Length: \"2\"", length),
        ("Content-Length: \u{ff12}", length),
        ("Content-Length:", length),
        ("Content-Length: 18446744073709551616", length),
        ("Content-Length: 36893488147419103234", length),
        ("Content-Length : 2", length),
        ("Content-Length\t: 2", length),
        (" Content-Length: 2", length),
        ("X: y\r\n Content-Length: 2", length),
        ("Content-Length:\u{b}2", length),
        ("Content-Length: 2\u{c}", length),
        ("Content-Length: \0\u{32}", length),
        ("Content-Length: 2\r\nTransfer-Encoding: chunked", length),
        ("Transfer-Encoding: chunked\r\nContent-Length: 2", length),
        ("Transfer-Encoding: chunked\r\nContent-Length: 0", length),
        ("Transfer-Encoding: x\r\nContent-Length: 2", length),
        ("Transfer-Encoding:\r\nContent-Length: 2", length),
        // Where `chunked` is not the last word, nobody knows the end (RFC 9112, 6.3).
        ("Transfer-Encoding: gzip", length),
        ("Transfer-Encoding: identity", length),
        ("Transfer-Encoding: chunked, gzip", length),
        ("Transfer-Encoding: chunked, identity", length),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: identity", length),
        ("Transfer-Encoding: chunked, chunked", length),
        ("Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked", length),
        ("Transfer-Encoding: chunked,", coding),
        ("Transfer-Encoding: xchunked", length),
        ("Transfer-Encoding: chunkedx", length),
        ("Transfer-Encoding: chunked x", length),
        ("Transfer-Encoding: chunked;q=1", length),
        ("Transfer-Encoding: \"chunked\"", length),
        ("Transfer-Encoding: 'chunked'", length),
        ("Transfer-Encoding:", length),
        ("Transfer-Encoding: gzip, chunked", coding),
        ("Transfer-Encoding: gzip\r\nTransfer-Encoding: chunked", coding),
        ("Transfer-Encoding: identity, chunked", coding),
        ("Transfer-Encoding:\u{b}chunked", length),
        ("Transfer-Encoding: \u{c}chunked", length),
        ("Transfer-Encoding: chunked\u{b}", length),
        ("Transfer-Encoding : chunked", length),
        (" Transfer-Encoding: chunked", length),
        ("Transfer-Encoding\r\n: chunked", length),
        ("X: y\rTransfer-Encoding: chunked", length),
        ("X: y\nTransfer-Encoding: chunked", length),
        ("Transfer-Encoding: chu\u{131}ked", length),
    ] {
        for body in ["hi", "2\r\nhi\r\n0\r\n\r\n", "0\r\n\r\n", ""] {
            ends(&upstream, &scopegate, format!("{POST}{lines}\r\n\r\n{body}").as_bytes(), told);
        }
    }
    // Chunks came with HTTP/1.1 (RFC 9112, 6.1).
    let old = POST.replace("HTTP/1.1", "HTTP/1.0");
    let bytes =
        format!("{old}Connection: keep-alive\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n");
    ends(&upstream, &scopegate, bytes.as_bytes(), length);
    ends(
        &upstream,
        &scopegate,
        format!("{POST}Content-Length: 18446744073709551615\r\n\r\n").as_bytes(),
        (413, "body_too_large"),
    );
}

#[test]
fn every_way_to_say_one_length_leaves_as_one() {
    let (upstream, scopegate) = gate();
    for (lines, body, left) in [
        ("Content-Length: 2", "hi", ("content-length", "2")),
        ("Content-Length:\t2 \t", "hi", ("content-length", "2")),
        ("CONTENT-LENGTH: 0002", "hi", ("content-length", "2")),
        ("Connection: Content-Length\r\nContent-Length: 2", "hi", ("content-length", "2")),
        ("Transfer-Encoding: chunked", "2\r\nhi\r\n0\r\n\r\n", ("transfer-encoding", "chunked")),
        ("Transfer-Encoding:\tCHUNKED ", "2\r\nhi\r\n0\r\n\r\n", ("transfer-encoding", "chunked")),
        (
            "Connection: Transfer-Encoding\r\nTransfer-Encoding: chunked",
            "2\r\nhi\r\n0\r\n\r\n",
            ("transfer-encoding", "chunked"),
        ),
    ] {
        for (method, target) in [
            ("POST", "/api/v1/webhooks/a"),
            ("DELETE", "/api/v1/webhooks/a"),
            ("GET", "/health"),
            ("HEAD", "/health"),
        ] {
            let before = upstream.seen().len();
            let mut client = Client::connect(scopegate.address);
            client.send(format!("{method} {target} HTTP/1.1\r\nHost: a\r\n{lines}\r\n\r\n{body}{NEXT}"));
            assert_eq!(client.answer(method == "HEAD").status, 200, "{method} {lines}");
            assert_eq!(client.answer(false).status, 200, "{method} {lines}");
            let seen = upstream.seen().split_off(before);
            assert_eq!(seen.len(), 2, "{method} {lines}: {seen:?}");
            assert_eq!(seen[0].body, b"hi");
            assert_eq!(seen[1].target, "/health?next");
            for name in ["content-length", "transfer-encoding"] {
                assert_eq!(seen[0].header(name), (name == left.0).then_some(left.1), "{method} {lines}");
            }
        }
    }
}

/// A body in chunks as a strict server reads it, its trailers in one piece; `None` where it is none.
fn chunks(exchange: &mut Exchange<'_>) -> Option<String> {
    let mut trailers = String::new();
    loop {
        let mut line = String::new();
        exchange.stream.read_line(&mut line).ok()?;
        let length = usize::from_str_radix(line.strip_suffix("\r\n")?, 16).ok()?;
        if length == 0 {
            break;
        }
        let mut data = vec![0; length + 2];
        exchange.stream.read_exact(&mut data).ok()?;
        exchange.request.body.extend(data.strip_suffix(b"\r\n")?);
    }
    while !trailers.ends_with("\r\n\r\n") && trailers != "\r\n" {
        (exchange.stream.read_line(&mut trailers).ok()? > 0).then_some(())?;
    }
    Some(trailers)
}

/// Answers with the body and the trailers of a request; one whose body is not whole is noted as `CUT`.
pub(crate) fn mirror() -> Upstream {
    Upstream::with(|exchange| {
        let length =
            exchange.request.header("content-length").map_or(0, |length| length.parse().expect("a length"));
        let read = if exchange.request.header("transfer-encoding").is_some() {
            chunks(exchange)
        } else {
            exchange.read_body();
            (exchange.request.body.len() == length).then(String::new)
        };
        let Some(trailers) = read else {
            "CUT".clone_into(&mut exchange.request.method);
            return false;
        };
        let body = format!("{}|{}", String::from_utf8_lossy(&exchange.request.body), trailers.trim_end());
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
    })
}

#[test]
fn what_is_no_chunk_is_never_the_end_of_a_body() {
    let upstream = mirror();
    let scopegate = Setup::new(&upstream).start();
    let long = "x".repeat(70_000);
    let (extension, zeros) =
        (format!("2;{long}\r\nhi\r\n0\r\n\r\n"), format!("{}2\r\nhi\r\n0\r\n\r\n", "0".repeat(70_000)));
    let (trailer, trailers) =
        (format!("0\r\nX: {long}\r\n\r\n"), format!("0\r\n{}\r\n", "X: y\r\n".repeat(65)));
    let many = [&*trailer, &trailers];
    let cases = [
        "0x2\r\nhi\r\n",
        "+2\r\nhi\r\n",
        "-2\r\nhi\r\n",
        " 2\r\nhi\r\n",
        "\t2\r\nhi\r\n",
        "2 \r\nhi\r\n",
        "2\t\r\nhi\r\n",
        "2 \t\r\nhi\r\n",
        "2 2\r\nhi\r\n",
        "2,2\r\nhi\r\n",
        "2.0\r\nhi\r\n",
        "2_0\r\nhi\r\n",
        "2h\r\nhi\r\n",
        "g\r\n",
        "\r\n",
        ";a\r\n",
        "\n2\r\nhi\r\n",
        "2\nhi\r\n",
        "2\rhi\r\n",
        "2\r\r\nhi\r\n",
        "2\r\nhi\n",
        "2\r\nhi\r",
        "2\r\nhi",
        "2\r\nhi!\r\n",
        "2\r\nhi\r\n\r\n",
        "2\r\nh\r\n",
        "10000000000000000\r\nhi",
        "fffffffffffffffffffffffff\r\nhi",
        "2;a\nb\r\nhi\r\n",
        "2;a\rb\r\nhi\r\n",
        "2;a\0\r\nhi\r\n",
        "2;a\u{7f}\r\nhi\r\n",
        "2;a=\"\r\nhi\"\r\n",
        "0\n\r\n",
        "0\r\n\n",
        "0\r\r\n\r\n",
        "0 \r\n\r\n",
        "0\r\nno colon\r\n\r\n",
        "0\r\nX : y\r\n\r\n",
        "0\r\n: y\r\n\r\n",
        "0\r\n X: y\r\n\r\n",
        "0\r\nX: y\n\r\n",
        "0\r\nX: y\r\n\n",
        "0\r\nX: y\r\n z\r\n\r\n",
        "0\r\nX: \0\r\n\r\n",
        "0\r\nX: a\rb\r\n\r\n",
        &extension,
        &zeros,
        &trailer,
        &trailers,
    ];
    for bad in cases {
        let case = bad[..bad.len().min(40)].escape_debug();
        for first in ["", "2\r\nhi\r\n"] {
            let before = upstream.connections();
            let mut client = Client::connect(scopegate.address);
            client.send(format!("{POST}Transfer-Encoding: chunked\r\n\r\n{first}"));
            if !first.is_empty() {
                // The upstream has the beginning already.
                eventually("a request", || (upstream.connections() > before).then_some(()));
            }
            client.send(format!("{bad}0\r\n\r\n{NEXT}"));
            let answer = client.answer(false);
            let told = if many.contains(&bad) { (431, "head_too_large") } else { (400, "client_invalid") };
            assert_eq!((answer.status, answer.reason()), told, "{case}");
            assert_eq!(answer.header("connection"), Some("close"), "{case}");
            assert!(client.is_closed(), "{case}");
        }
    }
    assert!(upstream.seen().iter().all(|seen| seen.method == "CUT"), "{:?}", upstream.seen());
}

#[test]
fn chunks_are_written_anew() {
    let upstream = mirror();
    let scopegate = Setup::new(&upstream).start();
    for (body, wanted) in [
        ("0\r\n\r\n", "|"),
        ("2\r\nhi\r\n0\r\n\r\n", "hi|"),
        ("1\r\nh\r\n01\r\ni\r\n000\r\n\r\n", "hi|"),
        ("A\r\n0123456789\r\na\r\n0123456789\r\n0\r\n\r\n", "01234567890123456789|"),
        ("00000000000000000000000002\r\nhi\r\n0\r\n\r\n", "hi|"),
        ("2;a\r\nhi\r\n0;b=c\r\n\r\n", "hi|"),
        ("2 ;a\r\nhi\r\n0\t;b=c\r\n\r\n", "hi|"),
        ("2;a=\"b;c \\\" d\"\r\nhi\r\n0\r\n\r\n", "hi|"),
        ("4\r\n\r\n\r\n\r\n0\r\n\r\n", "\r\n\r\n|"),
        ("0\r\nX-Sum: 1\r\n\r\n", "|x-sum: 1"),
        (
            "0\r\nHost: b\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\nConnection: close\r\nTE: trailers\r\n\
             Authorization: Bearer x\r\nX-API-Key: x\r\nX_Api_Key: x\r\nCookie: a=b\r\nX-Scopegate-Team: x\r\n\
             x_scopegate_team: x\r\nX-Forwarded-For: 1.1.1.1\r\nX-Real-IP: 1.1.1.1\r\nForwarded: for=1.1.1.1\r\n\
             X-HTTP-Method-Override: DELETE\r\nX-Original-URL: /\r\nX-Request-Id: x\r\nExpect: 100-continue\r\n\
             Upgrade: h2c\r\nTrailer: x\r\nX-Sum: 1\r\n\r\n",
            "|x-sum: 1",
        ),
        // What is for one connection is not for the next, wherever it stands (RFC 9110, 7.6.1).
        ("0\r\nX-Hop: 1\r\nX-Sum: 1\r\nx-hop: 2\r\n\r\n", "|x-sum: 1"),
    ] {
        let mut client = Client::connect(scopegate.address);
        client.send(format!("{POST}Connection: X-HOP\r\nTransfer-Encoding: chunked\r\n\r\n{body}{NEXT}"));
        let answer = client.answer(false);
        assert_eq!((answer.status, &*answer.text()), (200, wanted), "{body}");
        assert_eq!(client.answer(false).text(), "|", "{body}");
    }
}

#[test]
fn a_trailer_is_announced_only_where_it_may_come() {
    let (upstream, scopegate) = gate();
    let (some, many) = (["X-Sum"; 64].join(","), ["X-Sum"; 65].join(","));
    for (line, left) in [
        ("X-Sum", Some("X-Sum")),
        (&some, Some(&*some)),
        (&many, None),
        ("X-Sum,X-Other", Some("X-Sum,X-Other")),
        ("X-Scopegate-Team", None),
        ("x_scopegate_team, AUTHORIZATION, Content-Length", None),
        ("X-Sum, X-Scopegate-Team, Authorization,, X-Other", Some("X-Sum, X-Other")),
        ("X-Hop, X-Sum", Some("X-Sum")),
    ] {
        let before = upstream.seen().len();
        let head = format!("Connection: X-Hop, Trailer\r\nTrailer: {line}\r\nTransfer-Encoding: chunked\r\n");
        let mut client = Client::connect(scopegate.address);
        client.send(request("POST", "/api/v1/webhooks/a", &head, "") + "0\r\n\r\n");
        assert_eq!(client.answer(false).status, 200, "{line}");
        assert_eq!(upstream.seen().split_off(before)[0].header("trailer"), left, "{line}");
    }
}

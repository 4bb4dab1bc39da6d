//! An upstream that does not speak HTTP well: the client never takes half an answer for a whole one, nor one answer for
//! another, and the connection is not used again.

use std::collections::HashSet;
use std::io::Read as _;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use socket2::SockRef;

use crate::attacks::NEXT;
use crate::harness::client::{Answer, Client};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

/// How an upstream ends a connection after its answer.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Then {
    Waits,
    Closes,
    Resets,
}

/// Answers `next` with what is known of the connection, and everything else with these bytes.
fn evil(bytes: Vec<u8>, then: Then) -> (Upstream, Scopegate) {
    let spoilt: Arc<Mutex<HashSet<SocketAddr>>> = Arc::default();
    let upstream = Upstream::with(move |exchange| {
        let peer = exchange.stream.get_ref().peer_addr().expect("an address");
        let mut spoilt = spoilt.lock().expect("no panic");
        if exchange.request.target.ends_with("next") {
            let told = if spoilt.contains(&peer) { "spoilt" } else { "fine" };
            return exchange.reply("200 OK", "", told);
        }
        spoilt.insert(peer);
        drop(spoilt);
        exchange.write(&bytes);
        if then == Then::Resets {
            // Not before everything has been taken.
            let _ = exchange.stream.get_ref().set_read_timeout(Some(Duration::from_millis(100)));
            let _ = exchange.stream.read(&mut [0]);
            let _ = SockRef::from(exchange.stream.get_ref()).set_linger(Some(Duration::ZERO));
        }
        then == Then::Waits
    });
    let scopegate = Setup::new(&upstream).start();
    (upstream, scopegate)
}

fn ask(client: &mut Client, method: &str, version: &str) -> Answer {
    client.send(format!("{method} /health HTTP/{version}\r\nHost: a\r\n\r\n"));
    client.answer(method == "HEAD")
}

fn next(scopegate: &Scopegate, case: &str) {
    let text = Client::connect(scopegate.address).ask(NEXT).text();
    assert_eq!(text, "fine", "the connection was used again: {case}");
}

#[test]
fn an_answer_with_two_readings_or_none_is_not_passed_on() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let fields = |count: usize| format!("{ok}{}Content-Length: 0\r\n\r\n", "X: y\r\n".repeat(count - 1));
    let mut cases: Vec<Vec<u8>> = [
        "garbage\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n\r\n",
        "<html>\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "HTTP/1.2 200 OK\r\n\r\n",
        "http/1.1 200 OK\r\n\r\n",
        "HTTP/1.1\r\n\r\n",
        "HTTP/1.1 \r\n\r\n",
        "HTTP/1.1 20 OK\r\n\r\n",
        "HTTP/1.1 2000 OK\r\n\r\n",
        "HTTP/1.1 099 x\r\n\r\n",
        "HTTP/1.1 +20 x\r\n\r\n",
        "HTTP/1.1 2x0 OK\r\n\r\n",
        "HTTP/1.1  200 OK\r\n\r\n",
        "\r\nHTTP/1.1 200 OK\r\n\r\n",
        "\nHTTP/1.1 200 OK\r\n\r\n",
        "\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\n\r\nHTTP/1.1 200 OK\r\n\r\n",
    ]
    .map(|text| text.as_bytes().to_vec())
    .to_vec();
    for lines in [
        "X : y",
        "X\t: y",
        ": y",
        "no colon",
        "X: a\0b",
        "X: a\rb",
        "X: y\r\n z",
        " X: y",
        "X\0: y",
        "X Y: z",
        "X: \u{7f}",
        "Content-Length: 2\r\nContent-Length: 3",
        "Content-Length: 2, 3",
        "Content-Length: 2, 2",
        "Content-Length: +2",
        "Content-Length: -2",
        "Content-Length: 0x2",
        "Content-Length: two",
        "Content-Length:",
        "Content-Length: 18446744073709551616",
        "Content-Length : 2",
        "Content-Length: 2\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: chunked\r\nContent-Length: 2",
        "Transfer-Encoding: gzip",
        "Transfer-Encoding: gzip, chunked",
        "Transfer-Encoding: chunked, gzip",
        "Transfer-Encoding: chunked, chunked",
        "Transfer-Encoding: identity",
        "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked",
        "Transfer-Encoding: xchunked",
        "Transfer-Encoding:",
        "Transfer-Encoding:\u{b}chunked",
        // Some read one line where others read two.
        "X: y\nContent-Length: 2",
        "X: y\nSet-Cookie: evil",
    ] {
        cases.push(format!("{ok}{lines}\r\n\r\nhi").into_bytes());
    }
    for text in [
        "HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi".to_owned(),
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nhi".to_owned(),
        "HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n".to_owned(),
        fields(129),
        format!("{ok}X: {}\r\nContent-Length: 0\r\n\r\n", "x".repeat(64 << 10)),
        format!("{ok}{}", "X: y\r\n".repeat(100_000)),
        "x".repeat(1 << 20),
        format!(
            "{}{ok}Content-Length: 0\r\n\r\n",
            "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n".repeat(33)
        ),
        "HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n".to_owned(),
    ] {
        cases.push(text.into_bytes());
    }
    for bytes in cases {
        let case = bytes[..bytes.len().min(120)].escape_ascii().to_string();
        let (_upstream, scopegate) = evil(bytes, Then::Waits);
        let mut client = Client::connect(scopegate.address);
        let answer = ask(&mut client, "GET", "1.1");
        assert_eq!((answer.status, answer.reason()), (502, "upstream_invalid"), "{case}");
        assert!(!answer.text().contains("hi\r\n") && answer.header("set-cookie").is_none(), "{case}");
        assert_eq!(client.ask(NEXT).text(), "fine", "{case}");
    }
    // As much as is allowed.
    let interim = "HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n".repeat(16);
    for text in [
        fields(128),
        format!("{interim}{ok}Content-Length: 0\r\n\r\n"),
        format!("{ok}Content-Length: 2\r\nContent-Length: 2\r\n\r\nhi"),
    ] {
        let (_upstream, scopegate) = evil(text.clone().into_bytes(), Then::Waits);
        assert_eq!(ask(&mut Client::connect(scopegate.address), "GET", "1.1").status, 200, "{text}");
    }
}

#[test]
fn an_answer_that_never_began_says_so() {
    for text in [
        "",
        "H",
        "HTTP/1.1 200 OK\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n",
        "HTTP/1.1 103 Early Hints\r\n\r\n",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP",
    ] {
        let (_upstream, scopegate) = evil(text.as_bytes().to_vec(), Then::Closes);
        let mut client = Client::connect(scopegate.address);
        let answer = ask(&mut client, "GET", "1.1");
        assert_eq!((answer.status, answer.reason()), (502, "upstream_closed"), "{text}");
        assert_eq!(client.ask(NEXT).text(), "fine", "{text}");
    }
}

#[test]
fn a_body_that_was_cut_short_never_looks_whole() {
    let ok = "HTTP/1.1 200 OK\r\n";
    let (length, chunked) =
        (format!("{ok}Content-Length: 10\r\n\r\n"), format!("{ok}Transfer-Encoding: chunked\r\n\r\n"));
    let (close, old) = (format!("{ok}\r\n"), "HTTP/1.0 200 OK\r\n\r\n".to_owned());
    let cases = [
        (format!("{length}half"), Then::Closes),
        (format!("{length}half"), Then::Resets),
        (length, Then::Closes),
        (chunked.clone(), Then::Closes),
        (format!("{chunked}4\r\nhalf\r\n"), Then::Closes),
        (format!("{chunked}4\r\nhalf\r\n"), Then::Resets),
        (format!("{chunked}8\r\nhalf"), Then::Closes),
        (format!("{chunked}4\r\nhalf\r\n0\r\n"), Then::Closes),
        (format!("{chunked}4\r\nhalf\r\n0\r\nX: y\r\n"), Then::Closes),
        (format!("{chunked}4\r\nhalf\r\nzz\r\n"), Then::Waits),
        (format!("{chunked}4\r\nhalf!\r\n0\r\n\r\n"), Then::Waits),
        (format!("{chunked}4\nhalf\r\n0\r\n\r\n"), Then::Waits),
        (format!("{chunked}-4\r\nhalf\r\n0\r\n\r\n"), Then::Waits),
        (format!("{chunked}0x4\r\nhalf\r\n0\r\n\r\n"), Then::Waits),
        (format!("{chunked}10000000000000004\r\nhalf\r\n0\r\n\r\n"), Then::Waits),
        (format!("{chunked}4\r\nhalf\r\n0\r\nno colon\r\n\r\n"), Then::Waits),
        (format!("{chunked}4\r\nhalf\r\n0\r\nX: y\n\r\n"), Then::Waits),
        (format!("{chunked}4;{}\r\nhalf\r\n0\r\n\r\n", "x".repeat(70_000)), Then::Waits),
        (format!("{chunked}4\r\nhalf\r\n0\r\nX: {}\r\n\r\n", "x".repeat(70_000)), Then::Waits),
        (format!("{close}half"), Then::Resets),
        (format!("{old}half"), Then::Resets),
    ];
    for (text, then) in cases {
        let case = text[..text.len().min(120)].escape_debug().to_string();
        let (_upstream, scopegate) = evil(text.into_bytes(), then);
        for version in ["1.1", "1.0", "1.0\r\nConnection: keep-alive"] {
            let mut client = Client::connect(scopegate.address);
            let answer = ask(&mut client, "GET", version);
            assert_eq!(answer.status, 200, "{version} {case}");
            assert!(!answer.whole, "{version} {case}: {answer:?}");
            assert!(client.is_closed(), "{version} {case}");
            next(&scopegate, &case);
        }
    }
    // It may also end where it says that it ends, with the connection.
    for (head, version) in [(&close, "1.1"), (&close, "1.0"), (&old, "1.1"), (&old, "1.0")] {
        let (_upstream, scopegate) = evil(format!("{head}whole").into_bytes(), Then::Closes);
        let answer = ask(&mut Client::connect(scopegate.address), "GET", version);
        assert_eq!((answer.whole, &*answer.text()), (true, "whole"), "{version}");
    }
}

#[test]
fn what_stands_behind_an_answer_is_thrown_away_with_its_connection() {
    let evil_answer = "HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil";
    for (method, text, body) in [
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", "hi"),
        ("GET", "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n", ""),
        ("GET", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", "hi"),
        ("GET", "HTTP/1.1 204 No Content\r\nContent-Length: 2\r\n\r\nhi", ""),
        ("GET", "HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ""),
        ("GET", "HTTP/1.1 304 Not Modified\r\nContent-Length: 2\r\n\r\nhi", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n", ""),
        ("HEAD", "HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\n", ""),
    ] {
        for behind in ["\r\n", "x", evil_answer] {
            let (_upstream, scopegate) = evil(format!("{text}{behind}").into_bytes(), Then::Waits);
            let mut client = Client::connect(scopegate.address);
            let answer = ask(&mut client, method, "1.1");
            assert_eq!((answer.whole, &*answer.text()), (true, body), "{method} {text}");
            // RFC 9110, 8.6: a 204 has no length, and says none.
            assert!(answer.status != 204 || answer.header("content-length").is_none(), "{answer:?}");
            assert_eq!(
                answer.header("transfer-encoding").is_some(),
                text.contains("chunked") && body == "hi"
            );
            assert_eq!(client.ask(NEXT).text(), "fine", "{method} {text}");
            next(&scopegate, text);
        }
    }
}

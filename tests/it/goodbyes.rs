//! How a connection ends whose client has asked for that, in plain and over TLS.

use std::io::{self, ErrorKind, Read, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::harness::certificates::{Authority, ONE, start};
use crate::harness::client::{Client, request};
use crate::harness::eventually;
use crate::harness::handshake::{believer, shake};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

const CLOSE: &str = "Connection: close\r\n";
/// Less than who may still be sending is waited for.
const SOON: Duration = Duration::from_millis(1900);

trait Stream: Read + Write {}
impl<S: Read + Write> Stream for S {}

/// The program, and what connects to it.
type Pair = (Scopegate, Box<dyn Fn(&Scopegate) -> Box<dyn Stream>>);

/// One in plain, and one over TLS, whose end is an error where nobody has said it.
fn both(upstream: &Upstream) -> [Pair; 2] {
    let authority = Authority::new();
    let secured = start(upstream, ONE, |folder| authority.server(&["a.example"]).write(folder, "a"));
    let config = Arc::new(believer(&authority, None, |_| {}));
    let tls = move |scopegate: &Scopegate| -> Box<dyn Stream> {
        Box::new(shake(scopegate.address, "a.example", &config).expect("a handshake"))
    };
    let plain = |scopegate: &Scopegate| -> Box<dyn Stream> {
        Box::new(Client::connect(scopegate.address).stream.into_inner())
    };
    [(Setup::new(upstream).start(), Box::new(plain)), (secured, Box::new(tls))]
}

/// All that comes until the end.
fn ask(stream: &mut dyn Stream, request: &str) -> io::Result<String> {
    stream.write_all(request.as_bytes())?;
    let mut answer = Vec::new();
    stream.read_to_end(&mut answer)?;
    Ok(String::from_utf8_lossy(&answer).into_owned())
}

#[test]
fn who_asks_for_the_end_gets_it_with_the_answer() {
    let upstream = Upstream::with(|exchange| match exchange.request.target.as_str() {
        "/health" => exchange.reply("200 OK", "", "hello"),
        "/api/v1/webhooks/large" => exchange.reply("200 OK", "", &"x".repeat(1 << 20)),
        _ => {
            exchange.read_body();
            exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n")
        }
    });
    for (scopegate, connect) in both(&upstream) {
        for (request, wanted) in [
            (request("GET", "/health", CLOSE, ""), "hello"),
            ("GET /health HTTP/1.0\r\nHost: a\r\n\r\n".to_owned(), "hello"),
            (request("HEAD", "/health", CLOSE, ""), "\r\n\r\n"),
            (request("POST", "/api/v1/webhooks/large", CLOSE, "body"), "xxx"),
            (request("POST", "/api/v1/webhooks/chunked", CLOSE, "body"), "\r\n5\r\nhello\r\n0\r\n\r\n"),
            (request("GET", "/nowhere", CLOSE, ""), ""),
        ] {
            let is_soon = |_| {
                let mut stream = connect(&scopegate);
                let began = Instant::now();
                let answer = ask(&mut *stream, &request).expect("an answer, and an end that was said");
                assert!(answer.starts_with("HTTP/1.1 ") && answer.ends_with(wanted), "{answer}");
                // It has not ended itself.
                eventually("the end", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
                began.elapsed() < SOON
            };
            // A machine may be busy now and then; who lingers does so each time.
            assert!((0..3).any(is_soon), "{request}");
        }
    }
}

#[test]
fn who_goes_on_all_the_same_loses_no_answer() {
    let upstream = Upstream::start();
    for (scopegate, connect) in both(&upstream) {
        let twice = request("GET", "/health", CLOSE, "").repeat(2);
        // It is refused before its body is there.
        let early =
            format!("{}some", request("POST", "/nowhere", "Connection: close\r\nContent-Length: 9\r\n", ""));
        for (request, status) in [(twice, "200"), (early, "404")] {
            let mut stream = connect(&scopegate);
            let answer = ask(&mut *stream, &request).expect("an answer, and an end that was said");
            assert!(answer.starts_with(&format!("HTTP/1.1 {status} ")), "{answer}");
            assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
        }
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn what_was_cut_has_no_goodbye() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        let body = match exchange.request.target.as_str() {
            "/api/v1/webhooks/length" => "Content-Length: 9\r\n\r\nhello",
            _ => "Transfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
        };
        exchange.last(format!("HTTP/1.1 200 OK\r\n{body}"))
    });
    let [_, (scopegate, connect)] = both(&upstream);
    for target in ["/api/v1/webhooks/length", "/api/v1/webhooks/chunked"] {
        for request in [
            request("POST", target, CLOSE, "body"),
            format!("POST {target} HTTP/1.0\r\nHost: a\r\nContent-Length: 4\r\n\r\nbody"),
        ] {
            let told = ask(&mut *connect(&scopegate), &request).expect_err("a cut").kind();
            assert!([ErrorKind::UnexpectedEof, ErrorKind::ConnectionReset].contains(&told), "{told:?}");
        }
    }
}

//! HTTP/2 with prior knowledge towards clients.

use std::convert::Infallible;
use std::process::Command;

use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Request};
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::Frame;
use hyper::client::conn::http2;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::harness::installed;
use crate::harness::scopegate::{ALL, MINT, Scopegate, Setup};
use crate::harness::upstream::Upstream;

/// One answer: status, reason, body and trailers.
pub(crate) type Told = (u16, String, Bytes, Option<HeaderMap>);

pub(crate) fn ask<B>(scopegate: &Scopegate, requests: Vec<Request<B>>) -> Vec<Told>
where
    B: hyper::body::Body<Data = Bytes, Error = Infallible> + Send + Unpin + 'static,
{
    Runtime::new().expect("a runtime").block_on(async {
        let stream = TcpStream::connect(scopegate.address).await.expect("a connection");
        let (mut sender, connection) =
            http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
        tokio::spawn(connection);
        let mut answers = Vec::new();
        // All at once: they share a connection.
        let sent: Vec<_> = requests.into_iter().map(|request| sender.send_request(request)).collect();
        for answer in sent {
            let answer = answer.await.expect("an answer");
            let reason =
                answer.headers().get("scopegate-reason").map_or("", |value| value.to_str().expect("text"));
            let (status, reason) = (answer.status().as_u16(), reason.to_owned());
            let body = answer.into_body().collect().await.expect("a body");
            let trailers = body.trailers().cloned();
            answers.push((status, reason, body.to_bytes(), trailers));
        }
        answers
    })
}

#[test]
fn the_same_decisions_on_streams_of_one_connection() {
    let upstream = Upstream::with(|exchange| {
        let told = format!("{} {}", exchange.request.method, exchange.request.target);
        exchange.reply("200 OK", "", &told)
    });
    let scopegate = Setup::new(&upstream).start();
    let request = |method: &str, path: &str, key: &str, body: &'static str| {
        let request = Request::builder().method(method).uri(format!("http://telapi.example{path}"));
        request.header("x-api-key", key).body(Full::from(body)).expect("a request")
    };
    let answers = ask(
        &scopegate,
        vec![
            request("GET", "/api/v1/apps?x=%20", ALL, ""),
            request("POST", "/api/v1/call-tokens", MINT, "{}"),
            request("GET", "/api/v1/apps", MINT, ""),
            request("GET", "/api/v1/apps", "unknown", ""),
            request("GET", "/api/v1/webhooks/../apps", "", ""),
            request("HEAD", "/api/v1/apps", "unknown", ""),
        ],
    );
    let told: Vec<_> = answers.iter().map(|(status, reason, ..)| (*status, reason.as_str())).collect();
    let wanted = [
        (200, ""),
        (200, ""),
        (403, "scope_missing"),
        (401, "key_unknown"),
        (400, "path_ambiguous"),
        (401, "key_unknown"),
    ];
    assert_eq!(told, wanted);
    assert_eq!(answers[0].2, "GET /api/v1/apps?x=%20");
    let seen = upstream.seen();
    assert_eq!(seen.len(), 2);
    assert!(seen.iter().all(|seen| seen.header("host") == Some("telapi.example")), "{seen:?}");
    let line = scopegate.log_line(|line| line["route"] == "/api/v1/call-tokens");
    assert_eq!(line["version"], "2");
}

#[test]
fn bodies_and_trailers_cross_from_one_http_to_the_other() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        exchange.write("HTTP/1.1 200 OK\r\nTrailer: grpc-status\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\ngrpc-status: 0\r\n\r\n")
    });
    let scopegate = Setup::new(&upstream).start();
    let frames = [
        Frame::data(Bytes::from("hello")),
        Frame::data(Bytes::from(" world")),
        Frame::trailers(HeaderMap::from_iter([(
            "x-sum".parse().expect("a name"),
            "9".parse().expect("a value"),
        )])),
    ];
    let body = StreamBody::new(tokio_stream(frames));
    let request =
        Request::post("http://a/api/v1/webhooks/a").header("te", "trailers").header("trailer", "x-sum");
    let answers = ask(&scopegate, vec![request.body(body).expect("a request")]);
    assert_eq!(answers[0].2, "ok");
    assert_eq!(
        answers[0].3.as_ref().and_then(|trailers| trailers.get("grpc-status")).map(HeaderValue::as_bytes),
        Some(&b"0"[..])
    );
    let seen = upstream.nth(0);
    assert_eq!(seen.body, b"hello world");
    assert_eq!(seen.trailers, [("x-sum".to_owned(), "9".to_owned())]);
}

pub(crate) fn tokio_stream<T: Unpin>(
    items: impl IntoIterator<Item = T>,
) -> impl futures_util::Stream<Item = Result<T, Infallible>> + Unpin {
    futures_util::stream::iter(items.into_iter().map(Ok).collect::<Vec<_>>())
}

/// Clients that are not ours, and what only they would find odd.
#[test]
fn other_clients_are_served() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let target = format!("http://{}/api/v1/apps", scopegate.address);
    let key = format!("x-api-key: {ALL}");
    let run = |program: &str, arguments: &[&str]| {
        installed(program).then(|| {
            let output = Command::new(program).args(arguments).output().expect("a program that runs");
            assert!(output.status.success(), "{program}: {output:?}");
            String::from_utf8_lossy(&output.stdout).into_owned()
        })
    };
    if let Some(told) = run(
        "curl",
        &["-sS", "--http2-prior-knowledge", "-w", " %{http_version} %{http_code}", "-H", &key, &target],
    ) {
        assert_eq!(told, "hello 2 200");
    }
    if let Some(told) = run("nghttp", &["-v", "-n", "-H", &key, &target]) {
        assert!(
            told.contains(":status: 200") && told.contains("SETTINGS_ENABLE_CONNECT_PROTOCOL(0x08):1"),
            "{told}"
        );
    }
    // Many streams at once, for longer than a burst of frames may be.
    if let Some(told) = run("h2load", &["-n", "20000", "-c", "4", "-m", "50", "-H", &key, &target]) {
        assert!(told.contains("20000 succeeded, 0 failed, 0 errored"), "{told}");
    }
}

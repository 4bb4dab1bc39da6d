//! HTTP/2: the fate of one stream is not that of another, nor of its connection.

use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use http_body_util::{BodyExt as _, Empty};
use hyper::body::Incoming;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpStream;
use tokio::runtime::Runtime;

use crate::harness::scopegate::{ALL, Scopegate, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{PATIENCE, eventually};

/// One connection, and the runtime that keeps it.
struct Connection {
    runtime: Runtime,
    sender: SendRequest<Empty<Bytes>>,
}

impl Connection {
    fn open(scopegate: &Scopegate) -> Self {
        let runtime = Runtime::new().expect("a runtime");
        let sender = runtime.block_on(async {
            let stream = TcpStream::connect(scopegate.address).await.expect("a connection");
            let (sender, connection) =
                http2::handshake(TokioExecutor::new(), TokioIo::new(stream)).await.expect("HTTP/2");
            tokio::spawn(connection);
            sender
        });
        Self { runtime, sender }
    }

    /// Sends a GET; what comes of it is for later.
    fn send(&mut self, path: &str) -> impl Future<Output = hyper::Result<Response<Incoming>>> + use<> {
        let request = Request::get(format!("http://telapi.example{path}")).header("x-api-key", ALL);
        self.sender.send_request(request.body(Empty::new()).expect("a request"))
    }

    /// Sends a GET and reads its answer.
    fn get(&mut self, path: &str) -> (u16, String) {
        let answer = self.send(path);
        let read = async {
            let answer = answer.await.expect("an answer");
            let status = answer.status().as_u16();
            let body = answer.into_body().collect().await.expect("a body").to_bytes();
            (status, String::from_utf8_lossy(&body).into_owned())
        };
        let read = self.runtime.block_on(async { tokio::time::timeout(PATIENCE, read).await });
        read.expect("an answer in time")
    }
}

#[test]
fn a_stream_that_is_reset_takes_its_request_with_it_and_no_other() {
    let (tell, heard) = channel::<()>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        if !exchange.request.target.contains("slow") {
            return exchange.reply("200 OK", "", "quick");
        }
        tell.lock().expect("no panic").send(()).expect("the test listens");
        if exchange.request.target.contains("answer") {
            exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nsome of it");
        }
        let _ = std::io::Read::read(exchange.stream, &mut [0]);
        tell.lock().expect("no panic").send(()).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut connection = Connection::open(&scopegate);
    for path in ["/api/v1/apps/slow", "/api/v1/apps/slow/answer"] {
        let slow = connection.send(path);
        let slow = connection.runtime.spawn(async move {
            let answer = slow.await;
            // The answer, if there is one, is held and not read.
            std::future::pending::<()>().await;
            drop(answer);
        });
        heard.recv_timeout(PATIENCE).expect("the request has arrived");
        assert_eq!(connection.get("/api/v1/apps/quick"), (200, "quick".to_owned()), "beside a slow one");
        slow.abort();
        heard.recv_timeout(PATIENCE).unwrap_or_else(|_| panic!("the upstream was not told: {path}"));
        assert_eq!(connection.get("/api/v1/apps/quick"), (200, "quick".to_owned()), "after a reset");
    }
    eventually("an end", || (scopegate.metric("scopegate_requests_in_flight") == 0.0).then_some(()));
    let gone = || scopegate.log_line(|line| line["reason"] == "client_gone" && line["version"] == "2");
    assert_eq!(gone()["route"], "/api/v1/apps/**");
}

#[test]
fn a_stream_that_nobody_reads_holds_up_no_other() {
    const MOST: usize = 64 << 20;
    let (tell, heard) = channel::<usize>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        if !exchange.request.target.contains("large") {
            return exchange.reply("200 OK", "", "quick");
        }
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {MOST}\r\n\r\n"));
        let stream = exchange.stream.get_mut();
        stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
        let mut sent = 0;
        while let Ok(count @ 1..) = std::io::Write::write(stream, &[b'x'; 16_384]) {
            sent += count;
        }
        tell.lock().expect("no panic").send(sent).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut connection = Connection::open(&scopegate);
    let large = connection.send("/api/v1/apps/large");
    let large = connection.runtime.block_on(large).expect("an answer");
    for _ in 0..3 {
        assert_eq!(connection.get("/api/v1/apps/quick"), (200, "quick".to_owned()));
    }
    let sent = heard.recv_timeout(PATIENCE).expect("the upstream stops");
    assert!(sent < MOST / 2, "the upstream could send {sent} bytes that nobody read");
    drop(large);
}

#[test]
fn many_streams_at_once_each_get_their_own_answer() {
    let upstream = Upstream::with(|exchange| {
        let target = exchange.request.target.clone();
        exchange.reply("200 OK", "", &target)
    });
    let scopegate = Setup::new(&upstream).start();
    let mut connection = Connection::open(&scopegate);
    let sent: Vec<_> = (0..150)
        .map(|number| {
            let path = format!("/api/v1/apps/{number}");
            (connection.send(&path), path)
        })
        .collect();
    for (answer, path) in sent {
        let body = async { answer.await.expect("an answer").into_body().collect().await.expect("a body") };
        let body = connection.runtime.block_on(async { tokio::time::timeout(PATIENCE, body).await });
        assert_eq!(body.expect("in time").to_bytes(), path);
    }
}

#[test]
fn a_stream_that_is_under_way_finishes_in_a_drain_and_its_connection_ends_with_it() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let upstream = Upstream::with(move |exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello ");
        released.lock().expect("no panic").recv().expect("the test goes on");
        exchange.write("world")
    });
    let mut scopegate = Setup::new(&upstream).start();
    let mut connection = Connection::open(&scopegate);
    let answer = connection.send("/health");
    let answer = connection.runtime.block_on(answer).expect("an answer");
    scopegate.signal("TERM");
    eventually("a closed listener", || {
        std::net::TcpStream::connect(scopegate.address).is_err().then_some(())
    });
    release.send(()).expect("the upstream waits");
    let body = connection.runtime.block_on(answer.into_body().collect());
    let body = body.unwrap_or_else(|error| panic!("{error:?}\n{}", scopegate.everything_said()));
    assert_eq!(body.to_bytes(), "hello world");
    assert!(scopegate.wait_exit().success());
    let line = scopegate.log_line(|line| line["version"] == "2");
    assert_eq!((&line["reason"], &line["sent"]), (&"passed".into(), &11.into()), "{line}");
    let refused = connection.send("/health");
    assert!(connection.runtime.block_on(refused).is_err(), "the connection has ended with it");
}

#[test]
fn a_reload_is_seen_by_the_next_stream() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream);
    let config = setup.config.clone();
    let scopegate = setup.start();
    let mut connection = Connection::open(&scopegate);
    assert_eq!(connection.get("/api/v1/apps").0, 200);
    scopegate.replace("scopegate.yaml", &config.replace("webrtc: true", "webrtc: false"));
    eventually("the change", || (connection.get("/api/v1/apps").0 == 403).then_some(()));
    // Its limits, too.
    scopegate.replace("scopegate.yaml", &format!("limits: {{ target: 1KiB }}\n{config}"));
    let long = format!("/health?{}", "x".repeat(2_000));
    eventually("the limit", || (connection.get(&long).0 == 414).then_some(()));
}

#[test]
fn what_has_two_readings_is_refused_on_a_stream_too() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut connection = Connection::open(&scopegate);
    let cases = [
        ("GET", "http://a.example/health", Some("b.example"), 400),
        ("GET", "http://a.example/health", Some("a.example"), 200),
        ("GET", "http://a.example/api/v1/webhooks/..%2fapps", None, 400),
        ("GET", "http://a.example//health", None, 400),
        ("CONNECT", "a.example:443", None, 400),
    ];
    for (method, target, host, status) in cases {
        let mut request = Request::builder().method(method).uri(target);
        if let Some(host) = host {
            request = request.header("host", host);
        }
        let answer = connection.sender.send_request(request.body(Empty::new()).expect("a request"));
        let answer = connection.runtime.block_on(answer).expect("an answer");
        assert_eq!(answer.status(), status, "{method} {target} {host:?}");
    }
    assert_eq!(upstream.seen().len(), 1);
}

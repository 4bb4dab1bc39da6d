//! HTTP/2 towards upstreams: what holds over HTTP/1 holds there too.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::{Sender, channel};
use std::time::Duration;

use h2::Reason;
use http::{HeaderMap, HeaderValue, Request};
use tokio::runtime::Runtime;
use tokio::time::sleep;

use crate::harness::client::{Client, ask, get, request};
use crate::harness::http2::{Call, Http2, connect, reset, send};
use crate::harness::scopegate::{ALL, Scopegate, Setup, row};
use crate::harness::{PATIENCE, bearer, eventually, free_port, installed};

/// The configuration of every test, its upstream over HTTP/2; its channel is for others.
pub(crate) fn setup(address: SocketAddr) -> Setup {
    let channel = "  channel:\n    access: open\n    flags: [webrtc]\n    upgrade: websocket\n    routes: ['GET /ws/session?sessionId&token']\n";
    Setup::at(&format!("'{address}', protocol: http2"), &format!("'{address}', protocol: http2"))
        .with(channel, "")
}

/// Says what came.
async fn told(mut call: Call) {
    let (body, trailers) = call.rest().await;
    let (method, length) = (call.head.method.clone(), body.len());
    let mut stream = call.head(200, &[("content-type", "text/plain"), ("keep", "yes")], method == "HEAD");
    if method != "HEAD" {
        send(&mut stream, format!("{method} {length} {}", trailers.len()), false);
        let trailers = [("grpc-status", "0"), ("x-request-id", "forged"), ("set-cookie", "a=b")];
        let trailers =
            trailers.map(|(name, value)| (name.parse().expect("one"), HeaderValue::from_static(value)));
        stream.send_trailers(HeaderMap::from_iter(trailers)).expect("an open stream");
    }
}

#[test]
fn what_passes_is_the_same() {
    let upstream = Http2::with(told);
    let scopegate = setup(upstream.address).start();
    let mut client = Client::connect(scopegate.address);
    let forged = "X-Scopegate-Team: theirs\r\nConnection: X-Mine\r\nX-Mine: 1\r\nTE: trailers\r\nUpgrade: h2c\r\n\
                  X-Forwarded-For: 1.2.3.4\r\nX-Kept: a\r\nCookie: a=b\r\n";
    let chunked = "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: telapi.example\r\nTransfer-Encoding: chunked\r\n\r\n\
                   5\r\nhello\r\n0\r\nX-Sum: 9\r\nHost: forged\r\n\r\n";
    for (sent, body) in [
        (request("GET", "/api/v1/apps/a%20b?x=%20", &(forged.to_owned() + &bearer(ALL)), ""), "GET 0 0"),
        (request("POST", "/api/v1/call-tokens", &bearer(ALL), "{}"), "POST 2 0"),
        (request("POST", "/api/v1/webhooks/a", "", &"x".repeat(300_000)), "POST 300000 0"),
        (chunked.to_owned(), "POST 5 1"),
        (request("HEAD", "/api/v1/apps", &bearer(ALL), ""), ""),
    ] {
        let answer = client.ask(&sent);
        assert_eq!((answer.status, answer.text().as_str(), answer.whole), (200, body, true), "{sent:.80}");
        assert_eq!(answer.header("keep"), Some("yes"));
        let trailers: Vec<_> = answer.trailers.iter().map(|(name, _)| name.as_str()).collect();
        let wanted: &[&str] = if body.is_empty() { &[] } else { &["grpc-status", "set-cookie"] };
        assert_eq!(trailers, wanted, "{sent:.80}");
    }
    let seen = upstream.seen();
    let first = seen.first().expect("a request");
    assert_eq!(first.uri, "http://telapi.example/api/v1/apps/a%20b?x=%20");
    let header = |name: &str| first.headers.get(name).map(HeaderValue::as_bytes);
    for (name, value) in [
        ("te", &b"trailers"[..]),
        ("x-kept", b"a"),
        ("cookie", b"a=b"),
        ("x-forwarded-for", b"127.0.0.1"),
        ("x-forwarded-proto", b"http"),
        ("x-forwarded-host", b"telapi.example"),
        ("authorization", b"Bearer sk_live_all"),
    ] {
        assert_eq!(header(name), Some(value), "{name}");
    }
    for name in ["x-scopegate-team", "x-mine", "host", "connection", "upgrade"] {
        assert_eq!(header(name), None, "{name}");
    }
    assert_eq!(seen[1].headers["content-length"], "2");
    // One for each of two names.
    assert_eq!((upstream.connections(), seen.len()), (2, 5));
    assert_eq!(scopegate.metric("scopegate_upstream_connects_total{upstream=\"telapi\"}"), 1.0);
    let shown = scopegate.ask_admin("/config").json();
    assert_eq!(shown["config"]["upstreams"]["telapi"]["protocol"], "http2");
}

#[test]
fn what_http2_cannot_say_is_refused() {
    let upstream = Http2::with(told);
    let scopegate = setup(upstream.address).start();
    let answer = get(scopegate.address, "/health?a=<b>", "");
    assert_eq!((answer.status, answer.reason()), (400, "target_invalid"));
    assert!(upstream.seen().is_empty());
    assert_eq!(
        scopegate.metric("scopegate_upstream_faults_total{upstream=\"telapi\",reason=\"target_invalid\"}"),
        0.0
    );
}

/// A call both ways at once: the answer begins with what it says first, and the client may be quiet until then.
#[test]
fn both_sides_speak_before_the_answer_begins() {
    let upstream = Http2::with(|mut call: Call| async move {
        let first = call.body.data().await.expect("a piece").expect("whole");
        // What this test is about: neither side says anything, for longer than the client might be silent in a body.
        sleep(Duration::from_millis(900)).await;
        let mut stream = call.head(200, &[("content-type", "application/grpc")], false);
        send(&mut stream, first, false);
        while let Some(Ok(data)) = call.body.data().await {
            send(&mut stream, data, false);
        }
        let status = [("grpc-status".parse().expect("a name"), HeaderValue::from_static("0"))];
        stream.send_trailers(HeaderMap::from_iter(status)).expect("an open stream");
    });
    let scopegate = setup(upstream.address).and("timeouts: { idle: 300ms, first_byte: 5s }").start();
    Runtime::new().expect("a runtime").block_on(async {
        let mut client = connect(scopegate.address).await;
        let request = Request::post("http://telapi.example/api/v1/webhooks/pkg.Service/Call");
        let request = request.header("te", "trailers").body(()).expect("a request");
        let (answer, mut up) = client.send_request(request, false).expect("a stream");
        send(&mut up, "one", false);
        let mut down = answer.await.expect("an answer").into_body();
        for (next, wanted) in [("two", "one"), ("three", "two")] {
            assert_eq!(down.data().await.expect("a piece").expect("whole"), wanted);
            send(&mut up, next, false);
        }
        assert_eq!(down.data().await.expect("a piece").expect("whole"), "three");
        send(&mut up, "", true);
        let trailers = down.trailers().await.expect("an end").expect("trailers");
        assert_eq!(trailers["grpc-status"], "0");
    });
    let line = scopegate.log_line(|line| line["version"] == "2");
    assert_eq!(
        (&line["reason"], &line["received"], &line["sent"]),
        (&"passed".into(), &11.into(), &11.into())
    );
}

/// Tells that a request has come, whose answer begins at the most, and then with which code it is reset.
async fn ends_by_reset(mut call: Call, tell: &Sender<Option<Reason>>) {
    if call.head.uri.path().ends_with("begun") {
        let mut stream = call.head(200, &[], false);
        send(&mut stream, "some of it", false);
        tell.send(None).expect("the test listens");
        tell.send(reset(&mut stream).await).expect("the test listens");
    } else {
        tell.send(None).expect("the test listens");
        tell.send(call.reset().await).expect("the test listens");
    }
}

#[test]
fn who_leaves_resets_a_stream_and_the_connection_stays() {
    let (tell, heard) = channel();
    let upstream = Http2::with(move |mut call: Call| {
        let tell = tell.clone();
        async move {
            if call.head.uri.path().ends_with("quick") {
                return call.reply(200, &[], "quick");
            }
            ends_by_reset(call, &tell).await;
        }
    });
    let scopegate = setup(upstream.address).start();
    for (path, body) in [("wait", ""), ("begun", ""), ("wait", "x"), ("begun", "x")] {
        let mut client = Client::connect(scopegate.address);
        let path = format!("/api/v1/webhooks/{path}");
        // Where there is a body, one byte of it is missing.
        let length = if body.is_empty() { String::new() } else { "Content-Length: 2\r\n".to_owned() };
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\n{length}\r\n{body}"));
        assert_eq!(heard.recv_timeout(PATIENCE).expect("it has come"), None);
        if path.ends_with("begun") {
            assert_eq!(client.head().0, 200);
        }
        drop(client);
        let reason = heard.recv_timeout(PATIENCE).expect("a reset");
        assert_eq!(reason, Some(Reason::CANCEL), "{path} {body}");
        assert_eq!(get(scopegate.address, "/api/v1/webhooks/quick", "").body, b"quick");
    }
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_key_that_dies_takes_its_stream_with_it() {
    let (tell, heard) = channel();
    let upstream = Http2::with(move |call: Call| {
        let tell = tell.clone();
        async move { ends_by_reset(call, &tell).await }
    });
    let mut setup = setup(upstream.address);
    setup.keys += &row("sk_live_victim", "acme", "READ_TEAM_APPS", "");
    let scopegate = setup.start();
    let mut clients = ["/api/v1/apps/begun", "/api/v1/apps/wait"].map(|path| {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", path, &bearer("sk_live_victim"), ""));
        assert_eq!(heard.recv_timeout(PATIENCE).expect("it has come"), None);
        client
    });
    assert_eq!(clients[0].head().0, 200);
    scopegate.edit(
        "keys.yaml",
        "{ id: id-victim, team: acme,",
        "{ id: id-victim, disabled: true, team: acme,",
    );
    for _ in 0..2 {
        assert_eq!(heard.recv_timeout(PATIENCE).expect("a reset"), Some(Reason::CANCEL));
    }
    assert_eq!(clients[1].answer(false).reason(), "key_revoked");
    assert_eq!(scopegate.log_line(|line| line["status"] == 200)["reason"], "key_revoked");
}

#[test]
fn a_client_that_takes_nothing_holds_up_nobody() {
    let upstream = Http2::with(|mut call: Call| async move {
        let mut stream = call.head(200, &[], false);
        if call.head.uri.path().ends_with("large") {
            send(&mut stream, vec![b'x'; 4 << 20], false);
            reset(&mut stream).await;
        } else {
            send(&mut stream, "quick", true);
        }
    });
    let scopegate = setup(upstream.address).start();
    // More than the window that a connection has by itself, many times over.
    let mut stalled: Vec<_> = (0..60)
        .map(|_| {
            let mut client = Client::connect(scopegate.address);
            client.send(request("GET", "/api/v1/webhooks/large", "", ""));
            client
        })
        .collect();
    for client in &mut stalled {
        assert_eq!(client.head().0, 200);
    }
    assert_eq!(get(scopegate.address, "/api/v1/webhooks/quick", "").body, b"quick");
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn another_connection_is_made_where_one_takes_no_more() {
    let upstream = Http2::set(
        |settings| _ = settings.max_concurrent_streams(2),
        |mut call: Call| async move {
            sleep(Duration::from_millis(300)).await;
            call.reply(200, &[], "done");
        },
    );
    let scopegate = setup(upstream.address).start();
    let mut clients: Vec<_> = (0..6)
        .map(|_| {
            let mut client = Client::connect(scopegate.address);
            client.send(request("GET", "/health", "", ""));
            client
        })
        .collect();
    assert!(clients.iter_mut().all(|client| client.answer(false).body == b"done"));
    assert_eq!(upstream.connections(), 3);
    assert_eq!(scopegate.metric("scopegate_upstream_retries_total{upstream=\"telapi\"}"), 0.0);
}

#[test]
fn a_stream_that_is_under_way_finishes_in_a_drain() {
    let (tell, heard) = channel();
    let upstream = Http2::with(move |mut call: Call| {
        let tell = tell.clone();
        async move {
            let mut stream = call.head(200, &[], false);
            send(&mut stream, "hello ", false);
            tell.send(()).expect("the test listens");
            sleep(Duration::from_millis(700)).await;
            send(&mut stream, "world", true);
        }
    });
    let mut scopegate = setup(upstream.address).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/health", "", ""));
    heard.recv_timeout(PATIENCE).expect("the request has come");
    scopegate.signal("TERM");
    assert_eq!(client.answer(false).body, b"hello world");
    assert!(scopegate.wait_exit().success());
}

/// It ends with the test, whatever comes of that.
struct Server(Child);

impl Drop for Server {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

#[test]
fn servers_of_others_are_spoken_to() {
    let there = tempfile::tempdir().expect("a folder");
    let folder = there.path().display();
    let large: Vec<u8> = (0..3_000_000_u32).map(|number| number.to_le_bytes()[1]).collect();
    fs::create_dir_all(there.path().join("api/v1/webhooks")).expect("a folder");
    fs::write(there.path().join("api/v1/webhooks/large"), &large).expect("a file");
    for server in ["nghttpd", "nginx"] {
        let port = free_port();
        let mut command = Command::new(server);
        if server == "nghttpd" {
            command.args(["--no-tls", "--echo-upload", "-d"]).arg(there.path()).arg(port.to_string());
        } else {
            let conf = format!(
                "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}} http {{ access_log off; \
                 client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; \
                 uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; server {{ listen 127.0.0.1:{port} http2; root {folder}; }} }}"
            );
            fs::write(there.path().join("nginx.conf"), conf).expect("a file");
            command.arg("-p").arg(there.path()).arg("-c").arg(there.path().join("nginx.conf"));
        }
        if !installed(server) {
            continue;
        }
        let _server = Server(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("a server"));
        let address = SocketAddr::from(([127, 0, 0, 1], port));
        eventually(server, || TcpStream::connect(address).ok());
        let scopegate = setup(address).start();
        let answer = get(scopegate.address, "/api/v1/webhooks/large", "");
        assert!((answer.status, answer.body == large) == (200, true), "{server}");
        let missing = get(scopegate.address, "/api/v1/webhooks/missing", "");
        assert_eq!((missing.status, missing.reason()), (404, ""), "{server}");
        if server == "nghttpd" {
            let text = "x".repeat(1_000_000);
            let echoed = ask(scopegate.address, "POST", "/api/v1/webhooks/echo", "", &text);
            assert!((echoed.status, echoed.text() == text) == (200, true), "{server}");
        }
        let many = Command::new("h2load")
            .args(["-n", "300", "-c", "3", "-m", "10"])
            .arg(format!("http://{}/api/v1/webhooks/missing", scopegate.address))
            .output();
        let many = String::from_utf8_lossy(&many.expect("h2load, of nghttp2-client").stdout).into_owned();
        assert!(many.contains("300 4xx"), "{server}: {many}");
        assert!(check(&scopegate).is_empty(), "{server}");
    }
}

/// What `check --connect` says is wrong.
pub(crate) fn check(scopegate: &Scopegate) -> String {
    let told = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .args(["check", "--connect"])
        .arg(scopegate.file("scopegate.yaml"))
        .output()
        .expect("the program");
    String::from_utf8_lossy(&told.stderr).into_owned()
}

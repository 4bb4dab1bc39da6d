//! In front of a real Fastify application, with a real service's habits: tests/fastify/app.js plays TelAPI.

use std::io::{BufRead as _, BufReader, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::process::{Child, ChildStdin, Command, Stdio};

use serde_json::{Value, json};
use tungstenite::protocol::WebSocket;
use tungstenite::{Error, HandshakeError, Message};

use crate::harness::client::{Client, ask, get, request};
use crate::harness::scopegate::{ALL, APPS, MINT, NONE, READ, Setup};
use crate::harness::{bearer, eventually};

const JSON: &str = "Content-Type: application/json\r\n";
/// What Fastify takes of a body, unless it is told otherwise.
const BODY_LIMIT: usize = 1024 * 1024;

/// The application; it ends when its standard input does, however this process ends.
struct Fastify {
    node: Child,
    input: Option<ChildStdin>,
    telapi: String,
    webhooks: String,
}

impl Fastify {
    /// `None`, said out loud, where it is not wanted.
    fn start() -> Option<Self> {
        if std::env::var("SCOPEGATE_TESTS").as_deref() != Ok("full") {
            // Not println, which nobody sees of a test that passes.
            let skipped = "skipped: this test needs Node and Fastify, which tests/run installs";
            writeln!(std::io::stderr(), "{skipped}").expect("standard error");
            return None;
        }
        let mut node = Command::new("node")
            .arg("app.js")
            .current_dir(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fastify"))
            // READ is a key that scopegate knows and TelAPI does not.
            .env("TELAPI_KEYS", [ALL, MINT, APPS, NONE].join(" "))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("node");
        let mut line = String::new();
        BufReader::new(node.stdout.take().expect("a pipe")).read_line(&mut line).expect("a line");
        let ports: Value = serde_json::from_str(&line).expect("the ports, or see what node said");
        let at = |name: &str| format!("127.0.0.1:{}", ports[name]);
        Some(Self { input: node.stdin.take(), telapi: at("telapi"), webhooks: at("webhooks"), node })
    }

    fn setup(&self) -> Setup {
        Setup::at(&self.telapi, &self.webhooks)
    }
}

impl Drop for Fastify {
    fn drop(&mut self) {
        self.input = None;
        // It ends by itself now; where it does not, the test must end all the same.
        let _ = self.node.wait();
    }
}

/// A session's id and token, minted through scopegate.
fn session(address: SocketAddr) -> String {
    let body = json!({ "endpointId": "ep_01", "mode": "text" }).to_string();
    let answer = ask(address, "POST", "/api/v1/sessions/token", &(bearer(MINT) + JSON), &body);
    assert_eq!(answer.status, 200, "{}", answer.text());
    let minted = answer.json();
    let text = |name: &str| minted[name].as_str().expect("a text").to_owned();
    format!("/ws/session?sessionId={}&token={}", text("sessionId"), text("wsToken"))
}

/// Opens a channel as a WebSocket library does, or says how that was refused.
fn channel(address: SocketAddr, target: &str) -> Result<WebSocket<TcpStream>, u16> {
    let stream = TcpStream::connect(address).expect("a connection");
    match tungstenite::client(format!("ws://{address}{target}"), stream) {
        Ok((socket, _)) => Ok(socket),
        Err(HandshakeError::Failure(Error::Http(answer))) => Err(answer.status().as_u16()),
        Err(other) => panic!("{other}"),
    }
}

fn next_json(socket: &mut WebSocket<TcpStream>) -> Value {
    let message = socket.read().expect("a message").into_text().expect("a text");
    serde_json::from_str(&message).expect("JSON")
}

/// What the answer says of itself: its status, and whose refusal it is.
fn said(address: SocketAddr, method: &str, target: &str, key: &str, body: &str) -> (u16, String) {
    let answer = ask(address, method, target, &(bearer(key) + JSON), body);
    if answer.status < 400 {
        return (answer.status, String::new());
    }
    let whose = if answer.reason().is_empty() { "telapi" } else { "scopegate" };
    let code = &answer.json()["error"]["code"];
    assert_eq!(answer.json()["error"]["requestId"].as_str(), answer.header("x-request-id"), "{answer:?}");
    (answer.status, format!("{whose}: {}", code.as_str().unwrap_or_default()))
}

#[test]
fn mint_and_read() {
    let Some(fastify) = Fastify::start() else { return };
    let scopegate = fastify.setup().start();
    let mut client = Client::connect(scopegate.address);
    for (headers, endpoint) in [(bearer(MINT), "ep_01"), (format!("X-API-Key: {ALL}\r\n"), "ep_ü")] {
        let body = json!({ "endpointId": endpoint }).to_string();
        let answer = client.ask(request("POST", "/api/v1/call-tokens", &(headers + JSON), &body));
        assert_eq!((answer.status, answer.reason()), (201, ""), "{}", answer.text());
        let minted = answer.json();
        assert_eq!(minted["endpointId"], endpoint);
        let target = format!("/api/v1/call-tokens/{}", minted["token"].as_str().expect("a token"));
        let read = client.ask(request("GET", &target, &bearer(ALL), ""));
        assert_eq!((read.status, read.json()), (200, minted));
    }
    let address = scopegate.address;
    for (method, target, key, body, status, by) in [
        ("GET", "/api/v1/apps", APPS, "", 200, ""),
        ("HEAD", "/api/v1/apps", APPS, "", 200, ""),
        ("GET", "/api/v1/runtime/capabilities?endpointId=ep_01", MINT, "", 200, ""),
        ("GET", "/api/v1/call-tokens/none", ALL, "", 404, "telapi: NOT_FOUND"),
        ("GET", "/api/v1/apps/none", APPS, "", 404, "telapi: NOT_FOUND"),
        ("GET", "/api/v1/call-tokens/none", READ, "", 401, "telapi: INVALID_API_KEY"),
        ("GET", "/api/v1/apps", "sk_live_unknown", "", 401, "scopegate: key_unknown"),
        ("GET", "/api/v1/apps", MINT, "", 403, "scopegate: scope_missing"),
        ("GET", "/api/v1/apps", NONE, "", 403, "scopegate: scope_missing"),
        ("POST", "/api/v1/call-tokens", APPS, "{}", 403, "scopegate: scope_missing"),
        ("DELETE", "/api/v1/call-tokens", ALL, "", 405, "scopegate: method_unknown"),
        ("GET", "/documentation", ALL, "", 404, "scopegate: route_unknown"),
    ] {
        assert_eq!(
            said(address, method, target, key, body),
            (status, by.to_owned()),
            "{method} {target} {key}"
        );
    }
    let keyless = get(address, "/api/v1/apps", "");
    assert_eq!((keyless.status, keyless.reason()), (401, "key_missing"));
    // An upstream's answer is nobody's to put in another form: this is Fastify's own.
    let answer = ask(address, "POST", "/api/v1/call-tokens", &(bearer(MINT) + JSON), "{}");
    assert_eq!((answer.status, &answer.json()["error"]), (400, &"Bad Request".into()));
}

#[test]
fn a_flag_that_is_off_closes_the_sdk_and_nothing_else() {
    let Some(fastify) = Fastify::start() else { return };
    let scopegate = fastify.setup().with("webrtc: true", "webrtc: false").start();
    let minted = said(scopegate.address, "POST", "/api/v1/call-tokens", MINT, "{}");
    assert_eq!(minted, (403, "scopegate: flag_off".to_owned()));
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    assert_eq!(ask(scopegate.address, "POST", "/api/v1/webhooks/llm", "", "").status, 202);
    let mut socket = channel(scopegate.address, "/ws/session?sessionId=a&token=b").expect("a channel");
    assert_eq!(next_json(&mut socket)["error"]["code"], "flag_off");
    let Message::Close(Some(frame)) = socket.read().expect("a close") else { panic!("a close with a code") };
    assert_eq!(u16::from(frame.code), 4003);
}

#[test]
fn a_webhook_arrives_as_it_came() {
    let Some(fastify) = Fastify::start() else { return };
    let scopegate = fastify.setup().start();
    let (target, headers) = ("/api/v1/webhooks/llm/tok%2Fen?a=1&&b", "Content-Type: application/x-odd\r\n");
    for length in [0, 1, 100_000, BODY_LIMIT] {
        let body = "ü".repeat(length / 2) + &"x".repeat(length % 2);
        let answer = ask(scopegate.address, "POST", target, &(bearer("of-the-callback") + headers), &body);
        assert_eq!(answer.status, 202, "{}", answer.text());
        let wanted = json!({ "path": target, "bytes": length, "authorization": "Bearer of-the-callback" });
        assert_eq!(answer.json(), wanted);
    }
    // Fastify answers without reading on, and its answer gets through.
    let mut client = Client::connect(scopegate.address);
    client.send(format!(
        "POST {target} HTTP/1.1\r\nHost: a\r\n{headers}Content-Length: {}\r\n\r\n",
        BODY_LIMIT + 1
    ));
    assert_eq!(client.answer(false).status, 413);
}

#[test]
fn a_channel_lives_as_long_as_both_want() {
    let Some(fastify) = Fastify::start() else { return };
    let scopegate = fastify.setup().start();
    let target = session(scopegate.address);
    let mut socket = channel(scopegate.address, &target).expect("a channel");
    let status = next_json(&mut socket);
    assert_eq!((&status["type"], &status["status"]["state"]), (&"status".into(), &"connected".into()));
    for message in
        [Message::text("hello"), Message::text("ü".repeat(40_000)), Message::binary(vec![7; 70_000])]
    {
        socket.send(message.clone()).expect("an open channel");
        assert_eq!(socket.read().expect("an echo"), message);
    }
    // A ping of the protocol is answered by the real other side.
    socket.send(Message::Ping(vec![1, 2].into())).expect("an open channel");
    assert_eq!(socket.read().expect("a pong"), Message::Pong(vec![1, 2].into()));
    socket.send(Message::text("bye")).expect("an open channel");
    let Message::Close(Some(frame)) = socket.read().expect("a close") else { panic!("a close with a code") };
    assert_eq!((u16::from(frame.code), frame.reason.as_str()), (4000, "opened elsewhere"));
    assert!(socket.read().is_err(), "and then the end");
    let line = scopegate.log_line(|line| line["status"] == 101);
    assert_eq!(line["surface"], "channel");
}

/// @fastify/websocket answers a refused handshake with `Connection: keep-alive`, and serves nobody else on that
/// connection: by its version and the moment, whoever is given it next waits in vain or is cut off.
#[test]
fn a_refused_handshake_does_no_harm_to_those_who_follow() {
    let Some(fastify) = Fastify::start() else { return };
    let scopegate = fastify.setup().start();
    let target = session(scopegate.address);
    let mut client = Client::connect(scopegate.address);
    for turn in 0..5 {
        let wrong = channel(scopegate.address, &format!("/ws/session?sessionId={turn}&token=wrong"));
        assert_eq!(wrong.err(), Some(401), "TelAPI's own answer");
        // What cannot be sent twice comes first: a GET that fails on an old connection gets a new one.
        assert_eq!(
            said(scopegate.address, "POST", "/api/v1/call-tokens", MINT, r#"{"endpointId":"e"}"#).0,
            201
        );
        for _ in 0..3 {
            assert_eq!(client.ask(request("GET", "/api/v1/apps", &bearer(APPS), "")).status, 200);
            assert_eq!(get(scopegate.address, "/health", "").status, 200);
        }
    }
    let mut socket = channel(scopegate.address, &target).expect("the right token still opens");
    assert_eq!(next_json(&mut socket)["status"]["state"], "connected");
}

/// With libraries that are not ours, the messages compressed between the two ends.
#[test]
fn a_channel_over_http2_is_the_same_channel() {
    let Some(fastify) = Fastify::start() else { return };
    let scopegate = fastify.setup().start();
    let (target, long) = (session(scopegate.address), "ü".repeat(40_000));
    let told = over_http2(scopegate.address, &target, &["hello", &long, "bye"]);
    let field = |name: &str| told["fields"][name].as_str();
    assert_eq!(told["status"], 200, "{told}");
    for none in ["sec-websocket-accept", "upgrade", "connection"] {
        assert_eq!(field(none), None);
    }
    assert!(field("x-request-id").is_some(), "{told}");
    let messages = told["messages"].as_array().expect("messages");
    assert!(messages[0].as_str().is_some_and(|text| text.contains("connected")), "{told}");
    assert_eq!(messages[1..], [json!("hello"), json!(long)]);
    assert_eq!((&told["close"], &told["end"]), (&json!([4000, "opened elsewhere"]), &"stream".into()));
    let line = scopegate.log_line(|line| line["surface"] == "channel");
    assert_eq!((&line["status"], &line["version"]), (&200.into(), &"2".into()));

    let wrong = over_http2(scopegate.address, "/ws/session?sessionId=a&token=wrong", &[]);
    assert_eq!((&wrong["status"], &wrong["end"]), (&401.into(), &"stream".into()), "TelAPI's own answer");
    scopegate.edit("scopegate.yaml", "webrtc: true", "webrtc: false");
    eventually("the change", || (scopegate.metric("scopegate_config_generation") == 2.0).then_some(()));
    let off = over_http2(scopegate.address, &target, &[]);
    assert!(off["messages"][0].as_str().is_some_and(|text| text.contains("flag_off")), "{off}");
    assert_eq!((&off["close"][0], &off["end"]), (&4003.into(), &"stream".into()), "{off}");
}

/// What `tests/clients/websocket_http2.py` is told.
fn over_http2(address: SocketAddr, target: &str, messages: &[&str]) -> Value {
    let script = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/clients/websocket_http2.py");
    let (host, port) = (address.ip().to_string(), address.port().to_string());
    let output = Command::new("python3").args([script, &host, &port, target]).args(messages).output();
    let output = output.expect("python3");
    let said = String::from_utf8_lossy(&output.stderr);
    serde_json::from_slice(&output.stdout).unwrap_or_else(|error| panic!("{error}: {said}"))
}

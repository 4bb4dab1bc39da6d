//! WebSocket channels: tunnelled while they may be, and told why when they may not.

use std::net::{SocketAddr, TcpStream};

use serde_json::Value;
use tungstenite::handshake::derive_accept_key;
use tungstenite::protocol::frame::coding::CloseCode;
use tungstenite::protocol::{CloseFrame, Role};
use tungstenite::{Message, WebSocket};

use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{PATIENCE, eventually};

const SESSION: &str = "/ws/session?sessionId=s%201&token=t";
/// The handshake of RFC 6455, 1.2.
const HANDSHAKE: &str = "Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nOrigin: https://app.example\r\n";
const ACCEPT: &str = "s3pPLMBiTxaQ9kYGzzhZRbK+xOo=";

/// A service that answers each text with itself; `close` is answered with 4042, `cut` with a hang-up.
pub(crate) fn echo() -> Upstream {
    Upstream::with(|exchange| {
        if exchange.request.header("upgrade").is_none() {
            return exchange.reply("200 OK", "", "hello");
        }
        accept(exchange);
        let stream = exchange.stream.get_ref().try_clone().expect("a socket");
        let mut socket = WebSocket::from_raw_socket(stream, Role::Server, None);
        while let Ok(message) = socket.read() {
            let answered = match message {
                Message::Text(text) if text.as_str() == "close" => {
                    socket.close(Some(CloseFrame { code: CloseCode::from(4042), reason: "as asked".into() }))
                }
                Message::Text(text) if text.as_str() == "cut" => return false,
                Message::Close(_) => Ok(()),
                other => socket.send(other),
            };
            if answered.is_err() {
                return false;
            }
        }
        false
    })
}

fn accept(exchange: &mut Exchange<'_>) {
    let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: ";
    let key = exchange.request.header("sec-websocket-key").expect("a key").to_owned();
    exchange.write(format!("{answer}{}\r\n\r\n", derive_accept_key(key.as_bytes())));
}

fn connect(address: SocketAddr, target: &str) -> WebSocket<TcpStream> {
    let mut client = Client::connect(address);
    client.send(request("GET", target, HANDSHAKE, ""));
    let (status, headers) = client.head();
    assert_eq!(status, 101, "{headers:?}");
    let accept = headers.iter().find(|(name, _)| name == "sec-websocket-accept");
    assert_eq!(accept.map(|(_, value)| value.as_str()), Some(ACCEPT));
    let buffered = client.stream.buffer().to_vec();
    WebSocket::from_partially_read(client.stream.into_inner(), buffered, Role::Client, None)
}

fn say(socket: &mut WebSocket<TcpStream>, text: &str) {
    socket.send(Message::text(text)).expect("an open channel");
}

/// The code and reason of the close that comes next.
fn closed(socket: &mut WebSocket<TcpStream>) -> (u16, String) {
    match socket.read().expect("a close before the end") {
        Message::Close(Some(frame)) => (frame.code.into(), frame.reason.to_string()),
        other => panic!("{other:?}"),
    }
}

fn assert_open(socket: &mut WebSocket<TcpStream>, text: &str) {
    say(socket, text);
    assert_eq!(socket.read().expect("an echo"), Message::text(text));
}

#[test]
fn frames_and_close_codes_pass_unchanged_both_ways() {
    let upstream = echo();
    let scopegate = Setup::new(&upstream).start();
    let mut socket = connect(scopegate.address, SESSION);
    // It is counted once the 101 has gone.
    eventually("an open tunnel", || (scopegate.metric("scopegate_tunnels") == 1.0).then_some(()));
    let long = "x".repeat(200_000);
    for text in ["hello", "", long.as_str()] {
        assert_open(&mut socket, text);
    }
    say(&mut socket, "close");
    assert_eq!(closed(&mut socket), (4042, "as asked".to_owned()));
    assert!(socket.read().is_err(), "and then the end");
    let seen = upstream.nth(0);
    assert_eq!((&*seen.target, seen.header("origin")), (SESSION, Some("https://app.example")));
    assert_eq!((seen.header("upgrade"), seen.header("connection")), (Some("websocket"), Some("Upgrade")));
    let line = scopegate.log_line(|line| line["status"] == 101);
    assert_eq!((&line["reason"], &line["route"]), (&"passed".into(), &"/ws/session".into()));
    assert!(line["sent"].as_u64().is_some_and(|sent| sent > 200_000), "{line}");
    assert_eq!(scopegate.metric("scopegate_tunnels"), 0.0);
    assert_eq!(scopegate.metric("scopegate_tunnels_opened_total"), 1.0);

    let mut socket = connect(scopegate.address, SESSION);
    say(&mut socket, "cut");
    assert!(socket.read().is_err(), "an end without a close stays one");
}

#[test]
fn a_half_that_is_closed_leaves_the_other_open() {
    let upstream = Upstream::with(|exchange| {
        accept(exchange);
        let mut bytes = Vec::new();
        std::io::Read::read_to_end(exchange.stream, &mut bytes).expect("an end");
        exchange.last(bytes)
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", SESSION, HANDSHAKE, ""));
    assert_eq!(client.head().0, 101);
    client.send([0x82, 0x80, 0, 0, 0, 0]);
    client.finish();
    let mut back = Vec::new();
    std::io::Read::read_to_end(&mut client.stream, &mut back).expect("an end");
    assert_eq!(back, [0x82, 0x80, 0, 0, 0, 0]);
}

fn refused(scopegate: &Scopegate, target: &str) -> (Value, u16) {
    let mut socket = connect(scopegate.address, target);
    let Message::Text(text) = socket.read().expect("a message") else { panic!("a text comes first") };
    let (code, _) = closed(&mut socket);
    assert!(socket.read().is_err(), "and then the end");
    (serde_json::from_str(&text).expect("JSON"), code)
}

#[test]
fn a_final_refusal_is_told_in_the_channel() {
    let upstream = echo();
    let scopegate = Setup::new(&upstream).with("webrtc: true", "webrtc: false").start();
    let (message, code) = refused(&scopegate, SESSION);
    assert_eq!(code, 4003);
    assert_eq!(message["type"], "error");
    assert_eq!(message["sessionId"], "s 1");
    assert_eq!(message["direction"], "to_browser");
    assert_eq!(message["error"]["code"], "flag_off");
    assert!(message["timestamp"].as_u64().is_some_and(|ms| ms > 1_700_000_000_000), "{message}");
    assert!(message["error"]["message"].as_str().is_some_and(|text| !text.is_empty()), "{message}");
    let line = scopegate.log_line(|line| line["reason"] == "flag_off");
    assert_eq!((&line["status"], &line["id"]), (&101.into(), &message["messageId"]));
    assert!(upstream.seen().is_empty());
}

#[test]
fn a_channel_without_its_query_is_refused_for_good() {
    let upstream = echo();
    let scopegate = Setup::new(&upstream).start();
    for target in
        ["/ws/session", "/ws/session?sessionId=a", "/ws/session?sessionId=a&token=", "/ws/session?token=b"]
    {
        let (message, code) = refused(&scopegate, target);
        assert_eq!((code, &message["error"]["code"]), (4003, &"query_missing".into()), "{target}");
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn code_words_and_form_of_a_refusal_are_the_operators() {
    let upstream = echo();
    let setup = Setup::new(&upstream).with("webrtc: true", "webrtc: false");
    let close = "upgrade: websocket\n    refusal: { code: 4099, message: 'Calls are \"off\".' }";
    let scopegate = setup.with("upgrade: websocket", close).start();
    let (message, code) = refused(&scopegate, SESSION);
    assert_eq!((code, &message["error"]["message"]), (4099, &"Calls are \"off\".".into()));

    let setup = Setup::new(&upstream).with("webrtc: true", "webrtc: false");
    let scopegate = setup.with("upgrade: websocket", "upgrade: websocket\n    refusal: { as: http }").start();
    let answer = get(scopegate.address, SESSION, HANDSHAKE);
    assert_eq!((answer.status, answer.reason()), (403, "flag_off"));
}

#[test]
fn an_outage_is_no_final_refusal() {
    let nobody =
        std::net::TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("an address");
    let scopegate = Setup::at(&nobody.to_string(), &nobody.to_string()).start();
    let answer = get(scopegate.address, SESSION, HANDSHAKE);
    assert_eq!((answer.status, answer.reason()), (502, "upstream_refused"));
}

#[test]
fn a_connection_whose_upgrade_was_refused_is_not_used_again() {
    let upstream = Upstream::with(|exchange| {
        if exchange.request.header("upgrade").is_some() {
            // It says that it goes on, and never reads again.
            exchange.reply("401 Unauthorized", "Connection: keep-alive\r\n", "no");
            let _ = std::io::Read::read(exchange.stream, &mut [0]);
            return false;
        }
        exchange.reply("200 OK", "", "hello")
    });
    let scopegate = Setup::new(&upstream).start();
    for _ in 0..3 {
        let answer = get(scopegate.address, SESSION, HANDSHAKE);
        assert_eq!((answer.status, answer.reason(), answer.text().as_str()), (401, "", "no"));
        assert_eq!(get(scopegate.address, "/health", "").text(), "hello");
    }
}

#[test]
fn a_switch_that_does_not_fit_the_handshake_is_a_fault() {
    let upstream = Upstream::with(|exchange| {
        let answer = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: AAAA\r\n\r\n";
        exchange.write(answer)
    });
    let scopegate = Setup::new(&upstream).start();
    let answer = get(scopegate.address, SESSION, HANDSHAKE);
    assert_eq!((answer.status, answer.reason()), (502, "upstream_invalid"));
}

#[test]
fn open_channels_are_closed_for_good_when_their_flag_is_turned_off() {
    let upstream = echo();
    let scopegate = Setup::new(&upstream).start();
    let mut socket = connect(scopegate.address, SESSION);
    assert_open(&mut socket, "before");
    scopegate.edit("scopegate.yaml", "apiAccess: true", "apiAccess: false");
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") == 2.0).then_some(()));
    assert_open(&mut socket, "a flag of another surface");
    scopegate.edit("scopegate.yaml", "webrtc: true", "webrtc: false");
    let Message::Text(text) = socket.read().expect("a message") else { panic!("a text comes first") };
    assert!(text.contains("flag_off"), "{text}");
    assert_eq!(closed(&mut socket).0, 4003);

    let setup = Setup::new(&upstream).with("upgrade: websocket", "upgrade: websocket\n    on_flag_off: keep");
    let scopegate = setup.start();
    let mut socket = connect(scopegate.address, SESSION);
    scopegate.edit("scopegate.yaml", "webrtc: true", "webrtc: false");
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") == 2.0).then_some(()));
    assert_open(&mut socket, "kept");
}

#[test]
fn a_drain_closes_channels_with_1001_between_frames_and_ends_cleanly() {
    let upstream = echo();
    let mut scopegate = Setup::new(&upstream).with("grace: 5s", "grace: 3s").start();
    let mut sockets: Vec<_> = (0..8).map(|_| connect(scopegate.address, SESSION)).collect();
    for socket in &mut sockets {
        assert_open(socket, "before");
    }
    scopegate.signal("TERM");
    let closing = sockets.into_iter().map(|mut socket| {
        std::thread::spawn(move || {
            socket.get_mut().set_read_timeout(Some(PATIENCE)).expect("a timeout");
            assert_eq!(closed(&mut socket).0, 1001);
            // Answers the close, as a browser does.
            let _ = socket.flush();
            std::time::Instant::now()
        })
    });
    let closing: Vec<_> = closing.collect();
    let mut times: Vec<_> = closing.into_iter().map(|closing| closing.join().expect("a close")).collect();
    times.sort_unstable();
    let spread = times.last().expect("eight").duration_since(times[0]);
    assert!(spread.as_millis() > 100, "eight clients come back within {spread:?}");
    assert_eq!(scopegate.wait_exit().code(), Some(0));
    let line = scopegate.log_line(|line| line["detail"] == "closed by scopegate with 1001");
    assert_eq!(line["status"], 101);
}

//! A WebSocket over HTTP/2 (RFC 8441): decided as the handshake of HTTP/1.1 is, and bridged to one.

use std::io::{Read as _, Write as _};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc::channel;
use std::time::Duration;

use tungstenite::handshake::derive_accept_key;

use crate::harness::frames::{
    DATA, END_HEADERS, END_STREAM, Frames, HEADERS, RESET, SETTINGS, Told, WINDOW, block, connect, frame, get,
};
use crate::harness::scopegate::{ALL, MINT, Scopegate, Setup};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{PATIENCE, eventually};

pub(crate) const SESSION: &str = "/ws/session?sessionId=s%201&token=t";
const PROTOCOL_ERROR: u32 = 1;
pub(crate) const CANCEL: u32 = 8;

/// Completes the handshake.
fn accept(exchange: &mut Exchange<'_>) {
    let key = exchange.request.header("sec-websocket-key").expect("a handshake").to_owned();
    exchange.write(format!(
        "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: {}\r\n\r\n",
        derive_accept_key(key.as_bytes())
    ));
}

/// Sends back every byte until the other side has ended.
pub(crate) fn echo(exchange: &mut Exchange<'_>) -> bool {
    if exchange.request.header("upgrade").is_none() {
        return exchange.reply("200 OK", "", "hello");
    }
    accept(exchange);
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = exchange.stream.read(&mut bytes) {
        if exchange.stream.get_mut().write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    false
}

pub(crate) fn open(scopegate: &Scopegate, settings: &[u8]) -> Frames {
    let mut frames = Frames::connect(scopegate.address, settings);
    frames.send(connect(1, SESSION, &[]));
    assert_eq!(frames.begins(1), 200);
    frames
}

pub(crate) fn say(frames: &mut Frames, bytes: &[u8]) {
    frames.send(frame(DATA, 0, 1, bytes));
}

pub(crate) fn assert_open(frames: &mut Frames, bytes: impl AsRef<[u8]>) {
    say(frames, bytes.as_ref());
    assert_eq!(frames.body(1, bytes.as_ref().len()), bytes.as_ref());
}

pub(crate) fn health() -> [(&'static str, &'static str); 4] {
    [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", "/health")]
}

/// The text of a server and the close behind it, as its frames have them.
pub(crate) fn told(frames: &mut Frames) -> (serde_json::Value, u16) {
    let length = match frames.body(1, 2)[..] {
        [0x81, 126] => u16::from_be_bytes(frames.body(1, 2).try_into().expect("two bytes")).into(),
        [0x81, length @ ..126] => usize::from(length),
        ref other => panic!("no text: {other:x?}"),
    };
    let text = frames.body(1, length);
    let close = frames.body(1, 4);
    assert_eq!(close[..2], [0x88, 2]);
    (serde_json::from_slice(&text).expect("JSON"), u16::from_be_bytes([close[2], close[3]]))
}

/// Answers the close as a browser does, and sees the stream end.
pub(crate) fn part(frames: &mut Frames, code: u16) {
    say(frames, &[&[0x88, 0x82, 0, 0, 0, 0][..], &code.to_be_bytes()].concat());
    assert_eq!(frames.told(1), Told::Answer(200, String::new()), "a clean end");
}

#[test]
fn a_channel_is_a_stream_beside_others() {
    let upstream = Upstream::with(echo);
    let scopegate = Setup::new(&upstream).start();
    let mut frames = Frames::connect(scopegate.address, &[]);
    let more = [
        ("sec-websocket-protocol", "chat.v1, chat.v2"),
        ("sec-websocket-extensions", "permessage-deflate"),
        ("origin", "https://app.example"),
        // It has no place here, and must not be the one that the upstream answers.
        ("sec-websocket-key", "dGhlIHNhbXBsZSBub25jZQ=="),
        ("x-scopegate-team", "forged"),
    ];
    // What is sent before the answer is not lost.
    frames.send([connect(1, SESSION, &more), frame(DATA, 0, 1, b"early")].concat());
    assert_eq!(frames.begins(1), 200);
    assert_eq!(frames.body(1, 5), b"early");
    eventually("an open tunnel", || (scopegate.metric("scopegate_tunnels") == 1.0).then_some(()));
    for (text, beside) in [("one", 3), ("two", 5), (&*"x".repeat(16_000), 7)] {
        assert_open(&mut frames, text);
        frames.send(get(beside, &health()));
        assert_eq!(frames.told(beside), Told::Answer(200, "hello".to_owned()));
    }
    let seen = upstream.nth(0);
    assert_eq!((&*seen.method, &*seen.target), ("GET", SESSION));
    for (name, value) in [
        ("host", "telapi.example"),
        ("upgrade", "websocket"),
        ("connection", "Upgrade"),
        ("sec-websocket-version", "13"),
        ("x-forwarded-host", "telapi.example"),
    ]
    .iter()
    .chain(&more[..3])
    {
        assert_eq!(seen.header(name), Some(*value), "{name}");
    }
    assert_eq!(seen.header("x-scopegate-team"), None);
    let key = seen.header("sec-websocket-key").expect("a key");
    assert!(key.len() == 24 && key != more[3].1, "{key}");
    // The end of one side is told to the other, and the other way round.
    frames.send(frame(DATA, END_STREAM, 1, b"last"));
    assert_eq!(frames.told(1), Told::Answer(200, "last".to_owned()));
    let line = scopegate.log_line(|line| line["surface"] == "channel");
    assert_eq!((&line["reason"], &line["version"]), (&"passed".into(), &"2".into()), "{line}");
    assert_eq!((&line["status"], &line["method"]), (&200.into(), &"GET".into()), "{line}");
    assert_eq!((&line["received"], &line["sent"]), (&16_015.into(), &16_015.into()), "{line}");
    assert_eq!(scopegate.metric("scopegate_tunnels"), 0.0);
    assert_eq!(scopegate.metric("scopegate_tunnels_opened_total"), 1.0);
}

#[test]
fn it_is_decided_as_a_handshake_is() {
    let upstream = Upstream::with(echo);
    let surface = "surfaces:\n  keyed: { access: key, upgrade: websocket, routes: { GET /ws/keyed: READ_TEAM_APPS } }\n  \
                   posted: { access: open, routes: [POST /posted] }";
    let scopegate = Setup::new(&upstream).with("surfaces:", surface).start();
    let keyed = |key| vec![("x-api-key", key)];
    for (path, more, status, reason) in [
        ("/health", vec![], 400, "target_invalid"),
        ("/api/v1/apps", vec![], 400, "target_invalid"),
        ("/api/v1/apps", keyed(ALL), 400, "target_invalid"),
        ("/api/v1/webhooks/a", vec![], 400, "target_invalid"),
        ("/nothing", vec![], 404, "route_unknown"),
        ("/posted", vec![], 405, "method_unknown"),
        ("/ws/../ws/session", vec![], 400, "path_ambiguous"),
        ("/ws/session?token=t&token=u", vec![], 200, "query_missing"),
        (SESSION, vec![("sec-websocket-version", "13")], 426, "upgrade_required"),
        ("/ws/session", vec![("host", "other.example")], 400, "target_invalid"),
        ("/ws/keyed", vec![], 401, "key_missing"),
        ("/ws/keyed", keyed("unknown"), 401, "key_unknown"),
        ("/ws/keyed", keyed(MINT), 403, "scope_missing"),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(connect(1, path, &more));
        let told = if status == 200 {
            assert_eq!(frames.begins(1), 200, "{path}");
            let (message, code) = told(&mut frames);
            assert_eq!(code, 4003);
            part(&mut frames, code);
            (200, message.to_string())
        } else {
            let Told::Answer(status, body) = frames.told(1) else { panic!("{path}: no answer") };
            (status, body)
        };
        assert!(told.0 == status && told.1.contains(&format!("{reason:?}")), "{path} {more:?}: {told:?}");
        // The others on the connection are not concerned.
        frames.send(get(3, &health()));
        assert_eq!(frames.told(3), Told::Answer(200, "hello".to_owned()), "{path}");
    }
    assert!(upstream.seen().iter().all(|seen| seen.target == "/health"));
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(connect(1, "/ws/keyed", &keyed(ALL)));
    assert_eq!(frames.begins(1), 200);
    assert_open(&mut frames, "hello");
}

#[test]
fn no_other_connect_is_taken() {
    let upstream = Upstream::with(echo);
    let scopegate = Setup::new(&upstream).start();
    let head = |method, protocol: Option<&'static str>| {
        let mut fields =
            vec![(":method", method), (":scheme", "http"), (":authority", "a"), (":path", SESSION)];
        fields.extend(protocol.map(|protocol| (":protocol", protocol)));
        fields
    };
    let plain = vec![(":method", "CONNECT"), (":authority", "a:443")];
    let invalid = Told::Answer(400, "target_invalid".to_owned());
    for (fields, wanted) in [
        (plain, &invalid),
        (head("CONNECT", Some("connect-udp")), &invalid),
        (head("CONNECT", Some("WebSocket")), &invalid),
        (head("CONNECT", Some("")), &invalid),
        (head("CONNECT", None), &Told::Reset(PROTOCOL_ERROR)),
        (head("GET", Some("websocket")), &Told::Reset(PROTOCOL_ERROR)),
        (head("POST", Some("websocket")), &Told::Reset(PROTOCOL_ERROR)),
        // Without its version (RFC 8441, 5).
        (head("CONNECT", Some("websocket")), &Told::Answer(426, "upgrade_required".to_owned())),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(frame(HEADERS, END_HEADERS, 1, &block(&fields)));
        let told = match frames.told(1) {
            Told::Answer(status, body) => {
                let json: serde_json::Value = serde_json::from_str(&body).expect("JSON");
                Told::Answer(status, json["error"]["code"].as_str().expect("a code").to_owned())
            }
            other => other,
        };
        assert_eq!(told, *wanted, "{fields:?}");
    }
    // hyper ends a connection whose CONNECT has a body; what may not happen is that it is taken.
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(
        [connect(1, SESSION, &[("content-length", "5")]), frame(DATA, END_STREAM, 1, b"hello")].concat(),
    );
    let told = frames.told(1);
    assert!(matches!(told, Told::Reset(_) | Told::Goaway(_) | Told::End), "{told:?}");
    assert!(upstream.seen().is_empty());
}

#[test]
fn it_is_offered_where_there_are_channels_and_nowhere_else() {
    let upstream = Upstream::with(echo);
    let setup = Setup::new(&upstream);
    let without = setup.config.replace("    upgrade: websocket\n", "");
    for (config, offers) in [(setup.config, true), (without, false)] {
        let scopegate = Setup { config, keys: setup.keys.clone() }.start();
        let mut frames = Frames::connect(scopegate.address, &[]);
        let (kind, _, _, settings) = frames.next().expect("settings");
        assert_eq!(kind, SETTINGS);
        let enables = settings.chunks(6).any(|setting| *setting == [0, 8, 0, 0, 0, 1]);
        assert_eq!(enables, offers);
        if !offers {
            frames.send(connect(1, SESSION, &[]));
            assert_eq!(frames.told(1), Told::Reset(PROTOCOL_ERROR));
        }
    }
}

#[test]
fn an_answer_that_is_no_switch_is_none_for_the_client_either() {
    let upstream = Upstream::with(|exchange| {
        match exchange.request.target.rsplit('=').next() {
        Some("ok") => exchange.reply("200 OK", "", "a page, and no channel"),
        Some("created") => exchange.reply("201 Created", "", ""),
        Some("no") => exchange.reply("401 Unauthorized", "", "no"),
        Some("moved") => exchange.reply("302 Found", "Location: /\r\n", ""),
        _ => exchange.last("HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n"),
    }
    });
    let scopegate = Setup::new(&upstream).start();
    for (token, status, body) in [
        ("ok", 502, "upstream_invalid"),
        ("created", 502, "upstream_invalid"),
        ("no", 401, "no"),
        ("moved", 302, ""),
        ("canned", 502, "upstream_invalid"),
    ] {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(connect(1, &format!("/ws/session?sessionId=s&token={token}"), &[]));
        let Told::Answer(got, text) = frames.told(1) else { panic!("{token}: no answer") };
        assert!(got == status && text.contains(body), "{token}: {got} {text}");
    }
}

#[test]
fn the_end_of_a_side_is_an_end_and_its_cut_is_a_cut() {
    let (tell, heard) = channel::<&'static str>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        let how = exchange.request.target.rsplit('=').next().expect("a token").to_owned();
        accept(exchange);
        exchange.write("open");
        match &*how {
            "end" => {
                exchange.stream.get_ref().shutdown(Shutdown::Write).expect("an open channel");
                let mut rest = Vec::new();
                exchange.stream.read_to_end(&mut rest).expect("the other half stays open");
                assert_eq!(rest, b"still heard");
                tell.lock().expect("no panic").send("end").expect("the test listens");
            }
            "cut" => {
                exchange.stream.read_exact(&mut [0]).expect("a byte");
                socket2::SockRef::from(exchange.stream.get_ref())
                    .set_linger(Some(Duration::ZERO))
                    .expect("an option");
            }
            _ => {
                let _ = exchange.stream.read_to_end(&mut Vec::new());
                tell.lock().expect("no panic").send("gone").expect("the test listens");
            }
        }
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let begin = |token: &str| {
        let mut frames = Frames::connect(scopegate.address, &[]);
        frames.send(connect(1, &format!("/ws/session?sessionId=s&token={token}"), &[]));
        assert_eq!(frames.body(1, 4), b"open", "{token}");
        frames
    };
    let mut frames = begin("end");
    assert_eq!(frames.told(1), Told::Answer(200, String::new()));
    frames.send(frame(DATA, END_STREAM, 1, b"still heard"));
    assert_eq!(heard.recv_timeout(PATIENCE), Ok("end"));
    scopegate.log_line(|line| line["reason"] == "passed");

    let mut frames = begin("cut");
    say(&mut frames, b"x");
    assert_eq!(frames.told(1), Told::Reset(CANCEL));
    scopegate.log_line(|line| line["reason"] == "channel_broken");

    // A reset by the client, and its whole connection.
    let mut frames = begin("reset");
    frames.send(frame(RESET, 0, 1, &CANCEL.to_be_bytes()));
    assert_eq!(heard.recv_timeout(PATIENCE), Ok("gone"));
    eventually("no open tunnel", || (scopegate.metric("scopegate_tunnels") == 0.0).then_some(()));
    drop(begin("drop"));
    assert_eq!(heard.recv_timeout(PATIENCE), Ok("gone"));
    eventually("no open tunnel", || (scopegate.metric("scopegate_tunnels") == 0.0).then_some(()));
    eventually("three that broke off", || {
        (scopegate.everything_said().matches("\"channel_broken\"").count() == 3).then_some(())
    });
}

#[test]
fn a_reader_that_stops_stops_the_sender() {
    const MOST: usize = 64 << 20;
    let (tell, heard) = channel::<usize>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        let floods = exchange.request.target.ends_with("flood");
        accept(exchange);
        if floods {
            let stream = exchange.stream.get_mut();
            stream.set_write_timeout(Some(Duration::from_millis(500))).expect("a timeout");
            let mut sent = 0;
            while sent < MOST
                && let Ok(count @ 1..) = stream.write(&[b'x'; 16_384])
            {
                sent += count;
            }
            tell.lock().expect("no panic").send(sent).expect("the test listens");
        } else {
            // It reads nothing until the test is over.
            std::thread::park_timeout(PATIENCE);
        }
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let before = scopegate.metric("process_resident_memory_bytes");
    let mut frames = Frames::connect(scopegate.address, &[]);
    frames.send(connect(1, "/ws/session?sessionId=s&token=flood", &[]));
    let sent = heard.recv_timeout(PATIENCE).expect("the upstream stops");
    assert!(sent < MOST / 2, "the upstream could send {sent} bytes that nobody read");
    // All of it comes once it is wanted.
    frames.send(
        [
            frame(WINDOW, 0, 1, &(MOST as u32).to_be_bytes()),
            frame(WINDOW, 0, 0, &(MOST as u32).to_be_bytes()),
        ]
        .concat(),
    );
    assert_eq!(frames.body(1, sent), vec![b'x'; sent]);

    // The other way: windows are opened only as far as the upstream reads.
    frames.send(connect(3, "/ws/session?sessionId=s&token=rest", &[]));
    assert_eq!(frames.begins(3), 200);
    let (mut window, mut sent) = (64 << 10, 0);
    while sent < MOST {
        if window < 16_384 {
            let Some(more) = frames.grows(3) else { break };
            window += more;
            continue;
        }
        frames.send(frame(DATA, 0, 3, &[b'y'; 16_384]));
        (sent, window) = (sent + 16_384, window - 16_384);
    }
    assert!(sent < MOST / 2, "{sent} bytes were taken that nobody read");
    let grown = scopegate.metric("process_resident_memory_bytes") - before;
    assert!(grown < f64::from(8 << 20), "memory grew by {grown}");
}

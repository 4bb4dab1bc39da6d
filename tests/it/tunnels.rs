//! What passes through an open channel, byte for byte, and who is told of its end.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::sync::Mutex;
use std::sync::mpsc::channel;

use crate::harness::client::{Client, request};
use crate::harness::scopegate::{ALL, Scopegate, Setup};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{PATIENCE, bearer, eventually};

const SESSION: &str = "/ws/session?sessionId=s&token=t";
/// The handshake of RFC 6455, 1.2.
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n";

/// A text as a client frames it, with a mask of zeros.
fn masked(text: &str) -> Vec<u8> {
    [&[0x81, 0x80 | u8::try_from(text.len()).expect("short"), 0, 0, 0, 0], text.as_bytes()].concat()
}

/// A text as a server frames it.
fn framed(text: &str) -> Vec<u8> {
    [&[0x81, u8::try_from(text.len()).expect("short")], text.as_bytes()].concat()
}

/// Reads exactly these bytes.
fn expect(from: &mut impl Read, bytes: &[u8]) {
    let mut seen = vec![0; bytes.len()];
    from.read_exact(&mut seen).expect("bytes");
    assert_eq!(String::from_utf8_lossy(&seen), String::from_utf8_lossy(bytes));
}

/// Everything that comes until the end, and whether that was a clean one.
fn rest(client: &mut Client) -> (Vec<u8>, bool) {
    let mut bytes = Vec::new();
    let clean = client.stream.read_to_end(&mut bytes);
    if let Err(error) = &clean {
        assert_ne!(error.kind(), std::io::ErrorKind::WouldBlock, "no end came");
    }
    (bytes, clean.is_ok())
}

fn open(scopegate: &Scopegate) -> Client {
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", SESSION, HANDSHAKE, ""));
    assert_eq!(client.head().0, 101);
    client
}

/// Sends back every byte until the other side has ended.
fn echo(exchange: &mut Exchange<'_>) -> bool {
    exchange.write(format!("{SWITCH}\r\n"));
    let mut bytes = [0; 4096];
    while let Ok(count @ 1..) = exchange.stream.read(&mut bytes) {
        if exchange.stream.get_mut().write_all(&bytes[..count]).is_err() {
            break;
        }
    }
    false
}

#[test]
fn what_is_sent_in_one_piece_with_the_handshake_is_not_lost() {
    let upstream = Upstream::with(|exchange| {
        exchange.write([format!("{SWITCH}\r\n").as_bytes(), &framed("first from below")].concat());
        expect(exchange.stream, &masked("first from above"));
        exchange.write(framed("heard"));
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send([request("GET", SESSION, HANDSHAKE, "").as_bytes(), &masked("first from above")].concat());
    assert_eq!(client.head().0, 101);
    expect(&mut client.stream, &framed("first from below"));
    expect(&mut client.stream, &framed("heard"));
    assert_eq!(rest(&mut client).0, b"");
}

#[test]
fn what_the_two_sides_agree_on_is_theirs() {
    let upstream = Upstream::with(|exchange| {
        exchange.write(format!(
            "{SWITCH}Sec-WebSocket-Protocol: chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate\r\nX-Own: 1\r\n\r\n"
        ));
        false
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    let offered = "Sec-WebSocket-Protocol: chat.v1, chat.v2\r\nSec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\nCookie: a=b\r\n";
    client.send(request("GET", SESSION, &format!("{HANDSHAKE}{offered}"), ""));
    let (status, headers) = client.head();
    assert_eq!(status, 101);
    let has = |name: &str, value: &str| headers.iter().any(|(known, given)| known == name && given == value);
    assert!(has("sec-websocket-protocol", "chat.v2"), "{headers:?}");
    assert!(has("sec-websocket-extensions", "permessage-deflate"), "{headers:?}");
    assert!(has("x-own", "1"), "{headers:?}");
    let seen = upstream.nth(0);
    for line in offered.lines() {
        let (name, value) = line.split_once(": ").expect("a header");
        assert_eq!(seen.header(name), Some(value));
    }
}

#[test]
fn much_passes_both_ways_at_once_and_a_reader_that_stops_stops_the_sender() {
    const LENGTH: usize = 8 << 20;
    let upstream = Upstream::with(echo);
    let scopegate = Setup::new(&upstream).start();
    let mut client = open(&scopegate);
    // One binary frame; its bytes tell their place.
    let head = [&[0x82, 0xff][..], &(LENGTH as u64).to_be_bytes(), &[0; 4]].concat();
    let mut frame = head;
    frame.extend((0..LENGTH).map(|place| (place % 251) as u8));
    let mut sender = client.stream.get_ref().try_clone().expect("a socket");
    let sent = frame.clone();
    let sending = std::thread::spawn(move || {
        sender.write_all(&sent).expect("an open channel");
        sender.shutdown(Shutdown::Write).expect("an open channel");
    });
    let (came, _) = rest(&mut client);
    sending.join().expect("a sender");
    assert!(came == frame, "{} of {} bytes", came.len(), frame.len());
    let line = scopegate.log_line(|line| line["surface"] == "channel");
    assert_eq!(
        (line["received"].as_u64(), line["sent"].as_u64()),
        (Some(came.len() as u64), Some(came.len() as u64))
    );

    // Nobody reads: what is on the way stays small.
    let mut client = open(&scopegate);
    let socket = client.stream.get_mut();
    socket.set_write_timeout(Some(std::time::Duration::from_millis(500))).expect("a timeout");
    let mut sent = 0;
    while sent < LENGTH * 8
        && let Ok(count @ 1..) = socket.write(&frame)
    {
        sent += count;
    }
    assert!(sent < LENGTH * 4, "{sent} bytes were taken that nobody read");
}

#[test]
fn the_end_of_one_side_is_told_to_the_other_and_looks_like_no_final_close() {
    let (tell, heard) = channel::<Vec<u8>>();
    let tell = Mutex::new(tell);
    let upstream = Upstream::with(move |exchange| {
        exchange.write(format!("{SWITCH}\r\n"));
        if exchange.request.target.contains("below") {
            exchange.write(framed("one"));
            return false;
        }
        let mut bytes = Vec::new();
        let _ = exchange.stream.read_to_end(&mut bytes);
        tell.lock().expect("no panic").send(bytes).expect("the test listens");
        false
    });
    let scopegate = Setup::new(&upstream).start();
    // The client goes.
    let mut client = open(&scopegate);
    client.send(masked("last"));
    drop(client);
    assert_eq!(heard.recv_timeout(PATIENCE).expect("an end at the upstream"), masked("last"));
    // The upstream goes: the client sees an end without a close, and will come back.
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/ws/session?sessionId=below&token=t", HANDSHAKE, ""));
    assert_eq!(client.head().0, 101);
    let (came, _) = rest(&mut client);
    assert_eq!(came, framed("one"));
    drop(client);
    eventually("no open tunnel", || (scopegate.metric("scopegate_tunnels") == 0.0).then_some(()));
    assert_eq!(scopegate.metric("scopegate_tunnels_opened_total"), 2.0);
    eventually("nothing in flight", || {
        (scopegate.metric("scopegate_requests_in_flight") == 0.0).then_some(())
    });
}

#[test]
fn a_reload_that_does_not_concern_it_leaves_a_channel_open() {
    let upstream = Upstream::with(echo);
    let setup = Setup::new(&upstream).with("upgrade: websocket", "upgrade: websocket\n    on_flag_off: keep");
    let config = setup.config.clone();
    let scopegate = setup.start();
    let mut client = open(&scopegate);
    let changes = [
        ("another section", format!("unmatched: 403\n{config}")),
        ("another flag", config.replace("apiAccess: true", "apiAccess: false")),
        ("a flag of its own, which keeps it", config.replace("webrtc: true", "webrtc: false")),
    ];
    for (generation, (name, text)) in changes.iter().enumerate() {
        scopegate.replace("scopegate.yaml", text);
        eventually(name, || {
            (scopegate.metric("scopegate_config_generation") == (generation + 2) as f64).then_some(())
        });
        client.send(masked(name));
        expect(&mut client.stream, &masked(name));
    }
}

#[test]
fn a_channel_may_ask_for_a_key() {
    let upstream = Upstream::with(echo);
    let scopegate = Setup::new(&upstream)
        .with(
            "    access: open\n    flags: [webrtc]\n    upgrade: websocket\n    routes: ['GET /ws/session?sessionId&token']",
            "    access: key\n    flags: [webrtc]\n    upgrade: websocket\n    routes: { 'GET /ws/session?sessionId&token': READ_TEAM_APPS }",
        )
        .start();
    for (headers, status) in
        [(String::new(), 401), (bearer("unknown"), 401), (bearer("sk_live_mint"), 403), (bearer(ALL), 101)]
    {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", SESSION, &format!("{HANDSHAKE}{headers}"), ""));
        assert_eq!(client.head().0, status, "{headers}");
    }
    assert_eq!(upstream.connections(), 1);
}

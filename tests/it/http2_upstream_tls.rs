//! HTTP/2 towards upstreams that is agreed on under TLS.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::time::Duration;
use std::{fs, io, thread};

use crate::channel::echo;
use crate::harness::client::get;
use crate::harness::http2::{Call, Http2};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::tls::Authority;
use crate::harness::upstream::Upstream;
use crate::http2_upstream::check;

/// A server behind TLS, by the protocol that is chosen for it.
type Server = (&'static str, SocketAddr);

/// What takes this long to connect to, and to be heard from, in a test in which both together are too long.
const SLOW: Duration = Duration::from_millis(600);

/// A way to this address on which every connection is made late.
fn slow_way_to(address: SocketAddr) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let entrance = listener.local_addr().expect("an address");
    thread::spawn(move || {
        for client in listener.incoming().map_while(Result::ok) {
            thread::spawn(move || {
                thread::sleep(SLOW);
                let server = TcpStream::connect(address).expect("a server");
                let (mut from, mut to) = (client.try_clone().expect("one"), server.try_clone().expect("one"));
                thread::spawn(move || io::copy(&mut from, &mut to));
                io::copy(&mut { server }, &mut { client })
            });
        }
    });
    entrance
}

/// scopegate in front of what speaks TLS at this address.
fn start(secured: SocketAddr, protocol: &str, authority: &Authority) -> Scopegate {
    start_with(secured, protocol, authority, "")
}

/// The same, with this in the configuration.
fn start_with(secured: SocketAddr, protocol: &str, authority: &Authority, more: &str) -> Scopegate {
    let at = format!(
        "'{secured}', protocol: {protocol}, tls: {{ ca_file: ca.pem, server_name: telapi.internal }}"
    );
    let mut setup = Setup::at(&at, &at);
    if protocol == "http2" {
        setup = setup.with("    upgrade: websocket\n", "");
    }
    let folder = setup.and(more).write();
    fs::write(folder.path().join("ca.pem"), authority.pem()).expect("a file");
    let scopegate = Scopegate::start(folder);
    scopegate.ready();
    scopegate
}

#[test]
fn the_protocol_is_what_both_can_speak() {
    let (http1, authority) = (echo(), Authority::new());
    let http2 = Http2::with(|mut call: Call| async move { call.reply(200, &[], "over HTTP/2") });
    let (one, two) = (("http/1.1", http1.address), ("h2", http2.address));
    let cases: [(&str, &[Server], &str); 8] = [
        // A server may like another better than we do.
        ("auto", &[two, one], "over HTTP/2"),
        ("auto", &[one, two], "hello"),
        ("auto", &[one], "hello"),
        ("auto", &[("", http1.address)], "hello"),
        ("http1", &[one, two], "hello"),
        ("http2", &[one, two], "over HTTP/2"),
        ("http2", &[one], "upstream_tls"),
        ("http2", &[("", http2.address)], "upstream_tls"),
    ];
    for (protocol, servers, wanted) in cases {
        let secured = authority.vouch_for("telapi.internal", servers);
        let scopegate = start(secured, protocol, &authority);
        for _ in 0..2 {
            let answer = get(scopegate.address, "/health", "");
            let said = if answer.reason().is_empty() { answer.text() } else { answer.reason().to_owned() };
            assert_eq!(said, wanted, "{protocol} {servers:?}");
        }
        let connects = scopegate.metric("scopegate_upstream_connects_total{upstream=\"telapi\"}");
        let good = wanted != "upstream_tls";
        assert_eq!(connects, f64::from(u8::from(good)), "{protocol} {servers:?}");
        assert_eq!(check(&scopegate).contains("no TLS with"), !good, "{protocol} {servers:?}");
    }
    assert!(http2.seen().iter().all(|seen| seen.uri.scheme_str() == Some("https")));
}

#[test]
fn a_websocket_is_opened_over_http1_whatever_else_is_spoken() {
    let (http1, authority) = (echo(), Authority::new());
    let http2 = Http2::with(|mut call: Call| async move { call.reply(200, &[], "over HTTP/2") });
    let servers = [("h2", http2.address), ("http/1.1", http1.address)];
    let scopegate = start(authority.vouch_for("telapi.internal", &servers), "auto", &authority);
    assert_eq!(get(scopegate.address, "/health", "").text(), "over HTTP/2");
    let (mut channel, _) = tungstenite::client(
        format!("ws://{}/ws/session?sessionId=s&token=t", scopegate.address),
        TcpStream::connect(scopegate.address).expect("a connection"),
    )
    .expect("a channel");
    channel.send(tungstenite::Message::text("one")).expect("a channel");
    assert_eq!(channel.read().expect("an echo"), tungstenite::Message::text("one"));
    assert_eq!(get(scopegate.address, "/health", "").text(), "over HTTP/2");
}

#[test]
fn the_total_of_a_request_begins_once_whatever_is_found_to_be_spoken() {
    let upstream = Upstream::with(|exchange| {
        thread::sleep(SLOW);
        exchange.reply("200 OK", "", "late")
    });
    let authority = Authority::new();
    let secured = slow_way_to(authority.vouch_for("telapi.internal", &[("http/1.1", upstream.address)]));
    let scopegate = start_with(secured, "auto", &authority, "timeouts: { total: 1s }");
    let answer = get(scopegate.address, "/health", "");
    assert_eq!((answer.status, answer.reason()), (504, "total_timeout"));
}

//! How a client begins on a port that speaks TLS: in pieces, at length, badly, or in plain.

use std::fs;
use std::io::{Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::sync::Arc;

use tokio_rustls::rustls::pki_types::ServerName;
use tokio_rustls::rustls::{ClientConfig, ClientConnection, HandshakeKind, StreamOwned};

use crate::harness::PATIENCE;
use crate::harness::certificates::{Authority, ONE, failed, s_client, start};
use crate::harness::client::{Client, request};
use crate::harness::handshake::{Stream, believer, shake};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

fn secured(upstream: &Upstream) -> (Scopegate, Authority) {
    let authority = Authority::new();
    let scopegate = start(upstream, ONE, |folder| authority.server(&["a.example"]).write(folder, "a"));
    (scopegate, authority)
}

/// Shakes hands, with a hello that comes in pieces of this length.
fn drip(address: SocketAddr, config: ClientConfig, length: usize) -> Stream {
    let name = ServerName::try_from("a.example").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    let tcp = TcpStream::connect(address).expect("a connection");
    tcp.set_read_timeout(Some(PATIENCE)).expect("a timeout");
    tcp.set_nodelay(true).expect("an option");
    let mut stream = StreamOwned::new(connection, tcp);
    let mut hello = Vec::new();
    while stream.conn.wants_write() {
        stream.conn.write_tls(&mut hello).expect("memory");
    }
    for piece in hello.chunks(length) {
        stream.sock.write_all(piece).expect("an open connection");
    }
    stream
}

#[test]
fn a_hello_may_come_in_pieces_and_be_long() {
    let upstream = Upstream::start();
    let (scopegate, authority) = secured(&upstream);
    // The second hello needs more than one record.
    for (protocols, length) in [(0, 1), (0, 7), (1500, 1000), (1500, 20_000)] {
        let mut config = believer(&authority, None, |_| {});
        config.alpn_protocols =
            (0..protocols).map(|number| format!("none-{number:08}").into_bytes()).collect();
        config.alpn_protocols.push(b"http/1.1".to_vec());
        let mut stream = drip(scopegate.address, config, length);
        stream.write_all(request("GET", "/health", "", "").as_bytes()).expect("an open connection");
        let mut answer = [0; 12];
        stream.read_exact(&mut answer).expect("an answer");
        assert_eq!(&answer, b"HTTP/1.1 200", "{protocols} {length}");
    }
}

#[test]
fn a_hello_that_is_none_is_answered_with_an_alert() {
    let upstream = Upstream::start();
    let (scopegate, _) = secured(&upstream);
    // A hello with nothing in it, and a record that is longer than any may be.
    for bytes in [&b"\x16\x03\x01\x00\x04\x01\x00\x00\x00"[..], b"\x16\x03\x01\xff\xff"] {
        let mut client = Client::connect(scopegate.address);
        client.send(bytes);
        let mut alert = Vec::new();
        client.stream.read_to_end(&mut alert).expect("an alert, and the end");
        assert_eq!((alert.first(), alert.len()), (Some(&21), 7), "{bytes:?}: {alert:?}");
    }
    failed(&scopegate, "other");
}

#[test]
fn what_was_read_in_plain_is_answered_in_plain() {
    let upstream = Upstream::start();
    let (scopegate, _) = secured(&upstream);
    let long = format!("X: {}\r\n", "x".repeat(6000));
    for (pieces, reason) in [
        (&[&*request("GET", "/health", "", "")][..], "https_required"),
        (&["G", "ET /health HTTP/1.1\r\nHost: a\r\n\r\n"], "https_required"),
        (&[&request("GET", "/health", &long, "")], "https_required"),
        (&["PRI * HTTP", "/1.1\r\nHost: a\r\n\r\n"], "target_invalid"),
    ] {
        let mut client = Client::connect(scopegate.address);
        for piece in pieces {
            client.send(piece);
        }
        assert_eq!(client.answer(false).reason(), reason, "{pieces:?}");
    }
    failed(&scopegate, "not_tls");
    assert!(upstream.seen().is_empty());
}

#[test]
fn who_is_turned_away_hears_why() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let tls = format!("{ONE}, min_version: '1.3', client_certificates: {{ ca: ca.pem, required: true }}");
    let scopegate = start(&upstream, &tls, |folder| {
        authority.server(&["a.example"]).write(folder, "a");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    });
    // Before hands are shaken, and behind that, where the client believes that they are.
    let told = s_client(scopegate.address, &["-tls1_2"]);
    assert!(told.contains("alert protocol version"), "{told}");
    let config = Arc::new(believer(&authority, None, |_| {}));
    let mut stream = shake(scopegate.address, "a.example", &config).expect("it believes so");
    let told = stream.read(&mut [0]).expect_err("an alert").to_string();
    assert!(told.contains("CertificateRequired"), "{told}");
}

#[test]
fn a_ticket_that_no_answer_took_along_comes_with_the_end() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {ONE} }} }}]");
    let setup = Setup::new(&upstream).with("listen: [{ address: 127.0.0.1:0 }]", &listen);
    let folder = setup.and("timeouts: { head: 100ms }").write();
    authority.server(&["a.example"]).write(folder.path(), "a");
    let scopegate = Scopegate::start(folder);
    scopegate.ready();
    let config = Arc::new(believer(&authority, None, |_| {}));
    let mut stream = shake(scopegate.address, "a.example", &config).expect("a handshake");
    assert_eq!(stream.read(&mut [0]).expect("an end that was said"), 0);
    assert!(stream.conn.tls13_tickets_received() > 0);
    drop(stream);
    let again = shake(scopegate.address, "a.example", &config).expect("a handshake");
    assert_eq!(again.conn.handshake_kind(), Some(HandshakeKind::Resumed));
}

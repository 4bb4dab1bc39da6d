//! Listeners whose connections begin with a PROXY header: who is behind the hop, and what is no such header.

use std::fs;
use std::process::{Child, Command, Stdio};

use crate::harness::client::{Client, request};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{eventually, free_port, installed};

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const LISTEN: &str = "listen: [{ address: 127.0.0.1:0 }]";
const REQUIRED: &str = "listen: [{ address: 127.0.0.1:0, proxy_protocol: required }]";

fn setup(upstream: &Upstream) -> Setup {
    Setup::new(upstream).with(LISTEN, REQUIRED).and("trusted_proxies: [127.0.0.1, 10.0.0.0/8]")
}

fn v1(client: &str) -> Vec<u8> {
    format!("PROXY TCP4 {client} 127.0.0.1 4711 80\r\n").into_bytes()
}

fn v2(command: u8, family: u8, block: &[u8]) -> Vec<u8> {
    let length = u16::try_from(block.len()).expect("short").to_be_bytes();
    [SIGNATURE, &[command, family], &length, block].concat()
}

fn of_v4(client: [u8; 4], entries: &[u8]) -> Vec<u8> {
    v2(0x21, 0x11, &[&client[..], &[127, 0, 0, 1, 0x12, 0x67, 0, 80], entries].concat())
}

fn refused(scopegate: &Scopegate, reason: &str) -> f64 {
    scopegate.metric(&format!("scopegate_proxy_headers_refused_total{{reason=\"{reason}\"}}"))
}

/// A header; the peer and the client of the log; the chain and the scheme of the request.
type Row<'a> = (Vec<u8>, &'a str, Option<&'a str>, &'a str, &'a str);

#[test]
fn who_is_named_is_the_client_for_logs_and_headers_alike() {
    const CLAIMS: &str = "X-Forwarded-For: 198.51.100.9\r\nX-Forwarded-Proto: https\r\n";
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).start();
    let mut v6 = [0; 36];
    (v6[0], v6[1], v6[15]) = (0x20, 0x01, 7);
    let over_tls = [0x20, 0, 5, 1, 0, 0, 0, 0];
    let table: [Row<'_>; 12] = [
        (v1("192.0.2.7"), "192.0.2.7", None, "192.0.2.7", "http"),
        (b"PROXY TCP6 2001:db8::7 ::1 4711 80\r\n".to_vec(), "2001:db8::7", None, "2001:db8::7", "http"),
        (b"PROXY TCP6 ::ffff:192.0.2.7 ::1 4711 80\r\n".to_vec(), "192.0.2.7", None, "192.0.2.7", "http"),
        (of_v4([192, 0, 2, 7], &[]), "192.0.2.7", None, "192.0.2.7", "http"),
        (of_v4([192, 0, 2, 7], &[4, 0, 0]), "192.0.2.7", None, "192.0.2.7", "http"),
        (of_v4([192, 0, 2, 7], &over_tls), "192.0.2.7", None, "192.0.2.7", "https"),
        (v2(0x21, 0x21, &v6), "2001::7", None, "2001::7", "http"),
        // Whom the hop cannot name has the hop's address, and none of its trust.
        (b"PROXY UNKNOWN\r\n".to_vec(), "127.0.0.1", None, "127.0.0.1", "http"),
        (v2(0x21, 0x00, &[]), "127.0.0.1", None, "127.0.0.1", "http"),
        (v2(0x21, 0x31, &[0; 216]), "127.0.0.1", None, "127.0.0.1", "http"),
        // The hop itself, and a balancer that is trusted too: what they say is believed.
        (v2(0x20, 0x00, &[]), "127.0.0.1", Some("198.51.100.9"), "198.51.100.9, 127.0.0.1", "https"),
        (v1("10.0.0.7"), "10.0.0.7", Some("198.51.100.9"), "198.51.100.9, 10.0.0.7", "https"),
    ];
    for (number, (header, peer, client, chain, scheme)) in table.iter().enumerate() {
        let mut connection = Client::connect(scopegate.address);
        connection.send(header);
        let target = format!("/api/v1/webhooks/{number}");
        assert_eq!(connection.ask(request("GET", &target, CLAIMS, "")).status, 200, "{header:?}");
        // The header is for the connection, not for one request.
        let answer = connection.ask(request("GET", "/health", CLAIMS, ""));
        for seen in [upstream.nth(2 * number), upstream.nth(2 * number + 1)] {
            assert_eq!(seen.header("x-forwarded-for"), Some(*chain), "{header:?}");
            assert_eq!(seen.header("x-forwarded-proto"), Some(*scheme), "{header:?}");
        }
        let id = answer.header("x-request-id").expect("an id").to_owned();
        let line = scopegate.log_line(|line| line["id"] == id.as_str());
        assert_eq!((line["peer"].as_str(), line["client"].as_str()), (Some(*peer), *client), "{header:?}");
    }
}

#[test]
fn a_header_may_come_in_pieces_and_with_what_follows_it() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).start();
    let ask = request("GET", "/health", "", "");
    let long = [&[4, 0x0f, 0xe1 - 16][..], &[0; 0x0fe1 - 16]].concat();
    for header in [v1("192.0.2.7"), of_v4([192, 0, 2, 7], &[]), of_v4([192, 0, 2, 7], &long)] {
        let whole = [&header[..], ask.as_bytes()].concat();
        let mut client = Client::connect(scopegate.address);
        client.send(&whole);
        assert_eq!(client.answer(false).status, 200);
        let mut client = Client::connect(scopegate.address);
        for byte in whole.chunks(whole.len() / 60 + 1) {
            client.send(byte);
        }
        assert_eq!(client.answer(false).status, 200);
        assert_eq!(upstream.seen().pop().expect("a request").header("x-forwarded-for"), Some("192.0.2.7"));
    }
    for version in ["--http1.1", "--http2-prior-knowledge"] {
        let url = format!("http://{}/health", scopegate.address);
        let curl = Command::new("curl").args(["-sS", version, "--haproxy-protocol", &url]).output();
        let Ok(said) = curl else { return };
        assert_eq!(String::from_utf8_lossy(&said.stdout), "hello", "{said:?}");
        assert_eq!(upstream.seen().pop().expect("a request").header("x-forwarded-for"), Some("127.0.0.1"));
    }
}

#[test]
fn what_is_no_good_header_is_closed_named_and_counted_and_nobody_else_is_affected() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).and("timeouts: { head: 300ms }").start();
    let mut other = Client::connect(scopegate.address);
    other.send(v1("192.0.2.7"));
    assert_eq!(other.ask(request("GET", "/health", "", "")).status, 200);
    let ask = request("GET", "/health", "", "").into_bytes();
    let behind = |header: Vec<u8>| [header, ask.clone()].concat();
    let lying = [SIGNATURE, &[0x21, 0x11, 0, 8], &[192, 0, 2, 7, 127, 0, 0, 1, 0x12, 0x67, 0, 80]].concat();
    let huge = [SIGNATURE, &[0x21, 0x11, 0xff, 0xff]].concat();
    for (from, bytes, reason) in [
        ("127.0.0.2", behind(v1("127.0.0.1")), "untrusted"),
        ("127.0.0.2", ask.clone(), "untrusted"),
        ("127.0.0.1", ask.clone(), "missing"),
        ("127.0.0.1", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), "missing"),
        ("127.0.0.1", b"\x16\x03\x01\x02\x00\x01".to_vec(), "missing"),
        ("127.0.0.1", behind(b"PROXY TCP4 192.0.2.7 127.0.0.1 4711\r\n".to_vec()), "malformed"),
        ("127.0.0.1", behind(lying), "malformed"),
        ("127.0.0.1", huge, "malformed"),
        ("127.0.0.1", v1("192.0.2.7")[..9].to_vec(), "late"),
        ("127.0.0.1", of_v4([192, 0, 2, 7], &[])[..20].to_vec(), "late"),
        ("127.0.0.1", Vec::new(), "late"),
    ] {
        let before = refused(&scopegate, reason);
        let mut client = Client::connect_from(from, scopegate.address);
        // It may be closed before it has been sent.
        let _ = std::io::Write::write_all(client.stream.get_mut(), &bytes);
        assert!(client.is_closed(), "{bytes:?}");
        assert_eq!(refused(&scopegate, reason), before + 1.0, "{bytes:?}");
        scopegate.event(|event| event["reason"] == reason && event["peer"] == from);
    }
    // Who leaves in the middle has not said it either; who says nothing has only looked whether we live.
    for (bytes, more) in [(&v1("192.0.2.7")[..9], 1.0), (&[][..], 0.0)] {
        let before = refused(&scopegate, "malformed");
        let mut client = Client::connect(scopegate.address);
        client.send(bytes);
        client.finish();
        assert!(client.is_closed());
        assert_eq!(refused(&scopegate, "malformed"), before + more, "{bytes:?}");
    }
    assert_eq!(upstream.seen().len(), 1);
    assert_eq!(other.ask(request("GET", "/health", "", "")).status, 200);
}

#[test]
fn where_no_header_is_asked_for_it_is_no_http() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("trusted_proxies: [127.0.0.1]").start();
    for header in [v1("192.0.2.7"), of_v4([192, 0, 2, 7], &[])] {
        let mut client = Client::connect(scopegate.address);
        client.send([&header[..], request("GET", "/health", "", "").as_bytes()].concat());
        let answer = client.answer(false);
        assert_eq!((answer.status, answer.reason()), (400, "request_invalid"), "{header:?}");
        assert!(client.is_closed());
    }
    assert!(upstream.seen().is_empty());
}

#[test]
fn connections_are_those_of_the_client_and_places_are_bounded_before_it_is_known() {
    let upstream = Upstream::start();
    let limits = "limits: { connections: 8, connections_per_client: 2 }";
    let scopegate = setup(&upstream).and(limits).start();
    let ask = request("GET", "/health", "", "");
    let open = |client: &str| {
        let mut connection = Client::connect(scopegate.address);
        let _ = std::io::Write::write_all(
            connection.stream.get_mut(),
            &[&v1(client)[..], ask.as_bytes()].concat(),
        );
        let mut begin = [0; 12];
        std::io::Read::read_exact(&mut connection.stream, &mut begin).ok().map(|()| connection)
    };
    let one: Vec<_> = (0..2).map(|_| open("192.0.2.1").expect("room")).collect();
    assert!(open("192.0.2.1").is_none(), "the third of one client");
    let per_client = r#"scopegate_connections_refused_total{limit="connections_per_client"}"#;
    assert_eq!(scopegate.metric(per_client), 1.0);
    scopegate.event(|event| event["client"] == "192.0.2.1" && event["limit"] == "connections_per_client");
    // A trusted balancer behind the hop stands for many.
    let balancer: Vec<_> = (0..3).map(|_| open("10.0.0.7").expect("room")).collect();
    drop(one);
    eventually("the places", || open("192.0.2.1"));
    drop(balancer);
    let silent: Vec<_> = (0..20).map(|_| Client::connect(scopegate.address)).collect();
    eventually("a full house", || (scopegate.metric("scopegate_connections") == 8.0).then_some(()));
    drop(open("192.0.2.2").expect("the oldest that says nothing makes room"));
    assert!(scopegate.metric("scopegate_connections") <= 8.0);
    drop(silent);
    eventually("an empty house", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
    // Whom something is asked of is not sent away, whoever came first.
    let busy: Vec<_> = (0..8)
        .map(|number| {
            let mut client = Client::connect(scopegate.address);
            client.send([&v1(&format!("192.0.2.{number}"))[..], ask.as_bytes(), b"GET /health"].concat());
            assert_eq!(client.answer(false).status, 200);
            client
        })
        .collect();
    assert!(open("192.0.2.99").is_none(), "everybody is busy");
    drop(busy);
    eventually("an empty house", || (scopegate.metric("scopegate_connections") == 0.0).then_some(()));
}

/// Ended with the test.
struct Running(Child);

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn haproxy_says_who_its_clients_are() {
    if !installed("haproxy") {
        return;
    }
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).with("10.0.0.0/8", "10.0.0.0/9").start();
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("haproxy.cfg");
    let senders =
        ["send-proxy", "send-proxy-v2", "send-proxy-v2-ssl", "send-proxy-v2 proxy-v2-options crc32c"];
    let mut text =
        "defaults\n  mode tcp\n  timeout connect 5s\n  timeout client 5s\n  timeout server 5s\n".to_owned();
    let ports = senders.map(|sender| {
        let (port, to) = (free_port(), scopegate.address);
        text += &format!("listen l{port}\n  bind 127.0.0.1:{port}\n  server s {to} {sender} check check-send-proxy inter 100ms\n");
        port
    });
    fs::write(&file, text).expect("a file");
    let haproxy = Command::new("haproxy").arg("-db").arg("-f").arg(&file).stderr(Stdio::null()).spawn();
    let _haproxy = Running(haproxy.expect("haproxy"));
    for (port, sender) in ports.into_iter().zip(senders) {
        let to = ([127, 0, 0, 1], port).into();
        eventually("haproxy", || std::net::TcpStream::connect(to).ok());
        let mut client = Client::connect_from("127.0.0.9", to);
        assert_eq!(client.ask(request("GET", "/health", "", "")).status, 200, "{sender}");
        let seen = upstream.seen().pop().expect("a request");
        assert_eq!(seen.header("x-forwarded-for"), Some("127.0.0.9"), "{sender}");
    }
    // Its checks are its own, and nothing is wrong with them.
    for reason in ["untrusted", "missing", "malformed", "late"] {
        assert_eq!(refused(&scopegate, reason), 0.0, "{reason}");
    }
}

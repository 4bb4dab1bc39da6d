//! TLS, and what else a listener may ask for: PROXY headers, HTTPS alone, channels on a certificate.

use std::fs;
use std::net::TcpStream;
use std::sync::Arc;

use rcgen::{CertificateParams, SanType};
use tungstenite::http::Uri;
use tungstenite::{ClientRequestBuilder, Message, WebSocket};

use crate::channel::echo;
use crate::harness::certificates::{Authority, ONE, curl, failed, said};
use crate::harness::client::{Client, request};
use crate::harness::handshake::{Stream, believer, shake};
use crate::harness::scopegate::{ALL, APPS, Scopegate, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

const LISTEN: &str = "listen: [{ address: 127.0.0.1:0 }]";

fn start(setup: Setup, authority: &Authority) -> Scopegate {
    let folder = setup.write();
    authority.server(&["a.example"]).write(folder.path(), "a");
    fs::write(folder.path().join("ca.pem"), &authority.pem).expect("a file");
    let scopegate = Scopegate::start(folder);
    scopegate.ready();
    scopegate
}

#[test]
fn a_client_is_known_by_its_proxy_header_and_its_scheme_by_the_socket() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    for (asked, flags) in [
        ("https_only: refuse", &[][..]),
        ("https_only: redirect, proxy_protocol: required", &["--haproxy-protocol"][..]),
    ] {
        let listen = format!("listen: [{{ address: 127.0.0.1:0, {asked}, tls: {{ {ONE} }} }}]");
        let setup = Setup::new(&upstream).with(LISTEN, &listen).and("trusted_proxies: [127.0.0.1]");
        let scopegate = start(setup, &authority);
        let folder = scopegate.folder.path();
        for version in ["--http1.1", "--http2"] {
            let show = [&[version, "-w", "\n%{http_code}"], flags].concat();
            let output = curl(scopegate.address, folder, "a.example", &show);
            assert!(said(&output).ends_with("\n200"), "{asked}: {}", said(&output));
        }
        // What is behind a header is TLS: a connection without one is closed.
        if !flags.is_empty() {
            assert!(!curl(scopegate.address, folder, "a.example", &[]).status.success());
        }
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-proto") == Some("https")) && seen.len() == 4);
}

#[test]
fn who_says_nothing_makes_room_and_holds_up_no_drain() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {ONE}, handshake: 10m }} }}]");
    let setup = Setup::new(&upstream)
        .with(LISTEN, &listen)
        .with("grace: 5s", "grace: 10m")
        .and("limits: { connections: 2 }");
    let mut scopegate = start(setup, &authority);
    let silent: Vec<_> = (0..2).map(|_| TcpStream::connect(scopegate.address).expect("a place")).collect();
    eventually("both inside", || (scopegate.metric("scopegate_connections") == 2.0).then_some(()));
    let output = curl(scopegate.address, scopegate.folder.path(), "a.example", &["-w", "\n%{http_code}"]);
    assert!(said(&output).ends_with("\n200"), "{}", said(&output));
    scopegate.signal("TERM");
    assert!(scopegate.wait_exit().success(), "before it would be killed");
    drop(silent);
}

/// A channel of who has a certificate of this name, and this key.
fn open(scopegate: &Scopegate, authority: &Authority, who: &str, key: &str) -> WebSocket<Stream> {
    let name = |params: &mut CertificateParams| {
        let id = format!("spiffe://acme/{who}").try_into().expect("a URI");
        params.subject_alt_names.push(SanType::URI(id));
    };
    let client = Arc::new(believer(authority, Some(&authority.make(&[], 7, name)), |_| {}));
    let stream = shake(scopegate.address, "a.example", &client).expect("a handshake");
    let request = ClientRequestBuilder::new(Uri::from_static("ws://a.example/ws/calls"));
    let (channel, answer) =
        tungstenite::client(request.with_header("X-API-Key", key), stream).expect("a channel");
    assert_eq!(answer.status(), 101);
    channel
}

fn says(channel: &mut WebSocket<Stream>, text: &str) -> Message {
    channel.send(Message::text(text)).expect("a channel");
    channel.read().expect("a channel")
}

fn is_told(channel: &mut WebSocket<Stream>) {
    let told = channel.read().expect("a reason").into_text().expect("a text");
    assert!(told.contains("key_revoked"), "{told}");
    let goodbye = channel.read().expect("a goodbye");
    let Message::Close(Some(close)) = goodbye else { panic!("it is told why, not {goodbye:?}") };
    assert_eq!(u16::from(close.code), 4001);
}

#[test]
fn a_channel_over_tls_lives_as_long_as_all_that_it_was_opened_with() {
    let (upstream, authority) = (echo(), Authority::new());
    let tls = format!("{ONE}, client_certificates: {{ ca: ca.pem, required: true }}");
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {tls} }} }}]");
    for access in ["certificate", "key_and_certificate"] {
        let mut setup = Setup::new(&upstream).with(LISTEN, &listen);
        setup.config += &format!(
            "  calls: {{ access: {access}, upgrade: websocket, routes: {{ GET /ws/calls: READ_TEAM_APPS }} }}\n"
        );
        for who in ["one", "two", "three"] {
            setup.keys += &format!(
                "  - {{ id: id-{who}, team: acme, certificate: 'spiffe://acme/{who}', scopes: [READ_TEAM_APPS] }}\n"
            );
        }
        let scopegate = start(setup, &authority);
        let open = |who: &str, key: &str| open(&scopegate, &authority, who, key);
        let (mut one, mut two, mut three) = (open("one", ALL), open("two", ALL), open("three", APPS));
        for channel in [&mut one, &mut two, &mut three] {
            let much = "x".repeat(100_000);
            assert_eq!(says(channel, &much), Message::text(&much));
        }
        scopegate.edit("keys.yaml", "'spiffe://acme/one', ", "'spiffe://acme/one', disabled: true, ");
        is_told(&mut one);
        assert_eq!(says(&mut two, "still here"), Message::text("still here"));
        if access == "certificate" {
            continue;
        }
        // It moves to another team than its certificate's; then the other's key dies.
        scopegate.edit("keys.yaml", "id: id-apps, team: acme,", "id: id-apps, team: poor,");
        is_told(&mut three);
        scopegate.edit("keys.yaml", "id: id-all, team: acme,", "id: id-all, disabled: true, team: acme,");
        is_told(&mut two);
    }
}

#[test]
fn who_speaks_in_plain_where_tls_is_spoken_is_refused_and_sent_nowhere() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    for asked in ["https_only: off", "https_only: redirect"] {
        let listen = format!("listen: [{{ address: 127.0.0.1:0, {asked}, tls: {{ {ONE} }} }}]");
        let setup = Setup::new(&upstream).with(LISTEN, &listen).and("trusted_proxies: [127.0.0.1]");
        let scopegate = start(setup, &authority);
        for (method, target, more) in [
            ("GET", "/health", ""),
            ("HEAD", "/health", ""),
            ("GET", "/api/v1/apps", "X-Forwarded-Proto: https\r\n"),
            ("POST", "/nowhere", "Forwarded: proto=https\r\n"),
        ] {
            let mut client = Client::connect(scopegate.address);
            let answer = client.ask(request(method, target, &(bearer(ALL) + more), ""));
            assert_eq!((answer.status, answer.reason()), (403, "https_required"), "{method} {more}");
            assert_eq!(answer.header("location"), None);
            assert!(method == "HEAD" || answer.json()["error"]["code"] == "https_required");
            let id = answer.header("x-request-id").expect("an id").to_owned();
            let line = scopegate.log_line(|line| line["id"] == id.as_str());
            assert_eq!(line["reason"], "https_required");
        }
        failed(&scopegate, "not_tls");
        let answer = Client::connect(scopegate.address).ask("EHLO a.example\r\n\r\n");
        assert_eq!(answer.reason(), "request_invalid");
    }
    assert!(upstream.seen().is_empty());
}

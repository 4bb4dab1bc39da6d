//! TLS, and what else a listener may ask for: PROXY headers, HTTPS alone, channels on a certificate.

use std::fs;
use std::net::TcpStream;
use std::path::Path;
use std::sync::Arc;

use rcgen::{CertificateParams, SanType};
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject as _;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer, ServerName};
use tokio_rustls::rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};
use tungstenite::{Message, WebSocket};

use crate::channel::echo;
use crate::harness::certificates::{Authority, ONE, curl, said};
use crate::harness::eventually;
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

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

/// A client over TLS that proves itself with a certificate of this name.
fn connect(scopegate: &Scopegate, folder: &Path, who: &str) -> StreamOwned<ClientConnection, TcpStream> {
    let mut roots = RootCertStore::empty();
    roots.add(CertificateDer::from_pem_file(folder.join("ca.pem")).expect("PEM")).expect("a root");
    let chain = vec![CertificateDer::from_pem_file(folder.join(format!("{who}.crt"))).expect("PEM")];
    let key = PrivateKeyDer::from_pem_file(folder.join(format!("{who}.key"))).expect("PEM");
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(roots)
        .with_client_auth_cert(chain, key)
        .expect("a pair");
    let name = ServerName::try_from("a.example").expect("a name");
    let connection = ClientConnection::new(Arc::new(config), name).expect("a client");
    StreamOwned::new(connection, TcpStream::connect(scopegate.address).expect("a connection"))
}

#[test]
fn a_channel_over_tls_lives_as_long_as_the_certificate_it_was_opened_with() {
    let (upstream, authority) = (echo(), Authority::new());
    let tls = format!("{ONE}, client_certificates: {{ ca: ca.pem, required: true }}");
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {tls} }} }}]");
    let mut setup = Setup::new(&upstream).with(LISTEN, &listen);
    setup.config +=
        "  calls: { access: certificate, upgrade: websocket, routes: { GET /ws/calls: READ_TEAM_APPS } }\n";
    for who in ["one", "two"] {
        setup.keys += &format!(
            "  - {{ id: id-{who}, team: acme, certificate: 'spiffe://acme/{who}', scopes: [READ_TEAM_APPS] }}\n"
        );
    }
    let scopegate = start(setup, &authority);
    let folder = scopegate.folder.path();
    let mut channels = ["one", "two"].map(|who| {
        let name = |params: &mut CertificateParams| {
            let id = format!("spiffe://acme/{who}").try_into().expect("a URI");
            params.subject_alt_names.push(SanType::URI(id));
        };
        authority.make(&[], 7, name).write(folder, who);
        let stream = connect(&scopegate, folder, who);
        let (channel, answer) = tungstenite::client("ws://a.example/ws/calls", stream).expect("a channel");
        assert_eq!(answer.status(), 101);
        channel
    });
    let says = |channel: &mut WebSocket<_>, text: &str| {
        channel.send(Message::text(text)).expect("a channel");
        channel.read().expect("a channel")
    };
    for channel in &mut channels {
        let much = "x".repeat(100_000);
        assert_eq!(says(channel, &much), Message::text(&much));
    }
    scopegate.edit("keys.yaml", "'spiffe://acme/one', ", "'spiffe://acme/one', disabled: true, ");
    let [one, two] = &mut channels;
    let told = one.read().expect("a reason").into_text().expect("a text");
    assert!(told.contains("key_revoked"), "{told}");
    let goodbye = one.read().expect("a goodbye");
    let Message::Close(Some(close)) = goodbye else { panic!("it is told why, not {goodbye:?}") };
    assert_eq!(u16::from(close.code), 4001);
    assert_eq!(says(two, "still here"), Message::text("still here"));
}

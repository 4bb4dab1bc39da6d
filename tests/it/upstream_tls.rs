//! Upstreams that speak TLS: believed where an authority vouches for them, and nowhere else.

use std::fs;
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use crate::channel::echo;
use crate::harness::certificates::Authority;
use crate::harness::client::{Client, ask, get, request};
use crate::harness::scopegate::{ALL, Scopegate, Setup};
use crate::harness::tls;
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

/// scopegate in front of what speaks TLS at this address.
fn start(upstream: &Upstream, secured: SocketAddr, trust: &str, write: impl FnOnce(&Path)) -> Scopegate {
    let plain = format!("telapi: {{ address: {} }}", upstream.address);
    let under = format!("telapi: {{ address: '{secured}', tls: {trust} }}");
    let folder = Setup::new(upstream).with(&plain, &under).write();
    write(folder.path());
    let scopegate = Scopegate::start(folder);
    scopegate.ready();
    scopegate
}

#[test]
fn everything_passes_as_it_does_in_plain() {
    let (upstream, authority) = (echo(), tls::Authority::new());
    let secured = authority.vouch("telapi.internal", upstream.address);
    let trust = "{ ca_file: ca.pem, server_name: telapi.internal }";
    let scopegate = start(&upstream, secured, trust, |folder| {
        fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
    });
    let body = "x".repeat(300_000);
    let mut client = Client::connect(scopegate.address);
    for _ in 0..3 {
        assert_eq!(client.ask(request("GET", "/api/v1/apps", &bearer(ALL), "")).body, b"hello");
        let posted = client.ask(request("POST", "/api/v1/call-tokens", &bearer(ALL), &body));
        assert_eq!((posted.status, posted.body), (200, b"hello".to_vec()));
    }
    let seen = upstream.seen();
    assert!(seen.iter().filter(|seen| seen.method == "POST").all(|seen| seen.body == body.as_bytes()));
    assert_eq!(
        (seen.len(), scopegate.metric("scopegate_upstream_connects_total{upstream=\"telapi\"}")),
        (6, 1.0)
    );
    let (mut channel, _) = tungstenite::client(
        format!("ws://{}/ws/session?sessionId=s&token=t", scopegate.address),
        std::net::TcpStream::connect(scopegate.address).expect("a connection"),
    )
    .expect("a channel");
    for text in ["one", &"y".repeat(100_000)] {
        channel.send(tungstenite::Message::text(text)).expect("a channel");
        assert_eq!(channel.read().expect("an echo"), tungstenite::Message::text(text));
    }
}

#[test]
fn who_cannot_prove_who_it_is_gets_no_request() {
    let (upstream, ours, foreign) = (Upstream::start(), tls::Authority::new(), tls::Authority::new());
    let (good, other) = ("telapi.internal", "other.internal");
    for (secured, detail) in [
        (ours.vouch(other, upstream.address), "not valid for name"),
        (foreign.vouch(good, upstream.address), "invalid peer certificate"),
        // It speaks no TLS at all.
        (upstream.address, "no TLS with"),
    ] {
        let trust = format!("{{ ca_file: ca.pem, server_name: {good} }}");
        let scopegate = start(&upstream, secured, &trust, |folder| {
            fs::write(folder.join("ca.pem"), ours.pem()).expect("a file");
        });
        let answer = ask(scopegate.address, "POST", "/api/v1/call-tokens", &bearer(ALL), "x");
        assert_eq!((answer.status, answer.reason()), (502, "upstream_tls"), "{detail}");
        let line = scopegate.log_line(|line| line["reason"] == "upstream_tls");
        assert!(line["detail"].as_str().is_some_and(|told| told.contains(detail)), "{detail}: {line}");
        let told = Command::new(env!("CARGO_BIN_EXE_scopegate"))
            .args(["check", "--connect"])
            .arg(scopegate.file("scopegate.yaml"))
            .output()
            .expect("the program");
        assert!(!told.status.success() && String::from_utf8_lossy(&told.stderr).contains("no TLS with"));
    }
    // What speaks no TLS may take the handshake for a request; ours never comes.
    assert!(upstream.seen().iter().all(|seen| seen.method != "POST"));
}

/// It ends with the test, whatever comes of that; there is no other process of it.
struct Nginx(Child);

impl Drop for Nginx {
    fn drop(&mut self) {
        let _ = (self.0.kill(), self.0.wait());
    }
}

/// A real server that is believed by `server.crt` and believes whom `ca.pem` vouches for.
fn nginx(folder: &Path, port: u16) -> Nginx {
    let conf = format!(
        "daemon off; master_process off; pid {folder}/pid; error_log {folder}/error; events {{}} http {{ access_log off; \
         client_body_temp_path {folder}/b; proxy_temp_path {folder}/p; fastcgi_temp_path {folder}/f; \
         uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s; server {{ listen 127.0.0.1:{port} ssl; \
         ssl_certificate {folder}/server.crt; ssl_certificate_key {folder}/server.key; \
         ssl_client_certificate {folder}/ca.pem; ssl_verify_client on; \
         location / {{ return 200 $ssl_client_s_dn; }} }} }}",
        folder = folder.display()
    );
    fs::write(folder.join("nginx.conf"), conf).expect("a file");
    let mut command = Command::new("nginx");
    command.arg("-p").arg(folder).arg("-c").arg(folder.join("nginx.conf"));
    Nginx(command.stdout(Stdio::null()).stderr(Stdio::null()).spawn().expect("nginx, of nginx-light"))
}

#[test]
fn who_we_are_is_shown_to_nginx_and_read_again_when_it_changes() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let there = tempfile::tempdir().expect("a folder");
    authority.server(&["127.0.0.1"]).write(there.path(), "server");
    fs::write(there.path().join("ca.pem"), &authority.pem).expect("a file");
    let port =
        std::net::TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr()).expect("a port").port();
    let _server = nginx(there.path(), port);
    let secured = SocketAddr::from(([127, 0, 0, 1], port));
    eventually("nginx", || std::net::TcpStream::connect(secured).ok());
    let trust = "{ ca_file: ca.pem, certificate: us.crt, key: us.key }";
    let scopegate = start(&upstream, secured, trust, |folder| {
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
        Authority::new().server(&["stranger"]).write(folder, "us");
    });
    // nginx does not know whoever vouches for this one.
    assert_eq!(get(scopegate.address, "/api/v1/apps", &bearer(ALL)).status, 400);
    authority.server(&["us"]).write(scopegate.folder.path(), "us");
    eventually("the new certificate", || {
        (get(scopegate.address, "/api/v1/apps", &bearer(ALL)).status == 200).then_some(())
    });
    fs::write(scopegate.file("us.key"), "no key").expect("a file");
    scopegate.event(|event| {
        event["problem"].as_str().is_some_and(|told| told.contains("there is no private key"))
    });
    assert_eq!(get(scopegate.address, "/api/v1/apps", &bearer(ALL)).status, 200);
}

#[test]
fn the_systems_authorities_are_believed_where_that_is_written() {
    let (upstream, authority) = (Upstream::start(), tls::Authority::new());
    let secured = authority.vouch("localhost", upstream.address);
    let plain = format!("telapi: {{ address: {} }}", upstream.address);
    let under = format!("telapi: {{ address: 'localhost:{}', tls: system }}", secured.port());
    let folder = Setup::new(&upstream).with(&plain, &under).write();
    let pem = |name: &str, authority: &tls::Authority| {
        let file = folder.path().join(name);
        fs::write(&file, authority.pem()).expect("a file");
        file
    };
    for (file, wanted) in
        [(pem("ca.pem", &authority), true), (pem("other.pem", &tls::Authority::new()), false)]
    {
        let mut command = Command::new(env!("CARGO_BIN_EXE_scopegate"));
        command.args(["check", "--connect"]).arg(folder.path().join("scopegate.yaml"));
        let output = command.env("SSL_CERT_FILE", file).output().expect("the program");
        assert_eq!(output.status.success(), wanted, "{output:?}");
    }
}

#[test]
fn files_that_were_only_touched_are_no_change() {
    let (upstream, authority) = (Upstream::start(), tls::Authority::new());
    let secured = authority.vouch("telapi.internal", upstream.address);
    let trust = "{ ca_file: ca.pem, server_name: telapi.internal }";
    let scopegate = start(&upstream, secured, trust, |folder| {
        fs::write(folder.join("ca.pem"), authority.pem()).expect("a file");
    });
    let applied = || scopegate.metric("scopegate_reloads_total{file=\"tls\",result=\"applied\"}");
    scopegate.replace("ca.pem", &authority.pem());
    // A change beside it is heard later.
    scopegate.edit("keys.yaml", "id: id-all", "id: id-every");
    eventually("the change", || {
        let keys = "scopegate_reloads_total{file=\"keys\",result=\"applied\"}";
        (scopegate.metric(keys) == 1.0).then_some(())
    });
    scopegate.signal("HUP");
    scopegate.event(|event| event["message"] == "told to reload");
    scopegate.replace("ca.pem", &(authority.pem() + &tls::Authority::new().pem()));
    eventually("another authority", || (applied() >= 1.0).then_some(()));
    assert_eq!(applied(), 1.0);
}

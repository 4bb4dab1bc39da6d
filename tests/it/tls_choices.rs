//! What a client and a listener agree on.

use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rcgen::PKCS_ED25519;
use tokio_rustls::rustls::NamedGroup::{self, X25519, X25519MLKEM768, secp256r1};
use tokio_rustls::rustls::crypto::CryptoProvider;

use crate::harness::certificates::{Authority, ONE, s_client, start};
use crate::harness::handshake::{believer, shake};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;

#[test]
fn the_hybrid_group_is_used_by_all_who_have_it() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| authority.server(&["a.example"]).write(folder, "a"));
    let check = |groups: &[NamedGroup], old: bool, wanted: NamedGroup| {
        let in_this_order = |provider: &mut CryptoProvider| {
            let known = std::mem::take(&mut provider.kx_groups);
            let find = |name: &NamedGroup| known.iter().find(|group| group.name() == *name).copied();
            provider.kx_groups = groups.iter().map(|name| find(name).expect("a group")).collect();
            if old {
                provider.cipher_suites.retain(|suite| suite.tls13().is_none());
            }
        };
        let client = Arc::new(believer(&authority, None, in_this_order));
        let stream = shake(scopegate.address, "a.example", &client).expect("a handshake");
        let used = stream.conn.negotiated_key_exchange_group().expect("a group").name();
        assert_eq!(used, wanted, "{groups:?} {old}");
    };
    check(&[X25519MLKEM768, X25519], false, X25519MLKEM768);
    check(&[X25519, X25519MLKEM768], false, X25519MLKEM768);
    check(&[secp256r1, X25519, X25519MLKEM768], false, X25519MLKEM768);
    check(&[X25519, secp256r1], false, X25519);
    check(&[secp256r1], false, secp256r1);
    // There is none of it in TLS 1.2.
    check(&[X25519MLKEM768, X25519], true, X25519);
}

#[test]
fn of_two_certificates_for_a_name_a_client_gets_one_that_it_can_verify() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let tls = "certificates: [{ certificate: a.crt, key: a.key }, { certificate: b.crt, key: b.key }]";
    let scopegate = start(&upstream, tls, |folder| {
        authority.make(&["a.example"], 10, |_| {}).write(folder, "a");
        authority.make_with(&PKCS_ED25519, "a.example", 20).write(folder, "b");
    });
    let check = |algorithms: &str, wanted: &str| {
        let told = s_client(scopegate.address, &["-servername", "a.example", "-sigalgs", algorithms]);
        assert!(told.contains(&format!("a:PKEY: {wanted},")), "{algorithms}: {told}");
    };
    check("ed25519:ecdsa_secp256r1_sha256", "id-ecPublicKey");
    check("ecdsa_secp256r1_sha256", "id-ecPublicKey");
    check("ed25519", "ED25519");
}

#[test]
fn what_was_agreed_on_is_spoken() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| authority.server(&["a.example"]).write(folder, "a"));
    let http1 = &b"GET /health HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n"[..];
    let http2 = &b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"[..];
    for (offered, sent, wanted) in [
        (&[][..], http1, &b"HTTP/1.1 200"[..]),
        (&["http/1.1"], http1, b"HTTP/1.1 200"),
        (&["h2", "http/1.1"], http2, b"\0\0"),
        (&[], http2, b"\0\0"),
        // One is spoken, and the other was agreed on: no request is heard.
        (&["http/1.1"], http2, b"HTTP/1.1 505"),
        (&["h2"], http1, b"\0\0"),
    ] {
        let mut client = believer(&authority, None, |_| {});
        client.alpn_protocols = offered.iter().map(|name| name.as_bytes().to_vec()).collect();
        let mut stream = shake(scopegate.address, "a.example", &Arc::new(client)).expect("a handshake");
        stream.write_all(sent).expect("a connection");
        let mut begin = vec![0; wanted.len()];
        stream.read_exact(&mut begin).expect("an answer");
        assert_eq!(begin, wanted, "{offered:?} {}", String::from_utf8_lossy(sent));
    }
    assert_eq!(upstream.seen().len(), 2);
}

#[test]
fn who_says_nothing_is_told_when_the_connection_ends() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {ONE} }} }}]");
    let setup = Setup::new(&upstream).with("listen: [{ address: 127.0.0.1:0 }]", &listen);
    let folder = setup.and("timeouts: { head: 200ms }").write();
    authority.server(&["a.example"]).write(folder.path(), "a");
    let scopegate = Scopegate::start(folder);
    let client = Arc::new(believer(&authority, None, |_| {}));
    let mut stream = shake(scopegate.address, "a.example", &client).expect("a handshake");
    // An end without a goodbye is an error here.
    assert_eq!(stream.read(&mut [0]).expect("a goodbye"), 0);
}

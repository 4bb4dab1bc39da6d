//! What a client and a listener agree on.

use std::sync::Arc;

use tokio_rustls::rustls::NamedGroup::{self, X25519, X25519MLKEM768, secp256r1};
use tokio_rustls::rustls::crypto::CryptoProvider;

use crate::harness::certificates::{Authority, ONE, start};
use crate::harness::handshake::{believer, shake};
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

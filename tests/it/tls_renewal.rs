//! Certificates, authorities and lists that change while the program runs.

use std::fs;
use std::io::{Read as _, Write as _};
use std::sync::Arc;

use rcgen::{CertificateParams, date_time_ymd};
use tokio_rustls::rustls::{ClientConfig, HandshakeKind};

use crate::harness::certificates::{Authority, Made, ONE, failed, start};
use crate::harness::eventually;
use crate::harness::handshake::{Stream, believer, serial, shake};
use crate::harness::scopegate::Scopegate;
use crate::harness::upstream::Upstream;

const BROKEN: &str = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";

fn reloads(scopegate: &Scopegate, result: &str) -> f64 {
    scopegate.metric(&format!("scopegate_reloads_total{{file=\"tls\",result=\"{result}\"}}"))
}

/// The status of an answer over HTTP/1.1; 0 where the connection is closed instead.
fn ask(stream: &mut Stream) -> u16 {
    let request = "GET /health HTTP/1.1\r\nHost: a.example\r\nConnection: close\r\n\r\n";
    let mut answer = Vec::new();
    if stream.write_all(request.as_bytes()).is_err() || stream.read_to_end(&mut answer).is_err() {
        return 0;
    }
    let text = String::from_utf8_lossy(&answer).into_owned();
    text.split(' ').nth(1).map_or(0, |status| status.parse().expect("a status"))
}

fn passes(scopegate: &Scopegate, config: &Arc<ClientConfig>) -> bool {
    shake(scopegate.address, "a.example", config).is_ok_and(|mut stream| ask(&mut stream) == 200)
}

fn shown(scopegate: &Scopegate, name: &str, config: &Arc<ClientConfig>) -> u64 {
    serial(&shake(scopegate.address, name, config).expect("a handshake"))
}

fn replace(scopegate: &Scopegate, name: &str, made: &Made) {
    scopegate.replace(&format!("{name}.crt"), &made.certificate);
    scopegate.replace(&format!("{name}.key"), &made.key);
}

fn expired(params: &mut CertificateParams) {
    params.not_after = date_time_ymd(2020, 1, 1);
}

#[test]
fn what_is_broken_holds_back_nothing_else() {
    let (upstream, authority, other) = (Upstream::start(), Authority::new(), Authority::new());
    let tls = "certificates: [{ certificate: a.crt, key: a.key }, { certificate: b.crt, key: b.key }],
        client_certificates: { ca: ca.pem, required: true, crl: [one.pem, two.pem] }";
    let scopegate = start(&upstream, tls, |folder| {
        authority.make(&["a.example"], 10, |_| {}).write(folder, "a");
        authority.make(&["b.example"], 20, |_| {}).write(folder, "b");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
        fs::write(folder.join("one.pem"), authority.list(99)).expect("a file");
        fs::write(folder.join("two.pem"), other.list(99)).expect("a file");
    });
    let client = |authority_of: &Authority, serial| {
        let own = authority_of.make(&["client.example"], serial, |_| {});
        Arc::new(believer(&authority, Some(&own), |_| {}))
    };
    let (good, stolen, foreign) = (client(&authority, 2), client(&authority, 3), client(&other, 4));
    assert!(passes(&scopegate, &good) && passes(&scopegate, &stolen) && !passes(&scopegate, &foreign));
    let refused = |count: f64| {
        eventually("a refusal", || (reloads(&scopegate, "refused") >= count).then_some(()));
    };
    // A broken certificate and a broken list hold back neither a revocation, nor an authority, nor a renewal.
    scopegate.replace("b.crt", BROKEN);
    refused(1.0);
    scopegate.replace("two.pem", "no list");
    refused(2.0);
    scopegate.replace("one.pem", &authority.list(3));
    eventually("the revocation", || (!passes(&scopegate, &stolen)).then_some(()));
    scopegate.replace("ca.pem", &format!("{}{}", authority.pem, other.pem));
    eventually("the new authority", || passes(&scopegate, &foreign).then_some(()));
    replace(&scopegate, "a", &authority.make(&["a.example"], 11, |_| {}));
    eventually("the new certificate", || (shown(&scopegate, "a.example", &good) == 11).then_some(()));
    // Broken authorities hold back nothing either, and what was good before is still so.
    scopegate.replace("ca.pem", BROKEN);
    scopegate.replace("one.pem", &authority.list(2));
    eventually("the next revocation", || (!passes(&scopegate, &good)).then_some(()));
    assert!(passes(&scopegate, &stolen) && passes(&scopegate, &foreign));
    assert_eq!(shown(&scopegate, "b.example", &stolen), 20);
    for file in ["b.crt", "two.pem", "ca.pem"] {
        scopegate.event(|event| {
            let told = |name: &str| event[name].as_str().unwrap_or_default();
            told("message").contains("refused") && told("files").contains(file)
        });
    }
}

#[test]
fn a_certificate_that_has_ended_replaces_none_that_has_not() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let tls = "certificates: [{ certificate: a.crt, key: a.key }, { certificate: b.crt, key: b.key }]";
    let scopegate = start(&upstream, tls, |folder| {
        authority.make(&["a.example"], 10, |_| {}).write(folder, "a");
        // One that had ended before is no excuse for another.
        authority.make(&["b.example"], 20, expired).write(folder, "b");
    });
    let client = Arc::new(believer(&authority, None, |_| {}));
    replace(&scopegate, "a", &authority.make(&["a.example"], 11, expired));
    scopegate.event(|event| {
        event["problem"].as_str().is_some_and(|told| told.contains("a.crt: error: has expired"))
    });
    assert_eq!(shown(&scopegate, "a.example", &client), 10);
    replace(&scopegate, "b", &authority.make(&["b.example"], 21, |_| {}));
    eventually("the new certificate", || {
        shake(scopegate.address, "b.example", &client).is_ok_and(|stream| serial(&stream) == 21).then_some(())
    });
    assert_eq!(shown(&scopegate, "a.example", &client), 10);
}

#[test]
fn a_session_outlives_the_certificate_that_it_began_with() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| authority.server(&["a.example"]).write(folder, "a"));
    let client = Arc::new(believer(&authority, None, |_| {}));
    let shake = || shake(scopegate.address, "a.example", &client).expect("a handshake");
    assert_eq!(ask(&mut shake()), 200);
    replace(&scopegate, "a", &authority.make(&["a.example"], 11, |_| {}));
    eventually("the new certificate", || (reloads(&scopegate, "applied") >= 1.0).then_some(()));
    assert_eq!(shake().conn.handshake_kind(), Some(HandshakeKind::Resumed));
}

#[test]
fn a_list_for_which_a_newer_one_was_due_lets_nobody_in_unless_that_is_wanted() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let own = authority.make(&["client.example"], 2, |_| {});
    let client = Arc::new(believer(&authority, Some(&own), |_| {}));
    for (more, passes_then) in [("", false), (", crl_expired: accept", true)] {
        let tls =
            format!("{ONE}, client_certificates: {{ ca: ca.pem, required: true, crl: [crl.pem]{more} }}");
        let scopegate = start(&upstream, &tls, |folder| {
            authority.server(&["a.example"]).write(folder, "a");
            fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
            fs::write(folder.join("crl.pem"), authority.list_until(99, 2021)).expect("a file");
        });
        assert_eq!(passes(&scopegate, &client), passes_then, "{more}");
        if !passes_then {
            failed(&scopegate, "revocation_list_expired");
        }
        scopegate.event(|event| {
            let told = event["problem"].as_str().unwrap_or_default();
            told.contains(
                "crl.pem: warning: this revocation list has expired: a newer one was due at 2021-01-01",
            )
        });
        let file = scopegate.file("crl.pem");
        let due =
            format!("scopegate_revocation_list_expiry_timestamp_seconds{{file=\"{}\"}}", file.display());
        eventually("when it was due", || (scopegate.metric(&due) == 1_609_459_200.0).then_some(()));
        // A newer one lets in again, and does not give way to one that has ended.
        scopegate.replace("crl.pem", &authority.list(99));
        eventually("the newer list", || (scopegate.metric(&due) > 2.0e9).then_some(()));
        assert!(passes(&scopegate, &client));
        scopegate.replace("crl.pem", &authority.list_until(99, 2022));
        eventually("a refusal", || (reloads(&scopegate, "refused") == 1.0).then_some(()));
        assert!(passes(&scopegate, &client));
    }
}

#[test]
fn an_authority_that_was_taken_back_vouches_for_nobody_unless_the_client_alone_is_asked_about() {
    let (upstream, root) = (Upstream::start(), Authority::new());
    let between = root.below(7);
    let mut own = between.make(&["client.example"], 2, |_| {});
    own.certificate += &between.pem;
    let client = Arc::new(believer(&root, Some(&own), |_| {}));
    for (depth, lists, wanted) in [
        ("chain", [root.list(99), between.list(99)], true),
        ("chain", [root.list(7), between.list(99)], false),
        ("chain", [root.list(99), between.list(2)], false),
        ("chain", [between.list(99), between.list(99)], false),
        ("leaf", [root.list(7), between.list(99)], true),
        ("leaf", [between.list(99), between.list(99)], true),
        ("leaf", [root.list(99), between.list(2)], false),
    ] {
        let clients =
            format!("{{ ca: ca.pem, required: true, crl: [one.pem, two.pem], crl_depth: {depth} }}");
        let scopegate = start(&upstream, &format!("{ONE}, client_certificates: {clients}"), |folder| {
            root.server(&["a.example"]).write(folder, "a");
            fs::write(folder.join("ca.pem"), &root.pem).expect("a file");
            for (name, list) in ["one.pem", "two.pem"].iter().zip(&lists) {
                fs::write(folder.join(name), list).expect("a file");
            }
        });
        assert_eq!(passes(&scopegate, &client), wanted, "{depth}");
    }
}

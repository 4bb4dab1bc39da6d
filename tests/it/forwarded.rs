//! Where a request came from, and who says so.

use crate::harness::client::get;
use crate::harness::scopegate::{ALL, Setup};
use crate::harness::upstream::{Seen, Upstream};

const CLAIMS: &str = "X-Forwarded-For: 1.2.3.4\r\nX-Forwarded-For: 5.6.7.8\r\nX-Forwarded-Proto: https\r\nX-Forwarded-Host: evil.example\r\n\
                      X-Forwarded-Port: 443\r\nForwarded: for=1.2.3.4\r\nX-Real-IP: 1.2.3.4\r\nX_Forwarded_For: 9.9.9.9\r\nx.real.ip: 9.9.9.9\r\n\
                      Client-Cert: :AA==:\r\nClient-Cert-Chain: :BB==:\r\nclient_cert: :CC==:\r\n";

fn check(seen: &Seen, wanted: &[(&str, Option<&str>)]) {
    for (name, value) in wanted {
        assert_eq!(seen.header(name), *value, "{name} in {seen:?}");
    }
}

#[test]
fn an_untrusted_peer_is_not_believed_and_the_operator_is_told_once() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for target in ["/health", "/api/v1/webhooks/a"] {
        assert_eq!(get(scopegate.address, target, CLAIMS).status, 200);
        check(
            &upstream.seen().pop().expect("a request"),
            &[
                ("x-forwarded-for", Some("127.0.0.1")),
                ("x-forwarded-proto", Some("http")),
                ("x-forwarded-host", Some("telapi.example")),
                ("x-forwarded-port", None),
                ("forwarded", None),
                ("x-real-ip", None),
                ("x_forwarded_for", None),
                ("x.real.ip", None),
                ("client-cert", None),
                ("client-cert-chain", None),
                ("client_cert", None),
                ("host", Some("telapi.example")),
            ],
        );
    }
    scopegate.event(|event| event["level"] == "WARN" && event["peer"] == "127.0.0.1");
    assert_eq!(scopegate.metric("scopegate_untrusted_forwarded_total"), 2.0);
    assert_eq!(scopegate.everything_said().matches("outside trusted_proxies").count(), 1);
}

#[test]
fn a_trusted_proxy_is_believed_and_the_chain_goes_on() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("trusted_proxies: [127.0.0.0/8]").start();
    assert_eq!(get(scopegate.address, "/health", CLAIMS).status, 200);
    check(
        &upstream.nth(0),
        &[
            ("x-forwarded-for", Some("1.2.3.4, 5.6.7.8, 127.0.0.1")),
            ("x-forwarded-proto", Some("https")),
            ("x-forwarded-host", Some("evil.example")),
            ("x-forwarded-port", Some("443")),
            ("forwarded", Some("for=1.2.3.4")),
            ("x-real-ip", Some("1.2.3.4")),
            ("client-cert", Some(":AA==:")),
            ("client-cert-chain", Some(":BB==:")),
            ("client_cert", None),
            ("x_forwarded_for", None),
            ("x.real.ip", None),
        ],
    );
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    check(&upstream.nth(1), &[("x-forwarded-for", Some("127.0.0.1")), ("x-forwarded-proto", Some("http"))]);
}

#[test]
fn who_called_is_told_on_request_and_cannot_be_forged() {
    let forged = "X-Scopegate-Team: evil\r\nx_scopegate-team: evil\r\nX.Scopegate.Key.Id: evil\r\nX-Scopegate-Scopes: evil\r\n\
                  X-SCOPEGATE_ADMIN: evil\r\nConnection: X-Scopegate-Team, X-Forwarded-For, X-Request-Id\r\n";
    let key = format!("X-API-Key: {ALL}\r\n");
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("identity_headers: true").start();
    assert_eq!(get(scopegate.address, "/api/v1/apps", &(key.clone() + forged)).status, 200);
    check(
        &upstream.nth(0),
        &[
            ("x-scopegate-team", Some("acme")),
            ("x-scopegate-key-id", Some("id-all")),
            ("x-scopegate-scopes", Some("CREATE_CALL_TOKEN READ_CALL_TOKEN READ_TEAM_APPS")),
            ("x-forwarded-for", Some("127.0.0.1")),
        ],
    );
    assert!(upstream.nth(0).header("x-request-id").is_some());
    assert!(!format!("{:?}", upstream.nth(0)).contains("evil"));
    for target in ["/health", "/api/v1/webhooks/a"] {
        assert_eq!(get(scopegate.address, target, forged).status, 200);
        assert!(!format!("{:?}", upstream.seen().pop()).to_lowercase().contains("scopegate"), "{target}");
    }
    let scopegate = Setup::new(&upstream).start();
    assert_eq!(get(scopegate.address, "/api/v1/apps", &(key + forged)).status, 200);
    assert!(
        !format!("{:?}", upstream.seen().pop()).to_lowercase().contains("scopegate"),
        "not asked for, not told"
    );
}

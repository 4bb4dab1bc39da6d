//! Certificates of clients in place of keys, and beside them.

use std::fs;
use std::process::Command;

use rcgen::{CertificateParams, DistinguishedName, DnType, SanType};

use crate::harness::certificates::{Authority, ONE, said};
use crate::harness::eventually;
use crate::harness::scopegate::{ALL, POOR_TEAM, READ, Scopegate, Setup};
use crate::harness::upstream::Upstream;

#[test]
fn a_certificate_is_a_credential_like_a_key() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let tls = format!("{ONE}, client_certificates: {{ ca: ca.pem, required: false }}");
    let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {tls} }} }}]");
    let mut setup = Setup::new(&upstream).with("listen: [{ address: 127.0.0.1:0 }]", &listen);
    setup.config += "  \
  machines: { access: certificate, routes: { GET /m/read: READ_TEAM_APPS, GET /m/mint: CREATE_CALL_TOKEN } }
  both: { access: key_and_certificate, routes: { GET /both: READ_TEAM_APPS, GET /poor: { key_only: true } } }
";
    setup.keys +=
        "  - { id: id-machine, team: acme, certificate: 'spiffe://acme/machine', scopes: [READ_TEAM_APPS] }
  - { id: id-named, team: acme, certificate: 'CN=named', scopes: [READ_TEAM_APPS] }
  - { id: id-poor, team: poor, certificate: 'CN=poor', scopes: [] }
  - { id: id-old, team: acme, certificate: 'CN=old', scopes: [], expires: 2020-01-01 }
";
    let folder = setup.write();
    let named = |name: &'static str| {
        move |params: &mut CertificateParams| {
            params.distinguished_name = DistinguishedName::new();
            params.distinguished_name.push(DnType::CommonName, name);
        }
    };
    authority.server(&["a.example"]).write(folder.path(), "a");
    let spiffe = |id: &'static str| {
        move |params: &mut CertificateParams| {
            params.subject_alt_names.push(SanType::URI(id.try_into().expect("a URI")));
        }
    };
    authority.make(&[], 2, spiffe("spiffe://acme/machine")).write(folder.path(), "machine");
    authority.make(&[], 3, spiffe("spiffe://acme/other")).write(folder.path(), "other");
    authority.make(&[], 4, named("named")).write(folder.path(), "named");
    authority.make(&[], 5, named("named, O=x")).write(folder.path(), "odd");
    authority.make(&[], 6, named("poor")).write(folder.path(), "poor");
    authority.make(&[], 7, named("old")).write(folder.path(), "old");
    fs::write(folder.path().join("ca.pem"), &authority.pem).expect("a file");
    let scopegate = Scopegate::start(folder);
    scopegate.ready();
    let ask = |who: &str, key: &str, path: &str| {
        let address = scopegate.address;
        let port = address.port();
        let mut command = Command::new("curl");
        command.args(["-sS", "--max-time", "20", "--cacert"]).arg(scopegate.file("ca.pem"));
        command.args(["--resolve", &format!("a.example:{port}:127.0.0.1"), "-w", "%{http_code}"]);
        if !who.is_empty() {
            command.arg("--cert").arg(scopegate.file(&format!("{who}.crt")));
            command.arg("--key").arg(scopegate.file(&format!("{who}.key")));
        }
        if !key.is_empty() {
            command.args(["-H", &format!("X-API-Key: {key}")]);
        }
        let output = command.arg(format!("https://a.example:{port}{path}")).output().expect("curl");
        let text = said(&output);
        let status = text.get(text.len() - 3..).unwrap_or_default().to_owned();
        let reason =
            text.split("\"code\":\"").nth(1).and_then(|rest| rest.split('"').next()).unwrap_or_default();
        format!("{status} {reason}").trim().to_owned()
    };
    for (who, key, path, wanted) in [
        ("machine", "", "/m/read", "200"),
        ("named", "", "/m/read", "200"),
        ("machine", "", "/m/mint", "403 scope_missing"),
        ("other", "", "/m/read", "401 certificate_unknown"),
        ("odd", "", "/m/read", "401 certificate_unknown"),
        ("", "", "/m/read", "401 certificate_missing"),
        // A key opens nothing where a certificate is asked for, and a certificate nothing where a key is.
        ("", ALL, "/m/read", "401 certificate_missing"),
        ("other", ALL, "/m/read", "401 certificate_unknown"),
        ("", "certificate spiffe://acme/machine", "/api/v1/whoami", "401 key_malformed"),
        ("machine", "", "/api/v1/whoami", "401 key_missing"),
        ("machine", ALL, "/both", "200"),
        ("named", READ, "/both", "403 scope_missing"),
        ("machine", "sk_live_nobody", "/both", "401 key_unknown"),
        // The certificate has to be one of the key's team that may come in, but needs no scope of its own.
        ("poor", POOR_TEAM, "/poor", "200"),
        ("poor", ALL, "/both", "401 certificate_unknown"),
        ("other", ALL, "/both", "401 certificate_unknown"),
        ("odd", ALL, "/both", "401 certificate_unknown"),
        ("old", ALL, "/both", "401 key_expired"),
        ("machine", "", "/both", "401 key_missing"),
        ("", ALL, "/both", "401 certificate_missing"),
    ] {
        assert_eq!(ask(who, key, path), wanted, "{who} {key} {path}");
    }
    // The log says whose it was, beside the key.
    for (certificate, key) in [("spiffe://acme/machine", "id-machine"), ("CN=poor", "id-all")] {
        scopegate.log_line(|line| line["certificate"] == certificate && line["key"] == key);
    }
    let line = scopegate.log_line(|line| line["certificate"] == "CN=poor" && line["key"] == "id-all");
    assert_eq!(line["detail"], "it is of the team poor");
    // It is turned off as a key is.
    scopegate.edit("keys.yaml", "'spiffe://acme/machine', ", "'spiffe://acme/machine', disabled: true, ");
    eventually("the end of it", || (ask("machine", "", "/m/read") == "401 key_disabled").then_some(()));
    assert_eq!(ask("machine", ALL, "/both"), "401 key_disabled");
}

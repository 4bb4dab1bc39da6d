//! TLS towards clients, as curl and OpenSSL see it.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, SystemTime};

use rcgen::{CertificateParams, date_time_ymd};

use crate::harness::certificates::{Authority, ONE, curl, failed, s_client, said, start};
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;

#[test]
fn both_protocols_pass_and_the_upstream_is_told_the_scheme() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| {
        authority.server(&["a.example"]).write(folder, "a");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    });
    for (flag, version) in [("--http1.1", "1.1"), ("--http2", "2")] {
        for tls in ["--tlsv1.3", "--tls-max"] {
            let tls: &[&str] = if tls == "--tls-max" { &[tls, "1.2"] } else { &[tls] };
            let show = [&[flag, "-w", "\n%{http_code} %{http_version}"], tls].concat();
            let output = curl(scopegate.address, scopegate.folder.path(), "a.example", &show);
            assert!(said(&output).ends_with(&format!("\n200 {version}")), "{}", said(&output));
        }
    }
    let seen = upstream.seen();
    assert!(seen.iter().all(|seen| seen.header("x-forwarded-proto") == Some("https")) && seen.len() == 4);
    assert!(scopegate.metric("scopegate_tls_handshakes_total{kind=\"full\"}") >= 4.0);
    let file = scopegate.file("a.crt");
    let ends = format!("scopegate_certificate_expiry_timestamp_seconds{{file=\"{}\"}}", file.display());
    assert!(scopegate.metric(&ends) > 1.0e9);
}

#[test]
fn a_name_gets_the_certificate_that_is_for_it() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let certificates =
        "certificates: [{ certificate: a.crt, key: a.key }, { certificate: b.crt, key: b.key }]";
    for (more, unknown) in [("", Some("a.example")), (", unknown_name: refuse", None)] {
        let scopegate = start(&upstream, &format!("{certificates}{more}"), |folder| {
            authority.server(&["a.example"]).write(folder, "a");
            authority.server(&["b.example", "*.b.example"]).write(folder, "b");
        });
        let cases = [
            ("a.example", Some("a.example")),
            ("b.example", Some("b.example")),
            ("X.B.example", Some("b.example")),
            ("x.y.b.example", unknown),
            ("c.example", unknown),
        ];
        let names = |pem: String| {
            let mut child = Command::new("openssl")
                .args(["x509", "-noout", "-ext", "subjectAltName"])
                .stdin(Stdio::piped())
                .stdout(Stdio::piped())
                .stderr(Stdio::null())
                .spawn()
                .expect("openssl");
            std::io::Write::write_all(&mut child.stdin.take().expect("a pipe"), pem.as_bytes())
                .expect("a pipe");
            said(&child.wait_with_output().expect("openssl"))
        };
        for (asked, wanted) in cases {
            let got = names(s_client(scopegate.address, &["-servername", asked]));
            match wanted {
                Some(wanted) => assert!(got.contains(&format!("DNS:{wanted}")), "{asked}: {got}"),
                None => assert!(!got.contains("DNS:"), "{asked}: {got}"),
            }
        }
        assert!(names(s_client(scopegate.address, &["-noservername"])).contains("DNS:a.example"));
        if unknown.is_none() {
            failed(&scopegate, "unknown_name");
        }
    }
}

#[test]
fn a_session_is_resumed() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| authority.server(&["a.example"]).write(folder, "a"));
    for version in ["-tls1_2", "-tls1_3"] {
        let session = scopegate.file("session.pem");
        let session = session.to_str().expect("a path");
        // The ticket of TLS 1.3 comes behind the handshake: an answer is waited for.
        let ask = |more: &str| {
            let script = format!(
                "printf 'GET /health HTTP/1.1\\r\\nhost: a\\r\\nconnection: close\\r\\n\\r\\n' | timeout 20 openssl s_client \
                 -connect {} {version} -ign_eof {more} {session} 2>&1",
                scopegate.address
            );
            said(&Command::new("sh").args(["-c", &script]).output().expect("a shell"))
        };
        let first = ask("-sess_out");
        assert!(first.contains("HTTP/1.1 200") && first.contains("New, TLSv1"), "{first}");
        let second = ask("-sess_in");
        assert!(second.contains("HTTP/1.1 200") && second.contains("Reused, TLSv1"), "{second}");
        // The answer ended with the connection, and said so.
        assert!(!second.contains("unexpected eof"), "{second}");
    }
    assert_eq!(scopegate.metric("scopegate_tls_handshakes_total{kind=\"resumed\"}"), 2.0);
}

#[test]
fn a_handshake_that_fails_says_why_and_harms_nobody() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let tls = format!("{ONE}, min_version: '1.3', handshake: 300ms");
    let scopegate = start(&upstream, &tls, |folder| {
        authority.server(&["a.example"]).write(folder, "a");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    });
    s_client(scopegate.address, &["-tls1_2"]);
    failed(&scopegate, "no_shared_version");
    s_client(scopegate.address, &["-alpn", "smtp"]);
    failed(&scopegate, "no_shared_alpn");
    Client::connect(scopegate.address).send("\0\0\0\0");
    failed(&scopegate, "not_tls");
    let _silent = Client::connect(scopegate.address);
    failed(&scopegate, "timeout");
    // Who does not believe our authority.
    let other = curl(scopegate.address, scopegate.folder.path(), "a.example", &["--cacert", "/dev/null"]);
    assert!(!other.status.success());
    let good = curl(scopegate.address, scopegate.folder.path(), "a.example", &["-w", "%{http_code}"]);
    assert!(said(&good).ends_with("200"), "{}", said(&good));
}

#[test]
fn tls_on_a_plain_port_is_told_apart() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    s_client(scopegate.address, &[]);
    failed(&scopegate, "tls_on_plain_port");
}

#[test]
fn clients_prove_themselves_where_they_are_asked() {
    let (upstream, authority, foreign) = (Upstream::start(), Authority::new(), Authority::new());
    let tls = format!("{ONE}, client_certificates: {{ ca: ca.pem, required: true, crl: [crl.pem] }}");
    let scopegate = start(&upstream, &tls, |folder| {
        authority.server(&["a.example"]).write(folder, "a");
        authority.make(&["good.example"], 2, |_| {}).write(folder, "good");
        authority.make(&["revoked.example"], 3, |_| {}).write(folder, "revoked");
        let old = |params: &mut CertificateParams| params.not_after = date_time_ymd(2020, 1, 1);
        authority.make(&["old.example"], 4, old).write(folder, "old");
        foreign.make(&["foreign.example"], 5, |_| {}).write(folder, "foreign");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
        fs::write(folder.join("crl.pem"), authority.list(3)).expect("a file");
    });
    let folder = scopegate.folder.path();
    let ask = |name: &str| {
        let file = |end| PathBuf::from(folder).join(format!("{name}.{end}")).display().to_string();
        let (certificate, key) = (file("crt"), file("key"));
        let proof: &[&str] = if name.is_empty() { &[] } else { &["--cert", &certificate, "--key", &key] };
        said(&curl(scopegate.address, folder, "a.example", &[&["-w", "%{http_code}"], proof].concat()))
    };
    assert!(ask("good").ends_with("200"), "{}", ask("good"));
    for (name, reason) in [
        ("", "client_certificate_missing"),
        ("revoked", "client_certificate_revoked"),
        ("old", "client_certificate_expired"),
        ("foreign", "client_certificate_invalid"),
    ] {
        assert!(!ask(name).ends_with("200"), "{name}");
        failed(&scopegate, reason);
    }
    assert!(ask("good").ends_with("200"));
    // A list that changes counts from the next handshake on.
    scopegate.replace("crl.pem", &authority.list(2));
    eventually("the new list", || (!ask("good").ends_with("200")).then_some(()));
}

#[test]
fn what_cannot_be_used_is_said_at_the_start() {
    let authority = Authority::new();
    let check = |tls: &str, write: &dyn Fn(&Path), wanted: &str| {
        let listen = format!("listen: [{{ address: 127.0.0.1:0, tls: {{ {tls} }} }}]");
        let setup =
            Setup::at("127.0.0.1:1", "127.0.0.1:1").with("listen: [{ address: 127.0.0.1:0 }]", &listen);
        let folder = setup.write();
        authority.server(&["a.example"]).write(folder.path(), "a");
        fs::write(folder.path().join("ca.pem"), &authority.pem).expect("a file");
        fs::write(folder.path().join("crl.pem"), authority.list(9)).expect("a file");
        write(folder.path());
        let output = Command::new(env!("CARGO_BIN_EXE_scopegate"))
            .arg("check")
            .arg(folder.path().join("scopegate.yaml"))
            .output()
            .expect("the program");
        assert!(said(&output).contains(wanted), "{wanted}: {}", said(&output));
        (output.status.success(), said(&output))
    };
    let write = |name: &'static str, text: String| {
        move |folder: &Path| fs::write(folder.join(name), &text).expect("a file")
    };
    let (good, told) = check(ONE, &|_| {}, ": good: ");
    assert!(good && !told.contains("warning"), "{told}");
    let asks = format!("{ONE}, client_certificates: {{ ca: ca.pem, required: true, crl: [crl.pem] }}");
    let another = authority.server(&["a.example"]).key;
    for (tls, file, text, wanted) in [
        (ONE, "a.key", another, "a.key: error: the key is not that of the certificate"),
        (ONE, "a.crt", String::new(), "a.crt: error: there is no certificate in it"),
        (ONE, "a.key", "x".to_owned(), "a.key: error: there is no private key in it"),
        (&asks, "ca.pem", String::new(), "ca.pem: error: there is no certificate in it"),
        (&asks, "crl.pem", authority.pem.clone(), "crl.pem: error: there is no revocation list in it"),
    ] {
        assert!(!check(tls, &write(file, text), wanted).0, "{file}");
    }
    let gone = |folder: &Path| fs::remove_file(folder.join("a.key")).expect("a file");
    assert!(!check(ONE, &gone, "a.key: error: cannot be read").0);
    let week = SystemTime::now() + Duration::from_secs(7 * 24 * 60 * 60);
    let soon = authority.make(&["a"], 9, |params| params.not_after = week.into());
    assert!(
        check(ONE, &|folder| soon.write(folder, "a"), "a.crt: warning: this certificate ends soon: at ").0
    );
    let old = authority.make(&["a"], 9, |params| params.not_after = date_time_ymd(2020, 1, 1));
    let told = "a.crt: warning: this certificate has expired: it ended at 2020-01-01T00:00:00Z";
    assert!(check(ONE, &|folder| old.write(folder, "a"), told).0);
    let list = write("crl.pem", authority.list_until(9, 2021));
    assert!(check(&asks, &list, "crl.pem: warning: this revocation list has expired").0);
    let nameless = authority.make(&[], 9, |_| {});
    let two = "certificates: [{ certificate: a.crt, key: a.key }, { certificate: b.crt, key: b.key }]";
    let told = "b.crt: warning: no client gets this certificate";
    assert!(check(two, &|folder| nameless.write(folder, "b"), told).0);
}

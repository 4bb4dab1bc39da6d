//! Keys in PostgreSQL: the schema that is shipped, and a server that fails in its own ways.

use std::fs;
use std::process::Command;

use scopegate::identity::key::Digest;

use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";

fn setup(postgres: &mut Postgres, upstream: &Upstream, more: &str, cache: &str) -> Setup {
    postgres.team(&Team::default());
    postgres.key(KEY, &Row::default());
    let section = format!("keys: {{ {}, cache: {{ {cache} }} }}", postgres.section_with(more));
    Setup::new(upstream).with("keys: { file: keys.yaml }", &section)
}

fn until(what: &str, scopegate: &Scopegate, key: &str, reason: &str) {
    eventually(what, || (told(scopegate, key).1 == reason).then_some(()));
}

/// Ends the connections of the program; the one that listens among them where that is said.
fn terminate(postgres: &mut Postgres, listening: bool) {
    let which = if listening { "" } else { "AND query NOT IN ('', 'LISTEN \"scopegate_changes\"')" };
    postgres.run(&format!(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'gate' {which}"
    ));
}

fn hex(key: &str) -> String {
    Digest::of(key.as_bytes()).hex()
}

#[test]
fn a_server_that_is_gone_lets_nobody_in_and_is_found_again() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let setup = setup(&mut postgres, &upstream, "", "timeout: 5s");
    postgres.kill();
    let scopegate = setup.start();
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
    assert_eq!(scopegate.ask_admin("/readyz").status, 503);
    postgres.resume();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    let up = |scopegate: &Scopegate| scopegate.metric("scopegate_key_source_up{source=\"postgres\"}");
    assert_eq!(up(&scopegate), 1.0);
    postgres.kill();
    eventually("the loss", || (up(&scopegate) == 0.0).then_some(()));
    assert_eq!(told(&scopegate, KEY).0, 200, "it is fresh");
    assert_eq!(told(&scopegate, "sk_live_new"), (503, "keys_unavailable".to_owned()));
    // Nothing is missed of what happens before it is heard again.
    postgres.resume();
    postgres
        .run("ALTER TABLE scopegate.keys DISABLE TRIGGER tell; UPDATE scopegate.keys SET disabled = true");
    until("the change", &scopegate, KEY, "key_disabled");
}

#[test]
fn a_server_that_hangs_is_noticed_and_found_again() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, "", "timeout: 1s").start();
    scopegate.ready();
    until("the key", &scopegate, KEY, "");
    postgres.signal("STOP");
    for key in ["sk_live_1", "sk_live_2", "sk_live_3"] {
        assert_eq!(told(&scopegate, key), (503, "keys_unavailable".to_owned()));
    }
    assert_eq!(told(&scopegate, KEY).0, 200, "it is fresh");
    eventually("the loss", || {
        (scopegate.metric("scopegate_key_source_up{source=\"postgres\"}") == 0.0).then_some(())
    });
    postgres.signal("CONT");
    until("an answer", &scopegate, "sk_live_1", "key_unknown");
    postgres.run("UPDATE scopegate.keys SET disabled = true");
    until("the change", &scopegate, KEY, "key_disabled");
}

#[test]
fn news_that_were_missed_are_made_up_for() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, "", "fresh: 1h, stale: 2h").start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    postgres.run("ALTER TABLE scopegate.keys DISABLE TRIGGER tell; DELETE FROM scopegate.keys");
    assert_eq!(told(&scopegate, KEY).0, 200, "nobody has said so");
    terminate(&mut postgres, true);
    until("the change", &scopegate, KEY, "key_unknown");
}

#[test]
fn connections_that_ended_unseen_are_no_refusal() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, "", "").start();
    scopegate.ready();
    for number in 0..8 {
        let key = format!("sk_live_{number}");
        postgres.key(
            &key,
            &Row { id: ["a0", "a1", "a2", "a3", "a4", "a5", "a6", "a7"][number], ..Row::default() },
        );
        assert_eq!(told(&scopegate, &key).0, 200);
        terminate(&mut postgres, false);
    }
    assert_eq!(scopegate.metric("scopegate_key_source_up{source=\"postgres\"}"), 1.0);
}

#[test]
fn what_is_told_and_cannot_be_read_may_be_about_anything() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, "", "fresh: 1h, stale: 2h").start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    postgres.run("ALTER TABLE scopegate.keys DISABLE TRIGGER tell; DELETE FROM scopegate.keys");
    postgres.run("NOTIFY another_channel, 'all'; NOTIFY scopegate_changes, 'key sk_live_a'");
    until("the change", &scopegate, KEY, "key_unknown");
    assert_eq!(scopegate.metric("scopegate_key_news_total{kind=\"garbage\",source=\"postgres\"}"), 1.0);
    assert_eq!(scopegate.metric("scopegate_key_news_total{kind=\"all\",source=\"postgres\"}"), 0.0);
}

#[test]
fn a_table_that_is_locked_makes_503_in_time_and_no_heap_of_questions() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, ", pool: 2", "timeout: 200ms").start();
    scopegate.ready();
    postgres.run("BEGIN; LOCK TABLE scopegate.keys IN ACCESS EXCLUSIVE MODE");
    for number in 0..12 {
        let answer = told(&scopegate, &format!("sk_live_{number}"));
        assert_eq!(answer, (503, "keys_unavailable".to_owned()));
    }
    let connections = postgres.number("SELECT count(*) FROM pg_stat_activity WHERE usename = 'gate'");
    // Two that ask, one that listens, and some that the server has not ended yet.
    assert!(connections <= 6, "{connections}");
    postgres.run("COMMIT");
    until("the end of the lock", &scopegate, KEY, "");
}

#[test]
fn the_password_is_read_for_every_connection() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, "", "").start();
    scopegate.ready();
    let file = postgres.file("password");
    fs::remove_file(&file).expect("a file");
    terminate(&mut postgres, true);
    scopegate
        .event(|event| event["error"].as_str().is_some_and(|error| error.contains("password: No such file")));
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
    postgres.run("ALTER ROLE gate PASSWORD 'do_not_show'");
    fs::write(&file, "do_not_show\n").expect("a file");
    until("the new password", &scopegate, KEY, "");
    let config = scopegate.ask_admin("/config").text();
    assert!(config.contains("SELECT * FROM scopegate.find($1)"), "{config}");
    let said = format!("{}{config}", scopegate.everything_said());
    assert!(!said.contains("do_not_show"), "{said}");
}

#[test]
fn a_rotated_key_has_two_digests_for_a_while() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let scopegate = setup(&mut postgres, &upstream, "", "fresh: 1h, stale: 2h, unknown: 1h").start();
    scopegate.ready();
    let new = "sk_live_b";
    assert_eq!((told(&scopegate, KEY).0, told(&scopegate, new).0), (200, 401));
    let digest = hex(new);
    postgres.run(&format!(
        "UPDATE scopegate.keys SET digest = '\\x{digest}', previous_digest = digest, previous_until = now() + '1 h'"
    ));
    until("the new key", &scopegate, new, "");
    assert_eq!(told(&scopegate, KEY).0, 200, "for an hour");
    postgres.run("UPDATE scopegate.keys SET previous_until = now() - interval '1 s', expires = 'infinity'");
    until("the end of the old key", &scopegate, KEY, "key_expired");
    assert_eq!(told(&scopegate, new).0, 200);
    postgres.run("UPDATE scopegate.keys SET previous_digest = NULL, previous_until = NULL");
    until("no old key", &scopegate, KEY, "key_unknown");
    postgres.run("UPDATE scopegate.keys SET expires = '-infinity'");
    until("a key that never was", &scopegate, new, "key_expired");
    postgres.run("TRUNCATE scopegate.keys");
    until("no keys at all", &scopegate, new, "key_unknown");
}

#[test]
fn over_tls_the_server_must_be_who_the_authority_says() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let (own, other) = (certificate(&postgres, "own"), certificate(&postgres, "other"));
    let with = |file: &str| format!(", tls: {{ ca_file: '{file}' }}");
    let plain = setup(&mut postgres, &upstream, &with(&own), "").start();
    plain.event(|event| event["error"].as_str().is_some_and(|error| error.contains("does not support TLS")));
    assert_eq!(told(&plain, KEY), (503, "keys_unavailable".to_owned()));
    postgres.kill();
    let (own_key, certificate) = (own.replace(".crt", ".key"), format!("ssl_cert_file={own}"));
    postgres.resume_with(&["ssl=on", &certificate, &format!("ssl_key_file={own_key}")]);
    plain.ready();
    assert_eq!(told(&plain, KEY).0, 200);
    let count = "SELECT count(*) FROM pg_stat_ssl JOIN pg_stat_activity USING (pid) WHERE usename = 'gate'";
    assert_eq!(postgres.number(&format!("{count} AND NOT ssl")), 0);
    assert!(postgres.number(&format!("{count} AND ssl")) >= 2);
    let fooled = setup(&mut postgres, &upstream, &with(&other), "").start();
    fooled.event(|event| event["error"].as_str().is_some_and(|error| error.contains("certificate")));
    assert_eq!(told(&fooled, KEY), (503, "keys_unavailable".to_owned()));
    assert_eq!(fooled.ask_admin("/readyz").status, 503);
}

/// Signed by itself, with its key beside it.
fn certificate(postgres: &Postgres, name: &str) -> String {
    let (certificate, key) = (postgres.file(&format!("{name}.crt")), postgres.file(&format!("{name}.key")));
    let made = Command::new("openssl")
        .args([
            "req",
            "-x509",
            "-newkey",
            "ec",
            "-pkeyopt",
            "ec_paramgen_curve:P-256",
            "-nodes",
            "-days",
            "2",
        ])
        .args(["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1"])
        .args(["-addext", "basicConstraints=critical,CA:FALSE", "-keyout"])
        .args([key.as_os_str(), "-out".as_ref(), certificate.as_os_str()])
        .output();
    assert!(made.expect("openssl, which comes with PostgreSQL").status.success());
    postgres.give();
    certificate.to_str().expect("a path").to_owned()
}

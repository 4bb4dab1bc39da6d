//! `scopegate check` says what `serve` would say, and neither starts on a mistake.

use std::fs;
use std::net::TcpListener;
use std::path::PathBuf;
use std::process::{Command, Output, Stdio};

use tempfile::TempDir;

use crate::harness::bearer;
use crate::harness::client::get;
use crate::harness::introspection::{ANSWER, GOOD, endpoint, json};
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::scopegate::{ALL, Scopegate, Setup, row};
use crate::harness::stores::Store as _;
use crate::harness::upstream::Upstream;

/// A folder with the two files, and the path of the configuration.
fn written(setup: &Setup) -> (TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    fs::write(folder.path().join("keys.yaml"), &setup.keys).expect("a file");
    let path = folder.path().join("scopegate.yaml");
    fs::write(&path, &setup.config).expect("a file");
    (folder, path)
}

/// Runs the program to its end.
fn run(arguments: &[&str]) -> Output {
    Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .args(arguments)
        .stdin(Stdio::null())
        .output()
        .expect("the program")
}

fn said(output: &Output) -> String {
    format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr))
}

fn setup() -> Setup {
    Setup::at("127.0.0.1:9", "127.0.0.1:9")
}

#[test]
fn a_good_configuration_ends_with_0_and_says_so() {
    let (_folder, path) = written(&setup());
    let output = run(&["check", path.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    assert!(said(&output).contains("good"), "{}", said(&output));
    assert!(output.stderr.is_empty(), "{}", said(&output));
}

#[test]
fn the_shipped_configuration_is_good() {
    let root = PathBuf::from(env!("CARGO_MANIFEST_DIR"));
    let output = run(&["check", root.join("config/telapi.yaml").to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
}

#[test]
fn each_mistake_ends_both_commands_with_2_and_names_its_place() {
    let cases = [
        (setup().with("workers: 1", "wokers: 1"), "scopegate.yaml:3:", "did you mean `workers`"),
        (setup().with("workers: 1", "workers: many"), "scopegate.yaml:3:", "workers"),
        (setup().with("PUT /api/v1/whoami", "GET /api/v1/{any}"), "", "good"),
        (setup().with("PUT /api/v1/whoami", "GET /api/v1/whoami"), "scopegate.yaml:28:", "appears twice"),
        (
            setup().with("PUT /api/v1/whoami", "GET /api/v1/call-tokens/{other}"),
            "scopegate.yaml:28:",
            "can match what the route on line",
        ),
        (
            setup().with(
                "[CREATE_CALL_TOKEN, READ_TEAM_APPS] }\n      GET /api/v1/both",
                "[MINT_TOKEN] }\n      GET /api/v1/both",
            ),
            "scopegate.yaml:",
            "does not define the scope `MINT_TOKEN`",
        ),
        (setup().with("file: keys.yaml", "file: none.yaml"), "none.yaml", "cannot be read"),
        (
            setup().with("address: 127.0.0.1:9", "address: not an address"),
            "scopegate.yaml:",
            "not an address",
        ),
    ];
    for (setup, place, words) in cases {
        let (_folder, path) = written(&setup);
        let path = path.to_str().expect("a path");
        let checked = run(&["check", path]);
        let text = said(&checked);
        assert!(text.contains(place) && text.contains(words), "{text}");
        if words == "good" {
            assert_eq!(checked.status.code(), Some(0), "{text}");
            continue;
        }
        assert_eq!(checked.status.code(), Some(2), "{text}");
        let served = run(&["serve", "--config", path]);
        assert_eq!(served.status.code(), Some(2), "{}", said(&served));
        let (served, checked) =
            (String::from_utf8_lossy(&served.stderr), String::from_utf8_lossy(&checked.stderr));
        assert!(checked.starts_with(&*served), "the same words:\n{served}\n{checked}");
    }
}

#[test]
fn all_mistakes_are_said_at_once() {
    let setup = setup()
        .with("workers: 1", "wokers: 1")
        .with("webrtc: true", "webrtc: maybe")
        .with("access: key", "access: keys");
    let (_folder, path) = written(&setup);
    let text = said(&run(&["check", path.to_str().expect("a path")]));
    for words in ["wokers", "webrtc", "access"] {
        assert!(text.contains(words), "{words}: {text}");
    }
}

#[test]
fn a_file_that_is_not_there_is_named() {
    for arguments in [["check", "/nowhere/a.yaml"].as_slice(), &["serve", "--config", "/nowhere/a.yaml"]] {
        let output = run(arguments);
        assert_eq!(output.status.code(), Some(2), "{}", said(&output));
        assert!(said(&output).contains("/nowhere/a.yaml"), "{}", said(&output));
    }
}

#[test]
fn a_scope_that_the_platform_does_not_define_yet_is_a_warning_in_a_key() {
    let mut setup = setup();
    setup.keys += &row("sk_live_future", "acme", "FUTURE", "");
    let line = setup.keys.lines().count();
    let (_folder, path) = written(&setup);
    let output = run(&["check", path.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(0), "{}", said(&output));
    let text = said(&output);
    assert!(text.contains(&format!("keys.yaml:{line}:")) && text.contains("FUTURE"), "{text}");
}

#[test]
fn a_bad_row_of_the_keys_file_is_for_check_to_find_and_stops_no_start() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream);
    setup.keys += "  - { id: short, team: acme, digest: 'sha256:abcd', scopes: [] }\n";
    let line = setup.keys.lines().count();
    let (folder, path) = written(&setup);
    let output = run(&["check", path.to_str().expect("a path")]);
    assert_eq!(output.status.code(), Some(2), "{}", said(&output));
    assert!(said(&output).contains(&format!("keys.yaml:{line}:")), "{}", said(&output));
    let scopegate = Scopegate::start(folder);
    assert_eq!(get(scopegate.address, "/api/v1/apps", &bearer(ALL)).status, 200);
    assert_eq!(scopegate.metric("scopegate_keys_refused"), 1.0);
}

#[test]
fn an_address_in_use_is_named() {
    let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = taken.local_addr().expect("an address").to_string();
    let running = Setup::at("127.0.0.1:9", "127.0.0.1:9").start();
    let ours = running.address.to_string();
    for (section, address) in [
        ("listen", &address),
        ("admin", &address),
        // Sharing a port among workers hides no second instance.
        ("listen", &ours),
    ] {
        let setup = match section {
            "listen" => setup()
                .with("listen: [{ address: 127.0.0.1:0 }]", &format!("listen: [{{ address: {address} }}]")),
            _ => setup().with("admin: { address: 127.0.0.1:0 }", &format!("admin: {{ address: {address} }}")),
        };
        let (_folder, path) = written(&setup);
        let output = run(&["serve", "--config", path.to_str().expect("a path")]);
        let text = said(&output);
        assert!(!output.status.success(), "{text}");
        assert!(text.contains(address.as_str()) && text.contains(section), "{text}");
    }
}

#[test]
fn connect_reaches_for_every_upstream() {
    let upstream = Upstream::start();
    let here = upstream.address.to_string();
    for (webhooks, good, wanted) in [
        (here.as_str(), true, "good"),
        ("nowhere.invalid:1", false, "cannot be resolved"),
        ("127.0.0.1:1", false, "takes no connection"),
    ] {
        let (_folder, path) = written(&Setup::at(&here, webhooks));
        let output = run(&["check", "--connect", path.to_str().expect("a path")]);
        assert_eq!(output.status.success(), good, "{}", said(&output));
        assert!(said(&output).contains(wanted), "{}", said(&output));
    }
}

#[test]
fn connect_asks_every_source_of_keys() {
    let upstream = Upstream::start();
    let check = |sources: &[String]| {
        let section = format!("keys: [{}]", sources.join(", "));
        let setup = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section);
        let (_folder, path) = written(&setup);
        let output = run(&["check", "--connect", path.to_str().expect("a path")]);
        (output.status.code(), said(&output))
    };
    let source = |section: &str| format!("{{ {section}, cache: {{ timeout: 5s }} }}");
    let nowhere = source("redis: { url: redis://127.0.0.1:1 }");
    let (code, text) = check(std::slice::from_ref(&nowhere));
    assert!(code == Some(2) && text.contains("`redis` does not answer"), "{text}");
    if let Some(redis) = Redis::start() {
        let (code, text) = check(&[source(&redis.section())]);
        assert!(code == Some(0) && text.contains("good"), "{text}");
    }
    let endpoint = endpoint();
    let http = source(&format!("http: {{ url: '{}', {ANSWER}, retries: 0 }}", endpoint.url()));
    let (code, text) = check(std::slice::from_ref(&http));
    assert!(code == Some(0) && text.contains("good"), "{text}");
    for (said, wanted) in [
        (json("200 OK", GOOD), "it knows a key that was made up just now"),
        (json("200 OK", "<!doctype html>"), "gives an answer that cannot be read: it is not JSON"),
        (json("401 Unauthorized", ""), "its answer has status 401"),
        (String::new(), "the key source `http` does not answer"),
    ] {
        endpoint.instead(move |exchange| exchange.last(&said));
        let (code, text) = check(std::slice::from_ref(&http));
        assert!(code == Some(2) && text.contains(wanted) && text.contains("errors: 1"), "{wanted}: {text}");
    }
    let Some(mut postgres) = Postgres::start() else { return };
    let (code, text) = check(&[source(&postgres.section())]);
    assert!(code == Some(0) && text.contains("good"), "{text}");
    for (query, wanted) in [
        ("SELECT id, team FROM scopegate.find($1)", "the query gives no column `scopes`"),
        ("SELECT * FROM scopegate.search($1)", "function scopegate.search(bytea) does not exist"),
        ("SELECT id, team, scopes FROM nothing WHERE digest = $1", "relation \"nothing\" does not exist"),
        ("SELECT id, team, scopes FROM scopegate.keys WHERE digest = $1", "permission denied for table keys"),
    ] {
        let (code, text) = check(&[source(&postgres.section_with(&format!(", query: '{query}'")))]);
        assert!(code == Some(2) && text.contains(wanted) && text.contains("errors: 1"), "{text}");
    }
    // As many as there are.
    let section = source(&postgres.section());
    postgres.kill();
    let (code, text) = check(&[nowhere, section]);
    assert!(code == Some(2) && text.contains("errors: 2") && text.contains("`postgres` does not"), "{text}");
}

#[cfg(not(feature = "kubernetes"))]
#[test]
fn what_was_left_out_of_the_program_is_told_so() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream).with("keys: { file: keys.yaml }", "keys: { kubernetes: {} }");
    let problems =
        scopegate::config::file::parse(std::path::Path::new("f"), &setup.config).expect_err("a mistake");
    let told = problems.to_string();
    assert!(told.contains("f:7:") && told.contains("built without `kubernetes`"), "{told}");
    assert!(told.contains("--features kubernetes"), "{told}");
}

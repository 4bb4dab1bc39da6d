//! docs/keys.md does what it says.

use std::fs;
use std::path::Path;
use std::process::Command;

use regex::Regex;

use crate::harness::client::get;
use crate::harness::commands::{good, text};
use crate::harness::redis::Redis;
use crate::harness::scopegate::Setup;
use crate::harness::stores::{Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

fn page() -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/keys.md")).expect("a page")
}

/// The pattern that the page gives to scanners for secrets.
fn pattern() -> Regex {
    let page = page();
    let (_, rest) = page.split_once("```text\n").expect("a pattern");
    Regex::new(rest.lines().next().expect("a pattern")).expect("a pattern")
}

fn new(more: &[&str]) -> String {
    let output =
        crate::harness::commands::keys(&[&["new", "--team", "t", "--scope", "A"], more].concat(), "");
    text(&output.stderr).lines().last().expect("a key").to_owned()
}

#[test]
fn the_pattern_finds_the_keys_that_are_made_and_no_others() {
    let pattern = pattern();
    let made: Vec<_> = (0..50).map(|_| new(&[])).collect();
    for key in &made {
        for text in
            [key.clone(), format!("KEY='{key}'"), format!("a {key}, b"), format!("{{\"k\":\"{key}\"}}")]
        {
            assert_eq!(pattern.find(&text).map(|found| found.as_str()), Some(&**key), "{text}");
        }
        for text in [format!("{key}x"), format!("x{key}"), key[1..].to_owned(), key[..52].to_owned()] {
            assert!(!pattern.is_match(&text), "{text}");
        }
    }
    let mut distinct = made.clone();
    distinct.sort();
    distinct.dedup();
    assert_eq!(distinct.len(), made.len());
    assert!(new(&["--prefix", "acme_live_"]).starts_with("acme_live_"));
}

#[test]
fn a_key_that_was_copied_badly_is_refused_before_anything_is_looked_up() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    redis.team(&Team::default());
    let section = format!("keys: {{ {} }}\nkey_prefix: sgk_", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    let told = |key: &str| get(scopegate.address, "/api/v1/apps", &bearer(key)).reason().to_owned();
    let key = new(&[]);
    let last = if key.ends_with('x') { "y" } else { "x" };
    for broken in [
        &key[..52],
        &format!("{key}x"),
        &format!("{}{last}", &key[..52]),
        "sgk_",
        &format!("sgk_{}", "a".repeat(9_000)),
    ] {
        assert_eq!(told(broken), "key_malformed", "{broken}");
    }
    assert_eq!(get(scopegate.address, "/api/v1/apps", &bearer("sgk_x")).status, 401);
    assert!(
        !scopegate.ask_admin("/metrics").text().contains("scopegate_key_lookups_total{"),
        "nothing is asked"
    );
    for opaque in [&key[..], "sgk", "sk_live_1", "SGK_1"] {
        assert_eq!(told(opaque), "key_unknown", "{opaque}");
    }
    let lookups = "scopegate_key_lookups_total{result=\"unknown\",source=\"redis\"}";
    assert_eq!(scopegate.metric(lookups), 4.0);
}

/// The examples of the page in its order, each with what it says. `…` stands for what differs every time.
#[test]
fn the_examples_of_the_page_do_what_it_says() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream);
    let folder = setup.write();
    let scopes = "scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]";
    let teams = format!("teams:\n  acme: {{ {scopes} }}\n  initech: {{ {scopes} }}\nkeys: []\n");
    let line = "{\"id\": \"theirs-1\", \"team\": \"initech\", \"scopes\": [\"READ_TEAM_APPS\"], \"key\": \"sk_live_1\"}\n";
    for (name, content) in
        [("keys.yaml", &*teams), ("the-key", "sk_live_old"), ("the-new-key", "sk_live_new"), ("lines", line)]
    {
        fs::write(folder.path().join(name), content).expect("a file");
    }
    let binary = Path::new(env!("CARGO_BIN_EXE_scopegate")).parent().expect("a folder");
    let path = format!("{}:/usr/bin:/bin", binary.display());
    let page = page();
    let consoles = page.split("```console\n").skip(1).map(|rest| rest.split("```").next().expect("an end"));
    let mut ran = 0;
    for example in consoles
        .flat_map(|console| console.split("$ ").skip(1))
        .filter(|example| example.starts_with("scopegate"))
    {
        let mut lines = example.lines();
        let command = lines.next().expect("a command");
        let run =
            Command::new("sh").args(["-c", command]).env("PATH", &path).current_dir(folder.path()).output();
        let run = run.expect("a shell");
        let said = text(&run.stderr) + &text(&run.stdout);
        assert!(run.status.success(), "{command}: {said}");
        for (wanted, line) in lines.zip(said.lines()) {
            let (start, _) = wanted.split_once('…').unwrap_or((wanted, ""));
            let same = if start == wanted { line == wanted } else { line.starts_with(start) };
            assert!(same, "{command}\nwanted: {wanted}\nsaid: {line}");
        }
        ran += 1;
    }
    assert_eq!(ran, 6);
    let file = folder.path().join("keys.yaml").display().to_string();
    assert_eq!(good(&["list", "--file", &file], "").lines().count(), 4);
}

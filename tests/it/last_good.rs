//! What a server of keys said last helps over a start without it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use scopegate::identity::key::Digest;
use serde_json::Value;

use crate::harness::eventually;
use crate::harness::introspection;
use crate::harness::redis::Redis;
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";

#[test]
fn a_start_without_the_server_is_no_start_without_keys() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("keys.last");
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    redis.key("sk_live_off", &Row { id: "id-off", disabled: true, ..Row::default() });
    let last_good = format!("last_good: {{ file: {}, max_age: 1h }}", kept.display());
    let section = format!("keys: {{ {}, cache: {{ timeout: 500ms }}, {last_good} }}", redis.section());
    let start = || Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    let is_ready = |scopegate: &Scopegate| scopegate.ask_admin("/readyz").status == 200;

    let scopegate = start();
    scopegate.event(|event| event["message"] == "what was said before is not used");
    eventually("readiness", || is_ready(&scopegate).then_some(()));
    for (key, status) in [(KEY, 200), ("sk_live_off", 401), ("sk_live_unknown", 401)] {
        assert_eq!(told(&scopegate, key).0, status, "{key}");
    }
    eventually("what is kept", || (fs::read_to_string(&kept).ok()?.lines().count() == 3).then_some(()));
    assert_eq!(fs::metadata(&kept).expect("a file").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&kept).expect("a file");
    assert!(!text.contains("sk_live"), "there is no key in it: {text}");
    drop(scopegate);

    redis.kill();
    let scopegate = start();
    assert!(is_ready(&scopegate), "{}", scopegate.everything_said());
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(told(&scopegate, "sk_live_off"), (401, "key_disabled".to_owned()));
    assert_eq!(told(&scopegate, "sk_live_new"), (503, "keys_unavailable".to_owned()));
    // Once the server is there, what it says now is what counts, and so is its loss.
    redis.resume();
    eventually("the server", || {
        (scopegate.metric("scopegate_key_source_up{source=\"redis\"}") == 1.0).then_some(())
    });
    redis.key(KEY, &Row { disabled: true, ..Row::default() });
    eventually("the change", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
    redis.kill();
    drop(scopegate);

    for (spoilt, why) in [
        (text.replacen("acme", "evil", 1), "not what was written"),
        (text.replacen("\"written\":1", "\"written\":9", 1), "future"),
        (text.replacen("\"version\":2", "\"version\":3", 1), "version"),
        (text.replacen("\"written\":1", "\"written\":", 1), "older"),
        ("no line".to_owned(), "first line"),
        (String::new(), "first line"),
    ] {
        fs::write(&kept, spoilt).expect("a file");
        let scopegate = start();
        let event = scopegate.event(|event| event["message"] == "what was said before is not used");
        assert!(event["error"].as_str().is_some_and(|error| error.contains(why)), "{why}: {event}");
        assert!(!is_ready(&scopegate), "{why}");
        assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()), "{why}");
    }
    fs::write(&kept, text).expect("a file");
    fs::set_permissions(&kept, fs::Permissions::from_mode(0o606)).expect("a mode");
    let scopegate = start();
    scopegate.event(|event| event["error"].as_str().is_some_and(|error| error.contains("anybody may write")));
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
}

/// What stands in the file, by its digest, once this is true of it.
fn kept_once(kept: &std::path::Path, is: impl Fn(&str) -> bool) -> String {
    eventually("what is kept", || fs::read_to_string(kept).ok().filter(|text| is(text)))
}

#[test]
fn what_was_heard_of_a_key_outlasts_a_start_too() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("keys.last");
    redis.team(&Team::default());
    redis.team(&Team { name: "other", ..Team::default() });
    redis.key(KEY, &Row::default());
    redis.key("sk_live_b", &Row { id: "id-b", team: "other", ..Row::default() });
    redis.key("sk_live_c", &Row { id: "id-c", ..Row::default() });
    let section = format!("keys: {{ {}, last_good: {{ file: {} }} }}", redis.section(), kept.display());
    let start = || Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    let scopegate = start();
    scopegate.ready();
    for key in [KEY, "sk_live_b", "sk_live_c"] {
        assert_eq!(told(&scopegate, key).0, 200, "{key}");
    }
    kept_once(&kept, |text| text.lines().count() == 4);
    // Nobody asks for them after that.
    redis.key(KEY, &Row { disabled: true, ..Row::default() });
    redis.team(&Team { name: "other", enabled: false, ..Team::default() });
    kept_once(&kept, |text| text.lines().count() == 2);
    drop(scopegate);
    redis.kill();
    let scopegate = start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
    assert_eq!(told(&scopegate, "sk_live_b"), (503, "keys_unavailable".to_owned()));
    assert_eq!(told(&scopegate, "sk_live_c").0, 200, "nothing was heard of this one");
}

/// The same, with the row of this id said at another time.
fn said(text: &str, id: &str, at: impl Fn(u64) -> u64) -> String {
    let (head, rows) = text.split_once('\n').expect("a first line");
    let rows: String = rows
        .lines()
        .map(|line| {
            let mut row: Value = serde_json::from_str(line).expect("a row");
            if row["id"] == id {
                row["said"] = at(row["said"].as_u64().expect("seconds")).into();
            }
            format!("{row}\n")
        })
        .collect();
    let mut head: Value = serde_json::from_str(head).expect("a head");
    head["sha256"] = Digest::of(rows.as_bytes()).hex().into();
    format!("{head}\n{rows}")
}

#[test]
fn what_was_said_is_no_younger_after_another_start() {
    const HOUR: u64 = 3_600;
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("keys.last");
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    redis.key("sk_live_b", &Row { id: "id-b", ..Row::default() });
    let last_good = format!("last_good: {{ file: {}, max_age: 2h }}", kept.display());
    let section = format!("keys: {{ {}, {last_good} }}", redis.section());
    let start = || Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    let scopegate = start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    let text = kept_once(&kept, |text| text.lines().count() == 2);
    drop(scopegate);
    let old = said(&text, "id-a", |said| said - HOUR);
    fs::write(&kept, &old).expect("a file");
    // Nobody asks for it, and what is written has it still.
    let scopegate = start();
    eventually("the server", || {
        (scopegate.metric("scopegate_key_source_up{source=\"redis\"}") == 1.0).then_some(())
    });
    assert_eq!(told(&scopegate, "sk_live_b").0, 200);
    let text = kept_once(&kept, |text| text.contains("id-b"));
    drop(scopegate);
    let when = |text: &str| {
        let row: Value =
            serde_json::from_str(text.lines().find(|line| line.contains("id-a"))?).expect("a row");
        row["said"].as_u64()
    };
    let (before, after) = (when(&old).expect("seconds"), when(&text).expect("seconds"));
    // A second may be lost where seconds are rounded.
    assert!(before - after <= 1, "{before}: {after}");
    fs::write(&kept, said(&text, "id-a", |said| said - HOUR)).expect("a file");
    redis.kill();
    let scopegate = start();
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
    assert_eq!(told(&scopegate, "sk_live_b").0, 200);
}

#[test]
fn an_endpoint_that_has_answered_is_what_counts() {
    let (upstream, endpoint) = (Upstream::start(), introspection::endpoint());
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("keys.last");
    let server = format!("http: {{ url: '{}', {}, retries: 0 }}", endpoint.url(), introspection::ANSWER);
    let section = format!("keys: {{ {server}, last_good: {{ file: {} }} }}", kept.display());
    let start = || Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    let scopegate = start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    kept_once(&kept, |text| text.lines().count() == 2);
    drop(scopegate);
    endpoint.instead(|_| false);
    let scopegate = start();
    assert_eq!(told(&scopegate, KEY).0, 200, "it has not answered");
    endpoint.resume();
    eventually("the endpoint", || {
        (scopegate.metric("scopegate_key_source_up{source=\"http\"}") == 1.0).then_some(())
    });
    endpoint.instead(|_| false);
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()), "it has");
}

//! Secrets of Kubernetes: what comes, goes and breaks there. What every source must do is in sources.rs.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use tempfile::TempDir;

use crate::harness::eventually;
use crate::harness::introspection::ready;
use crate::harness::kubernetes::StandIn;
use crate::harness::scopegate::{Scopegate, Setup, row, told};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";
const OTHER: &str = "sk_live_b";

fn team(name: &str, keys: &[&str]) -> String {
    let rows = keys.iter().map(|key| row(key, name, "READ_TEAM_APPS", "")).collect::<String>();
    format!("teams:\n  {name}: {{ scopes: [READ_TEAM_APPS] }}\nkeys:\n{rows}")
}

/// The files of a program that watches this.
fn folder(api: &StandIn, upstream: &Upstream, more: &str) -> TempDir {
    let namespace = StandIn::NAMESPACE;
    let section =
        format!("keys: {{ kubernetes: {{ kubeconfig: kubeconfig, namespace: {namespace}{more} }} }}");
    let folder = Setup::new(upstream).with("keys: { file: keys.yaml }", &section).write();
    fs::write(folder.path().join("kubeconfig"), api.kubeconfig()).expect("a file");
    folder
}

fn start(api: &StandIn, upstream: &Upstream, more: &str) -> Scopegate {
    Scopegate::start(folder(api, upstream, more))
}

fn until(scopegate: &Scopegate, key: &str, status: u16, reason: &str) {
    eventually(reason, || (told(scopegate, key) == (status, reason.to_owned())).then_some(()));
}

#[test]
fn secrets_come_and_go_each_with_a_fate_of_its_own() {
    let (upstream, api) = (Upstream::start(), StandIn::start());
    for (number, name) in ["one", "two", "three", "four", "five"].iter().enumerate() {
        api.apply(name, &team(name, &[&format!("sk_live_{number}")]));
    }
    let scopegate = start(&api, &upstream, "");
    ready(&scopegate);
    for number in 0..5 {
        assert_eq!(told(&scopegate, &format!("sk_live_{number}")).0, 200, "of every page");
    }
    api.apply("acme", &team("acme", &[KEY]));
    until(&scopegate, KEY, 200, "");
    api.delete("one");
    until(&scopegate, "sk_live_0", 401, "key_unknown");
    // One that is refused whole keeps its last good keys, and holds back no other.
    api.apply("acme", "kyes: []\n");
    api.apply("more", &team("more", &[OTHER]));
    until(&scopegate, OTHER, 200, "");
    assert_eq!(told(&scopegate, KEY).0, 200);
    scopegate.event(|event| event["file"] == "secret/acme/keys.yaml");
    // A key of two teams is nobody's.
    api.apply("thief", &team("thief", &["sk_live_1"]));
    eventually("neither", || (told(&scopegate, "sk_live_1").0 == 401).then_some(()));
    assert_eq!(api.lists(), 3, "five Secrets, two a page: all else was watched");
}

#[test]
fn a_watch_that_breaks_is_made_up_for() {
    let (upstream, api) = (Upstream::start(), StandIn::start());
    api.apply("acme", &team("acme", &[KEY, OTHER]));
    let scopegate = start(&api, &upstream, "");
    ready(&scopegate);
    assert_eq!(told(&scopegate, KEY).0, 200);
    api.cut();
    api.apply("acme", &team("acme", &[OTHER]));
    until(&scopegate, KEY, 401, "key_unknown");
    // Its history is gone: 410.
    let lists = api.lists();
    api.forget();
    api.apply("acme", &team("acme", &[KEY]));
    until(&scopegate, OTHER, 401, "key_unknown");
    until(&scopegate, KEY, 200, "");
    assert!(api.lists() > lists);
}

#[test]
fn without_the_api_the_last_list_is_good_for_so_long() {
    let (upstream, api) = (Upstream::start(), StandIn::start());
    api.apply("acme", &team("acme", &[KEY]));
    let scopegate = start(&api, &upstream, ", stale_for: 2s");
    ready(&scopegate);
    assert_eq!(told(&scopegate, KEY).0, 200);
    api.refuse(Some((503, "ServiceUnavailable")));
    let lost = Instant::now();
    let end = eventually("its end", || {
        let answer = told(&scopegate, KEY);
        (answer.0 != 200).then_some(answer)
    });
    assert_eq!(end, (503, "keys_unavailable".to_owned()));
    assert!(lost.elapsed() > Duration::from_secs(1), "{:?}", lost.elapsed());
    assert!(scopegate.metric("scopegate_key_stale_total{source=\"kubernetes\"}") > 0.0);
    let stale =
        scopegate.event(|event| event["message"].as_str().is_some_and(|text| text.contains("last list")));
    assert_eq!((&stale["source"], &stale["level"]), (&"kubernetes".into(), &"WARN".into()), "{stale}");
    assert_eq!(scopegate.metric("scopegate_key_source_up{source=\"kubernetes\"}"), 0.0);
    assert_eq!(told(&scopegate, "sk_live_new"), (503, "keys_unavailable".to_owned()), "never 401");
    assert_eq!(scopegate.ask_admin("/readyz").status, 200);
    api.apply("acme", &team("acme", &[OTHER]));
    api.refuse(None);
    until(&scopegate, OTHER, 200, "");
    assert_eq!(told(&scopegate, KEY), (401, "key_unknown".to_owned()));
}

#[test]
fn who_may_not_list_is_told_so_and_is_not_ready() {
    let (upstream, api) = (Upstream::start(), StandIn::start());
    api.refuse(Some((403, "Forbidden")));
    let folder = folder(&api, &upstream, "");
    let check = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .args(["check", "--connect"])
        .arg(folder.path().join("scopegate.yaml"))
        .output()
        .expect("the program");
    let said = String::from_utf8_lossy(&check.stderr).into_owned();
    assert!(said.contains("`kubernetes` does not answer") && said.contains("Forbidden"), "{said}");
    let scopegate = Scopegate::start(folder);
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
    assert_eq!(scopegate.ask_admin("/readyz").status, 503);
    api.apply("acme", &team("acme", &[KEY]));
    api.refuse(None);
    ready(&scopegate);
    assert_eq!(told(&scopegate, KEY).0, 200);
}

#[test]
fn a_mistake_in_its_section_is_told_with_its_place() {
    let upstream = Upstream::start();
    for (section, said) in [
        ("kubernetes: { labels: '' }", "`labels` is empty"),
        ("kubernetes: { namespace: 5 }", "`namespace` must be text, not a number"),
        ("kubernetes: { stale_for: soon }", "`stale_for` must be a duration with its unit"),
        ("kubernetes: { stale_for: 400days }", "`stale_for` is longer than a year"),
        ("kubernetes: {}, cache: { fresh: 1s }", "`kubernetes` has no `cache`, and no `last_good`"),
        ("kubernetes: {}, last_good: { file: f }", "`kubernetes` has no `cache`, and no `last_good`"),
        ("kubernetes: {}, file: keys.yaml", "`keys` names two sources at once"),
        ("kubernetes: { label: a }", "label"),
    ] {
        let section = format!("keys: {{ {section} }}");
        let setup = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section);
        let problems = scopegate::config::file::parse(Path::new("f"), &setup.config).expect_err(&section);
        let told = problems.to_string();
        assert!(told.contains("f:7:") && told.contains(said), "{section}: {told}");
    }
}

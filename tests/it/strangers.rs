//! Keys that nobody has kept yet: how many requests wait for them, and what two servers of one kind are called.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use crate::harness::client::{Client, request};
use crate::harness::introspection::{self, Introspection, KEY, endpoint, json};
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

#[test]
fn of_many_who_wait_for_one_strange_key_some_are_refused_at_once() {
    const MOST: usize = 512;
    const MORE: usize = 40;
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let cache = "fresh: 1h, stale: 1h, timeout: 60s";
    let setup = introspection::setup(&upstream, &endpoint.url(), "", cache);
    let scopegate = setup.and("limits: { connections_per_client: 1000 }").start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    let goes_on = Arc::new(AtomicBool::new(false));
    let held = Arc::clone(&goes_on);
    endpoint.instead(move |exchange| {
        while !held.load(Ordering::Relaxed) {
            thread::yield_now();
        }
        exchange.write(json("200 OK", "{\"active\":false}"))
    });
    let strange = request("GET", "/api/v1/apps", &bearer("sk_live_made_up"), "");
    let mut clients: Vec<_> = (0..MOST + MORE).map(|_| Client::connect(scopegate.address)).collect();
    for client in &mut clients {
        client.send(&strange);
    }
    let refused = || scopegate.metric("scopegate_key_lookups_total{result=\"refused\",source=\"http\"}");
    eventually("refusals", || (refused() == MORE as f64).then_some(()));
    assert_eq!(told(&scopegate, KEY).0, 200, "who is known does not wait");
    goes_on.store(true, Ordering::Relaxed);
    let mut answers = [0, 0];
    for client in &mut clients {
        let answer = client.answer(false);
        match (answer.status, answer.reason()) {
            (401, "key_unknown") => answers[0] += 1,
            (503, "keys_busy") => answers[1] += 1,
            other => panic!("{other:?}"),
        }
    }
    assert_eq!(answers, [MOST, MORE]);
    // They have all left.
    endpoint.resume();
    assert_eq!(told(&scopegate, "sk_live_other"), (401, "key_unknown".to_owned()));
}

#[test]
fn two_servers_of_one_kind_are_told_apart() {
    let (upstream, one, mut other) = (Upstream::start(), endpoint(), Introspection::start());
    other.team(&Team::default());
    other.key("sk_live_b", &Row { id: "id-b", ..Row::default() });
    let item = |endpoint: &Introspection| {
        format!("{{ http: {{ url: '{}', {} }} }}", endpoint.url(), introspection::ANSWER)
    };
    let sources = format!("keys: [{}, {}]", item(&one), item(&other));
    let setup = Setup::new(&upstream).with("keys: { file: keys.yaml }", &sources);
    let config = setup.config.clone();
    let scopegate = setup.start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(told(&scopegate, "sk_live_b").0, 200);
    let known = |source: &str| {
        scopegate.metric(&format!("scopegate_key_lookups_total{{result=\"known\",source=\"{source}\"}}"))
    };
    assert_eq!((known("http"), known("http-2")), (1.0, 1.0));
    other.instead(|_| false);
    let up = |source: &str| scopegate.metric(&format!("scopegate_key_source_up{{source=\"{source}\"}}"));
    eventually("the loss of one", || {
        // Nobody notices before it is asked.
        told(&scopegate, &format!("sk_live_{}", fastrand::u32(..)));
        (up("http-2") == 0.0).then_some(())
    });
    assert_eq!(up("http"), 1.0);
    // One that goes on keeps its name, wherever it stands.
    scopegate.replace("scopegate.yaml", &config.replace(&sources, &format!("keys: [{}]", item(&other))));
    eventually("the reload", || {
        (scopegate.ask_admin("/config").json()["config"]["keys"].as_array()?.len() == 1).then_some(())
    });
    other.resume();
    eventually("its return", || (up("http-2") == 1.0).then_some(()));
}

#[test]
fn news_that_one_server_does_not_hear_in_time_are_told_to_the_next() {
    let (upstream, one, other) = (Upstream::start(), endpoint(), endpoint());
    let item = |endpoint: &Introspection, more: &str| {
        let server = format!("http: {{ url: '{}', {}{more} }}", endpoint.url(), introspection::ANSWER);
        format!("{{ {server}, cache: {{ timeout: 300ms }} }}")
    };
    let sources = format!("keys: [{}, {}]", item(&one, ", bearer_file: bearer"), item(&other, ""));
    let folder = Setup::new(&upstream).with("keys: { file: keys.yaml }", &sources).write();
    // Nobody writes to it, so that who reads it does nothing else.
    let pipe = std::process::Command::new("mkfifo").arg(folder.path().join("bearer")).status();
    assert!(pipe.expect("mkfifo").success());
    let scopegate = Scopegate::start(folder);
    assert_eq!(scopegate.tell_admin("POST", "/keys", "", "all").status, 503);
    assert_eq!(scopegate.metric("scopegate_key_news_total{kind=\"all\",source=\"http-2\"}"), 1.0);
}

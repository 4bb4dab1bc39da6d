//! What a reload moves: the keys file, the upstream, the platform's scopes; and what it leaves alone.

use std::fs;

use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{ALL, APPS, NONE, Setup, row};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

/// A GET of `/api/v1/apps` with this key.
fn apps(key: &str) -> String {
    request("GET", "/api/v1/apps", &bearer(key), "")
}

#[test]
fn the_keys_file_may_move_and_is_watched_where_it_is_now() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream);
    let (config, keys) = (setup.config.clone(), setup.keys.clone());
    let scopegate = setup.start();
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(apps(ALL)).status, 200);
    let folder = scopegate.file("elsewhere");
    fs::create_dir(&folder).expect("a folder");
    let without = keys.replace(&row(APPS, "acme", "READ_TEAM_APPS", ""), "");
    fs::write(folder.join("other.yaml"), &without).expect("a file");
    scopegate.replace("scopegate.yaml", &config.replace("file: keys.yaml", "file: elsewhere/other.yaml"));
    eventually("the other file", || (client.ask(apps(APPS)).status == 401).then_some(()));
    assert_eq!(client.ask(apps(ALL)).status, 200);
    // The old one counts no more, the new one does.
    scopegate.replace("keys.yaml", "teams: {}\nkeys: []\n");
    fs::write(folder.join("other.yaml"), &keys).expect("a file");
    eventually("a change of the other file", || (client.ask(apps(APPS)).status == 200).then_some(()));
    // One that is not there leaves the last good keys in force.
    scopegate.replace("scopegate.yaml", &config.replace("file: keys.yaml", "file: elsewhere/none.yaml"));
    scopegate.event(|event| event["problem"].as_str().unwrap_or_default().contains("none.yaml"));
    assert_eq!(client.ask(apps(ALL)).status, 200);
    // Until it is.
    fs::write(folder.join("none.yaml"), &without).expect("a file");
    eventually("the file that was missing", || (client.ask(apps(APPS)).status == 401).then_some(()));
}

#[test]
fn an_upstream_with_a_name_is_changed_without_a_request_that_fails() {
    let (one, other) = (Upstream::start(), Upstream::start());
    let at = |upstream: &Upstream| format!("localhost:{}", upstream.address.port());
    let setup = Setup::at(&at(&one), &at(&one));
    let config = setup.config.clone();
    let scopegate = setup.start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(apps(ALL)).status, 200);
    scopegate.replace("scopegate.yaml", &config.replace(&at(&one), &at(&other)));
    eventually("a request at the other upstream", || {
        let answer = client.ask(apps(ALL));
        assert_eq!((answer.status, answer.reason()), (200, ""), "a reload without a blink");
        (!other.seen().is_empty()).then_some(())
    });
}

#[test]
fn a_change_elsewhere_leaves_an_upstreams_connections_alone() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream);
    let config = setup.config.clone();
    let scopegate = setup.start();
    let mut client = Client::connect(scopegate.address);
    for number in 1..4 {
        assert_eq!(client.ask(apps(ALL)).status, 200);
        scopegate.replace("scopegate.yaml", &format!("unmatched: 40{number}\n{config}"));
        eventually("the change", || {
            let status = get(scopegate.address, "/nothing", "").status;
            (status == 400 + number).then_some(())
        });
    }
    assert_eq!(client.ask(apps(ALL)).status, 200);
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn a_scope_that_the_platform_defines_now_opens_for_who_was_given_it_before() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream);
    let future = "sk_live_future";
    setup.keys = setup.keys.replace("READ_TEAM_APPS] }\n  poor", "READ_TEAM_APPS, FUTURE] }\n  poor");
    setup.keys += &row(future, "acme", "FUTURE", "");
    let config = setup.config.clone();
    let scopegate = setup.start();
    let ask = |key: &str| get(scopegate.address, "/api/v1/future", &bearer(key)).status;
    assert_eq!(ask(future), 404);
    let text = config.replace("READ_TEAM_APPS]\nkeys", "READ_TEAM_APPS, FUTURE]\nkeys");
    let text =
        text.replace("      GET /api/v1/both", "      GET /api/v1/future: FUTURE\n      GET /api/v1/both");
    scopegate.replace("scopegate.yaml", &text);
    eventually("the new route", || (ask(future) == 200).then_some(()));
    assert_eq!((ask(ALL), ask(NONE)), (403, 403));
    // And closes again with it.
    scopegate.replace("scopegate.yaml", &config);
    eventually("the old routes", || (ask(future) == 404).then_some(()));
}

#[test]
fn a_flood_of_changes_ends_with_the_last_one() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream);
    let config = setup.config.clone();
    let scopegate = setup.start();
    let mut client = Client::connect(scopegate.address);
    for number in 0..300 {
        let flag = number % 2 == 0;
        scopegate.replace("scopegate.yaml", &config.replace("webrtc: true", &format!("webrtc: {flag}")));
        let answer = client.ask(apps(ALL));
        assert!(answer.status == 200 || answer.reason() == "flag_off", "{answer:?}");
    }
    eventually("the last change", || (client.ask(apps(ALL)).reason() == "flag_off").then_some(()));
}

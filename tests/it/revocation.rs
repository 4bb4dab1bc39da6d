//! A key that dies takes with it what lives on it, and nothing else.

use std::io::Write as _;
use std::time::{Duration, SystemTime};

use crate::harness::client::{Client, request};
use crate::harness::lives::{CALLS, COUNT, HANDSHAKE, Lives, endless, inside, is_cut};
use crate::harness::scopegate::{ALL, Scopegate, Setup, row};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

const VICTIM: &str = "sk_live_victim";
const ROW: &str = "{ id: id-victim, team: theirs,";

fn setup(upstream: &Upstream) -> Setup {
    let mut setup = Setup::new(upstream).with("surfaces:", CALLS);
    setup.keys =
        setup.keys.replace("keys:\n", "  theirs: { scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN] }\nkeys:\n");
    setup.keys += &row(VICTIM, "theirs", "READ_TEAM_APPS", "");
    setup
}

/// What is inside of one process: the victim's, and somebody else's, who must not notice.
fn check(name: &str, victim: &str, kill: impl Fn(&Scopegate), why: &str) {
    println!("{name}");
    let upstream = Upstream::with(endless);
    let mut setup = setup(&upstream);
    setup.keys = setup.keys.replace(ROW, &format!("{ROW}{victim}"));
    let scopegate = setup.start();
    let other = Lives::begin(&scopegate, ALL);
    let lives = Lives::begin(&scopegate, VICTIM);
    eventually("all to be inside", || (inside(&scopegate) == 2.0 * COUNT).then_some(()));
    kill(&scopegate);
    lives.ended();
    eventually("the others to be inside", || (inside(&scopegate) == COUNT).then_some(()));
    let line = scopegate.log_line(|line| line["reason"] == "key_revoked" && line["route"] == "/ws/calls");
    assert_eq!(line["key"], "id-victim", "{line}");
    assert_eq!(line["detail"], "closed by scopegate with 4001", "{line}");
    let line = scopegate.log_line(|line| line["reason"] == "key_revoked" && line["status"] == 401);
    assert!(line["detail"].as_str().expect("a detail").ends_with(why), "{line}");
    assert_eq!(scopegate.metric("scopegate_revocation_seconds_count"), 1.0);
    let faults = scopegate.ask_admin("/metrics").text();
    assert!(!faults.contains("reason=\"key_revoked\",upstream"), "it is nobody's fault");
    drop(other);
}

#[test]
fn whatever_kills_a_key_ends_what_lives_on_it_and_nothing_else() {
    let row = row(VICTIM, "theirs", "READ_TEAM_APPS", "");
    let team = "theirs: { scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN]";
    let edit = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |scopegate: &Scopegate| scopegate.edit("keys.yaml", &from, &to)
    };
    check("its row is removed", "", edit(&row, ""), "key_unknown");
    check("it is disabled", "", edit(ROW, &format!("{ROW} disabled: true,")), "key_disabled");
    check("it has ended", "", edit(ROW, &format!("{ROW} expires: 2026-01-01,")), "key_expired");
    check("its team is turned off", "", edit(team, &format!("{team}, enabled: false")), "team_disabled");
    check("its team is deleted", "", edit(team, &format!("{team}, deleted: true")), "team_disabled");
    check(
        "its scopes are narrowed",
        "",
        edit(&row, &row.replace("READ_TEAM_APPS", "CREATE_CALL_TOKEN")),
        "scope_missing",
    );
    check(
        "its team's scopes are narrowed",
        "",
        edit(team, "theirs: { scopes: [CREATE_CALL_TOKEN]"),
        "scope_missing",
    );
    check("its row is spoilt", "", edit(ROW, "{ id: id-victim, team: nobody,"), "key_unknown");
}

#[test]
fn a_key_that_ends_by_itself_ends_what_lives_on_it() {
    let soon = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_millis(1500));
    check("it ends", &format!(" expires: '{soon}',"), |_| {}, "key_expired");
}

#[test]
fn what_the_key_may_still_do_goes_on() {
    let upstream = Upstream::with(endless);
    let mut setup = setup(&upstream);
    setup.keys =
        setup.keys.replace("scopes: [READ_TEAM_APPS] }\n", "scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN] }\n");
    let scopes = "scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]";
    let setup = setup.with(
        "GET /api/v1/whoami:",
        "GET /api/v1/any/stream: { any: [CREATE_CALL_TOKEN, READ_TEAM_APPS] }\n      GET /api/v1/whoami:",
    );
    let scopegate = setup.start();
    let open = |target: &str| {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", target, &bearer(VICTIM), ""));
        assert_eq!(client.head().0, 200);
        client
    };
    let (mut apps, any) = (open("/api/v1/apps/stream"), open("/api/v1/any/stream"));
    // The same scopes by other numbers.
    scopegate.edit(
        "scopegate.yaml",
        &format!("\n{scopes}"),
        "\nscopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN, READ_CALL_TOKEN]",
    );
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") >= 2.0).then_some(()));
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 2.0);
    let held = "scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN] }";
    let text = std::fs::read_to_string(scopegate.file("keys.yaml")).expect("a file");
    let (rest, last) = text.rsplit_once(held).expect("the victim's row is the last");
    scopegate.replace("keys.yaml", &format!("{rest}scopes: [CREATE_CALL_TOKEN] }}{last}"));
    assert_eq!(apps.chunk().as_deref(), Some(&b"hello"[..]));
    assert!(is_cut(&mut apps));
    eventually("one to be inside", || {
        (scopegate.metric("scopegate_requests_in_flight") == 1.0).then_some(())
    });
    drop(any);
}

#[test]
fn the_code_of_the_close_may_be_another() {
    let upstream = Upstream::with(endless);
    let scopegate =
        setup(&upstream).with("calls: { access: key,", "calls: { access: key, revoke_code: 4077,").start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/ws/calls", &(bearer(VICTIM) + HANDSHAKE), ""));
    assert_eq!(client.head().0, 101);
    scopegate.edit("keys.yaml", ROW, &format!("{ROW} disabled: true,"));
    client.closed(4077);
}

/// Its answer is whole, and its body goes on: nothing else of the request is left that could be cut.
#[test]
fn a_body_that_outlives_its_answer_ends_with_its_key() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        while exchange.chunk().is_some() {}
        false
    });
    let mut setup = setup(&upstream);
    setup.keys += &row("sk_live_sender", "theirs", "CREATE_CALL_TOKEN", "");
    let scopegate = setup.start();
    let begin = |key: &str| {
        let mut client = Client::connect(scopegate.address);
        let head = format!("{}Transfer-Encoding: chunked\r\n", bearer(key));
        client.send(request("POST", "/api/v1/call-tokens", &head, ""));
        client.send("2\r\nhi\r\n");
        assert_eq!(client.answer(false).text(), "early");
        client
    };
    let (mut stays, mut goes) = (begin(ALL), begin("sk_live_sender"));
    for _ in 0..10 {
        stays.send("2\r\nhi\r\n");
        goes.send("2\r\nhi\r\n");
    }
    let keys = std::fs::read_to_string(scopegate.file("keys.yaml")).expect("a file");
    scopegate
        .replace("keys.yaml", &keys.replace(&row("sk_live_sender", "theirs", "CREATE_CALL_TOKEN", ""), ""));
    eventually("an end", || goes.stream.get_mut().write_all(b"2\r\nhi\r\n").is_err().then_some(()));
    stays.send("0\r\n\r\n");
    stays.send(request("GET", "/health", "", ""));
    assert_eq!(stays.answer(false).text(), "early", "the connection of another goes on");
}

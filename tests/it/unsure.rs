//! Who is inside on a key of which nobody can say anything now: an outage is no revocation.

use std::time::{Duration, Instant, SystemTime};

use crate::harness::eventually;
use crate::harness::introspection::{Introspection, endpoint, form, setup};
use crate::harness::lives::{CALLS, COUNT, Lives, endless, inside};
use crate::harness::scopegate::Scopegate;
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;

const VICTIM: &str = "sk_live_victim";
const OTHER: &str = "sk_live_other";
/// Nobody is asked for without news.
const CACHE: &str = "fresh: 1h, stale: 1h, timeout: 500ms";

/// An endpoint that knows two keys of two teams.
fn two() -> Introspection {
    let mut endpoint = endpoint();
    endpoint.team(&Team { name: "theirs", ..Team::default() });
    endpoint.key(VICTIM, &Row { id: "id-victim", team: "theirs", ..Row::default() });
    endpoint.key(OTHER, &Row { id: "id-other", ..Row::default() });
    endpoint
}

fn start(upstream: &Upstream, endpoint: &Introspection, cache: &str) -> Scopegate {
    let scopegate = setup(upstream, &endpoint.url(), ", retries: 0, failures: 1000", cache)
        .with("surfaces:", CALLS)
        .start();
    scopegate.ready();
    scopegate
}

fn news(scopegate: &Scopegate, news: &str) {
    assert_eq!(scopegate.tell_admin("POST", "/keys", "", news).status, 200, "{news}");
}

#[test]
fn who_is_inside_on_a_key_that_was_named_leaves_and_may_come_back() {
    let hex = form(VICTIM).replace("token_digest=", "");
    for named in [format!("key {hex}"), "team theirs".to_owned()] {
        println!("{named}");
        let (upstream, endpoint) = (Upstream::with(endless), two());
        let scopegate = start(&upstream, &endpoint, CACHE);
        let others = Lives::begin(&scopegate, OTHER);
        let victims = Lives::begin(&scopegate, VICTIM);
        eventually("all to be inside", || (inside(&scopegate) == 2.0 * COUNT).then_some(()));
        endpoint.instead(|_| false);
        news(&scopegate, &named);
        // A browser comes back after 1013, and would not after 4001.
        let answer = victims.told(1013, 503, "keys_unavailable");
        assert_eq!(answer.header("retry-after"), Some("1"));
        assert_eq!(answer.header("www-authenticate"), None);
        eventually("the others to be inside", || (inside(&scopegate) == COUNT).then_some(()));
        let line =
            scopegate.log_line(|line| line["reason"] == "keys_unavailable" && line["route"] == "/ws/calls");
        assert_eq!(line["detail"], "closed by scopegate with 1013", "{line}");
        assert!(!scopegate.everything_said().contains("key_revoked"));
        drop(others);
    }
}

#[test]
fn who_is_inside_on_a_key_that_nobody_named_stays_until_somebody_can_say() {
    let (upstream, mut endpoint) = (Upstream::with(endless), two());
    let scopegate = start(&upstream, &endpoint, CACHE);
    let others = Lives::begin(&scopegate, OTHER);
    let victims = Lives::begin(&scopegate, VICTIM);
    eventually("all to be inside", || (inside(&scopegate) == 2.0 * COUNT).then_some(()));
    endpoint.instead(|_| false);
    let told = Instant::now();
    for _ in 0..3 {
        news(&scopegate, "all");
    }
    // Longer than for a key that was named, and one question more.
    let failed = || scopegate.metric("scopegate_key_lookups_total{result=\"failed\",source=\"http\"}");
    eventually("time to pass", || (told.elapsed() > Duration::from_millis(2_500)).then_some(()));
    let before = failed();
    eventually("a question", || (failed() > before).then_some(()));
    assert_eq!(inside(&scopegate), 2.0 * COUNT);
    endpoint.remove(VICTIM);
    endpoint.resume();
    victims.ended();
    eventually("the others to be inside", || (inside(&scopegate) == COUNT).then_some(()));
    drop(others);
}

#[test]
fn a_key_that_ends_by_itself_ends_whoever_can_be_asked() {
    let (upstream, mut endpoint) = (Upstream::with(endless), two());
    let soon = SystemTime::now() + Duration::from_secs(3);
    let soon = humantime::format_rfc3339_millis(soon).to_string().leak();
    endpoint.key(VICTIM, &Row { id: "id-victim", expires: Some(soon), ..Row::default() });
    let scopegate = start(&upstream, &endpoint, "fresh: 1ms, stale: 1ms, timeout: 500ms");
    let others = Lives::begin(&scopegate, OTHER);
    let victims = Lives::begin(&scopegate, VICTIM);
    endpoint.instead(|_| false);
    victims.ended();
    let line = scopegate.log_line(|line| line["reason"] == "key_revoked" && line["status"] == 401);
    assert!(line["detail"].as_str().is_some_and(|detail| detail.ends_with("key_expired")), "{line}");
    eventually("the others to be inside", || (inside(&scopegate) == COUNT).then_some(()));
    drop(others);
}

#[test]
fn news_of_a_team_are_about_no_other() {
    let (upstream, endpoint) = (Upstream::with(endless), two());
    // What is known is too old to be used, and who is inside is looked at once a minute.
    let scopegate = start(&upstream, &endpoint, "fresh: 1ms, stale: 1ms, timeout: 60s");
    let lives = [VICTIM, OTHER].map(|key| Lives::begin(&scopegate, key));
    eventually("all to be inside", || (inside(&scopegate) == 2.0 * COUNT).then_some(()));
    let before = endpoint.asked(&form(OTHER));
    for _ in 0..5 {
        let asked = endpoint.asked(&form(VICTIM));
        news(&scopegate, "team theirs");
        eventually("a question", || (endpoint.asked(&form(VICTIM)) > asked).then_some(()));
    }
    assert_eq!(endpoint.asked(&form(OTHER)), before);
    drop(lives);
}

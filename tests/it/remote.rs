//! Keys that live on a server: what is kept of its answers, and what happens when it gives none.

use std::thread;
use std::time::{Duration, Instant};

use redis::Commands as _;

use crate::harness::client::{Client, get, request};
use crate::harness::redis::Redis;
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

const KEY: &str = "sk_live_a";

fn setup(redis: &mut Redis, upstream: &Upstream, cache: &str) -> Setup {
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    let section = format!("keys: {{ {}, cache: {{ {cache} }} }}", redis.section());
    Setup::new(upstream).with("keys: { file: keys.yaml }", &section)
}

fn lookups(scopegate: &Scopegate, result: &str) -> f64 {
    scopegate.metric(&format!("scopegate_key_lookups_total{{result=\"{result}\",source=\"redis\"}}"))
}

#[test]
fn without_an_answer_nobody_is_let_in_and_nobody_is_called_unknown() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let setup = setup(&mut redis, &upstream, "timeout: 500ms");
    redis.kill();
    let scopegate = setup.start();
    let answer = get(scopegate.address, "/api/v1/apps", &bearer(KEY));
    assert_eq!((answer.status, answer.reason()), (503, "keys_unavailable"));
    assert_eq!(answer.header("retry-after"), Some("1"));
    let ready_answer = scopegate.ask_admin("/readyz");
    assert_eq!(ready_answer.status, 503);
    assert!(ready_answer.text().contains("keys"), "{}", ready_answer.text());
    assert_eq!(get(scopegate.address, "/health", "").status, 200, "what needs no key");
    redis.resume();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(scopegate.metric("scopegate_key_source_up{source=\"redis\"}"), 1.0);
    redis.kill();
    eventually("the loss", || {
        (scopegate.metric("scopegate_key_source_up{source=\"redis\"}") == 0.0).then_some(())
    });
    assert_eq!(told(&scopegate, KEY).0, 200, "it is fresh");
    assert_eq!(told(&scopegate, "sk_live_new"), (503, "keys_unavailable".to_owned()));
    assert_eq!(scopegate.ask_admin("/readyz").status, 200, "a loss does not make it unready");
}

#[test]
fn what_was_known_may_be_used_for_so_long() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let cache = "fresh: 100ms, stale: 200ms, timeout: 500ms, fail: { stale_for: 3s }";
    let scopegate = setup(&mut redis, &upstream, cache).start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    let known = Instant::now();
    redis.kill();
    let mut client = Client::connect(scopegate.address);
    let end = eventually("the end of what was known", || {
        let answer = client.ask(request("GET", "/api/v1/apps", &bearer(KEY), ""));
        (answer.status != 200).then(|| (answer.status, answer.reason().to_owned()))
    });
    assert_eq!(end, (503, "keys_unavailable".to_owned()));
    let lasted = known.elapsed();
    assert!(lasted > Duration::from_secs(2), "{lasted:?}");
    assert!(scopegate.metric("scopegate_key_stale_total{source=\"redis\"}") > 0.0);
    scopegate.event(|event| {
        event["message"].as_str().is_some_and(|text| text.contains("what it said before is used"))
    });
    // A change while it is away is in force as soon as it is back.
    redis.resume();
    redis.key(KEY, &Row { disabled: true, ..Row::default() });
    eventually("the change", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
}

#[test]
fn news_that_were_missed_are_made_up_for() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let scopegate = setup(&mut redis, &upstream, "fresh: 1h, stale: 2h").start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    // Everybody is thrown out, and the change is not published.
    let hex = scopegate::identity::key::Digest::of(KEY.as_bytes()).hex();
    let connection = redis.connection();
    connection.del::<_, ()>(format!("scopegate:key:{hex}")).expect("redis-server");
    assert_eq!(told(&scopegate, KEY).0, 200, "nobody has said so");
    redis::cmd("CLIENT").arg("KILL").arg("TYPE").arg("pubsub").exec(connection).expect("redis-server");
    eventually("the change", || (told(&scopegate, KEY).1 == "key_unknown").then_some(()));
}

#[test]
fn a_key_is_asked_for_once_at_a_time_and_kept() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let scopegate = setup(&mut redis, &upstream, "").start();
    scopegate.ready();
    let address = scopegate.address;
    let asking: Vec<_> =
        (0..32).map(|_| thread::spawn(move || get(address, "/api/v1/apps", &bearer(KEY)).status)).collect();
    for asking in asking {
        assert_eq!(asking.join().expect("an answer"), 200);
    }
    let asked = lookups(&scopegate, "known");
    assert!(asked <= 2.0, "asked {asked} times");
    for _ in 0..10 {
        assert_eq!(told(&scopegate, "sk_live_unknown").1, "key_unknown");
    }
    assert_eq!(lookups(&scopegate, "unknown"), 1.0);
}

#[test]
fn after_a_start_everybody_is_a_stranger_and_nobody_is_refused() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let setup = setup(&mut redis, &upstream, "rate: 2");
    let keys: Vec<_> = (0..64).map(|number| format!("sk_live_{number}")).collect();
    for key in &keys {
        redis.key(key, &Row { id: "id", ..Row::default() });
    }
    let scopegate = setup.start();
    scopegate.ready();
    let address = scopegate.address;
    let asking =
        keys.into_iter().map(|key| thread::spawn(move || get(address, "/api/v1/apps", &bearer(&key)).status));
    for asking in asking.collect::<Vec<_>>() {
        assert_eq!(asking.join().expect("an answer"), 200);
    }
}

#[test]
fn what_cannot_be_read_is_no_yes_and_no_panic() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let scopegate = setup(&mut redis, &upstream, "").start();
    scopegate.ready();
    let name =
        |key: &str| format!("scopegate:key:{}", scopegate::identity::key::Digest::of(key.as_bytes()).hex());
    let connection = redis.connection();
    connection.set::<_, _, ()>(name("sk_live_string"), "x").expect("redis-server");
    for (key, fields) in [
        ("sk_live_no_team", vec![("id", "i"), ("scopes", "READ_TEAM_APPS")]),
        ("sk_live_no_id", vec![("team", "acme"), ("scopes", "READ_TEAM_APPS")]),
        (
            "sk_live_maybe",
            vec![("id", "i"), ("team", "acme"), ("scopes", "READ_TEAM_APPS"), ("disabled", "maybe")],
        ),
        (
            "sk_live_when",
            vec![("id", "i"), ("team", "acme"), ("scopes", "READ_TEAM_APPS"), ("expires", "soon")],
        ),
    ] {
        connection.hset_multiple::<_, _, _, ()>(name(key), &fields).expect("redis-server");
    }
    for key in ["sk_live_string", "sk_live_no_team", "sk_live_no_id", "sk_live_maybe", "sk_live_when"] {
        assert_eq!(told(&scopegate, key), (503, "keys_unavailable".to_owned()), "{key}");
    }
    let fields = [("id", "i"), ("team", "nobody"), ("scopes", "READ_TEAM_APPS")];
    redis.connection().hset_multiple::<_, _, _, ()>(name("sk_live_teamless"), &fields).expect("redis-server");
    assert_eq!(told(&scopegate, "sk_live_teamless"), (401, "team_disabled".to_owned()));
    assert_eq!(lookups(&scopegate, "failed"), 5.0);
    // What is said and cannot be read may be about anything.
    assert_eq!(told(&scopegate, KEY).0, 200);
    redis.connection().del::<_, ()>(name(KEY)).expect("redis-server");
    redis.publish("\u{1}garbage");
    eventually("the change", || (told(&scopegate, KEY).1 == "key_unknown").then_some(()));
    assert_eq!(scopegate.metric("scopegate_key_news_total{kind=\"garbage\",source=\"redis\"}"), 1.0);
}

#[test]
fn the_servers_own_news_are_heard_too() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("notify-keyspace-events")
        .arg("KEA")
        .exec(redis.connection())
        .expect("a server");
    let scopegate = setup(&mut redis, &upstream, "fresh: 1h, stale: 2h").start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    let hex = scopegate::identity::key::Digest::of(KEY.as_bytes()).hex();
    redis
        .connection()
        .hset::<_, _, _, ()>(format!("scopegate:key:{hex}"), "disabled", "true")
        .expect("a server");
    eventually("a key", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
    redis.connection().hset::<_, _, _, ()>("scopegate:team:acme", "enabled", "false").expect("a server");
    eventually("a team", || (told(&scopegate, KEY).1 == "team_disabled").then_some(()));
}

#[test]
fn the_first_source_that_knows_a_key_answers() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let setup = setup(&mut redis, &upstream, "timeout: 500ms");
    // Both know the key; the file says that it is turned off.
    let keys = format!("keys: [{{ file: keys.yaml }}, {{ {} }}]", redis.section());
    let section = format!("keys: {{ {}, cache: {{ timeout: 500ms }} }}", redis.section());
    let mut setup = setup.with(&section, &keys);
    setup.keys += &crate::harness::scopegate::row(KEY, "acme", "READ_TEAM_APPS", ", disabled: true");
    redis.key("sk_live_theirs", &Row { id: "id-theirs", ..Row::default() });
    let scopegate = setup.start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY), (401, "key_disabled".to_owned()), "what the first says is final");
    assert_eq!(told(&scopegate, "sk_live_theirs").0, 200);
    assert_eq!(told(&scopegate, crate::harness::scopegate::APPS).0, 200);
    redis.kill();
    assert_eq!(told(&scopegate, crate::harness::scopegate::APPS).0, 200, "the first knows it");
    assert_eq!(told(&scopegate, "sk_live_new"), (503, "keys_unavailable".to_owned()));
}

#[test]
fn a_change_can_be_told_to_the_process_itself() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let scopegate = setup(&mut redis, &upstream, "fresh: 1h, stale: 2h, unknown: 1h").start();
    scopegate.ready();
    let hex = scopegate::identity::key::Digest::of(KEY.as_bytes()).hex();
    let tell = |news: &str| scopegate.tell_admin("POST", "/keys", "", news).status;
    let mut set = |field: &str, value: &str| {
        redis
            .connection()
            .hset::<_, _, _, ()>(format!("scopegate:key:{hex}"), field, value)
            .expect("a server");
    };
    for (news, field, value, reason) in [
        (format!("key {hex}"), "disabled", "true", "key_disabled"),
        ("team acme".to_owned(), "disabled", "false", ""),
        ("all".to_owned(), "scopes", "", "scope_missing"),
    ] {
        let before = told(&scopegate, KEY);
        set(field, value);
        assert_eq!(told(&scopegate, KEY), before, "{news}: nobody has said so");
        assert_eq!(tell(&news), 200);
        eventually(&news, || (told(&scopegate, KEY).1 == reason).then_some(()));
    }
    for garbage in ["", "key", "key sk_live_a", "everything", &"x".repeat(4096)] {
        assert_eq!(tell(garbage), 400, "{garbage}");
    }
    for page in ["Origin: http://a.example\r\n", "Sec-Fetch-Site: cross-site\r\n"] {
        assert_eq!(scopegate.tell_admin("POST", "/keys", page, "all").status, 403, "{page}");
        assert_eq!(scopegate.tell_admin("GET", "/config", page, "").status, 403, "{page}");
    }
    let mut rebound = Client::connect(scopegate.admin);
    assert_eq!(rebound.ask("GET /config HTTP/1.1\r\nHost: a.example:9901\r\n\r\n").status, 403);
    assert_eq!(scopegate.tell_admin("GET", "/keys", "", "").status, 404);
    assert_eq!(scopegate.tell_admin("DELETE", "/keys", "", "").status, 405);
}

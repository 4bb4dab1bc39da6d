//! A session is minted through one replica and opened through another: Redis, where keys are, says whose it is.

use redis::Commands as _;

use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::redis::Redis;
use crate::harness::scopegate::{Scopegate, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::sessions::{mint, open, setup, telapi, tunnels};

const KEY: &str = "sk_live_a";
const OTHER: &str = "sk_live_b";
const THIEF: &str = "sk_live_c";
const SCOPES: &str = "CREATE_CALL_TOKEN READ_TEAM_APPS";

fn a_row() -> Row {
    Row { scopes: SCOPES, ..Row::default() }
}

fn row(id: &'static str, team: &'static str) -> Row {
    Row { id, team, ..a_row() }
}

/// Two teams, whose three keys are known to two processes.
fn replicas(redis: &mut Redis, upstream: &Upstream) -> [Scopegate; 2] {
    redis.team(&Team::default());
    redis.team(&Team { name: "thieves", ..Team::default() });
    for (key, row) in [(KEY, a_row()), (OTHER, row("id-b", "acme")), (THIEF, row("id-c", "thieves"))] {
        redis.key(key, &row);
    }
    let section = format!("keys: {{ {} }}", redis.section());
    let replica = || setup(upstream, "close").with("keys: { file: keys.yaml }", &section).start();
    let replicas = [replica(), replica()];
    replicas.iter().for_each(Scopegate::ready);
    replicas
}

fn ledger(scopegate: &Scopegate, action: &str, result: &str) -> f64 {
    scopegate.metric(&format!("scopegate_session_ledger_total{{action=\"{action}\",result=\"{result}\"}}"))
}

/// A channel whose owner could be told in time, which on a busy machine may not be the first.
fn attributed(replica: &Scopegate, session: &str) -> Client {
    let known = || replica.metric("scopegate_session_channels");
    let before = known();
    eventually("its owner", || {
        let channel = open(replica, session);
        (known() > before).then_some(channel)
    })
}

fn unattributed(scopegate: &Scopegate) -> f64 {
    scopegate.metric("scopegate_sessions_unattributed_total")
}

#[test]
fn a_session_of_another_replica_ends_with_its_key_and_no_other_does() {
    let (upstream, Some(mut redis)) = (Upstream::with(telapi), Redis::start()) else { return };
    let [first, second] = replicas(&mut redis, &upstream);
    for (key, session) in [(KEY, "secret-a"), (KEY, "secret-b"), (OTHER, "secret-c")] {
        mint(&first, key, session, "whole");
    }
    // What a team has is not another's, on whatever replica that says so.
    eventually("the notes", || (ledger(&first, "keep", "kept") == 3.0).then_some(()));
    mint(&second, THIEF, "secret-a", "whole");
    eventually("the refusal", || (ledger(&second, "keep", "taken") == 1.0).then_some(()));
    let mut mine = ["secret-a", "secret-b"].map(|session| attributed(&second, session));
    let others = [attributed(&second, "secret-c"), open(&second, "nobody's")];
    tunnels(&second, 4.0);
    assert_eq!(ledger(&second, "find", "known"), 3.0);
    assert!(unattributed(&second) >= 1.0);
    let shown = second.ask_admin("/sessions").json();
    assert_eq!(shown["teams"]["acme"]["id-a"], serde_json::json!({ "sessions": 2, "open": 2 }), "{shown}");
    redis.key(KEY, &Row { disabled: true, ..a_row() });
    for channel in &mut mine {
        assert!(channel.closed(4001).contains("key_revoked"));
    }
    tunnels(&second, others.len() as f64);
    let line = second.log_line(|line| line["reason"] == "key_revoked");
    assert_eq!((&line["key"], &line["team"]), (&"id-a".into(), &"acme".into()), "{line}");
    // It is not opened again, wherever.
    for replica in [&first, &second] {
        assert!(open(replica, "secret-b").closed(4001).contains("key_revoked"), "or from its own memory");
    }
}

#[test]
fn redis_holds_digests_alone_and_not_for_ever() {
    let (upstream, Some(mut redis)) = (Upstream::with(telapi), Redis::start()) else { return };
    let [first, _] = replicas(&mut redis, &upstream);
    mint(&first, KEY, "secret-a", "whole");
    eventually("the note", || (ledger(&first, "keep", "kept") == 1.0).then_some(()));
    let names: Vec<String> = redis.connection().keys("scopegate:session:*").expect("redis-server");
    let [name] = &names[..] else { panic!("one session: {names:?}") };
    let note: String = redis.connection().get(name).expect("a text");
    for secret in ["secret-a", KEY] {
        assert!(!name.contains(secret) && !note.contains(secret), "{name}: {note}");
    }
    let life: i64 = redis.connection().ttl(name).expect("redis-server");
    assert!((1..=86_400).contains(&life), "{life}");
}

#[test]
fn without_redis_nothing_waits_for_long_and_what_cannot_be_told_is_counted() {
    let (upstream, Some(mut redis)) = (Upstream::with(telapi), Redis::start()) else { return };
    let [first, second] = replicas(&mut redis, &upstream);
    for replica in [&first, &second] {
        assert_eq!(told(replica, KEY).0, 201, "known from now on");
    }
    mint(&first, KEY, "before", "whole");
    eventually("the note", || (ledger(&first, "keep", "kept") == 1.0).then_some(()));
    redis.pause();
    mint(&first, KEY, "meanwhile", "whole");
    // The replica that passed the answer knows it all the same; the other does not, and lets it pass.
    let (here, there) = (open(&first, "meanwhile"), open(&second, "meanwhile"));
    assert_eq!((unattributed(&first), unattributed(&second)), (0.0, 1.0));
    for replica in [&first, &second] {
        eventually("the count", || (ledger(replica, "find", "failed") == 1.0).then_some(()));
    }
    second.event(|event| event["message"].as_str().is_some_and(|text| text.contains("which session")));
    redis.go_on();
    // What could not be noted is noted when it can be.
    eventually("the note", || (ledger(&first, "keep", "kept") == 2.0).then_some(()));
    eventually("its attribution", || {
        drop(open(&second, "meanwhile"));
        (ledger(&second, "find", "known") > 0.0).then_some(())
    });
    drop((here, there));
}

#[test]
fn what_stands_in_redis_and_is_no_note_attributes_nothing() {
    let (upstream, Some(mut redis)) = (Upstream::with(telapi), Redis::start()) else { return };
    let [first, _] = replicas(&mut redis, &upstream);
    let notes = [
        "",
        "{}",
        "null",
        r#"{"key":"00","id":"a","team":"acme"}"#,
        r#"{"key":"HEX","id":"","team":"acme"}"#,
    ];
    for (number, note) in notes.into_iter().enumerate() {
        let session = format!("s{number}");
        let hex = scopegate::identity::key::Digest::of(session.as_bytes()).hex();
        let name = format!("scopegate:session:{hex}");
        redis.connection().set::<_, _, ()>(&name, note.replace("HEX", &hex)).expect("redis-server");
        // It rests after each failure.
        eventually("the failure", || {
            drop(open(&first, &session));
            (ledger(&first, "find", "failed") > number as f64).then_some(())
        });
    }
    let line = first.log_line(|line| line["route"] == "/ws/session");
    assert!(line["key"].is_null(), "{line}");
    assert_eq!(told(&first, KEY).0, 201, "and harms nothing else");
}

#[test]
fn a_reload_may_begin_it_and_what_is_noted_is_no_news_of_keys() {
    let (upstream, Some(mut redis)) = (Upstream::with(telapi), Redis::start()) else { return };
    let tell = ["SET", "notify-keyspace-events", "KEA"];
    redis::cmd("CONFIG").arg(&tell).exec(redis.connection()).expect("redis-server");
    redis.team(&Team::default());
    redis.key(KEY, &a_row());
    let section = format!("keys: {{ {} }}", redis.section());
    let setup = setup(&upstream, "close").with("keys: { file: keys.yaml }", &section);
    let replica = setup.with(", mints: sessionId", "").start();
    replica.ready();
    mint(&replica, KEY, "before", "whole");
    replica.edit("scopegate.yaml", "errors: text }", "errors: text, mints: sessionId }");
    eventually("the reload", || (replica.metric("scopegate_config_generation") >= 2.0).then_some(()));
    let news = || {
        let text = replica.ask_admin("/metrics").text();
        text.lines()
            .filter(|line| line.starts_with("scopegate_key_news_total"))
            .map(str::to_owned)
            .collect::<Vec<_>>()
    };
    assert_eq!(told(&replica, KEY).0, 201);
    let before = news();
    mint(&replica, KEY, "after", "whole");
    eventually("the note", || (ledger(&replica, "keep", "kept") == 1.0).then_some(()));
    // The key is in use, and nothing has been told of it since.
    attributed(&replica, "after");
    assert_eq!(news(), before);
    let texts: Vec<String> = redis.connection().keys("scopegate:session:*").expect("redis-server");
    assert_eq!(texts.len(), 1, "what was minted before was nobody's: {texts:?}");
}

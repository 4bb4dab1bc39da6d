//! `scopegate keys` in Redis: what is special about that.

use redis::Commands as _;
use scopegate::identity::key::Digest;

use crate::harness::client::get;
use crate::harness::commands::{bad, good, keys, text};
use crate::harness::redis::Redis;
use crate::harness::scopegate::Setup;
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

#[test]
fn what_the_commands_count_is_no_news_of_keys() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let all = ["CONFIG", "SET", "notify-keyspace-events", "KEA"];
    redis::cmd(all[0]).arg(&all[1..]).exec(redis.connection()).expect("redis-server");
    redis.team(&Team::default());
    let section = format!("keys: {{ {} }}", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    let config = scopegate.file("scopegate.yaml").display().to_string();
    let made = good(&["new", "--team", "acme", "--scope", "READ_TEAM_APPS", "--config", &config], "");
    eventually("the key", || {
        (get(scopegate.address, "/api/v1/apps", &bearer(&made)).status == 200).then_some(())
    });
    redis.publish("key of an end");
    let news = |kind: &str| {
        scopegate.metric(&format!("scopegate_key_news_total{{kind=\"{kind}\",source=\"redis\"}}"))
    };
    eventually("the last news", || (news("garbage") > 0.0).then_some(()));
    assert_eq!((news("garbage"), news("key")), (1.0, 2.0), "what was written, and what was told of it");
}

#[test]
fn in_redis_one_hash_that_cannot_be_read_holds_back_no_other() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    redis.team(&Team::default());
    for (key, id) in [("sk_live_a", "id-a"), ("sk_live_b", "id-b"), ("sk_live_c", "id-c")] {
        redis.key(key, &Row { id, ..Row::default() });
    }
    redis.team(&Team { name: "odd", ..Team::default() });
    redis.key("sk_live_d", &Row { id: "id-d", team: "odd", ..Row::default() });
    redis.key("sk_live_e", &Row { id: "id-e", team: "list", ..Row::default() });
    let name = |key: &str| format!("scopegate:key:{}", Digest::of(key.as_bytes()).hex());
    for (key, field, text) in [
        (name("sk_live_b"), "disabled", ""),
        ("scopegate:team:odd".to_owned(), "enabled", "yes"),
        ("scopegate:team:acme".to_owned(), "max_keys", "many"),
    ] {
        redis.connection().hset::<_, _, _, ()>(key, field, text).expect("redis-server");
    }
    for list in ["scopegate:key:00", "scopegate:team:list"] {
        redis.connection().lpush::<_, _, ()>(list, "x").expect("redis-server");
    }
    let section = format!("keys: {{ {} }}", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    scopegate.ready();
    let config = scopegate.file("scopegate.yaml").display().to_string();
    let listed = keys(&["list", "--config", &config], "");
    let (shown, said) = (text(&listed.stdout), text(&listed.stderr));
    assert!(listed.status.success() && shown.contains("id-a") && shown.contains("id-c"), "{shown}{said}");
    assert!(!["id-b", "id-d", "id-e"].iter().any(|id| shown.contains(id)), "{shown}");
    assert!(said.contains("6 more have a mistake"), "two teams, and four that are said to be keys: {said}");
    let told = |key: &str| get(scopegate.address, "/api/v1/apps", &bearer(key));
    assert_eq!(told("sk_live_c").status, 200);
    for key in ["sk_live_b", "sk_live_d", "sk_live_e"] {
        assert_eq!(told(key).reason(), "keys_unavailable", "{key}: nobody can say what it is");
    }
    let full = bad(&["new", "--team", "acme", "--scope", "READ_TEAM_APPS", "--config", &config], "");
    assert!(full.contains("team `acme` may have 0 keys"), "{full}");
    good(&["revoke", "id-c", "--config", &config], "");
    eventually("its end", || (told("sk_live_c").reason() == "key_disabled").then_some(()));
}

#[test]
fn in_redis_a_prefix_is_no_pattern() {
    let Some(mut redis) = Redis::start() else { return };
    for prefix in ["a*:", "ab:"] {
        redis
            .connection()
            .hset::<_, _, _, ()>(format!("{prefix}team:of {prefix}"), "scopes", "A")
            .expect("redis-server");
        let name = format!("{prefix}key:{}", "0".repeat(64));
        let fields = [("id", prefix), ("team", &format!("of {prefix}")), ("scopes", "A")];
        redis.connection().hset_multiple::<_, _, _, ()>(name, &fields).expect("redis-server");
    }
    let section = redis.section().replace(" }", ", prefix: 'a*:' }");
    let folder = Setup::at("127.0.0.1:9", "127.0.0.1:9")
        .with("keys: { file: keys.yaml }", &format!("keys: {{ {section} }}"))
        .write();
    let config = folder.path().join("scopegate.yaml").display().to_string();
    let listed = good(&["list", "--config", &config], "");
    assert!(
        listed.contains("of a*:") && !listed.contains("of ab:") && listed.lines().count() == 2,
        "{listed}"
    );
}

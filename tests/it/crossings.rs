//! What crosses on its way: news, questions and reloads, with several sources and under a flood.

use std::thread;

use redis::Commands as _;

use crate::harness::client::{Client, get, request};
use crate::harness::redis::Redis;
use crate::harness::scopegate::{APPS, Scopegate, Setup, row, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

const KEY: &str = "sk_live_a";

fn metric(scopegate: &Scopegate, name: &str, label: &str) -> f64 {
    scopegate.metric(&format!("scopegate_key_{name}_total{{{label},source=\"redis\"}}"))
}

#[test]
fn who_waits_for_one_source_while_another_revokes_is_refused() {
    let (upstream, Some(redis)) = (Upstream::start(), Redis::start()) else { return };
    let keys = format!("keys: [{{ {}, cache: {{ timeout: 9s }} }}, {{ file: keys.yaml }}]", redis.section());
    let mut setup = Setup::new(&upstream).with("keys: { file: keys.yaml }", &keys);
    let victim = row("sk_live_v", "acme", "READ_TEAM_APPS", "");
    setup.keys += &victim;
    let scopegate = setup.start();
    scopegate.ready();
    redis.pause();
    let address = scopegate.address;
    let asking = thread::spawn(move || get(address, "/api/v1/apps", &bearer("sk_live_v")));
    eventually("the request", || (scopegate.metric("scopegate_requests_in_flight") == 1.0).then_some(()));
    scopegate.edit("keys.yaml", &victim, "");
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") == 2.0).then_some(()));
    redis.go_on();
    let answer = asking.join().expect("an answer");
    assert_eq!(answer.status, 401, "{answer:?}");
    assert_eq!(upstream.seen().len(), 0, "nothing of it has reached the upstream");
}

#[test]
fn a_flood_of_strangers_ends_nobody_who_is_inside() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = std::io::Read::read(exchange.stream, &mut [0; 64]);
        false
    });
    let Some(mut redis) = Redis::start() else { return };
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    let cache = "cache: { rate: 1, timeout: 300ms, fresh: 1ms, stale: 1ms }";
    let keys = format!("keys: {{ {}, {cache} }}", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &keys).start();
    scopegate.ready();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/api/v1/apps", &bearer(KEY), ""));
    assert_eq!(client.head().0, 200);
    assert_eq!(client.chunk().as_deref(), Some(&b"hello"[..]));
    // The only room is taken, and then everybody who is inside is looked at again.
    assert_eq!(told(&scopegate, "sk_live_nobody").0, 401);
    let before = metric(&scopegate, "lookups", "result=\"known\"");
    redis.publish("all");
    eventually("a look", || (metric(&scopegate, "lookups", "result=\"known\"") > before).then_some(()));
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 1.0, "it goes on");
    assert_eq!(metric(&scopegate, "lookups", "result=\"refused\""), 0.0);
}

#[test]
fn who_is_known_to_a_later_source_is_no_stranger() {
    let (upstream, Some(redis)) = (Upstream::start(), Redis::start()) else { return };
    let cache = "cache: { rate: 1, timeout: 300ms, unknown: 1ms }";
    let keys = format!("keys: [{{ {}, {cache} }}, {{ file: keys.yaml }}]", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &keys).start();
    scopegate.ready();
    // Each time that the server has forgotten that it does not know the key, it is asked again.
    eventually("more questions than strangers may ask", || {
        assert_eq!(told(&scopegate, APPS).0, 200);
        (metric(&scopegate, "lookups", "result=\"unknown\"") > 3.0).then_some(())
    });
}

#[test]
fn two_servers_of_one_kind_are_both_waited_for() {
    let (upstream, Some(mut one), Some(mut other)) = (Upstream::start(), Redis::start(), Redis::start())
    else {
        return;
    };
    for (redis, key, id) in [(&mut one, KEY, "id-a"), (&mut other, "sk_live_b", "id-b")] {
        redis.team(&Team::default());
        redis.key(key, &Row { id, ..Row::default() });
    }
    let keys = format!("keys: [{{ {} }}, {{ {} }}]", one.section(), other.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &keys).start();
    scopegate.ready();
    for (key, status) in [(KEY, 200), ("sk_live_b", 200), ("sk_live_c", 401)] {
        assert_eq!(told(&scopegate, key).0, status, "{key}");
    }
}

#[test]
fn what_holds_no_key_is_no_news() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    redis::cmd("CONFIG")
        .arg("SET")
        .arg("notify-keyspace-events")
        .arg("KEA")
        .exec(redis.connection())
        .expect("a server");
    let keys = format!("keys: {{ {}, cache: {{ fresh: 1h, stale: 2h }} }}", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &keys).start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    let before = metric(&scopegate, "lookups", "result=\"known\"");
    for name in ["hits", "key", "key:none", "teams:acme", ""] {
        redis.connection().incr::<_, _, i64>(format!("scopegate:{name}"), 1).expect("a server");
    }
    // What comes after them has been heard after them.
    redis.key("sk_live_other", &Row { id: "id-other", ..Row::default() });
    eventually("news", || (metric(&scopegate, "news", "kind=\"key\"") > 0.0).then_some(()));
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(metric(&scopegate, "lookups", "result=\"known\""), before, "it is still kept");
}

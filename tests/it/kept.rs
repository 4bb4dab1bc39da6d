//! What is kept of a server's answers: for how long, how much of it, and over what.

use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::introspection::{GOOD, KEY, endpoint, form, json, setup};
use crate::harness::redis::Redis;
use crate::harness::scopegate::{Scopegate, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, client, scopegate};

fn known(scopegate: &Scopegate) -> f64 {
    scopegate.metric("scopegate_key_lookups_total{result=\"known\",source=\"http\"}")
}

/// Until it is so old.
fn pass(time: Duration, since: Instant) {
    eventually("time to pass", || (since.elapsed() > time).then_some(()));
}

#[test]
fn what_is_stale_is_used_while_an_answer_is_on_its_way() {
    let (upstream, mut endpoint) = (Upstream::start(), endpoint());
    let cache = "fresh: 50ms, stale: 1h, timeout: 60s";
    let scopegate = setup(&upstream, &endpoint.url(), "", cache).start();
    scopegate.ready();
    let asked = Instant::now();
    assert_eq!(told(&scopegate, KEY).0, 200);
    pass(Duration::from_millis(50), asked);
    endpoint.hold();
    for _ in 0..20 {
        assert_eq!(told(&scopegate, KEY).0, 200);
    }
    endpoint.holds(1);
    endpoint.key(KEY, &Row { disabled: true, ..Row::default() });
    assert_eq!(told(&scopegate, KEY).0, 200, "nobody has said so");
    endpoint.let_go();
    // What was on its way was of before the change: another question tells.
    eventually("the change", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
    assert!(endpoint.asked(&form(KEY)) >= 3, "{}", endpoint.asked(&form(KEY)));
}

#[test]
fn what_is_kept_is_bounded_by_its_bytes() {
    const KEYS: usize = 600;
    // An entry takes more than this.
    const MOST: usize = (64 << 10) / 256;
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let cache = "fresh: 1h, stale: 1h, size: 64KiB, rate: 1000000";
    let scopegate = setup(&upstream, &endpoint.url(), "", cache).start();
    scopegate.ready();
    endpoint.instead(|exchange| exchange.write(json("200 OK", GOOD)));
    let mut client = client::Client::connect(scopegate.address);
    for number in (0..KEYS).chain(0..KEYS) {
        let key = bearer(&format!("sk_live_{number}"));
        assert_eq!(client.ask(client::request("GET", "/api/v1/apps", &key, "")).status, 200);
    }
    assert!(known(&scopegate) >= (KEYS + KEYS - MOST) as f64, "asked {} times", known(&scopegate));
}

#[test]
fn a_reload_forgets_nothing_that_may_still_be_used() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let cache = "fresh: 50ms, stale: 50ms, timeout: 500ms, fail: { stale_for: 1h }";
    let scopegate = setup(&upstream, &endpoint.url(), ", retries: 0", cache).start();
    scopegate.ready();
    assert_eq!(told(&scopegate, KEY).0, 200);
    endpoint.instead(|_| false);
    for (generation, from, to) in [
        (2.0, "\nscopes: [", "\nscopes: [NEW, "),
        (3.0, "timeout: 500ms", "timeout: 600ms"),
        (4.0, "stale_for: 1h", "stale_for: 2h"),
    ] {
        scopegate.edit("scopegate.yaml", from, to);
        eventually("the reload", || {
            (scopegate.metric("scopegate_config_generation") == generation).then_some(())
        });
        assert_eq!(told(&scopegate, KEY).0, 200, "{to}");
    }
    // What may be used without it may be used no longer than is written.
    scopegate.edit("scopegate.yaml", "{ stale_for: 2h }", "closed");
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") == 5.0).then_some(()));
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()));
    endpoint.resume();
    eventually("the endpoint", || (told(&scopegate, KEY).0 == 200).then_some(()));
}

#[test]
fn a_server_of_before_a_reload_is_left_whatever_goes_on() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = std::io::Read::read(exchange.stream, &mut [0; 64]);
        false
    });
    let Some(mut redis) = Redis::start() else { return };
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    let section = format!("keys: {{ {}, cache: {{ timeout: 500ms }} }}", redis.section());
    let scopegate = scopegate::Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    scopegate.ready();
    // Each is decided by a snapshot of its own, which it holds.
    let mut streams = Vec::new();
    for generation in 1..=3 {
        let mut stream = client::Client::connect(scopegate.address);
        stream.send(client::request("GET", "/api/v1/apps", &bearer(KEY), ""));
        assert_eq!(stream.head().0, 200);
        streams.push(stream);
        scopegate.edit(
            "scopegate.yaml",
            &format!("timeout: {generation}00ms").replace("100ms", "500ms"),
            &format!("timeout: {}00ms", generation + 1),
        );
        eventually("the reload", || {
            (scopegate.metric("scopegate_config_generation") > f64::from(generation)).then_some(())
        });
    }
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 3.0);
    eventually("two connections: one asks, one listens", || {
        let clients = redis::cmd("CLIENT").arg("LIST").query::<String>(redis.connection()).ok()?;
        let ours = clients.lines().filter(|line| !line.contains("cmd=client")).count();
        (ours <= 2).then_some(())
    });
    assert_eq!(scopegate.metric("scopegate_key_source_up{source=\"redis\"}"), 1.0);
}

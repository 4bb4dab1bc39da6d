//! A key server that dies while requests come: no wrong answer meanwhile, and how long until it is asked again.

use std::io::Write as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::client::{Client, request};
use crate::harness::introspection::Introspection;
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::scopegate::Setup;
use crate::harness::stores::{Row, Store, Team};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

/// Nearly every request is looked up; what is known is good for a moment.
const CACHE: &str = "fresh: 20ms, stale: 40ms, unknown: 20ms, timeout: 1s, rate: 100000";
const KEYS: usize = 20;
const CLIENTS: usize = 4;
/// How long it is away.
const AWAY: Duration = Duration::from_millis(700);

trait Mortal: Store {
    fn kill(&mut self);
    fn resume(&mut self);
}

impl Mortal for Redis {
    fn kill(&mut self) {
        self.kill();
    }

    fn resume(&mut self) {
        self.resume();
    }
}

impl Mortal for Postgres {
    fn kill(&mut self) {
        self.kill();
    }

    fn resume(&mut self) {
        self.resume();
    }
}

impl Mortal for Introspection {
    fn kill(&mut self) {
        self.instead(|_| false);
    }

    fn resume(&mut self) {
        Self::resume(self);
    }
}

/// What the clients have been told.
#[derive(Default)]
struct Told {
    over: AtomicBool,
    admitted: AtomicUsize,
    unknown: AtomicUsize,
    unavailable: AtomicUsize,
}

#[test]
fn a_server_that_dies_under_load_makes_no_wrong_answer() {
    let upstream = Upstream::start();
    let mut stores: Vec<(&str, Box<dyn Mortal>)> = vec![("http", Box::new(Introspection::start()))];
    stores.extend(Redis::start().map(|redis| ("redis", Box::new(redis) as Box<dyn Mortal>)));
    stores.extend(Postgres::start().map(|postgres| ("postgres", Box::new(postgres) as Box<dyn Mortal>)));
    for (name, mut store) in stores {
        dies_under_load(name, &mut *store, &upstream);
    }
}

fn dies_under_load(name: &str, store: &mut dyn Mortal, upstream: &Upstream) {
    store.team(&Team::default());
    for number in 0..KEYS {
        let key: &'static str = format!("sk_live_{number}").leak();
        store.key(key, &Row { id: key, ..Row::default() });
    }
    store.key("sk_live_off", &Row { id: "off", disabled: true, ..Row::default() });
    // The endpoint's own section has a cache already.
    let section = store.section();
    let section = section.split_once(", cache:").map_or(&*section, |(server, _)| server);
    let section = format!("keys: {{ {section}, cache: {{ {CACHE} }} }}");
    let scopegate = Setup::new(upstream).with("keys: { file: keys.yaml }", &section).start();
    scopegate.ready();
    let (told, address) = (Told::default(), scopegate.address);
    thread::scope(|scope| {
        for client in 0..CLIENTS {
            let told = &told;
            scope.spawn(move || ask(&mut Client::connect(address), client, told));
        }
        let count = |of: &AtomicUsize| of.load(Ordering::Relaxed);
        eventually("some of each", || {
            (count(&told.admitted) > 100 && count(&told.unknown) > 20).then_some(())
        });
        store.kill();
        let killed = Instant::now();
        eventually("its loss", || (count(&told.unavailable) > 0).then_some(()));
        let noticed = killed.elapsed();
        while killed.elapsed() < AWAY {
            thread::yield_now();
        }
        store.resume();
        let (there, before) = (Instant::now(), count(&told.unknown));
        // An unknown key can only be refused by a server that is asked.
        eventually("an answer of its", || (count(&told.unknown) > before).then_some(()));
        let again = there.elapsed();
        let admitted = count(&told.admitted);
        eventually("known keys", || (count(&told.admitted) > admitted + 100).then_some(()));
        told.over.store(true, Ordering::Relaxed);
        let figures = [&told.admitted, &told.unknown, &told.unavailable].map(count);
        let said = format!(
            "{name}: killed for {AWAY:?} under load: noticed after {noticed:?}, asked again {again:?} after it was back; \
             200, 401, 503: {figures:?}"
        );
        // Not println, which nobody sees of a test that passes.
        writeln!(std::io::stderr(), "{said}").expect("standard error");
    });
    assert!(told.unavailable.load(Ordering::Relaxed) > 0, "{name}");
}

/// Keys that are good, one that is off, and one that nobody has, in turn.
fn ask(client: &mut Client, number: usize, told: &Told) {
    let mut turn = number;
    while !told.over.load(Ordering::Relaxed) {
        turn += 1;
        let key = match turn % 8 {
            0 => format!("sk_live_made_up_{number}_{turn}"),
            1 => "sk_live_off".to_owned(),
            _ => format!("sk_live_{}", turn % KEYS),
        };
        let answer = client.ask(request("GET", "/api/v1/apps", &bearer(&key), ""));
        match (turn % 8, answer.status, answer.reason()) {
            (_, 503, "keys_unavailable" | "keys_busy") => {
                assert_eq!(answer.header("retry-after"), Some("1"));
                told.unavailable.fetch_add(1, Ordering::Relaxed);
            }
            (0, 401, "key_unknown") => {
                told.unknown.fetch_add(1, Ordering::Relaxed);
            }
            (1, 401, "key_disabled") => {}
            (2.., 200, "") => {
                told.admitted.fetch_add(1, Ordering::Relaxed);
            }
            other => {
                told.over.store(true, Ordering::Relaxed);
                panic!("{key}: {other:?}");
            }
        }
    }
}

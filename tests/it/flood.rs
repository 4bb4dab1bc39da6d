//! Keys that are made up by the thousand: what they cost the server, and who notices.

use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use crate::harness::bearer;
use crate::harness::client::{Client, request};
use crate::harness::frames::{self, Frames, Told};
use crate::harness::introspection::{KEY, endpoint, form, setup};
use crate::harness::scopegate::told;
use crate::harness::stores::{Row, Store as _};
use crate::harness::upstream::Upstream;

const RATE: f64 = 50.0;
const LONG: Duration = Duration::from_secs(4);
/// Made-up keys that are under way: more than may wait.
const CONNECTIONS: usize = 12;
const STREAMS: usize = 100;
/// `SETTINGS_HEADER_TABLE_SIZE` (RFC 9113, 6.5.2).
const NOTHING_REMEMBERED: [u8; 6] = [0, 1, 0, 0, 0, 0];
/// Used less often than what was said of it is good for.
const SELDOM: &str = "sk_live_seldom";
const STALE: Duration = Duration::from_millis(300);

/// Sends made-up keys until nobody takes them, and says how many.
fn flood(mut client: Frames, over: &AtomicBool) -> usize {
    let (mut sent, mut waiting) = (0, 0);
    // Room for all that it will be told.
    client.send(frames::frame(frames::WINDOW, 0, 0, &0x7000_0000_u32.to_be_bytes()));
    loop {
        while waiting < STREAMS {
            let (stream, key) = (2 * sent as u32 + 1, format!("sk_live_{:032x}", fastrand::u128(..)));
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a.example"),
                (":path", "/api/v1/apps"),
                ("x-api-key", &key),
            ];
            client.try_send(frames::get(stream, &fields));
            (sent, waiting) = (sent + 1, waiting + 1);
        }
        waiting -= 1;
        match client.any() {
            Told::Answer(401, body) => assert!(body.contains("key_unknown"), "{body}"),
            Told::Answer(503, body) => assert!(body.contains("keys_busy"), "{body}"),
            Told::End if over.load(Ordering::Relaxed) => return sent,
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn a_flood_of_made_up_keys_costs_the_server_its_rate_and_nobody_else_anything() {
    let (upstream, mut endpoint) = (Upstream::start(), endpoint());
    endpoint.key(SELDOM, &Row { id: "id-seldom", ..Row::default() });
    let cache = "rate: 50, fresh: 100ms, stale: 300ms, timeout: 5s";
    let scopegate =
        setup(&upstream, &endpoint.url(), "", cache).and("limits: { connections_per_client: 1000 }").start();
    scopegate.ready();
    assert_eq!((told(&scopegate, KEY).0, told(&scopegate, SELDOM).0), (200, 200));
    let (began, over) = (Instant::now(), Arc::<AtomicBool>::default());
    let flooding: Vec<_> = (0..CONNECTIONS)
        .map(|_| {
            let (client, over) = (Frames::connect(scopegate.address, &NOTHING_REMEMBERED), Arc::clone(&over));
            thread::spawn(move || flood(client, &over))
        })
        .collect();
    let mut client = Client::connect(scopegate.address);
    let (mut times, mut seldom, mut turns) = (Vec::new(), Instant::now(), 0);
    while began.elapsed() < LONG {
        let asked = Instant::now();
        assert_eq!(client.ask(request("GET", "/api/v1/apps", &bearer(KEY), "")).status, 200);
        times.push(asked.elapsed());
        if seldom.elapsed() > STALE {
            assert_eq!(client.ask(request("GET", "/api/v1/apps", &bearer(SELDOM), "")).status, 200);
            (seldom, turns) = (Instant::now(), turns + 1);
        }
    }
    assert!(endpoint.asked(&form(SELDOM)) > turns, "each time it was too old to be used");
    let (asked, lasted) = (lookups(&scopegate), began.elapsed());
    over.store(true, Ordering::Relaxed);
    drop(scopegate);
    let sent: usize = flooding.into_iter().map(|client| client.join().expect("a refusal")).sum();
    times.sort_unstable();
    let (middle, last) = (times[times.len() / 2], times[times.len() * 99 / 100]);
    let said = format!(
        "a flood of {sent} made-up keys in {lasted:?}: asked for {asked}, at a rate of {RATE}; a known key took {middle:?}, \
         p99 {last:?}"
    );
    writeln!(std::io::stderr(), "{said}").expect("standard error");
    assert!(asked <= RATE * (lasted.as_secs_f64() + 1.0), "{said}");
}

fn lookups(scopegate: &crate::harness::scopegate::Scopegate) -> f64 {
    scopegate.metric("scopegate_key_lookups_total{result=\"unknown\",source=\"http\"}")
}

//! Micro-benchmarks: `cargo bench`.

use std::hint::black_box;
use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use http::{HeaderMap, HeaderValue, Method};
use scopegate::config::file::{parse, parse_keys};
use scopegate::decide::call::Call;
use scopegate::decide::{Policy, decide};
use scopegate::identity::key::Digest;
use scopegate::keys::file::Table;

/// As many as a platform team would have.
const KEYS: usize = 10_000;

fn key(number: usize) -> String {
    format!("sk_live_{number:032x}")
}

/// The decision on the shipped configuration, with a table of 10,000 keys that are asked for in turn.
fn decision(c: &mut Criterion) {
    let config = include_str!("../config/telapi.yaml");
    let live = parse(Path::new("telapi.yaml"), config).expect("the shipped configuration").value.live;
    let mut text = "teams: { t: { scopes: [READ_TEAM_APPS] } }\nkeys:\n".to_owned();
    for number in 0..KEYS {
        let digest = Digest::of(key(number).as_bytes());
        text += &format!("  - {{ id: k{number}, team: t, digest: '{digest}', scopes: [READ_TEAM_APPS] }}\n");
    }
    let keys = parse_keys(Path::new("keys.yaml"), &text, &live.scopes).expect("a keys file").value;
    let (policy, table) = (Policy::new(&live), Table::new(&keys, &live.scopes));
    let calls: Vec<HeaderMap> = (0..KEYS)
        .map(|number| {
            let value = HeaderValue::from_str(&format!("Bearer {}", key(number))).expect("a value");
            HeaderMap::from_iter([
                (http::header::HOST, HeaderValue::from_static("a")),
                (http::header::AUTHORIZATION, value),
            ])
        })
        .collect();
    let mut turn = calls.iter().cycle();
    c.bench_function("decide, 10,000 keys", |bench| {
        bench.iter(|| {
            let headers = turn.next().expect("a cycle has no end");
            let call = Call {
                method: &Method::GET,
                version: http::Version::HTTP_11,
                path: black_box("/api/v1/apps/a-1"),
                query: None,
                headers,
                now: SystemTime::UNIX_EPOCH,
            };
            let decided = pin!(decide(&policy, &table, &call));
            let Poll::Ready((_, permit)) = decided.poll(&mut Context::from_waker(Waker::noop())) else {
                unreachable!("a table in memory is not waited for")
            };
            assert!(permit.is_ok());
        });
    });
}

criterion_group!(benches, decision);
criterion_main!(benches);

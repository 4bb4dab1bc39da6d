//! News that overtake an answer: whatever was on its way, a key that has died stays dead.

use std::collections::HashSet;
use std::sync::{Arc, Mutex};
use std::thread;

use scopegate::identity::key::Digest;

use crate::harness::bearer;
use crate::harness::client::{Client, get, request};
use crate::harness::introspection::{GOOD, Introspection, KEY, endpoint, form, json, setup};
use crate::harness::scopegate::told;
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;

/// Whatever is kept is kept for longer than a test.
const CACHE: &str = "fresh: 1h, stale: 1h, unknown: 1h, rate: 1000000, timeout: 60s";

/// How what an endpoint knows changes.
type Change = fn(&mut Introspection);

#[test]
fn an_answer_that_news_have_overtaken_is_not_given_and_not_kept() {
    let (hex, none) = (Digest::of(KEY.as_bytes()).hex(), "key_unknown");
    let dies: Change = |endpoint| endpoint.remove(KEY);
    let comes: Change = |endpoint| endpoint.key(KEY, &Row::default());
    let joins: Change = |endpoint| endpoint.team(&Team::default());
    let ends: Change = |endpoint| endpoint.team(&Team { enabled: false, ..Team::default() });
    for (news, before, change, wanted) in [
        (format!("key {hex}"), [joins, comes], dies, (401, none)),
        ("all".to_owned(), [joins, comes], dies, (401, none)),
        ("team acme".to_owned(), [joins, comes], ends, (401, "team_disabled")),
        (format!("key {hex}"), [joins, dies], comes, (200, "")),
        ("all".to_owned(), [joins, dies], comes, (200, "")),
        // Whose a key is that is not known, nobody knows.
        ("team acme".to_owned(), [comes, comes], joins, (200, "")),
    ] {
        println!("{news}, then {wanted:?}");
        let (upstream, mut endpoint) = (Upstream::start(), Introspection::start());
        for before in before {
            before(&mut endpoint);
        }
        let scopegate = setup(&upstream, &endpoint.url(), "", CACHE).start();
        scopegate.ready();
        endpoint.hold();
        let address = scopegate.address;
        let asking = thread::spawn(move || get(address, "/api/v1/apps", &bearer(KEY)));
        endpoint.holds(1);
        change(&mut endpoint);
        assert_eq!(scopegate.tell_admin("POST", "/keys", "", &news).status, 200);
        endpoint.let_go();
        let answer = asking.join().expect("an answer");
        assert_eq!((answer.status, answer.reason()), wanted, "what was on its way");
        assert_eq!(told(&scopegate, KEY), (wanted.0, wanted.1.to_owned()), "what is kept");
        assert_eq!(endpoint.asked(&form(KEY)), 2);
    }
}

/// How many keys die while they are looked up, and on how many threads.
const DEATHS: usize = 10_000;
const THREADS: usize = 4;

#[test]
fn of_ten_thousand_keys_that_die_while_they_are_looked_up_none_is_admitted_after_it() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let scopegate = setup(&upstream, &endpoint.url(), "", CACHE).start();
    scopegate.ready();
    let dead = Arc::<Mutex<HashSet<String>>>::default();
    let is_dead = Arc::clone(&dead);
    endpoint.instead(move |exchange| {
        let form = String::from_utf8_lossy(&exchange.request.body).into_owned();
        let said =
            if is_dead.lock().expect("no panic").contains(&form) { r#"{"active":false}"# } else { GOOD };
        // An answer takes some time, and news come before it, with it, or after it.
        for _ in 0..fastrand::u8(..16) {
            thread::yield_now();
        }
        exchange.write(json("200 OK", said))
    });
    let (address, admin) = (scopegate.address, scopegate.admin);
    let dying: Vec<_> = (0..THREADS)
        .map(|thread| {
            let dead = Arc::clone(&dead);
            thread::spawn(move || {
                let [mut first, mut second] = [(); 2].map(|()| Client::connect(address));
                let mut admin = Client::connect(admin);
                let mut overtaken = 0;
                for number in 0..DEATHS / THREADS {
                    let key = format!("sk_live_{thread}_{number}");
                    let asked = request("GET", "/api/v1/apps", &bearer(&key), "");
                    first.send(&asked);
                    for _ in 0..fastrand::u8(..16) {
                        thread::yield_now();
                    }
                    dead.lock().expect("no panic").insert(form(&key));
                    let news = format!("key {}", Digest::of(key.as_bytes()).hex());
                    let news = request("POST", "/keys", "", &news).replace("telapi.example", "localhost");
                    assert_eq!(admin.ask(news).status, 200);
                    assert_eq!(second.ask(&asked).status, 401, "{key} has died");
                    // This one may have come first.
                    overtaken += usize::from(first.answer(false).status == 401);
                    assert_eq!(first.ask(&asked).status, 401, "{key} has died");
                }
                overtaken
            })
        })
        .collect();
    let overtaken: usize = dying.into_iter().map(|dying| dying.join().expect("they stay dead")).sum();
    println!("{overtaken} of {DEATHS} died before they were admitted");
    assert!(overtaken > 0);
}

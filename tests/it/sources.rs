//! What every source of keys must do, whatever it is: one table for all of them, each with its real server.

use crate::harness::eventually;
use crate::harness::lives::{CALLS, COUNT, Lives, endless, inside};
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store, Team, stores};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";
const OTHER: &str = "sk_live_b";

/// The program on this store, which has one team.
fn start(store: &mut dyn Store, upstream: &Upstream) -> Scopegate {
    store.team(&Team::default());
    let section = format!("keys: {{ {} }}", store.section());
    let setup = Setup::new(upstream).with("keys: { file: keys.yaml }", &section).with("surfaces:", CALLS);
    let scopegate = setup.start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    scopegate
}

fn until(what: &str, scopegate: &Scopegate, key: &str, status: u16, reason: &str) {
    eventually(what, || (told(scopegate, key) == (status, reason.to_owned())).then_some(()));
}

#[test]
fn what_is_said_of_a_key_is_what_is_decided() {
    let upstream = Upstream::start();
    for (name, mut store) in stores() {
        println!("{name}");
        for team in [
            Team { name: "off", enabled: false, ..Team::default() },
            Team { name: "gone", deleted: true, ..Team::default() },
            Team { name: "poor", scopes: "READ_CALL_TOKEN", ..Team::default() },
        ] {
            store.team(&team);
        }
        store.team(&Team::default());
        let cases: [(&str, Row, u16, &str); 9] = [
            ("good", Row::default(), 200, ""),
            ("off", Row { disabled: true, ..Row::default() }, 401, "key_disabled"),
            ("past", Row { expires: Some("2026-01-01T00:00:00Z"), ..Row::default() }, 401, "key_expired"),
            ("future", Row { expires: Some("2099-01-01T00:00:00Z"), ..Row::default() }, 200, ""),
            ("team off", Row { team: "off", ..Row::default() }, 401, "team_disabled"),
            ("team gone", Row { team: "gone", ..Row::default() }, 401, "team_disabled"),
            ("team poor", Row { team: "poor", ..Row::default() }, 403, "scope_missing"),
            ("narrow", Row { scopes: "CREATE_CALL_TOKEN", ..Row::default() }, 403, "scope_missing"),
            ("a scope to come", Row { scopes: "READ_TEAM_APPS READ_MINDS", ..Row::default() }, 200, ""),
        ];
        let ids = ["id-0", "id-1", "id-2", "id-3", "id-4", "id-5", "id-6", "id-7", "id-8"];
        for (number, (_, row, ..)) in cases.iter().enumerate() {
            store.key(&format!("sk_live_{number}"), &Row { id: ids[number], ..row.clone() });
        }
        let scopegate = start(&mut *store, &upstream);
        for (number, (case, _, status, reason)) in cases.iter().enumerate() {
            let answer = told(&scopegate, &format!("sk_live_{number}"));
            assert_eq!(answer, (*status, (*reason).to_owned()), "{name}: {case}");
        }
        assert_eq!(told(&scopegate, "sk_live_99"), (401, "key_unknown".to_owned()), "{name}");
        let line = scopegate.log_line(|line| line["status"] == 200);
        assert_eq!((&line["team"], &line["key"]), (&"acme".into(), &"id-0".into()), "{name}: {line}");
        // The row whose scope is to come is kept, and whoever writes scopes is told of it.
        match name {
            "file" | "kubernetes" => drop(scopegate.event(|event| event.to_string().contains("READ_MINDS"))),
            _ => {
                let counted = format!("scopegate_key_scopes_undefined_total{{source=\"{name}\"}}");
                assert!(scopegate.metric(&counted) >= 1.0, "{name}");
                let event = scopegate.event(|event| event["scopes"] == "READ_MINDS");
                assert_eq!((&event["key"], &event["team"]), (&"id-8".into(), &"acme".into()), "{event}");
            }
        }
    }
}

#[test]
fn a_change_is_in_force_for_the_next_request() {
    let upstream = Upstream::start();
    for (name, mut store) in stores() {
        println!("{name}");
        store.key(OTHER, &Row { id: "id-b", ..Row::default() });
        let scopegate = start(&mut *store, &upstream);
        assert_eq!(told(&scopegate, KEY), (401, "key_unknown".to_owned()), "{name}");
        // A key that has just been refused is known as soon as it is made.
        store.key(KEY, &Row::default());
        until("a new key", &scopegate, KEY, 200, "");
        store.key(KEY, &Row { scopes: "CREATE_CALL_TOKEN", ..Row::default() });
        until("a narrowed key", &scopegate, KEY, 403, "scope_missing");
        store.key(KEY, &Row { disabled: true, ..Row::default() });
        until("a disabled key", &scopegate, KEY, 401, "key_disabled");
        store.key(KEY, &Row::default());
        until("an enabled key", &scopegate, KEY, 200, "");
        store.team(&Team { enabled: false, ..Team::default() });
        until("a team that is off", &scopegate, KEY, 401, "team_disabled");
        store.team(&Team { scopes: "READ_CALL_TOKEN", ..Team::default() });
        until("a narrowed team", &scopegate, KEY, 403, "scope_missing");
        store.team(&Team::default());
        until("a team as before", &scopegate, KEY, 200, "");
        store.remove(KEY);
        until("a removed key", &scopegate, KEY, 401, "key_unknown");
        assert_eq!(told(&scopegate, OTHER).0, 200, "{name}: somebody else's");
    }
}

/// What ends a key.
type End = fn(&mut dyn Store);

#[test]
fn what_lives_on_a_key_ends_with_it() {
    let upstream = Upstream::with(endless);
    for (name, mut store) in stores() {
        println!("{name}");
        store.key(KEY, &Row::default());
        store.key(OTHER, &Row { id: "id-b", ..Row::default() });
        let scopegate = start(&mut *store, &upstream);
        let others = Lives::begin(&scopegate, OTHER);
        let ends: [End; 4] = [
            |store| store.key(KEY, &Row { disabled: true, ..Row::default() }),
            |store| store.key(KEY, &Row { scopes: "CREATE_CALL_TOKEN", ..Row::default() }),
            |store| store.remove(KEY),
            // It has become another team's, and that is turned off.
            |store| {
                store.team(&Team { name: "others", ..Team::default() });
                store.key(KEY, &Row { team: "others", ..Row::default() });
                store.team(&Team { name: "others", enabled: false, ..Team::default() });
            },
        ];
        for end in ends {
            until("the key", &scopegate, KEY, 200, "");
            let lives = Lives::begin(&scopegate, KEY);
            eventually("all to be inside", || (inside(&scopegate) == 2.0 * COUNT).then_some(()));
            end(&mut *store);
            lives.ended();
            eventually("the others alone", || (inside(&scopegate) == COUNT).then_some(()));
            store.key(KEY, &Row::default());
        }
        assert_eq!(scopegate.metric("scopegate_revocation_seconds_count"), 4.0, "{name}");
        drop(others);
    }
}

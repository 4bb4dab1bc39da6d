//! A policy and its keys as scopegate has them, and who may do what as a table that it has not seen.

use std::path::Path;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, SystemTime};

use scopegate::config::Live;
use scopegate::config::file::{parse, parse_keys};
use scopegate::decide::call::Call;
use scopegate::decide::denial::Denial;
use scopegate::decide::permit::Permit;
use scopegate::decide::{Policy, Route, decide};
use scopegate::identity::key::Digest;
use scopegate::keys::table::Table;
use scopegate::message::head::Limits;

pub const LIMITS: Limits = Limits { head: 4096, fields: 20, target: 1024 };

pub const SHIPPED: &str = include_str!("../../config/telapi.yaml");

/// The end of 2026: one of the keys has expired by then.
pub fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_798_000_000)
}

/// A key, and the scopes that it may really use.
pub struct Known {
    pub secret: &'static str,
    pub id: &'static str,
    pub team: &'static str,
    written: &'static str,
    pub scopes: &'static [&'static str],
    pub usable: bool,
}

const ALL: &str = "[CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]";

const fn key(secret: &'static str, id: &'static str, team: &'static str, written: &'static str) -> Known {
    Known { secret, id, team, written, scopes: &[], usable: false }
}

pub const KEYS: [Known; 7] = [
    Known {
        scopes: &["CREATE_CALL_TOKEN", "READ_CALL_TOKEN", "READ_TEAM_APPS"],
        usable: true,
        ..key("full", "f", "all", "scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]")
    },
    Known {
        scopes: &["READ_CALL_TOKEN"],
        usable: true,
        ..key("read", "r", "all", "scopes: [READ_CALL_TOKEN]")
    },
    Known {
        scopes: &["READ_TEAM_APPS"],
        usable: true,
        ..key("apps", "a", "some", "scopes: [CREATE_CALL_TOKEN, READ_TEAM_APPS]")
    },
    Known { usable: true, ..key("none", "n", "all", "scopes: []") },
    key("past", "p", "all", "scopes: [READ_CALL_TOKEN], expires: 2026-01-01"),
    key("dead", "d", "all", "scopes: [READ_CALL_TOKEN], disabled: true"),
    key("gone", "g", "off", "scopes: [READ_CALL_TOKEN]"),
];

pub struct World {
    pub live: Live,
    pub policy: Policy,
    table: Table,
}

impl World {
    pub fn new(config: &str) -> Self {
        let live = parse(Path::new("f.yaml"), config).expect("a good configuration").value.live;
        let mut text = format!(
            "teams: {{ all: {{ scopes: {ALL} }}, some: {{ scopes: [READ_TEAM_APPS] }}, off: {{ scopes: {ALL}, enabled: false }} }}\nkeys:\n"
        );
        for Known { secret, id, team, written, .. } in &KEYS {
            let digest = Digest::of(secret.as_bytes());
            text += &format!("  - {{ id: {id}, team: {team}, digest: '{digest}', {written} }}\n");
        }
        let keys = parse_keys(Path::new("k.yaml"), &text, &live.scopes).expect("a keys file").value;
        assert_eq!(keys.refused, 0);
        Self { policy: Policy::new(&live), table: Table::new(&keys, &live.scopes), live }
    }

    pub fn decide(&self, call: &Call<'_>) -> (Option<&Route>, Result<Permit<'_>, Denial>) {
        let decided = pin!(decide(&self.policy, &self.table, call));
        match decided.poll(&mut Context::from_waker(Waker::noop())) {
            Poll::Ready(decided) => decided,
            Poll::Pending => unreachable!("a table in memory is not waited for"),
        }
    }
}

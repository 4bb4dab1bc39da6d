//! An endpoint that knows keys, as somebody else would write it.

use std::collections::BTreeMap;
use std::sync::{Arc, Condvar, Mutex};

use scopegate::identity::key::Digest;
use serde_json::json;

use super::eventually;
use super::scopegate::{Scopegate, Setup};
use super::stores::{Row, Store, Team};
use super::upstream::{Exchange, Upstream};

/// How a question is answered; false has the connection closed.
type Answer = Arc<dyn Fn(&mut Exchange<'_>) -> bool + Send + Sync>;

/// What `answer:` says of the names that it uses.
pub const ANSWER: &str =
    "answer: { team_scopes: /team_scopes, disabled: /disabled, team_disabled: /team_disabled }";

/// The key that it knows.
pub const KEY: &str = "sk_live_a";

/// A key that may do something.
pub const GOOD: &str = r#"{"active":true,"client_id":"i","team":"acme","scope":"READ_TEAM_APPS","team_scopes":"READ_TEAM_APPS","disabled":false,"team_disabled":false}"#;

/// An endpoint on a port of its own.
pub struct Introspection {
    pub upstream: Upstream,
    table: Arc<Mutex<Table>>,
    gate: Arc<(Mutex<Gate>, Condvar)>,
}

/// What answers wait behind.
#[derive(Default)]
struct Gate {
    shut: bool,
    waiting: usize,
}

#[derive(Default)]
struct Table {
    teams: BTreeMap<&'static str, Team>,
    /// By digest.
    keys: BTreeMap<String, Row>,
    instead: Option<Answer>,
}

impl Introspection {
    pub fn start() -> Self {
        let (table, gate) = (Arc::<Mutex<Table>>::default(), Arc::<(Mutex<Gate>, Condvar)>::default());
        let (shared, before) = (Arc::clone(&table), Arc::clone(&gate));
        let upstream = Upstream::with(move |exchange| {
            exchange.read_body();
            let instead = shared.lock().expect("no panic").instead.clone();
            if let Some(instead) = instead {
                return instead(exchange);
            }
            let said = shared.lock().expect("no panic").said(&exchange.request.body);
            let mut gate = before.0.lock().expect("no panic");
            gate.waiting += 1;
            let mut gate = before.1.wait_while(gate, |gate| gate.shut).expect("no panic");
            gate.waiting -= 1;
            drop(gate);
            exchange.write(json("200 OK", &said))
        });
        Self { upstream, table, gate }
    }

    pub fn url(&self) -> String {
        format!("http://{}/introspect", self.upstream.address)
    }

    /// From now on questions are answered like this, whatever is in the table.
    pub fn instead(&self, answer: impl Fn(&mut Exchange<'_>) -> bool + Send + Sync + 'static) {
        self.table.lock().expect("no panic").instead = Some(Arc::new(answer));
    }

    /// From now on they are answered from the table.
    pub fn resume(&self) {
        self.table.lock().expect("no panic").instead = None;
    }

    /// From now on answers are held back. What they say is what was so when they were asked for.
    pub fn hold(&self) {
        self.gate.0.lock().expect("no panic").shut = true;
    }

    /// Until so many are.
    pub fn holds(&self, count: usize) {
        eventually("questions", || (self.gate.0.lock().expect("no panic").waiting == count).then_some(()));
    }

    /// They are given.
    pub fn let_go(&self) {
        self.gate.0.lock().expect("no panic").shut = false;
        self.gate.1.notify_all();
    }

    /// How often this was asked about.
    pub fn asked(&self, form: &str) -> usize {
        self.upstream.seen().iter().filter(|seen| seen.body == form.as_bytes()).count()
    }
}

/// An endpoint that knows one key.
pub fn endpoint() -> Introspection {
    let mut endpoint = Introspection::start();
    endpoint.team(&Team::default());
    endpoint.key(KEY, &Row::default());
    endpoint
}

/// The program in front of an endpoint that is there.
pub fn setup(upstream: &Upstream, url: &str, more: &str, cache: &str) -> Setup {
    let section = format!("keys: {{ http: {{ url: '{url}', {ANSWER}{more} }}, cache: {{ {cache} }} }}");
    Setup::new(upstream).with("keys: { file: keys.yaml }", &section)
}

pub fn ready(scopegate: &Scopegate) {
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
}

/// The form that asks about a key by its digest.
pub fn form(key: &str) -> String {
    format!("token_digest={}", Digest::of(key.as_bytes()).hex())
}

/// An answer with a body of JSON.
pub fn json(status: &str, body: &str) -> String {
    let length = body.len();
    format!("HTTP/1.1 {status}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}")
}

impl Table {
    fn said(&self, form: &[u8]) -> String {
        let form = String::from_utf8_lossy(form);
        let hex = match form.split_once('=') {
            Some(("token_digest", hex)) => hex.to_owned(),
            Some(("token", key)) => {
                let key = percent_encoding::percent_decode_str(key).collect::<Vec<_>>();
                Digest::of(&key).hex()
            }
            other => panic!("no form of ours: {other:?}"),
        };
        let known = self.keys.get(&hex).and_then(|row| Some((row, self.teams.get(row.team)?)));
        let Some((row, team)) = known else { return json!({ "active": false }).to_string() };
        json!({
            "active": true,
            "client_id": row.id,
            "team": row.team,
            "scope": row.scopes,
            "exp": row.expires,
            "disabled": row.disabled,
            "team_scopes": team.scopes.split(' ').collect::<Vec<_>>(),
            "team_disabled": !team.enabled || team.deleted,
        })
        .to_string()
    }
}

impl Store for Introspection {
    /// It tells of no changes: what was said of a key is asked for again soon.
    fn section(&self) -> String {
        let cache = "fresh: 50ms, stale: 100ms, unknown: 50ms, timeout: 500ms, rate: 10000";
        format!("http: {{ url: '{}', {ANSWER} }}, cache: {{ {cache} }}", self.url())
    }

    fn team(&mut self, team: &Team) {
        self.table.lock().expect("no panic").teams.insert(team.name, team.clone());
    }

    fn key(&mut self, key: &str, row: &Row) {
        let hex = Digest::of(key.as_bytes()).hex();
        self.table.lock().expect("no panic").keys.insert(hex, row.clone());
    }

    fn remove(&mut self, key: &str) {
        let hex = Digest::of(key.as_bytes()).hex();
        self.table.lock().expect("no panic").keys.remove(&hex);
    }
}

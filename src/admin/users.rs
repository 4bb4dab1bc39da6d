//! Who uses what: as `/keys/previous` and `/sessions` show it.

use std::time::SystemTime;

use serde_json::{Map, Value, json};

use crate::keys::sessions::{Count, Sessions};
use crate::observe::stragglers::{Straggler, Stragglers};

/// Who still uses a key that another has replaced. What no request has come with since the process began is not there.
pub(super) fn previous(stragglers: &Stragglers) -> Value {
    let keys =
        stragglers.all().into_iter().map(|Straggler { team, key, since, until, last_used, requests }| {
            json!({
                "team": team,
                "key": key,
                "since": time(since),
                "until": time(until),
                "last_used": time(last_used),
                "requests": requests,
            })
        });
    json!({ "watched_since": time(stragglers.watched_since), "keys": keys.collect::<Value>() })
}

/// How many sessions each key has minted that are remembered, and how many of their channels are open.
pub(super) fn sessions(sessions: &Sessions) -> Value {
    let mut teams = Map::new();
    for ((team, key), Count { sessions, open }) in sessions.by_key() {
        let keys = teams.entry(team).or_insert_with(|| json!({}));
        if let Value::Object(keys) = keys {
            keys.insert(key, json!({ "sessions": sessions, "open": open }));
        }
    }
    json!({ "teams": teams })
}

fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

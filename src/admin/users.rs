//! Who uses what, as `/sessions` shows it.

use serde_json::{Map, Value, json};

use crate::keys::sessions::{Count, Sessions};

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

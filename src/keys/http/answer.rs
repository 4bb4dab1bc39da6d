//! What an endpoint says of a key.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde_json::Value;

use crate::config::endpoint;
use crate::identity::caller::Previous;
use crate::keys::postgres::writable;
use crate::keys::row::Row;

/// What an answer with status 200 says; `None` is a key that may not be used. Whatever is not as it must be is no answer.
pub(super) fn read(places: &endpoint::Answer, body: &[u8]) -> Result<Option<Row>, &'static str> {
    let answer: Value = serde_json::from_slice(body).map_err(|_| "it is not JSON")?;
    let at = |place: &str| answer.pointer(place).unwrap_or(&Value::Null);
    if !at(&places.active).as_bool().ok_or("`active` is not true or false")? {
        return Ok(None);
    }
    let scopes = words(at(&places.scopes)).ok_or("`scopes` are neither words nor a list of them")?;
    // What was written is asked for: a slip in it must not mean "without a limit", or "not turned off".
    let written = |place: &Option<Box<str>>| place.as_ref().map(|place| at(place));
    let team_scopes = match written(&places.team_scopes) {
        Some(Value::Null) => return Err("`team_scopes` are not there"),
        Some(value) => words(value).ok_or("`team_scopes` are neither words nor a list of them")?,
        None => scopes.clone(),
    };
    let off = |place, wrong| written(place).map_or(Ok(false), |value| value.as_bool().ok_or(wrong));
    Ok(Some(Row {
        id: word(at(&places.id)).ok_or("`id` is not a word")?,
        team: word(at(&places.team)).ok_or("`team` is not a word")?,
        scopes,
        team_scopes,
        disabled: off(&places.disabled, "`disabled` is not true or false")?,
        team_disabled: off(&places.team_disabled, "`team_disabled` is not true or false")?,
        expires: Some(at(&places.expires))
            .filter(|value| !value.is_null())
            .map(|value| time(value).ok_or("`expires` is not a time"))
            .transpose()?,
        previous: previous(places, &answer)?,
    }))
}

/// Where another key has replaced it. Its end is asked for in each answer, so that a slip does not mean "without one".
fn previous(places: &endpoint::Answer, answer: &Value) -> Result<Option<Previous>, &'static str> {
    let Some(place) = &places.sunset else { return Ok(None) };
    let until = answer.pointer(place).ok_or("`sunset` is not there")?;
    if until.is_null() {
        return Ok(None);
    }
    let until = time(until).map(writable).ok_or("`sunset` is not a time")?;
    let since =
        places.since.as_ref().and_then(|place| answer.pointer(place)).filter(|since| !since.is_null());
    let since = since.map_or(Some(UNIX_EPOCH), time).map(writable).ok_or("`since` is not a time")?;
    Ok(Some(Previous { since, until }))
}

/// Logs and headers carry it.
fn word(value: &Value) -> Option<Box<str>> {
    value.as_str().filter(|text| !text.is_empty() && !text.contains(char::is_control)).map(Box::from)
}

/// One text with spaces between, or a list; what is not there are none.
fn words(value: &Value) -> Option<Vec<Box<str>>> {
    if let Some(text) = value.as_str() {
        return Some(text.split_ascii_whitespace().map(Box::from).collect());
    }
    match value.as_array() {
        Some(words) => words.iter().map(|word| word.as_str().map(Box::from)).collect(),
        None => value.is_null().then(Vec::new),
    }
}

/// Seconds since 1970 (RFC 7519, 2), or a date or time.
fn time(value: &Value) -> Option<SystemTime> {
    if let Some(text) = value.as_str() {
        return humantime::parse_rfc3339(text)
            .or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")))
            .ok();
    }
    let since = Duration::try_from_secs_f64(value.as_f64()?).ok()?;
    SystemTime::UNIX_EPOCH.checked_add(since)
}

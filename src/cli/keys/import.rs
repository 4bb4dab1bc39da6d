//! `keys import`: many keys at once, all or none. Nothing of a line is repeated: it may hold a key.

use std::path::Path;
use std::process::ExitCode;
use std::time::SystemTime;

use anyhow::{Context as _, bail};
use serde_json::{Map, Value};

use super::make::moment;
use super::place::{Opened, Place};
use super::rules::{self, Rules};
use super::store::Change;
use crate::config::keys::Key;

/// What a line may have.
const NAMES: [&str; 9] =
    ["id", "team", "name", "digest", "key", "scopes", "created", "created_by", "expires"];

/// A line, and which.
struct Line {
    number: usize,
    team: String,
    key: Key,
}

pub(super) fn run(path: &Path, place: &Place) -> anyhow::Result<ExitCode> {
    let (mut store, opened) = place.need()?;
    // Its words would repeat nothing of the text, and say where it is no UTF-8.
    let text = std::fs::read_to_string(path).with_context(|| format!("{} cannot be read", path.display()))?;
    let (mut lines, mut problems) = (Vec::new(), Vec::new());
    for (place, line) in text.lines().enumerate().filter(|(_, line)| !line.trim().is_empty()) {
        match read(line, &opened) {
            Ok((team, key)) => lines.push(Line { number: place + 1, team, key }),
            Err(error) => problems.push((place + 1, error.to_string())),
        }
    }
    let platform = opened.platform.as_ref();
    let rules = Rules { platform, now: SystemTime::now(), shown: false };
    store.change(&mut |there| {
        let (mut problems, mut new, mut numbers) = (problems.clone(), Vec::new(), Vec::new());
        for line in &lines {
            match rules::team_of(there, &line.team) {
                Ok(team) => {
                    new.push(Key { team, ..line.key.clone() });
                    numbers.push(line.number);
                }
                // The name of a team that is not there may be a key at the wrong place.
                Err(_) => problems.push((line.number, "there is no such team".to_owned())),
            }
        }
        let ruled = rules.problems(there, &new);
        problems
            .extend(ruled.into_iter().map(|(place, text)| (numbers.get(place).copied().unwrap_or(0), text)));
        if problems.is_empty() {
            return Ok(Change::Add(new));
        }
        problems.sort();
        for (number, text) in &problems {
            eprintln!("{}:{number}: error: {text}", path.display());
        }
        bail!("nothing was imported: {} problems", problems.len())
    })?;
    eprintln!("{} keys were added to {}", lines.len(), store.name());
    Ok(ExitCode::SUCCESS)
}

/// A key and the name of its team.
fn read(line: &str, opened: &Opened) -> anyhow::Result<(String, Key)> {
    let value = serde_json::from_str(line)
        .map_err(|error| anyhow::anyhow!("this is not JSON, from character {} on", error.column()))?;
    let Value::Object(fields) = value else { bail!("this is not a JSON object") };
    if fields.keys().any(|name| !NAMES.contains(&name.as_str())) {
        bail!("a field is unknown (not shown: it may be a key); there are {}", NAMES.join(", "));
    }
    let need = |name: &str| text(&fields, name)?.with_context(|| format!("`{name}` is missing"));
    let at = |name: &str| {
        let time = text(&fields, name)?.map(moment).transpose();
        time.map_err(|_| anyhow::anyhow!("`{name}` is not a date or time like 2027-01-31T12:00:00Z"))
    };
    let digest = match (text(&fields, "digest")?, text(&fields, "key")?) {
        (Some(digest), None) => {
            let prefix = opened.hashing.prefix();
            let wrong = |_| anyhow::anyhow!("`digest` is not `{prefix}` and 64 hexadecimal digits");
            opened.hashing.parse(digest).map_err(wrong)?
        }
        (None, Some(key)) if !key.is_empty() && key.bytes().all(|byte| byte.is_ascii_graphic()) => {
            opened.takes(key.as_bytes())?;
            opened.hashing.digest(key.as_bytes())
        }
        (None, Some(_)) => bail!("`key` is not one word of visible ASCII characters"),
        (None, None) | (Some(_), Some(_)) => bail!("it needs a `digest` or a `key`, and not both"),
    };
    let id = need("id")?;
    let key = Key {
        id: id.into(),
        name: Some(text(&fields, "name")?.unwrap_or(id).into()),
        team: 0,
        digest,
        scopes: scopes(&fields)?.into(),
        disabled: false,
        disabled_reason: None,
        created: at("created")?,
        created_by: text(&fields, "created_by")?.map(Into::into),
        expires: at("expires")?,
        previous: None,
    };
    Ok((need("team")?.to_owned(), key))
}

fn text<'f>(fields: &'f Map<String, Value>, name: &str) -> anyhow::Result<Option<&'f str>> {
    match fields.get(name) {
        None | Some(Value::Null) => Ok(None),
        Some(Value::String(text)) => Ok(Some(text)),
        Some(_) => bail!("`{name}` is not a text"),
    }
}

fn scopes(fields: &Map<String, Value>) -> anyhow::Result<Vec<Box<str>>> {
    let wrong = "`scopes` is not a list of names";
    let Some(Value::Array(scopes)) = fields.get("scopes") else { bail!(wrong) };
    scopes.iter().map(|scope| scope.as_str().map(Box::from).context(wrong)).collect()
}

//! `keys list` and `keys show`.

use std::io::{self, ErrorKind, Write as _};
use std::process::ExitCode;
use std::time::SystemTime;

use serde_json::{Value, json};

use super::edit::time;
use super::place::Place;
use super::rules::{self, listed};
use super::used::Used;
use crate::config::keys::{Key, KeysFile, Previous};
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;
use crate::keys::table::Table;

const HEAD: [&str; 8] = ["ID", "NAME", "TEAM", "SCOPES", "CREATED", "EXPIRES", "STATE", "PREVIOUS UNTIL"];

/// What is there, and what is decided by it now.
struct View {
    there: KeysFile,
    table: Table,
    hashing: Hashing,
    /// Where somebody was asked.
    used: Option<Used>,
    now: SystemTime,
}

pub(super) fn list(
    team: Option<&str>,
    admins: &[String],
    json: bool,
    place: &Place,
) -> anyhow::Result<ExitCode> {
    let view = View { used: Used::ask(admins)?, ..View::open(place)? };
    let wanted = team.map(|name| rules::team_of(&view.there, name)).transpose()?;
    let keys: Vec<_> =
        view.there.keys.iter().filter(|key| wanted.is_none_or(|team| key.team == team)).collect();
    if json {
        out(&format!("{:#}\n", keys.iter().map(|key| view.json(key)).collect::<Value>()))?;
    } else {
        out(&aligned(&keys.iter().map(|key| view.row(key)).collect::<Vec<_>>()))?;
    }
    if view.there.refused > 0 {
        eprintln!("{} more have a mistake, and open nothing", view.there.refused);
    }
    Ok(ExitCode::SUCCESS)
}

pub(super) fn show(id: &str, json: bool, place: &Place) -> anyhow::Result<ExitCode> {
    let view = View::open(place)?;
    let key = rules::key_of(&view.there, id)?;
    if json {
        out(&format!("{:#}\n", view.json(key)))?;
        return Ok(ExitCode::SUCCESS);
    }
    let team = rules::team(&view.there, key);
    let mut lines: Vec<_> = HEAD.into_iter().zip(view.row(key)).collect();
    lines.push(("TEAM MAY HAVE", listed(&*team.scopes)));
    let count = rules::count(&view.there, key.team, view.now);
    lines.push(("KEYS OF THE TEAM", format!("{count} of {}", rules::max_keys(team))));
    let or_none = |text: Option<&str>| text.unwrap_or("-").to_owned();
    lines.push(("CREATED BY", or_none(key.created_by.as_deref())));
    lines.push(("DISABLED BECAUSE", or_none(key.disabled_reason.as_deref())));
    lines.push(("DIGEST", view.hashing.written(&key.digest)));
    let text: String =
        lines.iter().map(|(name, value)| format!("{:<18}{value}\n", name.to_lowercase())).collect();
    out(&text)?;
    Ok(ExitCode::SUCCESS)
}

/// Who has read enough, such as `head`, is not told the rest.
fn out(text: &str) -> anyhow::Result<()> {
    match io::stdout().write_all(text.as_bytes()) {
        Err(error) if error.kind() != ErrorKind::BrokenPipe => Err(error.into()),
        Ok(()) | Err(_) => Ok(()),
    }
}

impl View {
    fn open(place: &Place) -> anyhow::Result<Self> {
        let (mut store, opened) = place.need()?;
        let there = store.read()?;
        let table = Table::new(&there, &Scopes::default());
        Ok(Self { there, table, hashing: opened.hashing, used: None, now: SystemTime::now() })
    }

    /// What is decided by a request with it.
    fn state(&self, key: &Key) -> &'static str {
        rules::refused_for(&self.table, &key.digest, self.now).map_or("active", |reason| {
            let code = reason.code();
            code.strip_prefix("key_").unwrap_or(code)
        })
    }

    /// The key before, where it still opens something.
    fn open_previous<'k>(&self, key: &'k Key) -> Option<&'k Previous> {
        let previous = key.previous.as_deref()?;
        rules::refused_for(&self.table, &previous.digest, self.now).is_none().then_some(previous)
    }

    fn row(&self, key: &Key) -> [String; HEAD.len()] {
        let at = |time_of: Option<SystemTime>| time_of.map_or_else(|| "-".to_owned(), time);
        let row = [
            key.id.to_string(),
            key.shown_name().to_owned(),
            rules::team(&self.there, key).name.to_string(),
            listed(&*key.scopes),
            at(key.created),
            at(key.expires),
            self.state(key).to_owned(),
            self.previous(key),
        ];
        // A server's hash may hold anything.
        row.map(|cell| cell.replace(char::is_control, "?"))
    }

    /// Until when the key before opens the same, and who was asked, when it was used.
    fn previous(&self, key: &Key) -> String {
        let Some(previous) = key.previous.as_deref() else { return "-".to_owned() };
        let open = self.open_previous(key).map(|previous| time(previous.until));
        let (Some(used), last) = (&self.used, self.last_used(key, previous)) else {
            return open.unwrap_or_else(|| "-".to_owned());
        };
        match (open, last) {
            (Some(until), Some((last, _))) => format!("{until}, used {}", time(last)),
            (Some(until), None) => format!("{until}, not used since {}", time(used.watched_since)),
            (None, Some((last, _))) => format!("over, used {}", time(last)),
            (None, None) => "-".to_owned(),
        }
    }

    fn last_used(&self, key: &Key, previous: &Previous) -> Option<(SystemTime, u64)> {
        self.used.as_ref()?.of(&rules::team(&self.there, key).name, &key.id, previous.since)
    }

    fn json(&self, key: &Key) -> Value {
        let team = rules::team(&self.there, key);
        let previous = key.previous.as_deref().map(|previous| {
            let open = self.open_previous(key).is_some();
            let last = self.last_used(key, previous);
            json!({
                "since": previous.since.map(time),
                "until": time(previous.until),
                "open": open,
                "watched_since": self.used.as_ref().map(|used| time(used.watched_since)),
                "last_used": last.map(|(at, _)| time(at)),
                "requests": self.used.as_ref().map(|_| last.map_or(0, |(_, requests)| requests)),
            })
        });
        json!({
            "id": key.id,
            "name": key.shown_name(),
            "team": team.name,
            "scopes": &*key.scopes,
            "team_scopes": &*team.scopes,
            "created": key.created.map(time),
            "created_by": key.created_by.as_deref(),
            "expires": key.expires.map(time),
            "state": self.state(key),
            "disabled_reason": key.disabled_reason,
            "previous": previous,
        })
    }
}

/// Columns as wide as what stands in them; the last as it is.
fn aligned(rows: &[[String; HEAD.len()]]) -> String {
    let head = HEAD.map(str::to_owned);
    let all = || std::iter::once(&head).chain(rows);
    let widths: Vec<_> = (0..HEAD.len())
        .map(|column| all().filter_map(|row| Some(row.get(column)?.chars().count())).max().unwrap_or(0))
        .collect();
    let line = |row: &[String; HEAD.len()]| {
        let cells: String =
            row.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}  ")).collect();
        format!("{}\n", cells.trim_end())
    };
    all().map(line).collect()
}

//! What a query gives, as a row of ours.
//!
//! | column | is |
//! | --- | --- |
//! | `id`, `team` | a text |
//! | `scopes` | an array of texts, or a text of words; NULL is none |
//! | `team_scopes` | the same; without the column, the key's scopes are all that it needs |
//! | `disabled`, `team_disabled` | a boolean; without the column, false |
//! | `expires` | a time; NULL, or without the column, never |
//! | `sunset` | a time, where another key has replaced this one, which ends then |
//! | `since` | a time: when it was replaced |
//!
//! A column that is none of these is refused: its name may be one of them, misspelt.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use tokio_postgres::types::{FromSql, Type};
use tokio_postgres::{Column, Row as Given};

use super::super::row::{Row, is_word, words};
use super::{SourceError, invalid};
use crate::config::sources::Columns;
use crate::identity::caller::Previous;

/// The last second of the year 9999: no header can name a later one.
const LAST: Duration = Duration::from_secs(253_402_300_799);

/// Where in a row each is.
pub(super) struct Places {
    id: usize,
    team: usize,
    scopes: usize,
    team_scopes: Option<usize>,
    disabled: Option<usize>,
    team_disabled: Option<usize>,
    expires: Option<usize>,
    sunset: Option<usize>,
    since: Option<usize>,
}

/// What a column must be.
#[derive(Clone, Copy)]
enum Kind {
    Text,
    Words,
    Bool,
    Time,
}

impl Kind {
    fn is(self, kind: &Type) -> bool {
        match self {
            Self::Text => <&str>::accepts(kind),
            Self::Words => <&str>::accepts(kind) || <Vec<&str>>::accepts(kind),
            Self::Bool => bool::accepts(kind),
            Self::Time => SystemTime::accepts(kind),
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Text => "text",
            Self::Words => "text or text[]",
            Self::Bool => "boolean",
            Self::Time => "timestamptz",
        }
    }
}

impl Places {
    pub(super) fn find(columns: &Columns, given: &[Column]) -> Result<Self, SourceError> {
        let mut read = Vec::with_capacity(given.len());
        let mut may = |written: Option<&str>, name: &str, kind| {
            let place = find(given, written.unwrap_or(name), kind, written.is_some())?;
            read.extend(place);
            Ok::<_, SourceError>(place)
        };
        let mut must = |name: &str, kind| may(Some(name), name, kind).map(Option::unwrap_or_default);
        let id = must(&columns.id, Kind::Text)?;
        let team = must(&columns.team, Kind::Text)?;
        let scopes = must(&columns.scopes, Kind::Words)?;
        let team_scopes = may(columns.team_scopes.as_deref(), "team_scopes", Kind::Words)?;
        let disabled = may(columns.disabled.as_deref(), "disabled", Kind::Bool)?;
        let team_disabled = may(columns.team_disabled.as_deref(), "team_disabled", Kind::Bool)?;
        let expires = may(columns.expires.as_deref(), "expires", Kind::Time)?;
        let sunset = may(columns.sunset.as_deref(), "sunset", Kind::Time)?;
        let since = may(columns.since.as_deref(), "since", Kind::Time)?;
        if let Some((_, stray)) = given.iter().enumerate().find(|(place, _)| !read.contains(place)) {
            return Err(invalid(format!("nothing reads the column `{}` of the query", stray.name())));
        }
        Ok(Self { id, team, scopes, team_scopes, disabled, team_disabled, expires, sunset, since })
    }

    pub(super) fn read(&self, given: &Given) -> Result<Row, SourceError> {
        let scopes = list(given, self.scopes)?;
        let team_scopes = self.team_scopes.map(|place| list(given, place)).transpose()?;
        Ok(Row {
            id: word(given, self.id)?,
            team: word(given, self.team)?,
            team_scopes: team_scopes.unwrap_or_else(|| scopes.clone()),
            scopes,
            disabled: truth(given, self.disabled)?,
            team_disabled: truth(given, self.team_disabled)?,
            expires: time(given, self.expires)?,
            previous: self.previous(given)?,
        })
    }

    fn previous(&self, given: &Given) -> Result<Option<Previous>, SourceError> {
        let since = time(given, self.since)?.map_or(UNIX_EPOCH, writable);
        Ok(time(given, self.sunset)?.map(|until| Previous { since, until: writable(until) }))
    }
}

fn find(given: &[Column], name: &str, kind: Kind, needed: bool) -> Result<Option<usize>, SourceError> {
    let mut named = given.iter().enumerate().filter(|(_, column)| column.name() == name);
    match (named.next(), named.next()) {
        (None, _) if needed => Err(invalid(format!("the query gives no column `{name}`"))),
        (None, _) => Ok(None),
        (_, Some(_)) => Err(invalid(format!("the query gives two columns `{name}`"))),
        (Some((_, column)), None) if !kind.is(column.type_()) => {
            let (is, wanted) = (column.type_(), kind.name());
            Err(invalid(format!(
                "the column `{name}` of the query is {is}, and must be {wanted}: cast it there"
            )))
        }
        (Some((place, _)), None) => Ok(Some(place)),
    }
}

fn value<'r, T: FromSql<'r>>(given: &'r Given, place: usize) -> Result<Option<T>, SourceError> {
    given.try_get(place).map_err(|error| invalid(super::words(&error)))
}

fn name(given: &Given, place: usize) -> &str {
    given.columns().get(place).map_or("", Column::name)
}

fn word(given: &Given, place: usize) -> Result<Box<str>, SourceError> {
    let text = value::<&str>(given, place)?.unwrap_or_default();
    if is_word(text) {
        return Ok(text.into());
    }
    let name = name(given, place);
    Err(invalid(format!("`{name}` of a key is NULL, empty, or holds a control character")))
}

fn list(given: &Given, place: usize) -> Result<Vec<Box<str>>, SourceError> {
    let is_text = given.columns().get(place).is_some_and(|column| Kind::Text.is(column.type_()));
    if is_text {
        return Ok(words(value(given, place)?.unwrap_or_default()));
    }
    let list: Vec<&str> = value(given, place)?.unwrap_or_default();
    Ok(list.into_iter().map(Box::from).collect())
}

fn time(given: &Given, place: Option<usize>) -> Result<Option<SystemTime>, SourceError> {
    place.map_or(Ok(None), |place| value(given, place))
}

/// The nearest time that can be written in a header or a list: a server's may be infinite.
#[must_use]
pub fn writable(at: SystemTime) -> SystemTime {
    at.clamp(UNIX_EPOCH, UNIX_EPOCH + LAST)
}

fn truth(given: &Given, place: Option<usize>) -> Result<bool, SourceError> {
    let Some(place) = place else { return Ok(false) };
    let wrong = || invalid(format!("`{}` of a key is NULL", name(given, place)));
    value(given, place)?.ok_or_else(wrong)
}

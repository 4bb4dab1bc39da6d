//! Keys in PostgreSQL that are changed, in the tables of `deploy/postgres/schema.sql`: all of a change at once, and its
//! triggers tell of it.

use std::collections::HashMap;
use std::future::Future;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use serde_json::{Value, json};
use tokio::runtime::{Builder, Runtime};
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Error, IsolationLevel, Row, Transaction};

use super::edit::time;
use super::store::{Change, Decide, Store};
use crate::config::keys::{Key, KeysFile, Previous, Team};
use crate::config::sources;
use crate::identity::key::Digest;
use crate::keys::postgres::{self as source, writable};

/// Others may change keys meanwhile, one after the other.
const PATIENCE: Duration = Duration::from_secs(30);
/// What the configuration asks where its tables are those that are changed here.
const ASKED: &str = "scopegate.find(";
/// Nobody else writes, by whatever means, and who looks up keys does not wait.
const ALONE: &str = "LOCK TABLE scopegate.keys IN SHARE ROW EXCLUSIVE MODE";
const TEAMS: &str = "SELECT name, scopes, enabled, deleted, max_keys FROM scopegate.teams ORDER BY name";
/// All, or the one with this digest.
const KEYS: &str =
    "SELECT id, coalesce(name, id) AS name, team, encode(digest, 'hex') AS digest, scopes, disabled, disabled_reason,
        created, created_by, expires, encode(previous_digest, 'hex') AS previous_digest, previous_since, previous_until
    FROM scopegate.keys WHERE $1::bytea IS NULL OR $1 IN (digest, previous_digest) ORDER BY created, id";
const ADD: &str = "INSERT INTO scopegate.keys (id, team, name, digest, scopes, expires, created, created_by)
    SELECT id, team, name, decode(digest, 'hex'), scopes, expires,
        coalesce(created, now()), coalesce(created_by, current_user)
    FROM json_to_recordset($1::text::json) AS new(id text, team text, name text, digest text, scopes text[],
        expires timestamptz, created timestamptz, created_by text)";
const ROTATE: &str =
    "UPDATE scopegate.keys SET digest = $2, previous_digest = digest, previous_since = $3, previous_until = $4
    WHERE id = $1";
const REVOKE: &str = "UPDATE scopegate.keys SET disabled = true, disabled_reason = coalesce($2, disabled_reason) WHERE id = $1";

/// A PostgreSQL server.
pub(super) struct Postgres {
    url: Box<str>,
    client: Client,
    runtime: Runtime,
}

impl Postgres {
    pub(super) fn open(
        config: &sources::Postgres,
        timeout: Duration,
        role: Option<&str>,
    ) -> anyhow::Result<Self> {
        ensure!(
            config.query.contains(ASKED),
            "the configuration finds keys by a query of its own: they are changed by their own means"
        );
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let client = runtime
            .block_on(source::connect(config, timeout, role))
            .with_context(|| format!("there is no connection to {}", config.url))?;
        Ok(Self { url: config.url.clone(), client, runtime })
    }

    fn found(&mut self, digest: Option<&Digest>) -> anyhow::Result<KeysFile> {
        let reading = async {
            let begun = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
            there(&begun.read_only(true).start().await?, digest).await
        };
        waited(&self.runtime, reading)
    }
}

impl Store for Postgres {
    fn name(&self) -> String {
        self.url.to_string()
    }

    fn read(&mut self) -> anyhow::Result<KeysFile> {
        self.found(None)
    }

    fn find(&mut self, digest: &Digest) -> anyhow::Result<KeysFile> {
        self.found(Some(digest))
    }

    fn change(&mut self, decide: Decide<'_>) -> anyhow::Result<()> {
        let changing = async {
            let begun = self.client.build_transaction().isolation_level(IsolationLevel::RepeatableRead);
            let transaction = begun.start().await?;
            // What is seen is seen after it.
            transaction.batch_execute(ALONE).await?;
            let there = there(&transaction, None).await?;
            let change = decide(&there)?;
            write(&transaction, &there, &change).await?;
            Ok(transaction.commit().await?)
        };
        waited(&self.runtime, changing)
    }
}

/// What comes of it, in words for who may not do it, or has other tables.
fn waited<T>(runtime: &Runtime, asked: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    let Ok(answer) = runtime.block_on(async { tokio::time::timeout(PATIENCE, asked).await }) else {
        bail!("there is no answer: the server hangs, or somebody holds a lock on scopegate.keys");
    };
    answer.map_err(|error| match error.downcast::<Error>() {
        Ok(error) => explained(&error),
        Err(error) => error,
    })
}

fn explained(error: &Error) -> anyhow::Error {
    let said = source::words(error);
    match error.code() {
        Some(code) if *code == SqlState::INSUFFICIENT_PRIVILEGE => anyhow::anyhow!(
            "{said}: name a role with --user that has the rights to change keys, see deploy/postgres/schema.sql"
        ),
        Some(code) if ["3F", "42"].iter().any(|class| code.code().starts_with(class)) => {
            anyhow::anyhow!("{said}: the tables are not those of deploy/postgres/schema.sql")
        }
        Some(_) | None => anyhow::anyhow!(said),
    }
}

async fn there(transaction: &Transaction<'_>, digest: Option<&Digest>) -> anyhow::Result<KeysFile> {
    let mut there = KeysFile::default();
    for row in transaction.query(TEAMS, &[]).await? {
        there.teams.push(team(&row)?);
    }
    let places: HashMap<_, _> =
        there.teams.iter().enumerate().map(|(place, team)| (team.name.clone(), place)).collect();
    let digest: Option<&[u8]> = digest.map(AsRef::as_ref);
    for row in transaction.query(KEYS, &[&digest]).await? {
        let team = places.get(row.try_get::<_, &str>("team")?);
        there.keys.push(key(&row, *team.context("a key's team is not there")?)?);
    }
    Ok(there)
}

fn team(row: &Row) -> anyhow::Result<Team> {
    let max_keys: Option<i32> = row.try_get("max_keys")?;
    Ok(Team {
        name: row.try_get::<_, &str>("name")?.into(),
        scopes: list(row)?.into(),
        enabled: row.try_get("enabled")?,
        deleted: row.try_get("deleted")?,
        max_keys: max_keys.map(usize::try_from).transpose()?,
    })
}

fn key(row: &Row, team: usize) -> anyhow::Result<Key> {
    let text = |name: &str| row.try_get::<_, Option<&str>>(name).map(|text| text.map(Box::<str>::from));
    let at = |name: &str| row.try_get::<_, Option<SystemTime>>(name).map(|at| at.map(writable));
    let previous = match (row.try_get::<_, Option<&str>>("previous_digest")?, at("previous_until")?) {
        (Some(digest), Some(until)) => {
            let digest = Digest::from_hex(digest)?;
            Some(Box::new(Previous { digest, since: at("previous_since")?, until }))
        }
        (_, None) | (None, _) => None,
    };
    Ok(Key {
        id: row.try_get::<_, &str>("id")?.into(),
        name: Some(row.try_get::<_, &str>("name")?.into()),
        team,
        digest: Digest::from_hex(row.try_get("digest")?)?,
        scopes: list(row)?.into(),
        disabled: row.try_get("disabled")?,
        disabled_reason: text("disabled_reason")?,
        created: at("created")?,
        created_by: text("created_by")?.map(Into::into),
        expires: at("expires")?,
        previous,
    })
}

fn list(row: &Row) -> Result<Vec<Box<str>>, Error> {
    let scopes: Vec<&str> = row.try_get("scopes")?;
    Ok(scopes.into_iter().map(Box::from).collect())
}

async fn write(transaction: &Transaction<'_>, there: &KeysFile, change: &Change) -> Result<(), Error> {
    match change {
        Change::Add(keys) => {
            let rows: Value = keys.iter().map(|key| added(key, there)).collect();
            transaction.execute(ADD, &[&rows.to_string()]).await?
        }
        Change::Rotate { id, digest, since, until } => {
            transaction.execute(ROTATE, &[&&**id, &digest.as_ref(), since, until]).await?
        }
        Change::Revoke { id, reason } => transaction.execute(REVOKE, &[&&**id, &reason.as_deref()]).await?,
    };
    Ok(())
}

fn added(key: &Key, there: &KeysFile) -> Value {
    json!({
        "id": key.id,
        "team": there.teams.get(key.team).map(|team| &team.name),
        "name": key.shown_name(),
        "digest": key.digest.hex(),
        "scopes": &*key.scopes,
        "expires": key.expires.map(time),
        "created": key.created.map(time),
        "created_by": key.created_by.as_deref(),
    })
}

//! Keys in PostgreSQL: what a query gives for a digest, and changes as notifications.
//!
//! | what | holds |
//! | --- | --- |
//! | the query, for `$1` | at most one row; [`answer`] says of which columns |
//! | `NOTIFY CHANNEL` | `key HEX`, `team NAME` or `all`, after a change |

mod answer;
mod dial;
mod tls;

use std::future::poll_fn;
use std::pin::pin;
use std::time::Duration;

use data_encoding::BASE64;
use deadpool_postgres::{Manager, ManagerConfig, Object, Pool, PoolError};
use futures_util::TryStreamExt as _;
use tokio::time::{sleep, timeout};
use tokio_postgres::error::SqlState;
use tokio_postgres::types::{ToSql, Type};
use tokio_postgres::{AsyncMessage, Client, Error};

use super::SourceError;
use super::news::News;
use super::presented::Presented;
use super::remote::Source;
use super::row::Row;
use crate::config::sources::{self, DigestForm};
use crate::identity::key::Digest;
use answer::Places;
pub use answer::writable;
use dial::{Dial, Link};

const NAME: &str = "postgres";
/// The connection of the news is asked for a sign of life this often: a server that is gone without a word would else be
/// believed for ever.
const PING_EVERY: Duration = Duration::from_secs(5);

/// A PostgreSQL server.
pub(super) struct Postgres {
    config: sources::Postgres,
    timeout: Duration,
    dial: Dial,
    pool: Pool,
}

/// Why a question has no answer.
enum Failure {
    /// In the words of the server, or of the connection.
    Server(Error),
    /// In ours.
    Source(SourceError),
}

/// A connection while one question has it. Left with the answer still to come, it is closed: the next question would
/// wait behind it.
struct Lease(Option<Object>);

impl Drop for Lease {
    fn drop(&mut self) {
        drop(self.0.take().map(Object::take));
    }
}

impl Postgres {
    pub(super) fn new(config: sources::Postgres, timeout: Duration) -> Self {
        let dial = Dial::new(config.clone(), timeout);
        let manager =
            Manager::from_connect(tokio_postgres::Config::new(), dial.clone(), ManagerConfig::default());
        let pool = Pool::builder(manager).max_size(config.pool).build().expect("it has no timeouts");
        Self { config, timeout, dial, pool }
    }

    async fn ask(&self, digest: &Digest) -> Result<Option<Row>, Failure> {
        let client = self.pool.get().await.map_err(|error| Failure::Source(self.unreachable(error)))?;
        let mut lease = Lease(Some(client));
        let client = lease.0.as_ref().expect("it has just been put there");
        let answer = self.ask_on(client, digest).await;
        // What the server has refused is over; a broken connection is found out by the pool.
        if !matches!(&answer, Err(Failure::Server(error)) if is_spent(error)) {
            drop(lease.0.take());
        }
        answer
    }

    async fn ask_on(&self, client: &Object, digest: &Digest) -> Result<Option<Row>, Failure> {
        let bytes: &[u8] = digest.as_ref();
        let text = match self.config.digest {
            DigestForm::Bytea => String::new(),
            DigestForm::Hex => digest.hex(),
            DigestForm::Base64 => BASE64.encode(bytes),
        };
        let (form, parameter): (_, &(dyn ToSql + Sync)) = match self.config.digest {
            DigestForm::Bytea => (Type::BYTEA, &bytes),
            DigestForm::Hex | DigestForm::Base64 => (Type::TEXT, &text),
        };
        let statement = client.prepare_typed_cached(&self.config.query, &[form]).await?;
        if statement.params().len() != 1 {
            return Err(invalid("the query has other parameters than `$1`").into());
        }
        let places = Places::find(&self.config.columns, statement.columns())?;
        let mut rows = pin!(client.query_raw(&statement, [parameter]).await?);
        let Some(row) = rows.try_next().await? else { return Ok(None) };
        if rows.try_next().await?.is_some() {
            return Err(invalid("the query gives several rows for one digest").into());
        }
        Ok(Some(places.read(&row)?))
    }

    /// Why there is no connection. A file that cannot be read is told by its name.
    fn unreachable(&self, error: PoolError) -> SourceError {
        match (self.dial.settings(), error) {
            (Err(error), _) => error,
            (Ok(_), PoolError::Backend(error)) => down(&error),
            (Ok(_), error) => SourceError::Down { name: NAME, cause: error.to_string() },
        }
    }
}

impl Source for Postgres {
    /// Once more where a connection had died unseen, or its query was planned for a table that has changed since.
    async fn fetch(&self, presented: &Presented<'_>) -> Result<Option<Row>, SourceError> {
        let digest = &presented.digest;
        let mut answer = self.ask(digest).await;
        if matches!(&answer, Err(Failure::Server(error)) if is_spent(error)) {
            // The others are no younger.
            self.pool.retain(|_, _| false);
            answer = self.ask(digest).await;
        }
        answer.map_err(|failure| match failure {
            Failure::Server(error) => refused(&error),
            Failure::Source(error) => error,
        })
    }

    async fn listen(&self, hear: &dyn Fn(News)) -> SourceError {
        match timeout(self.timeout, self.dial.connect()).await {
            Ok(Ok((client, mut link))) => {
                tokio::select! {
                    error = self.ask_for_news(&client, hear) => error,
                    error = follow(&mut link, hear) => error,
                }
            }
            Ok(Err(error)) => self.unreachable(PoolError::Backend(error)),
            Err(_) => SourceError::Late { name: NAME },
        }
    }
}

impl Postgres {
    /// Ends where the server does not do it, or gives no sign of life any more.
    async fn ask_for_news(&self, client: &Client, hear: &dyn Fn(News)) -> SourceError {
        let listen = format!("LISTEN \"{}\"", self.config.channel.replace('"', "\"\""));
        let mut order = &*listen;
        loop {
            match timeout(self.timeout, client.batch_execute(order)).await {
                Ok(Ok(())) if order.is_empty() => {}
                Ok(Ok(())) => hear(News::Listening),
                Ok(Err(error)) => return down(&error),
                Err(_) => return SourceError::Late { name: NAME },
            }
            order = "";
            sleep(PING_EVERY).await;
        }
    }
}

/// Passes news on until the connection breaks.
async fn follow(link: &mut Link, hear: &dyn Fn(News)) -> SourceError {
    loop {
        match poll_fn(|context| link.poll_message(context)).await {
            Some(Ok(AsyncMessage::Notification(told))) => hear(News::read(told.payload())),
            Some(Ok(_)) => {}
            Some(Err(error)) => return down(&error),
            None => return SourceError::Down { name: NAME, cause: "the connection has ended".to_owned() },
        }
    }
}

/// Whether another connection may do better.
fn is_spent(error: &Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => [
            SqlState::ADMIN_SHUTDOWN,
            SqlState::CRASH_SHUTDOWN,
            SqlState::FEATURE_NOT_SUPPORTED,
            SqlState::INVALID_SQL_STATEMENT_NAME,
        ]
        .contains(code),
    }
}

/// A query that the server does not take is not one that it is too ill for.
fn refused(error: &Error) -> SourceError {
    match error.code().map(SqlState::code) {
        Some("57014") => SourceError::Late { name: NAME },
        Some(code) if ["0A", "21", "22", "3F", "42"].iter().any(|class| code.starts_with(class)) => {
            invalid(words(error))
        }
        Some(_) | None => down(error),
    }
}

fn down(error: &Error) -> SourceError {
    SourceError::Down { name: NAME, cause: words(error) }
}

fn invalid(cause: impl Into<String>) -> SourceError {
    SourceError::Invalid { name: NAME, cause: cause.into() }
}

/// A connection for who changes keys, as the role of this name where there is one. It is driven by the runtime that waits
/// for this.
pub async fn connect(
    config: &sources::Postgres,
    limit: Duration,
    role: Option<&str>,
) -> Result<Client, SourceError> {
    let dial = Dial::new(config.clone(), limit);
    let mut settings = dial.settings()?;
    if let Some(role) = role {
        settings.user(role);
    }
    let late = |_| SourceError::Late { name: NAME };
    let connected = timeout(limit, dial.connect_with(&settings)).await.map_err(late)?;
    let (client, link) = connected.map_err(|error| down(&error))?;
    tokio::spawn(link);
    Ok(client)
}

/// What the server says in one line, or else every cause that there is.
#[must_use]
pub fn words(error: &Error) -> String {
    if let Some(said) = error.as_db_error() {
        return said.message().to_owned();
    }
    let mut text = error.to_string();
    let mut next = std::error::Error::source(error);
    while let Some(cause) = next {
        text += &format!(": {cause}");
        next = cause.source();
    }
    text
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Server(error)
    }
}

impl From<SourceError> for Failure {
    fn from(error: SourceError) -> Self {
        Self::Source(error)
    }
}

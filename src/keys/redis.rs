//! Keys in Redis: a hash a key, a hash a team, and changes as messages.
//!
//! | what | holds |
//! | --- | --- |
//! | hash `PREFIXkey:HEX` | `id`, `team`, `scopes` (words), and where they apply `disabled`, `expires`, `sunset`, `since` |
//! | hash `PREFIXteam:NAME` | `scopes` (words), and where they apply `enabled`, `deleted`, `max_keys` |
//! | channel `CHANNEL` | `key HEX`, `team NAME` or `all`, after a change |
//!
//! Where the server tells of its own changes (`notify-keyspace-events`), those are heard too.

use std::cell::RefCell;
use std::collections::HashMap;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use futures_util::StreamExt as _;
use redis::aio::{MultiplexedConnection, PubSub};
use redis::{AsyncConnectionConfig, Client, Cmd, FromRedisValue, IntoConnectionInfo as _, RedisError};
use tokio::time::timeout;

use super::SourceError;
use super::news::News;
use super::presented::Presented;
use super::remote::Source;
use super::row::{Row, is_word, words};
use crate::config::sources;
use crate::identity::caller::Previous;
use crate::identity::key::Digest;

const NAME: &str = "redis";
/// A connection on which nothing is heard is tried with a ping this often: a server that is gone without a word would
/// else be believed for ever.
const PING_EVERY: Duration = Duration::from_secs(5);

/// The fields of a hash.
pub type Hash = HashMap<String, String>;

/// What those who change keys change too, so that two of them do not decide by the same state. No key, and no news.
pub const REVISION: &str = "revision";

/// A Redis server.
#[derive(Debug)]
pub(super) struct Redis {
    config: sources::Redis,
    timeout: Duration,
    connection: RefCell<Option<MultiplexedConnection>>,
}

impl Redis {
    pub(super) fn new(config: sources::Redis, timeout: Duration) -> Self {
        Self { config, timeout, connection: RefCell::default() }
    }

    async fn connection(&self) -> Result<MultiplexedConnection, SourceError> {
        if let Some(connection) = &*self.connection.borrow() {
            return Ok(connection.clone());
        }
        // Its own half a second would be another limit beside ours.
        let patience = AsyncConnectionConfig::new()
            .set_connection_timeout(Some(self.timeout))
            .set_response_timeout(Some(self.timeout));
        let client = client(&self.config)?;
        let connection =
            client.get_multiplexed_async_connection_with_config(&patience).await.map_err(down)?;
        self.connection.replace(Some(connection.clone()));
        Ok(connection)
    }

    async fn hash(&self, name: &str) -> Result<Hash, SourceError> {
        self.ask(redis::cmd("HGETALL").arg(name)).await
    }

    async fn ask<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SourceError> {
        let mut connection = self.connection().await?;
        match command.query_async(&mut connection).await {
            Ok(answer) => Ok(answer),
            Err(error) => {
                if error.is_io_error() || error.is_connection_dropped() || error.is_unrecoverable_error() {
                    self.connection.replace(None);
                }
                Err(down(error))
            }
        }
    }

    /// Once more where a connection had died unseen.
    pub(super) async fn ask_again<T: FromRedisValue>(&self, command: &Cmd) -> Result<T, SourceError> {
        let had = self.connection.borrow().is_some();
        match self.ask(command).await {
            Err(_) if had && self.connection.borrow().is_none() => self.ask(command).await,
            answer => answer,
        }
    }
}

/// For a connection. The password may have been rotated since the last.
pub fn client(config: &sources::Redis) -> Result<Client, SourceError> {
    let mut info = (*config.url).into_connection_info().map_err(down)?;
    if let Some(file) = &config.password_file {
        let password = std::fs::read_to_string(file).map_err(|error| SourceError::Down {
            name: NAME,
            cause: format!("{}: {error}", file.display()),
        })?;
        let settings = info.redis_settings().clone().set_password(password.trim());
        info = info.set_redis_settings(settings);
    }
    Client::open(info).map_err(down)
}

/// What the hash of a key and the hash of its team say.
pub fn row(key: &Hash, ceiling: &Hash) -> Result<Row, SourceError> {
    let text = |name: &str| key.get(name).map(String::as_str).unwrap_or_default();
    let (id, team) = (text("id"), text("team"));
    if !is_word(id) || !is_word(team) {
        return Err(invalid("a key's hash has no `id` or no `team`, or one with a control character"));
    }
    let of_team = |name: &str| ceiling.get(name).map(String::as_str);
    let enabled = truth(of_team("enabled").unwrap_or("true"))?;
    let deleted = truth(of_team("deleted").unwrap_or("false"))?;
    let at = |name: &str| key.get(name).map(|text| time(name, text)).transpose();
    let since = at("since")?.unwrap_or(UNIX_EPOCH);
    Ok(Row {
        id: id.into(),
        team: team.into(),
        scopes: words(text("scopes")),
        team_scopes: words(of_team("scopes").unwrap_or_default()),
        disabled: truth(key.get("disabled").map_or("false", String::as_str))?,
        // A team that is not there is one that was deleted.
        team_disabled: ceiling.is_empty() || !enabled || deleted,
        expires: at("expires")?,
        previous: at("sunset")?.map(|until| Previous { since, until }),
    })
}

impl Source for Redis {
    async fn fetch(&self, presented: &Presented<'_>) -> Result<Option<Row>, SourceError> {
        let prefix = &self.config.prefix;
        let key = self
            .ask_again::<Hash>(redis::cmd("HGETALL").arg(format!("{prefix}key:{}", presented.digest.hex())))
            .await?;
        if key.is_empty() {
            return Ok(None);
        }
        let team = key.get("team").map(String::as_str).unwrap_or_default();
        let ceiling = self.hash(&format!("{prefix}team:{team}")).await?;
        row(&key, &ceiling).map(Some)
    }

    async fn listen(&self, hear: &dyn Fn(News)) -> SourceError {
        match timeout(self.timeout, self.subscribe()).await {
            Ok(Ok(subscribed)) => {
                hear(News::Listening);
                self.follow(subscribed, hear).await
            }
            Ok(Err(error)) => error,
            Err(_) => SourceError::Late { name: NAME },
        }
    }
}

impl Redis {
    async fn subscribe(&self) -> Result<PubSub, SourceError> {
        let client = client(&self.config)?;
        let database = client.get_connection_info().redis_settings().db();
        let mut listening = client.get_async_pubsub().await.map_err(down)?;
        listening.subscribe(&*self.config.channel).await.map_err(down)?;
        let of_its_own = format!("__keyspace@{database}__:{}*", literally(&self.config.prefix));
        listening.psubscribe(of_its_own).await.map_err(down)?;
        // The one that asks is no younger than the one that was lost.
        self.connection.replace(None);
        Ok(listening)
    }

    /// Passes news on until the connection breaks.
    async fn follow(&self, listening: PubSub, hear: &dyn Fn(News)) -> SourceError {
        let (mut asking, mut messages) = listening.split();
        loop {
            match timeout(PING_EVERY, messages.next()).await {
                Ok(Some(message)) => {
                    let own = message.get_channel_name().strip_prefix("__keyspace@");
                    match own.and_then(|own| own.split_once("__:")) {
                        Some((_, name)) => drop(self.named(name).map(hear)),
                        None => hear(
                            message.get_payload::<String>().map_or(News::Garbage, |text| News::read(&text)),
                        ),
                    }
                }
                Ok(None) => {
                    return SourceError::Down { name: NAME, cause: "the connection has ended".to_owned() };
                }
                Err(_) => match timeout(self.timeout, asking.ping::<redis::Value>()).await {
                    Ok(Ok(_)) => {}
                    Ok(Err(error)) => return down(error),
                    Err(_) => return SourceError::Late { name: NAME },
                },
            }
        }
    }

    /// What it means that something happened to what has this name: nothing, where that holds no key and no team.
    fn named(&self, name: &str) -> Option<News> {
        match name.strip_prefix(&*self.config.prefix)?.split_once(':')? {
            ("key", hex) => Digest::from_hex(hex).ok().map(News::Key),
            ("team", name) => Some(News::Team(name.into())),
            _ => None,
        }
    }
}

/// A pattern that nothing but this text begins with.
#[must_use]
pub fn literally(text: &str) -> String {
    let special = |letter| matches!(letter, '*' | '?' | '[' | ']' | '^' | '\\');
    text.chars().flat_map(|letter| special(letter).then_some('\\').into_iter().chain([letter])).collect()
}

#[allow(clippy::needless_pass_by_value, reason = "it stands behind map_err")]
fn down(error: RedisError) -> SourceError {
    SourceError::Down { name: NAME, cause: error.to_string() }
}

pub(super) fn invalid(cause: impl Into<String>) -> SourceError {
    SourceError::Invalid { name: NAME, cause: cause.into() }
}

/// Whether a field says yes.
pub fn truth(text: &str) -> Result<bool, SourceError> {
    match text {
        "true" | "1" => Ok(true),
        "false" | "0" => Ok(false),
        _ => Err(invalid("a hash has something else than true or false where one of them belongs")),
    }
}

/// The time in a field of this name.
pub fn time(name: &str, text: &str) -> Result<SystemTime, SourceError> {
    humantime::parse_rfc3339(text)
        .or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")))
        .map_err(|_| invalid(format!("`{name}` is not a time like 2027-01-31T12:00:00Z")))
}

//! Connections to a PostgreSQL server.

use std::future::Future;
use std::pin::Pin;
use std::time::Duration;

use deadpool_postgres::Connect;
use tokio::task::JoinHandle;
use tokio_postgres::config::SslMode;
use tokio_postgres::{Client, Config, Connection, Error, Socket};

use super::tls::{Secured, Securing};
use super::{NAME, SourceError, down};
use crate::config::sources;

/// What drives a connection.
pub(super) type Link = Connection<Socket, Secured<Socket>>;

/// Makes connections, each with what its files hold at the time.
#[derive(Clone)]
pub(super) struct Dial {
    config: sources::Postgres,
    timeout: Duration,
}

impl Dial {
    pub(super) fn new(config: sources::Postgres, timeout: Duration) -> Self {
        Self { config, timeout }
    }

    /// The password may have been rotated since.
    pub(super) fn settings(&self) -> Result<Config, SourceError> {
        let mut settings = self.address().map_err(|error| down(&error))?;
        if let Some(file) = &self.config.password_file {
            let password = std::fs::read_to_string(file).map_err(|error| SourceError::Down {
                name: NAME,
                cause: format!("{}: {error}", file.display()),
            })?;
            settings.password(password.trim());
        }
        Ok(settings)
    }

    fn address(&self) -> Result<Config, Error> {
        let mut address: Config = self.config.url.parse()?;
        address.ssl_mode(if self.config.tls.is_some() { SslMode::Require } else { SslMode::Disable });
        if address.get_connect_timeout().is_none() {
            // Of several servers the last is tried in time, too.
            let servers = u32::try_from(address.get_hosts().len()).unwrap_or(u32::MAX).max(1);
            address.connect_timeout(self.timeout / servers);
        }
        if address.get_application_name().is_none() {
            address.application_name("scopegate");
        }
        Ok(address)
    }

    /// Without a password where there is none to be had: why that is, the server's refusal does not say.
    pub(super) async fn connect(&self) -> Result<(Client, Link), Error> {
        let settings = self.settings().or_else(|_| self.address())?;
        self.connect_with(&settings).await
    }

    pub(super) async fn connect_with(&self, settings: &Config) -> Result<(Client, Link), Error> {
        settings.connect(Securing::new(self.config.tls.clone())).await
    }

    async fn connect_for_questions(self) -> Result<(Client, JoinHandle<()>), Error> {
        let (client, link) = self.connect().await?;
        let driving = tokio::spawn(async move {
            // Who asks on it is told as well.
            let _ = link.await;
        });
        // Nobody waits any longer for the answer, and the server need not look for it.
        let limit = format!("SET statement_timeout = {}", self.timeout.as_millis().max(1));
        client.batch_execute(&limit).await.inspect_err(|_| driving.abort())?;
        Ok((client, driving))
    }
}

impl Connect for Dial {
    fn connect(
        &self,
        _: &Config,
    ) -> Pin<Box<dyn Future<Output = Result<(Client, JoinHandle<()>), Error>> + Send + '_>> {
        Box::pin(self.clone().connect_for_questions())
    }
}

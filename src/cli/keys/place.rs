//! Where keys are kept: a file, or a source of a configuration.

use std::fs::canonicalize;
use std::path::PathBuf;

use anyhow::{Context as _, bail, ensure};
use clap::Args;

use super::file::File;
use super::postgres::Postgres;
use super::redis::Redis;
use super::store::Store;
use crate::config::file::{parse, read};
use crate::config::sources::{Remote, Server, Source};
use crate::identity::hashing::Hashing;
use crate::identity::made;
use crate::identity::scope::Scopes;

/// Where keys are kept.
#[derive(Debug, Args)]
pub(in crate::cli) struct Place {
    /// A keys file.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
    /// The configuration: says where keys are kept, unless --file does, and what the platform defines.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Which of its sources, where it has several: its number, from 1, or its kind.
    #[arg(long, value_name = "N|file|redis|postgres", requires = "config", conflicts_with = "file")]
    source: Option<String>,
    /// In PostgreSQL: the role that may change keys, in the place of the one that only looks them up.
    #[arg(long, value_name = "ROLE", requires = "config", conflicts_with = "file")]
    user: Option<String>,
    /// In PostgreSQL: a file with its password [default: that of the configuration].
    #[arg(long, value_name = "FILE", requires = "user")]
    password_file: Option<PathBuf>,
}

/// What is known of a place.
pub(super) struct Opened {
    /// `None` where no place was named.
    pub(super) store: Option<Box<dyn Store>>,
    /// What the platform defines, where that is known.
    pub(super) platform: Option<Scopes>,
    /// What keys made here begin with, where the configuration says so.
    pub(super) key_prefix: Option<Box<str>>,
    /// How a key becomes its digest there.
    pub(super) hashing: Hashing,
}

impl Opened {
    /// What keys made here begin with.
    pub(super) fn prefix(&self) -> &str {
        self.key_prefix.as_deref().unwrap_or(made::PREFIX)
    }

    /// Refuses a key that every request with it would be refused for.
    pub(super) fn takes(&self, key: &[u8]) -> anyhow::Result<()> {
        let prefix = self.key_prefix.as_deref().unwrap_or_default();
        ensure!(
            prefix.is_empty() || made::may_be_whole(prefix, key),
            "the key begins with `{prefix}` and is not whole: it was cut off, or a character is another"
        );
        Ok(())
    }
}

impl Place {
    /// The place, if one was named.
    pub(super) fn open(&self) -> anyhow::Result<Opened> {
        let config = match &self.config {
            Some(path) => Some(parse(path, &read(path)?)?.value),
            None => None,
        };
        let source = match (&self.file, &config) {
            (Some(file), _) => Some(Source::File(file.clone())),
            (None, Some(config)) => Some(self.choose(&config.live.keys)?.clone()),
            (None, None) => None,
        };
        let hashing = config.as_ref().map(|config| config.fixed.key_digest.hashing.clone());
        // A file that a configuration names is read, and its neighbours are not, unless it names them too.
        let alone = config.as_ref().is_some_and(|config| {
            let Some(Source::File(file)) = &source else { return false };
            let real = canonicalize(file).ok();
            let is_it =
                |known: &Source| matches!(known, Source::File(known) if canonicalize(known).ok() == real);
            real.is_some() && config.live.keys.iter().any(is_it)
        });
        let store = source.map(|source| self.store(source, hashing.clone(), alone)).transpose()?;
        let live = config.map(|config| config.live);
        let (key_prefix, platform) = live.map_or((None, None), |live| (live.key_prefix, Some(live.scopes)));
        Ok(Opened { store, platform, key_prefix, hashing: hashing.unwrap_or_default() })
    }

    /// The place that must have been named.
    pub(super) fn need(&self) -> anyhow::Result<(Box<dyn Store>, Opened)> {
        let mut opened = self.open()?;
        let store = opened
            .store
            .take()
            .context("say where the keys are: --file keys.yaml, or --config scopegate.yaml")?;
        Ok((store, opened))
    }

    fn choose<'s>(&self, sources: &'s [Source]) -> anyhow::Result<&'s Source> {
        let names: Vec<_> = sources
            .iter()
            .enumerate()
            .map(|(place, source)| format!("{} ({})", place + 1, kind(source)))
            .collect();
        let Some(wanted) = &self.source else {
            return match sources {
                [only] => Ok(only),
                _ => bail!(
                    "the configuration has several sources; say which with --source: {}",
                    names.join(", ")
                ),
            };
        };
        let numbered = wanted.parse::<usize>().ok().and_then(|number| sources.get(number.checked_sub(1)?));
        let mut of_kind = sources.iter().filter(|source| kind(source) == wanted);
        match (numbered, of_kind.next(), of_kind.next()) {
            (Some(source), ..) | (None, Some(source), None) => Ok(source),
            (None, None, _) => bail!("there is no source `{wanted}`; there is {}", names.join(", ")),
            (None, Some(_), Some(_)) => {
                bail!("there are several sources `{wanted}`; say its number: {}", names.join(", "))
            }
        }
    }

    fn store(&self, source: Source, hashing: Option<Hashing>, alone: bool) -> anyhow::Result<Box<dyn Store>> {
        let of_postgres = matches!(&source, Source::Remote(Remote { server: Server::Postgres(_), .. }));
        ensure!(
            self.user.is_none() || of_postgres,
            "--user names a role in PostgreSQL, and the keys are not there"
        );
        Ok(match source {
            Source::File(path) => Box::new(File::new(path, hashing, alone)),
            Source::Folder(path) => {
                let path = path.display();
                bail!("{path} is a folder of keys files; say which of them: --file {path}/NAME.yaml")
            }
            Source::Remote(Remote { server: Server::Redis(redis), cache, .. }) => {
                Box::new(Redis::open(redis, cache.timeout)?)
            }
            Source::Remote(Remote { server: Server::Postgres(mut postgres), cache, .. }) => {
                if self.password_file.is_some() {
                    postgres.password_file.clone_from(&self.password_file);
                }
                Box::new(Postgres::open(&postgres, cache.timeout, self.user.as_deref())?)
            }
            Source::Remote(Remote { server: Server::Kubernetes(_), .. }) => {
                bail!("keys of Secrets are changed in a file (--file), which is then applied as a Secret")
            }
            Source::Remote(Remote { server: Server::Http(_), .. }) => {
                bail!("an endpoint is asked about keys, and they are changed where it has them from")
            }
        })
    }
}

fn kind(source: &Source) -> &'static str {
    match source {
        Source::File(_) => "file",
        Source::Folder(_) => "folder",
        Source::Remote(Remote { server: Server::Redis(_), .. }) => "redis",
        Source::Remote(Remote { server: Server::Postgres(_), .. }) => "postgres",
        Source::Remote(Remote { server: Server::Http(_), .. }) => "http",
        Source::Remote(Remote { server: Server::Kubernetes(_), .. }) => "kubernetes",
    }
}

//! `keys:`: where keys are looked up.

mod kubernetes;
mod last_good;
mod postgres;

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::endpoint::{self, Http};
use super::fields::{Fields, Report};
use super::node::{Node, Value};
pub use kubernetes::Kubernetes;
pub use last_good::LastGood;
pub use postgres::{Columns, DigestForm, Postgres, Tls};

/// A place where keys are looked up.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Source {
    /// A YAML file of teams and key digests; relative paths are taken from the configuration's folder.
    File(PathBuf),
    /// A folder of such files, each of its own: those whose name ends in `.yaml` or `.yml` and begins with no dot.
    Folder(PathBuf),
    /// A server, with what is kept of its answers.
    Remote(Remote),
}

/// A server that knows keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remote {
    /// Which, and where.
    pub server: Server,
    /// What is kept of its answers.
    pub cache: Cache,
    /// Where that is kept over a start, if it is.
    pub last_good: Option<LastGood>,
}

/// A server that knows keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Server {
    /// Redis: a hash a key.
    Redis(Redis),
    /// PostgreSQL: what a query gives.
    Postgres(Box<Postgres>),
    /// An endpoint: a question a key.
    Http(Box<Http>),
    /// Secrets of Kubernetes, watched.
    Kubernetes(Box<Kubernetes>),
}

/// A Redis server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Redis {
    /// `redis://host:port/database`, without a password.
    pub url: Box<str>,
    /// Holds the password; read again for every connection.
    pub password_file: Option<PathBuf>,
    /// What the names of its hashes begin with; [`Redis::PREFIX`] unless written.
    pub prefix: Box<str>,
    /// Where changes are published; [`Redis::CHANNEL`] unless written.
    pub channel: Box<str>,
}

/// What is kept of a server's answers, and how often it is asked.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Cache {
    /// So long a key that is known is not asked for again.
    pub fresh: Duration,
    /// So long it is still good while it is asked for again.
    pub stale: Duration,
    /// So long a key that is not known is not asked for again.
    pub unknown: Duration,
    /// Bytes of known keys.
    pub size: u64,
    /// Strange keys that are asked for, a second.
    pub rate: u32,
    /// Questions at once.
    pub at_once: usize,
    /// For an answer.
    pub timeout: Duration,
    /// What may be used while it does not answer.
    pub fail: Fail,
}

/// What may be used while a server does not answer.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fail {
    /// Nothing: 503.
    Closed,
    /// What was known this long ago.
    StaleFor(Duration),
}

impl Redis {
    /// Of our own, so that a database may be shared.
    pub const PREFIX: &str = "scopegate:";
    /// The same.
    pub const CHANNEL: &str = "scopegate:changes";
}

impl Default for Cache {
    fn default() -> Self {
        Self {
            fresh: Self::FRESH,
            stale: Self::STALE,
            unknown: Self::UNKNOWN,
            size: Self::SIZE,
            rate: Self::RATE,
            at_once: Self::AT_ONCE,
            timeout: Self::TIMEOUT,
            fail: Fail::Closed,
        }
    }
}

impl Cache {
    /// Where no news come, a key that was revoked is good for at most as long as it is fresh or stale.
    pub const FRESH: Duration = Duration::from_secs(30);
    /// A second look takes milliseconds; who is asked for less than once a minute waits for it.
    pub const STALE: Duration = Duration::from_secs(60);
    /// A key that was just made is tried again by a person, or after a deployment: within seconds.
    pub const UNKNOWN: Duration = Duration::from_secs(5);
    /// Some fifty thousand keys.
    pub const SIZE: u64 = 16 << 20;
    /// A team that is new brings a few keys at once; a thief who guesses brings thousands a second.
    pub const RATE: u32 = 100;
    /// More than a small database likes to have.
    pub const AT_ONCE: usize = 16;
    /// A database that is near answers in milliseconds; a request waits no longer than a person would.
    pub const TIMEOUT: Duration = Duration::from_secs(2);

    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`cache`", report)?;
        let mut time = |name, default| {
            fields.or(name, default, report, |node, report| node.duration(&format!("`{name}`"), report))
        };
        let (fresh, stale) = (time("fresh", Self::FRESH), time("stale", Self::STALE));
        let (unknown, timeout) = (time("unknown", Self::UNKNOWN), time("timeout", Self::TIMEOUT));
        let size = fields
            .or("size", Self::SIZE, report, |node, report| node.bytes("`size`", 1 << 16, 1 << 40, report));
        let rate = fields.or("rate", Self::RATE, report, |node, report| {
            node.whole("`rate`", 1, 1_000_000, report).and_then(|rate| u32::try_from(rate).ok())
        });
        let at_once = fields.or("at_once", Self::AT_ONCE, report, |node, report| {
            node.whole("`at_once`", 1, 1_000, report).and_then(|count| usize::try_from(count).ok())
        });
        let fail = fields.or("fail", Fail::Closed, report, Fail::read);
        fields.done(report);
        let cache = Self {
            fresh: fresh?,
            stale: stale?,
            unknown: unknown?,
            size: size?,
            rate: rate?,
            at_once: at_once?,
            timeout: timeout?,
            fail: fail?,
        };
        if cache.stale < cache.fresh {
            report.error(
                node.place,
                "`stale` is shorter than `fresh`",
                "a key is fresh first, then stale, and then asked for anew: write a longer `stale`, or a shorter `fresh`",
            );
        }
        Some(cache)
    }
}

impl Fail {
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        if let Value::Text(_) = node.value {
            return node.one_of("`fail`", &[("closed", Self::Closed)], report);
        }
        let mut fields = Fields::of(node, "`fail`", report)?;
        let hint = "how long ago a key must have been known: `fail: { stale_for: 5m }`";
        let time = fields.need("stale_for", hint, report);
        fields.done(report);
        Some(Self::StaleFor(time?.duration("`stale_for`", report)?))
    }
}

impl Source {
    /// One source, or a list of them: the first that knows a key answers.
    pub(super) fn read_all(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let folder = path.parent().unwrap_or(Path::new(""));
        let Value::List(items) = &node.value else {
            return Self::read(node, folder, report).map(|source| vec![source]);
        };
        if items.is_empty() {
            report.error(node.place, "`keys` is empty", HINT);
        }
        // All of them are read, so that the problems of all are found.
        let read = items.iter().map(|item| Self::read(item, folder, report)).collect::<Vec<_>>();
        for (item, source) in items.iter().zip(&read).rev().skip(1) {
            if source.as_ref().is_some_and(Self::wants_key) {
                let hint =
                    "put it last: who is inside is looked up again without the key, and no further than here";
                report.error(item.place, "a source with `send: key` is not the last", hint);
            }
        }
        read.into_iter().collect()
    }

    fn wants_key(&self) -> bool {
        match self {
            Self::Remote(Remote { server: Server::Http(http), .. }) => http.send == endpoint::Sent::Key,
            Self::Remote(_) | Self::File(_) | Self::Folder(_) => false,
        }
    }

    fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`keys`", report)?;
        let path = |node: &Node, what, report: &mut Report<'_>| {
            node.text(what, report).map(|path| folder.join(path))
        };
        let file = fields.take("file").map(|node| path(node, "`file`", report).map(Self::File));
        let files = fields.take("folder").map(|node| path(node, "`folder`", report).map(Self::Folder));
        let redis = fields.take("redis").map(|node| Some(Server::Redis(Redis::read(node, folder, report)?)));
        let postgres = fields
            .take("postgres")
            .map(|node| Some(Server::Postgres(Box::new(Postgres::read(node, folder, report)?))));
        let http =
            fields.take("http").map(|node| Some(Server::Http(Box::new(Http::read(node, folder, report)?))));
        let secrets = fields
            .take("kubernetes")
            .map(|node| Some(Server::Kubernetes(Box::new(Kubernetes::read(node, folder, report)?))));
        let cache_node = fields.take("cache");
        let cache = cache_node.map_or(Some(Cache::default()), |node| Cache::read(node, report));
        let last_node = fields.take("last_good");
        let last_good = last_node.map_or(Some(None), |node| LastGood::read(node, folder, report).map(Some));
        fields.done(report);
        let mut servers: Vec<_> = [redis, postgres, http, secrets].into_iter().flatten().collect();
        let server = servers.pop();
        let bounds = [cache_node, last_node].into_iter().flatten();
        match (file, files, server) {
            (Some(file), None, None) | (None, Some(file), None) => {
                for node in bounds {
                    let hint = "remove this: a file is whole in memory, and there at every start";
                    report.error(node.place, "a file has no `cache`, and no `last_good`", hint);
                }
                file
            }
            (None, None, Some(Some(server @ Server::Kubernetes(_)))) if servers.is_empty() => {
                for node in bounds {
                    let hint =
                        "remove this: what is listed is whole in memory, for `stale_for` without the API";
                    report.error(node.place, "`kubernetes` has no `cache`, and no `last_good`", hint);
                }
                Some(Self::Remote(Remote { server, cache: Kubernetes::CACHE, last_good: None }))
            }
            (None, None, Some(server)) if servers.is_empty() => {
                Some(Self::Remote(Remote { server: server?, cache: cache?, last_good: last_good? }))
            }
            (None, None, None) => {
                report.error(node.place, "`keys` names no source", HINT);
                None
            }
            _ => {
                report.error(
                    node.place,
                    "`keys` names two sources at once",
                    "write a list, each source an item of its own: the first that knows a key answers",
                );
                None
            }
        }
    }
}

const HINT: &str = "where teams and digests are: `keys: { file: keys.yaml }`";

impl Redis {
    fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`redis`", report)?;
        let url = fields.need("url", "where it is: `url: redis://127.0.0.1:6379/0`", report);
        let url = url.and_then(|node| server_url(node, &["redis"], report));
        let password_file = fields
            .maybe("password_file", report, |node, report| path(node, "`password_file`", folder, report));
        let prefix = fields.or("prefix", Self::PREFIX, report, |node, report| node.text("`prefix`", report));
        let channel =
            fields.or("channel", Self::CHANNEL, report, |node, report| node.word("`channel`", report));
        fields.done(report);
        Some(Self {
            url: url?,
            password_file: password_file?,
            prefix: prefix?.into(),
            channel: channel?.into(),
        })
    }
}

fn path(node: &Node, what: &str, folder: &Path, report: &mut Report<'_>) -> Option<PathBuf> {
    node.text(what, report).map(|file| folder.join(file))
}

/// An address that holds no secret: the configuration is shown, and a password is read from a file of its own.
fn server_url(node: &Node, schemes: &[&str], report: &mut Report<'_>) -> Option<Box<str>> {
    let text = node.text("`url`", report)?;
    let rest = text.split_once("://").filter(|(scheme, _)| schemes.contains(scheme)).map(|(_, rest)| rest);
    let Some(rest) = rest else {
        let wanted = schemes.iter().map(|scheme| format!("{scheme}://")).collect::<Vec<_>>().join(" or ");
        report.error(
            node.place,
            "`url` is not one that can be used here",
            format!("write {wanted}host:port"),
        );
        return None;
    };
    let authority = rest.split(['/', '?']).next().unwrap_or_default();
    if authority.rsplit_once('@').is_some_and(|(user, _)| user.contains(':')) {
        holds_a_password(node, report);
        return None;
    }
    Some(text.into())
}

fn holds_a_password(node: &Node, report: &mut Report<'_>) {
    let hint = "put it into a file, and write `password_file`; treat this one as leaked";
    report.error(node.place, "`url` holds a password", hint);
}

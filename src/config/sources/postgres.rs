//! `postgres:`: a server that is asked with a query.

use std::path::{Path, PathBuf};

use tokio_postgres::config::SslMode;

use super::{holds_a_password, path, server_url};
use crate::config::fields::{Fields, Report};
use crate::config::node::{Node, Value};

/// A PostgreSQL server.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Postgres {
    /// `postgres://user@host:port/database`, without a password.
    pub url: Box<str>,
    /// Holds the password; read again for every connection.
    pub password_file: Option<PathBuf>,
    /// `None`: in plain.
    pub tls: Option<Tls>,
    /// Gives at most one row for the digest `$1`; [`Postgres::QUERY`] unless written.
    pub query: Box<str>,
    /// How the query gets the digest; bytes unless written.
    pub digest: DigestForm,
    /// What the query calls what it gives.
    pub columns: Columns,
    /// Where changes are told; [`Postgres::CHANNEL`] unless written.
    pub channel: Box<str>,
    /// Connections for questions; [`Postgres::POOL`] unless written.
    pub pool: usize,
}

/// Whose word is taken for who the server is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Tls {
    /// The authorities that the system trusts.
    System,
    /// Those in this file (PEM), and no others.
    Authority(PathBuf),
}

/// How a query gets a digest.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DigestForm {
    /// 32 bytes.
    Bytea,
    /// 64 digits in small letters, as text.
    Hex,
    /// 44 characters of the standard alphabet, padded, as text.
    Base64,
}

/// What a query calls what it gives. `None`: by its own name, and it may be missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Columns {
    /// Text.
    pub id: Box<str>,
    /// Text.
    pub team: Box<str>,
    /// An array of texts, or a text of words.
    pub scopes: Box<str>,
    /// The same; missing, the key's own scopes are all that it needs.
    pub team_scopes: Option<Box<str>>,
    /// A boolean; missing, it is false.
    pub disabled: Option<Box<str>>,
    /// A boolean; missing, it is false.
    pub team_disabled: Option<Box<str>>,
    /// A time; missing, there is no end.
    pub expires: Option<Box<str>>,
    /// A time: the key is one that another has replaced, and ends then.
    pub sunset: Option<Box<str>>,
    /// A time: when it was replaced.
    pub since: Option<Box<str>>,
}

impl Default for Columns {
    fn default() -> Self {
        Self {
            id: "id".into(),
            team: "team".into(),
            scopes: "scopes".into(),
            team_scopes: None,
            disabled: None,
            team_disabled: None,
            expires: None,
            sunset: None,
            since: None,
        }
    }
}

impl Postgres {
    /// What `deploy/postgres/schema.sql` makes for it.
    pub const QUERY: &str = "SELECT * FROM scopegate.find($1)";
    /// The same.
    pub const CHANNEL: &str = "scopegate_changes";
    /// A look-up takes a millisecond, so that these make thousands a second; each is a process of the server's, and
    /// there is one scopegate a pod.
    pub const POOL: usize = 4;
    /// A name that is longer is cut by `LISTEN`, and refused by `pg_notify`.
    const LONGEST_NAME: usize = 63;

    pub(super) fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`postgres`", report)?;
        let hint = "where it is: `url: postgres://scopegate@127.0.0.1:5432/keys`";
        let url_node = fields.need("url", hint, report);
        let password_file = fields
            .maybe("password_file", report, |node, report| path(node, "`password_file`", folder, report));
        let tls = fields.maybe("tls", report, |node, report| Tls::read(node, folder, report));
        let url = url_node.and_then(|node| url(node, matches!(tls, Some(None)), report));
        let query = fields.or("query", Self::QUERY, report, query);
        let digest = fields.or("digest", DigestForm::Bytea, report, |node, report| {
            let forms =
                [("bytea", DigestForm::Bytea), ("hex", DigestForm::Hex), ("base64", DigestForm::Base64)];
            node.one_of("`digest`", &forms, report)
        });
        let columns = fields.or("columns", Columns::default(), report, Columns::read);
        let channel = fields.or("channel", Self::CHANNEL, report, channel);
        let pool = fields.or("pool", Self::POOL, report, |node, report| {
            node.whole("`pool`", 1, 1_000, report).and_then(|count| usize::try_from(count).ok())
        });
        fields.done(report);
        Some(Self {
            url: url?,
            password_file: password_file?,
            tls: tls?,
            query: query?.into(),
            digest: digest?,
            columns: columns?,
            channel: channel?.into(),
            pool: pool?,
        })
    }
}

impl Tls {
    fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        if let Value::Text(_) = node.value {
            return node.one_of("`tls`", &[("system", ())], report).map(|()| Self::System);
        }
        let mut fields = Fields::of(node, "`tls`", report)?;
        let hint = "a file of certificates, or `tls: system`";
        let file = fields.need("ca_file", hint, report);
        fields.done(report);
        path(file?, "`ca_file`", folder, report).map(Self::Authority)
    }
}

impl Columns {
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let default = Self::default();
        let mut fields = Fields::of(node, "`columns`", report)?;
        let mut must = |name, default: &str| {
            fields.or(name, default.into(), report, |node, report| name_of(node, name, report))
        };
        let (id, team) = (must("id", &default.id), must("team", &default.team));
        let scopes = must("scopes", &default.scopes);
        let mut may = |name| fields.maybe(name, report, |node, report| name_of(node, name, report));
        let (team_scopes, disabled) = (may("team_scopes"), may("disabled"));
        let (team_disabled, expires) = (may("team_disabled"), may("expires"));
        let (sunset, since) = (may("sunset"), may("since"));
        fields.done(report);
        Some(Self {
            id: id?,
            team: team?,
            scopes: scopes?,
            team_scopes: team_scopes?,
            disabled: disabled?,
            team_disabled: team_disabled?,
            expires: expires?,
            sunset: sunset?,
            since: since?,
        })
    }
}

fn name_of(node: &Node, name: &str, report: &mut Report<'_>) -> Option<Box<str>> {
    node.text(&format!("`{name}`"), report).map(Box::from)
}

/// With a password among its parameters it would be shown, as it would in front of the host.
fn url(node: &Node, plain: bool, report: &mut Report<'_>) -> Option<Box<str>> {
    let url = server_url(node, &["postgres", "postgresql"], report)?;
    match url.parse::<tokio_postgres::Config>() {
        Ok(parsed) if parsed.get_password().is_some() => {
            holds_a_password(node, report);
            None
        }
        Ok(parsed) if plain && parsed.get_ssl_mode() == SslMode::Require => {
            let hint = "write `tls: system`, or `tls: { ca_file: ca.pem }`, beside it";
            report.error(node.place, "`url` asks for TLS, and there is no `tls`", hint);
            None
        }
        Ok(_) => Some(url),
        Err(_) => {
            let hint = "write postgres://user@host:port/database";
            report.error(node.place, "`url` cannot be read", hint);
            None
        }
    }
}

/// A query without its parameter would give the same row for every key.
fn query<'n>(node: &'n Node, report: &mut Report<'_>) -> Option<&'n str> {
    let text = node.text("`query`", report)?;
    if !text.contains("$1") {
        report.error(
            node.place,
            "`query` does not use `$1`",
            "compare what you keep of a key with it: `… WHERE digest = $1`",
        );
        return None;
    }
    Some(text)
}

fn channel<'n>(node: &'n Node, report: &mut Report<'_>) -> Option<&'n str> {
    let name = node.word("`channel`", report)?;
    if name.len() > Postgres::LONGEST_NAME {
        let message = format!("`channel` is longer than {} bytes", Postgres::LONGEST_NAME);
        report.error(node.place, message, "PostgreSQL has no longer names");
        return None;
    }
    Some(name)
}

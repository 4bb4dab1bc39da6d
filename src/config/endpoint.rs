//! `keys: { http: … }`: an endpoint that is asked about each key.

use std::path::{Path, PathBuf};

use http::uri::PathAndQuery;

use super::fields::{Fields, Report};
use super::node::Node;
use super::upstream::Address;

/// An endpoint that knows keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Http {
    /// Where it is.
    pub url: Url,
    /// What it is sent of a key.
    pub send: Sent,
    /// The field of the form that carries it; [`Sent::field`] unless written.
    pub field: Box<str>,
    /// Holds what we show it as `Authorization: Bearer`; read again for every question.
    pub bearer_file: Option<PathBuf>,
    /// Who may have signed its certificate; read again for every connection. The system's own are taken where it is `None`.
    pub ca_file: Option<PathBuf>,
    /// How often a question is asked again that was not answered; [`Http::RETRIES`] unless written.
    pub retries: u32,
    /// After so many in a row it is left alone for a while; [`Http::FAILURES`] unless written.
    pub failures: u32,
    /// Where its answer has what.
    pub answer: Answer,
}

/// `http://host:port/path`, or the same with `https`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    /// As it was written. It holds no secret.
    pub text: Box<str>,
    /// With TLS.
    pub secure: bool,
    /// Host and port as they were written.
    pub authority: Box<str>,
    /// Of these it is one.
    pub address: Address,
    /// From the first `/` on.
    pub path: PathAndQuery,
}

/// What an endpoint is sent of a key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sent {
    /// Its SHA-256, as 64 hexadecimal digits.
    Digest,
    /// Itself (RFC 7662).
    Key,
}

/// Where an answer has what: JSON pointers (RFC 6901).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Answer {
    /// Whether the key may be used.
    pub active: Box<str>,
    /// What logs name it by.
    pub id: Box<str>,
    /// Whose it is.
    pub team: Box<str>,
    /// What it may do.
    pub scopes: Box<str>,
    /// When it ends by itself.
    pub expires: Box<str>,
    /// What the team may do at most; without it, whatever its keys may.
    pub team_scopes: Option<Box<str>>,
    /// Whether it is turned off, where that is told apart from a key that nobody knows.
    pub disabled: Option<Box<str>>,
    /// Whether its team is turned off or deleted.
    pub team_disabled: Option<Box<str>>,
    /// So long it opens anything, where another key has replaced it.
    pub sunset: Option<Box<str>>,
    /// Since when one has.
    pub since: Option<Box<str>>,
}

impl Sent {
    /// `token` is RFC 7662's; a digest is no token.
    #[must_use]
    pub fn field(self) -> &'static str {
        match self {
            Self::Digest => "token_digest",
            Self::Key => "token",
        }
    }
}

impl Http {
    /// One of several replicas may just have gone. More than that, and a server that is down gets many times its load.
    pub const RETRIES: u32 = 1;
    /// One or two are a deployment; five without one answer in between are no chance.
    pub const FAILURES: u32 = 5;

    pub(super) fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`http`", report)?;
        let url = fields.need("url", "where it is: `url: https://keys.internal/introspect`", report);
        let place = url.map(|node| node.place);
        let url = url.and_then(|node| Url::read(node, report));
        let send = fields.or("send", Sent::Digest, report, |node, report| {
            node.one_of("`send`", &[("digest", Sent::Digest), ("key", Sent::Key)], report)
        });
        let field = fields.or("field", send.unwrap_or(Sent::Digest).field(), report, |node, report| {
            node.word("`field`", report)
        });
        let mut file = |name| {
            fields.maybe(name, report, |node, report| {
                node.text(&format!("`{name}`"), report).map(|file| folder.join(file))
            })
        };
        let (bearer_file, ca_file) = (file("bearer_file"), file("ca_file"));
        let mut number = |name, default, least, most| {
            fields.or(name, default, report, |node, report| {
                let number = node.whole(&format!("`{name}`"), least, most, report);
                number.and_then(|number| u32::try_from(number).ok())
            })
        };
        let (retries, failures) =
            (number("retries", Self::RETRIES, 0, 10), number("failures", Self::FAILURES, 1, 1_000));
        let answer =
            fields.take("answer").map_or_else(|| Some(Answer::default()), |node| Answer::read(node, report));
        fields.done(report);
        let http = Self {
            url: url?,
            send: send?,
            field: field?.into(),
            bearer_file: bearer_file?,
            ca_file: ca_file?,
            retries: retries?,
            failures: failures?,
            answer: answer?,
        };
        let secret = http.send == Sent::Key || http.bearer_file.is_some();
        if let Some(place) = place
            && secret
            && !http.url.secure
            && !http.url.address.is_this_machine()
        {
            let hint = "write https://, unless what carries it is encrypted already";
            report.warning(place, "a secret is sent to `url` in plain", hint);
        }
        Some(http)
    }
}

impl Url {
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let text = node.text("`url`", report)?;
        let (secure, rest) = match text.split_once("://") {
            Some(("http", rest)) => (false, rest),
            Some(("https", rest)) => (true, rest),
            Some(_) | None => {
                let hint = "write https://host/path, or http://host:port/path";
                report.error(node.place, "`url` is not one that can be used here", hint);
                return None;
            }
        };
        let (authority, path) = rest.find('/').map_or((rest, "/"), |at| rest.split_at(at));
        if authority.contains('@') || text.contains('?') {
            let hint = "it is shown: put a credential into a file, and write `bearer_file`; treat one that stood here as leaked";
            report.error(node.place, "`url` holds a user or a query", hint);
            return None;
        }
        let port = if secure { 443 } else { 80 };
        let address = Address::parse(authority).or_else(|| Address::parse(&format!("{authority}:{port}")));
        let path = path.parse().ok().filter(|_| path.is_ascii() && !path.contains('#'));
        let (Some(address), Some(path)) = (address, path) else {
            let hint = "write https://host/path, the path encoded and without a `#`";
            report.error(node.place, "`url` is not one that can be used here", hint);
            return None;
        };
        Some(Self { text: text.into(), secure, authority: authority.into(), address, path })
    }
}

impl Default for Answer {
    /// The names of RFC 7662. It is the client that is named, since `sub` may be the name of a person.
    fn default() -> Self {
        Self {
            active: "/active".into(),
            id: "/client_id".into(),
            team: "/team".into(),
            scopes: "/scope".into(),
            expires: "/exp".into(),
            team_scopes: None,
            disabled: None,
            team_disabled: None,
            sunset: None,
            since: None,
        }
    }
}

impl Answer {
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`answer`", report)?;
        let default = Self::default();
        let mut place =
            |name, default| fields.or(name, default, report, |node, report| pointer(node, name, report));
        let (active, id) = (place("active", default.active), place("id", default.id));
        let (team, scopes) = (place("team", default.team), place("scopes", default.scopes));
        let expires = place("expires", default.expires);
        let mut more = |name| fields.maybe(name, report, |node, report| pointer(node, name, report));
        let (team_scopes, disabled) = (more("team_scopes"), more("disabled"));
        let team_disabled = more("team_disabled");
        let (sunset, since) = (more("sunset"), more("since"));
        fields.done(report);
        Some(Self {
            active: active?,
            id: id?,
            team: team?,
            scopes: scopes?,
            expires: expires?,
            team_scopes: team_scopes?,
            disabled: disabled?,
            team_disabled: team_disabled?,
            sunset: sunset?,
            since: since?,
        })
    }
}

/// A JSON pointer, of which every `~` is `~0` or `~1`.
fn pointer(node: &Node, name: &str, report: &mut Report<'_>) -> Option<Box<str>> {
    let text = node.text(&format!("`{name}`"), report)?;
    let escaped = text.split('~').skip(1).all(|rest| rest.starts_with(['0', '1']));
    if !text.starts_with('/') || !escaped {
        let hint = "write where it stands in the answer: `/team`, or `/owner/team` for { \"owner\": { \"team\": … } }";
        report.error(node.place, format!("`{name}` is not a JSON pointer (RFC 6901)"), hint);
        return None;
    }
    Some(text.into())
}

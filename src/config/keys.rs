//! The keys file: teams, and per key a digest and what it may do.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::SystemTime;

use super::fields::{Fields, Report, did_you_mean};
use super::met::Met;
use super::node::{Name, Node, Value};
use super::problem::Place;
use super::twins::twins;
use crate::identity::hashing::Hashing;
use crate::identity::key::{CERTIFICATE, Digest, DigestError};
use crate::identity::scope::Scopes;

/// One keys file. Rows that had a problem are not in it: they open nothing.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeysFile {
    /// In the order of the file.
    pub teams: Vec<Team>,
    /// In the order of the file.
    pub keys: Vec<Key>,
    /// Rows that were left out because of a problem.
    pub refused: usize,
    /// Where each of [`KeysFile::keys`] stands.
    pub places: Vec<Place>,
    /// Where each team stands that was written, refused or not.
    pub team_places: Vec<(Box<str>, Place)>,
    /// What is known of the keys that were left out: another file may hold their twins.
    pub left_out: Vec<LeftOut>,
}

/// A key that was left out because of a problem.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LeftOut {
    /// Where it stands.
    pub place: Place,
    /// Where it has one that can be read.
    pub id: Option<Box<str>>,
    /// The same.
    pub digest: Option<Digest>,
}

/// The ceiling of its keys.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Team {
    /// As keys name it.
    pub name: Box<str>,
    /// Allowed scopes, as written; unknown names are kept and open nothing.
    pub scopes: Arc<[Box<str>]>,
    /// True unless written otherwise.
    pub enabled: bool,
    /// False unless written otherwise.
    pub deleted: bool,
    /// So many keys it may have; for the commands that make them.
    pub max_keys: Option<usize>,
}

/// One API key, without the key.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Key {
    /// Unique in the file.
    pub id: Box<str>,
    /// For people; the id unless written.
    pub name: Option<Box<str>>,
    /// A place in [`KeysFile::teams`].
    pub team: usize,
    /// Of the key's bytes.
    pub digest: Digest,
    /// Selected for the key, as written; unknown names are kept and open nothing. Many keys have the same.
    pub scopes: Arc<[Box<str>]>,
    /// False unless written otherwise.
    pub disabled: bool,
    /// Why, for people.
    pub disabled_reason: Option<Box<str>>,
    /// When it was made, for people and `keys list`.
    pub created: Option<SystemTime>,
    /// Who made it.
    pub created_by: Option<Arc<str>>,
    /// When it ends by itself.
    pub expires: Option<SystemTime>,
    /// What its digest has replaced. In a box: most have none.
    pub previous: Option<Box<Previous>>,
}

/// A digest that another has replaced, and that opens the same for a while.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Previous {
    /// Of the key before.
    pub digest: Digest,
    /// When it was replaced.
    pub since: Option<SystemTime>,
    /// When it ends.
    pub until: SystemTime,
}

impl Key {
    /// For people.
    #[must_use]
    pub fn shown_name(&self) -> &str {
        self.name.as_deref().unwrap_or(&self.id)
    }
}

/// How an entry is made that is none: the answer to every plain key.
const MAKE_A_DIGEST: &str = "no key belongs in this file: `scopegate keys add --stdin` reads one and writes its entry; treat this one as leaked";

/// No key would match such a row, and it must not look good.
const OTHER_DIGEST: &str = "digest the key again as `key_digest` says, or mend that: without it digests are `sha256:`, under a pepper `hmac-sha256:`";

/// What is known of a row, good or bad.
struct Row {
    place: Place,
    id: Option<Box<str>>,
    digest: Option<Digest>,
    previous: Option<Digest>,
    /// Where it names its team, and which of the names it is that were met.
    team: Option<(Place, usize)>,
    /// Where nothing is wrong with it; its id and its team are still to be put in.
    key: Option<Key>,
}

/// Every team that was written: its place in [`KeysFile::teams`], or nothing where its own row is refused.
type Teams<'n> = BTreeMap<&'n str, Option<usize>>;

/// The rows under `keys:`. They may come before the teams.
pub(super) struct Rows<'a> {
    rows: Vec<Row>,
    met: Met<'a>,
}

impl<'a> Rows<'a> {
    /// None yet.
    pub(super) fn new(platform: &'a Scopes, hashing: &'a Hashing) -> Self {
        Self { rows: Vec::new(), met: Met::new(platform, hashing) }
    }

    /// One more.
    pub(super) fn read(&mut self, node: &Node, report: &mut Report<'_>) {
        self.rows.push(Row::read(node, &mut self.met, report));
    }
}

impl KeysFile {
    /// The file around its rows, which have been read. `rest` is called after every one that is looked at again.
    pub(super) fn read(
        node: &Node,
        rows: Rows<'_>,
        report: &mut Report<'_>,
        rest: &mut dyn FnMut(),
    ) -> Option<Self> {
        let mut fields = Fields::of(node, "the keys file", report)?;
        let teams = fields.need("teams", "write `teams: { acme: { scopes: [...] } }`", report);
        let keys = fields.take("keys");
        // With `kyes:` for `keys:` the file would hold no key at all: that is no bad row, but another file.
        let before = report.errors();
        fields.done_among_secrets(report);
        let outline = report.errors() == before;
        let teams = teams?.mapping("`teams`", report)?;
        match keys {
            None | Some(Node { value: Value::Nothing, .. }) => {}
            Some(node) => _ = node.list("`keys`", report)?,
        }
        let Rows { mut rows, mut met } = rows;
        let (mut file, mut places) = (Self::default(), Teams::new());
        for (name, value) in teams {
            let team = Team::read(name, value, &mut met, report);
            places.insert(&name.text, team.is_some().then_some(file.teams.len()));
            file.refused += usize::from(team.is_none());
            file.teams.extend(team);
            file.team_places.push((name.text.as_str().into(), name.place));
        }
        let found: Vec<_> = met.teams.iter().map(|name| places.get(&**name).copied()).collect();
        for row in &mut rows {
            row.find_team(&found, &met.teams, &places, report);
            rest();
        }
        met.warn(report);
        file.keep_the_distinct(rows, report, rest);
        outline.then_some(file)
    }

    /// Of two rows with one digest or id, nobody knows which was meant: neither is kept. A row that is refused for
    /// something else counts too: it may be the one that was to end the other.
    fn keep_the_distinct(&mut self, rows: Vec<Row>, report: &mut Report<'_>, rest: &mut dyn FnMut()) {
        let (ids, digests) = (
            twins(&rows, |row| row.place, |row| [row.id.as_deref(), None], rest),
            twins(&rows, |row| row.place, |row| [row.digest, row.previous], rest),
        );
        self.places.reserve_exact(rows.len());
        let kept = rows.into_iter().enumerate().filter_map(
            |(number, Row { place, id, digest, previous, key, .. })| {
                rest();
                let name = id.as_ref().map_or_else(String::new, |id| format!(" `{id}`"));
                let digest_twin = digests.get(&(number, 0)).map(|place| (place, "digest"));
                let digest_twin =
                    digest_twin.or_else(|| Some((digests.get(&(number, 1))?, "previous digest")));
                if let Some(Place { line, .. }) = ids.get(&(number, 0)) {
                    let hint = "neither row opens anything: give each an id of its own";
                    report.error(place, format!("key{name} is on line {line} too"), hint);
                } else if let Some((Place { line, .. }, what)) = digest_twin {
                    let hint = "neither row opens anything: keep one of them";
                    report.error(place, format!("the {what} of key{name} is on line {line} too"), hint);
                } else if let Some(key) = key {
                    self.places.push(place);
                    return Some(Key { id: id?, ..key });
                }
                self.refused += 1;
                self.left_out.push(LeftOut { place, id, digest });
                self.left_out.extend(previous.map(|digest| LeftOut {
                    place,
                    id: None,
                    digest: Some(digest),
                }));
                None
            },
        );
        self.keys = kept.collect();
    }
}

impl Row {
    fn read(node: &Node, met: &mut Met<'_>, report: &mut Report<'_>) -> Self {
        let before = report.errors();
        let mut row =
            Self { place: node.place, id: None, digest: None, previous: None, team: None, key: None };
        let key = row.fill(node, met, report);
        row.key = key.filter(|_| report.errors() == before);
        row
    }

    fn fill(&mut self, node: &Node, met: &mut Met<'_>, report: &mut Report<'_>) -> Option<Key> {
        let mut fields = Fields::of(node, "a key", report)?;
        let id = fields.need("id", "what logs name it by: `id: acme-web`", report);
        let id = id.and_then(|node| node.word("`id`", report));
        self.id = id.map(Box::from);
        if let Some(id) = id {
            fields.what = format!("key `{id}`");
        }
        if let Some(plain) = fields.take_stray("key") {
            report.error(plain.place, format!("{} holds a plain key", fields.what), MAKE_A_DIGEST);
        }
        self.digest = match fields.take("certificate") {
            Some(node) => node
                .text("`certificate`", report)
                .map(|name| met.hashing.digest(format!("{CERTIFICATE}{name}").as_bytes())),
            None => fields
                .need("digest", "`scopegate keys add --stdin` makes one", report)
                .and_then(|node| read_digest(node, met.hashing, report)),
        };
        if let Some(node) = fields.take_stray("digest") {
            let hint = "a row is for one of them: write two rows, each with an id";
            report.error(node.place, format!("{} has a `digest` and a `certificate`", fields.what), hint);
        }
        let team = fields.need("team", "the team whose ceiling it has: `team: acme`", report);
        self.team = team.and_then(|node| Some((node.place, met.team(node.text("`team`", report)?))));
        let scopes = fields
            .need("scopes", "what it may do: `scopes: [READ_TEAM_APPS]`", report)
            .and_then(|node| met.names(node, report));
        let name = fields.maybe("name", report, |node, report| node.text("`name`", report));
        let disabled = fields.or("disabled", false, report, |node, report| node.bool("`disabled`", report));
        let reason =
            fields.maybe("disabled_reason", report, |node, report| node.text("`disabled_reason`", report));
        let created = fields.maybe("created", report, |node, report| time(node, "`created`", report));
        let created_by = fields.maybe("created_by", report, |node, report| node.text("`created_by`", report));
        let expires = fields.maybe("expires", report, |node, report| time(node, "`expires`", report));
        let previous =
            fields.maybe("previous", report, |node, report| self.read_previous(node, met.hashing, report));
        fields.done_among_secrets(report);
        self.id.as_ref()?;
        self.team?;
        Some(Key {
            id: Box::default(),
            name: name?.map(Box::from),
            team: usize::MAX,
            digest: self.digest?,
            scopes: scopes?,
            disabled: disabled?,
            disabled_reason: reason?.map(Box::from),
            created: created?,
            created_by: created_by?.map(|who| met.who(who)),
            expires: expires?,
            previous: previous?.map(Box::new),
        })
    }

    fn read_previous(&mut self, node: &Node, hashing: &Hashing, report: &mut Report<'_>) -> Option<Previous> {
        let mut fields = Fields::of(node, "`previous`", report)?;
        let digest = fields.need("digest", "of the key before: `scopegate keys rotate` writes it", report);
        self.previous = digest.and_then(|node| read_digest(node, hashing, report));
        if self.previous.is_some() && self.previous == self.digest {
            let hint = "write the digest of the key before, or remove this";
            report.error(node.place, "`previous` has the digest of the key itself", hint);
        }
        let until = fields.need("until", "when the key before ends: `until: 2027-01-31`", report);
        let until = until.and_then(|node| time(node, "`until`", report));
        let since = fields.maybe("since", report, |node, report| time(node, "`since`", report));
        fields.done_among_secrets(report);
        Some(Previous { digest: self.previous?, since: since?, until: until? })
    }

    /// Puts its team in; `found` is what each name that was met is.
    fn find_team(
        &mut self,
        found: &[Option<Option<usize>>],
        names: &[Box<str>],
        teams: &Teams<'_>,
        report: &mut Report<'_>,
    ) {
        let Some((place, (team, name))) =
            self.team.and_then(|(place, number)| Some((place, found.get(number).zip(names.get(number))?)))
        else {
            return;
        };
        match (team, &mut self.key) {
            (Some(Some(team)), Some(key)) => key.team = *team,
            (Some(Some(_)), None) => {}
            (Some(None), _) => report.error(
                place,
                format!("team `{name}` is refused, and this key with it"),
                "mend what is wrong with the team's own row",
            ),
            (None, _) => {
                let hint = did_you_mean(name, teams.keys().copied());
                report.error(place, format!("there is no team `{name}`"), hint);
            }
        }
        if !matches!(team, Some(Some(_))) {
            self.key = None;
        }
    }
}

impl Team {
    fn read(name: &Name, node: &Node, met: &mut Met<'_>, report: &mut Report<'_>) -> Option<Self> {
        let before = report.errors();
        let known = name.word("the name of a team", report);
        let what = format!("team `{}`", name.text);
        let mut fields = Fields::of(node, &what, report)?;
        let hint = "what its keys may have at most: `scopes: [READ_TEAM_APPS]`, or `[]` for nothing";
        let scopes = fields.need("scopes", hint, report).and_then(|node| met.names(node, report));
        let enabled = fields.or("enabled", true, report, |node, report| node.bool("`enabled`", report));
        let deleted = fields.or("deleted", false, report, |node, report| node.bool("`deleted`", report));
        let max_keys = fields.maybe("max_keys", report, |node, report| {
            node.whole("`max_keys`", 0, 1_000_000, report).and_then(|count| usize::try_from(count).ok())
        });
        fields.done_among_secrets(report);
        (report.errors() == before).then_some(())?;
        let (name, scopes, max_keys) = (known?.into(), scopes?, max_keys?);
        Some(Self { name, scopes, enabled: enabled?, deleted: deleted?, max_keys })
    }
}

fn read_digest(node: &Node, hashing: &Hashing, report: &mut Report<'_>) -> Option<Digest> {
    let prefix = hashing.prefix();
    let wrong = match hashing.parse(node.text("`digest`", report)?) {
        Ok(digest) => return Some(digest),
        Err(DigestError::Prefix) => {
            format!("`digest` does not start with `{prefix}`, and may be a plain key")
        }
        Err(DigestError::Digit(_)) => {
            format!("`digest` has something else than 0-9 and a-f behind `{prefix}`, and may be a plain key")
        }
        Err(DigestError::Other) => {
            let message = format!("`digest` is not the `{prefix}` that the configuration asks for");
            report.error(node.place, message, OTHER_DIGEST);
            return None;
        }
        Err(error @ DigestError::Length(_)) => {
            report.error(node.place, format!("`digest` is broken: {error}"), "copy the whole digest again");
            return None;
        }
    };
    report.error(node.place, wrong, MAKE_A_DIGEST);
    None
}

fn time(node: &Node, what: &str, report: &mut Report<'_>) -> Option<SystemTime> {
    let text = node.text(what, report)?;
    let time =
        humantime::parse_rfc3339(text).or_else(|_| humantime::parse_rfc3339(&format!("{text}T00:00:00Z")));
    if time.is_err() {
        report.error(
            node.place,
            format!("{what} is not a date or time"),
            "write it in UTC, as 2027-01-31 or 2027-01-31T12:00:00Z",
        );
    }
    time.ok()
}

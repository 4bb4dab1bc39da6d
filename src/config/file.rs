//! From the text of a file to what it means.

use std::path::Path;

use ipnet::IpNet;

use super::fields::{Fields, Report, did_you_mean};
use super::keys::KeysFile;
use super::node::{self, Node};
use super::problem::Problems;
use super::surface::Named;
use super::{Config, Credential, Fixed, Flag, KeysFrom, Live, cors, limits, listen, surface, upstream};
use crate::identity::scope::Scopes;

/// What was read, with what is to be said about it.
#[derive(Debug, Clone, PartialEq)]
pub struct Loaded<T> {
    /// What it means.
    pub value: T,
    /// What was found that does not make it useless.
    pub problems: Problems,
}

/// The text of a file.
pub fn read(path: &Path) -> Result<String, Problems> {
    std::fs::read_to_string(path).map_err(|error| {
        let hint = "give the path of a file that this user may read";
        Problems::of_file(path, format!("cannot be read: {error}"), Some(hint))
    })
}

/// Reads a configuration; an error is everything that is wrong with it.
pub fn parse(path: &Path, text: &str) -> Result<Loaded<Config>, Problems> {
    let node = node::parse(path, text)?;
    let mut report = Report::new(path);
    let config = config(&node, path, &mut report);
    let errors = report.errors();
    let problems = report.into_problems();
    match config {
        Some(value) if errors == 0 => Ok(Loaded { value, problems }),
        _ => Err(problems),
    }
}

/// Reads a keys file; an error is what makes all of it useless. Rows with a problem are left out, and opening nothing
/// is all that they do.
pub fn parse_keys(path: &Path, text: &str, scopes: &Scopes) -> Result<Loaded<KeysFile>, Problems> {
    let node = node::parse(path, text)?;
    let mut report = Report::new(path);
    let value = KeysFile::read(&node, scopes, &mut report);
    let problems = report.into_problems();
    match value {
        Some(value) => Ok(Loaded { value, problems }),
        None => Err(problems),
    }
}

/// Every section is read whatever is wrong with another, so that all problems are found in one reading.
fn config(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Config> {
    let mut top = Fields::of(node, "the configuration", report)?;
    let listen = top.need("listen", "where clients connect: `listen: [{ address: 0.0.0.0:8080 }]`", report);
    let listen = listen.and_then(|node| listen::Listen::read(node, report));
    let admin =
        top.take("admin").map_or(Some(listen::Admin::default()), |node| listen::Admin::read(node, report));
    let workers = top.take("workers").map(|node| node.whole("`workers`", 1, 1024, report));
    let log = top.take("log").map_or(Some(listen::Log::default()), |node| listen::Log::read(node, report));
    let fixed = || {
        Some(Fixed {
            listen: listen?,
            admin: admin?,
            workers: workers.flatten().and_then(|n| n.try_into().ok()),
            log: log?,
        })
    };

    let trusted_proxies = top.take("trusted_proxies").map_or(Some(Vec::new()), |node| networks(node, report));
    let upstreams = top.need(
        "upstreams",
        "where requests go: `upstreams: { telapi: { address: 127.0.0.1:3001 } }`",
        report,
    );
    let upstreams = upstreams.and_then(|node| upstream::Upstream::read(node, report)).unwrap_or_default();
    let flags = top.take("flags").map_or(Some(Vec::new()), |node| flags(node, report)).unwrap_or_default();
    let scopes =
        top.take("scopes").map_or(Some(Scopes::default()), |node| scopes(node, report)).unwrap_or_default();
    let keys = top.need("keys", "where teams and digests are: `keys: { file: keys.yaml }`", report);
    let keys = keys.and_then(|node| keys_from(node, path, report));
    let credential = top.take("credential").map_or(Some(Credential::Forward), |node| {
        node.one_of("`credential`", &[("forward", Credential::Forward), ("strip", Credential::Strip)], report)
    });
    let identity_headers =
        top.take("identity_headers").map_or(Some(false), |node| node.bool("`identity_headers`", report));
    let unmatched =
        top.take("unmatched").map_or(Some(404), |node| node.whole("`unmatched`", 400, 499, report));
    let cors = top.take("cors").map(|node| cors::Cors::read(node, report));
    let timeouts = top
        .take("timeouts")
        .map_or(Some(limits::Timeouts::default()), |node| limits::Timeouts::read(node, report));
    let drain =
        top.take("drain").map_or(Some(limits::Drain::default()), |node| limits::Drain::read(node, report));
    let surfaces = top.need("surfaces", "the parts of the service, each with its routes", report);
    let named = Named { upstreams: &upstreams, flags: &flags, scopes: &scopes };
    let surfaces = surfaces.and_then(|node| surface::Surface::read_all(node, &named, report));
    top.done(report);
    Some(Config {
        fixed: fixed()?,
        live: Live {
            trusted_proxies: trusted_proxies?,
            keys: keys?,
            credential: credential?,
            identity_headers: identity_headers?,
            unmatched: unmatched?.try_into().ok()?,
            cors: match cors {
                Some(cors) => Some(cors?),
                None => None,
            },
            timeouts: timeouts?,
            drain: drain?,
            surfaces: surfaces?,
            upstreams,
            flags,
            scopes,
        },
    })
}

fn networks(node: &Node, report: &mut Report<'_>) -> Option<Vec<IpNet>> {
    let words = node.words("`trusted_proxies`", report)?;
    let networks = words.into_iter().filter_map(|(place, word)| {
        let network =
            word.parse().or_else(|_| word.parse().map(|address: std::net::IpAddr| IpNet::from(address)));
        if network.is_err() {
            report.error(
                place,
                format!("`{word}` is neither a network nor an address"),
                "write it as 10.0.0.0/8 or 10.1.2.3",
            );
        }
        network.ok()
    });
    Some(networks.collect())
}

fn flags(node: &Node, report: &mut Report<'_>) -> Option<Vec<Flag>> {
    let entries = node.mapping("`flags`", report)?;
    let flags = entries.iter().filter_map(|(name, value)| {
        let on = value.bool(&format!("flag `{}`", name.text), report)?;
        Some(Flag { name: name.text.as_str().into(), on })
    });
    Some(flags.collect())
}

fn scopes(node: &Node, report: &mut Report<'_>) -> Option<Scopes> {
    let mut words = node.words("`scopes`", report)?;
    words.retain(|(place, word)| {
        let good = word.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_.:-".contains(&byte));
        if !good {
            report.error(
                *place,
                format!("`{word}` cannot be a scope"),
                "a scope is letters, digits and `_ . : -`",
            );
        }
        good
    });
    if words.len() > Scopes::MOST {
        report.error(
            node.place,
            format!("{} scopes are too many", words.len()),
            format!("at most {} can be told apart", Scopes::MOST),
        );
        return None;
    }
    Some(Scopes::new(words.into_iter().map(|(_, word)| word.into()).collect()))
}

fn keys_from(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<KeysFrom> {
    let mut fields = Fields::of(node, "`keys`", report)?;
    let file = fields.need("file", "where teams and digests are: `file: keys.yaml`", report);
    let file = file.and_then(|node| node.text("`file`", report));
    fields.done(report);
    let folder = path.parent().unwrap_or(Path::new(""));
    Some(KeysFrom::File(folder.join(file?)))
}

/// The place of a name in a list of names, or a problem.
pub(super) fn place_of<'a>(
    known: impl Iterator<Item = &'a str> + Clone,
    word: &str,
    what: &str,
    place: super::problem::Place,
    report: &mut Report<'_>,
) -> Option<usize> {
    let found = known.clone().position(|name| name == word);
    if found.is_none() {
        report.error(place, format!("there is no {what} `{word}`"), did_you_mean(word, known));
    }
    found
}

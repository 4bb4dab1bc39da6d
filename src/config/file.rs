//! From the text of a file to what it means.

use std::fs::File;
use std::io::{self, ErrorKind, Read as _};
use std::path::Path;

use ipnet::IpNet;

use super::fields::{Fields, Report};
use super::key_digest::KeyDigest;
use super::keys::{KeysFile, Rows};
use super::node::{self, Node};
use super::problem::Problems;
use super::sources::Source;
use super::surface::Named;
use super::{Config, Credential, Fixed, Flag, Live, cors, limits, listen, surface, upstream};
use crate::identity::hashing::Hashing;
use crate::identity::made;
use crate::identity::scope::Scopes;

/// What is read at a time.
const PIECE: u64 = 64 * 1024;

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
    read_looking(path, &mut |_| {})
}

/// The same; `look` gets it piece by piece.
pub fn read_looking(path: &Path, look: &mut dyn FnMut(&[u8])) -> Result<String, Problems> {
    pieces(path, look).map_err(|error| {
        let hint = if error.kind() == ErrorKind::InvalidData {
            "write it as UTF-8 text: this is another encoding, or no text at all"
        } else {
            "give the path of a file that this user may read"
        };
        Problems::of_file(path, format!("cannot be read: {error}"), Some(hint))
    })
}

fn pieces(path: &Path, look: &mut dyn FnMut(&[u8])) -> io::Result<String> {
    let mut file = File::open(path)?;
    let length = usize::try_from(file.metadata()?.len()).unwrap_or(0);
    let mut bytes = Vec::with_capacity(length + 1);
    loop {
        let read = bytes.len();
        if file.by_ref().take(PIECE).read_to_end(&mut bytes)? == 0 {
            let invalid = |_| io::Error::new(ErrorKind::InvalidData, "stream did not contain valid UTF-8");
            return String::from_utf8(bytes).map_err(invalid);
        }
        look(bytes.get(read..).unwrap_or_default());
    }
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
    parse_keys_under(path, text, scopes, &Hashing::Sha256)
}

/// The same where digests are made otherwise.
pub fn parse_keys_under(
    path: &Path,
    text: &str,
    scopes: &Scopes,
    hashing: &Hashing,
) -> Result<Loaded<KeysFile>, Problems> {
    parse_keys_resting(path, text, scopes, hashing, &mut || {})
}

/// The same; `rest` is called after every row, each time that it is looked at.
pub fn parse_keys_resting(
    path: &Path,
    text: &str,
    scopes: &Scopes,
    hashing: &Hashing,
    rest: &mut dyn FnMut(),
) -> Result<Loaded<KeysFile>, Problems> {
    let (mut rows, mut report) = (Rows::new(scopes, hashing), Report::new(path));
    let node = node::parse_rows(path, text, "keys", &mut |row| {
        rows.read(&row, &mut report);
        rest();
    })?;
    let value = KeysFile::read(&node, rows, &mut report, rest);
    let problems = report.into_problems();
    match value {
        Some(value) => Ok(Loaded { value, problems }),
        None => Err(problems),
    }
}

/// Every section is read whatever is wrong with another, so that all problems are found in one reading.
fn config(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Config> {
    let mut top = Fields::of(node, "the configuration", report)?;
    let listen_place = top.place_of("listen");
    let fixed = fixed(&mut top, path, report);
    // Where listeners cannot be read, nobody knows.
    let certificates = fixed.as_ref().is_none_or(|fixed| fixed.listen.iter().any(listen::Listen::asks));
    let live = live(&mut top, path, certificates, report);
    top.done(report);
    let (fixed, live) = (fixed?, live?);
    listen::Listen::check(&fixed.listen, &live.trusted_proxies, listen_place, report);
    Some(Config { fixed, live })
}

fn fixed(top: &mut Fields<'_>, path: &Path, report: &mut Report<'_>) -> Option<Fixed> {
    let listen = top.need("listen", "where clients connect: `listen: [{ address: 0.0.0.0:8080 }]`", report);
    let listen = listen.and_then(|node| listen::Listen::read(node, path, report));
    let admin = top.or("admin", listen::Admin::default(), report, listen::Admin::read);
    let workers = top.maybe("workers", report, |node, report| {
        node.whole("`workers`", 1, 1024, report).and_then(|count| usize::try_from(count).ok())
    });
    let log = top.or("log", listen::Log::default(), report, listen::Log::read);
    let key_digest = top
        .or("key_digest", KeyDigest::default(), report, |node, report| KeyDigest::read(node, path, report));
    Some(Fixed { listen: listen?, admin: admin?, workers: workers?, log: log?, key_digest: key_digest? })
}

fn live(top: &mut Fields<'_>, path: &Path, certificates: bool, report: &mut Report<'_>) -> Option<Live> {
    let trusted_proxies = top.or("trusted_proxies", Vec::new(), report, networks);
    let hint = "where requests go: `upstreams: { telapi: { address: 127.0.0.1:3001 } }`";
    let upstream_node = top.need("upstreams", hint, report);
    let upstreams = upstream_node.and_then(|node| upstream::Upstream::read(node, path, report));
    let flag_node = top.take("flags");
    let flags = flag_node.map_or(Some(Vec::new()), |node| flags(node, report));
    let scopes = top.or("scopes", Scopes::default(), report, scopes);
    let keys = top.need("keys", "where teams and digests are: `keys: { file: keys.yaml }`", report);
    let keys = keys.and_then(|node| Source::read_all(node, path, report));
    let key_prefix = top.maybe("key_prefix", report, key_prefix);
    let credential = top.or("credential", Credential::Forward, report, |node, report| {
        node.one_of("`credential`", &[("forward", Credential::Forward), ("strip", Credential::Strip)], report)
    });
    let identity_headers =
        top.or("identity_headers", false, report, |node, report| node.bool("`identity_headers`", report));
    let unmatched = top.or("unmatched", 404, report, |node, report| {
        node.whole("`unmatched`", 400, 499, report).and_then(|status| u16::try_from(status).ok())
    });
    let cors = top.maybe("cors", report, cors::Cors::read);
    let timeouts = top.or("timeouts", limits::Timeouts::default(), report, limits::Timeouts::read);
    let limits = top.or("limits", limits::Limits::default(), report, limits::Limits::read);
    let drain = top.or("drain", limits::Drain::default(), report, limits::Drain::read);
    let surfaces = top.need("surfaces", "the parts of the service, each with its routes", report);
    let named = Named {
        upstreams: upstream_node.and_then(Node::entries),
        read: upstreams.as_deref(),
        flags: flag_node.map_or(Some(&[]), Node::entries),
        scopes: scopes.as_ref(),
        timeouts: timeouts.unwrap_or_default(),
        certificates,
    };
    let surfaces = surfaces.and_then(|node| surface::Surface::read_all(node, &named, report));
    Some(Live {
        trusted_proxies: trusted_proxies?,
        keys: keys?,
        key_prefix: key_prefix?,
        credential: credential?,
        identity_headers: identity_headers?,
        unmatched: unmatched?,
        cors: cors?,
        timeouts: timeouts?,
        limits: limits?,
        drain: drain?,
        surfaces: surfaces?,
        upstreams: upstreams?,
        flags: flags?,
        scopes: scopes?,
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

fn key_prefix(node: &Node, report: &mut Report<'_>) -> Option<Box<str>> {
    let word = node.text("`key_prefix`", report)?;
    if !made::is_prefix(word) {
        let hint = "up to 32 letters, digits and `_`, the last a `_`: `key_prefix: sgk_`";
        report.error(node.place, "`key_prefix` is not what keys made here can begin with", hint);
        return None;
    }
    Some(word.into())
}

fn flags(node: &Node, report: &mut Report<'_>) -> Option<Vec<Flag>> {
    let entries = node.mapping("`flags`", report)?;
    let flags = entries.iter().filter_map(|(name, value)| {
        let known = name.word("the name of a flag", report);
        let on = value.bool(&format!("flag `{}`", name.text), report)?;
        Some(Flag { name: known?.into(), on })
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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::super::problem::Severity;
    use super::*;

    const LEAST: &str = "{ listen: [{ address: '[::1]:8080' }], upstreams: { a: { address: b:1 } }, \
        keys: { file: keys.yaml }, surfaces: { s: { access: open, routes: [GET /] } } }";

    #[test]
    fn what_is_not_written_has_its_default() {
        let Config { fixed, live } = parse(Path::new("etc/f.yaml"), LEAST).expect("the least").value;
        let default = (listen::Admin::default(), None, listen::Log::default());
        assert_eq!((fixed.admin, fixed.workers, fixed.log), default);
        assert_eq!(
            live.keys,
            [Source::File("etc/keys.yaml".into())],
            "relative to the configuration's folder"
        );
        assert_eq!(
            (live.credential, live.identity_headers, live.unmatched),
            (Credential::Forward, false, 404)
        );
        assert_eq!((live.timeouts, live.drain), (limits::Timeouts::default(), limits::Drain::default()));
        assert_eq!((live.cors, live.trusted_proxies, live.flags), (None, Vec::new(), Vec::new()));
        let surface = live.surfaces.first().expect("one");
        assert_eq!((surface.upstream, surface.private, surface.encoded_slash), (0, false, false));
    }

    /// A row with an error opens nothing, and the count says so.
    fn check(rows: &str, kept: &[&str], refused: usize) {
        let text = format!("teams: {{ t: {{ scopes: [S] }}, bad: {{}} }}\nkeys: [{rows}]");
        let scopes = Scopes::new(vec!["S".into()]);
        let KeysFile { teams, keys, refused: count, .. } =
            parse_keys(Path::new("f"), &text, &scopes).expect(rows).value;
        let ids: Vec<_> = keys.iter().map(|key| &*key.id).collect();
        // The team that is bad is refused too.
        assert_eq!((teams.len(), ids.as_slice(), count), (1, kept, refused + 1), "{rows}");
    }

    fn row(id: &str, digest: char, more: &str) -> String {
        let digest = digest.to_string().repeat(64);
        format!("{{ id: {id}, digest: 'sha256:{digest}', team: t, scopes: [S]{more} }}")
    }

    #[test]
    fn one_bad_row_takes_only_itself_and_its_twins() {
        let good = row("a", 'a', "");
        check(&good, &["a"], 0);
        for more in [", key: k", ", disabled: no", ", expires: soon", ", note: x", ", name: 5"] {
            check(&format!("{good}, {}", row("b", 'b', more)), &["a"], 1);
            check(&format!("{good}, {}", row("b", 'a', more)), &[], 2);
            check(&format!("{}, {good}", row("a", 'b', more)), &[], 2);
        }
        check(&format!("{good}, {}", row("b", 'b', "").replace("team: t", "team: bad")), &["a"], 1);
        check(&format!("{good}, {}", row("b", 'b', "").replace("[S]", "[S, S]")), &["a"], 1);
        check(&format!("{good}, {}", row("b", 'b', "").replace("[S]", "[NEW]")), &["a", "b"], 0);
        check(&format!("{good}, {good}, {good}"), &[], 3);
    }

    /// Texts that are nearly a configuration: its words in an order that nobody would write.
    fn nearly() -> impl Strategy<Value = String> {
        let word = prop::sample::select(vec![
            "listen",
            "address",
            "upstreams",
            "flags",
            "scopes",
            "keys",
            "file",
            "cors",
            "origins",
            "timeouts",
            "tunnel",
            "drain",
            "surfaces",
            "access",
            "open",
            "key",
            "routes",
            "upgrade",
            "websocket",
            "refusal",
            "code",
            "teams",
            "id",
            "team",
            "digest",
            "sha256:",
            "expires",
            "2026-11-24",
            "GET /a/{b}/**",
            "'*'",
            "127.0.0.1:1",
            "true",
            "~",
            "5",
            "4003",
            "5s",
            ": ",
            ", ",
            "{",
            "}",
            "[",
            "]",
            "- ",
            "\n",
            "\n  ",
            "\n    ",
        ]);
        prop::collection::vec(word, 0..60).prop_map(|words| words.concat())
    }

    proptest! {
        #[test]
        fn no_text_panics(text in nearly()) {
            let parsed = parse(Path::new("f"), &text);
            prop_assert!(parsed.map_or_else(|problems| problems.errors() > 0, |read| read.problems.errors() == 0));
            let _ = parse_keys(Path::new("f"), &text, &Scopes::default());
        }

        /// One section of a good file is replaced by something: it is taken, or refused with an error.
        #[test]
        fn no_value_panics(value in nearly(), section in 0..4_usize) {
            let name = ["listen", "upstreams", "keys", "surfaces"].into_iter().nth(section).unwrap_or_default();
            let text = LEAST.replacen(name, &format!("{name}: {{ {value} }}, was"), 1);
            let refused = parse(Path::new("f"), &text).expect_err("`was` is unknown");
            prop_assert!(refused.iter().any(|problem| problem.severity == Severity::Error));
        }
    }
}

//! Edits of a keys file's text: what is not changed stays byte for byte, comments included.

use std::ops::Range;
use std::path::Path;
use std::time::SystemTime;

use crate::config::keys::Key;
use crate::config::node::{self, Node, Value};
use crate::config::problem::Place;
use crate::identity::hashing::Hashing;

/// The lines of a key's entry, the first of them with the dash.
pub(super) fn row_lines(key: &Key, team: &str, hashing: &Hashing) -> Vec<String> {
    let scopes: Vec<_> = key.scopes.iter().map(|scope| quoted(scope)).collect();
    let mut row = vec![
        format!("- id: {}", quoted(&key.id)),
        format!("  team: {}", quoted(team)),
        format!("  name: {}", quoted(key.shown_name())),
        format!("  digest: {}", hashing.written(&key.digest)),
        format!("  scopes: [{}]", scopes.join(", ")),
    ];
    row.extend(key.created.map(|at| format!("  created: {}", time(at))));
    row.extend(key.created_by.as_ref().map(|who| format!("  created_by: {}", quoted(who))));
    row.extend(key.expires.map(|at| format!("  expires: {}", time(at))));
    row.extend(key.disabled.then(|| "  disabled: true".to_owned()));
    row.extend(key.disabled_reason.as_ref().map(|why| format!("  disabled_reason: {}", quoted(why))));
    row
}

/// As it is written in UTC.
pub(super) fn time(at: SystemTime) -> String {
    humantime::format_rfc3339_seconds(at).to_string()
}

/// A YAML scalar: plain where that cannot be misread, in double quotes otherwise.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
    let word = text.bytes().all(plain) && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let keyword = ["true", "false", "null", "yes", "no", "on", "off"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    if word && !keyword { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

/// The lines of an entry, so far from the margin.
pub(super) fn indented(row: &[String], indent: &str, end: &str) -> String {
    row.iter().map(|line| format!("{indent}{line}{end}")).collect()
}

/// The text with the entries behind the last one of `keys:`; nothing where that is not a block list.
pub(super) fn inserted(text: &str, rows: &[Vec<String>]) -> Option<String> {
    let end = if text.contains("\r\n") { "\r\n" } else { "\n" };
    let entries = |indent: &str| rows.iter().map(|row| indented(row, indent, end)).collect::<String>();
    let ended = |text: &str| if text.is_empty() || text.ends_with('\n') { "" } else { end };
    let lines: Vec<&str> = text.split_inclusive('\n').collect();
    let Some(start) = lines.iter().position(|line| line.starts_with("keys:")) else {
        return Some(format!("{text}{}keys:{end}{}", ended(text), entries("  ")));
    };
    let head = *lines.get(start)?;
    let value = head.strip_prefix("keys:")?.split('#').next()?.trim();
    let head = match value {
        "" => head.to_owned(),
        "[]" => head.replacen(" []", "", 1),
        _ => return None,
    };
    let is_other = |line: &&str| !(line.trim().is_empty() || line.starts_with([' ', '-', '#']));
    let behind = lines.get(start + 1..)?;
    let section = behind.get(..behind.iter().position(is_other).unwrap_or(behind.len()))?;
    let last = section.iter().rposition(|line| !line.trim().is_empty() && !line.starts_with('#'));
    let (kept, rest) = behind.split_at(last.map_or(0, |last| last + 1));
    let first = section.iter().find(|line| line.trim_start().starts_with('-'));
    let indent = first.map_or("  ", |line| line.split('-').next().unwrap_or_default());
    let before = lines.get(..start)?.concat() + &head + &kept.concat();
    Some(format!("{before}{}{}{}", ended(&before), entries(indent), rest.concat()))
}

/// The text with another digest for the key, and its own as that of the key before.
pub(super) fn rotated(
    path: &Path,
    text: &str,
    id: &str,
    digest: &str,
    since: SystemTime,
    until: SystemTime,
) -> Option<String> {
    let tree = node::parse(path, text).ok()?;
    let row = row(&tree, id)?;
    let old = word(entry(row, "digest")?)?;
    let mut edits = Edits::new(text);
    edits.set(row, "digest", digest)?;
    if let Some(previous) = entry(row, "previous") {
        edits.set(previous, "digest", old)?;
        edits.set(previous, "since", &time(since))?;
        edits.set(previous, "until", &time(until))?;
    } else {
        let previous = format!("{{ digest: {old}, since: {}, until: {} }}", time(since), time(until));
        edits.set(row, "previous", &previous)?;
    }
    edits.text()
}

/// Whether the row of this id is a certificate's.
pub(super) fn is_of_certificate(path: &Path, text: &str, id: &str) -> bool {
    let tree = node::parse(path, text).ok();
    tree.as_ref().and_then(|tree| entry(row(tree, id)?, "certificate")).is_some()
}

/// The text with the key turned off.
pub(super) fn revoked(path: &Path, text: &str, id: &str, reason: Option<&str>) -> Option<String> {
    let tree = node::parse(path, text).ok()?;
    let row = row(&tree, id)?;
    let mut edits = Edits::new(text);
    edits.set(row, "disabled", "true")?;
    if let Some(reason) = reason {
        edits.set(row, "disabled_reason", &quoted(reason))?;
    }
    edits.text()
}

/// Whether a row has a digest that begins so, now or before.
pub(super) fn has_digest(path: &Path, text: &str, prefix: &str) -> bool {
    let Ok(tree) = node::parse(path, text) else { return false };
    let Some(Value::List(rows)) = entry(&tree, "keys").map(|keys| &keys.value) else { return false };
    let before = |row| entry(entry(row, "previous")?, "digest");
    let mut digests = rows.iter().flat_map(|row| [entry(row, "digest"), before(row)]).flatten();
    digests.any(|digest| word(digest).is_some_and(|digest| digest.starts_with(prefix)))
}

fn entry<'n>(mapping: &'n Node, name: &str) -> Option<&'n Node> {
    let Value::Mapping(entries) = &mapping.value else { return None };
    entries.iter().find(|(known, _)| known.text == name).map(|(_, value)| value)
}

fn word(node: &Node) -> Option<&str> {
    if let Value::Text(text) = &node.value { Some(text) } else { None }
}

fn row<'n>(tree: &'n Node, id: &str) -> Option<&'n Node> {
    let Value::List(rows) = &entry(tree, "keys")?.value else { return None };
    rows.iter().find(|row| entry(row, "id").and_then(word) == Some(id))
}

/// Where a line's first word has ended, which is in quotes.
fn end_of_quoted(line: &str, quote: char) -> Option<usize> {
    let mut characters = line.char_indices().skip(1).peekable();
    while let Some((at, character)) = characters.next() {
        let doubled = quote == '\'' && characters.peek().is_some_and(|(_, next)| *next == quote);
        match character {
            '\\' if quote == '"' => drop(characters.next()),
            _ if character == quote && doubled => drop(characters.next()),
            _ if character == quote => return Some(at + 1),
            _ => {}
        }
    }
    None
}

/// What is to be put in the place of what.
struct Edits<'t> {
    text: &'t str,
    edits: Vec<(Range<usize>, String)>,
}

impl<'t> Edits<'t> {
    fn new(text: &'t str) -> Self {
        Self { text, edits: Vec::new() }
    }

    /// Gives an entry of a mapping another value, or adds it behind `digest` or `certificate`, one of which is there and on one line.
    fn set(&mut self, mapping: &Node, name: &str, value: &str) -> Option<()> {
        let in_braces = self.text.get(self.offset(mapping.place)?..)?.starts_with('{');
        if let Some(node) = entry(mapping, name) {
            let place = self.scalar(node, in_braces)?;
            self.edits.push((place, value.to_owned()));
            return Some(());
        }
        let Value::Mapping(entries) = &mapping.value else { return None };
        let (anchor, behind) =
            entries.iter().find(|(known, _)| matches!(&*known.text, "digest" | "certificate"))?;
        let end = self.scalar(behind, in_braces)?.end;
        let (at, added) = if in_braces {
            (end, format!(", {name}: {value}"))
        } else {
            let line = self.text.get(end..)?.split('\n').next()?;
            let ended = if line.ends_with('\r') { "\r\n" } else { "\n" };
            let at = end + line.trim_end_matches('\r').len();
            let indent = usize::try_from(anchor.place.column).ok()?.checked_sub(1)?;
            (at, format!("{ended}{:indent$}{name}: {value}", ""))
        };
        self.edits.push((at..at, added));
        Some(())
    }

    fn offset(&self, Place { line, column }: Place) -> Option<usize> {
        let (line, column) = (usize::try_from(line).ok()?, usize::try_from(column).ok()?);
        let lines = self.text.split_inclusive('\n');
        let start: usize = lines.clone().take(line.checked_sub(1)?).map(str::len).sum();
        let within = lines.clone().nth(line - 1)?.char_indices().nth(column.checked_sub(1)?)?.0;
        Some(start + within)
    }

    /// Where a word stands, its quotes included; nothing where it is no word, or on several lines.
    fn scalar(&self, node: &Node, in_braces: bool) -> Option<Range<usize>> {
        if matches!(node.value, Value::List(_) | Value::Mapping(_) | Value::Nothing) {
            return None;
        }
        let start = self.offset(node.place)?;
        let line = self.text.get(start..)?.split(['\n', '\r']).next()?;
        let length = match line.chars().next()? {
            quote @ ('"' | '\'') => end_of_quoted(line, quote)?,
            '|' | '>' | '&' | '*' | '!' => return None,
            _ => {
                let comment = line.find(" #").unwrap_or(line.len());
                let end = if in_braces { line.find([',', '}']).unwrap_or(line.len()) } else { line.len() };
                line.get(..comment.min(end))?.trim_end().len()
            }
        };
        Some(start..start + length)
    }

    /// The text with all of them.
    fn text(mut self) -> Option<String> {
        self.edits.sort_by_key(|(place, _)| place.start);
        let (mut text, mut done) = (String::new(), 0);
        for (place, value) in &self.edits {
            text += self.text.get(done..place.start)?;
            text += value;
            done = place.end;
        }
        Some(text + self.text.get(done..)?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::identity::key::Digest;

    #[test]
    fn an_entry_goes_behind_the_last_and_nothing_else_changes() {
        let row = vec!["- id: new".to_owned(), "  team: t".to_owned()];
        let check = |text: &str, wanted: Option<&str>| {
            assert_eq!(inserted(text, std::slice::from_ref(&row)).as_deref(), wanted, "{text}");
        };
        check("teams: {}\n", Some("teams: {}\nkeys:\n  - id: new\n    team: t\n"));
        check("teams: {}", Some("teams: {}\nkeys:\n  - id: new\n    team: t\n"));
        check("keys: []\nteams: {}\n", Some("keys:\n  - id: new\n    team: t\nteams: {}\n"));
        check(
            "# top\nkeys:\n- id: old # it\n  team: t\n\n# end\nteams: {}\n",
            Some("# top\nkeys:\n- id: old # it\n  team: t\n- id: new\n  team: t\n\n# end\nteams: {}\n"),
        );
        check("keys:\n    - id: old\n", Some("keys:\n    - id: old\n    - id: new\n      team: t\n"));
        check(
            "keys: # of ours\r\n- id: old",
            Some("keys: # of ours\r\n- id: old\r\n- id: new\r\n  team: t\r\n"),
        );
        check("keys: [{ id: old }]\n", None);
    }

    #[test]
    fn a_row_is_changed_in_whatever_way_it_is_written_and_nothing_else_changes() {
        let path = Path::new("f");
        let (one, two) = (Digest::of(b"1").to_string(), Digest::of(b"2").to_string());
        let at = SystemTime::UNIX_EPOCH;
        let check = |text: &str, wanted: &str| {
            let rotated = rotated(path, text, "a", &two, at, at).expect(text);
            let past = time(at);
            let previous = format!("{{ digest: {one}, since: {past}, until: {past} }}");
            let wanted = wanted.replace("NEW", &two).replace("PREVIOUS", &previous);
            assert_eq!(rotated, wanted.replace("OLD", &one).replace("PAST", &past));
        };
        let row = |text: &str| text.replace("OLD", &one);
        check(
            &row("keys:\n  # é\n  - id: a\n    digest: OLD  # of é\n    team: t"),
            "keys:\n  # é\n  - id: a\n    digest: NEW  # of é\n    previous: PREVIOUS\n    team: t",
        );
        check(
            &row("keys:\r\n- digest: \"OLD\"\r\n  id: a"),
            "keys:\r\n- digest: NEW\r\n  previous: PREVIOUS\r\n  id: a",
        );
        check(
            &row("keys: [{ id: b }, { digest: 'OLD', id: a }] # é"),
            "keys: [{ id: b }, { digest: NEW, previous: PREVIOUS, id: a }] # é",
        );
        let again = "keys:\n- { id: a, digest: OLD, previous: { until: 2020-01-01 , digest: 'sha256:00' } }";
        check(
            &row(again),
            "keys:\n- { id: a, digest: NEW, previous: { until: PAST , digest: OLD, since: PAST } }",
        );
        let block =
            "keys:\n- id: a\n  digest: OLD\n  previous:\n    digest: 'sha256:00'\n    until: 2020-01-01\n";
        check(
            &row(block),
            "keys:\n- id: a\n  digest: NEW\n  previous:\n    digest: OLD\n    since: PAST\n    until: PAST\n",
        );
        assert_eq!(rotated(path, &row("keys:\n- id: b\n  digest: OLD"), "a", &two, at, at), None);
        let revoked = revoked(
            path,
            &row("keys:\n- id: a\n  digest: OLD\n  disabled: false # yet\n"),
            "a",
            Some("a: b"),
        );
        let wanted = "keys:\n- id: a\n  digest: OLD\n  disabled_reason: \"a: b\"\n  disabled: true # yet\n";
        assert_eq!(revoked, Some(row(wanted)));
        for (before, after) in
            [("'it''s, } # '", "soon"), ("\"a \\\" } b\"", "soon"), ("late # why", "soon # why")]
        {
            let text = |reason: &str| {
                row(&format!(
                    "keys:\n- {{ id: a, digest: OLD, disabled: true, disabled_reason: {reason}\n  }}"
                ))
            };
            let again = super::revoked(path, &text(before), "a", Some("soon"));
            assert_eq!(again, Some(text(after)));
        }
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        for (text, wanted) in [
            ("acme-web", "acme-web"),
            ("no", "\"no\""),
            ("1e3", "\"1e3\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(text), wanted);
        }
    }
}

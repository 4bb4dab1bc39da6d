//! Reads the entries of a mapping, one by one, and finds everything that is wrong with them.

use std::path::Path;

use super::node::{Name, Node};
use super::problem::{Place, Problem, Problems, Severity};

/// How alike two names must be for one to be meant by the other.
const ALIKE: f64 = 0.6;
/// How many letters a name may be off and still be shown where names may be secrets.
const SLIPS: usize = 2;
/// Why a name is not in the message.
const HIDDEN: &str = " (not shown: it may be an API key)";
/// So many names are compared with a wrong one: thousands of bad rows beside thousands of teams must not take minutes.
const COMPARED: usize = 500;
/// So many known names help; a list of thousands hides the message.
const LISTED: usize = 12;

/// Collects what is wrong with one file.
#[derive(Debug)]
pub struct Report<'f> {
    file: &'f Path,
    problems: Problems,
    errors: usize,
}

/// The entries of a mapping that have not been asked for yet.
#[derive(Debug)]
pub struct Fields<'n> {
    /// What the mapping is, for messages: "`listen`".
    pub what: String,
    /// Where it begins.
    pub place: Place,
    entries: Vec<&'n (Name, Node)>,
    known: Vec<&'static str>,
}

impl<'f> Report<'f> {
    /// Nothing is wrong yet.
    #[must_use]
    pub fn new(file: &'f Path) -> Self {
        Self { file, problems: Problems::default(), errors: 0 }
    }

    /// What it stands in is not used.
    pub fn error(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(place, Severity::Error, message.into(), hint.into());
    }

    /// It is used all the same.
    pub fn warning(&mut self, place: Place, message: impl Into<String>, hint: impl Into<String>) {
        self.push(place, Severity::Warning, message.into(), hint.into());
    }

    /// How many errors there are so far.
    #[must_use]
    pub fn errors(&self) -> usize {
        self.errors
    }

    /// All of it, in the order of the text.
    #[must_use]
    pub fn into_problems(mut self) -> Problems {
        self.problems.sort();
        self.problems
    }

    fn push(&mut self, place: Place, severity: Severity, message: String, hint: String) {
        let hint = (!hint.is_empty()).then_some(hint);
        self.errors += usize::from(severity == Severity::Error);
        self.problems.push(Problem {
            file: self.file.to_owned(),
            place: Some(place),
            severity,
            message,
            hint,
        });
    }
}

impl<'n> Fields<'n> {
    /// The entries of a mapping; nothing, and a problem, where the node is none.
    pub fn of(node: &'n Node, what: &str, report: &mut Report<'_>) -> Option<Self> {
        let entries = node.mapping(what, report)?.iter().collect();
        Some(Self { what: what.to_owned(), place: node.place, entries, known: Vec::new() })
    }

    /// An entry that may be missing.
    pub fn take(&mut self, name: &'static str) -> Option<&'n Node> {
        self.known.push(name);
        self.take_stray(name)
    }

    /// An entry that must not be there, and is not offered to who misspelt another.
    pub fn take_stray(&mut self, name: &str) -> Option<&'n Node> {
        let place = self.entries.iter().position(|(known, _)| known.text == name)?;
        Some(&self.entries.remove(place).1)
    }

    /// Where an entry stands that has not been asked for yet; where it is missing, where the mapping begins.
    #[must_use]
    pub fn place_of(&self, name: &str) -> Place {
        let found = self.entries.iter().find(|(known, _)| known.text == name);
        found.map_or(self.place, |(_, node)| node.place)
    }

    /// An entry that must be there.
    pub fn need(&mut self, name: &'static str, why: &str, report: &mut Report<'_>) -> Option<&'n Node> {
        let found = self.take(name);
        if found.is_none() {
            report.error(self.place, format!("{} has no `{name}`", self.what), why);
        }
        found
    }

    /// What an entry says, or the default where it is missing; nothing where it could not be read.
    pub fn or<T>(
        &mut self,
        name: &'static str,
        default: T,
        report: &mut Report<'_>,
        read: impl FnOnce(&'n Node, &mut Report<'_>) -> Option<T>,
    ) -> Option<T> {
        self.take(name).map_or(Some(default), |node| read(node, report))
    }

    /// What an entry that may be missing says; the outer nothing is one that could not be read.
    pub fn maybe<T>(
        &mut self,
        name: &'static str,
        report: &mut Report<'_>,
        read: impl FnOnce(&'n Node, &mut Report<'_>) -> Option<T>,
    ) -> Option<Option<T>> {
        self.or(name, None, report, |node, report| read(node, report).map(Some))
    }

    /// What was not asked for is a mistake: a misspelt name must not change what is meant.
    pub fn done(self, report: &mut Report<'_>) {
        for (name, _) in self.entries {
            let hint = did_you_mean(&name.text, self.known.iter().copied());
            report.error(name.place, format!("unknown key `{}` in {}", name.text, self.what), hint);
        }
    }

    /// The same in a file of API keys, where a strange name may be one: only a slip of the pen is shown.
    pub fn done_among_secrets(self, report: &mut Report<'_>) {
        for (name, _) in self.entries {
            let slip = self.known.iter().any(|known| strsim::levenshtein(known, &name.text) <= SLIPS);
            let (shown, hidden) =
                if slip { (format!(" `{}`", name.text), "") } else { (String::new(), HIDDEN) };
            let hint = did_you_mean(if slip { &name.text } else { "" }, self.known.iter().copied());
            report.error(name.place, format!("unknown field{shown} in {}{hidden}", self.what), hint);
        }
    }
}

/// What a wrong name may have been meant to be.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let best = known
        .iter()
        .take(COMPARED)
        .map(|word| {
            (strsim::normalized_damerau_levenshtein(&word.to_lowercase(), &name.to_lowercase()), word)
        })
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((alike, word)) if alike >= ALIKE => format!("did you mean `{word}`?"),
        Some(_) => {
            let listed: Vec<_> = known.iter().take(LISTED).map(|word| format!("`{word}`")).collect();
            let more = known.len() - listed.len();
            let more = if more == 0 { String::new() } else { format!(" and {more} more") };
            format!("there {} {}{more}", if known.len() == 1 { "is" } else { "are" }, listed.join(", "))
        }
        None => "there are none".to_owned(),
    }
}

/// The place of a name among the entries of a section, or a problem. A section that could not be read is one already.
pub(super) fn place_of(
    known: Option<&[(Name, Node)]>,
    word: &str,
    what: &str,
    place: Place,
    report: &mut Report<'_>,
) -> Option<usize> {
    let names = known?.iter().map(|(name, _)| name.text.as_str());
    let found = names.clone().position(|name| name == word);
    if found.is_none() {
        report.error(place, format!("there is no {what} `{word}`"), did_you_mean(word, names));
    }
    found
}

//! Reads the entries of a mapping, one by one, and finds everything that is wrong with them.

use std::path::Path;
use std::time::Duration;

use super::node::{Name, Node, Value};
use super::problem::{Place, Problem, Problems, Severity};

/// How alike two names must be for one to be meant by the other.
const ALIKE: f64 = 0.8;

/// Collects what is wrong with one file.
#[derive(Debug)]
pub struct Report<'f> {
    file: &'f Path,
    problems: Problems,
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
        Self { file, problems: Problems::default() }
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
        self.problems.errors()
    }

    /// All of it, in the order of the text.
    #[must_use]
    pub fn into_problems(mut self) -> Problems {
        self.problems.sort();
        self.problems
    }

    fn push(&mut self, place: Place, severity: Severity, message: String, hint: String) {
        let hint = (!hint.is_empty()).then_some(hint);
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
        let place = self.entries.iter().position(|(known, _)| known.text == name)?;
        Some(&self.entries.remove(place).1)
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
}

impl Node {
    /// A mapping's entries.
    pub fn mapping(&self, what: &str, report: &mut Report<'_>) -> Option<&[(Name, Self)]> {
        if let Value::Mapping(entries) = &self.value {
            Some(entries)
        } else {
            self.not(what, "a mapping", report)
        }
    }

    /// A list's items.
    pub fn list(&self, what: &str, report: &mut Report<'_>) -> Option<&[Self]> {
        if let Value::List(items) = &self.value { Some(items) } else { self.not(what, "a list", report) }
    }

    /// A word or sentence.
    pub fn text(&self, what: &str, report: &mut Report<'_>) -> Option<&str> {
        if let Value::Text(text) = &self.value { Some(text) } else { self.not(what, "text", report) }
    }

    /// `true` or `false`.
    pub fn bool(&self, what: &str, report: &mut Report<'_>) -> Option<bool> {
        if let Value::Bool(value) = self.value {
            Some(value)
        } else {
            self.not(what, "true or false", report)
        }
    }

    /// A whole number between two others.
    pub fn whole(&self, what: &str, least: i128, most: i128, report: &mut Report<'_>) -> Option<i128> {
        if let Value::Whole(value) = self.value
            && (least..=most).contains(&value)
        {
            return Some(value);
        }
        self.not(what, &format!("a whole number from {least} to {most}"), report)
    }

    /// A duration such as `5s` or `500ms`.
    pub fn duration(&self, what: &str, report: &mut Report<'_>) -> Option<Duration> {
        if let Value::Text(text) = &self.value
            && let Ok(duration) = humantime::parse_duration(text)
        {
            return Some(duration);
        }
        self.not(what, "a duration with its unit, such as 5s, 500ms or 2m", report)
    }

    /// One of these words.
    pub fn one_of<T: Copy>(&self, what: &str, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let text = match &self.value {
            Value::Text(text) => text.as_str(),
            Value::Bool(true) => "true",
            Value::Nothing
            | Value::Bool(false)
            | Value::Whole(_)
            | Value::Fraction(_)
            | Value::List(_)
            | Value::Mapping(_) => "",
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.or_else(|| self.not(what, &names.join(" or "), report))
    }

    /// Texts that are not empty, none twice.
    pub fn words(&self, what: &str, report: &mut Report<'_>) -> Option<Vec<(Place, &str)>> {
        let mut words: Vec<(Place, &str)> = Vec::new();
        for item in self.list(what, report)? {
            let Some(word) = item.text(&format!("an item of {what}"), report) else { continue };
            if word.is_empty() {
                report.error(
                    item.place,
                    format!("an item of {what} is empty"),
                    "write a name, or remove the item",
                );
            } else if words.iter().any(|(_, known)| *known == word) {
                report.error(item.place, format!("`{word}` stands twice in {what}"), "remove one of them");
            } else {
                words.push((item.place, word));
            }
        }
        Some(words)
    }

    /// It is something else than it must be. What it is is not shown: it may hold a secret.
    fn not<T>(&self, what: &str, wanted: &str, report: &mut Report<'_>) -> Option<T> {
        let is = match self.value {
            Value::Nothing => "nothing",
            Value::Bool(_) => "true or false",
            Value::Whole(_) | Value::Fraction(_) => "a number",
            Value::Text(_) => "text",
            Value::List(_) => "a list",
            Value::Mapping(_) => "a mapping",
        };
        let message = if matches!(self.value, Value::Text(_) | Value::Whole(_) | Value::Bool(_)) {
            format!("{what} must be {wanted}")
        } else {
            format!("{what} must be {wanted}, not {is}")
        };
        report.error(self.place, message, "");
        None
    }
}

/// What a wrong name may have been meant to be.
pub fn did_you_mean<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> String {
    let known: Vec<_> = known.collect();
    let best = known
        .iter()
        .map(|word| (strsim::jaro_winkler(&word.to_lowercase(), &name.to_lowercase()), word))
        .max_by(|a, b| a.0.total_cmp(&b.0));
    match best {
        Some((alike, word)) if alike >= ALIKE => format!("did you mean `{word}`?"),
        Some(_) => format!(
            "there are {}",
            known.iter().map(|word| format!("`{word}`")).collect::<Vec<_>>().join(", ")
        ),
        None => "there are none".to_owned(),
    }
}

/// The place of a name in a list of names, or a problem.
pub(super) fn place_of<'a>(
    known: impl Iterator<Item = &'a str> + Clone,
    word: &str,
    what: &str,
    place: Place,
    report: &mut Report<'_>,
) -> Option<usize> {
    let found = known.clone().position(|name| name == word);
    if found.is_none() {
        report.error(place, format!("there is no {what} `{word}`"), did_you_mean(word, known));
    }
    found
}

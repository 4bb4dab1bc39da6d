//! Reads one value as the kind of thing that it must be.

use std::time::Duration;

use super::fields::Report;
use super::node::{Name, Node, Value};
use super::problem::Place;

/// A year, past any that is meant, and far from what clocks cannot add.
const LONGEST: Duration = Duration::from_secs(366 * 86_400);
/// YAML takes some words for something else than text.
const QUOTES: &str = "put it in quotes";

impl Name {
    /// The text, where logs and headers can carry it.
    pub fn word(&self, what: &str, report: &mut Report<'_>) -> Option<&str> {
        word(&self.text, self.place, what, report)
    }
}

impl Node {
    /// A text that logs and headers can carry.
    pub fn word(&self, what: &str, report: &mut Report<'_>) -> Option<&str> {
        word(self.text(what, report)?, self.place, what, report)
    }

    /// A mapping's entries; nothing, and no problem, where it is none.
    pub(super) fn entries(&self) -> Option<&[(Name, Self)]> {
        if let Value::Mapping(entries) = &self.value { Some(entries) } else { None }
    }

    /// A mapping's entries.
    pub fn mapping(&self, what: &str, report: &mut Report<'_>) -> Option<&[(Name, Self)]> {
        self.entries().or_else(|| self.not(what, "a mapping", report))
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
        let wanted = format!("a whole number from {least} to {most}");
        match self.value {
            Value::Whole(value) if (least..=most).contains(&value) => Some(value),
            Value::Whole(_) => self.must_be(what, &wanted, report),
            Value::Nothing
            | Value::Bool(_)
            | Value::Fraction(_)
            | Value::Text(_)
            | Value::List(_)
            | Value::Mapping(_) => self.not(what, &wanted, report),
        }
    }

    /// A duration such as `5s` or `500ms`.
    pub fn duration(&self, what: &str, report: &mut Report<'_>) -> Option<Duration> {
        let wanted = "a duration with its unit, such as 5s, 500ms or 2m";
        match &self.value {
            Value::Text(text) => match humantime::parse_duration(text) {
                Ok(duration) if duration <= LONGEST => Some(duration),
                Ok(_) => {
                    report.error(self.place, format!("{what} is longer than a year"), "write what is meant");
                    None
                }
                Err(_) => self.must_be(what, wanted, report),
            },
            Value::Whole(_) | Value::Fraction(_) => self.must_be(what, wanted, report),
            Value::Nothing | Value::Bool(_) | Value::List(_) | Value::Mapping(_) => {
                self.not(what, wanted, report)
            }
        }
    }

    /// A number of bytes such as `64KiB` or `1MiB`, between two others.
    pub fn bytes(&self, what: &str, least: u64, most: u64, report: &mut Report<'_>) -> Option<u64> {
        let wanted = format!(
            "a number of bytes with its unit (B, KiB, MiB or GiB) from {} to {}",
            size(least),
            size(most)
        );
        match &self.value {
            Value::Text(text) => {
                let bytes = read_size(text).filter(|bytes| (least..=most).contains(bytes));
                bytes.or_else(|| self.must_be(what, &wanted, report))
            }
            Value::Whole(_) | Value::Fraction(_) => self.must_be(what, &wanted, report),
            Value::Nothing | Value::Bool(_) | Value::List(_) | Value::Mapping(_) => {
                self.not(what, &wanted, report)
            }
        }
    }

    /// One of these words.
    pub fn one_of<T: Copy>(&self, what: &str, words: &[(&str, T)], report: &mut Report<'_>) -> Option<T> {
        let names: Vec<_> = words.iter().map(|(word, _)| format!("`{word}`")).collect();
        let text = match &self.value {
            Value::Text(text) => text.as_str(),
            Value::Bool(true) => "true",
            Value::Bool(false) => "false",
            Value::Nothing | Value::Whole(_) | Value::Fraction(_) | Value::List(_) | Value::Mapping(_) => {
                return self.not(what, &names.join(" or "), report);
            }
        };
        let found = words.iter().find(|(word, _)| *word == text).map(|(_, value)| *value);
        found.or_else(|| self.must_be(what, &names.join(" or "), report))
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
                report.error(item.place, format!("`{word}` appears twice in {what}"), "remove one of them");
            } else {
                words.push((item.place, word));
            }
        }
        Some(words)
    }

    /// It is of the right kind, and still not what it must be. It is not shown: it may hold a secret.
    pub(super) fn must_be<T>(&self, what: &str, wanted: &str, report: &mut Report<'_>) -> Option<T> {
        report.error(self.place, format!("{what} must be {wanted}"), "");
        None
    }

    /// It is of another kind than it must be.
    pub(super) fn not<T>(&self, what: &str, wanted: &str, report: &mut Report<'_>) -> Option<T> {
        let (is, hint) = match (&self.value, wanted) {
            (Value::Nothing, _) => ("nothing", ""),
            (Value::Bool(_), "text") => ("true or false", QUOTES),
            (Value::Bool(_), _) => ("true or false", ""),
            (Value::Whole(_) | Value::Fraction(_), "text") => ("a number", QUOTES),
            (Value::Whole(_) | Value::Fraction(_), _) => ("a number", ""),
            (Value::Text(_), "a list") => ("text", "put it in brackets: `[...]`"),
            (Value::Text(_), _) => ("text", ""),
            (Value::List(_), _) => ("a list", ""),
            (Value::Mapping(_), _) => ("a mapping", ""),
        };
        report.error(self.place, format!("{what} must be {wanted}, not {is}"), hint);
        None
    }
}

/// Units of bytes, the largest first.
const UNITS: [(&str, u64); 4] = [("GiB", 1 << 30), ("MiB", 1 << 20), ("KiB", 1 << 10), ("B", 1)];

fn read_size(text: &str) -> Option<u64> {
    let (number, unit) = UNITS.iter().find_map(|(unit, size)| Some((text.strip_suffix(unit)?, size)))?;
    number.trim_end().parse::<u64>().ok()?.checked_mul(*unit)
}

/// As a person would write it.
#[must_use]
pub fn size(bytes: u64) -> String {
    let (unit, size) =
        UNITS.iter().find(|(_, size)| bytes >= *size && bytes.is_multiple_of(*size)).unwrap_or(&("B", 1));
    format!("{}{unit}", bytes / size)
}

fn word<'t>(text: &'t str, place: Place, what: &str, report: &mut Report<'_>) -> Option<&'t str> {
    let good = !text.is_empty() && !text.contains(char::is_control);
    if !good {
        let wrong = if text.is_empty() { "is empty" } else { "holds a control character" };
        report.error(place, format!("{what} {wrong}"), "write a word or a sentence, on one line");
    }
    good.then_some(text)
}

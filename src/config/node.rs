//! A YAML text as a tree in which every value has its place.

use std::collections::HashSet;
use std::path::Path;

use serde::de::{Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Error, Location, Spanned};

use super::problem::{Place, Problem, Problems, Severity};

/// A value and where it stands.
#[derive(Debug, Clone, PartialEq)]
pub struct Node {
    /// Where it begins.
    pub place: Place,
    /// What it is.
    pub value: Value,
}

/// What a YAML text is made of.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// Nothing was written.
    Nothing,
    /// `true` or `false`.
    Bool(bool),
    /// A whole number.
    Whole(i128),
    /// A number with a fraction.
    Fraction(f64),
    /// Everything else that is one word or sentence.
    Text(String),
    /// A list.
    List(Vec<Node>),
    /// A mapping, in its order. No name stands twice.
    Mapping(Vec<(Name, Node)>),
}

/// The name of a mapping's entry.
#[derive(Debug, Clone, PartialEq)]
pub struct Name {
    /// Where it stands.
    pub place: Place,
    /// As written.
    pub text: String,
}

/// Which of the two would win is not to be guessed. The name is not shown: it may be a secret at the wrong place.
const DOUBLED: (&str, &str) =
    ("a name appears twice in this mapping", "keep one of them: which one would win is not to be guessed");

/// Reads a text. No part of it is repeated in a problem: it may hold a secret.
pub fn parse(file: &Path, text: &str) -> Result<Node, Problems> {
    let budget = serde_saphyr::budget! {
        // A million keys, each with a dozen values and names.
        max_events: 64_000_000,
        max_nodes: 32_000_000,
        max_total_scalar_bytes: 1 << 30,
        // Ours are seven deep; 64, the library's own limit, is too much for the stack of a build without optimisation.
        max_depth: 24,
    };
    // `no` and `off` are words, as YAML 1.2 has it: a team may be called so, and a flag may not.
    let options = serde_saphyr::options! { budget: budget, with_snippet: false, strict_booleans: true };
    let problem = |place, (message, hint): (&str, &str)| {
        let (file, message, hint) = (file.to_owned(), message.to_owned(), Some(hint.to_owned()));
        let mut problems = Problems::default();
        problems.push(Problem { file, place, severity: Severity::Error, message, hint });
        problems
    };
    let read: Result<Node, Error> = serde_saphyr::from_str_with_options(text, options);
    let node = read.map_err(|error| problem(error.location().map(place), words(error.without_snippet())))?;
    doubled(&node).map_or(Ok(()), |at| Err(problem(Some(at), DOUBLED)))?;
    Ok(node)
}

/// What is wrong with the text, and what to do. The library's own words quote the text, and advise its Rust callers.
fn words(error: &Error) -> (&'static str, &'static str) {
    if matches!(error, Error::DuplicateMappingKey { .. }) {
        DOUBLED
    } else if matches!(error, Error::MultipleDocuments { .. }) {
        (
            "a second document begins here, after a `---`",
            "a file is one document: remove the `---`, or split the file",
        )
    } else if matches!(error, Error::Budget { .. }) {
        (
            "this is nested deeper, or holds more, than any file of ours",
            "look for a bracket that is never closed, or aliases (`*name`) of aliases",
        )
    } else if matches!(error, Error::UnknownAnchor { .. }) {
        (
            "an alias (`*name`) of something that has no anchor (`&name`)",
            "put a text that begins with `*` in quotes",
        )
    } else {
        ("this is not valid YAML", "look at the indentation, brackets and quotes here and in the line before")
    }
}

/// The first name that stands twice for us and not for the library, which takes `1` and `"1"` for two.
fn doubled(node: &Node) -> Option<Place> {
    match &node.value {
        Value::Mapping(entries) => {
            let mut seen = HashSet::with_capacity(entries.len());
            entries.iter().find_map(|(name, value)| {
                if seen.insert(name.text.as_str()) { doubled(value) } else { Some(name.place) }
            })
        }
        Value::List(items) => items.iter().find_map(doubled),
        Value::Nothing | Value::Bool(_) | Value::Whole(_) | Value::Fraction(_) | Value::Text(_) => None,
    }
}

fn place(at: Location) -> Place {
    Place { line: at.line(), column: at.column() }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self { place: place(spanned.referenced), value: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Name {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<String>::deserialize(deserializer)?;
        Ok(Self { place: place(spanned.referenced), text: spanned.value })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(Any)
    }
}

struct Any;

impl<'de> Visitor<'de> for Any {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Whole(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Whole(value.into()))
    }

    fn visit_f64<E>(self, value: f64) -> Result<Value, E> {
        Ok(Value::Fraction(value))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Nothing)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(Self)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut items: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(item) = items.next_element()? {
            list.push(item);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut entries: A) -> Result<Value, A::Error> {
        let mut mapping = Vec::new();
        while let Some(entry) = entries.next_entry()? {
            mapping.push(entry);
        }
        // A keys file may hold a million of these, and a vector that grew by doubling is up to half empty.
        mapping.shrink_to_fit();
        Ok(Value::Mapping(mapping))
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn check(text: &str, wanted: &str) {
        let said =
            parse(Path::new("f"), text).map_or_else(|problems| problems.to_string(), |_| "good".to_owned());
        assert_eq!(said.lines().next(), Some(wanted), "{text:.80}");
    }

    #[test]
    fn what_is_no_tree_is_told_with_its_place() {
        check("a: [1, two, 3.5, ~, true]", "good");
        check("a: {", "f:1:4: error: this is not valid YAML");
        check("a: 1\nb: 2\na: 3", "f:3:1: error: a name appears twice in this mapping");
        check("a: 1\n---\nb: 2", "f:3:1: error: a second document begins here, after a `---`");
        check("a: *b", "f:1:4: error: an alias (`*name`) of something that has no anchor (`&name`)");
        check(&"[".repeat(100_000), "f:1:256: error: this is not valid YAML");
        check(
            &"- ".repeat(100_000),
            "f:1:49: error: this is nested deeper, or holds more, than any file of ours",
        );
    }

    #[test]
    fn a_number_and_its_text_are_one_name_however_far_apart() {
        let between: String = (0..100).map(|number| format!("t{number}: x\n")).collect();
        check(&format!("1: x\n{between}'1': x\n"), "f:102:1: error: a name appears twice in this mapping");
    }

    #[test]
    fn nothing_of_the_text_is_repeated() {
        for text in [
            "k: sk_live_x: y",
            "sk_live_x: 1\nsk_live_x: 2",
            "k: *sk_live_x",
            "k: !!int sk_live_x",
            "k: \"sk_live_x",
        ] {
            let problems = parse(Path::new("f"), text).expect_err(text);
            assert!(!problems.to_string().contains("sk_live"), "{problems}");
        }
    }

    proptest! {
        #[test]
        fn no_text_panics(text in "(\\PC|[\\[\\]{}:,&*#|>'\"!%@\n\t -]|\n  ){0,200}") {
            let _ = parse(Path::new("f"), &text);
        }
    }
}

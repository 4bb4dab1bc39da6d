//! A YAML text as a tree in which every value has its place.

use std::path::Path;

use serde::de::{Deserialize, Deserializer, Error as _, MapAccess, SeqAccess, Visitor};
use serde_saphyr::{Location, Spanned};

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

/// Reads a text. No part of it is repeated in a problem: it may hold a secret.
pub fn parse(file: &Path, text: &str) -> Result<Node, Problems> {
    let budget = serde_saphyr::budget! {
        // A million keys, each with a dozen values and names.
        max_events: 64_000_000,
        max_nodes: 32_000_000,
        max_total_scalar_bytes: 1 << 30,
    };
    // `no` and `off` are words, as YAML 1.2 has it: a team may be called so, and a flag may not.
    let options = serde_saphyr::options! { budget: budget, with_snippet: false, strict_booleans: true };
    serde_saphyr::from_str_with_options(text, options).map_err(|error| {
        let place = error.location().map(|at| Place { line: at.line(), column: at.column() });
        let said = error.to_string();
        let (message, hint) = if said.contains("duplicate mapping key") {
            (
                "a name stands twice in this mapping",
                "keep one of them: which one would win is not to be guessed",
            )
        } else {
            (
                "this is not valid YAML",
                "look at the indentation, brackets and quotes here and in the line before",
            )
        };
        let mut problems = Problems::default();
        let (file, message, hint) = (file.to_owned(), message.to_owned(), Some(hint.to_owned()));
        problems.push(Problem { file, place, severity: Severity::Error, message, hint });
        problems
    })
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
        while let Some(entry) = entries.next_entry::<Name, Node>()? {
            if mapping.iter().rev().take(64).any(|(name, _): &(Name, Node)| name.text == entry.0.text) {
                return Err(A::Error::custom("duplicate mapping key"));
            }
            mapping.push(entry);
        }
        Ok(Value::Mapping(mapping))
    }
}

//! A YAML text as a tree in which every value has its place.

use std::path::Path;

use super::problem::{Place, Problem, Problems, Severity};
use super::reader::{self, Rows};

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
    read(file, text, None)
}

/// The same where the outermost mapping has a long list of this name: its items are handed over one by one, and the list
/// is empty in what is returned. An error makes what was handed over void.
pub fn parse_rows(
    file: &Path,
    text: &str,
    list: &'static str,
    take: &mut dyn FnMut(Node),
) -> Result<Node, Problems> {
    read(file, text, Some((list, take)))
}

fn read(file: &Path, text: &str, rows: Option<Rows<'_>>) -> Result<Node, Problems> {
    reader::read(text, rows).map_err(|(place, (message, hint))| {
        let (file, message, hint) = (file.to_owned(), message.to_owned(), Some(hint.to_owned()));
        let mut problems = Problems::default();
        problems.push(Problem { file, place: Some(place), severity: Severity::Error, message, hint });
        problems
    })
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

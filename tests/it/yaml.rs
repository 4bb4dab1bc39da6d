//! A text is read as another reader of YAML reads it, or refused.

use std::path::Path;

use proptest::prelude::*;
use scopegate::config::node::{Node, Value, parse};
use serde_json::json;

/// Texts that are nearly YAML: all of its marks, and what may be a number or a word.
fn nearly() -> impl Strategy<Value = String> {
    let words = [
        "a b c a: 1|b: x|<<: *x|<<: {a: 1}|&x |*x|&y |*y|!!str |!!int |! |'q'|\"d\"|# c\n|? |key: |\t| |: |, |{|}|[|]",
        "5 -5 0x1F 0123 1.5 1e3 +1 - ~ null true True no off 1_000 _1 1__0 0b11 0o17 inf nan e1 1e + ... ---",
        "2026-11-24 12:30 .5 1. . 18446744073709551616 -9223372036854775809 1e999 .inf",
        "- |\n|\n  |\n    ||\n  x\n|>\n  x\n",
    ];
    let words = words.map(|line| line.split(if line.contains('|') { '|' } else { ' ' }).collect::<Vec<_>>());
    prop::collection::vec(prop::sample::select(words.concat()), 0..30).prop_map(|words| words.concat())
}

fn ours(node: &Node) -> serde_json::Value {
    match &node.value {
        Value::Nothing => json!(null),
        Value::Bool(value) => json!(value),
        Value::Whole(value) => json!(value),
        Value::Fraction(value) => json!(value),
        Value::Text(text) => json!(text),
        Value::List(items) => items.iter().map(ours).collect(),
        Value::Mapping(entries) => {
            entries.iter().map(|(name, node)| (name.text.clone(), ours(node))).collect()
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]
    #[test]
    fn what_we_read_others_read_too(text in nearly()) {
        let options = serde_saphyr::options! { strict_booleans: true };
        let theirs = serde_saphyr::from_str_with_options::<serde_json::Value>(&text, options);
        match (parse(Path::new("f"), &text), theirs) {
            (Ok(node), Ok(theirs)) => prop_assert_eq!(ours(&node), theirs),
            (Ok(node), Err(error)) => prop_assert!(false, "{node:?} and {error}"),
            // We refuse a name and a number that look alike, and numbers without end.
            (Err(problems), Ok(_)) => {
                let text = problems.to_string();
                prop_assert!(text.contains("twice") || text.contains("not valid YAML"), "{text}");
            }
            (Err(_), Err(_)) => {}
        }
    }
}

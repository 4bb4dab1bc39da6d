//! What a YAML scalar means, as the core schema of YAML 1.2 has it: `no` and `off` are words, since a team may be called
//! so, and a flag may not.

use std::borrow::Cow;

use granit_parser::Tag;

use super::node::Value;

/// The value of a scalar; nothing where its tag (`!!int`) says that it is something else, or it is no finite number.
pub(super) fn read(text: Cow<'_, str>, plain: bool, tag: Option<&Tag>) -> Option<Value> {
    match tag.and_then(Tag::core_suffix) {
        Some("null") => Some(Value::Nothing),
        Some("bool") => bool(&text).map(Value::Bool),
        Some("int") => whole(&text).map(Value::Whole),
        Some("float") => fraction(&text)?.map(Value::Fraction),
        Some("map" | "seq") => None,
        Some(_) => Some(Value::Text(text.into_owned())),
        // A single `!` makes it text, as quotes do.
        None if !plain || tag.is_some_and(|tag| matches!(tag.parts(), ("", "!") | ("!", ""))) => {
            Some(Value::Text(text.into_owned()))
        }
        None => untagged(text),
    }
}

/// Whether a value with this tag may be of this kind: a tag that YAML does not know means nothing.
pub(super) fn may_be(kind: &str, tag: Option<&Tag>) -> bool {
    tag.and_then(Tag::core_suffix).is_none_or(|tag| tag == kind)
}

fn untagged(text: Cow<'_, str>) -> Option<Value> {
    if is_nothing(&text) {
        return Some(Value::Nothing);
    }
    // Most texts end here.
    if text.starts_with(|first: char| first.is_ascii_digit() || "+-.".contains(first)) {
        if let Some(value) = whole(&text) {
            return Some(Value::Whole(value));
        }
        if let Some(value) = fraction(&text)? {
            return Some(Value::Fraction(value));
        }
    } else if let Some(value) = bool(&text) {
        return Some(Value::Bool(value));
    }
    Some(Value::Text(text.into_owned()))
}

/// A scalar that is a name: `true` and `1` are what is written.
pub(super) fn name(text: Cow<'_, str>, plain: bool, tag: Option<&Tag>) -> Option<String> {
    match tag {
        None if plain && is_nothing(&text) => None,
        None => Some(text.into_owned()),
        Some(_) => match read(text, plain, tag)? {
            Value::Text(text) => Some(text),
            Value::Nothing
            | Value::Bool(_)
            | Value::Whole(_)
            | Value::Fraction(_)
            | Value::List(_)
            | Value::Mapping(_) => None,
        },
    }
}

fn is_nothing(text: &str) -> bool {
    matches!(text, "" | "~" | "null" | "Null" | "NULL")
}

fn bool(text: &str) -> Option<bool> {
    match text {
        "true" | "True" | "TRUE" => Some(true),
        "false" | "False" | "FALSE" => Some(false),
        _ => None,
    }
}

/// A whole number of 64 bits. Digits that begin with a needless 0 are none: somebody may mean octal ones by it.
fn whole(text: &str) -> Option<i128> {
    let (negative, digits) = match text.strip_prefix('-') {
        Some(digits) => (true, digits),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let prefixed = |small, large| digits.strip_prefix(small).or_else(|| digits.strip_prefix(large));
    let (radix, digits) = if let Some(digits) = prefixed("0x", "0X") {
        (16, digits)
    } else if let Some(digits) = prefixed("0o", "0O") {
        (8, digits)
    } else if let Some(digits) = prefixed("0b", "0B") {
        (2, digits)
    } else if digits.starts_with('0') && digits != "0" {
        return None;
    } else {
        (10, digits)
    };
    let lonely = |text: &str| text.starts_with('_') || text.ends_with('_') || text.contains("__");
    if digits.is_empty()
        || lonely(digits)
        || !digits.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
    {
        return None;
    }
    let value = i128::from_str_radix(&digits.replace('_', ""), radix).ok()?;
    if negative {
        i64::try_from(-value).ok().map(i128::from)
    } else {
        u64::try_from(value).ok().map(i128::from)
    }
}

/// A number with a fraction or an exponent; the outer nothing is one that is not finite.
fn fraction(text: &str) -> Option<Option<f64>> {
    let unsigned = text.strip_prefix(['+', '-']).unwrap_or(text);
    if matches!(unsigned, ".inf" | ".Inf" | ".INF" | ".nan" | ".NaN" | ".NAN") {
        return None;
    }
    let number = unsigned.starts_with(|first: char| first.is_ascii_digit() || first == '.');
    let value: Option<f64> = text.parse().ok().filter(|_| number);
    value.is_none_or(f64::is_finite).then_some(value)
}

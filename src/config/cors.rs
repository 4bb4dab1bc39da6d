//! `cors:`: which pages may read what we answer.

use std::time::Duration;

use super::fields::{Fields, Report};
use super::node::{Node, Value};

/// What a header name may hold besides letters and digits.
const TOKEN: &[u8] = b"!#$%&'*+-.^_`|~";

/// Answers preflights of keyed surfaces, and lets pages read refusals.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cors {
    /// Who may ask.
    pub origins: Origins,
    /// `Access-Control-Allow-Headers`; [`Cors::HEADERS`] unless written.
    pub headers: Vec<Box<str>>,
    /// `Access-Control-Max-Age`; [`Cors::MAX_AGE`] unless written.
    pub max_age: Duration,
    /// `Access-Control-Allow-Credentials`; off unless written.
    pub credentials: bool,
}

/// Which origins are allowed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origins {
    /// `*`
    Any,
    /// Exactly these, as browsers write them: scheme, host and port, in lower case.
    These(Vec<Box<str>>),
}

impl Cors {
    /// What the browser SDK sends, and the documented header.
    pub const HEADERS: [&str; 3] = ["authorization", "content-type", "x-api-key"];
    /// Chromium caps it at two hours; ten minutes keeps a changed answer from living long.
    pub const MAX_AGE: Duration = Duration::from_secs(600);
}

impl Cors {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`cors`", report)?;
        let origins = fields.need(
            "origins",
            "which pages may read answers: `origins: [\"https://app.example\"]`",
            report,
        );
        let origins = origins.and_then(|node| Origins::read(node, report));
        let headers = fields.take("headers").map_or(Some(Self::HEADERS.map(Box::from).to_vec()), |node| {
            let words = node.words("`headers`", report)?;
            for (place, word) in &words {
                if !word.bytes().all(|byte| byte.is_ascii_alphanumeric() || TOKEN.contains(&byte)) {
                    report.error(*place, format!("`{word}` is not a header name"), "write it as x-api-key");
                }
            }
            Some(words.into_iter().map(|(_, word)| word.to_ascii_lowercase().into()).collect())
        });
        let max_age =
            fields.or("max_age", Self::MAX_AGE, report, |node, report| node.duration("`max_age`", report));
        let credentials =
            fields.or("credentials", false, report, |node, report| node.bool("`credentials`", report));
        fields.done(report);
        let cors =
            Self { origins: origins?, headers: headers?, max_age: max_age?, credentials: credentials? };
        if cors.origins == Origins::Any && cors.credentials {
            report.error(node.place, "`credentials` with any origin", "browsers refuse it; list the origins");
        }
        Some(cors)
    }
}

impl Origins {
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let any = |node: &Node| node.value == Value::Text("*".to_owned());
        if any(node) || matches!(&node.value, Value::List(items) if items.len() == 1 && items.iter().all(any))
        {
            return Some(Self::Any);
        }
        let words = node.words("`origins`", report)?;
        if words.is_empty() {
            report.error(
                node.place,
                "`origins` is empty",
                "list the origins, or leave out `cors`: preflights go to the upstream then",
            );
        }
        for (place, word) in &words {
            let behind = word.strip_prefix("https://").or_else(|| word.strip_prefix("http://"));
            let good =
                behind.is_some_and(|host| !host.is_empty() && !host.contains(['/', '*', ' ', '?', '#']));
            if !good || word.bytes().any(|byte| byte.is_ascii_uppercase() || !byte.is_ascii_graphic()) {
                report.error(*place, format!("`{word}` is not an origin"), "write it as browsers do, in lower case and without a path: https://app.example, or `origins: \"*\"` for any");
            }
        }
        Some(Self::These(words.into_iter().map(|(_, word)| word.into()).collect()))
    }
}

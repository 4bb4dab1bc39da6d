//! One route: `METHOD /path?query: what it asks for`.

use super::fields::{Fields, Report, did_you_mean};
use super::node::{Node, Value};
use super::problem::Place;
use crate::identity::scope::{ScopeSet, Scopes};

/// What the configuration says about a class of calls.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Route {
    /// The method in capitals; `None` is any.
    pub method: Option<Box<str>>,
    /// Which paths.
    pub pattern: Pattern,
    /// Names that the query must have.
    pub query: Vec<Box<str>>,
    /// What the caller must hold. [`Requirement::Nothing`] exactly where the surface is open.
    pub requirement: Requirement,
    /// The form of refusals.
    pub errors: ErrorForm,
}

/// A class of paths.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pattern {
    /// As it was written: `/api/v1/call-tokens/{id}`. The label of logs and metrics.
    pub template: Box<str>,
    /// Its segments, without the `**`.
    pub segments: Vec<Segment>,
    /// It ends in `/**`: itself and all below.
    pub rest: bool,
}

/// One piece of a path between two slashes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Segment {
    /// Exactly this, in this case.
    Literal(Box<str>),
    /// Any one segment that is not empty.
    Param,
}

/// Who may use a surface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Anybody: the upstream has its own checks.
    Open,
    /// The holder of a key; its routes say which scopes.
    Key,
}

/// What the caller must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Requirement {
    /// Not even a key.
    Nothing,
    /// Any valid key.
    Key,
    /// One of these scopes.
    Any(ScopeSet),
    /// All of these scopes.
    All(ScopeSet),
}

/// The form of an error body.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ErrorForm {
    /// `{"error":{"code","message","requestId"}}`, as TelAPI documents.
    Object,
    /// `{"error":"message","code","requestId"}`, as the SDK's session-token call expects.
    Text,
}

/// The names that routes may use, and what their surface says.
#[derive(Debug, Clone, Copy)]
pub(super) struct Context<'a> {
    /// `None` where they could not be read: that has been said, and need not be said again for each route.
    pub(super) scopes: Option<&'a Scopes>,
    pub(super) access: Access,
    pub(super) errors: ErrorForm,
    pub(super) channel: bool,
}

/// The forms of an error body, as they are written.
pub(super) const ERROR_FORMS: [(&str, ErrorForm); 2] =
    [("object", ErrorForm::Object), ("text", ErrorForm::Text)];

impl Route {
    /// All routes of a surface, each with its place.
    pub(super) fn read_all(node: &Node, context: Context<'_>, report: &mut Report<'_>) -> Vec<(Place, Self)> {
        let key = context.access == Access::Key;
        match &node.value {
            Value::List(_) if key => {
                report.error(node.place, "routes of a surface with `access: key` must say what they ask for", "write them as a mapping: `GET /path: SCOPE`, or `{ key_only: true }` where any key will do");
                Vec::new()
            }
            Value::List(items) => {
                let lines = items.iter().filter_map(|item| Some((item.place, item.text("a route", report)?)));
                let lines: Vec<_> = lines.collect();
                lines
                    .into_iter()
                    .filter_map(|(place, line)| {
                        let head = head(line, place, context, report)?;
                        Some((place, head.route(Requirement::Nothing, context.errors)))
                    })
                    .collect()
            }
            Value::Mapping(entries) => entries
                .iter()
                .filter_map(|(name, value)| {
                    let head = head(&name.text, name.place, context, report);
                    let (requirement, errors) = demand(value, context, report)?;
                    Some((name.place, head?.route(requirement, errors)))
                })
                .collect(),
            Value::Nothing | Value::Bool(_) | Value::Whole(_) | Value::Fraction(_) | Value::Text(_) => {
                report.error(node.place, "`routes` must be a list or a mapping", "");
                Vec::new()
            }
        }
    }

    /// What makes two routes one: their method and the shape of their path.
    pub(super) fn shape(&self) -> String {
        let segments = self.pattern.segments.iter().map(|segment| match segment {
            Segment::Literal(text) => format!("/{text}"),
            Segment::Param => "/{}".to_owned(),
        });
        let rest = if self.pattern.rest { "/**" } else { "" };
        format!("{} {}{rest}", self.method.as_deref().unwrap_or("*"), segments.collect::<String>())
    }
}

/// What stands before the colon.
struct Head {
    method: Option<Box<str>>,
    pattern: Pattern,
    query: Vec<Box<str>>,
}

impl Head {
    fn route(self, requirement: Requirement, errors: ErrorForm) -> Route {
        Route { method: self.method, pattern: self.pattern, query: self.query, requirement, errors }
    }
}

fn head(line: &str, place: Place, context: Context<'_>, report: &mut Report<'_>) -> Option<Head> {
    let mut words = line.split_whitespace();
    let (method, target) = match (words.next(), words.next(), words.next()) {
        (Some(target), None, _) => (None, target),
        (Some(method), Some(target), None) => (Some(method), target),
        _ => {
            report.error(
                place,
                format!("`{line}` is no route"),
                "write it as `GET /path`, or `/path` for any method",
            );
            return None;
        }
    };
    if let Some(method) = method
        && !method.bytes().all(|byte| byte.is_ascii_uppercase() || byte == b'-')
    {
        report.error(
            place,
            format!("`{method}` is no method"),
            "methods are one word in capitals, and a route has one: write two lines for two methods",
        );
        return None;
    }
    if context.channel && method != Some("GET") {
        report.error(
            place,
            format!("`{line}` is no route of a channel"),
            "a WebSocket handshake is a GET: write `GET` before the path",
        );
    }
    let (path, names) = target.split_once('?').map_or((target, None), |(path, names)| (path, Some(names)));
    let names: Vec<&str> = names.map(|names| names.split('&').collect()).unwrap_or_default();
    let good = |name: &&str| {
        !name.is_empty() && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"-_.~".contains(&byte))
    };
    for (number, name) in names.iter().enumerate() {
        if !good(name) || names.iter().take(number).any(|known| known == name) {
            report.error(
                place,
                format!("`{target}` does not name its query parameters"),
                "write their names alone, each once: `?sessionId&token`",
            );
            return None;
        }
    }
    let pattern = pattern(path, place, report)?;
    Some(Head { method: method.map(Box::from), pattern, query: names.into_iter().map(Box::from).collect() })
}

fn pattern(path: &str, place: Place, report: &mut Report<'_>) -> Option<Pattern> {
    let mut problem = |message: String, hint: &str| {
        report.error(place, message, hint);
        None
    };
    let Some(inside) = path.strip_prefix('/') else {
        return problem(format!("`{path}` does not start with a slash"), "write it as `/path`");
    };
    let (inside, rest) = match inside.strip_suffix("**") {
        Some("") => ("", true),
        Some(before) if before.ends_with('/') => (before.trim_end_matches('/'), true),
        Some(_) | None => (inside, false),
    };
    let mut segments = Vec::new();
    for segment in inside.split('/').filter(|_| !inside.is_empty()) {
        let literal = |byte: u8| byte.is_ascii_alphanumeric() || b"-._~!$&'()+,=:@".contains(&byte);
        segments.push(match segment.strip_prefix('{').and_then(|inner| inner.strip_suffix('}')) {
            Some(name) if !name.is_empty() && name.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_') => Segment::Param,
            Some(_) => return problem(format!("`{segment}` is no parameter"), "name it with letters, digits and `_`: `{id}`"),
            None if segment.is_empty() => {
                return problem(format!("`{path}` has an empty segment"), "a trailing or doubled slash is another path to some servers; leave it out, or end in `/**`");
            }
            None if segment == "." || segment == ".." => return problem(format!("`{path}` has a dot segment"), "write the path that is meant"),
            None if segment.contains('*') => return problem(format!("`{segment}` holds a `*`"), "`/**` stands at the end, and `{name}` for one segment"),
            None if segment.bytes().all(literal) => Segment::Literal(segment.into()),
            None => return problem(format!("`{segment}` cannot stand in a route"), "literals are matched after decoding: write letters, digits and -._~!$&'()+,=:@, and whole segments as `{name}`"),
        });
    }
    Some(Pattern { template: path.into(), segments, rest })
}

/// What stands behind the colon.
fn demand(node: &Node, context: Context<'_>, report: &mut Report<'_>) -> Option<(Requirement, ErrorForm)> {
    let key = context.access == Access::Key;
    if let Value::Text(scope) = &node.value {
        let set = scope_set([(node.place, scope.as_str())], context, report);
        return open_asks_nothing(node.place, key, report)
            .and(set)
            .map(|set| (Requirement::All(set), context.errors));
    }
    let mut fields = Fields::of(node, "a route", report)?;
    let scope = fields.take("scope").map(|node| {
        let word = node.text("`scope`", report)?;
        scope_set([(node.place, word)], context, report).map(Requirement::All)
    });
    let any = fields.take("any").map(|node| several(node, "`any`", context, report).map(Requirement::Any));
    let all = fields.take("all").map(|node| several(node, "`all`", context, report).map(Requirement::All));
    let key_only =
        fields.take("key_only").map(|node| node.one_of("`key_only`", &[("true", Requirement::Key)], report));
    let errors = fields
        .take("errors")
        .map_or(Some(context.errors), |node| node.one_of("`errors`", &ERROR_FORMS, report));
    fields.done(report);
    let mut demands = [scope, any, all, key_only].into_iter().flatten();
    let requirement = match (demands.next(), demands.next(), key) {
        (None, _, false) => Some(Requirement::Nothing),
        (Some(one), None, true) => one,
        (Some(_), _, false) => open_asks_nothing(node.place, key, report).and(None),
        (_, _, true) => {
            report.error(
                node.place,
                "a route asks for one thing",
                "write one of `scope: S`, `any: [S, T]`, `all: [S, T]`, `key_only: true`",
            );
            None
        }
    };
    Some((requirement?, errors?))
}

fn open_asks_nothing(place: Place, key: bool, report: &mut Report<'_>) -> Option<()> {
    if !key {
        report.error(
            place,
            "a route of an open surface asks for a scope",
            "move it to a surface with `access: key`, or remove the scope",
        );
    }
    key.then_some(())
}

fn several(node: &Node, what: &str, context: Context<'_>, report: &mut Report<'_>) -> Option<ScopeSet> {
    let words = node.words(what, report)?;
    if words.is_empty() {
        report.error(
            node.place,
            format!("{what} is empty"),
            "name a scope, or write `key_only: true` where any key will do",
        );
        return None;
    }
    scope_set(words, context, report)
}

fn scope_set<'a>(
    words: impl IntoIterator<Item = (Place, &'a str)>,
    context: Context<'_>,
    report: &mut Report<'_>,
) -> Option<ScopeSet> {
    let sets: Vec<_> = words
        .into_iter()
        .map(|(place, word)| {
            let Some(scopes) = context.scopes else { return Some(ScopeSet::default()) };
            let known = scopes.find(word);
            if known.is_none() {
                let hint =
                    format!("{} (`scopes:` is what the platform defines)", did_you_mean(word, scopes.all()));
                report.error(place, format!("the platform does not define the scope `{word}`"), hint);
            }
            known
        })
        .collect();
    sets.into_iter().try_fold(ScopeSet::default(), |all, one| Some(all.with(one?)))
}

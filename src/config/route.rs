//! One route: `METHOD /path?query: what it asks for`.

use super::fields::{Fields, Report, did_you_mean};
use super::limits::Timeouts;
use super::node::{Node, Value};
use super::pattern::Head;
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
    /// The member of its answers that names a session which was minted.
    pub mints: Option<Box<str>>,
    /// How long its requests may take: its own, or those around it.
    pub timeouts: Timeouts,
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

impl Pattern {
    /// Whether some path may be one of both classes.
    #[must_use]
    pub fn meets(&self, other: &Self) -> bool {
        let same =
            |(one, two): (&Segment, &Segment)| one == two || *one == Segment::Param || *two == Segment::Param;
        let (mine, theirs) = (self.segments.len(), other.segments.len());
        let long_enough = (mine >= theirs || self.rest) && (theirs >= mine || other.rest);
        long_enough && self.segments.iter().zip(&other.segments).all(same)
    }
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

/// What a caller is known by.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Proof {
    /// Its key.
    Key,
    /// The certificate of its connection.
    Certificate,
    /// Its key, over a connection with a certificate.
    Both,
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

impl Requirement {
    /// Whether who meets it meets the other, too. It says no where it would have to compare sets of scopes.
    #[must_use]
    pub fn covers(self, other: Self) -> bool {
        match other {
            Self::Nothing => true,
            Self::Key => self != Self::Nothing,
            Self::Any(_) | Self::All(_) => self == other,
        }
    }

    /// The same on another platform. What it asks for and the new one does not define is held by nobody.
    #[must_use]
    pub fn under(self, old: &Scopes, new: &Scopes) -> Self {
        let moved = |set| new.set(old.names(set));
        match self {
            Self::All(set) if old.names(set).any(|name| new.find(name).is_none()) => {
                Self::Any(ScopeSet::default())
            }
            Self::All(set) => Self::All(moved(set)),
            Self::Any(set) => Self::Any(moved(set)),
            Self::Nothing | Self::Key => self,
        }
    }
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
    /// `None` where it could not be read: nothing is said of what depends on it.
    pub(super) access: Option<Access>,
    pub(super) errors: ErrorForm,
    pub(super) channel: bool,
    /// What holds where a route says nothing else.
    pub(super) timeouts: Timeouts,
}

/// The forms of an error body, as they are written.
pub(super) const ERROR_FORMS: [(&str, ErrorForm); 2] =
    [("object", ErrorForm::Object), ("text", ErrorForm::Text)];

/// What a route of a keyed surface may ask for.
const ONE_OF: &str = "write one of `scope: S`, `any: [S, T]`, `all: [S, T]`, `key_only: true`";

impl Route {
    /// All routes of a surface, each with its place.
    pub(super) fn read_all(node: &Node, context: Context<'_>, report: &mut Report<'_>) -> Vec<(Place, Self)> {
        let key = context.access == Some(Access::Key);
        match &node.value {
            Value::List(_) if key => {
                report.error(node.place, "routes of a surface with `access: key` must say what they ask for", "write them as a mapping: `GET /path: SCOPE`, or `{ key_only: true }` where any key will do");
                Vec::new()
            }
            Value::List(items) => items
                .iter()
                .filter_map(|item| {
                    let line = item.text("a route of a list", report)?;
                    let head = Head::read(line, item.place, context.channel, report)?;
                    Some((item.place, route(head, Demand::of(Requirement::Nothing, context))))
                })
                .collect(),
            Value::Mapping(entries) => entries
                .iter()
                .filter_map(|(name, value)| {
                    let head = Head::read(&name.text, name.place, context.channel, report);
                    let demand = demand(value, context, report)?;
                    Some((name.place, route(head?, demand)))
                })
                .collect(),
            Value::Nothing | Value::Bool(_) | Value::Whole(_) | Value::Fraction(_) | Value::Text(_) => {
                node.not::<()>("`routes`", "a list or a mapping", report);
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

/// What stands behind the colon.
struct Demand {
    requirement: Requirement,
    errors: ErrorForm,
    mints: Option<Box<str>>,
    timeouts: Timeouts,
}

impl Demand {
    /// Where nothing else is said.
    fn of(requirement: Requirement, Context { errors, timeouts, .. }: Context<'_>) -> Self {
        Self { requirement, errors, mints: None, timeouts }
    }
}

fn route(head: Head, Demand { requirement, errors, mints, timeouts }: Demand) -> Route {
    let Head { method, pattern, query, .. } = head;
    Route { method, pattern, query, requirement, errors, mints, timeouts }
}

fn demand(node: &Node, context: Context<'_>, report: &mut Report<'_>) -> Option<Demand> {
    if let Value::Text(scope) = &node.value {
        let set = scope_set([(node.place, scope.as_str())], context, report);
        may_ask(node.place, context, report)?;
        return Some(Demand::of(Requirement::All(set?), context));
    }
    if !matches!(node.value, Value::Mapping(_)) {
        let hint = if context.access == Some(Access::Open) {
            "write `{}` where there is nothing to say"
        } else {
            ONE_OF
        };
        report.error(node.place, "what a route asks for must be a scope or a mapping", hint);
        return None;
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
    let mints_node = fields.take("mints");
    let mints = mints_node.map_or(Some(None), |node| node.word("`mints`", report).map(Some));
    let timeouts =
        fields.take("timeouts").map_or(Some(context.timeouts), |node| context.timeouts.within(node, report));
    fields.done(report);
    if let (Some(node), Some(Access::Open)) = (mints_node, context.access) {
        report.error(
            node.place,
            "a route of an open surface mints nothing for a key",
            "move it to a surface with `access: key`, or remove `mints`",
        );
    }
    let mut demands = [scope, any, all, key_only].into_iter().flatten();
    let requirement = match (demands.next(), demands.next()) {
        (None, _) if context.access == Some(Access::Key) => {
            report.error(node.place, "this route does not say what it asks for", ONE_OF);
            None
        }
        (None, _) => Some(Requirement::Nothing),
        (Some(one), None) => may_ask(node.place, context, report).and(one),
        (Some(_), Some(_)) => {
            report.error(node.place, "this route asks for more than one thing", ONE_OF);
            None
        }
    };
    let mints = mints?.map(Box::from);
    Some(Demand { requirement: requirement?, errors: errors?, mints, timeouts: timeouts? })
}

/// Nothing, and a problem, on an open surface.
fn may_ask(place: Place, context: Context<'_>, report: &mut Report<'_>) -> Option<()> {
    let open = context.access == Some(Access::Open);
    if open {
        report.error(
            place,
            "a route of an open surface asks for a scope",
            "move it to a surface with `access: key`, or remove the scope",
        );
    }
    (!open).then_some(())
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

//! Which route a path and method belong to.
//!
//! A tree of segments, built at load. At every step a literal is tried before a `{param}`, and that before
//! `/**`: the most specific route wins, as it does in the upstream's router.
//!
//! A router with other options may read some paths otherwise: one that cares for no case, ignores a slash at the end,
//! or takes longer parameters. What it would find is looked for beside, so that it can be refused where it matters.

use hashbrown::{HashMap, HashSet};

use super::methods::Methods;
use super::path::{Path, folded, is_long};
use crate::config;

/// A place in [`super::Policy::routes`].
pub type RouteId = usize;

/// All routes of a configuration.
#[derive(Debug, Default)]
pub struct Router {
    root: Node,
    /// The routes whose every segment is a literal, by their whole path.
    exact: HashMap<Box<str>, Methods>,
    /// Every literal of every route.
    literals: HashSet<Box<str>>,
}

/// What a path and method led to.
#[derive(Debug, PartialEq, Eq)]
pub enum Matched {
    /// This route; `tail` is where in the path the part that `/**` stands for begins, if it has one.
    Route {
        /// Which.
        id: RouteId,
        /// A byte offset into the path; its length where nothing is matched by `/**`.
        tail: usize,
    },
    /// This route, as above; and what a router with other options might find instead.
    Nearly {
        /// Which.
        id: RouteId,
        /// As above.
        tail: usize,
        /// Without the route itself.
        others: Vec<RouteId>,
    },
    /// The path is known, with other methods: these routes.
    OtherMethods(Vec<RouteId>),
    /// A `{param}` stands where the path has an empty segment: routers do not agree on that.
    EmptyParam,
    /// Nothing.
    Nothing,
}

#[derive(Debug, Default)]
struct Node {
    /// By their text.
    literals: Vec<(Box<str>, Node)>,
    /// The texts of those that are one to a router that cares for no case.
    folded: HashMap<Box<str>, Vec<Box<str>>>,
    param: Option<Box<Node>>,
    here: Methods,
    rest: Methods,
}

/// A search that is under way.
struct Search<'a> {
    path: Path<'a>,
    method: &'a str,
    other_methods: Vec<RouteId>,
    empty_param: bool,
    /// It is where the upstream's router would not be, but one with other options might.
    astray: bool,
    /// What such a one might find.
    others: Vec<RouteId>,
    /// The first route with a parameter that is too long: it is taken where there is no other.
    long: Option<(RouteId, usize)>,
}

impl Router {
    /// Adds a route. The configuration has made sure that no two have one method and one shape.
    pub fn add(&mut self, route: &config::route::Route, id: RouteId) {
        let mut node = &mut self.root;
        let mut path = Some(String::new()).filter(|_| !route.pattern.rest);
        for segment in &route.pattern.segments {
            node = match segment {
                config::route::Segment::Literal(text) => {
                    self.literals.insert(text.clone());
                    path = path.map(|path| path + "/" + text);
                    node.literal(text)
                }
                config::route::Segment::Param => {
                    path = None;
                    node.param.get_or_insert_default()
                }
            };
        }
        let methods = if route.pattern.rest { &mut node.rest } else { &mut node.here };
        methods.add(route.method.as_deref(), id);
        if let Some(path) = path.filter(|path| !path.is_empty()) {
            self.exact.entry(path.into()).or_default().add(route.method.as_deref(), id);
        }
    }

    /// The route of a call whose path stands in the configuration as it came: it has one reading, and every search would
    /// find that route first.
    #[must_use]
    pub fn find_exact(&self, method: &str, path: &str) -> Option<RouteId> {
        self.exact.get(path)?.find(method)
    }

    /// Finds the route of a call.
    #[must_use]
    pub fn find(&self, method: &str, path: Path<'_>) -> Matched {
        let mut search = Search {
            path,
            method,
            other_methods: Vec::new(),
            empty_param: false,
            astray: false,
            others: Vec::new(),
            long: None,
        };
        let found = search.walk(&self.root, Some(path.behind_slash()));
        match found.or(search.long) {
            _ if search.empty_param => Matched::EmptyParam,
            Some((id, tail)) => {
                let tail = path.as_str().len() - tail;
                search.others.retain(|other| *other != id);
                if search.others.is_empty() {
                    Matched::Route { id, tail }
                } else {
                    Matched::Nearly { id, tail, others: search.others }
                }
            }
            None if search.other_methods.is_empty() => Matched::Nothing,
            None => Matched::OtherMethods(search.other_methods),
        }
    }

    /// Whether any route has this literal segment: what may be shown of a path that nothing matched.
    #[must_use]
    pub fn knows(&self, literal: &str) -> bool {
        self.literals.contains(literal)
    }
}

impl Node {
    fn literal(&mut self, text: &str) -> &mut Self {
        let place = match self.literals.binary_search_by(|(known, _)| (**known).cmp(text)) {
            Ok(place) => place,
            Err(place) => {
                self.literals.insert(place, (text.into(), Self::default()));
                self.folded.entry(folded(text).into()).or_default().push(text.into());
                place
            }
        };
        self.literals.get_mut(place).map(|(_, node)| node).expect("the place was just searched for")
    }

    fn find(&self, text: &str) -> Option<&Self> {
        let place = self.literals.binary_search_by(|(known, _)| (**known).cmp(text)).ok()?;
        self.literals.get(place).map(|(_, node)| node)
    }
}

impl<'a> Search<'a> {
    /// The route for what is left of the path (`None`: nothing, not even an empty segment), and the
    /// length of the part that `/**` stands for.
    fn walk(&mut self, node: &Node, left: Option<&'a str>) -> Option<(RouteId, usize)> {
        let Some(left) = left else {
            return self.take(&node.here, 0).or_else(|| self.take(&node.rest, 0));
        };
        let (segment, behind) = match left.bytes().position(|byte| byte == b'/') {
            Some(end) => (left.get(..end).unwrap_or_default(), left.get(end + 1..)),
            None => (left, None),
        };
        // The path `/` has one segment, the empty one, and is the root itself.
        if self.path.as_str() == "/"
            && let Some(found) = self.take(&node.here, 0).or_else(|| self.take(&node.rest, 0))
        {
            return Some(found);
        }
        if segment.is_empty() && node.param.is_some() {
            self.empty_param = true;
            return None;
        }
        if let Some(literal) = self.literal(node, segment)
            && let Some(found) = self.walk(literal, behind)
        {
            return Some(found);
        }
        if segment.is_empty() || !node.literals.is_empty() {
            self.near(node, segment, behind);
        }
        if let Some(param) = &node.param
            && let Some(found) = self.walk(param, behind)
        {
            if !is_long(segment) {
                return Some(found);
            }
            self.others.push(found.0);
            if !self.astray {
                self.long.get_or_insert(found);
            }
        }
        self.take(&node.rest, left.len())
    }

    /// Looks at what a router with other options might find here before the upstream's finds anything.
    #[cold]
    fn near(&mut self, node: &Node, segment: &'a str, behind: Option<&'a str>) {
        if segment.is_empty() && behind.is_none() {
            self.stray(node, None);
        }
        let exact = self.literal(node, segment);
        let texts = node.folded.get(&*folded(segment)).into_iter().flatten();
        for near in texts.filter_map(|text| node.find(text)) {
            if !exact.is_some_and(|exact| std::ptr::eq(exact, near)) {
                self.stray(near, behind);
            }
        }
    }

    fn stray(&mut self, node: &Node, left: Option<&'a str>) {
        let before = std::mem::replace(&mut self.astray, true);
        let found = self.walk(node, left);
        self.others.extend(found.map(|(id, _)| id));
        self.astray = before;
    }

    fn literal<'n>(&self, node: &'n Node, segment: &str) -> Option<&'n Node> {
        node.find(&self.path.decoded(segment)?)
    }

    fn take(&mut self, methods: &Methods, tail: usize) -> Option<(RouteId, usize)> {
        match methods.find(self.method) {
            // A search that met an empty parameter is over, whatever else would match.
            Some(id) if !self.empty_param => Some((id, tail)),
            _ if self.astray => None,
            _ => {
                self.other_methods.extend(methods.ids());
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::limits::Timeouts;
    use crate::config::route::{ErrorForm, Pattern, Requirement, Route, Segment};

    fn router(lines: &[&str]) -> Router {
        let mut router = Router::default();
        for (id, line) in lines.iter().enumerate() {
            let (method, path) = line.split_once(' ').expect("method and path");
            let rest = path.ends_with("/**");
            let segments = path.trim_end_matches("/**").split('/').skip(1).filter(|s| !s.is_empty());
            let segments = segments
                .map(|s| if s.starts_with('{') { Segment::Param } else { Segment::Literal(s.into()) })
                .collect();
            let route = Route {
                mints: None,
                method: (method != "*").then(|| method.into()),
                pattern: Pattern { template: path.into(), segments, rest },
                query: Vec::new(),
                requirement: Requirement::Nothing,
                errors: ErrorForm::Object,
                timeouts: Timeouts::default(),
            };
            router.add(&route, id);
        }
        router
    }

    #[test]
    fn the_most_specific_route_wins() {
        let lines = [
            "POST /api/v1/call-tokens",
            "GET /api/v1/call-tokens/{id}",
            "GET /api/v1/apps/**",
            "* /api/v1/webhooks/**",
            "GET /api/v1/apps/mine",
            "GET /api/v1/{kind}/mine/parts",
            "GET /",
        ];
        let router = router(&lines);
        let check = |method: &str, raw: &str, wanted: Matched| {
            assert_eq!(router.find(method, Path::read(raw).expect("one reading")), wanted, "{method} {raw}");
            if let Some(id) = router.find_exact(method, raw) {
                assert_eq!(wanted, Matched::Route { id, tail: raw.len() }, "{method} {raw}");
            }
        };
        let route = |id, tail| Matched::Route { id, tail };
        check("POST", "/api/v1/call-tokens", route(0, 19));
        check("GET", "/api/v1/call-tokens", Matched::OtherMethods(vec![0]));
        check("GET", "/api/v1/call-tokens/7", route(1, 21));
        check("HEAD", "/api/v1/call-tokens/7", route(1, 21));
        check("GET", "/api/v1/call-tokens/", Matched::EmptyParam);
        check("GET", "/api/v1/call-tokens/7/x", Matched::Nothing);
        check("GET", "/api/v1/apps", route(2, 12));
        check("GET", "/api/v1/%61pps", route(2, 14));
        check("GET", "/api/v1/apps/", route(2, 13));
        check("GET", "/api/v1/apps/7/x", route(2, 13));
        check("GET", "/api/v1/apps/mine", route(4, 17));
        check("GET", "/api/v1/apps/mine/parts", route(2, 13));
        check("GET", "/api/v1/parts/mine/parts", route(5, 24));
        check("GET", "/api/v1/apps/mine/other", route(2, 13));
        check("GET", "/api/v1/Apps", Matched::Nothing);
        check("GET", "/api/v1/appsx", Matched::Nothing);
        check("PURGE", "/api/v1/webhooks", route(3, 16));
        check("POST", "/api/v1/webhooks/a/b", route(3, 17));
        check("POST", "/api/v1/webhooksfoo", Matched::Nothing);
        check("POST", "/api/v1/webhooks%2fx", Matched::Nothing);
        check("GET", "/", route(6, 1));
        check("GET", "/api", Matched::Nothing);
        assert_eq!(router.find_exact("HEAD", "/api/v1/apps/mine"), Some(4));
        for path in ["/api/v1/apps", "/api/v1/call-tokens/{id}", "/api/v1/apps/min%65", "/"] {
            assert_eq!(router.find_exact("GET", path), None, "{path}");
        }
    }

    #[test]
    fn slash_and_everything_below() {
        let with_param = router(&["GET /", "GET /{page}"]);
        assert_eq!(
            with_param.find("GET", Path::read("/").expect("one reading")),
            Matched::Route { id: 0, tail: 1 }
        );
        let router = router(&["GET /**"]);
        for raw in ["/", "/a", "/a/b/"] {
            let found = router.find("GET", Path::read(raw).expect("one reading"));
            assert!(matches!(found, Matched::Route { id: 0, .. }), "{raw}");
        }
    }

    #[test]
    fn what_a_router_with_other_options_would_find() {
        let lines = [
            "GET /files/{name}",
            "GET /files/admin",
            "GET /files/**",
            "GET /files/{name}/raw",
            "GET /@me",
            "GET /kiss/{id}",
            "GET /**",
            "POST /sent/{name}/{part}",
            "POST /posted",
        ];
        let router = router(&lines);
        let check = |raw: &str, id: RouteId, others: &[RouteId]| {
            let found = router.find("GET", Path::read(raw).expect("one reading"));
            let (found, beside) = match found {
                Matched::Route { id, .. } => (id, Vec::new()),
                Matched::Nearly { id, others, .. } => (id, others),
                Matched::OtherMethods(_) | Matched::EmptyParam | Matched::Nothing => panic!("{raw}: nothing"),
            };
            assert_eq!((found, &*beside), (id, others), "{raw}");
        };
        check("/files/admin", 1, &[]);
        check("/files/Admin", 0, &[1]);
        check("/FILES/admin", 6, &[1]);
        check("/FILES/Admin", 6, &[1, 0]);
        // What a router might find that ignores the slash, whatever it takes `admin` for.
        check("/files/admin/", 2, &[1, 0]);
        check("/files/7/raw/", 2, &[3]);
        check("/files/7/raw", 3, &[]);
        check("/%40me", 6, &[4]);
        check("/%40ME", 6, &[4]);
        check("/%e2%84%aaiss/7", 6, &[5]);
        check("/posted/", 6, &[]);
        let long = |letter: &str, units: usize| letter.repeat(units);
        check(&format!("/files/{}", long("x", 100)), 0, &[]);
        check(&format!("/files/{}", long("%78", 100)), 0, &[]);
        check(&format!("/files/{}", long("%2B", 101)), 2, &[0]);
        check(&format!("/files/{}", long("%C3%A9", 101)), 2, &[0]);
        check(&format!("/files/{}", long("%F0%9F%98%80", 50)), 0, &[]);
        check(&format!("/files/{}", long("%F0%9F%98%80", 51)), 2, &[0]);
        check(&format!("/files/{}/raw", long("x", 101)), 2, &[3]);
        // Nothing else would take it.
        let path = format!("/sent/{}/{}", long("x", 101), long("x", 101));
        let found = router.find("POST", Path::read(&path).expect("one reading"));
        assert!(matches!(found, Matched::Route { id: 7, .. }), "{found:?}");
    }
}

//! What scopegate makes of a path, held against the upstream's own router: find-my-way, as Fastify has it.

use std::collections::HashSet;
use std::io::Write as _;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use std::time::SystemTime;

use http::{Method, Version};
use scopegate::config::file;
use scopegate::config::route::{Requirement, Route};
use scopegate::decide::call::Call;
use scopegate::decide::denial::Denial;
use scopegate::decide::{Policy, decide};
use scopegate::identity::caller::{Caller, Team};
use scopegate::keys::presented::Presented;
use scopegate::keys::{Entry, KeySource, SourceError, State};
use scopegate::message::fields::Fields;
use serde_json::{Value, json};

use crate::harness::find_my_way;
use crate::harness::paths::Paths;

const METHODS: [&str; 4] = ["GET", "HEAD", "POST", "DELETE"];
/// For each table.
const PATHS: usize = 8000;
/// Ids from here are routes of the service that the configuration does not have.
const ELSEWHERE: usize = 1000;

/// A configuration, and what the service has beside it.
struct Table {
    name: &'static str,
    config: String,
    elsewhere: &'static [&'static str],
}

fn tables() -> Vec<Table> {
    let table = |name, surfaces: &str, elsewhere| {
        let head = "listen: [{ address: 127.0.0.1:0 }]\nadmin: { address: 127.0.0.1:0 }\n\
                    upstreams: { a: { address: 127.0.0.1:1 } }\nflags: { f: true, g: true }\nscopes: [A, B]\n\
                    keys: { file: keys.yaml }\nsurfaces:\n";
        Table { name, config: head.to_owned() + surfaces, elsewhere }
    };
    vec![
        Table {
            name: "telapi.yaml",
            config: include_str!("../../config/telapi.yaml").to_owned(),
            elsewhere: &[
                "GET /documentation",
                "GET /documentation/*",
                "GET /documentation/static/*",
                "GET /",
                "GET /*",
                "GET /:any",
                "GET /api/v1/:any",
                "GET /api/v1/:any/:more",
                "POST /api/v1/:any/:more",
                "POST /api/v1/*",
                "GET /api/v1/runtime/*",
                "GET /ws/:any",
                "GET /health/:any",
            ],
        },
        table(
            "parameters in the middle",
            "  open: { access: open, routes: ['GET /files/{name}', 'GET /files/{name}/raw', '/files/public/**'] }\n  \
               keyed:\n    access: key\n    flags: [f]\n    routes:\n      \
                 GET /files/admin: A\n      GET /files/admin/raw: B\n      GET /files/{name}/owner: A\n      \
                 DELETE /files/{name}: A\n      GET /files/**: B\n      GET /{any}/admin/{more}: { all: [A, B] }\n",
            &["GET /", "POST /files/:name", "POST /files/*"],
        ),
        table(
            "tails in tails",
            "  open: { access: open, routes: ['/**', 'GET /api/v1/apps/{id}/logo', '/api/v1/login'] }\n  \
               hooks: { access: open, private: true, encoded_slash: true, routes: ['/api/hooks/**'] }\n  \
               keyed:\n    access: key\n    flags: [f]\n    routes:\n      \
                 /api/**: { key_only: true }\n      /api/v1/apps/**: A\n      GET /api/v1/apps/{id}: B\n      \
                 POST /api/v1/apps: { any: [A, B] }\n      GET /api/v1/apps/{id}/public/**: { key_only: true }\n      \
                 GET /api/hooks/{id}/secret: A\n  \
               other:\n    access: key\n    flags: [f, g]\n    routes: { 'GET /api/v1/login/{id}': A }\n",
            &[],
        ),
        table(
            "reserved characters",
            "  open: { access: open, routes: ['GET /{page}', 'GET /{page}/**'] }\n  \
               keyed:\n    access: key\n    routes:\n      \
                 'GET /@me': A\n      'GET /a:b': A\n      'GET /x+y/**': A\n      'GET /c,d=e&f$g': B\n      \
                 'GET /v1.0/~user/{id}': B\n      \"GET /(a)!'b'/**\": A\n      'GET /Case/{id}': B\n      \
                 'GET /kiss/{id}/i': B\n",
            &["POST /*"],
        ),
    ]
}

/// Whether the promise holds with them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Promise {
    Holds,
    Breaks,
}

/// What an upstream's router may be told beside Fastify's own options; docs/config.md names those that matter.
fn option_sets() -> Vec<(Promise, Value)> {
    let all = json!({ "ignoreTrailingSlash": true, "caseSensitive": false, "ignoreDuplicateSlashes": true,
                      "useSemicolonDelimiter": true, "maxParamLength": 500 });
    vec![
        (Promise::Holds, json!({})),
        (Promise::Holds, json!({ "compile": true })),
        (Promise::Holds, json!({ "ignoreTrailingSlash": true })),
        (Promise::Holds, json!({ "caseSensitive": false })),
        (Promise::Holds, json!({ "ignoreDuplicateSlashes": true })),
        (Promise::Holds, json!({ "useSemicolonDelimiter": true })),
        (Promise::Holds, json!({ "maxParamLength": 120 })),
        (Promise::Holds, json!({ "maxParamLength": 5000 })),
        (Promise::Holds, all),
        (Promise::Breaks, json!({ "maxParamLength": 20 })),
    ]
}

/// Every key is known, and holds every scope.
struct Everything(Entry);

impl KeySource for Everything {
    async fn find(&self, _: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
        Ok(Some(self.0.clone()))
    }
}

/// What scopegate says of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Said {
    /// A place in the policy's routes.
    Route(usize),
    Ambiguous,
    Nothing,
}

struct Scopegate {
    policy: Policy,
    /// As the policy numbers them, each with the flags of its surface.
    routes: Vec<(Vec<usize>, Route)>,
    keys: Everything,
    fields: Fields,
}

impl Scopegate {
    fn new(table: &Table) -> Self {
        let config = file::parse(table.name.as_ref(), &table.config);
        let config = config.unwrap_or_else(|problems| panic!("{}: {problems:?}", table.name));
        let policy = Policy::new(&config.value.live);
        let all = policy.scopes().set(policy.scopes().all());
        let caller = Caller::new("k", all, Team { name: "t".into(), scopes: all });
        let entry = Entry { caller, state: State::Active { until: None } };
        let mut fields = Fields::default();
        fields.push(b"x-api-key", b"k");
        let surfaces = &config.value.live.surfaces;
        let routes = surfaces
            .iter()
            .flat_map(|surface| surface.routes.iter().map(|route| (surface.flags.clone(), route.clone())));
        Self { policy, routes: routes.collect(), keys: Everything(entry), fields }
    }

    fn ask(&self, method: &Method, target: &str) -> Said {
        let (path, query) =
            target.split_once('?').map_or((target, None), |(path, query)| (path, Some(query)));
        let now = SystemTime::UNIX_EPOCH;
        let call = Call {
            method,
            version: Version::HTTP_11,
            path,
            query,
            fields: &self.fields,
            certificate: None,
            now,
            extended: false,
            with_body: false,
        };
        let decided = pin!(decide(&self.policy, &self.keys, &call));
        let Poll::Ready((place, decision)) = decided.poll(&mut Context::from_waker(Waker::noop())) else {
            panic!("nothing is waited for");
        };
        match decision {
            // What a handshake lacks is asked only once there is a route.
            Ok(_) | Err(Denial::UpgradeRequired | Denial::QueryMissing { .. }) => {
                Said::Route(place.expect("the route of a permit").id)
            }
            Err(Denial::PathAmbiguous(_)) => Said::Ambiguous,
            Err(Denial::RouteUnknown { .. } | Denial::MethodUnknown { .. }) => Said::Nothing,
            Err(other) => panic!("{method} {target}: {other:?}"),
        }
    }

    fn name(&self, id: usize) -> &str {
        self.routes.get(id).map_or("elsewhere", |(_, route)| &*route.pattern.template)
    }

    /// Whether what the upstream's router finds is what was admitted, or demands no more.
    fn holds(&self, said: Said, theirs: Option<usize>) -> bool {
        match (said, theirs) {
            (Said::Route(ours), Some(theirs)) => {
                ours == theirs || theirs < ELSEWHERE && self.covers(ours, theirs)
            }
            (Said::Ambiguous | Said::Nothing, _) | (_, None) => true,
        }
    }

    /// Whether who may use the one route may use the other, too.
    fn covers(&self, one: usize, other: usize) -> bool {
        let ((flags, one), (more_flags, other)) = (&self.routes[one], &self.routes[other]);
        let (has, wants) = (one.requirement, other.requirement);
        more_flags.iter().all(|flag| flags.contains(flag))
            && (wants == Requirement::Nothing
                || wants == has
                || wants == Requirement::Key && has != Requirement::Nothing)
    }

    /// The routes as a service would register them; where a route is two patterns there, both have its number.
    fn twins(&self, elsewhere: &[&str]) -> Vec<(usize, String, String)> {
        let mut twins = Vec::new();
        for (id, (_, route)) in self.routes.iter().enumerate() {
            let pattern = route.pattern.template.replace(':', "::").replace('{', ":").replace('}', "");
            let patterns = match pattern.strip_suffix("/**") {
                Some("") => vec!["/".to_owned(), "/*".to_owned()],
                Some(before) => vec![before.to_owned(), format!("{before}/*")],
                None => vec![pattern],
            };
            // Fastify serves HEAD where it serves GET.
            let methods = match route.method.as_deref() {
                None => METHODS.to_vec(),
                Some("GET") => vec!["GET", "HEAD"],
                Some(other) => vec![other],
            };
            for pattern in patterns {
                twins.extend(methods.iter().map(|method| (id, (*method).to_owned(), pattern.clone())));
            }
        }
        // What is said of one path stands before what is said of all below it, and one method before any.
        twins.sort_by_key(|(id, ..)| {
            let route = &self.routes[*id].1;
            (route.pattern.rest, route.method.is_none())
        });
        twins.extend(elsewhere.iter().enumerate().map(|(number, line)| {
            let (method, pattern) = line.split_once(' ').expect("method and pattern");
            (ELSEWHERE + number, method.to_owned(), pattern.to_owned())
        }));
        let mut known = HashSet::new();
        twins.retain(|(_, method, pattern)| known.insert((method.clone(), shape(pattern))));
        twins
    }
}

/// A pattern without the names of its parameters.
fn shape(pattern: &str) -> String {
    let segments = pattern
        .split('/')
        .map(|segment| if segment.starts_with(':') && !segment.starts_with("::") { ":" } else { segment });
    segments.collect::<Vec<_>>().join("/")
}

#[test]
fn the_page_names_what_the_router_was_tested_with() {
    let page = include_str!("../../docs/config.md");
    let [fastify, find_my_way] = find_my_way::versions();
    for wanted in [format!("find-my-way {find_my_way}"), format!("Fastify {fastify}")] {
        assert!(page.contains(&wanted), "docs/config.md does not say `{wanted}`");
    }
}

/// find-my-way without `caseSensitive` compares a path whose `İ` has become two letters, and cuts the one where it has
/// not: behind such a letter it finds nothing but what `*` takes.
fn theirs_is_shifted(options: &Value, target: &str) -> bool {
    options["caseSensitive"] == false && target.to_ascii_uppercase().contains("%C4%B0")
}

/// What one path is taken for by the last of the tables: a template, `400` or `404`.
const SINGLE: &[(&str, &str)] = &[
    ("/@me", "/@me"),
    ("/%40me", "400"),
    ("/@M%45", "400"),
    ("/%40you", "/{page}"),
    ("/a:b", "/a:b"),
    ("/a%3Ab", "400"),
    ("/a%3ab/", "400"),
    ("/a::b", "/{page}"),
    ("/x+y/1", "/x+y/**"),
    ("/x%2By/1", "400"),
    ("/x%2By", "400"),
    ("/x%20y/1", "/{page}/**"),
    ("/X+Y/1", "400"),
    ("/(a)!'b'/c", "/(a)!'b'/**"),
    ("/%28a%29%21%27b%27/c", "/(a)!'b'/**"),
    ("/v1%2e0/%7Euser/7", "/v1.0/~user/{id}"),
    ("/v1.0/~user/a%2Fb", "400"),
    ("/v1.0/~user/", "400"),
    ("/v1.0/~user", "/{page}/**"),
    ("/v1.0/~user/50%25", "/v1.0/~user/{id}"),
    ("/v1.0/~user/50%2541", "400"),
    ("/v1.0/~user/:id", "/v1.0/~user/{id}"),
    ("/v1.0/~user/*", "/v1.0/~user/{id}"),
    ("/v1.0/~user/%2a", "/v1.0/~user/{id}"),
    ("/v1.0/~user/%3F", "/v1.0/~user/{id}"),
    ("/v1.0/~user/%23", "/v1.0/~user/{id}"),
    ("/v1.0/~user/%3B", "/v1.0/~user/{id}"),
    ("/v1.0/~user/#", "400"),
    ("/v1.0/~user/7;a", "400"),
    ("/v1.0/~user/7\\a", "400"),
    ("/v1.0/~user/7?/../a;b#c", "/v1.0/~user/{id}"),
    ("/v1.0//user/7", "400"),
    ("/v1.0/./7", "400"),
    ("/Case/7", "/Case/{id}"),
    ("/case/7", "400"),
    ("/cas/7", "/{page}/**"),
    ("/%E2%84%AAiss/7/i", "400"),
    ("/kiss/7/i", "/kiss/{id}/i"),
    ("/kiss/7/i/", "400"),
    ("/kiss/7/%C4%B1", "/{page}/**"),
];

#[test]
fn single_paths() {
    let table = tables().pop().expect("a table");
    let scopegate = Scopegate::new(&table);
    for (target, wanted) in SINGLE {
        let said = match scopegate.ask(&Method::GET, target) {
            Said::Route(id) => scopegate.name(id),
            Said::Ambiguous => "400",
            Said::Nothing => "404",
        };
        assert_eq!(said, *wanted, "{target}");
    }
}

#[test]
fn no_path_is_admitted_that_the_upstreams_router_takes_for_another_route() {
    if std::env::var("SCOPEGATE_TESTS").as_deref() != Ok("full") {
        // Not println, which nobody sees of a test that passes.
        let skipped = "skipped: this test needs Node and Fastify, which tests/run installs";
        writeln!(std::io::stderr(), "{skipped}").expect("standard error");
        return;
    }
    let seed = std::env::var("SCOPEGATE_SEED").map_or(7, |seed| seed.parse().expect("a number"));
    println!("SCOPEGATE_SEED={seed}");
    let mut broken = Vec::new();
    for table in tables() {
        let scopegate = Scopegate::new(&table);
        let twins = scopegate.twins(table.elsewhere);
        let patterns = twins.iter().map(|(_, _, pattern)| pattern.clone()).collect();
        let mut paths = Paths::new(seed, patterns);
        let methods = [Method::GET, Method::GET, Method::HEAD, Method::POST, Method::DELETE];
        let mut questions: Vec<_> = (0..PATHS).map(|_| (paths.pick(&methods), paths.next())).collect();
        questions.extend(SINGLE.iter().map(|(target, _)| (Method::GET, (*target).to_owned())));
        let sets = option_sets();
        let routers = sets.iter().map(|(_, options)| json!({ "options": options, "routes": twins }));
        let found = find_my_way::ask(&routers.collect(), &questions);
        let mut counts = [0; 4];
        for ((method, target), found) in questions.iter().zip(found) {
            let said = scopegate.ask(method, target);
            for ((promise, options), theirs) in sets.iter().zip(&found) {
                let held = scopegate.holds(said, *theirs);
                let told = || {
                    let theirs = theirs.map_or("nothing", |id| scopegate.name(id));
                    format!("{}: {method} {target}: {said:?}, and with {options} {theirs}", table.name)
                };
                match promise {
                    _ if theirs_is_shifted(options, target) => {}
                    Promise::Holds => assert!(held, "{}", told()),
                    Promise::Breaks if !held => broken.push(options.clone()),
                    Promise::Breaks => {}
                }
            }
            // With Fastify's own options it is the very route, and what can be admitted is not missed.
            let kind = match (said, found[0]) {
                (Said::Route(ours), Some(theirs)) if ours == theirs => 0,
                (Said::Ambiguous, _) => 1,
                (Said::Nothing, None) => 2,
                (Said::Nothing, Some(ELSEWHERE..)) | (Said::Route(_), None) => 3,
                (said, theirs) => panic!("{}: {method} {target}: {said:?}, theirs {theirs:?}", table.name),
            };
            counts[kind] += 1;
        }
        println!("{}: the same, refused, nothing, only one of both: {counts:?}", table.name);
        assert!(counts[0] > PATHS / 10 && counts[1] > PATHS / 10, "{}: {counts:?}", table.name);
    }
    for (promise, options) in option_sets() {
        assert!(
            promise == Promise::Holds || broken.contains(&options),
            "docs/config.md fears {options} for nothing"
        );
    }
}

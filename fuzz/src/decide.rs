//! A request is decided, and the decision held against a plain reading of the configuration.
//!
//! The first line of the input is `METHOD target`, each other one `name: value`. A target with a scheme comes over
//! HTTP/2, another over HTTP/1.1.

use http::{HeaderName, HeaderValue, Method, Request, Uri, Version};
use percent_encoding::percent_decode_str;
use scopegate::config::route::{Access, Requirement, Route};
use scopegate::config::surface::Surface;
use scopegate::decide::call::Call;
use scopegate::decide::denial::Denial;
use scopegate::decide::permit::{Ask, Permit};
use scopegate::message::head::Head;

use super::wire::{Pairs, all, pairs};
use super::world::{KEYS, Known, LIMITS, SHIPPED, World, now};

/// Routes that lie in each other's way.
pub const NESTED: &str = "
listen: [{ address: '127.0.0.1:0' }]
upstreams: { a: { address: '127.0.0.1:1' } }
keys: { file: k.yaml }
scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]
flags: { on: true, off: false }
surfaces:
  open: { access: open, routes: [GET /, GET /a, '/a/{x}/open', GET /f/**, '/e/{x}'] }
  slash: { access: open, private: true, encoded_slash: true, routes: [/s/**, POST /a/**] }
  off: { access: open, flags: [on, off], routes: [GET /a/off, /o/**] }
  ws: { access: key, flags: [on], upgrade: websocket, routes: { 'GET /w?q': READ_CALL_TOKEN } }
  keyed:
    access: key
    flags: [on]
    routes:
      GET /a/**: READ_CALL_TOKEN
      GET /a/{x}: { all: [READ_CALL_TOKEN, READ_TEAM_APPS] }
      HEAD /a/b: { any: [CREATE_CALL_TOKEN, READ_TEAM_APPS] }
      /a/{x}/{y}: { key_only: true }
      POST /e/{x}: CREATE_CALL_TOKEN
      GET /f/secret: READ_TEAM_APPS
";

thread_local! {
    static WORLDS: [World; 2] = [World::new(SHIPPED), World::new(NESTED)];
}

pub fn run(input: &[u8]) {
    let Some(head) = head(input) else { return };
    let Ok(call) = Call::read(&head, now()) else { return };
    WORLDS.with(|worlds| worlds.iter().for_each(|world| check(world, &call)));
}

fn head(input: &[u8]) -> Option<Head> {
    let mut lines = input.split(|byte| *byte == b'\n');
    let first = lines.next()?;
    let space = first.iter().position(|byte| *byte == b' ')?;
    let uri = Uri::try_from(&first[space + 1..]).ok()?;
    let version = if uri.scheme().is_some() { Version::HTTP_2 } else { Version::HTTP_11 };
    let mut request =
        Request::builder().method(Method::from_bytes(&first[..space]).ok()?).uri(uri).version(version);
    for line in lines {
        let colon = line.iter().position(|byte| *byte == b':')?;
        let name = HeaderName::from_bytes(&line[..colon]).ok()?;
        request = request.header(name, HeaderValue::from_bytes(line[colon + 1..].trim_ascii()).ok()?);
    }
    Head::of(&request.body(()).ok()?.into_parts().0, &LIMITS).ok()
}

/// A route with its place and surface.
type Written<'w> = (usize, &'w Surface, &'w Route);

fn check(world: &World, call: &Call<'_>) {
    let (place, decision) = world.decide(call);
    let fields = pairs(call.fields);
    let routes = world
        .live
        .surfaces
        .iter()
        .flat_map(|surface| surface.routes.iter().map(move |route| (surface, route)));
    let there: Vec<Written<'_>> = routes
        .enumerate()
        .map(|(id, (surface, route))| (id, surface, route))
        .filter(|(_, _, route)| matches(&route.pattern.template, call.path))
        .collect();
    let asks = preflight(call, &fields);
    let method = asks.as_deref().unwrap_or(call.method.as_str());
    let taken = there
        .iter()
        .filter_map(|found| Some((rank(found.2, method)?, found)))
        .min_by_key(|(rank, _)| rank.clone());
    let holder = holder(&fields);
    match &decision {
        Ok(permit) => {
            let (_, (id, surface, route)) = taken.expect("the path is one of the route's");
            assert_eq!(
                (permit.route.id, &permit.surface.name),
                (*id, &surface.name),
                "the most specific one"
            );
            assert!(surface.flags.iter().all(|flag| world.live.flags[*flag].on));
            slashes(call.path, surface, route);
            admitted(world, call, permit, (*id, surface, route), holder, asks.is_some());
        }
        Err(Denial::RouteUnknown { .. }) => assert!(there.is_empty(), "there is a route"),
        Err(Denial::MethodUnknown { .. }) => {
            assert!(!there.is_empty() && taken.is_none());
            let keyed = there.iter().any(|(_, surface, _)| surface.access == Access::Key);
            assert!(
                !keyed || holder.is_some_and(|known| known.usable),
                "methods are told to a holder of a key"
            );
        }
        Err(Denial::KeyUnknown) => assert!(holder.is_none()),
        Err(Denial::KeyRefused { .. }) => assert!(holder.is_some_and(|known| !known.usable)),
        Err(Denial::ScopeMissing { .. }) => assert!(holder.is_some_and(|known| known.usable)),
        Err(_) => {}
    }
    if let Some(place) = place {
        let secret = there.iter().any(|(_, surface, _)| surface.private);
        assert!(!secret || world.policy.is_private(place, call.path), "the path may hold a secret");
    }
    for segment in world.policy.masked(call.path).split('/').skip(1) {
        let known = |template: &str| template.split('/').any(|literal| literal == segment);
        let mut routes = world.live.surfaces.iter().flat_map(|surface| &surface.routes);
        assert!(segment == "*" || routes.any(|route| known(&route.pattern.template)), "{segment} is shown");
    }
}

/// What a permit must have behind it.
fn admitted(
    world: &World,
    call: &Call<'_>,
    permit: &Permit<'_>,
    (_, surface, route): Written<'_>,
    holder: Option<&Known>,
    preflight: bool,
) {
    assert_eq!(permit.ask == Ask::Preflight, preflight);
    if preflight {
        return assert!(permit.caller.is_none());
    }
    assert_eq!(permit.ask == Ask::Channel, surface.channel.is_some());
    if permit.ask == Ask::Channel {
        let fields = pairs(call.fields);
        assert_eq!(all(&fields, "sec-websocket-version"), [b"13"]);
        assert!(matches!(*all(&fields, "sec-websocket-key"), [key] if key.len() == 24));
    }
    for name in &route.query {
        let pairs = call.query.unwrap_or_default().split('&');
        assert!(
            pairs
                .into_iter()
                .any(|pair| pair.len() > name.len() + 1 && pair.starts_with(&format!("{name}=")))
        );
    }
    let holds = |holder: &Known, scope: &str| holder.scopes.contains(&scope);
    let Some(holder) = holder.filter(|_| surface.access == Access::Key) else {
        assert!(
            surface.access == Access::Open && permit.caller.is_none(),
            "nobody's key opens a keyed surface"
        );
        return;
    };
    let names = |set| world.live.scopes.names(set).collect::<Vec<_>>();
    assert!(holder.usable);
    assert!(match route.requirement {
        Requirement::Nothing => false,
        Requirement::Key => true,
        Requirement::Any(set) => names(set).iter().any(|scope| holds(holder, scope)),
        Requirement::All(set) => names(set).iter().all(|scope| holds(holder, scope)),
    });
    let caller = permit.caller.as_ref().expect("a keyed surface knows who calls");
    assert_eq!((caller.key_id(), caller.team()), (holder.id, holder.team));
    assert_eq!(names(caller.scopes()), holder.scopes);
}

/// The method that a preflight asks for.
fn preflight(call: &Call<'_>, fields: &Pairs) -> Option<String> {
    let [_] = *all(fields, "origin") else { return None };
    let [asked] = *all(fields, "access-control-request-method") else { return None };
    if *call.method == Method::OPTIONS { String::from_utf8(asked.to_vec()).ok() } else { None }
}

/// Whose key these fields carry, where they carry one and no second.
fn holder(fields: &Pairs) -> Option<&'static Known> {
    let bearer = all(fields, "authorization").into_iter().filter_map(|value| {
        let word = value.split(u8::is_ascii_whitespace).next()?;
        word.eq_ignore_ascii_case(b"bearer").then(|| blanks(&value[word.len()..]))
    });
    let secrets: Vec<_> = bearer.chain(all(fields, "x-api-key")).collect();
    let first = *secrets.first()?;
    let one = secrets.iter().all(|secret| *secret == first);
    KEYS.iter().find(|known| one && known.secret.as_bytes() == first)
}

/// Without the blanks before it, and none but blanks are.
fn blanks(value: &[u8]) -> &[u8] {
    let behind = value.iter().position(|byte| *byte != b' ').unwrap_or(value.len());
    &value[behind..]
}

/// Whether a path is one of a template's.
pub fn matches(template: &str, path: &str) -> bool {
    if template == "/" {
        return path == "/";
    }
    let (before, rest) = template.strip_suffix("/**").map_or((template, false), |before| (before, true));
    let wanted: Vec<_> = before.split('/').skip(1).collect();
    let came: Vec<_> = path.split('/').skip(1).collect();
    let long = if rest { came.len() >= wanted.len() } else { came.len() == wanted.len() };
    long && wanted.iter().zip(came).all(|(wanted, came)| {
        if wanted.starts_with('{') { !came.is_empty() } else { literal(came).as_deref() == Some(*wanted) }
    })
}

/// A segment as find-my-way reads it: what `decodeURI` leaves encoded is no literal.
fn literal(segment: &str) -> Option<String> {
    let upper = segment.to_ascii_uppercase();
    let left = ["%3B", "%2F", "%3F", "%3A", "%40", "%26", "%3D", "%2B", "%24", "%2C", "%23"];
    let decoded = percent_decode_str(segment).decode_utf8().ok()?;
    (!left.iter().any(|code| upper.contains(code))).then(|| decoded.into_owned())
}

/// How far down a route stands among those of a path, for a method that it takes.
fn rank(route: &Route, method: &str) -> Option<(Vec<u8>, u8)> {
    let segments = route.pattern.template.split('/').skip(1).map(|segment| match segment {
        "**" => 2,
        _ => u8::from(segment.starts_with('{')),
    });
    let by_method = match route.method.as_deref() {
        Some(known) if known == method => 0,
        Some("GET") if method == "HEAD" => 1,
        None => 2,
        Some(_) => return None,
    };
    Some((segments.collect(), by_method))
}

/// An encoded slash stands only where a surface lets it, and `**` takes it.
fn slashes(path: &str, surface: &Surface, route: &Route) {
    let encoded = |text: &str| text.to_ascii_uppercase().contains("%2F");
    if encoded(path) {
        assert!(surface.encoded_slash && route.pattern.rest);
        let fixed = route.pattern.segments.len() + 1;
        assert!(!path.split('/').take(fixed).any(encoded));
    }
}

//! Requests become permits or denials.
//!
//! The order of the stages is part of the contract. Nothing here knows of sockets, bodies or files: the
//! only thing that the decision waits for is the key source.

pub mod call;
pub mod credential;
pub mod denial;
mod found;
mod methods;
pub mod path;
pub mod permit;
pub mod route;
pub mod scope;

use std::time::SystemTime;

use crate::config;
use crate::config::limits::Timeouts;
use crate::config::route::{Access, ErrorForm};
use crate::flags::Flags;
use crate::identity::caller::Caller;
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;
use crate::keys::{Entry, KeySource, State};
use crate::observe::reason::Reason;

use call::Call;
use credential::Together;
use denial::Denial;
use found::Found;
use path::Path;
use permit::{Ask, Permit};
use route::{Matched, RouteId, Router};
use scope::Demand;

/// Everything that decides, but the keys. Built at load, never changed.
#[derive(Debug)]
pub struct Policy {
    router: Router,
    /// The paths of private surfaces, whatever the method.
    hidden: Router,
    flags: Flags,
    scopes: Scopes,
    unmatched: u16,
    key_prefix: Option<Box<str>>,
    hashing: Hashing,
    /// In the order of the configuration; a [`RouteId`] is a place in it.
    pub routes: Vec<Route>,
    /// In the order of the configuration.
    pub surfaces: Vec<Surface>,
    /// One of them has channels.
    pub has_channels: bool,
}

/// A route as the decision needs it.
#[derive(Debug)]
pub struct Route {
    /// Its place in [`Policy::routes`].
    pub id: RouteId,
    /// A place in [`Policy::surfaces`].
    pub surface: usize,
    /// For logs and metrics.
    pub template: Box<str>,
    /// The form of refusals.
    pub errors: ErrorForm,
    /// A path of it may be one of a private surface, with another method or less specifically.
    meets_private: bool,
    method: Option<Box<str>>,
    query: Vec<Box<str>>,
    demand: Demand,
    /// The member of its answers that names a session.
    pub mints: Option<Box<str>>,
    /// How long its requests may take.
    pub timeouts: Timeouts,
}

/// A surface as the decision needs it.
pub type Surface = config::surface::Surface;

impl Policy {
    /// From a configuration, which has been checked.
    #[must_use]
    pub fn new(live: &config::Live) -> Self {
        let mut policy = Self {
            router: Router::default(),
            hidden: Router::default(),
            flags: Flags::new(&live.flags),
            scopes: live.scopes.clone(),
            unmatched: live.unmatched,
            key_prefix: live.key_prefix.clone(),
            hashing: Hashing::default(),
            routes: Vec::new(),
            surfaces: live.surfaces.clone(),
            has_channels: live.surfaces.iter().any(|surface| surface.channel.is_some()),
        };
        let private = live.surfaces.iter().filter(|surface| surface.private);
        let private: Vec<_> =
            private.flat_map(|surface| &surface.routes).map(|route| &route.pattern).collect();
        for (surface, written) in live.surfaces.iter().enumerate() {
            for route in &written.routes {
                let id = policy.routes.len();
                policy.router.add(route, id);
                if written.private {
                    policy.hidden.add(&config::route::Route { method: None, ..route.clone() }, id);
                }
                policy.routes.push(Route {
                    id,
                    surface,
                    template: route.pattern.template.clone(),
                    errors: route.errors,
                    meets_private: private.iter().any(|pattern| pattern.meets(&route.pattern)),
                    method: route.method.clone(),
                    query: route.query.clone(),
                    demand: Demand::new(route.requirement, &live.scopes),
                    mints: route.mints.clone(),
                    timeouts: route.timeouts,
                });
            }
        }
        policy
    }

    /// The same where keys become digests in this way.
    #[must_use]
    pub fn with(mut self, hashing: Hashing) -> Self {
        self.hashing = hashing;
        self
    }

    /// The first flag of a surface that is off.
    #[must_use]
    pub fn flag_off(&self, surface: &Surface) -> Option<&str> {
        self.flags.first_off(&surface.flags)
    }

    /// The platform's scopes.
    #[must_use]
    pub fn scopes(&self) -> &Scopes {
        &self.scopes
    }

    /// Whether the path of a call on this route may hold a secret: it lies where a private surface has a route, with
    /// this method or another.
    #[must_use]
    pub fn is_private(&self, route: &Route, path: &str) -> bool {
        route.meets_private && self.may_hold_secret(path)
    }

    /// Whether a path may hold a secret, whatever it is asked with: that of a private surface, or one of two readings.
    #[must_use]
    pub fn may_hold_secret(&self, path: &str) -> bool {
        let Ok(path) = Path::read(path) else { return true };
        matches!(self.hidden.find("", path), Matched::Route { .. } | Matched::Nearly { .. })
    }

    /// Whether who may pass on a route may pass on this other one, too.
    fn covers(&self, route: RouteId, other: RouteId) -> bool {
        let demand = |id: RouteId| {
            let route = self.routes.get(id)?;
            let surface = self.surfaces.get(route.surface)?;
            Some((surface, route.demand.requirement))
        };
        let (Some((had, meets)), Some((wanted, demanded))) = (demand(route), demand(other)) else {
            return false;
        };
        let proves = had.proof == wanted.proof || wanted.access == Access::Open;
        proves && wanted.flags.iter().all(|flag| had.flags.contains(flag)) && meets.covers(demanded)
    }

    /// A path that no route matched, with every segment that is not in the configuration hidden: it may be a
    /// mistyped callback that ends in a secret.
    #[must_use]
    pub fn masked(&self, path: &str) -> Box<str> {
        let shown = |segment| if self.router.knows(segment) { segment } else { "*" };
        let segments: Vec<_> = path.split('/').skip(1).take(8).map(shown).collect();
        format!("/{}", segments.join("/")).into()
    }
}

/// Admits a call or says why not; and says on which route, as soon as there is one.
pub async fn decide<'p>(
    policy: &'p Policy,
    keys: &impl KeySource,
    call: &Call<'_>,
) -> (Option<&'p Route>, Result<Permit<'p>, Denial>) {
    let mut place = None;
    let decision = stages(policy, keys, call, &mut place).await;
    (place, decision)
}

/// The stages, in the order that the contract has them.
async fn stages<'p>(
    policy: &'p Policy,
    keys: &impl KeySource,
    call: &Call<'_>,
    place: &mut Option<&'p Route>,
) -> Result<Permit<'p>, Denial> {
    let preflight = call.preflight().filter(|_| !is_guarded(policy, call));
    let route = match found::find(policy, preflight.unwrap_or(call.method.as_str()), call.path)? {
        Found::Route(route) => route,
        Found::OtherMethods(routes) => {
            return Err(Box::pin(other_methods(policy, keys, call, &routes, place)).await);
        }
    };
    let surface = surface_of(policy, route, place);
    flag(policy, surface)?;
    if preflight.is_some() {
        return Ok(Permit::new(route, surface, None, Ask::Preflight));
    }
    let ask = asked(call, route, surface)?;
    let caller = match surface.access {
        Access::Open => None,
        Access::Key => {
            let caller = credential::caller(policy, surface.proof, keys, call).await?;
            Some(route.demand.meet(&policy.scopes, caller)?)
        }
    };
    Ok(Permit::new(route, surface, caller, ask))
}

/// Whether the call's own method has a route of its own that asks for a key: what was written about OPTIONS is meant, and
/// the upstream may do there what no preflight asks for.
fn is_guarded(policy: &Policy, call: &Call<'_>) -> bool {
    let found = found::find(policy, call.method.as_str(), call.path);
    let Ok(Found::Route(route)) = found else { return false };
    let surface = policy.surfaces.get(route.surface);
    route.method.is_some() && surface.is_some_and(|surface| surface.access == Access::Key)
}

fn surface_of<'p>(policy: &'p Policy, route: &'p Route, place: &mut Option<&'p Route>) -> &'p Surface {
    *place = Some(route);
    policy.surfaces.get(route.surface).expect("a route names a surface of its policy")
}

/// Off closes the surface to everybody, whatever they hold.
fn flag(policy: &Policy, surface: &Surface) -> Result<(), Denial> {
    match policy.flag_off(surface) {
        Some(flag) => Err(Denial::FlagOff { flag: flag.into() }),
        None => Ok(()),
    }
}

fn asked(call: &Call<'_>, route: &Route, surface: &Surface) -> Result<Ask, Denial> {
    let ask = match surface.channel {
        // What else it answers would be read as frames.
        None if call.extended => return Err(Denial::TargetInvalid),
        None => Ask::Request,
        Some(_) => call.handshake().map(|_| Ask::Channel)?,
    };
    match route.query.iter().find(|name| !call.has_query(name)) {
        Some(name) => Err(Denial::QueryMissing { name: name.clone() }),
        None => Ok(ask),
    }
}

/// The caller of an entry whose key may be used at this time.
pub fn usable(entry: Option<Entry>, now: SystemTime) -> Result<Caller, Denial> {
    let entry = entry.ok_or(Denial::KeyUnknown)?;
    let reason = match entry.state {
        State::Active { until: Some(end) } if end <= now => Reason::KeyExpired,
        State::Active { .. } => return Ok(entry.caller),
        State::Disabled => Reason::KeyDisabled,
        State::TeamDisabled => Reason::TeamDisabled,
    };
    Err(Denial::KeyRefused { caller: entry.caller, reason })
}

/// Whether who was admitted to a route of this policy would still be, by what is known of the key now, on a platform that
/// may have changed its scopes since.
pub fn reconsider(
    policy: &Policy,
    route: RouteId,
    together: Option<&Together>,
    platform: &Scopes,
    entry: Option<Entry>,
    now: SystemTime,
) -> Result<(), Denial> {
    let caller = usable(entry, now)?;
    if together.map_or(Ok(false), |together| together.is_enough(&caller))? {
        return Ok(());
    }
    let route = policy.routes.get(route).expect("it was admitted to a route of this policy");
    let demand = Demand::again(route.demand.requirement.under(&policy.scopes, platform));
    demand.meet(platform, caller).map(drop)
}

/// A known path with another method is told so, but behind a key only to who holds one.
async fn other_methods<'p>(
    policy: &'p Policy,
    keys: &impl KeySource,
    call: &Call<'_>,
    routes: &[&'p Route],
    place: &mut Option<&'p Route>,
) -> Denial {
    let (mut allow, mut holder): (Vec<&str>, _) = (Vec::new(), None);
    for route in routes {
        let surface = surface_of(policy, route, place);
        if let Err(denial) = flag(policy, surface) {
            return denial;
        }
        if surface.access == Access::Key {
            match credential::caller(policy, surface.proof, keys, call).await {
                Ok(caller) => holder = Some(caller),
                Err(denial) => return denial,
            }
        }
        for method in route
            .method
            .iter()
            .flat_map(|method| if **method == *"GET" { vec!["GET", "HEAD"] } else { vec![&**method] })
        {
            if !allow.contains(&method) {
                allow.push(method);
            }
        }
    }
    Denial::MethodUnknown { allow: allow.join(", ").into(), caller: holder }
}

#[cfg(test)]
mod tests {
    use std::pin::pin;
    use std::task::{Context, Poll, Waker};

    use http::{Method, Version};

    use super::*;
    use crate::keys::SourceError;
    use crate::keys::presented::Presented;
    use crate::message::fields::Fields;

    struct Down;

    impl KeySource for Down {
        async fn find(&self, _: &Presented<'_>) -> Result<Option<Entry>, SourceError> {
            Err(SourceError::Late { name: "redis" })
        }
    }

    #[test]
    fn a_source_that_is_down_is_never_taken_for_an_unknown_key() {
        let text = include_str!("../../config/telapi.yaml");
        let config = config::file::parse("telapi.yaml".as_ref(), text).expect("the shipped configuration");
        let policy = Policy::new(&config.value.live);
        let mut with_key = Fields::default();
        with_key.push(b"x-api-key", b"k");
        for (fields, reason) in [(with_key, Reason::KeysUnavailable), (Fields::default(), Reason::KeyMissing)]
        {
            let call = Call {
                method: &Method::GET,
                version: Version::HTTP_11,
                path: "/api/v1/apps",
                query: None,
                fields: &fields,
                certificate: None,
                now: SystemTime::UNIX_EPOCH,
                extended: false,
                with_body: false,
            };
            let decided = pin!(decide(&policy, &Down, &call)).poll(&mut Context::from_waker(Waker::noop()));
            let Poll::Ready((_, Err(denial))) = decided else { panic!("it is refused, at once") };
            assert_eq!(denial.reason(), reason);
        }
        assert_eq!(Reason::KeysUnavailable.row().status, 503);
    }
}

//! What a path and method lead to.

use super::denial::Denial;
use super::path::{Path, PathProblem};
use super::route::{Matched, RouteId};
use super::{Policy, Route};

/// What a path and method led to, once the path has one reading for that.
pub(super) enum Found<'p> {
    Route(&'p Route),
    OtherMethods(Vec<&'p Route>),
}

pub(super) fn find<'p>(policy: &'p Policy, method: &str, path: &str) -> Result<Found<'p>, Denial> {
    if let Some(route) = policy.router.find_exact(method, path).and_then(|id| policy.routes.get(id)) {
        return Ok(Found::Route(route));
    }
    let path = Path::read(path).map_err(Denial::PathAmbiguous)?;
    let found = match policy.router.find(method, path) {
        Matched::Route { id, tail } => return found(policy, path, id, tail),
        Matched::Nearly { id, tail, others } => {
            return if others.iter().all(|other| policy.covers(id, *other)) {
                found(policy, path, id, tail)
            } else {
                Err(Denial::PathAmbiguous(PathProblem::NearlyAnother))
            };
        }
        Matched::EmptyParam => return Err(Denial::PathAmbiguous(PathProblem::EmptySegment)),
        Matched::Nothing => None,
        Matched::OtherMethods(ids) => Some(ids),
    };
    if path.has_encoded_slash() {
        return Err(Denial::PathAmbiguous(PathProblem::EncodedSlash));
    }
    match found {
        None => Err(Denial::RouteUnknown { status: policy.unmatched }),
        Some(ids) => Ok(Found::OtherMethods(ids.iter().filter_map(|id| policy.routes.get(*id)).collect())),
    }
}

/// A route, unless `%2F` stands where it may not.
fn found<'p>(policy: &'p Policy, path: Path<'_>, id: RouteId, tail: usize) -> Result<Found<'p>, Denial> {
    let route = policy.routes.get(id).expect("the router knows only routes of this policy");
    let loosened = policy.surfaces.get(route.surface).is_some_and(|surface| surface.encoded_slash);
    let in_tail = |path: &str| loosened && !path.get(..tail).is_none_or(has_encoded_slash);
    if path.has_encoded_slash() && !in_tail(path.as_str()) {
        return Err(Denial::PathAmbiguous(PathProblem::EncodedSlash));
    }
    Ok(Found::Route(route))
}

fn has_encoded_slash(path: &str) -> bool {
    path.as_bytes().windows(3).any(|three| three.eq_ignore_ascii_case(b"%2f"))
}

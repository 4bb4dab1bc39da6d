//! The methods that one path takes.

use super::route::RouteId;

/// The routes of one pattern.
#[derive(Debug, Default)]
pub(super) struct Methods {
    named: Vec<(Box<str>, RouteId)>,
    any: Option<RouteId>,
}

impl Methods {
    pub(super) fn add(&mut self, method: Option<&str>, id: RouteId) {
        match method {
            Some(method) => self.named.push((method.into(), id)),
            None => self.any = Some(id),
        }
    }

    pub(super) fn find(&self, method: &str) -> Option<RouteId> {
        let named = |wanted: &str| self.named.iter().find(|(known, _)| **known == *wanted).map(|(_, id)| *id);
        // A resource that can be read can be asked for its head (RFC 9110, 9.3.2).
        named(method).or_else(|| if method == "HEAD" { named("GET") } else { None }).or(self.any)
    }

    pub(super) fn ids(&self) -> impl Iterator<Item = RouteId> {
        self.named.iter().map(|(_, id)| *id).chain(self.any)
    }
}

//! Proof that a call was admitted.

use super::{Route, Surface};
use crate::identity::caller::Caller;

/// Proof that a call was admitted. Only [`super::decide`] can make one, and forwarding demands one.
#[derive(Debug)]
pub struct Permit<'p> {
    /// The route that it was admitted on.
    pub route: &'p Route,
    /// The route's surface.
    pub surface: &'p Surface,
    /// Who called; `None` on open surfaces and for preflights.
    pub caller: Option<Caller>,
    /// What was admitted.
    pub ask: Ask,
    _seal: Seal,
}

/// What was admitted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Ask {
    /// An ordinary request.
    Request,
    /// A CORS preflight: it carries no credential, and gets no further with one.
    Preflight,
    /// A WebSocket handshake.
    Channel,
}

#[derive(Debug)]
struct Seal;

impl<'p> Permit<'p> {
    pub(super) fn new(route: &'p Route, surface: &'p Surface, caller: Option<Caller>, ask: Ask) -> Self {
        Self { route, surface, caller, ask, _seal: Seal }
    }
}

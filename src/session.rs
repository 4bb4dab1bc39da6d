//! Which key a channel belongs to that carries none: the one that its session was minted with.

use std::rc::Rc;
use std::sync::Arc;
use std::time::SystemTime;

use http::StatusCode;

use crate::config::surface::{Channel, OnRevoke};
use crate::decide::call::Call;
use crate::decide::denial::Denial;
use crate::decide::permit::Permit;
use crate::decide::usable;
use crate::exchange::{Exchange, Stay};
use crate::identity::caller::Caller;
use crate::keys::KeySource as _;
use crate::keys::guests::{Guest, Guests, Reception};
use crate::keys::presented::Presented;
use crate::keys::sessions::{Minting, Owner, Sessions};
use crate::message::head::Head;
use crate::snapshot::{Held, Shared};

/// Whose session a channel is of.
#[derive(Debug, Default)]
pub struct Owned {
    /// Who minted it, where that is known.
    pub caller: Option<Caller>,
    /// Where it is to end with the key.
    pub guest: Option<Guest<Stay>>,
}

/// Finds the key that an admitted channel belongs to, and makes it a guest on that where it is to end with it.
pub async fn attribute(
    permit: &Permit<'_>,
    head: &Head,
    now: SystemTime,
    snapshot: &Rc<Held>,
    shared: &Shared,
    guests: &Rc<Guests<Stay>>,
) -> Result<Owned, Denial> {
    let Some(Channel { session: Some(name), on_revoke, .. }) = &permit.surface.channel else {
        return Ok(Owned::default());
    };
    let call = Call::read(head, now)?;
    let Some(Owner { digest, caller }) = call.query(name)?.and_then(|id| shared.sessions.owner(&id)) else {
        shared.metrics.sessions_unattributed.inc();
        return Ok(Owned::default());
    };
    if *on_revoke == OnRevoke::Keep {
        return Ok(Owned { caller: Some(caller), guest: None });
    }
    let reception = Reception::new(&snapshot.keys, guests);
    let found = reception.find(&Presented::before(digest)).await?;
    if let Err(denial) = usable(found, now) {
        return Err(Denial::SessionEnded { caller, reason: denial.reason() });
    }
    let guest = reception.into_guest();
    if let Some(guest) = &guest {
        let stay = |_| Stay { snapshot: Rc::clone(snapshot), route: permit.route.id, together: None };
        guest.admit(stay);
    }
    Ok(Owned { caller: Some(caller), guest })
}

/// What reads the answer of a route that mints sessions, as it passes.
#[must_use]
pub fn minting(status: StatusCode, exchange: &Exchange, sessions: &Arc<Sessions>) -> Option<Box<Minting>> {
    let member = exchange.mints()?;
    let digest = exchange.guest.as_ref()?.digest();
    let caller = exchange.record.caller.clone()?;
    Minting::of(status, member.into(), Owner { digest, caller }, sessions).map(Box::new)
}

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
use crate::identity::key::Digest;
use crate::keys::KeySource as _;
use crate::keys::guests::{Guest, Guests, Reception};
use crate::keys::presented::Presented;
use crate::keys::sessions::minting::Minting;
use crate::keys::sessions::{Opened, Owner, Session, Sessions};
use crate::message::head::Head;
use crate::snapshot::{Held, Shared, Snapshot};

/// Whose session a channel is of.
#[derive(Debug, Default)]
pub struct Owned {
    /// Who minted it, where that is known.
    pub caller: Option<Caller>,
    /// Where it is to end with the key.
    pub guest: Option<Guest<Stay>>,
    /// Counts it for as long as it lives.
    pub opened: Option<Opened>,
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
    let session = match call.query(name)? {
        Some(id) => owned(Digest::of(id.as_bytes()), snapshot, &shared.sessions).await,
        None => None,
    };
    let Some(session) = session else {
        shared.metrics.sessions_unattributed.inc();
        return Ok(Owned::default());
    };
    let Owner { digest, caller } = session.owner.clone();
    if *on_revoke == OnRevoke::Keep {
        let opened = Some(shared.sessions.opened(session));
        return Ok(Owned { caller: Some(caller), guest: None, opened });
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
    Ok(Owned { caller: Some(caller), guest, opened: Some(shared.sessions.opened(session)) })
}

/// What all replicas know of a session, or, where that cannot be told, what this one does.
async fn owned(session: Digest, snapshot: &Snapshot, sessions: &Sessions) -> Option<Arc<Session>> {
    let told = match &snapshot.ledger {
        Some(ledger) => Box::pin(ledger.owner(session)).await,
        None => None,
    };
    match told {
        Some(owner) => Some(sessions.remember(session, owner)),
        None => sessions.get(&session),
    }
}

/// What reads the answer of a route that mints sessions, as it passes.
#[must_use]
pub fn minting(status: StatusCode, exchange: &Exchange, sessions: &Arc<Sessions>) -> Option<Box<Minting>> {
    let member = exchange.mints()?;
    let digest = exchange.guest.as_ref()?.digest();
    let mut caller = exchange.record.caller.clone()?;
    // Who opens the channel does not come with the key.
    caller.previous = None;
    let ledger = exchange.snapshot().ledger.as_ref();
    Minting::of(status, member.into(), Owner { digest, caller }, sessions, ledger).map(Box::new)
}

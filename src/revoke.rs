//! Ends what lives on a key that may not be used any more: requests under way, event streams, channels.

use std::cell::Cell;
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::decide::reconsider;
use crate::exchange::Stay;
use crate::identity::key::Digest;
use crate::keys::change::{Change, Heard, Which};
use crate::keys::guests::{Guest, Guests};
use crate::keys::presented::Presented;
use crate::keys::{Entry, KeySource as _, SourceError, State};
use crate::observe::ending::Ending;
use crate::observe::reason::Reason;
use crate::snapshot::{Shared, Snapshot};

/// A source that has named a key or its team and then gives no answer is asked again for so long. After that the key is
/// most likely dead, and who lives on it is ended; they may come back.
const OF_THIS_ONE: Duration = Duration::from_secs(2);
/// Between two questions; where nobody has named the key, it grows.
const AGAIN: Duration = Duration::from_millis(250);
const LONGEST: Duration = Duration::from_secs(10);

/// Counts the changes that may be about any key: each looks at everybody, so that none before it need ask any longer.
type Turn = Rc<Cell<u64>>;

/// Follows the changes of keys for as long as the worker lives.
pub async fn follow(guests: Rc<Guests<Stay>>, shared: Shared, mut heard: Heard) {
    let lost = || Change { which: Which::Any, ending: shared.metrics.ending() };
    let turn = Turn::default();
    while let Some(change) = heard.next(lost).await {
        turn.set(turn.get() + u64::from(change.which == Which::Any));
        look_at(guests.concerned(&change), &guests, &shared, &change, &turn);
    }
}

/// Ends those whose key has ended by itself.
pub fn expire(guests: &Rc<Guests<Stay>>, shared: &Shared) {
    let digests = guests.expired(SystemTime::now());
    if !digests.is_empty() {
        let change = Change { which: Which::Ended, ending: shared.metrics.ending() };
        look_at(digests, guests, shared, &change, &Turn::default());
    }
}

/// Each key on its own: where keys live elsewhere, one look-up may take its time.
fn look_at(digests: Vec<Digest>, guests: &Rc<Guests<Stay>>, shared: &Shared, change: &Change, turn: &Turn) {
    for digest in digests {
        let (guests, shared, change) = (Rc::clone(guests), shared.clone(), change.clone());
        let turn = Rc::clone(turn);
        spawn_local(async move {
            if let Some((snapshot, found)) = ask(digest, &guests, &shared, &change.which, &turn).await {
                let unsure =
                    if change.which == Which::Ended { Reason::KeyExpired } else { Reason::KeysUnavailable };
                let found = found.map_err(|_| unsure);
                judge(&digest, &guests, &snapshot, &found, &change.ending);
            }
        });
    }
}

/// Looks all that a guest has come on up in the keys that are in force now; it has just come, and waits for this. Says why
/// it may not stay where nobody can say: who is inside already need not leave for that.
pub async fn again(guest: &Guest<Stay>, guests: &Guests<Stay>, shared: &Shared) -> Result<(), Reason> {
    for digest in guest.digests() {
        let snapshot = shared.current.load();
        let found =
            snapshot.keys.find(&Presented::before(digest)).await.map_err(|_| Reason::KeysUnavailable)?;
        judge(&digest, guests, &snapshot, &Ok(found), &shared.metrics.ending());
    }
    Ok(())
}

/// What is said of a key now, in the keys that are in force now. Where nobody can say, nobody has to leave as long as
/// nobody has named the key, and who asks goes on asking; then there is nothing to be done yet, or not by this.
async fn ask(
    digest: Digest,
    guests: &Guests<Stay>,
    shared: &Shared,
    which: &Which,
    turn: &Cell<u64>,
) -> Option<(Arc<Snapshot>, Result<Option<Entry>, SourceError>)> {
    let (began, this) = (Instant::now(), turn.get());
    let mut pause = AGAIN;
    loop {
        let snapshot = shared.current.load();
        let found = snapshot.keys.find(&Presented::again(digest)).await;
        // Where it takes a request to ask, waiting does not help.
        if matches!(found, Ok(_) | Err(SourceError::Keyless { .. })) {
            return Some((snapshot, found));
        }
        match which {
            Which::Due => return None,
            Which::Ended => return Some((snapshot, found)),
            Which::One(_) | Which::Team(_) if began.elapsed() >= OF_THIS_ONE => {
                return Some((snapshot, found));
            }
            Which::One(_) | Which::Team(_) => {}
            Which::Any if turn.get() != this || !guests.has(&digest) => return None,
            Which::Any => pause = (pause * 2).min(LONGEST),
        }
        sleep(pause).await;
    }
}

/// Ends whom a key would not admit any more, by what is said of it, or for this reason.
fn judge(
    digest: &Digest,
    guests: &Guests<Stay>,
    snapshot: &Snapshot,
    found: &Result<Option<Entry>, Reason>,
    ending: &Arc<Ending>,
) {
    let entry = found.as_ref().ok().and_then(Option::as_ref);
    let until = match entry {
        Some(Entry { state: State::Active { until }, .. }) => *until,
        Some(_) | None => None,
    };
    let caller = entry.map(|entry| &entry.caller);
    let (platform, now) = (snapshot.policy.scopes(), SystemTime::now());
    guests.look(digest, (caller, until), ending, |stay| match found {
        Ok(entry) => {
            let (policy, together) = (&stay.snapshot.policy, stay.together.as_ref());
            let still = reconsider(policy, stay.route, together, platform, entry.clone(), now);
            still.err().map(|denial| denial.reason())
        }
        Err(reason) => Some(*reason),
    });
}

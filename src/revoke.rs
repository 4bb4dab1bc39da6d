//! Ends what lives on a key that may not be used any more: requests under way, event streams, channels.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use tokio::task::spawn_local;
use tokio::time::{Instant, sleep};

use crate::decide::reconsider;
use crate::exchange::Stay;
use crate::identity::key::Digest;
use crate::keys::change::{Change, Heard, Which};
use crate::keys::guests::Guests;
use crate::keys::presented::Presented;
use crate::keys::{Entry, KeySource as _, SourceError, State};
use crate::observe::reason::Reason;
use crate::snapshot::Shared;

/// A source that has told of a change and gives no answer is asked again for so long, until who lives on the key is ended:
/// where it has named this key, it is most likely dead; where it may have been any, it is most likely not.
const OF_THIS_ONE: Duration = Duration::from_secs(2);
const OF_ANY: Duration = Duration::from_secs(30);
/// Between two questions.
const AGAIN: Duration = Duration::from_millis(250);

/// Follows the changes of keys for as long as the worker lives.
pub async fn follow(guests: Rc<Guests<Stay>>, shared: Shared, mut heard: Heard) {
    let lost = || Change { which: Which::Any, ending: shared.metrics.ending() };
    while let Some(change) = heard.next(lost).await {
        look_at(guests.concerned(&change), &guests, &shared, &change);
    }
}

/// Ends those whose key has ended by itself.
pub fn expire(guests: &Rc<Guests<Stay>>, shared: &Shared) {
    let digests = guests.expired(SystemTime::now());
    if !digests.is_empty() {
        look_at(digests, guests, shared, &Change { which: Which::Any, ending: shared.metrics.ending() });
    }
}

/// Each key on its own: where keys live elsewhere, one look-up may take its time.
fn look_at(digests: Vec<Digest>, guests: &Rc<Guests<Stay>>, shared: &Shared, change: &Change) {
    for digest in digests {
        let (guests, shared, change) = (Rc::clone(guests), shared.clone(), change.clone());
        spawn_local(async move { look(digest, &guests, &shared, &change).await });
    }
}

/// Looks a key up in the keys that are in force now, for who has just come on it.
pub async fn again(digest: Digest, guests: &Guests<Stay>, shared: &Shared) {
    // Its request waits for this.
    look(digest, guests, shared, &Change { which: Which::One(digest), ending: shared.metrics.ending() })
        .await;
}

/// Looks a key up again, and ends whom it would not admit any more. Where nobody can say for too long, it admits nobody;
/// unless nobody has said that anything is different, and somebody may be able to say later.
async fn look(digest: Digest, guests: &Guests<Stay>, shared: &Shared, change: &Change) {
    let patience = match change.which {
        Which::One(_) => OF_THIS_ONE,
        Which::Any | Which::Due => OF_ANY,
    };
    let end = Instant::now() + patience;
    let (snapshot, found) = loop {
        let snapshot = shared.current.load();
        let found = snapshot.keys.find(&Presented::before(digest)).await;
        let later = matches!(&found, Err(error) if !matches!(error, SourceError::Keyless { .. }));
        if later && change.which == Which::Due {
            return;
        }
        if !later || Instant::now() >= end {
            break (snapshot, found);
        }
        sleep(AGAIN).await;
    };
    let until = match &found {
        Ok(Some(Entry { state: State::Active { until }, .. })) => *until,
        Ok(_) | Err(_) => None,
    };
    let (platform, now) = (snapshot.policy.scopes(), SystemTime::now());
    guests.look(&digest, until, &change.ending, |stay| {
        let Ok(entry) = &found else { return Some(Reason::KeysUnavailable) };
        let still = reconsider(
            &stay.snapshot.policy,
            stay.route,
            stay.together.as_ref(),
            platform,
            entry.clone(),
            now,
        );
        still.err().map(|denial| denial.reason())
    });
}

//! News of keys: what workers hear, so that what lives on a key can end with it.

use std::sync::Arc;

use tokio::sync::broadcast;

use crate::identity::caller::Caller;
use crate::identity::key::Digest;
use crate::observe::ending::Ending;

/// How many changes a worker may be behind; beyond it all keys are taken to have changed.
const BEHIND: usize = 1024;

/// Some keys are not what they were.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which.
    pub which: Which,
    /// Measures how long it takes until the last who has to leave has left.
    pub ending: Arc<Ending>,
}

/// Which keys have changed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Which {
    /// This one.
    One(Digest),
    /// Those of this team.
    Team(Arc<str>),
    /// Nobody can say: some of them, or all.
    Any,
    /// None, as far as anybody knows: time has passed, and who is inside is looked at again.
    Due,
    /// Those that have ended by themselves, as far as we know.
    Ended,
}

impl Which {
    /// Whether this key may be among them; without its holder where that is not known yet.
    #[must_use]
    pub fn may_be(&self, digest: &Digest, caller: Option<&Caller>) -> bool {
        match self {
            Self::One(one) => one == digest,
            Self::Team(team) => caller.is_none_or(|caller| caller.team() == &**team),
            Self::Any | Self::Due | Self::Ended => true,
        }
    }
}

/// Where changes are told, and heard by each worker.
#[derive(Debug, Clone)]
pub struct Changes(broadcast::Sender<Change>);

/// What a worker hears of them.
#[derive(Debug)]
pub struct Heard(broadcast::Receiver<Change>);

impl Default for Changes {
    fn default() -> Self {
        Self(broadcast::channel(BEHIND).0)
    }
}

impl Changes {
    /// Tells every worker. What they look up from now on must be of after the change.
    pub fn tell(&self, change: Change) {
        // Before the first worker has started there is nobody to hear it, and nobody inside.
        let _ = self.0.send(change);
    }

    /// Everything that is told from now on.
    #[must_use]
    pub fn hear(&self) -> Heard {
        Heard(self.0.subscribe())
    }
}

impl Heard {
    /// The next change; `lost` makes one of those that came too fast. `None`: there will be no more.
    pub async fn next(&mut self, lost: impl FnOnce() -> Change) -> Option<Change> {
        match self.0.recv().await {
            Ok(change) => Some(change),
            Err(broadcast::error::RecvError::Lagged(_)) => Some(lost()),
            Err(broadcast::error::RecvError::Closed) => None,
        }
    }
}

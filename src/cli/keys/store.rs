//! What a place must be able to do where keys are kept and changed.

use std::time::SystemTime;

use crate::config::keys::{Key, KeysFile, Previous};
use crate::identity::key::Digest;

/// A place where keys are kept, and can be changed.
pub(super) trait Store {
    /// For people.
    fn name(&self) -> String;

    /// All that is there and can be read.
    fn read(&mut self) -> anyhow::Result<KeysFile>;

    /// What is there of this key, if not more.
    fn find(&mut self, digest: &Digest) -> anyhow::Result<KeysFile> {
        let _ = digest;
        self.read()
    }

    /// Makes the change that is decided on when it is known what is there. Whole or not at all, and nobody else who comes
    /// by here changes anything in between.
    fn change(&mut self, decide: Decide<'_>) -> anyhow::Result<()>;
}

/// What is to be changed, by what is there. It may be asked more than once.
pub(super) type Decide<'d> = &'d mut dyn FnMut(&KeysFile) -> anyhow::Result<Change>;

/// What is to be changed.
#[derive(Debug, Clone)]
pub(super) enum Change {
    /// These are new; their teams are places in what is there.
    Add(Vec<Key>),
    /// The key gets another digest, and its own is that of the key before.
    Rotate {
        /// Its id.
        id: Box<str>,
        /// The new one.
        digest: Digest,
        /// Now.
        since: SystemTime,
        /// Until then the key before opens the same.
        until: SystemTime,
    },
    /// The key is turned off.
    Revoke {
        /// Its id.
        id: Box<str>,
        /// Why.
        reason: Option<Box<str>>,
    },
}

impl Change {
    /// What will be there, where this was.
    pub(super) fn of(&self, mut there: KeysFile) -> KeysFile {
        match self {
            Self::Add(keys) => there.keys.extend_from_slice(keys),
            Self::Rotate { id, digest, since, until } => {
                for key in there.keys.iter_mut().filter(|key| key.id == *id) {
                    let before = std::mem::replace(&mut key.digest, *digest);
                    let previous = Previous { digest: before, since: Some(*since), until: *until };
                    key.previous = Some(Box::new(previous));
                }
            }
            Self::Revoke { id, reason } => {
                for key in there.keys.iter_mut().filter(|key| key.id == *id) {
                    key.disabled = true;
                    if reason.is_some() {
                        key.disabled_reason.clone_from(reason);
                    }
                }
            }
        }
        there
    }
}

//! What the Secrets of a namespace say: each of their items is a keys file, with a fate of its own.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use k8s_openapi::ByteString;
use k8s_openapi::api::core::v1::Secret;
use sha2::{Digest as _, Sha256};

use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;
use crate::keys::file::{Fingerprint, Read, parse_behind, table_behind};
use crate::keys::table::{Part, Table};
use crate::observe::events::report;
use crate::observe::metrics::{Metrics, Reload};

/// What has been heard of them so far.
#[derive(Debug)]
pub(super) struct Secrets {
    platform: Scopes,
    hashing: Hashing,
    metrics: Arc<Metrics>,
    /// By the Secret and the item, in the order of their names.
    files: BTreeMap<(Box<str>, Box<str>), KeysFile>,
}

/// An item of a Secret.
#[derive(Debug, Default)]
struct KeysFile {
    /// Of the text that was read last, good or bad.
    text: Option<Fingerprint>,
    /// The last good keys, if any.
    part: Option<Arc<Part>>,
}

impl Secrets {
    pub(super) fn new(platform: &Scopes, hashing: &Hashing, metrics: &Arc<Metrics>) -> Self {
        let (platform, hashing, metrics) = (platform.clone(), hashing.clone(), Arc::clone(metrics));
        Self { platform, hashing, metrics, files: BTreeMap::new() }
    }

    /// There are no others. True where some were known.
    pub(super) fn only(&mut self, names: &BTreeSet<Box<str>>) -> bool {
        let before = self.files.len();
        self.files.retain(|(name, _), _| names.contains(name));
        self.files.len() < before
    }

    /// This one is gone. True where it was known.
    pub(super) fn remove(&mut self, gone: &str) -> bool {
        let before = self.files.len();
        self.files.retain(|(name, _), _| **name != *gone);
        self.files.len() < before
    }

    /// This is what one says now. True where other keys are good by it.
    pub(super) async fn take(&mut self, secret: Secret) -> bool {
        let (name, items) = (name(&secret), secret.data.unwrap_or_default());
        let before = self.files.len();
        self.files.retain(|(of, item), _| *of != name || items.contains_key(&**item));
        let mut moved = self.files.len() < before;
        for (item, ByteString(text)) in items.into_iter().filter(|(item, _)| is_keys_file(item)) {
            moved |= self.read(&name, item.into(), text).await;
        }
        moved
    }

    async fn read(&mut self, name: &str, item: Box<str>, text: Vec<u8>) -> bool {
        let fingerprint: Fingerprint = Sha256::digest(&text).into();
        let path = PathBuf::from(format!("secret/{name}/{item}"));
        let file = self.files.entry((name.into(), item)).or_default();
        if file.text.replace(fingerprint) == Some(fingerprint) {
            return false;
        }
        let Read { part, problems, .. } = parse_behind(&path, text, &self.platform, &self.hashing).await;
        report(&problems);
        if let Some(part) = part {
            file.part = Some(Arc::new(part));
            self.metrics.reloaded("keys", Reload::Applied);
            true
        } else {
            tracing::error!(file = %path.display(), "the keys file is refused; the last good keys stay in force");
            self.metrics.reloaded("keys", Reload::Refused);
            false
        }
    }

    /// The keys of all; `None` where the table could not be made.
    pub(super) async fn table(&self) -> Option<Table> {
        let parts = self.files.values().filter_map(|file| file.part.clone()).collect();
        let (table, problems) = table_behind(parts).await?;
        report(&problems);
        let refused = self.files.values().filter(|file| file.part.is_none()).count();
        let files = self.files.len();
        tracing::info!(
            files,
            refused,
            keys = table.len(),
            teams = table.teams,
            "keys files of Secrets are in force"
        );
        Some(table)
    }
}

pub(super) fn name(secret: &Secret) -> Box<str> {
    secret.metadata.name.as_deref().unwrap_or_default().into()
}

/// As in a folder.
fn is_keys_file(item: &str) -> bool {
    let end = Path::new(item).extension().and_then(|end| end.to_str());
    !item.starts_with('.') && matches!(end, Some("yaml" | "yml"))
}

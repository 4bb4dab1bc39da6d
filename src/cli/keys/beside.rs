//! The other files of a folder: a key that is in two of them opens nothing, in either.

use std::ffi::OsStr;
use std::fs;
use std::path::Path;

use anyhow::bail;

use super::store::Change;
use crate::config::file::parse_keys_under;
use crate::identity::hashing::Hashing;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;

/// Refuses a change that gives a file an id or a digest which another keys file of its folder has.
pub(super) fn refuse_twins(path: &Path, change: &Change, hashing: &Hashing) -> anyhow::Result<()> {
    let new: Vec<(Option<&str>, Digest)> = match change {
        Change::Add(keys) => keys.iter().map(|key| (Some(&*key.id), key.digest)).collect(),
        Change::Rotate { digest, .. } => vec![(None, *digest)],
        Change::Revoke { .. } => return Ok(()),
    };
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    for other in fs::read_dir(folder)?.filter_map(Result::ok).map(|entry| entry.path()) {
        if other.file_name() == path.file_name() || !is_keys_file(&other) {
            continue;
        }
        // One that is no keys file, or is refused whole, holds no key.
        let Ok(text) = fs::read_to_string(&other) else { continue };
        let Ok(read) = parse_keys_under(&other, &text, &Scopes::default(), hashing) else { continue };
        let keys = read.value.keys.iter();
        let there = keys.map(|key| (Some(&*key.id), Some(key.digest), key.previous.as_ref()));
        let left_out = read.value.left_out.iter().map(|key| (key.id.as_deref(), key.digest, None));
        for (id, digest, previous) in there.chain(left_out) {
            for (new_id, new_digest) in &new {
                let what = if new_id.is_some() && *new_id == id {
                    "id"
                } else if digest == Some(*new_digest)
                    || previous.is_some_and(|previous| previous.digest == *new_digest)
                {
                    "digest"
                } else {
                    continue;
                };
                bail!(
                    "its {what} is that of `{}` in {} already: where both files are read, neither key would open anything",
                    id.unwrap_or("a key"),
                    other.display()
                );
            }
        }
    }
    Ok(())
}

fn is_keys_file(path: &Path) -> bool {
    let ending = path.extension().and_then(OsStr::to_str).is_some_and(|end| matches!(end, "yaml" | "yml"));
    ending && path.file_name().and_then(OsStr::to_str).is_some_and(|name| !name.starts_with('.'))
}

//! `last_good:`: what is kept of a server's answers over a start.

use std::path::{Path, PathBuf};
use std::time::Duration;

use super::path;
use crate::config::fields::{Fields, Report};
use crate::config::node::Node;

/// Where what a server said last is kept.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LastGood {
    /// Written by us, read at a start.
    pub file: PathBuf,
    /// One that is older is not used; [`LastGood::MAX_AGE`] unless written.
    pub max_age: Duration,
}

impl LastGood {
    /// A server that is lost over a night is found in the morning; a key that was revoked meanwhile is good until then.
    pub const MAX_AGE: Duration = Duration::from_secs(24 * 3_600);

    pub(super) fn read(node: &Node, folder: &Path, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`last_good`", report)?;
        let file = fields.need("file", "where it is kept: `file: keys.last`", report);
        let file = file.and_then(|node| path(node, "`file`", folder, report));
        let max_age =
            fields.or("max_age", Self::MAX_AGE, report, |node, report| node.duration("`max_age`", report));
        fields.done(report);
        Some(Self { file: file?, max_age: max_age? })
    }
}

//! The files of a listener's `tls:`, which are read again when they change.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::SystemTime;

use super::stamp::Group;
use crate::config::problem::Problems;
use crate::config::tls::Tls;
use crate::observe::metrics::{Metrics, Reload};
use crate::tls::Terminator;
use crate::tls::expiry::Of;
use crate::tls::identity::{Identity, Part};

/// The files of a listener's `tls:`.
#[derive(Debug)]
pub(super) struct Pairs {
    identity: Identity,
    /// Of each part of that.
    files: Vec<Group>,
    /// Where what is good goes.
    pub(super) terminator: Arc<Terminator>,
}

impl Pairs {
    /// Reads them for the first time.
    pub(super) fn load(written: &Tls, problems: &mut Problems) -> Option<Self> {
        // Before they are read: what changes in between is a change.
        let files = Part::all(written).map(|part| Group::of(part.files())).collect();
        let (identity, terms) = Identity::read(written).map_err(|found| problems.merge(found)).ok()?;
        identity.warnings(SystemTime::now()).for_each(|problem| problems.push(problem));
        let terminator = Terminator::new(terms, written);
        Some(Self { identity, files, terminator })
    }

    /// Every file needs a look, whatever the system says.
    pub(super) fn forget_stamps(&mut self) {
        self.files.iter_mut().for_each(Group::forget_stamps);
    }

    /// Reads again what has changed. Of each part, what was good last stays where it is bad now.
    pub(super) fn look(&mut self, metrics: &Metrics) {
        let mut applied = false;
        for (place, files) in self.files.iter_mut().enumerate() {
            if !files.have_changed() {
                continue;
            }
            match self.identity.look(place, SystemTime::now()) {
                Ok(terms) => {
                    self.terminator.put_in_force(terms);
                    metrics.reloaded("tls", Reload::Applied);
                    tracing::info!(
                        files = files.names(),
                        "a file of `tls` is in force, from the next handshake on"
                    );
                    applied = true;
                }
                Err(problem) => {
                    tracing::error!(files = files.names(), %problem, "a file of `tls` is refused; the last good one stays in force");
                    metrics.reloaded("tls", Reload::Refused);
                }
            }
        }
        if applied {
            self.tell_expiry(metrics);
        }
    }

    /// Says when its certificates and lists end, and warns where that is soon.
    pub(super) fn tell_expiry(&self, metrics: &Metrics) {
        let now = SystemTime::now();
        for expiry in self.identity.expiries() {
            let is_list = matches!(expiry.of, Of::List { .. });
            metrics.ends(&expiry.file.display().to_string(), is_list, expiry.at);
            if let Some(problem) = expiry.problem(now) {
                tracing::warn!(%problem, "a file of `tls` ends");
            }
        }
    }

    /// The folders in which a change may be one of them.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.files.iter().flat_map(Group::folders)
    }
}

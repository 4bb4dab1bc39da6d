//! The files of a listener's `tls:`, which are read again when they change.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;

use sha2::{Digest as _, Sha256};

use super::kept::around;
use super::report;
use super::stamp::Stamp;
use crate::config::problem::Problems;
use crate::config::tls::Tls;
use crate::observe::metrics::{Metrics, Reload};
use crate::tls::Terminator;
use crate::tls::read::{Expiry, Identity, read};

/// The files of a listener's `tls:`.
#[derive(Debug)]
pub(super) struct Pairs {
    written: Tls,
    stamps: Vec<(PathBuf, Stamp)>,
    /// Of what was read last, good or bad.
    print: [u8; 32],
    expiries: Vec<Expiry>,
    /// Where what is good goes.
    pub(super) terminator: Arc<Terminator>,
}

impl Pairs {
    /// Reads them for the first time.
    pub(super) fn load(written: &Tls, problems: &mut Problems) -> Option<Self> {
        let stamps: Vec<_> = written.files().map(|file| (file.to_owned(), Stamp::default())).collect();
        let print = print(written);
        let Identity { config, expiries } = read(written).map_err(|found| problems.merge(found)).ok()?;
        let now = SystemTime::now();
        expiries.iter().filter_map(|expiry| expiry.problem(now)).for_each(|problem| problems.push(problem));
        let terminator = Terminator::new(config, written);
        Some(Self { written: written.clone(), stamps, print, expiries, terminator })
    }

    /// Every file needs a look, whatever the system says.
    pub(super) fn forget_stamps(&mut self) {
        self.stamps.iter_mut().for_each(|(_, stamp)| stamp.forget());
    }

    /// Reads them again where one has changed. All of them are good, or the last good ones stay.
    pub(super) fn look(&mut self, metrics: &Metrics) {
        // Each stamp is moved on, whatever the one before says.
        let still = self.stamps.iter_mut().fold(true, |still, (file, stamp)| stamp.is_still(file) && still);
        if still {
            return;
        }
        let print = print(&self.written);
        if std::mem::replace(&mut self.print, print) == print {
            return;
        }
        let now = SystemTime::now();
        let read = read(&self.written).and_then(|identity| {
            // One that has ended is no better than what it would replace.
            match identity.expiries.iter().find(|expiry| expiry.is_over(now)) {
                Some(over) if !self.expiries.iter().any(|expiry| expiry.is_over(now)) => {
                    Err(Problems::of_file(&over.file, "this certificate has expired".to_owned(), None))
                }
                _ => Ok(identity),
            }
        });
        match read {
            Ok(Identity { config, expiries }) => {
                self.terminator.put_in_force(config);
                self.expiries = expiries;
                metrics.reloaded("tls", Reload::Applied);
                tracing::info!(files = self.names(), "certificates are in force, from the next handshake on");
                self.tell_expiry(metrics);
            }
            Err(problems) => {
                report(&problems);
                tracing::error!(
                    files = self.names(),
                    "certificates are refused; the last good ones stay in force"
                );
                metrics.reloaded("tls", Reload::Refused);
            }
        }
    }

    /// Says when its certificates end, and warns where that is soon.
    pub(super) fn tell_expiry(&self, metrics: &Metrics) {
        let now = SystemTime::now();
        for expiry in &self.expiries {
            metrics.certificate_ends(&expiry.file.display().to_string(), expiry.at);
            if let Some(problem) = expiry.problem(now) {
                tracing::warn!(%problem, "certificate");
            }
        }
    }

    /// The folders in which a change may be one of them.
    pub(super) fn folders(&self) -> impl Iterator<Item = PathBuf> {
        self.stamps.iter().flat_map(|(file, _)| around(file))
    }

    fn names(&self) -> String {
        let names = self.written.certificates.iter().map(|pair| pair.certificate.display().to_string());
        names.collect::<Vec<_>>().join(", ")
    }
}

/// Of the contents of all files; one that cannot be read has none.
fn print(written: &Tls) -> [u8; 32] {
    let mut hash = Sha256::new();
    for file in written.files() {
        hash.update(contents(file));
    }
    hash.finalize().into()
}

fn contents(file: &Path) -> [u8; 32] {
    let bytes = std::fs::read(file).map(zeroize::Zeroizing::new).unwrap_or_default();
    Sha256::digest(&*bytes).into()
}

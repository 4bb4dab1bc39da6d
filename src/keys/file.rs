//! Reads keys files, and stays out of the way of requests meanwhile.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::sync_channel;
use std::thread;

use sha2::{Digest as _, Sha256};
use tokio::sync::oneshot;

use super::BEHIND;
use super::pace::Pace;
use super::table::{Part, Table};
use crate::config::file::{self, Loaded};
use crate::config::keys::KeysFile;
use crate::config::problem::Problems;
use crate::identity::hashing::Hashing;
use crate::identity::scope::Scopes;

/// Names the text of a file.
pub type Fingerprint = [u8; 32];

/// A file that has been read, or could not be.
#[derive(Debug)]
pub struct Read {
    /// Of its text, where there is any.
    pub fingerprint: Option<Fingerprint>,
    /// What it says; `None` where it is refused whole.
    pub part: Option<Part>,
    /// What is wrong with it.
    pub problems: Problems,
}

/// What is read at a time of a file that may be known.
const PIECE: usize = 64 * 1024;

/// Reads a file while requests are served; nobody waits for it but the caller.
pub async fn read_behind(
    path: &Path,
    scopes: &Scopes,
    hashing: &Hashing,
    known: Option<Fingerprint>,
) -> Option<Read> {
    let (file, platform, hashing) = (path.to_owned(), scopes.clone(), hashing.clone());
    let told = behind(move |pace| read(&file, &platform, &hashing, known, pace)).await;
    told.unwrap_or_else(|| Some(broken_off(path)))
}

fn broken_off(path: &Path) -> Read {
    let hint = "this is a mistake of scopegate's: please report it, with the file if you can";
    let problems = Problems::of_file(path, "the reading of it broke off".to_owned(), Some(hint));
    Read { fingerprint: None, part: None, problems }
}

/// Reads the text of one while requests are served.
#[cfg(feature = "kubernetes")]
pub(super) async fn parse_behind(path: &Path, text: Vec<u8>, scopes: &Scopes, hashing: &Hashing) -> Read {
    let (file, platform, hashing) = (path.to_owned(), scopes.clone(), hashing.clone());
    let told = behind(move |pace| {
        let Ok(text) = str::from_utf8(&text) else {
            let problems = Problems::of_file(&file, "it is not UTF-8".to_owned(), None);
            return Read { fingerprint: None, part: None, problems };
        };
        let (parsed, problems) = taken(&file, text, &platform, &hashing, pace);
        let part = parsed.map(|parsed| Part::new(&file, &parsed, &platform, pace));
        Read { fingerprint: None, part, problems }
    });
    told.await.unwrap_or_else(|| broken_off(path))
}

/// Makes a table while requests are served; `None` where that broke off.
pub async fn table_behind(parts: Vec<Arc<Part>>) -> Option<(Table, Problems)> {
    behind(move |pace| Table::over(parts.clone(), pace)).await
}

/// In a thread that stands behind the workers; `None` where it panicked.
async fn behind<T: Send + 'static>(work: impl Fn(&mut Pace) -> T + Clone + Send + 'static) -> Option<T> {
    let (tell, told) = oneshot::channel();
    let again = work.clone();
    let spawned = thread::Builder::new().name("reload".into()).spawn(move || {
        // Where it may not stand behind, it is in the way for as long as it takes.
        let _ = rustix::process::nice(BEHIND);
        let _ = tell.send(work(&mut Pace::in_bursts()));
    });
    if let Err(error) = spawned {
        // It costs requests their time, and a revocation is worth that.
        tracing::warn!(%error, "no thread could be started; keys are read without one");
        return Some(again(&mut Pace::without_pause()));
    }
    told.await.ok()
}

/// Reads a keys file; `None` where its text is the one that is `known`.
///
/// A thread of its own takes it apart: what that takes (several times what is kept) is an arena of the allocator's that is
/// given back when the thread has freed all of it. So what is kept is made outside of it, and by nobody else.
#[must_use]
pub fn read(
    path: &Path,
    scopes: &Scopes,
    hashing: &Hashing,
    known: Option<Fingerprint>,
    pace: &mut Pace,
) -> Option<Read> {
    thread::scope(|scope| {
        let (hand_over, taken) = sync_channel(0);
        let (done, copied) = sync_channel::<()>(0);
        let name = thread::Builder::new().name("keys".into());
        let mut its_pace = pace.clone();
        let spawned = name.spawn_scoped(scope, move || {
            let parsed = parse(path, scopes, hashing, known, &mut its_pace).map(Arc::new);
            // An end that is gone is one that nobody waits at.
            let _ = hand_over.send(parsed.clone());
            let _ = copied.recv();
            for _key in
                parsed.and_then(Arc::into_inner).and_then(|parsed| parsed.file).unwrap_or_default().keys
            {
                its_pace.step();
            }
        });
        let parsed = match spawned {
            Ok(_) => taken.recv().expect("the thread hands over what it has read, good or bad"),
            Err(error) => {
                // The memory is of less weight than a revocation.
                tracing::warn!(%error, "no thread could be started; the keys file is read without one");
                parse(path, scopes, hashing, known, pace).map(Arc::new)
            }
        };
        let read = parsed.as_ref().map(|parsed| Read {
            fingerprint: parsed.fingerprint,
            part: parsed.file.as_ref().map(|file| Part::new(path, file, scopes, pace)),
            problems: parsed.problems.clone(),
        });
        drop(parsed);
        drop(done);
        read
    })
}

/// The same before it is made to be kept.
struct Parsed {
    fingerprint: Option<Fingerprint>,
    file: Option<KeysFile>,
    problems: Problems,
}

fn parse(
    path: &Path,
    scopes: &Scopes,
    hashing: &Hashing,
    known: Option<Fingerprint>,
    pace: &mut Pace,
) -> Option<Parsed> {
    if known.is_some() && fingerprint(path, pace).ok() == known {
        return None;
    }
    let mut hash = Sha256::new();
    let text = file::read_looking(path, &mut |piece| {
        hash.update(piece);
        pace.step();
    });
    let text = match text {
        Ok(text) => text,
        Err(problems) => return Some(Parsed { fingerprint: None, file: None, problems }),
    };
    let (file, problems) = taken(path, &text, scopes, hashing, pace);
    Some(Parsed { fingerprint: Some(hash.finalize().into()), file, problems })
}

/// What a text says; nothing where it is refused whole.
fn taken(
    path: &Path,
    text: &str,
    scopes: &Scopes,
    hashing: &Hashing,
    pace: &mut Pace,
) -> (Option<KeysFile>, Problems) {
    match file::parse_keys_resting(path, text, scopes, hashing, &mut || pace.step()) {
        Ok(Loaded { value, problems }) => (Some(value), problems),
        Err(problems) => (None, problems),
    }
}

/// Piece by piece: most looks end here, and a file may have hundreds of megabytes.
fn fingerprint(path: &Path, pace: &mut Pace) -> io::Result<Fingerprint> {
    let (mut file, mut piece, mut hash) = (File::open(path)?, vec![0; PIECE], Sha256::new());
    loop {
        pace.step();
        match file.read(&mut piece)? {
            0 => return Ok(hash.finalize().into()),
            count => hash.update(piece.get(..count).unwrap_or_default()),
        }
    }
}

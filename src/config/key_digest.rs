//! `key_digest:`: how a key becomes the digest that sources know it by.

use std::fs::File;
use std::io::{self, Read as _};
use std::path::{Path, PathBuf};

use super::fields::{Fields, Report};
use super::node::{Node, Value};
use crate::identity::hashing::Hashing;

/// How a key becomes the digest that sources know it by.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct KeyDigest {
    /// Where the pepper stands; `None` without one.
    pub pepper_file: Option<PathBuf>,
    /// With the pepper in it, if there is one.
    pub hashing: Hashing,
}

impl KeyDigest {
    /// Half of what a digest has: nobody tries all of them.
    const SHORTEST: usize = 16;
    /// What is longer is another file.
    const LONGEST: u64 = 4096;

    pub(super) fn read(node: &Node, path: &Path, report: &mut Report<'_>) -> Option<Self> {
        if let Value::Text(_) = node.value {
            return node.one_of("`key_digest`", &[("sha256", ())], report).map(|()| Self::default());
        }
        let mut fields = Fields::of(node, "`key_digest`", report)?;
        let hint = "a file that holds the pepper: `key_digest: { hmac_sha256: pepper }`";
        let file = fields.need("hmac_sha256", hint, report);
        fields.done(report);
        let folder = path.parent().unwrap_or(Path::new(""));
        let (node, file) = (file?, folder.join(file?.text("`hmac_sha256`", report)?));
        match pepper(&file) {
            Ok(pepper) => {
                let hashing = Hashing::with_pepper(pepper.trim_ascii());
                Some(Self { pepper_file: Some(file), hashing })
            }
            Err(error) => {
                report.error(
                    node.place,
                    format!("the pepper cannot be read from {}: {error}", file.display()),
                    "`openssl rand -hex 32` makes one; keep it where the digests are not",
                );
                None
            }
        }
    }
}

fn pepper(file: &Path) -> io::Result<Vec<u8>> {
    let mut bytes = Vec::new();
    File::open(file)?.take(KeyDigest::LONGEST + 1).read_to_end(&mut bytes)?;
    let length = bytes.trim_ascii().len();
    if bytes.len() as u64 > KeyDigest::LONGEST {
        return Err(io::Error::other(format!("it has more than {} bytes", KeyDigest::LONGEST)));
    }
    if length < KeyDigest::SHORTEST {
        let shortest = KeyDigest::SHORTEST;
        return Err(io::Error::other(format!("it has {length} bytes, and must have {shortest} at least")));
    }
    Ok(bytes)
}

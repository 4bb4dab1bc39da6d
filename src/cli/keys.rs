//! `scopegate keys`: makes keys and their entries in a keys file.

use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, SystemTime};

use anyhow::{Context as _, bail, ensure};
use clap::{Args, Subcommand};
use data_encoding::{BASE64URL_NOPAD, HEXLOWER};

use crate::config::file::{parse_keys, read};
use crate::config::problem::Severity;
use crate::identity::key::Digest;
use crate::identity::scope::Scopes;

/// What keys made here begin with, so that a person can tell them from others.
const PREFIX: &str = "sgk_";
/// 256 bits: nobody guesses one, and a fast digest of it is safe.
const RANDOM_BYTES: usize = 32;
/// Far above any key that there is; below what a mistaken pipe would bring.
const LONGEST: u64 = 4096;

/// A thousand years.
const LONGEST_LIFE: Duration = Duration::from_secs(1000 * 366 * 86_400);

#[derive(Debug, Subcommand)]
pub(super) enum Keys {
    /// Make a key from the system's randomness. It is shown once, and kept nowhere.
    New(Entry),
    /// Digest a key that already exists, such as one that TelAPI made.
    Add {
        /// Read the key from standard input, where no shell history keeps it.
        #[arg(long, required = true)]
        stdin: bool,
        #[command(flatten)]
        entry: Entry,
    },
}

/// What the entry says beside the digest.
#[derive(Debug, Args)]
pub(super) struct Entry {
    /// The team that the key belongs to.
    #[arg(long)]
    team: String,
    /// A scope that the key gets; may be given more than once.
    #[arg(long = "scope", value_name = "SCOPE", required = true)]
    scopes: Vec<String>,
    /// The name of the key in logs [default: a random one].
    #[arg(long)]
    id: Option<String>,
    /// A name for people [default: the id].
    #[arg(long)]
    name: Option<String>,
    /// Who made the key.
    #[arg(long, value_name = "WHO")]
    created_by: Option<String>,
    /// When the key expires: a date (2027-01-31), a time in RFC 3339, or a duration from now (90days).
    #[arg(long, value_name = "WHEN")]
    expires: Option<String>,
    /// Append the entry to this keys file; without it the entry is printed, to be pasted under `keys:`.
    #[arg(long, value_name = "FILE")]
    file: Option<PathBuf>,
}

/// Makes the entry, and appends or prints it.
pub(super) fn run(command: Keys) -> anyhow::Result<ExitCode> {
    let (entry, digest, shown) = match command {
        Keys::New(entry) => {
            let key = format!("{PREFIX}{}", BASE64URL_NOPAD.encode(&random::<RANDOM_BYTES>()?));
            (entry, Digest::of(key.as_bytes()), Some(key))
        }
        Keys::Add { stdin: _, entry } => (entry, from_stdin()?, None),
    };
    let row = entry.row(digest)?;
    match &entry.file {
        Some(file) => append(file, &row)?,
        None => print!("{}", indented(&row, "  ")),
    }
    if let Some(file) = &entry.file {
        eprintln!("added to {}", file.display());
    }
    if let Some(key) = shown {
        eprintln!("the key, shown this once:");
        // On standard output alone where the entry went to a file, so that it can be piped on.
        if entry.file.is_some() { println!("{key}") } else { eprintln!("{key}") }
    }
    Ok(ExitCode::SUCCESS)
}

impl Entry {
    /// The lines of the entry, the first of them with the dash.
    fn row(&self, digest: Digest) -> anyhow::Result<Vec<String>> {
        let id = match &self.id {
            Some(id) => id.clone(),
            None => format!("k-{}", HEXLOWER.encode(&random::<5>()?)),
        };
        let name = self.name.as_ref().unwrap_or(&id);
        let mut row = vec![
            format!("- id: {}", quoted(&id)),
            format!("  team: {}", quoted(&self.team)),
            format!("  name: {}", quoted(name)),
            format!("  digest: {digest}"),
            format!(
                "  scopes: [{}]",
                self.scopes.iter().map(|scope| quoted(scope)).collect::<Vec<_>>().join(", ")
            ),
            format!("  created: {}", humantime::format_rfc3339_seconds(SystemTime::now())),
        ];
        row.extend(self.created_by.as_ref().map(|who| format!("  created_by: {}", quoted(who))));
        if let Some(when) = &self.expires {
            row.push(format!("  expires: {}", humantime::format_rfc3339_seconds(time(when)?)));
        }
        Ok(row)
    }
}

fn random<const N: usize>() -> anyhow::Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|error| anyhow::anyhow!("the system has no randomness: {error}"))?;
    Ok(bytes)
}

/// The digest of a key on standard input; white space around it is the shell's, not the key's.
fn from_stdin() -> anyhow::Result<Digest> {
    let mut text = Vec::new();
    std::io::stdin().take(LONGEST + 1).read_to_end(&mut text).context("cannot read standard input")?;
    let key = text.trim_ascii();
    ensure!(text.len() as u64 <= LONGEST, "standard input holds more than {LONGEST} bytes: that is no key");
    ensure!(
        !key.is_empty(),
        "standard input is empty: pipe the key in, for example from your password manager"
    );
    ensure!(
        key.iter().all(u8::is_ascii_graphic),
        "a key is one word of visible ASCII characters; standard input is not"
    );
    Ok(Digest::of(key))
}

fn time(when: &str) -> anyhow::Result<SystemTime> {
    if let Ok(time) =
        humantime::parse_rfc3339(when).or_else(|_| humantime::parse_rfc3339(&format!("{when}T00:00:00Z")))
    {
        return Ok(time);
    }
    match humantime::parse_duration(when) {
        // Past the year 9999 there is no way to write it.
        Ok(duration) if duration < LONGEST_LIFE => Ok(SystemTime::now() + duration),
        Ok(_) | Err(_) => bail!(
            "`--expires {when}` is not a date (2027-01-31), time (2027-01-31T12:00:00Z) or duration (90days)"
        ),
    }
}

/// A YAML scalar: plain where that cannot be misread, in double quotes otherwise.
fn quoted(text: &str) -> String {
    let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_-.@".contains(&byte);
    let word = text.bytes().all(plain) && text.bytes().next().is_some_and(|byte| byte.is_ascii_alphabetic());
    let keyword = ["true", "false", "null", "yes", "no", "on", "off"]
        .iter()
        .any(|word| text.eq_ignore_ascii_case(word));
    if word && !keyword { text.to_owned() } else { serde_json::Value::from(text).to_string() }
}

fn indented(row: &[String], indent: &str) -> String {
    row.iter().map(|line| format!("{indent}{line}\n")).collect()
}

/// Adds the entry to the end of the file's `keys:`, and changes nothing else of it, comments included.
fn append(file: &Path, row: &[String]) -> anyhow::Result<()> {
    let text = read(file)?;
    let before = parse_keys(file, &text, &Scopes::default())?.value;
    let with = inserted(&text, row).with_context(|| {
        format!(
            "`keys:` of {} is not a list with one `- id: ...` block a key; paste this there yourself:\n{}",
            file.display(),
            indented(row, "  ")
        )
    })?;
    let after = parse_keys(file, &with, &Scopes::default())?;
    let kept =
        after.value.keys.get(..before.keys.len()) == Some(&*before.keys) && after.value.teams == before.teams;
    let added = after.value.keys.len() == before.keys.len() + 1 && after.value.refused == before.refused;
    if !kept || !added {
        for problem in after.problems.iter().filter(|problem| problem.severity == Severity::Error) {
            eprintln!("{problem}");
        }
        bail!("{} is left as it was: with the new entry it would not be good (see above)", file.display());
    }
    // Whole or not at all: a reader sees the old file or the new one.
    let folder = file.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    let mut new = tempfile::NamedTempFile::new_in(folder)
        .with_context(|| format!("cannot write in {}", folder.display()))?;
    new.write_all(with.as_bytes())?;
    new.as_file().set_permissions(std::fs::metadata(file)?.permissions())?;
    new.as_file().sync_all()?;
    let file = std::fs::canonicalize(file)?;
    new.persist(&file).with_context(|| format!("cannot replace {}", file.display()))?;
    Ok(())
}

/// The text with the entry behind the last one of `keys:`; nothing where that is not a block list.
fn inserted(text: &str, row: &[String]) -> Option<String> {
    let mut lines: Vec<&str> = text.lines().collect();
    let Some(start) = lines.iter().position(|line| line.starts_with("keys:")) else {
        return Some(format!("{}\nkeys:\n{}", text.trim_end(), indented(row, "  ")));
    };
    let value = lines.get(start)?.strip_prefix("keys:")?.split('#').next()?.trim();
    if value == "[]" {
        *lines.get_mut(start)? = "keys:";
    } else if !value.is_empty() {
        return None;
    }
    let behind = lines.iter().skip(start + 1);
    let is_other = |line: &&str| !(line.is_empty() || line.starts_with([' ', '-', '#']));
    let section = behind.clone().position(is_other).map_or(lines.len(), |other| start + 1 + other);
    let end =
        lines.iter().take(section).rposition(|line| !line.trim().is_empty() && !line.starts_with('#'))? + 1;
    let first = behind.take(section - start - 1).find(|line| line.trim_start().starts_with('-'));
    let indent = first.map_or("  ", |line| line.split('-').next().unwrap_or_default());
    let entry = indented(row, indent);
    lines.splice(end..end, entry.lines());
    Some(lines.join("\n") + "\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_entry_goes_behind_the_last_and_nothing_else_changes() {
        let row = ["- id: new".to_owned(), "  team: t".to_owned()];
        let check =
            |text: &str, wanted: Option<&str>| assert_eq!(inserted(text, &row).as_deref(), wanted, "{text}");
        check("teams: {}\n", Some("teams: {}\nkeys:\n  - id: new\n    team: t\n"));
        check("keys: []\nteams: {}\n", Some("keys:\n  - id: new\n    team: t\nteams: {}\n"));
        check(
            "# top\nkeys:\n- id: old # it\n  team: t\n\n# end\nteams: {}\n",
            Some("# top\nkeys:\n- id: old # it\n  team: t\n- id: new\n  team: t\n\n# end\nteams: {}\n"),
        );
        check("keys:\n    - id: old\n", Some("keys:\n    - id: old\n    - id: new\n      team: t\n"));
        check("keys: [{ id: old }]\n", None);
    }

    #[test]
    fn what_could_be_misread_is_quoted() {
        for (text, wanted) in [
            ("acme-web", "acme-web"),
            ("no", "\"no\""),
            ("1e3", "\"1e3\""),
            ("a: b", "\"a: b\""),
            ("", "\"\""),
        ] {
            assert_eq!(quoted(text), wanted);
        }
    }
}

//! What a person is told of a mistake, word for word: tests/bad-config/x.yaml beside x.txt.
//!
//! `UPDATE_GOLDEN=1 cargo test bad_config` writes the texts anew; read them before you commit them.

use std::fs;
use std::path::{Path, PathBuf};

use scopegate::config::file::{parse, parse_keys, read};
use scopegate::identity::scope::Scopes;

fn yaml_files(folder: &str) -> Vec<PathBuf> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join(folder);
    let entries = fs::read_dir(folder)
        .expect("a folder of the repository")
        .map(|entry| entry.expect("an entry").path());
    let mut files: Vec<_> =
        entries.filter(|path| path.extension().is_some_and(|ending| ending == "yaml")).collect();
    files.sort();
    files
}

/// What is said of a file, and how many of its rows are refused.
fn said(file: &Path) -> String {
    let name = Path::new(file.file_name().expect("a file"));
    let text = read(file).expect("a readable file");
    if name.to_string_lossy().starts_with("keys") {
        let scopes =
            Scopes::new(["CREATE_CALL_TOKEN", "READ_CALL_TOKEN", "READ_TEAM_APPS"].map(Box::from).to_vec());
        return match parse_keys(name, &text, &scopes) {
            Ok(read) => {
                format!("{}kept {}, refused {}\n", read.problems, read.value.keys.len(), read.value.refused)
            }
            Err(problems) => problems.to_string(),
        };
    }
    match parse(name, &text) {
        Ok(read) => format!("{}good\n", read.problems),
        Err(problems) => problems.to_string(),
    }
}

#[test]
fn every_mistake_is_told_as_it_is_written_down() {
    let update = std::env::var_os("UPDATE_GOLDEN").is_some();
    let mut wrong = Vec::new();
    for file in yaml_files("tests/bad-config") {
        let (said, golden) = (said(&file), file.with_extension("txt"));
        if update {
            fs::write(&golden, &said).expect("a writable folder");
        }
        let wanted = fs::read_to_string(&golden).unwrap_or_default();
        if said != wanted {
            wrong.push(format!("{}\n--- wanted\n{wanted}--- said\n{said}", file.display()));
        }
        assert!(!said.contains("do_not_show"), "a secret is shown:\n{said}");
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_shipped_file_is_good() {
    for file in yaml_files("config") {
        let said = said(&file);
        assert!(!said.contains("error:") && !said.contains("warning:"), "{said}");
    }
}

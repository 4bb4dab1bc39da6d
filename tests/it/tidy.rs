//! The house in order: who may look into which room, how long a file may be, and documents that agree with the code.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

/// ARCHITECTURE.md, "Rooms": a module imports only from rows below its own.
const ROWS: [&[&str]; 13] = [
    &["main"],
    &["cli"],
    &["app"],
    &["gateway", "admin", "reload"],
    &["channel", "revoke", "secure", "session"],
    &["exchange"],
    &["refuse", "snapshot"],
    &["forward"],
    &["decide"],
    &["accept", "keys", "limits", "flags"],
    &["observe", "tls"],
    &["config"],
    &["message", "identity", "socket"],
];
/// A file that is longer is two files.
const LONGEST_FILE: usize = 400;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

fn files(folder: &Path, ending: &str) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of the repository") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(files(&path, ending));
        } else if path.extension().is_some_and(|known| known == ending) {
            found.push(path);
        }
    }
    found.sort();
    found
}

fn row(module: &str) -> usize {
    ROWS.iter()
        .position(|row| row.contains(&module))
        .unwrap_or_else(|| panic!("`{module}` has no row in tidy.rs"))
}

#[test]
fn modules_look_down_only() {
    let mut wrong = Vec::new();
    let src = root().join("src");
    for file in files(&src, "rs") {
        let inside = file.strip_prefix(&src).expect("inside src");
        let first = inside.iter().next().and_then(|name| name.to_str()).expect("a name");
        let from = first.trim_end_matches(".rs");
        if from == "lib" {
            continue;
        }
        let text = fs::read_to_string(&file).expect("a source file");
        for (number, line) in text.lines().enumerate() {
            for to in line
                .split("crate::")
                .skip(1)
                .map(|rest| rest.split(|c: char| !c.is_alphanumeric() && c != '_').next())
            {
                let to = to.unwrap_or_default();
                let (to_row, from_row) = (row(to), row(from));
                let allowed = to == from || to_row > from_row;
                if !allowed {
                    wrong.push(format!("src/{}:{}: {from} -> {to}", inside.display(), number + 1));
                }
            }
        }
    }
    assert!(wrong.is_empty(), "modules that look up or sideways:\n{}", wrong.join("\n"));
}

#[test]
fn files_are_short() {
    let source = files(&root().join("src"), "rs");
    let tests = files(&root().join("tests/it"), "rs");
    let long = source.iter().chain(&tests).filter_map(|file| {
        let lines = fs::read_to_string(file).expect("a source file").lines().count();
        (lines > LONGEST_FILE).then(|| format!("{}: {lines} lines", file.display()))
    });
    let long: Vec<_> = long.collect();
    assert!(long.is_empty(), "files over {LONGEST_FILE} lines:\n{}", long.join("\n"));
}

#[test]
fn the_architecture_page_has_the_rows_of_this_test() {
    let page = fs::read_to_string(root().join("ARCHITECTURE.md")).expect("ARCHITECTURE.md");
    for (number, row) in ROWS.iter().enumerate() {
        let modules = row.iter().map(|module| format!("`{module}`")).collect::<Vec<_>>().join(" ");
        let wanted = format!("| {} | {modules} |", number + 1);
        assert!(page.contains(&wanted), "ARCHITECTURE.md lacks the row `{wanted}`");
    }
}

/// The cells of a page's table rows whose first cell is in backticks.
fn table(page: &str) -> Vec<Vec<String>> {
    let text = fs::read_to_string(root().join(page)).expect("a page");
    let rows = text.lines().filter(|line| line.starts_with("| `"));
    rows.map(|line| line.trim_matches('|').split('|').map(|cell| cell.trim().to_owned()).collect()).collect()
}

#[test]
fn the_errors_page_is_the_table_of_reasons() {
    use scopegate::observe::reason::Reason;
    let wanted = Reason::ALL.map(|reason| {
        let row = reason.row();
        let (status, grpc) = (row.status.to_string(), row.grpc.to_string());
        vec![format!("`{}`", row.code), status, grpc, row.message.to_owned()]
    });
    assert_eq!(table("docs/errors.md"), wanted);
}

#[test]
fn the_metrics_page_is_what_is_exported() {
    let metrics = fs::read_to_string(root().join("src/observe/metrics.rs")).expect("metrics.rs");
    let quoted = metrics.split('"').collect::<Vec<_>>();
    let named = quoted
        .windows(3)
        .filter(|three| three[0].starts_with("scopegate_"))
        .map(|three| (three[0], three[2]));
    let exported: BTreeSet<_> = named.map(|(name, help)| (format!("`{name}`"), help.to_owned())).collect();
    let rows = table("docs/metrics.md");
    let listed: BTreeSet<_> =
        rows.into_iter().map(|mut row| (row.remove(0), row.pop().expect("a meaning"))).collect();
    assert_eq!(listed, exported);
}

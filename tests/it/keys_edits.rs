//! A keys file that a command changes: nothing but what was asked, by one at a time, or not at all.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::os::unix::fs::PermissionsExt as _;
use std::process::{Command, Stdio};

use regex::Regex;
use scopegate::identity::key::Digest;
use tempfile::TempDir;

use crate::harness::commands::{bad, good, keys, text};
use crate::harness::scopegate::{Setup, row};

const NEW: [&str; 5] = ["new", "--team", "acme", "--scope", "A"];

/// A keys file with comments, and a row in each of the ways to write one.
fn file() -> (TempDir, String, String) {
    let digest = |key: &str| Digest::of(key.as_bytes()).to_string();
    let text = format!(
        "# kept\nteams:\n  acme: {{ scopes: [A], max_keys: 9 }} # kept too\n\nkeys: # é\n  - id: block   # its id\n    digest: {} # its digest\n    team: acme\n    \
         scopes:\n      - A\n  # between\n  - {{ id: braces, team: acme, scopes: [A], digest: '{}' }}   # é\n\n# the end",
        digest("sk_live_block"),
        digest("sk_live_braces")
    );
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.yaml");
    fs::write(&path, &text).expect("a file");
    (folder, path.display().to_string(), text)
}

fn said_of(path: &str) -> String {
    fs::read_to_string(path).expect("a file")
}

#[test]
fn every_byte_stays_that_is_not_asked_for() {
    let (_folder, path, before) = file();
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("a file");
    let place = ["--file", &path];
    for id in ["block", "braces"] {
        good(&[&["rotate", id][..], &place].concat(), "");
        good(&[&["revoke", id, "--reason", "a: b"][..], &place].concat(), "");
    }
    good(&[&NEW[..], &place].concat(), "");
    let after = said_of(&path);
    let digest = "sha256:[0-9a-f]{64}";
    let masked = [(digest, "D"), ("20[0-9T:-]+Z", "T"), ("k-[0-9a-f]{10}", "ID")];
    let masked = masked.iter().fold(after, |text, (pattern, word)| {
        Regex::new(pattern).expect("a pattern").replace_all(&text, *word).into_owned()
    });
    let (off, previous) = ("disabled_reason: \"a: b\"", "previous: { digest: D, since: T, until: T }");
    let row = "  - id: ID\n    team: acme\n    name: ID\n    digest: D\n    scopes: [A]\n    created: T\n";
    let block = format!("digest: D # its digest\n    disabled: true\n    {off}\n    {previous}\n");
    let wanted = Regex::new(&format!("'?{digest}'?")).expect("a pattern").replace_all(&before, "D");
    let wanted = wanted
        .replace("digest: D # its digest\n", &block)
        .replace("digest: D }", &format!("digest: D, disabled: true, {off}, {previous} }}"))
        .replace("\n\n# the end", &format!("\n{row}\n# the end"));
    assert_eq!(masked, wanted);
    assert_eq!(fs::metadata(&path).expect("a file").permissions().mode() & 0o777, 0o640);
    let again = good(&[&["list"][..], &place].concat(), "");
    assert!(again.lines().filter(|line| line.contains("disabled")).count() == 2, "{again}");
}

#[test]
fn what_would_not_be_good_leaves_the_file_as_it_was() {
    let (folder, path, before) = file();
    let check = |text: &str, arguments: &[&str], input: &str, said: &str| {
        fs::write(&path, text).expect("a file");
        let told = bad(&[arguments, &["--file", &path]].concat(), input);
        assert!(told.contains(said), "{told}");
        assert_eq!(said_of(&path), text, "{arguments:?}");
        let left = fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 1, "nothing is left lying about");
    };
    let rotate = |id| ["rotate", id, "--stdin"];
    check(&before, &rotate("none"), "sk_live_x", "there is no key with the id `none`");
    check(&before, &rotate("block"), "sk_live_braces", "that of `braces`");
    check(&before, &rotate("block"), "sk_live_block", "that of `block`");
    check(&before, &["rotate", "block", "--prefix", "not a prefix"], "", "a prefix is");
    check(&format!("{before}\nkeyz: []"), &["revoke", "block"], "", "unknown field");
    check(
        &before.replace("team: acme", "team: nobody"),
        &["revoke", "block"],
        "",
        "rows that have a mistake",
    );
    check("teams: {", &NEW, "", "not valid YAML");
    let digest = Digest::of(b"k");
    let row = format!("{{ id: a, team: acme, digest: '{digest}', scopes: [] }}");
    let flow = format!("teams: {{ acme: {{ scopes: [A] }} }}\nkeys: [{row}]\n");
    check(&flow, &NEW, "", "paste this there yourself");
}

#[test]
fn a_link_stays_one() {
    let (folder, path, _) = file();
    let link = folder.path().join("link.yaml");
    std::os::unix::fs::symlink(&path, &link).expect("a link");
    good(&[&NEW[..], &["--id", "linked", "--file", &link.display().to_string()]].concat(), "");
    assert!(fs::symlink_metadata(&link).expect("a link").is_symlink());
    assert!(said_of(&path).contains("linked"));
}

#[test]
fn who_writes_waits_for_another_who_does() {
    let (folder, path, _) = file();
    let other = fs::File::open(folder.path()).expect("a folder");
    other.lock().expect("a lock");
    let mut child = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .args([&["keys"], &NEW[..], &["--id", "late", "--file", &path]].concat())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut said = BufReader::new(child.stderr.take().expect("a pipe"));
    let mut line = String::new();
    said.read_line(&mut line).expect("a line");
    assert!(line.starts_with("waiting for another who changes keys in "), "{line}");
    assert!(!said_of(&path).contains("late"));
    drop(other);
    assert!(child.wait().expect("an end").success());
    assert!(said_of(&path).contains("late"));
}

#[test]
fn many_writers_lose_nothing() {
    let (_folder, path, _) = file();
    std::thread::scope(|scope| {
        for number in 0..6 {
            let path = &path;
            scope.spawn(move || {
                good(&[&NEW[..], &["--id", &format!("at-once-{number}"), "--file", path]].concat(), "")
            });
        }
    });
    let after = said_of(&path);
    for number in 0..6 {
        assert!(after.contains(&format!("id: at-once-{number}\n")), "{after}");
    }
    assert!(good(&["list", "--file", &path], "").lines().count() == 1 + 2 + 6);
}

#[test]
fn a_certificate_is_turned_off_like_a_key_and_never_rotated() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("keys.yaml");
    let rows = "teams: { acme: { scopes: [A] } }\nkeys:\n  - id: block\n    team: acme\n    certificate: CN=block\n    scopes: [A]\n  \
                - { id: braces, team: acme, certificate: 'CN=braces', scopes: [A] }\n";
    fs::write(&path, rows).expect("a file");
    let name = path.display().to_string();
    for id in ["block", "braces"] {
        let told = bad(&["rotate", id, "--file", &name], "");
        assert!(told.contains("is a certificate, which is renewed where it was made"), "{told}");
        assert!(!said_of(&name).contains("previous"));
        good(&["revoke", id, "--file", &name], "");
    }
    let wanted = rows
        .replace("CN=block\n", "CN=block\n    disabled: true\n")
        .replace("'CN=braces'", "'CN=braces', disabled: true");
    assert_eq!(said_of(&name), wanted);
}

#[test]
fn a_key_of_another_file_of_the_folder_is_not_made_twice() {
    let folder = tempfile::tempdir().expect("a folder");
    let write = |name: &str, text: &str| {
        let path = folder.path().join(name);
        fs::write(&path, text).expect("a file");
        path.display().to_string()
    };
    let (old, new) = ("sk_live_old", "sk_live_new");
    let previous = format!(", previous: {{ digest: '{}', until: 2099-01-01 }}", Digest::of(old.as_bytes()));
    let rows = row("sk_live_a", "acme", "A", &previous) + &row("sk_live_bad", "nobody", "A", "");
    write("a.yaml", &format!("teams: {{ acme: {{ scopes: [A], max_keys: 9 }} }}\nkeys:\n{rows}"));
    let file = write("b.yaml", "teams: { other: { scopes: [A], max_keys: 9 } }\nkeys: []\n");
    // What is no keys file has no keys.
    write("scopegate.yaml", "listen: [{ address: 127.0.0.1:0 }] # id-a\n");
    write(".a.yaml", &format!("teams: {{ acme: {{ scopes: [A] }} }}\nkeys:\n{}", row(new, "acme", "A", "")));
    let add = |id: &str, key: &str, more: &[&str]| {
        let arguments = ["add", "--stdin", "--team", "other", "--scope", "A", "--id", id, "--file", &file];
        keys(&[&arguments[..], more].concat(), key)
    };
    for (id, key, said) in [
        ("id-a", new, "its id is that of `id-a` in"),
        ("mine", "sk_live_a", "its digest is that of `id-a` in"),
        ("mine", old, "its digest is that of `id-a` in"),
        ("id-bad", new, "its id is that of `id-bad` in"),
    ] {
        let output = add(id, key, &[]);
        let told = text(&output.stderr);
        assert!(!output.status.success() && told.contains(said) && told.contains("a.yaml already"), "{told}");
    }
    assert!(add("mine", new, &[]).status.success());
    let rotate = bad(&["rotate", "mine", "--stdin", "--file", &file], "sk_live_a");
    assert!(rotate.contains("its digest is that of `id-a` in"), "{rotate}");
    // A configuration that reads this file alone says that the others do not count.
    let config = write(
        "alone.yaml",
        &Setup::at("127.0.0.1:9", "127.0.0.1:9")
            .with("keys.yaml", "b.yaml")
            .with("scopes: [", "scopes: [A, ")
            .config,
    );
    assert!(add("id-a", "sk_live_more", &["--config", &config]).status.success());
}

//! Keys in a folder of files, one a team: a mistake in one of them is a mistake of that one.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::process::Command;

use scopegate::identity::key::Digest;

use crate::harness::client::Client;
use crate::harness::mount::mount;
use crate::harness::scopegate::{Scopegate, Setup, row};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

const ANN: &str = "sk_live_ann";
const BOB: &str = "sk_live_bob";
const EVE: &str = "sk_live_eve";

/// The keys file of a team with these keys.
fn team(name: &str, keys: &[&str]) -> String {
    let rows: String = keys.iter().map(|key| row(key, name, "READ_TEAM_APPS", "")).collect();
    format!("teams:\n  {name}: {{ scopes: [READ_TEAM_APPS] }}\nkeys:\n{rows}")
}

fn setup(upstream: &Upstream) -> Setup {
    Setup::new(upstream).with("file: keys.yaml", "folder: keys.d")
}

/// The program on a folder with these files.
fn start(upstream: &Upstream, files: &[(&str, &str)]) -> Scopegate {
    let folder = setup(upstream).write();
    fs::create_dir(folder.path().join("keys.d")).expect("a folder");
    for (name, text) in files {
        fs::write(folder.path().join("keys.d").join(name), text).expect("a file");
    }
    Scopegate::start(folder)
}

fn status(scopegate: &Scopegate, key: &str) -> u16 {
    let mut client = Client::connect(scopegate.address);
    client.ask(crate::harness::client::request("GET", "/api/v1/apps", &bearer(key), "")).status
}

fn until(scopegate: &Scopegate, key: &str, wanted: u16) {
    eventually(&format!("{key}: {wanted}"), || (status(scopegate, key) == wanted).then_some(()));
}

fn replace(scopegate: &Scopegate, name: &str, text: &str) {
    let folder = scopegate.file("keys.d");
    fs::write(folder.join(format!(".{name}.new")), text).expect("a file");
    fs::rename(folder.join(format!(".{name}.new")), folder.join(name)).expect("a rename");
}

fn told(scopegate: &Scopegate, words: &[&str]) {
    scopegate.event(|event| {
        let problem = event["problem"].as_str().unwrap_or_default();
        words.iter().all(|word| problem.contains(word))
    });
}

#[test]
fn every_file_of_the_folder_is_read_and_nothing_else() {
    let upstream = Upstream::start();
    let files = [
        ("a.yaml", &*team("ann", &[ANN])),
        ("b.yml", &*team("bob", &[BOB])),
        (".c.yaml", &*team("eve", &[EVE])),
        ("d.yaml.old", "no keys: ["),
    ];
    let scopegate = start(&upstream, &files);
    assert_eq!([ANN, BOB, EVE].map(|key| status(&scopegate, key)), [200, 200, 401]);
    assert_eq!(scopegate.metric("scopegate_keys_loaded"), 2.0);
    assert_eq!(scopegate.metric("scopegate_keys_refused"), 0.0);
    let shown = scopegate.ask_admin("/config").text();
    assert!(shown.contains("keys.d"), "{shown}");
}

#[test]
fn a_file_that_is_refused_holds_back_no_other_and_keeps_what_it_had() {
    let upstream = Upstream::start();
    let (ann, bob, eve) = (team("ann", &[ANN]), team("bob", &[BOB]), team("eve", &[EVE]));
    let scopegate = start(&upstream, &[("a.yaml", "teams: ["), ("b.yaml", &bob)]);
    assert_eq!([ANN, BOB].map(|key| status(&scopegate, key)), [401, 200], "from the start");
    told(&scopegate, &["a.yaml:1:", "not valid YAML"]);
    assert_eq!(scopegate.metric("scopegate_keys_refused"), 1.0, "the file");
    replace(&scopegate, "a.yaml", &ann);
    until(&scopegate, ANN, 200);
    assert_eq!(scopegate.metric("scopegate_keys_refused"), 0.0);
    // One breaks, one comes, and one loses its key.
    replace(&scopegate, "a.yaml", &ann.replace("keys:", "kyes:"));
    replace(&scopegate, "b.yaml", &team("bob", &[]));
    replace(&scopegate, "c.yaml", &eve);
    until(&scopegate, BOB, 401);
    until(&scopegate, EVE, 200);
    eventually("a refused reload", || {
        (scopegate.metric(r#"scopegate_reloads_total{file="keys",result="refused"}"#) >= 1.0).then_some(())
    });
    assert_eq!(status(&scopegate, ANN), 200, "its last good keys");
}

#[test]
fn a_file_that_is_removed_takes_its_keys_with_it() {
    let upstream = Upstream::start();
    let scopegate = start(&upstream, &[("a.yaml", &team("ann", &[ANN])), ("b.yaml", &team("bob", &[BOB]))]);
    assert_eq!(status(&scopegate, ANN), 200);
    fs::remove_file(scopegate.file("keys.d").join("a.yaml")).expect("a file");
    until(&scopegate, ANN, 401);
    assert_eq!(status(&scopegate, BOB), 200);
    // The folder itself is no file: what was good stays in force.
    fs::rename(scopegate.file("keys.d"), scopegate.file("elsewhere")).expect("a rename");
    told(&scopegate, &["keys.d", "cannot be read"]);
    assert_eq!(status(&scopegate, BOB), 200);
}

#[test]
fn what_two_files_say_is_believed_of_neither_and_told_with_both_places() {
    let upstream = Upstream::start();
    let (ann, bob) = (team("ann", &[ANN, EVE]), team("bob", &[BOB]));
    let twice = [
        // The same key under another id, another key under the same id, the same team.
        (
            team("bob", &[BOB, EVE]).replace("id-eve", "id-other"),
            ["a.yaml:5:", "digest", "b.yaml:5 too"],
            200,
        ),
        (team("bob", &[BOB]).replace("id-bob", "id-ann"), ["b.yaml:4:", "id-ann", "a.yaml:4 too"], 401),
        (team("ann", &[BOB]), ["b.yaml:2:", "team `ann`", "a.yaml:2 too"], 401),
    ];
    for (other, words, ann_stays) in twice {
        let scopegate = start(&upstream, &[("a.yaml", &ann), ("b.yaml", &other)]);
        told(&scopegate, &words);
        assert_eq!(status(&scopegate, ANN), ann_stays, "{words:?}");
        assert!(scopegate.metric("scopegate_keys_refused") >= 2.0);
        // Mended in the one file, the other is right again.
        replace(&scopegate, "b.yaml", &bob);
        for key in [ANN, BOB, EVE] {
            until(&scopegate, key, 200);
        }
        assert_eq!(scopegate.metric("scopegate_keys_refused"), 0.0);
        replace(&scopegate, "b.yaml", &other);
        until(&scopegate, if ann_stays == 200 { EVE } else { ANN }, 401);
    }
}

#[test]
fn a_row_that_is_refused_counts_where_another_file_has_its_digest() {
    let upstream = Upstream::start();
    let bad = team("bob", &[])
        + &row(ANN, "bob", "READ_TEAM_APPS", ", disabled: perhaps").replace("id-ann", "id-x");
    let scopegate = start(&upstream, &[("a.yaml", &team("ann", &[ANN])), ("b.yaml", &bad)]);
    assert_eq!(status(&scopegate, ANN), 401, "it may be the one that was to end the other");
}

#[test]
fn a_mounted_secret_is_followed() {
    let upstream = Upstream::start();
    let folder = setup(&upstream).write();
    let secret = folder.path().join("keys.d");
    let (ann, bob) = (team("ann", &[ANN]), team("bob", &[BOB]));
    mount(&secret, "2026_1", &[("a.yaml", &ann), ("b.yaml", &bob)]);
    let scopegate = Scopegate::start(folder);
    assert_eq!([ANN, BOB].map(|key| status(&scopegate, key)), [200, 200], "and none twice, through `..data`");
    mount(&secret, "2026_2", &[("a.yaml", &ann), ("b.yaml", &team("bob", &[]))]);
    until(&scopegate, BOB, 401);
    mount(&secret, "2026_3", &[("b.yaml", &bob)]);
    until(&scopegate, ANN, 401);
    until(&scopegate, BOB, 200);
    mount(&secret, "2026_4", &[("b.yaml", &bob), ("c.yaml", &ann)]);
    until(&scopegate, ANN, 200);
}

#[test]
fn only_the_file_that_changed_is_read_again() {
    let upstream = Upstream::start();
    let scopegate = start(&upstream, &[("a.yaml", &team("ann", &[ANN])), ("b.yaml", &team("bob", &[BOB]))]);
    let applied = || scopegate.metric(r#"scopegate_reloads_total{file="keys",result="applied"}"#);
    assert_eq!(status(&scopegate, ANN), 200);
    replace(&scopegate, "b.yaml", &team("bob", &[EVE]));
    until(&scopegate, EVE, 200);
    assert_eq!(applied(), 1.0);
}

#[test]
fn a_folder_may_come_and_go_by_the_configuration() {
    let upstream = Upstream::start();
    let scopegate = start(&upstream, &[("a.yaml", &team("ann", &[ANN]))]);
    scopegate.edit("scopegate.yaml", "folder: keys.d", "file: keys.yaml");
    until(&scopegate, ANN, 401);
    scopegate.edit("scopegate.yaml", "file: keys.yaml", "folder: keys.d");
    until(&scopegate, ANN, 200);
    // What the folder lacks stays as it was.
    scopegate.edit("scopegate.yaml", "folder: keys.d", "folder: none.d");
    told(&scopegate, &["none.d", "cannot be read"]);
    assert_eq!(status(&scopegate, ANN), 200);
}

fn check(folder: &Path) -> (i32, String) {
    let program = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .arg("check")
        .arg(folder.join("scopegate.yaml"))
        .output()
        .expect("the program");
    let said = [program.stdout, program.stderr].map(|bytes| String::from_utf8_lossy(&bytes).into_owned());
    (program.status.code().expect("an end"), said.concat())
}

#[test]
fn check_finds_what_serve_would_go_on_without() {
    let upstream = Upstream::start();
    let folder = setup(&upstream).write();
    let (code, said) = check(folder.path());
    assert!(code == 2 && said.contains("keys.d: error: cannot be read"), "{said}");
    let keys = folder.path().join("keys.d");
    fs::create_dir(&keys).expect("a folder");
    let (code, said) = check(folder.path());
    assert!(code == 0 && said.contains("keys.d: warning: this folder holds no keys file"), "{said}");
    fs::write(keys.join("a.yaml"), team("ann", &[ANN])).expect("a file");
    let (code, said) = check(folder.path());
    assert!(code == 0 && said.contains("1 teams, 1 keys"), "{said}");
    symlink("nowhere.yaml", keys.join("b.yaml")).expect("a link");
    let (code, said) = check(folder.path());
    assert!(code == 2 && said.contains("b.yaml: error: cannot be read"), "{said}");
}

/// The keys file of a team: `new` has replaced `old`, which opens the same for a long time.
fn rotated(name: &str, new: &str, old: &str, more: &str) -> String {
    let digest = Digest::of(old.as_bytes());
    let previous = format!(", previous: {{ digest: '{digest}', until: 2099-01-01 }}{more}");
    let row = row(new, name, "READ_TEAM_APPS", &previous);
    format!("teams:\n  {name}: {{ scopes: [READ_TEAM_APPS] }}\nkeys:\n{row}")
}

#[test]
fn a_digest_that_another_has_replaced_is_a_digest_in_every_file() {
    const OLD: &str = "sk_live_old";
    let upstream = Upstream::start();
    let alone = rotated("ann", ANN, OLD, "");
    for (other, loaded, opens) in [
        // A file of its own: old and new open, and are one key.
        (team("bob", &[BOB]), 2.0, [200, 200, 200]),
        // The old one is somebody's key, or has been replaced there too, or stands in a row that is refused.
        (team("bob", &[OLD]), 0.0, [401, 401, 401]),
        (rotated("bob", BOB, OLD, ""), 0.0, [401, 401, 401]),
        (rotated("bob", BOB, OLD, ", expires: soon"), 0.0, [401, 401, 401]),
        // The new one is what another has replaced.
        (rotated("bob", BOB, ANN, ""), 0.0, [401, 401, 401]),
    ] {
        let scopegate = start(&upstream, &[("a.yaml", &alone), ("b.yaml", &other)]);
        assert_eq!([ANN, OLD, BOB].map(|key| status(&scopegate, key)), opens, "{other}");
        assert_eq!(scopegate.metric("scopegate_keys_loaded"), loaded, "{other}");
        drop(scopegate);
        // In one file it is the same.
        let rows = other.split_once("keys:\n").expect("keys").1.replace("team: bob", "team: ann");
        let scopegate = start(&upstream, &[("a.yaml", &format!("{alone}{rows}"))]);
        assert_eq!([ANN, OLD, BOB].map(|key| status(&scopegate, key)), opens, "{other}");
        assert_eq!(scopegate.metric("scopegate_keys_loaded"), loaded, "{other}");
    }
}

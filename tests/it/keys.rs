//! `scopegate keys`: what it makes opens what it says.

use std::fs;

use crate::harness::client::get;
use crate::harness::commands::{keys, text};
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

/// With room for more keys than its team has.
fn setup(upstream: &Upstream) -> Setup {
    let mut setup = Setup::new(upstream);
    setup.keys = setup.keys.replace("READ_TEAM_APPS] }\n  poor", "READ_TEAM_APPS], max_keys: 20 }\n  poor");
    setup
}

fn opens(scopegate: &Scopegate, key: &str) {
    eventually("the key to open", || {
        (get(scopegate.address, "/api/v1/apps", &bearer(key)).status == 200).then_some(())
    });
}

#[test]
fn a_new_key_and_one_from_elsewhere_open_what_they_may_as_soon_as_they_are_added() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).start();
    let file = scopegate.file("keys.yaml").display().to_string();
    let before = fs::read_to_string(&file).expect("a file");
    let common = ["--team", "acme", "--scope", "READ_TEAM_APPS", "--file", &file];

    let made = keys(&[&["new"], &common[..]].concat(), "");
    let key = text(&made.stdout).trim().to_owned();
    assert!(made.status.success() && key.starts_with("sgk_"), "{made:?}");
    opens(&scopegate, &key);
    let again = keys(&[&["new"], &common[..]].concat(), "");
    assert_ne!(text(&again.stdout).trim(), key, "no two are alike");

    let added = keys(&[&["add", "--stdin", "--id", "theirs"], &common[..]].concat(), "sk_live_of_telapi\n");
    assert!(added.status.success() && added.stdout.is_empty(), "{added:?}");
    opens(&scopegate, "sk_live_of_telapi");
    let after = fs::read_to_string(&file).expect("a file");
    assert!(after.starts_with(before.trim_end()), "what was there stays as it was");
    assert!(!after.contains("sk_live_of_telapi") && !after.contains(&key), "no key is written down");
}

#[test]
fn an_entry_that_would_not_be_good_leaves_the_file_as_it_was() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).start();
    let file = scopegate.file("keys.yaml").display().to_string();
    let before = fs::read_to_string(&file).expect("a file");
    for (arguments, input, said) in [
        (vec!["new", "--team", "nobody", "--scope", "READ_TEAM_APPS"], "", "there is no team `nobody`"),
        (vec!["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS"], "sk_live_all", "digest"),
        (
            vec!["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS"],
            "",
            "standard input is empty",
        ),
        (vec!["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS"], "two words", "one word"),
        (
            vec!["new", "--team", "acme", "--scope", "READ_TEAM_APPS", "--expires", "9000years"],
            "",
            "--expires",
        ),
    ] {
        let output = keys(&[&arguments[..], &["--file", &file]].concat(), input);
        assert!(!output.status.success() && text(&output.stderr).contains(said), "{output:?}");
        assert!(!text(&output.stderr).contains("warning"), "nothing but what is wrong: {output:?}");
        assert_eq!(fs::read_to_string(&file).expect("a file"), before);
    }
}

#[test]
fn without_a_file_the_entry_is_printed_and_the_key_apart_from_it() {
    let made = keys(
        &["new", "--team", "acme", "--scope", "A", "--scope", "B", "--created-by", "jane@acme.example"],
        "",
    );
    let (entry, shown) = (text(&made.stdout), text(&made.stderr));
    assert!(
        entry.contains("  - id: ")
            && entry.contains("    scopes: [A, B]")
            && entry.contains("created_by: jane@acme.example"),
        "{entry}"
    );
    assert!(!entry.contains("sgk_") && shown.contains("sgk_"), "{shown}");
}

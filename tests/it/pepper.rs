//! Digests that are made with a secret: who has them and not the secret cannot even try a key.

use std::fs;
use std::process::{Command, Output};

use scopegate::identity::hashing::Hashing;
use tempfile::TempDir;

use crate::harness::commands::{bad, good, keys};
use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::scopegate::{APPS, Scopegate, Setup, row, told};
use crate::harness::stores::{Row, Store as _, Team, writable};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";
const PEPPER: &str = "do_not_show_this_pepper";
const SECTION: &str = "key_digest: { hmac_sha256: pepper }";

fn hashing() -> Hashing {
    Hashing::with_pepper(PEPPER.as_bytes())
}

/// With the pepper beside the configuration, as an editor leaves it.
fn written(setup: Setup, pepper: &str) -> TempDir {
    let folder = setup.write();
    fs::write(folder.path().join("pepper"), format!("{pepper}\n")).expect("a file");
    folder
}

fn check(folder: &TempDir) -> (Output, String) {
    let output = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .arg("check")
        .arg(folder.path().join("scopegate.yaml"))
        .output()
        .expect("the program");
    let text =
        format!("{}{}", String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(!text.contains("do_not_show"), "{text}");
    (output, text)
}

#[test]
fn keys_are_known_by_their_digest_under_the_pepper_alone() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream).and(SECTION);
    let refused = setup.keys.matches("digest:").count();
    let plain = row(KEY, "acme", "READ_TEAM_APPS", "");
    let digest = hashing().digest(KEY.as_bytes()).hex();
    let at = plain.find("sha256:").expect("a digest");
    setup.keys += &plain.replace(&plain[at..at + 71], &format!("hmac-sha256:{digest}"));
    let folder = written(setup, PEPPER);
    let (output, text) = check(&folder);
    assert_eq!(output.status.code(), Some(2));
    let wanted = "error: `digest` is not the `hmac-sha256:` that the configuration asks for";
    assert_eq!(text.matches(wanted).count(), refused, "{text}");
    let scopegate = Scopegate::start(folder);
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(told(&scopegate, APPS), (401, "key_unknown".to_owned()), "its digest is a plain one");
    assert_eq!(scopegate.metric("scopegate_keys_refused"), refused as f64);
    let config = scopegate.ask_admin("/config").text();
    assert!(config.contains("hmac_sha256") && !config.contains("do_not_show"), "{config}");
    // The digests that are there were made with the pepper that is there.
    scopegate.edit("scopegate.yaml", SECTION, "key_digest: sha256");
    scopegate.event(|event| event["section"] == "key_digest");
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert!(!scopegate.everything_said().contains("do_not_show"));
}

#[test]
fn a_server_is_asked_for_the_digest_under_the_pepper() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.team(&Team::default());
    postgres.key(KEY, &Row::default());
    postgres.key("sk_live_b", &Row { id: "id-b", ..Row::default() });
    let digest = hashing().digest(KEY.as_bytes()).hex();
    postgres.run(&format!("UPDATE scopegate.keys SET digest = '\\x{digest}' WHERE id = 'id-a'"));
    let keys = format!("keys: {{ {} }}", postgres.section());
    let setup = Setup::new(&upstream).and(SECTION).with("keys: { file: keys.yaml }", &keys);
    let scopegate = Scopegate::start(written(setup, PEPPER));
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(told(&scopegate, "sk_live_b"), (401, "key_unknown".to_owned()));
    postgres.run("UPDATE scopegate.keys SET disabled = true");
    eventually("the change", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
}

#[test]
fn the_commands_digest_with_the_pepper() {
    let upstream = Upstream::start();
    for (name, mut store) in writable() {
        store.team(&Team::default());
        let section = format!("keys: {{ {} }}", store.section());
        let setup = Setup::new(&upstream).and(SECTION).with("keys: { file: keys.yaml }", &section);
        let scopegate = Scopegate::start(written(setup, PEPPER));
        eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
        let config = scopegate.file("scopegate.yaml").display().to_string();
        let mut place = vec!["--config", &*config];
        place.extend(store.role().into_iter().flat_map(|role| ["--user", role]));
        let with = |arguments: &[&'static str]| [arguments, &place].concat();
        let add = with(&["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS", "--id", "web"]);
        good(&add, KEY);
        eventually("the key", || (told(&scopegate, KEY).0 == 200).then_some(()));
        let made = good(&with(&["rotate", "web", "--overlap", "1h"]), "");
        eventually("the new key", || (told(&scopegate, &made).0 == 200).then_some(()));
        assert_eq!(told(&scopegate, KEY).0, 200, "{name}: for an hour");
        for key in [KEY, &made] {
            let verified = keys(&with(&["verify", "--stdin"]), key);
            assert_eq!(verified.status.code(), Some(0), "{name}: {verified:?}");
        }
        let digest = hashing().written(&hashing().digest(made.as_bytes()));
        let shown = good(&with(&["show", "web"]), "");
        assert!(shown.contains(&digest), "{name}: {shown}");
        let lines = scopegate.file("lines");
        let line = |id: &str, digest: &str| {
            format!("{{\"id\":\"{id}\",\"team\":\"acme\",\"scopes\":[],\"digest\":\"{digest}\"}}")
        };
        fs::write(&lines, line("plain", &digest.replace("hmac-", ""))).expect("a file");
        let lines_path = lines.display().to_string();
        let import = [&["import", &*lines_path], &place[..]].concat();
        assert!(bad(&import, "").contains("`digest` is not `hmac-sha256:` and 64"));
        fs::write(&lines, line("peppered", &digest.replace(&digest[12..20], "00000000"))).expect("a file");
        good(&import, "");
        good(&with(&["revoke", "web"]), "");
        for key in [KEY, &made] {
            eventually("its end", || (told(&scopegate, key).1 == "key_disabled").then_some(()));
        }
        let said = keys(&with(&["list"]), "");
        assert!(!format!("{said:?}").contains("do_not_show"), "{said:?}");
    }
}

#[test]
fn a_file_of_peppered_digests_is_left_alone_without_its_configuration() {
    let upstream = Upstream::start();
    let mut setup = Setup::new(&upstream).and(SECTION);
    let digest = hashing().written(&hashing().digest(KEY.as_bytes()));
    setup.keys = format!(
        "teams: {{ acme: {{ scopes: [READ_TEAM_APPS] }} }}\nkeys:\n  - id: web\n    team: acme\n    name: web\n    \
         scopes: [READ_TEAM_APPS]\n    digest: {digest}\n"
    );
    let folder = written(setup, PEPPER);
    let path = |name: &str| folder.path().join(name).display().to_string();
    let (file, config) = (path("keys.yaml"), path("scopegate.yaml"));
    let before = fs::read_to_string(&file).expect("a file");
    let add = ["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS", "--id", "b", "--file", &file];
    for arguments in [&add[..], &["list", "--file", &file], &["revoke", "web", "--file", &file]] {
        let said = bad(arguments, "sk_live_b");
        assert!(said.contains("made with a pepper: name the configuration that has it"), "{said}");
    }
    let nobody = keys(&["verify", "--stdin", "--file", &file], KEY);
    assert_eq!(nobody.status.code(), Some(2), "{nobody:?}");
    assert_eq!(fs::read_to_string(&file).expect("a file"), before);
    good(&[&add[..], &["--config", &config]].concat(), "sk_live_b");
    let after = fs::read_to_string(&file).expect("a file");
    let added = hashing().written(&hashing().digest(b"sk_live_b"));
    assert!(after.starts_with(&before) && after.contains(&format!("digest: {added}")), "{after}");
    fs::remove_file(path("pepper")).expect("a file");
    assert!(bad(&["list", "--config", &config], "").contains("the pepper cannot be read"));
}

#[test]
fn a_pepper_that_is_no_secret_is_refused() {
    let upstream = Upstream::start();
    for (pepper, wanted) in [
        ("do_not_show", "it has 11 bytes, and must have 16 at least"),
        ("", "it has 0 bytes"),
        (&"do_not_show".repeat(400), "it has more than 4096 bytes"),
    ] {
        let (output, text) = check(&written(Setup::new(&upstream).and(SECTION), pepper));
        assert_eq!(output.status.code(), Some(2), "{text}");
        assert!(text.contains("the pepper cannot be read from") && text.contains(wanted), "{text}");
    }
}

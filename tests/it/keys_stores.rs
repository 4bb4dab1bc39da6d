//! `scopegate keys` in every place where keys are kept: what it changes is what is decided.

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::client::{Answer, get};
use crate::harness::commands::{bad, good, keys, text};
use crate::harness::postgres::Postgres;
use crate::harness::scopegate::{Scopegate, Setup};
use crate::harness::stores::{Store, Team, writable};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

/// A place, and a program that runs on it.
struct Trial {
    scopegate: Scopegate,
    /// What commands are told of the place.
    place: Vec<String>,
    store: Box<dyn Store>,
}

fn trials(upstream: &Upstream) -> Vec<Trial> {
    let start = |mut store: Box<dyn Store>| {
        store.team(&Team::default());
        store.team(&Team { name: "poor", scopes: "READ_CALL_TOKEN", ..Team::default() });
        let section = format!("keys: [{{ {} }}]", store.section());
        let setup = Setup::new(upstream).with("keys: { file: keys.yaml }", &section).and("key_prefix: acme_");
        let scopegate = setup.start();
        eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
        let mut place = vec!["--config".to_owned(), scopegate.file("scopegate.yaml").display().to_string()];
        place.extend(store.role().into_iter().flat_map(|role| ["--user".to_owned(), role.to_owned()]));
        Trial { scopegate, place, store }
    };
    writable().into_iter().map(|(_, store)| start(store)).collect()
}

impl Trial {
    fn ask(&self, key: &str) -> Answer {
        get(self.scopegate.address, "/api/v1/apps", &bearer(key))
    }

    fn until(&self, key: &str, status: u16, reason: &str) {
        eventually(reason, || {
            let answer = self.ask(key);
            (answer.status == status && answer.reason() == reason).then_some(())
        });
    }

    /// In this trial's place.
    fn good(&self, arguments: &[&str], input: &str) -> String {
        good(&with(&self.place, arguments), input)
    }

    fn bad(&self, arguments: &[&str], input: &str) -> String {
        bad(&with(&self.place, arguments), input)
    }

    fn made(&self, id: &str) -> String {
        self.good(&["new", "--team", "acme", "--scope", "READ_TEAM_APPS", "--id", id], "")
    }

    fn listed(&self, id: &str) -> Value {
        let all: Vec<Value> = serde_json::from_str(&self.good(&["list", "--json"], "")).expect("JSON");
        all.into_iter().find(|key| key["id"] == id).expect("it is listed")
    }

    fn verified(&self, key: &str, code: i32) -> String {
        let output = keys(&with(&self.place, &["verify", "--stdin"]), key);
        assert_eq!(output.status.code(), Some(code), "{output:?}");
        text(&output.stdout)
    }
}

fn with<'a>(place: &'a [String], arguments: &[&'a str]) -> Vec<&'a str> {
    arguments.iter().copied().chain(place.iter().map(String::as_str)).collect()
}

#[test]
fn a_key_lives_as_the_commands_say() {
    for trial in trials(&Upstream::start()) {
        let old = trial.made("web");
        assert!(old.starts_with("acme_"), "the configuration says so: {old}");
        trial.until(&old, 200, "");
        assert!(trial.ask(&old).header("deprecation").is_none());
        let row = trial.listed("web");
        assert_eq!((&row["state"], &row["previous"]), (&"active".into(), &Value::Null), "{row}");

        let new = trial.good(&["rotate", "web", "--overlap", "1h"], "");
        trial.until(&new, 200, "");
        assert!(trial.ask(&new).header("sunset").is_none());
        eventually("the warning", || trial.ask(&old).header("sunset").map(str::to_owned));
        assert!(trial.ask(&old).header("deprecation").is_some_and(|since| since.starts_with('@')));
        let row = trial.listed("web");
        assert_eq!((&row["state"], &row["previous"]["open"]), (&"active".into(), &true.into()), "{row}");
        assert!(trial.verified(&old, 0).contains("another key has replaced this one"));
        assert!(trial.bad(&["rotate", "web"], "").contains("is open until"));

        let newest = trial.good(&["rotate", "web", "--again", "--overlap", "0s"], "");
        trial.until(&newest, 200, "");
        trial.until(&new, 401, "key_expired");
        trial.until(&old, 401, "key_unknown");
        assert_eq!(trial.listed("web")["previous"]["open"], false);

        trial.good(&["rotate", "web", "--stdin", "--overlap", "1500ms"], "sk_live_of_telapi");
        trial.until("sk_live_of_telapi", 200, "");
        trial.until(&newest, 401, "key_expired");
        trial.good(&["revoke", "web", "--reason", "on a public page: 7"], "");
        trial.until("sk_live_of_telapi", 401, "key_disabled");
        trial.until(&newest, 401, "key_disabled");
        let row = trial.listed("web");
        assert_eq!(
            (&row["state"], &row["disabled_reason"]),
            (&"disabled".into(), &"on a public page: 7".into())
        );
        let shown = trial.good(&["show", "web"], "");
        assert!(shown.contains("on a public page: 7") && shown.contains("READ_TEAM_APPS"), "{shown}");
        assert!(trial.bad(&["rotate", "web"], "").contains("turned off"));
        assert!(trial.bad(&["revoke", "wed"], "").contains("did you mean `web`?"));
    }
}

#[test]
fn ceilings_are_kept_and_the_one_that_says_no_is_named() {
    for trial in trials(&Upstream::start()) {
        let new = |team: &str, scope: &str| {
            vec!["new".to_owned(), "--team".into(), team.into(), "--scope".into(), scope.into()]
        };
        let refused = |team: &str, scope: &str| {
            let arguments = new(team, scope);
            trial.bad(&arguments.iter().map(String::as_str).collect::<Vec<_>>(), "")
        };
        let said = refused("poor", "READ_TEAM_APPS");
        assert!(
            said.contains("team `poor` may not have the scope `READ_TEAM_APPS`; it may have READ_CALL_TOKEN"),
            "{said}"
        );
        let said = refused("acme", "READ_MINDS");
        assert!(
            said.contains(
                "the platform does not define the scope `READ_MINDS`; it defines CREATE_CALL_TOKEN"
            ),
            "{said}"
        );
        assert!(refused("acne", "READ_TEAM_APPS").contains("did you mean `acme`?"));
        trial.made("one");
        trial.made("two");
        let said = refused("acme", "READ_TEAM_APPS");
        assert!(said.contains("team `acme` may have 2 keys"), "{said}");
        trial.good(&["revoke", "one"], "");
        let ended =
            ["new", "--team", "acme", "--scope", "READ_TEAM_APPS", "--id", "past", "--expires", "2026-01-01"];
        trial.good(&ended, "");
        trial.made("three");
        assert!(refused("acme", "READ_TEAM_APPS").contains("may have 2 keys"));
        let doubled = ["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS", "--id", "one"];
        assert!(trial.bad(&doubled, "sk_live_x").contains("its id is that of another key already"));
    }
}

#[test]
fn what_verify_says_is_what_is_decided() {
    for trial in trials(&Upstream::start()) {
        let lines = r#"
            {"id":"good","team":"acme","scopes":["READ_TEAM_APPS"],"key":"sk_live_good","name":"a name","created":"2026-11-24","created_by":"jane"}
            {"id":"past","team":"acme","scopes":["READ_TEAM_APPS"],"key":"sk_live_past","expires":"2026-01-01"}
            {"id":"poor","team":"poor","scopes":["READ_CALL_TOKEN"],"digest":"sha256:DIGEST"}
        "#;
        let digest = scopegate::identity::key::Digest::of(b"sk_live_poor").hex();
        let file = trial.scopegate.file("lines");
        std::fs::write(&file, lines.replace("DIGEST", &digest)).expect("a file");
        trial.good(&["import", &file.display().to_string()], "");
        trial.until("sk_live_good", 200, "");
        let made = trial.made("made");
        trial.until(&made, 200, "");
        let mut broken = made.clone();
        broken.replace_range(10..11, if &made[10..11] == "x" { "y" } else { "x" });
        for (key, code) in
            [("sk_live_good", 0), ("sk_live_past", 1), ("sk_live_none", 1), (&made, 0), (&broken, 1)]
        {
            let (said, answer) = (trial.verified(key, code), trial.ask(key));
            match code {
                0 => assert!(said.contains("it may: READ_TEAM_APPS") && answer.status == 200, "{said}"),
                _ => assert!(
                    said.contains(&format!("{}: ", answer.reason())) && answer.status == 401,
                    "{said}"
                ),
            }
        }
        assert_eq!(trial.ask(&broken).reason(), "key_malformed");
        let add = ["add", "--stdin", "--team", "acme", "--scope", "READ_TEAM_APPS"];
        assert!(trial.bad(&add, &broken).contains("is not whole"));
        assert!(trial.verified("sk_live_good", 0).contains("`good` (a name) of team `acme`"));
        let scoped =
            |key: &str| keys(&with(&trial.place, &["verify", "--stdin", "--scope", "READ_TEAM_APPS"]), key);
        assert_eq!(scoped("sk_live_good").status.code(), Some(0));
        let lacks = scoped("sk_live_poor");
        assert_eq!(lacks.status.code(), Some(1));
        assert!(text(&lacks.stdout).contains("scope_missing: the key may not `READ_TEAM_APPS`"), "{lacks:?}");
        let nobody = keys(&["verify", "--stdin", "--file", "/none.yaml"], "sk_live_good");
        assert_eq!(nobody.status.code(), Some(2), "nobody can say");
    }
}

#[test]
fn an_import_is_all_or_nothing_and_repeats_no_key() {
    for trial in trials(&Upstream::start()) {
        trial.made("there");
        let lines = [
            r#"{"id":"good","team":"acme","scopes":[],"key":"sk_live_secret_1"}"#,
            "sk_live_secret_2",
            r#"{"id":"there","team":"acme","scopes":[],"key":"sk_live_secret_3"}"#,
            r#"{"id":"a","team":"sk_live_secret_4","scopes":[],"key":"sk_live_secret_5"}"#,
            r#"{"id":"b","team":"acme","scopes":["READ_MINDS"],"key":"sk_live_secret_6"}"#,
            r#"{"id":"c","team":"acme","scopes":[],"key":"sk_live_secret_1"}"#,
            r#"{"id":"d","team":"acme","scopes":[],"sk_live_secret_7":1}"#,
            r#"{"id":"e","team":"acme","scopes":[],"digest":"sk_live_secret_8"}"#,
            r#"{"id":"f","team":"acme","scopes":"sk_live_secret_9","key":"k"}"#,
            r#"{"id":"g","team":"acme","scopes":[],"key":"k1","digest":"k2"}"#,
            r#"{"id":"h","team":"acme","scopes":[],"key":"sk_live secret"}"#,
            r#"{"id":"i","team":"acme","scopes":[],"key":"k3","expires":"sk_live_secret_10"}"#,
        ];
        let file = trial.scopegate.file("lines");
        std::fs::write(&file, lines.join("\n")).expect("a file");
        let before = trial.good(&["list"], "");
        let said = trial.bad(&["import", &file.display().to_string()], "");
        for (number, what) in [
            (2, "not JSON"),
            (3, "its id is that of another key already"),
            (4, "no such team"),
            (5, "the scope number 1; it defines CREATE_CALL_TOKEN"),
            (6, "that of another key already"),
            (6, "may have 2 keys"),
            (7, "a field is unknown"),
            (8, "`digest`"),
            (9, "`scopes`"),
            (10, "not both"),
            (11, "`key`"),
            (12, "`expires`"),
        ] {
            let place = format!("lines:{number}: error: ");
            assert!(
                said.lines().any(|line| line.contains(&place) && line.contains(what)),
                "{number}: {said}"
            );
        }
        assert!(!said.contains("secret"), "{said}");
        assert!(said.contains("nothing was imported"), "{said}");
        assert_eq!(trial.good(&["list"], ""), before);
    }
}

#[test]
fn writers_at_once_lose_nothing() {
    for mut trial in trials(&Upstream::start()) {
        trial.store.team(&Team { name: "busy", ..Team::default() });
        let lines: String = (0..40)
            .map(|number| {
                format!(
                    "{{\"id\":\"a{number}\",\"team\":\"busy\",\"scopes\":[],\"key\":\"sk_live_{number}\"}}\n"
                )
            })
            .collect();
        let file = trial.scopegate.file("lines");
        std::fs::write(&file, &lines).expect("a file");
        let said = trial.bad(&["import", &file.display().to_string()], "");
        assert!(said.contains("38 problems"), "two of forty are allowed: {said}");
        let place = &trial.place;
        std::thread::scope(|scope| {
            for number in 0..8 {
                // Two are allowed, whoever comes first.
                scope.spawn(move || {
                    let id = format!("busy-{number}");
                    keys(
                        &with(place, &["new", "--team", "busy", "--scope", "READ_TEAM_APPS", "--id", &id]),
                        "",
                    )
                });
            }
        });
        let all: Vec<Value> = serde_json::from_str(&trial.good(&["list", "--json"], "")).expect("JSON");
        assert_eq!(all.len(), 2, "{all:?}");
    }
}

#[test]
fn in_postgres_who_may_not_change_keys_is_told_so_and_who_has_other_tables_too() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.team(&Team::default());
    let config = |more: &str| {
        let section = format!("keys: {{ {} }}", postgres.section_with(more));
        Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).write()
    };
    let (folder, own) = (config(""), config(", query: 'SELECT id, team, scopes FROM theirs WHERE a = $1'"));
    let place = |folder: &TempDir| folder.path().join("scopegate.yaml").display().to_string();
    let (place, own) = (place(&folder), place(&own));
    let new = ["new", "--team", "acme", "--scope", "READ_TEAM_APPS", "--id", "web", "--config", &place];
    let by = |role: &'static str| [&new[..], &["--user", role]].concat();
    assert!(bad(&["list", "--config", &own], "").contains("a query of its own"));
    assert!(bad(&new, "").contains("permission denied for table keys: name a role with --user"));
    let nobody = bad(&by("nobody"), "");
    assert!(nobody.contains("password authentication failed for user \"nobody\""), "{nobody}");
    let (wrong, gone) = (folder.path().join("wrong"), folder.path().join("gone").display().to_string());
    std::fs::write(&wrong, "do_not_show").expect("a file");
    for (file, said) in [(wrong.display().to_string(), "authentication failed"), (gone, "gone: No such file")]
    {
        let told = bad(&[&by("keymaster")[..], &["--password-file", &file]].concat(), "");
        assert!(told.contains(said) && !told.contains("do_not_show"), "{told}");
    }
    postgres.run("REVOKE UPDATE ON scopegate.keys FROM keymaster");
    good(&["list", "--config", &place, "--user", "keymaster"], "");
    assert!(bad(&by("keymaster"), "").contains("permission denied for table keys"));
    postgres.run("GRANT UPDATE ON scopegate.keys TO keymaster; UPDATE scopegate.teams SET max_keys = 0");
    assert!(bad(&by("keymaster"), "").contains("may have 0 keys"));
    postgres.run("UPDATE scopegate.teams SET max_keys = 3");
    good(&by("keymaster"), "");
    postgres.run("UPDATE scopegate.keys SET expires = 'infinity', created = '-infinity'");
    let shown = good(&["show", "web", "--config", &place, "--user", "keymaster"], "");
    assert!(shown.contains("1 of 3") && shown.contains("9999-12-31T23:59:59Z"), "{shown}");
    postgres.run("ALTER TABLE scopegate.keys DROP disabled_reason");
    let told = bad(&by("keymaster"), "");
    assert!(
        told.contains("\"disabled_reason\" does not exist: the tables are not those of deploy"),
        "{told}"
    );
}

#[test]
fn of_several_sources_one_must_be_named() {
    let upstream = Upstream::start();
    let keys = "keys: [{ file: keys.yaml }, { redis: { url: 'redis://127.0.0.1:1' } }, { file: more.yaml }]";
    let folder = Setup::new(&upstream).with("keys: { file: keys.yaml }", keys).write();
    let config = folder.path().join("scopegate.yaml").display().to_string();
    for (more, said) in [
        (vec![], "1 (file), 2 (redis), 3 (file)"),
        (vec!["--source", "file"], "several sources `file`"),
        (vec!["--source", "4"], "no source `4`"),
        (vec!["--source", "0"], "no source `0`"),
        (vec!["--source", "redis"], "redis://127.0.0.1:1 does not answer"),
    ] {
        let told = bad(&[&["list", "--config", &config], &more[..]].concat(), "");
        assert!(told.contains(said), "{told}");
    }
    assert!(good(&["list", "--config", &config, "--source", "1"], "").contains("id-apps"));
    assert!(bad(&["list"], "").contains("--file keys.yaml"));
}

//! Keys in tables of somebody else's: the operator's own query, and what it may get wrong.

use scopegate::identity::key::Digest;

use crate::harness::eventually;
use crate::harness::postgres::Postgres;
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";
const THEIRS: &str =
    "CREATE TABLE theirs (digest bytea, id text, team text, scopes text[], off boolean, ends date);
    GRANT SELECT ON theirs TO gate;
    CREATE TABLE hidden AS TABLE theirs;";

fn start(postgres: &Postgres, upstream: &Upstream, more: &str) -> Scopegate {
    let section = format!("keys: {{ {}, cache: {{ timeout: 5s }} }}", postgres.section_with(more));
    let scopegate = Setup::new(upstream).with("keys: { file: keys.yaml }", &section).start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    scopegate
}

fn bytes(key: &str) -> String {
    format!("'\\x{}'", Digest::of(key.as_bytes()).hex())
}

#[test]
fn an_operators_own_query_may_name_things_otherwise() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.run("CREATE TABLE accounts (hash text, key_id varchar(20), customer name, permissions text, blocked boolean)");
    postgres.run("GRANT SELECT ON accounts TO gate");
    let query = "SELECT key_id, customer, permissions, blocked FROM accounts WHERE hash = $1";
    let columns = "columns: { id: key_id, team: customer, scopes: permissions, disabled: blocked }";
    let digest = Digest::of(KEY.as_bytes());
    for (form, hash) in [
        ("hex", format!("'{}'", digest.hex())),
        ("base64", format!("encode('\\x{}', 'base64')", digest.hex())),
    ] {
        postgres.run(&format!(
            "TRUNCATE accounts; INSERT INTO accounts VALUES ({hash}, 'web', 'acme', 'CREATE_CALL_TOKEN, READ_TEAM_APPS', false)"
        ));
        let scopegate = start(
            &postgres,
            &upstream,
            &format!(", digest: {form}, {columns}, query: '{query}', channel: theirs"),
        );
        assert_eq!(told(&scopegate, KEY).0, 200, "{form}");
        assert_eq!(told(&scopegate, "sk_live_b"), (401, "key_unknown".to_owned()), "{form}");
        let line = scopegate.log_line(|line| line["status"] == 200);
        assert_eq!((&line["team"], &line["key"]), (&"acme".into(), &"web".into()), "{line}");
        postgres.run("UPDATE accounts SET blocked = true; NOTIFY theirs, 'all'");
        eventually("the change", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
    }
}

#[test]
fn a_table_may_change_under_the_query() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.run(THEIRS);
    let scopegate =
        start(&postgres, &upstream, ", query: 'SELECT id, team, scopes FROM theirs WHERE digest = $1'");
    for number in 0..5 {
        assert_eq!(told(&scopegate, &format!("sk_live_{number}")).1, "key_unknown");
    }
    postgres.run("ALTER TABLE theirs ALTER id TYPE varchar(50)");
    postgres.run(&format!("INSERT INTO theirs VALUES ({}, 'a', 'acme', '{{READ_TEAM_APPS}}')", bytes(KEY)));
    assert_eq!(told(&scopegate, KEY).0, 200);
}

#[test]
fn a_query_that_cannot_be_used_is_503_for_every_key() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.run(THEIRS);
    postgres.run(&format!("INSERT INTO theirs VALUES ({}, 'a', 'acme', '{{READ_TEAM_APPS}}')", bytes(KEY)));
    let cases = [
        ("SELECT id, team FROM theirs WHERE digest = $1", "no column `scopes`"),
        ("SELECT id, team, scopes, off AS dsabled FROM theirs WHERE digest = $1", "`dsabled`"),
        ("SELECT id, team, scopes, scopes FROM theirs WHERE digest = $1", "two columns `scopes`"),
        ("SELECT 1 AS id, team, scopes FROM theirs WHERE digest = $1", "`id` of the query is int4"),
        ("SELECT id, team, 2 AS scopes FROM theirs WHERE digest = $1", "must be text or text[]"),
        ("SELECT id, team, scopes, 0 AS disabled FROM theirs WHERE digest = $1", "must be boolean"),
        ("SELECT id, team, scopes, ends AS expires FROM theirs WHERE digest = $1", "is date, and must be"),
        ("SELECT id, team, scopes FROM nothing WHERE digest = $1", "\"nothing\" does not exist"),
        ("SELECT id, team, scopes FROM hidden WHERE digest = $1", "permission denied for table hidden"),
        ("SELECT id, team, scopes FROM theirs WHERE digest = $1 AND id = $2", "other parameters"),
        ("SELECT id, team, scopes FROM theirs WHERE digest = $1 AND 1 / 0 = 1", "division by zero"),
        ("SELECT id team scopes FROM theirs WHERE digest = $1", "syntax error"),
        ("SET statement_timeout = 0 --$1", "no column `id`"),
    ];
    for (query, cause) in cases {
        let scopegate = start(&postgres, &upstream, &format!(", query: \"{}\"", query.replace('"', "\\\"")));
        for key in [KEY, "sk_live_unknown"] {
            assert_eq!(told(&scopegate, key), (503, "keys_unavailable".to_owned()), "{query}");
        }
        let line = scopegate.log_line(|line| line["status"] == 503);
        assert!(line.to_string().replace("\\\"", "\"").contains(cause), "{query}: {line}");
        let failed = scopegate.metric("scopegate_key_lookups_total{result=\"failed\",source=\"postgres\"}");
        assert!(failed >= 2.0, "{query}");
    }
}

#[test]
fn a_row_that_cannot_be_read_is_no_yes_and_no_panic() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.run(THEIRS);
    let cases = [
        ("no team", "'a', NULL, '{READ_TEAM_APPS}', false", 503),
        ("an empty id", "'', 'acme', '{READ_TEAM_APPS}', false", 503),
        ("a line end in the team", "'a', E'acme\\nX-Evil: 1', '{READ_TEAM_APPS}', false", 503),
        ("neither on nor off", "'a', 'acme', '{READ_TEAM_APPS}', NULL", 503),
        ("a scope that is NULL", "'a', 'acme', '{READ_TEAM_APPS,NULL}', false", 503),
        ("scopes in two dimensions", "'a', 'acme', '{{READ_TEAM_APPS},{READ_TEAM_APPS}}', false", 503),
        ("no scopes", "'a', 'acme', NULL, false", 403),
        ("a scope that nobody knows", "'a', 'acme', '{READ_MINDS}', false", 403),
        ("two scopes in one", "'a', 'acme', '{\"CREATE_CALL_TOKEN READ_TEAM_APPS\"}', false", 403),
    ];
    for (number, (_, row, _)) in cases.iter().enumerate() {
        let digest = bytes(&format!("sk_live_{number}"));
        postgres.run(&format!("INSERT INTO theirs (digest, id, team, scopes, off) VALUES ({digest}, {row})"));
    }
    let twice = format!("({}, 'a', 'acme', '{{READ_TEAM_APPS}}', false)", bytes(KEY));
    postgres.run(&format!("INSERT INTO theirs (digest, id, team, scopes, off) VALUES {twice}, {twice}"));
    let query =
        "SELECT id, team, scopes, scopes AS team_scopes, off AS disabled FROM theirs WHERE digest = $1";
    let scopegate = start(&postgres, &upstream, &format!(", query: '{query}'"));
    for (number, (case, _, status)) in cases.iter().enumerate() {
        assert_eq!(told(&scopegate, &format!("sk_live_{number}")).0, *status, "{case}");
    }
    assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()), "several rows");
    let failed = scopegate.metric("scopegate_key_lookups_total{result=\"failed\",source=\"postgres\"}");
    assert!(failed >= 7.0, "{failed}");
}

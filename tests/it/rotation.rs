//! A key that another has replaced: it opens the same for a while, and says so to who still uses it.

use std::io::Read as _;
use std::time::{Duration, SystemTime};

use redis::Commands as _;
use scopegate::identity::key::Digest;

use crate::harness::client::{Answer, Client, get, request};
use crate::harness::commands::{bad, good};
use crate::harness::introspection::{Introspection, json};
use crate::harness::postgres::Postgres;
use crate::harness::redis::Redis;
use crate::harness::scopegate::{Scopegate, Setup, row};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{bearer, eventually};

const NEW: &str = "sk_live_new";
const OLD: &str = "sk_live_old";
const SINCE: &str = "2026-11-01T00:00:00Z";
const UNTIL: &str = "2099-01-31T12:00:00Z";

/// What the row of the new key says of the old one.
fn previous(until: &str) -> String {
    let digest = Digest::of(OLD.as_bytes());
    format!(", previous: {{ digest: '{digest}', since: '{SINCE}', until: '{until}' }}")
}

fn setup(upstream: &Upstream, more: &str) -> Setup {
    let mut setup = Setup::new(upstream);
    setup.keys += &row(NEW, "acme", "READ_TEAM_APPS", more);
    setup
}

fn ask(scopegate: &Scopegate, method: &str, target: &str, key: &str) -> Answer {
    Client::connect(scopegate.address).ask(request(method, target, &bearer(key), ""))
}

fn warned(answer: &Answer) -> (Option<&str>, Option<&str>) {
    (answer.header("deprecation"), answer.header("sunset"))
}

/// The old key passes with a warning, the new one without.
fn check(scopegate: &Scopegate, id: &str) {
    let warning = (Some("@1793491200"), Some("Sat, 31 Jan 2099 12:00:00 GMT"));
    for (method, target, status, reason) in [
        ("GET", "/api/v1/apps", 200, ""),
        ("POST", "/api/v1/call-tokens", 403, "scope_missing"),
        ("DELETE", "/api/v1/apps", 405, "method_unknown"),
    ] {
        for (key, wanted) in [(OLD, warning), (NEW, (None, None))] {
            let answer = ask(scopegate, method, target, key);
            assert_eq!((answer.status, answer.reason()), (status, reason), "{target} {key}");
            assert_eq!(warned(&answer), wanted, "{target} {key}");
        }
    }
    assert_eq!(warned(&ask(scopegate, "GET", "/api/v1/none", OLD)), (None, None), "it is not looked up");
    assert_eq!(scopegate.metric("scopegate_keys_deprecated_total{surface=\"sdk\"}"), 3.0);
    for reason in ["passed", "scope_missing", "method_unknown"] {
        let of = |old: bool| {
            let line =
                scopegate.log_line(|line| line["reason"] == reason && line["previous"].is_boolean() == old);
            assert_eq!((&line["key"], &line["team"]), (&id.into(), &"acme".into()), "{line}");
        };
        of(true);
        of(false);
    }
}

#[test]
fn both_keys_of_a_file_pass_and_only_the_old_one_is_warned() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream, &previous(UNTIL)).start();
    assert_eq!(scopegate.metric("scopegate_keys_loaded"), 11.0, "it is one key");
    check(&scopegate, "id-new");
    // Another platform is another table.
    scopegate.edit("scopegate.yaml", "\nscopes: [", "\nscopes: [ANOTHER, ");
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") >= 2.0).then_some(()));
    assert!(warned(&ask(&scopegate, "GET", "/api/v1/apps", OLD)).1.is_some());
    scopegate.edit("keys.yaml", UNTIL, "2026-11-02T00:00:00Z");
    let ended = eventually("its end", || {
        let answer = ask(&scopegate, "GET", "/api/v1/apps", OLD);
        (answer.reason() == "key_expired").then_some(answer)
    });
    assert_eq!(ended.status, 401);
    assert_eq!(warned(&ended), (Some("@1793491200"), Some("Mon, 02 Nov 2026 00:00:00 GMT")));
    assert_eq!(ask(&scopegate, "GET", "/api/v1/apps", NEW).status, 200);
}

#[test]
fn who_still_uses_the_old_key_is_shown_and_listed() {
    let upstream = Upstream::start();
    let (scopegate, other) =
        (setup(&upstream, &previous(UNTIL)).start(), setup(&upstream, &previous(UNTIL)).start());
    let page = || scopegate.ask_admin("/keys/previous").json();
    ask(&scopegate, "GET", "/api/v1/apps", NEW);
    assert_eq!(page()["keys"], serde_json::json!([]));
    let (file, admin) =
        (scopegate.file("keys.yaml").display().to_string(), format!("http://{}", scopegate.admin));
    let second = format!("http://{}/", other.admin);
    let list = |more: &[&str]| {
        good(&[&["list", "--file", &file, "--admin", &admin, "--admin", &second], more].concat(), "")
    };
    let cell = |text: &str| text.lines().find(|line| line.starts_with("id-new ")).expect("a row").to_owned();
    assert!(cell(&list(&[])).contains(&format!("{UNTIL}, not used since 20")), "{}", list(&[]));
    for (process, method) in [(&scopegate, "GET"), (&scopegate, "DELETE"), (&other, "GET")] {
        ask(process, method, "/api/v1/apps", OLD);
    }
    let used = eventually("it is told", || page()["keys"].get(0).filter(|key| key["requests"] == 2).cloned());
    assert_eq!((&used["team"], &used["key"]), (&"acme".into(), &"id-new".into()), "{used}");
    assert_eq!((&used["since"], &used["until"]), (&SINCE.into(), &UNTIL.into()), "{used}");
    eventually("it is counted", || (other.metric("scopegate_keys_previous_used") == 1.0).then_some(()));
    assert!(cell(&list(&[])).contains(&format!("{UNTIL}, used 20")), "{}", list(&[]));
    let all: Vec<serde_json::Value> = serde_json::from_str(&list(&["--json"])).expect("JSON");
    let row = all.iter().find(|key| key["id"] == "id-new").expect("a row");
    assert_eq!((&row["previous"]["requests"], &row["previous"]["open"]), (&3.into(), &true.into()), "{row}");
    assert!(row["previous"]["last_used"].as_str() >= used["last_used"].as_str(), "{row}");
    // Who asks nobody is told nothing of it.
    let alone = good(&["list", "--file", &file], "");
    assert!(cell(&alone).ends_with(UNTIL), "{alone}");
    let nobody = bad(&["list", "--file", &file, "--admin", "http://127.0.0.1:1"], "");
    assert!(nobody.contains("http://127.0.0.1:1 does not say who uses old keys"), "{nobody}");
    let gateway = format!("http://{}", scopegate.address);
    assert!(bad(&["list", "--file", &file, "--admin", &gateway], "").contains("status 404"));
    // A key that is replaced once more begins anew.
    scopegate.edit("keys.yaml", SINCE, "2026-11-02T00:00:00Z");
    let mut asked = 0;
    let again = eventually("the next rotation", || {
        ask(&scopegate, "GET", "/api/v1/apps", OLD);
        asked += 1;
        page()["keys"].get(0).filter(|key| key["since"] == "2026-11-02T00:00:00Z").cloned()
    });
    assert!(again["requests"].as_u64().is_some_and(|count| count <= asked), "{asked}: {again}");
}

#[test]
fn both_keys_of_redis_pass_and_only_the_old_one_is_warned() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    redis.team(&Team::default());
    redis.key(NEW, &Row::default());
    redis.key(OLD, &Row::default());
    let name = format!("scopegate:key:{}", Digest::of(OLD.as_bytes()).hex());
    let sunset = [("sunset", UNTIL), ("since", SINCE)];
    redis.connection().hset_multiple::<_, _, _, ()>(&name, &sunset).expect("redis-server");
    let section = format!("keys: {{ {} }}", redis.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    check(&scopegate, "id-a");
    redis.connection().hset::<_, _, _, ()>(&name, "sunset", "2026-11-02").expect("redis-server");
    redis.publish("all");
    eventually("its end", || {
        (ask(&scopegate, "GET", "/api/v1/apps", OLD).reason() == "key_expired").then_some(())
    });
    assert_eq!(ask(&scopegate, "GET", "/api/v1/apps", NEW).status, 200);
}

#[test]
fn both_keys_of_postgres_pass_and_only_the_old_one_is_warned() {
    let (upstream, Some(mut postgres)) = (Upstream::start(), Postgres::start()) else { return };
    postgres.team(&Team::default());
    postgres.key(NEW, &Row::default());
    let hex = Digest::of(OLD.as_bytes()).hex();
    postgres.run(&format!(
        "UPDATE scopegate.keys SET (previous_digest, previous_since, previous_until) = ('\\x{hex}', '{SINCE}', '{UNTIL}')"
    ));
    let section = format!("keys: {{ {} }}", postgres.section());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    check(&scopegate, "id-a");
    for (since, until, said) in [
        ("NULL", "'infinity'", ("@0", "Fri, 31 Dec 9999 23:59:59 GMT")),
        ("'infinity'", "'-infinity'", ("@253402300799", "Thu, 01 Jan 1970 00:00:00 GMT")),
    ] {
        postgres
            .run(&format!("UPDATE scopegate.keys SET (previous_since, previous_until) = ({since}, {until})"));
        eventually("the change", || {
            (warned(&ask(&scopegate, "GET", "/api/v1/apps", OLD)) == (Some(said.0), Some(said.1)))
                .then_some(())
        });
    }
    assert_eq!(ask(&scopegate, "GET", "/api/v1/apps", OLD).reason(), "key_expired");
    assert_eq!(ask(&scopegate, "GET", "/api/v1/apps", NEW).status, 200);
}

#[test]
fn both_keys_of_an_endpoint_pass_and_only_the_old_one_is_warned() {
    let (upstream, endpoint) = (Upstream::start(), Introspection::start());
    let said = move |old: &str| {
        let (old, hex) = (old.to_owned(), Digest::of(OLD.as_bytes()).hex());
        move |exchange: &mut Exchange<'_>| {
            let form = String::from_utf8_lossy(&exchange.request.body).into_owned();
            let known = [OLD, NEW].iter().any(|key| form.contains(&Digest::of(key.as_bytes()).hex()));
            let more = if form.contains(&hex) { old.as_str() } else { "\"sunset\":null" };
            let good = format!(
                "{{\"active\":{known},\"client_id\":\"id-a\",\"team\":\"acme\",\"scope\":\"READ_TEAM_APPS\",{more}}}"
            );
            exchange.write(json("200 OK", &good))
        }
    };
    endpoint.instead(said(&format!("\"sunset\":\"{UNTIL}\",\"since\":1793491200")));
    let answer = "answer: { sunset: /sunset, since: /since }, retries: 0, failures: 100";
    let cache = "fresh: 1ms, stale: 1ms, unknown: 1ms";
    let section =
        format!("keys: {{ http: {{ url: '{}', {answer} }}, cache: {{ {cache} }} }}", endpoint.url());
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    scopegate.ready();
    check(&scopegate, "id-a");
    for (more, status, warning) in [
        ("\"sunset\":1793491200", 401, (Some("@0"), Some("Sun, 01 Nov 2026 00:00:00 GMT"))),
        ("\"sunset\":1e15", 200, (Some("@0"), Some("Fri, 31 Dec 9999 23:59:59 GMT"))),
        ("\"sunset\":\"soon\"", 503, (None, None)),
        ("\"sunset\":1,\"since\":\"then\"", 503, (None, None)),
        // What is written must be in every answer: a slip in its name would mean a key without an end.
        ("\"sunest\":1", 503, (None, None)),
    ] {
        endpoint.instead(said(more));
        let answer = eventually(more, || {
            let answer = ask(&scopegate, "GET", "/api/v1/apps", OLD);
            (answer.status == status && warned(&answer) == warning).then_some(answer)
        });
        assert!(status != 401 || answer.reason() == "key_expired");
    }
    let shown = scopegate.ask_admin("/config").text();
    assert!(shown.contains("\"/sunset\"") && shown.contains("\"/since\""), "{shown}");
}

#[test]
fn the_columns_of_a_rotation_may_be_called_otherwise() {
    let (upstream, Some(postgres)) = (Upstream::start(), Postgres::start()) else { return };
    let query = format!(
        "SELECT 'a' AS id, 'acme' AS team, 'READ_TEAM_APPS' AS scopes, '{UNTIL}'::timestamptz AS gone, \
         '{SINCE}'::timestamptz AS replaced FROM (SELECT $1) AS asked"
    );
    let own = format!(", digest: hex, query: \"{query}\", columns: {{ sunset: gone, since: replaced }}");
    let section = format!("keys: {{ {} }}", postgres.section_with(&own));
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    eventually("readiness", || (scopegate.ask_admin("/readyz").status == 200).then_some(()));
    let answer = ask(&scopegate, "GET", "/api/v1/apps", OLD);
    assert_eq!(warned(&answer), (Some("@1793491200"), Some("Sat, 31 Jan 2099 12:00:00 GMT")));
    let columns = scopegate.ask_admin("/config").text();
    assert!(columns.contains("\"gone\"") && columns.contains("\"replaced\""), "{columns}");
}

#[test]
fn a_channel_that_is_opened_with_an_old_key_is_warned_too() {
    let upstream = Upstream::with(|exchange| {
        exchange.write(
            "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
             Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n",
        );
        let _ = exchange.stream.read(&mut [0; 64]);
        false
    });
    let channel =
        "surfaces:\n  calls: { access: key, upgrade: websocket, routes: { GET /ws/calls: READ_TEAM_APPS } }";
    let scopegate = setup(&upstream, &previous(UNTIL)).with("surfaces:", channel).start();
    let handshake = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                     Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
    for (key, wanted) in [(OLD, true), (NEW, false)] {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", "/ws/calls", &(bearer(key) + handshake), ""));
        let (status, headers) = client.head();
        assert_eq!(status, 101);
        assert_eq!(headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("sunset")), wanted, "{key}");
    }
}

#[test]
fn what_the_upstream_says_of_its_own_end_stays() {
    let upstream = Upstream::with(|exchange| exchange.reply("200 OK", "Sunset: theirs\r\n", ""));
    let scopegate = setup(&upstream, &previous(UNTIL)).start();
    let answer = ask(&scopegate, "GET", "/api/v1/apps", OLD);
    assert_eq!(warned(&answer), (Some("@1793491200"), Some("theirs")));
    assert_eq!(answer.headers.iter().filter(|(name, _)| name.eq_ignore_ascii_case("sunset")).count(), 1);
}

#[test]
fn an_old_key_ends_with_its_time_and_with_the_new_one() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let _ = exchange.stream.read(&mut [0; 64]);
        false
    });
    let soon = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_millis(1500)).to_string();
    for more in [previous(&soon), format!("{}, expires: '{soon}'", previous(UNTIL))] {
        let scopegate = setup(&upstream, &more).start();
        let open = |key: &str| {
            let mut client = Client::connect(scopegate.address);
            client.send(request("GET", "/api/v1/apps", &bearer(key), ""));
            (client.head().0 == 200).then_some(client)
        };
        if let Some(mut stream) = open(OLD) {
            assert_eq!(stream.chunk().as_deref(), Some(&b"hello"[..]));
            let mut rest = Vec::new();
            let _ = stream.stream.read_to_end(&mut rest);
            assert_eq!(rest, b"", "it is cut");
        }
        assert_eq!(get(scopegate.address, "/api/v1/apps", &bearer(OLD)).reason(), "key_expired");
        assert_eq!(open(NEW).is_some(), !more.contains("expires"));
    }
}

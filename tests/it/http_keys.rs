//! Keys behind an endpoint: what is asked, what is taken for an answer, and what happens when there is none.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use crate::harness::eventually;
use crate::harness::introspection::{GOOD, KEY, endpoint, form, json, ready, setup};
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store as _};
use crate::harness::tls::Authority;
use crate::harness::upstream::Upstream;

fn up(scopegate: &Scopegate) -> f64 {
    scopegate.metric("scopegate_key_source_up{source=\"http\"}")
}

fn unavailable() -> (u16, String) {
    (503, "keys_unavailable".to_owned())
}

#[test]
fn what_is_no_answer_lets_nobody_in_and_calls_nobody_unknown() {
    let (upstream, elsewhere, endpoint) = (Upstream::start(), Upstream::start(), endpoint());
    let scopegate =
        setup(&upstream, &endpoint.url(), ", retries: 0, failures: 100", "timeout: 500ms").start();
    ready(&scopegate);
    let with = |from: &str, to: &str| {
        assert!(GOOD.contains(from), "{from}");
        json("200 OK", &GOOD.replace(from, to))
    };
    let page = "<!doctype html><title>active: true</title>";
    let html = |status: &str| json(status, page).replace("application/json", "text/html; charset=utf-8");
    let moved = format!("Location: http://{}/introspect\r\nContent-Type", elsewhere.address);
    let cases = [
        html("200 OK"),
        html("404 Not Found"),
        json("200 OK", ""),
        json("200 OK", "null"),
        json("200 OK", "[true]"),
        json("200 OK", &GOOD[..GOOD.len() - 1]),
        json("200 OK", &format!("{GOOD}{GOOD}")),
        json("200 OK", &"[".repeat(60_000)),
        json("200 OK", &format!("{}{GOOD}", " ".repeat(10 << 20))),
        with("\"active\":true", "\"active\":\"true\""),
        with("\"active\":true", "\"active\":1"),
        with("\"active\":true", "\"active\":null"),
        with("\"client_id\":\"i\"", "\"client_id\":7"),
        with("\"client_id\":\"i\"", "\"client_id\":\"\""),
        with("\"client_id\":\"i\"", "\"client_id\":\"i\\r\\nX-Scopegate-Team: other\""),
        with("\"team\":\"acme\",", ""),
        with("\"scope\":\"READ_TEAM_APPS\"", "\"scope\":{}"),
        with("\"scope\":\"READ_TEAM_APPS\"", "\"scope\":[\"READ_TEAM_APPS\",1]"),
        with("\"team_scopes\":\"READ_TEAM_APPS\",", ""),
        with("\"disabled\":false", "\"disabled\":\"no\""),
        with("\"disabled\":false,\"team_disabled\":false", "\"disabled\":false"),
        with("\"team\"", "\"exp\":\"soon\",\"team\""),
        with("\"team\"", "\"exp\":-1,\"team\""),
        with("\"team\"", "\"exp\":1e300,\"team\""),
        with("\"team\"", "\"exp\":true,\"team\""),
        json("302 Found", "").replace("Content-Type", &moved),
        json("308 Permanent Redirect", GOOD).replace("Content-Type", &moved),
        json("201 Created", GOOD),
        "HTTP/1.1 204 No Content\r\n\r\n".to_owned(),
        json("400 Bad Request", GOOD),
        json("401 Unauthorized", GOOD),
        json("403 Forbidden", GOOD),
        json("429 Too Many Requests", GOOD),
        json("500 Internal Server Error", GOOD),
        json("503 Service Unavailable", r#"{"active":false}"#),
        json("200 OK", GOOD).replace("Content-Length: ", "Content-Length: 1"),
        format!("HTTP/1.1 200 OK\r\nX: {}\r\n\r\n{GOOD}", "x".repeat(1 << 20)),
        "SSH-2.0-OpenSSH_9.2\r\n".to_owned(),
        String::new(),
    ];
    let asked = |case: String, number: usize| {
        endpoint.instead(move |exchange| exchange.last(&case));
        told(&scopegate, &format!("sk_live_{number}"))
    };
    let count = cases.len();
    for (number, case) in cases.into_iter().enumerate() {
        let shown = case[..case.len().min(200)].to_owned();
        assert_eq!(asked(case, number), unavailable(), "{shown}");
    }
    endpoint.instead(|exchange| {
        let _ = std::io::Read::read(exchange.stream, &mut [0; 64]);
        false
    });
    let began = Instant::now();
    assert_eq!(told(&scopegate, "sk_live_silent"), unavailable());
    assert!(began.elapsed() >= Duration::from_millis(500), "{:?}", began.elapsed());
    let failed = scopegate.metric("scopegate_key_lookups_total{result=\"failed\",source=\"http\"}");
    assert_eq!(failed, (count + 1) as f64);
    assert_eq!(elsewhere.seen().len(), 0, "a redirect was followed");
    let line = scopegate.log_line(|line| line["status"] == 503);
    assert!(line["detail"].as_str().is_some_and(|detail| detail.contains("http")), "{line}");
    for (number, case) in [
        json("200 OK", r#"{"active":false}"#),
        json("200 OK", &GOOD.replace("\"active\":true", "\"active\":false")),
        json("404 Not Found", r#"{"error":"no such key"}"#),
        "HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n".to_owned(),
    ]
    .into_iter()
    .enumerate()
    {
        assert_eq!(asked(case.clone(), 100 + number), (401, "key_unknown".to_owned()), "{case}");
    }
    assert_eq!(asked(json("200 OK", GOOD), 200).0, 200);
    assert_eq!(up(&scopegate), 1.0);
}

#[test]
fn an_answer_may_have_other_names_and_seconds() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let answer =
        "answer: { active: /data/ok, id: /data/0, team: /data/a~1b, scopes: /data/s, expires: /until }";
    let keys = format!("keys: {{ http: {{ url: '{}', {answer} }} }}", endpoint.url());
    endpoint.instead(|exchange| exchange.last(json("404 Not Found", "")));
    let scopegate = Setup::new(&upstream).with("keys: { file: keys.yaml }", &keys).start();
    ready(&scopegate);
    let cases = [
        ("4000000000", 200, ""),
        ("4000000000.5", 200, ""),
        ("\"2099-01-01\"", 200, ""),
        ("null", 200, ""),
        ("1700000000", 401, "key_expired"),
        ("0", 401, "key_expired"),
    ];
    for (number, (until, status, reason)) in cases.into_iter().enumerate() {
        endpoint.instead(move |exchange| {
            let data = r#"{"ok":true,"0":"id-x","a/b":"acme","s":["READ_TEAM_APPS","READ_MINDS"]}"#;
            exchange.last(json("200 OK", &format!(r#"{{"data":{data},"until":{until}}}"#)))
        });
        let answer = told(&scopegate, &format!("sk_live_{number}"));
        assert_eq!(answer, (status, reason.to_owned()), "{until}");
    }
    let line = scopegate.log_line(|line| line["status"] == 200);
    assert_eq!((&line["team"], &line["key"]), (&"acme".into(), &"id-x".into()), "{line}");
}

#[test]
fn what_is_asked_is_a_digest_or_the_key_and_stays_between_the_two() {
    let upstream = Upstream::start();
    let key = "sk_live_+/=&%~.plain";
    for (more, wanted) in [
        ("", form(key)),
        (", field: key hash", form(key).replace("token_digest", "key%20hash")),
        (", send: key", "token=sk_live_%2B%2F%3D%26%25%7E.plain".to_owned()),
    ] {
        let mut endpoint = endpoint();
        endpoint.key(key, &Row::default());
        if more.contains("field") {
            endpoint.instead(|exchange| exchange.last(json("404 Not Found", "")));
        }
        let folder = setup(&upstream, &endpoint.url(), &format!("{more}, bearer_file: bearer"), "").write();
        std::fs::write(folder.path().join("bearer"), "s3cret\n").expect("a file");
        let scopegate = Scopegate::start(folder);
        ready(&scopegate);
        let status = if more.contains("field") { 401 } else { 200 };
        assert_eq!(told(&scopegate, key).0, status, "{more}");
        assert_eq!(endpoint.asked(&wanted), 1, "{wanted}: {:?}", endpoint.upstream.seen());
        let seen = endpoint.upstream.seen().pop().expect("a question");
        assert_eq!((&*seen.method, &*seen.target), ("POST", "/introspect"));
        assert_eq!(seen.header("host"), Some(&*endpoint.upstream.address.to_string()));
        assert_eq!(seen.header("content-type"), Some("application/x-www-form-urlencoded"));
        // What it answers when it fails is told, and holds neither.
        endpoint.instead(|exchange| exchange.last(json("500 Oops", "")));
        let other = "sk_live_other.plain";
        assert_eq!(told(&scopegate, other), unavailable());
        scopegate.log_line(|line| line["status"] == 503);
        let pages = ["/metrics", "/config"].map(|page| scopegate.ask_admin(page).text());
        assert!(pages[1].contains("bearer_file"), "{}", pages[1]);
        for text in pages.into_iter().chain([scopegate.everything_said()]) {
            for secret in [key, other, ".plain", "s3cret"] {
                assert!(!text.contains(secret), "{secret} is shown: {text}");
            }
        }
    }
}

#[test]
fn our_credential_is_the_one_in_the_file_now() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let cache = "fresh: 0s, stale: 0s";
    let folder = setup(&upstream, &endpoint.url(), ", failures: 100, bearer_file: bearer", cache).write();
    std::fs::write(folder.path().join("bearer"), "first").expect("a file");
    let scopegate = Scopegate::start(folder);
    ready(&scopegate);
    let shown =
        || endpoint.upstream.seen().last().and_then(|seen| seen.header("authorization").map(str::to_owned));
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(shown().as_deref(), Some("Bearer first"));
    scopegate.replace("bearer", "second\n");
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(shown().as_deref(), Some("Bearer second"));
    std::fs::remove_file(scopegate.file("bearer")).expect("a file");
    assert_eq!(told(&scopegate, KEY), unavailable());
    scopegate.replace("bearer", "two\nlines");
    assert_eq!(told(&scopegate, KEY), unavailable());
    let line = scopegate.log_line(|line| line["detail"].as_str().is_some_and(|text| text.contains("bearer")));
    assert!(!line.to_string().contains("lines"), "{line}");
}

#[test]
fn a_question_is_asked_once_more_and_an_old_connection_is_no_fault() {
    let upstream = Upstream::start();
    for (retries, wanted) in [(0, unavailable()), (1, (200, String::new()))] {
        let mut endpoint = endpoint();
        let more = format!(", retries: {retries}, failures: 100");
        let scopegate = setup(&upstream, &endpoint.url(), &more, "fresh: 0s, stale: 0s").start();
        ready(&scopegate);
        let known = json("200 OK", GOOD);
        for (number, fault) in
            [json("503 Busy", ""), json("502 Bad", ""), "HTTP/1.1 200 OK\r\nConte".to_owned()]
                .into_iter()
                .enumerate()
        {
            let (turn, known) = (AtomicUsize::new(0), known.clone());
            endpoint.instead(move |exchange| match turn.fetch_add(1, Ordering::SeqCst) {
                0 => exchange.last(&fault),
                _ => exchange.last(&known),
            });
            let key = format!("sk_live_{number}");
            assert_eq!(told(&scopegate, &key), wanted, "{retries} {number}");
            assert_eq!(endpoint.asked(&form(&key)), retries + 1);
        }
        // Each connection is closed behind the answer, without a word.
        endpoint.instead(move |exchange| exchange.last(&known));
        for _ in 0..5 {
            assert_eq!(told(&scopegate, KEY).0, 200);
        }
        endpoint.resume();
        endpoint.key(KEY, &Row { disabled: true, ..Row::default() });
        assert_eq!(told(&scopegate, KEY).1, "key_disabled");
    }
}

#[test]
fn an_endpoint_that_fails_is_left_alone_until_it_answers() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let more = ", retries: 0, failures: 3";
    let scopegate = setup(&upstream, &endpoint.url(), more, "fresh: 0s, stale: 0s").start();
    ready(&scopegate);
    assert_eq!((told(&scopegate, KEY).0, up(&scopegate)), (200, 1.0));
    // What cannot be read may be of one key: it does not count.
    endpoint.instead(|exchange| exchange.last(json("200 OK", "<html>")));
    for _ in 0..5 {
        assert_eq!(told(&scopegate, KEY), unavailable());
    }
    assert_eq!(up(&scopegate), 1.0);
    endpoint.instead(|exchange| exchange.last(json("500 Oops", "")));
    for _ in 0..3 {
        assert_eq!(told(&scopegate, KEY), unavailable());
    }
    eventually("the loss", || (up(&scopegate) == 0.0).then_some(()));
    for number in 0..20 {
        assert_eq!(told(&scopegate, &format!("sk_live_{number}")), unavailable());
        assert_eq!(endpoint.asked(&form(&format!("sk_live_{number}"))), 0, "it is left alone");
    }
    let event = scopegate.event(|event| {
        event["error"].as_str().is_some_and(|error| error.contains("after 3 failures in a row"))
    });
    assert!(event.to_string().contains("status 500"), "{event}");
    assert_eq!(scopegate.ask_admin("/readyz").status, 200, "a loss does not make it unready");
    endpoint.resume();
    eventually("its return", || (up(&scopegate) == 1.0).then_some(()));
    assert_eq!(told(&scopegate, KEY).0, 200);
}

#[test]
fn it_is_ready_once_it_has_answered_and_does_not_say_yes_to_everything() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    endpoint.instead(|exchange| exchange.last(json("200 OK", GOOD)));
    let scopegate = setup(&upstream, &endpoint.url(), "", "").start();
    scopegate.event(|event| event["error"].as_str().is_some_and(|error| error.contains("made up just now")));
    assert_eq!(scopegate.ask_admin("/readyz").status, 503);
    assert_eq!(told(&scopegate, KEY), unavailable());
    endpoint.instead(|exchange| exchange.last(json("503 Soon", "")));
    scopegate.event(|event| event["error"].as_str().is_some_and(|error| error.contains("status 503")));
    assert_eq!(scopegate.ask_admin("/readyz").status, 503);
    endpoint.resume();
    ready(&scopegate);
    assert_eq!(told(&scopegate, KEY).0, 200);
}

#[test]
fn who_asks_before_it_has_answered_waits_no_longer_than_for_the_first_try() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    endpoint.instead(|_| false);
    let scopegate = setup(&upstream, &endpoint.url(), ", retries: 0", "timeout: 60s").start();
    // A test waits for less than the minute.
    assert_eq!(told(&scopegate, KEY), unavailable());
    assert_eq!(told(&scopegate, KEY), unavailable());
    endpoint.resume();
    ready(&scopegate);
    assert_eq!(told(&scopegate, KEY).0, 200);
}

#[test]
fn a_reload_that_changes_it_refuses_nobody() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let scopegate = setup(&upstream, &endpoint.url(), ", failures: 4", "").start();
    ready(&scopegate);
    for generation in 2..5 {
        scopegate.edit(
            "scopegate.yaml",
            &format!("failures: {}", generation + 2),
            &format!("failures: {}", generation + 3),
        );
        eventually("the reload", || {
            assert_eq!(told(&scopegate, KEY).0, 200);
            (scopegate.metric("scopegate_config_generation") == f64::from(generation)).then_some(())
        });
    }
    assert_eq!(told(&scopegate, KEY).0, 200);
}

#[test]
fn over_tls_only_who_an_authority_of_ours_vouches_for_is_asked() {
    let (upstream, endpoint) = (Upstream::start(), endpoint());
    let (ours, others) = (Authority::new(), Authority::new());
    let behind = endpoint.upstream.address;
    let stranger = others.vouch("127.0.0.1", behind);
    let folder = setup(&upstream, &format!("https://{stranger}/introspect"), ", ca_file: ca.pem", "").write();
    std::fs::write(folder.path().join("ca.pem"), ours.pem()).expect("a file");
    let scopegate = Scopegate::start(folder);
    scopegate.event(|event| {
        event["error"].as_str().is_some_and(|error| error.contains("invalid peer certificate"))
    });
    assert_eq!(told(&scopegate, KEY), unavailable());
    assert_eq!((scopegate.ask_admin("/readyz").status, endpoint.upstream.seen().len()), (503, 0));
    // The file is read again for every connection.
    scopegate.replace("ca.pem", &format!("{}{}", ours.pem(), others.pem()));
    ready(&scopegate);
    assert_eq!(told(&scopegate, KEY).0, 200);
    let url = format!("https://{}/introspect", ours.vouch("keys.internal", behind));
    let folder = setup(&upstream, &url, ", ca_file: ca.pem", "").write();
    std::fs::write(folder.path().join("ca.pem"), ours.pem()).expect("a file");
    let scopegate = Scopegate::start(folder);
    scopegate
        .event(|event| event["error"].as_str().is_some_and(|error| error.contains("not valid for name")));
    assert_eq!(told(&scopegate, KEY), unavailable());
}

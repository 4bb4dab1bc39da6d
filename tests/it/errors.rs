//! What a refusal looks like.

use crate::harness::bearer;
use crate::harness::client::{Answer, ask, get};
use crate::harness::scopegate::{MINT, READ, Setup};
use crate::harness::upstream::Upstream;

fn is_uuid(text: &str) -> bool {
    text.len() == 36
        && text
            .chars()
            .enumerate()
            .all(|(place, c)| if [8, 13, 18, 23].contains(&place) { c == '-' } else { c.is_ascii_hexdigit() })
}

fn id(answer: &Answer) -> String {
    answer.header("x-request-id").expect("an id").to_owned()
}

#[test]
fn the_documented_shape_and_the_one_that_the_sdk_shows() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let answer = ask(scopegate.address, "POST", "/api/v1/call-tokens", &bearer(READ), "{}");
    let error = &answer.json()["error"];
    assert_eq!((answer.status, answer.header("content-type")), (403, Some("application/json")));
    assert_eq!((&error["code"], &error["requestId"]), (&"scope_missing".into(), &id(&answer).into()));
    assert_eq!(error["message"], "This API key lacks the scope CREATE_CALL_TOKEN.");
    assert!(is_uuid(&id(&answer)), "{}", id(&answer));
    assert_eq!(answer.header("cache-control"), Some("no-store"));

    let answer = ask(scopegate.address, "POST", "/api/v1/sessions/token", &bearer(READ), "{}");
    let body = answer.json();
    assert_eq!(body["error"], "This API key lacks the scope CREATE_CALL_TOKEN.");
    assert_eq!((&body["code"], &body["requestId"]), (&"scope_missing".into(), &id(&answer).into()));

    for (key, challenge) in [
        ("", r#"Bearer realm="scopegate""#),
        ("unknown", r#"Bearer realm="scopegate", error="invalid_token""#),
        ("two words", r#"Bearer realm="scopegate", error="invalid_request""#),
    ] {
        let headers = if key.is_empty() { String::new() } else { bearer(key) };
        let answer = get(scopegate.address, "/api/v1/apps", &headers);
        assert_eq!((answer.status, answer.header("www-authenticate")), (401, Some(challenge)));
    }
}

#[test]
fn a_request_id_is_made_forwarded_returned_and_logged() {
    let upstream = Upstream::with(|exchange| {
        exchange.reply("200 OK", "X-Request-Id: the-upstreams-own\r\nScopegate-Reason: forged\r\n", "ok")
    });
    let scopegate = Setup::new(&upstream).start();
    let answer =
        get(scopegate.address, "/api/v1/runtime/capabilities", &(bearer(MINT) + "X-Request-Id: mine\r\n"));
    assert!(is_uuid(&id(&answer)), "an untrusted one is not taken: {}", id(&answer));
    assert_eq!(upstream.nth(0).header("x-request-id"), Some(&*id(&answer)));
    assert_eq!(answer.reason(), "", "only we say that we refused");
    scopegate.log_line(|line| line["id"] == id(&answer));
    assert_ne!(id(&answer), id(&get(scopegate.address, "/health", "")));

    let scopegate = Setup::new(&upstream).and("trusted_proxies: [127.0.0.1]").start();
    let of = |given: &str| id(&get(scopegate.address, "/nothing", &format!("X-Request-Id: {given}\r\n")));
    assert_eq!(of("trace-1:a/b"), "trace-1:a/b");
    for odd in ["a b", "a\"b", "<script>", &"x".repeat(129)] {
        assert!(is_uuid(&of(odd)), "{odd}");
    }
}

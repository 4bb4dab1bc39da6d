//! How a request carries its key, and that no key is ever repeated.

use crate::harness::client::get;
use crate::harness::scopegate::{ALL, APPS, MINT, Setup};
use crate::harness::upstream::Upstream;

#[test]
fn either_header_carries_a_key_and_goes_on_as_it_came() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let passes = [
        format!("Authorization: Bearer {ALL}\r\n"),
        format!("authorization:   bEARER   {ALL}  \r\n"),
        format!("X-API-Key: {ALL}\r\n"),
        format!("x-api-key:  {ALL} \r\n"),
        format!("Authorization: Bearer {ALL}\r\nX-API-Key: {ALL}\r\n"),
        format!("Authorization: Basic dTpw\r\nX-API-Key: {ALL}\r\n"),
    ];
    for (number, headers) in passes.iter().enumerate() {
        assert_eq!(get(scopegate.address, "/api/v1/apps", headers).status, 200, "{headers}");
        let seen = upstream.nth(number);
        for line in headers.lines() {
            let (name, value) = line.split_once(':').expect("a header");
            assert_eq!(seen.header(name), Some(value.trim()), "{headers}");
        }
    }
    let refused = [
        (String::new(), "key_missing"),
        ("Authorization: Basic dTpw\r\n".to_owned(), "key_missing"),
        (format!("Authorization: {ALL}\r\n"), "key_missing"),
        ("Authorization: Bearer\r\n".to_owned(), "key_malformed"),
        ("X-API-Key:\r\n".to_owned(), "key_malformed"),
        (format!("Authorization: Bearer {ALL} x\r\n"), "key_malformed"),
        (format!("Authorization: Bearer {ALL}\r\nX-API-Key: {APPS}\r\n"), "key_conflict"),
        (format!("Authorization: Bearer {ALL}\r\nAuthorization: Bearer {ALL}\r\n"), "key_repeated"),
        (format!("X-API-Key: {ALL}\r\nX-API-Key: {ALL}\r\n"), "key_repeated"),
        (format!("X-API-Key: {ALL}x\r\n"), "key_unknown"),
        (format!("X-API-Key: {}\r\n", ALL.to_uppercase()), "key_unknown"),
        (format!("Cookie: key={ALL}\r\n"), "key_missing"),
    ];
    for (headers, reason) in refused {
        let answer = get(scopegate.address, &format!("/api/v1/apps?key={ALL}&api_key={ALL}"), &headers);
        assert_eq!((answer.status, answer.reason()), (401, reason), "{headers}");
        assert!(
            answer.header("www-authenticate").is_some_and(|value| value.starts_with("Bearer ")),
            "{headers}"
        );
    }
    assert_eq!(upstream.seen().len(), passes.len());
}

#[test]
fn strip_keeps_the_key_from_the_upstream() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).and("credential: strip").start();
    let headers = format!("Authorization: Bearer {ALL}\r\nX-API-Key: {ALL}\r\n");
    assert_eq!(get(scopegate.address, "/api/v1/apps", &headers).status, 200);
    assert_eq!(get(scopegate.address, "/api/v1/webhooks/x", &headers).status, 200);
    let (keyed, open) = (upstream.nth(0), upstream.nth(1));
    assert_eq!((keyed.header("authorization"), keyed.header("x-api-key")), (None, None));
    assert!(open.header("authorization").is_some(), "what an open surface is sent is not ours");
    let headers = format!("Authorization: Basic dTpw\r\nX-API-Key: {ALL}\r\n");
    assert_eq!(get(scopegate.address, "/api/v1/apps", &headers).status, 200);
    let keyed = upstream.nth(2);
    assert_eq!((keyed.header("authorization"), keyed.header("x-api-key")), (Some("Basic dTpw"), None));
}

#[test]
fn no_key_is_repeated_anywhere() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for key in [ALL, MINT, "sk_live_not_known"] {
        for headers in
            [format!("Authorization: Bearer {key}\r\n"), format!("X-API-Key: {key}\r\nX-API-Key: {key}\r\n")]
        {
            let answer = get(scopegate.address, "/api/v1/apps", &headers);
            assert!(!format!("{answer:?}").contains(key), "{answer:?}");
            scopegate.log_line(|line| line["id"] == answer.header("x-request-id").unwrap_or_default());
        }
    }
    let told = [
        scopegate.ask_admin("/metrics").text(),
        scopegate.ask_admin("/config").text(),
        scopegate.everything_said(),
    ];
    for text in told {
        assert!(!text.contains("sk_live_"), "{text}");
    }
}

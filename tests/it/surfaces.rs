//! What passes, what does not, and what is said of it.

use crate::harness::bearer;
use crate::harness::client::{ask, get};
use crate::harness::scopegate::{
    ALL, APPS, DISABLED, EXPIRED, GONE_TEAM, MINT, NONE, OFF_TEAM, POOR_TEAM, READ, Setup,
};
use crate::harness::upstream::Upstream;

/// What a request gets: a status, and a reason where scopegate answers itself.
type Case = (&'static str, &'static str, &'static str, u16, &'static str);

fn check(setup: impl Fn(Setup) -> Setup, cases: &[Case]) {
    let upstream = Upstream::start();
    let scopegate = setup(Setup::new(&upstream)).start();
    for (method, target, key, status, reason) in cases {
        let headers = if key.is_empty() { String::new() } else { bearer(key) };
        let answer = ask(scopegate.address, method, target, &headers, "");
        assert_eq!((answer.status, answer.reason()), (*status, *reason), "{method} {target} {key}");
        let line = scopegate.log_line(|line| line["id"] == answer.header("x-request-id").unwrap_or_default());
        assert_eq!(line["status"], *status, "{line}");
        assert_eq!(line["reason"], if reason.is_empty() { "passed" } else { reason }, "{line}");
    }
    let passed = cases.iter().filter(|(.., reason)| reason.is_empty()).count();
    assert_eq!(upstream.seen().len(), passed, "only what passes reaches the upstream");
}

#[test]
fn routes_scopes_and_callers() {
    check(
        |setup| setup,
        &[
            ("GET", "/health", "", 200, ""),
            ("HEAD", "/health", "", 200, ""),
            ("GET", "/health?x=1", "", 200, ""),
            ("POST", "/health", "", 405, "method_unknown"),
            ("GET", "/health/", "", 404, "route_unknown"),
            ("GET", "/Health", "", 404, "route_unknown"),
            ("GET", "/", "", 404, "route_unknown"),
            ("GET", "/documentation", ALL, 404, "route_unknown"),
            ("POST", "/api/v1/call-tokens", MINT, 200, ""),
            ("POST", "/api/v1/call-tokens", READ, 403, "scope_missing"),
            ("POST", "/api/v1/call-tokens", NONE, 403, "scope_missing"),
            ("POST", "/api/v1/call-tokens", "", 401, "key_missing"),
            ("POST", "/api/v1/call-tokens", "unknown", 401, "key_unknown"),
            ("GET", "/api/v1/call-tokens", MINT, 405, "method_unknown"),
            ("GET", "/api/v1/call-tokens", "", 401, "key_missing"),
            ("GET", "/api/v1/call-tokens/t1", READ, 200, ""),
            ("HEAD", "/api/v1/call-tokens/t1", READ, 200, ""),
            ("GET", "/api/v1/call-tokens/t1", MINT, 403, "scope_missing"),
            ("GET", "/api/v1/call-tokens/t1/x", READ, 404, "route_unknown"),
            ("GET", "/api/v1/call-tokens/", READ, 400, "path_ambiguous"),
            ("GET", "/api/v1/apps", APPS, 200, ""),
            ("GET", "/api/v1/apps/", APPS, 200, ""),
            ("GET", "/api/v1/apps/7/endpoints", APPS, 200, ""),
            ("GET", "/api/v1/%61pps", APPS, 200, ""),
            ("GET", "/api/v1/appsx", APPS, 404, "route_unknown"),
            ("GET", "/api/v1/runtime/capabilities", MINT, 200, ""),
            ("GET", "/api/v1/runtime/capabilities", APPS, 200, ""),
            ("GET", "/api/v1/runtime/capabilities", READ, 403, "scope_missing"),
            ("GET", "/api/v1/both", MINT, 403, "scope_missing"),
            ("GET", "/api/v1/both", ALL, 200, ""),
            ("GET", "/api/v1/whoami", NONE, 200, ""),
            ("GET", "/api/v1/whoami", "", 401, "key_missing"),
            ("GET", "/api/v1/apps", EXPIRED, 401, "key_expired"),
            ("GET", "/api/v1/apps", DISABLED, 401, "key_disabled"),
            ("GET", "/api/v1/apps", OFF_TEAM, 401, "team_disabled"),
            ("GET", "/api/v1/apps", GONE_TEAM, 401, "team_disabled"),
            ("GET", "/api/v1/apps", POOR_TEAM, 403, "scope_missing"),
            ("GET", "/ws/session?sessionId=a&token=b", "", 426, "upgrade_required"),
        ],
    );
}

#[test]
fn a_path_with_two_readings_is_refused_before_it_is_matched() {
    check(
        |setup| setup,
        &[
            ("GET", "/api/v1/webhooks/../apps", "", 400, "path_ambiguous"),
            ("GET", "/api/v1/webhooks/%2e%2e/apps", "", 400, "path_ambiguous"),
            ("GET", "/api/v1/webhooks/..%2fapps", "", 400, "path_ambiguous"),
            ("GET", "/api/v1/webhooks%2f..%2fapps", "", 400, "path_ambiguous"),
            ("GET", "/api/v1/webhooks%2fx", "", 400, "path_ambiguous"),
            ("GET", "/api/v1/webhooks/a%2fb", "", 200, ""),
            ("GET", "/api/v1/webhooks/a%00b", "", 400, "path_ambiguous"),
            ("GET", "/api/v1//apps", APPS, 400, "path_ambiguous"),
            ("GET", "//api/v1/apps", APPS, 400, "path_ambiguous"),
            ("GET", "/api/v1/apps/a%2fb", APPS, 400, "path_ambiguous"),
            ("GET", "/api/v1/apps%2f7", APPS, 400, "path_ambiguous"),
            ("GET", "/api/v1/apps;a=b", APPS, 400, "path_ambiguous"),
            ("GET", "/api/v1/apps/%252e%252e", APPS, 400, "path_ambiguous"),
            ("GET", "/api/v1/apps/%zz", APPS, 400, "path_ambiguous"),
            ("OPTIONS", "*", "", 400, "target_invalid"),
            ("CONNECT", "telapi.example:443", "", 400, "target_invalid"),
            ("GET", "http://telapi.example/api/v1/apps", APPS, 200, ""),
            ("GET", "http://other.example/api/v1/apps", APPS, 400, "target_invalid"),
        ],
    );
}

#[test]
fn a_flag_that_is_off_closes_its_surfaces_whatever_the_key() {
    for flags in ["webrtc: false, apiAccess: true", "webrtc: true, apiAccess: false"] {
        let off = format!("flags: {{ {flags} }}");
        check(
            |setup| setup.with("flags: { webrtc: true, apiAccess: true }", &off),
            &[
                ("POST", "/api/v1/call-tokens", ALL, 403, "flag_off"),
                ("POST", "/api/v1/call-tokens", "", 403, "flag_off"),
                ("GET", "/api/v1/apps", "unknown", 403, "flag_off"),
                ("DELETE", "/api/v1/apps", ALL, 403, "flag_off"),
                ("GET", "/health", "", 200, ""),
                ("POST", "/api/v1/webhooks/llm", "", 200, ""),
            ],
        );
    }
}

#[test]
fn the_operator_may_choose_the_status_of_what_nothing_matches_but_not_that_it_passes() {
    check(
        |setup| setup.and("unmatched: 403"),
        &[
            ("GET", "/nothing", ALL, 403, "route_unknown"),
            ("GET", "/api/v1/webhooksfoo", "", 403, "route_unknown"),
        ],
    );
}

#[test]
fn a_missing_scope_is_named_with_its_layer_to_the_operator_and_without_it_to_the_client() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for (target, key, scopes, layer) in [
        ("/api/v1/apps", MINT, "READ_TEAM_APPS", "key"),
        ("/api/v1/apps", POOR_TEAM, "READ_TEAM_APPS", "team"),
        ("/api/v1/both", POOR_TEAM, "CREATE_CALL_TOKEN READ_TEAM_APPS", "team"),
        ("/api/v1/both", APPS, "CREATE_CALL_TOKEN", "key"),
    ] {
        let answer = get(scopegate.address, target, &bearer(key));
        let line = scopegate.log_line(|line| line["id"] == answer.header("x-request-id").unwrap_or_default());
        assert_eq!((&line["detail"], &line["layer"]), (&scopes.into(), &layer.into()), "{target} {key}");
        let challenge = format!(r#"Bearer realm="scopegate", error="insufficient_scope", scope="{scopes}""#);
        assert_eq!(answer.header("www-authenticate"), Some(&*challenge));
        for scope in scopes.split(' ') {
            assert!(answer.text().contains(scope), "{}", answer.text());
        }
        assert!(!answer.text().contains("team") && !answer.text().contains("acme"), "{}", answer.text());
    }
    assert_eq!(
        scopegate.metric(r#"scopegate_scope_denials_total{layer="team",scope="READ_TEAM_APPS"}"#),
        2.0
    );
    assert_eq!(
        scopegate.metric(r#"scopegate_scope_denials_total{layer="key",scope="CREATE_CALL_TOKEN"}"#),
        1.0
    );
}

#[test]
fn a_405_lists_the_methods() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let answer = ask(scopegate.address, "DELETE", "/api/v1/whoami", &bearer(NONE), "");
    assert_eq!((answer.status, answer.header("allow")), (405, Some("GET, HEAD, PUT")));
}

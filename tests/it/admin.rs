//! The operator's door: probes, metrics, and the configuration in force.

use serde_json::json;

use crate::harness::bearer;
use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{ALL, APPS, MINT, Setup};
use crate::harness::upstream::Upstream;

#[test]
fn each_page_is_there_and_only_for_reading() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for (method, path, status) in [
        ("GET", "/livez", 200),
        ("HEAD", "/livez", 200),
        ("GET", "/readyz", 200),
        ("GET", "/readyz?verbose", 200),
        ("GET", "/metrics", 200),
        ("GET", "/config", 200),
        ("GET", "/", 404),
        ("GET", "/health", 404),
        ("POST", "/metrics", 405),
        ("DELETE", "/config", 405),
    ] {
        assert_eq!(scopegate.tell_admin(method, path, "", "").status, status, "{method} {path}");
    }
    // The two doors do not lead to each other.
    for path in ["/livez", "/readyz", "/metrics", "/config"] {
        assert_eq!(get(scopegate.address, path, "").reason(), "route_unknown", "{path}");
    }
}

#[test]
fn the_configuration_is_shown_with_its_defaults_and_without_digests() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let page = scopegate.ask_admin("/config");
    assert_eq!(page.header("content-type"), Some("application/json"));
    let shown = page.json();
    assert_eq!(shown["generation"], 1);
    let config = &shown["config"];
    assert_eq!(config["flags"], json!({ "webrtc": true, "apiAccess": true }));
    assert_eq!(config["credential"], "forward");
    assert_eq!(config["unmatched"], 404);
    assert_eq!(config["timeouts"]["connect"], "2s");
    assert_eq!(config["upstreams"]["telapi"]["address"], upstream.address.to_string());
    assert_eq!(config["surfaces"]["webhooks"]["private"], true);
    assert_eq!(config["key_digest"], "sha256");
    assert!(!page.text().contains("sha256:"), "{}", page.text());
}

#[test]
fn requests_are_counted_by_what_the_configuration_names_and_nothing_else() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    for (bytes, count) in [
        (request("GET", "/api/v1/apps/one", &bearer(APPS), ""), 2),
        (request("GET", "/api/v1/apps/two", &bearer(MINT), ""), 1),
        (request("GET", "/no/such/path", "", ""), 1),
        (request("BREW", "/no/such/path", "", ""), 1),
        (request("POST", "/api/v1/webhooks/secret", "", "12345"), 1),
    ] {
        for _ in 0..count {
            Client::connect(scopegate.address).ask(&bytes);
        }
    }
    let counted = [
        (r#"method="GET",reason="passed",route="/api/v1/apps/**",status="2xx",surface="sdk""#, 2.0),
        (r#"method="GET",reason="scope_missing",route="/api/v1/apps/**",status="4xx",surface="sdk""#, 1.0),
        (r#"method="GET",reason="route_unknown",route="none",status="4xx",surface="none""#, 1.0),
        (r#"method="other",reason="route_unknown",route="none",status="4xx",surface="none""#, 1.0),
        (r#"method="POST",reason="passed",route="/api/v1/webhooks/**",status="2xx",surface="webhooks""#, 1.0),
    ];
    for (labels, value) in counted {
        assert_eq!(scopegate.metric(&format!("scopegate_requests_total{{{labels}}}")), value, "{labels}");
    }
    let page = scopegate.ask_admin("/metrics").text();
    for hidden in ["/one", "/no/such", "BREW", "secret", "sk_live", "acme", "id-apps"] {
        assert!(!page.contains(hidden), "{hidden} is a label: {page}");
    }
}

#[test]
fn durations_bytes_connections_and_keys_are_measured() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(request("POST", "/api/v1/call-tokens", &bearer(ALL), "1234567")).status, 200);
    assert_eq!(client.ask(request("GET", "/api/v1/apps", "", "")).status, 401);
    let refused = get(scopegate.address, "/api/v1/apps", "").body.len() as f64;
    for (metric, value) in [
        (r#"scopegate_decision_seconds_count{surface="sdk"}"#, 3.0),
        (r#"scopegate_upstream_seconds_count{surface="sdk"}"#, 1.0),
        (r#"scopegate_received_bytes_total{surface="sdk"}"#, 7.0),
        (r#"scopegate_sent_bytes_total{surface="sdk"}"#, 5.0 + 2.0 * refused),
        (r#"scopegate_upstream_connects_total{upstream="telapi"}"#, 1.0),
        ("scopegate_requests_in_flight", 0.0),
        ("scopegate_connections", 1.0),
        ("scopegate_tunnels", 0.0),
        ("scopegate_keys_loaded", 10.0),
        ("scopegate_keys_refused", 0.0),
        ("scopegate_config_generation", 1.0),
        (r#"scopegate_reloads_total{file="config",result="applied"}"#, 0.0),
        (&format!(r#"scopegate_build_info{{version="{}"}}"#, env!("CARGO_PKG_VERSION")), 1.0),
    ] {
        crate::harness::eventually(&format!("{metric} = {value}"), || {
            (scopegate.metric(metric) == value).then_some(())
        });
    }
    let page = scopegate.ask_admin("/metrics").text();
    for name in ["scopegate_config_info{hash=", "process_open_fds ", "process_resident_memory_bytes "] {
        assert!(page.contains(name), "{name}");
    }
}

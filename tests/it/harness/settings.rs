//! One default configuration and its keys. A test that needs another edits the text.

use std::fmt::Write as _;
use std::net::SocketAddr;

use data_encoding::HEXLOWER;
use sha2::{Digest as _, Sha256};

/// Every key of these tests begins so: where this stands in a log, a key has leaked.
pub(crate) const KEY_START: &str = "sk_test_";

/// May mint call tokens.
pub(crate) const MINT: &str = "sk_test_mint_5d1c";
/// May read call tokens.
pub(crate) const READ: &str = "sk_test_read_88aa";
/// May list apps.
pub(crate) const APPS: &str = "sk_test_apps_03ff";
/// Valid, and may do nothing.
pub(crate) const BARE: &str = "sk_test_bare_77e0";
/// Was given a scope that its team lacks.
pub(crate) const OVER_TEAM: &str = "sk_test_over_1b2c";
/// Has a scope that the platform does not define.
pub(crate) const UNHEARD: &str = "sk_test_unheard_9";
/// Ended in 2020.
pub(crate) const EXPIRED: &str = "sk_test_expired_4";
/// Turned off itself.
pub(crate) const DISABLED: &str = "sk_test_disabled_4";
/// Its team is turned off.
pub(crate) const TEAM_OFF: &str = "sk_test_teamoff_2";
/// Its team is deleted.
pub(crate) const TEAM_GONE: &str = "sk_test_teamgone_2";
/// In nobody's file.
pub(crate) const UNKNOWN: &str = "sk_test_unknown_0";

/// The default configuration, with one upstream for everything.
pub(crate) fn config(upstream: SocketAddr) -> String {
    let text = r#"
listen: [{ address: 127.0.0.1:0 }]
admin: { address: 127.0.0.1:0 }
workers: 1
trusted_proxies: [10.0.0.0/8]
upstreams:
  telapi: { address: UPSTREAM }
  webhooks: { address: UPSTREAM } # of webhooks
flags: { webrtc: true, apiAccess: true }
scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]
keys: { file: keys.yaml }
timeouts: { connect: 2s, first_byte: 5s, idle: 5s, pool: 4s }
drain: { delay: 100ms, grace: 3s }
surfaces:
  health: { access: open, routes: [GET /health] }
  webhooks: { access: open, upstream: webhooks, private: true, encoded_slash: true, routes: [/api/v1/webhooks/**] }
  channel:
    access: open
    flags: [webrtc]
    upgrade: websocket
    routes: ["GET /ws/session?sessionId&token"]
  sdk:
    access: key
    flags: [webrtc, apiAccess]
    routes:
      POST /api/v1/call-tokens: CREATE_CALL_TOKEN
      GET /api/v1/call-tokens/{id}: READ_CALL_TOKEN
      GET /api/v1/call-tokens/latest: { key_only: true }
      GET /api/v1/apps/**: READ_TEAM_APPS
      PUT /api/v1/apps/{id}: { all: [READ_TEAM_APPS, READ_CALL_TOKEN] }
      POST /api/v1/sessions/token: { scope: CREATE_CALL_TOKEN, errors: text }
      GET /api/v1/runtime/capabilities: { any: [CREATE_CALL_TOKEN, READ_TEAM_APPS] }
      GET /api/v1/whoami: { key_only: true }
"#;
    text.replace("UPSTREAM", &upstream.to_string())
}

/// The same text with one piece replaced, which must be there.
pub(crate) fn edit(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "the text lacks `{from}`");
    text.replacen(from, to, 1)
}

/// The configuration with a section more.
pub(crate) fn with(text: &str, section: &str) -> String {
    format!("{text}{section}\n")
}

/// The default keys file.
pub(crate) fn keys() -> String {
    let mut text = String::from(
        "teams:\n  acme: { scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS, FUTURE] }\n  \
         initech: { scopes: [READ_TEAM_APPS] }\n  \
         closed: { scopes: [CREATE_CALL_TOKEN], enabled: false }\n  \
         gone: { scopes: [CREATE_CALL_TOKEN], deleted: true }\nkeys:\n",
    );
    for (id, team, key, rest) in [
        ("acme-mint", "acme", MINT, "scopes: [CREATE_CALL_TOKEN]"),
        ("acme-read", "acme", READ, "scopes: [READ_CALL_TOKEN]"),
        ("acme-apps", "acme", APPS, "scopes: [READ_TEAM_APPS]"),
        ("acme-bare", "acme", BARE, "scopes: []"),
        ("initech-over", "initech", OVER_TEAM, "scopes: [CREATE_CALL_TOKEN, READ_TEAM_APPS]"),
        ("acme-unheard", "acme", UNHEARD, "scopes: [FUTURE]"),
        ("acme-expired", "acme", EXPIRED, "scopes: [CREATE_CALL_TOKEN], expires: 2020-01-01T00:00:00Z"),
        ("acme-disabled", "acme", DISABLED, "scopes: [CREATE_CALL_TOKEN], disabled: true"),
        ("closed-key", "closed", TEAM_OFF, "scopes: [CREATE_CALL_TOKEN]"),
        ("gone-key", "gone", TEAM_GONE, "scopes: [CREATE_CALL_TOKEN]"),
    ] {
        text.push_str(&key_row(id, team, key, rest));
    }
    text
}

/// One row of a keys file.
pub(crate) fn key_row(id: &str, team: &str, key: &str, rest: &str) -> String {
    let mut row = String::new();
    writeln!(row, "  - {{ id: {id}, team: {team}, digest: \"{}\", {rest} }}", digest(key)).unwrap();
    row
}

/// What a keys file holds of a key.
pub(crate) fn digest(key: &str) -> String {
    format!("sha256:{}", HEXLOWER.encode(&Sha256::digest(key)))
}

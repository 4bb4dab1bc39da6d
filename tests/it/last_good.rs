//! What a server of keys said last helps over a start without it.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use crate::harness::eventually;
use crate::harness::redis::Redis;
use crate::harness::scopegate::{Scopegate, Setup, told};
use crate::harness::stores::{Row, Store as _, Team};
use crate::harness::upstream::Upstream;

const KEY: &str = "sk_live_a";

#[test]
fn a_start_without_the_server_is_no_start_without_keys() {
    let (upstream, Some(mut redis)) = (Upstream::start(), Redis::start()) else { return };
    let folder = tempfile::tempdir().expect("a folder");
    let kept = folder.path().join("keys.last");
    redis.team(&Team::default());
    redis.key(KEY, &Row::default());
    redis.key("sk_live_off", &Row { id: "id-off", disabled: true, ..Row::default() });
    let last_good = format!("last_good: {{ file: {}, max_age: 1h }}", kept.display());
    let section = format!("keys: {{ {}, cache: {{ timeout: 500ms }}, {last_good} }}", redis.section());
    let start = || Setup::new(&upstream).with("keys: { file: keys.yaml }", &section).start();
    let is_ready = |scopegate: &Scopegate| scopegate.ask_admin("/readyz").status == 200;

    let scopegate = start();
    scopegate.event(|event| event["message"] == "what was said before is not used");
    eventually("readiness", || is_ready(&scopegate).then_some(()));
    for (key, status) in [(KEY, 200), ("sk_live_off", 401), ("sk_live_unknown", 401)] {
        assert_eq!(told(&scopegate, key).0, status, "{key}");
    }
    eventually("what is kept", || (fs::read_to_string(&kept).ok()?.lines().count() == 3).then_some(()));
    assert_eq!(fs::metadata(&kept).expect("a file").permissions().mode() & 0o777, 0o600);
    let text = fs::read_to_string(&kept).expect("a file");
    assert!(!text.contains("sk_live"), "there is no key in it: {text}");
    drop(scopegate);

    redis.kill();
    let scopegate = start();
    assert!(is_ready(&scopegate), "{}", scopegate.everything_said());
    assert_eq!(told(&scopegate, KEY).0, 200);
    assert_eq!(told(&scopegate, "sk_live_off"), (401, "key_disabled".to_owned()));
    assert_eq!(told(&scopegate, "sk_live_new"), (503, "keys_unavailable".to_owned()));
    // Once the server is there, what it says now is what counts, and so is its loss.
    redis.resume();
    eventually("the server", || {
        (scopegate.metric("scopegate_key_source_up{source=\"redis\"}") == 1.0).then_some(())
    });
    redis.key(KEY, &Row { disabled: true, ..Row::default() });
    eventually("the change", || (told(&scopegate, KEY).1 == "key_disabled").then_some(()));
    redis.kill();
    drop(scopegate);

    for (spoilt, why) in [
        (text.replacen("acme", "evil", 1), "not what was written"),
        (text.replacen("\"written\":1", "\"written\":9", 1), "future"),
        (text.replacen("\"version\":1", "\"version\":2", 1), "version"),
        (text.replacen("\"written\":1", "\"written\":", 1), "older"),
        ("no line".to_owned(), "first line"),
        (String::new(), "first line"),
    ] {
        fs::write(&kept, spoilt).expect("a file");
        let scopegate = start();
        let event = scopegate.event(|event| event["message"] == "what was said before is not used");
        assert!(event["error"].as_str().is_some_and(|error| error.contains(why)), "{why}: {event}");
        assert!(!is_ready(&scopegate), "{why}");
        assert_eq!(told(&scopegate, KEY), (503, "keys_unavailable".to_owned()), "{why}");
    }
}

//! A session is minted with a key and opened without one: its channel can end with that key.

use std::io::Read as _;

use crate::harness::client::{Client, ask, request};
use crate::harness::scopegate::{ALL, MINT, Scopegate, Setup};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{bearer, eventually};

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const END: (&str, &str) = ("{ id: id-mint, team: acme,", "{ id: id-mint, team: acme, disabled: true,");

/// Mints the session that the request's body names, in the form that its query asks for.
pub fn telapi(exchange: &mut Exchange<'_>) -> bool {
    if exchange.request.target.starts_with("/ws/") {
        exchange.write(SWITCH);
        let _ = exchange.stream.read(&mut [0; 64]);
        return false;
    }
    exchange.read_body();
    let session = String::from_utf8_lossy(&exchange.request.body).into_owned();
    let json =
        format!("{{\"sessionId\":\"{session}\",\"wsToken\":\"t\",\"more\":{{\"sessionId\":\"inner\"}}}}\n");
    let (first, last) = json.split_at(9);
    match exchange.request.target.rsplit('?').next() {
        Some("pieces") => {
            let chunk = |text: &str| format!("{:x}\r\n{text}\r\n", text.len());
            exchange.write(format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n{}", chunk(first)));
            exchange.write(format!("{}0\r\n\r\n", chunk(last)))
        }
        Some("failed") => answer(exchange, "500 Internal Server Error", &json),
        Some("large") => answer(exchange, "201 Created", &format!("{}{json}", " ".repeat(20_000))),
        Some("other") => answer(exchange, "200 OK", "{\"sessionId\": 5}"),
        Some("text") => answer(exchange, "200 OK", "sessionId=}"),
        _ => answer(exchange, "201 Created", &json),
    }
}

fn answer(exchange: &mut Exchange<'_>, status: &str, body: &str) -> bool {
    exchange.write(format!("HTTP/1.1 {status}\r\nContent-Length: {}\r\n\r\n{body}", body.len()))
}

pub fn setup(upstream: &Upstream, on_revoke: &str) -> Setup {
    let channel = format!("    upgrade: websocket\n    session: sessionId\n    on_revoke: {on_revoke}");
    let mints = "{ scope: CREATE_CALL_TOKEN, errors: text, mints: sessionId }";
    Setup::new(upstream)
        .with("    upgrade: websocket", &channel)
        .with("{ scope: CREATE_CALL_TOKEN, errors: text }", mints)
}

fn start(upstream: &Upstream, on_revoke: &str) -> Scopegate {
    setup(upstream, on_revoke).start()
}

pub fn mint(scopegate: &Scopegate, key: &str, session: &str, form: &str) {
    let target = format!("/api/v1/sessions/token?{form}");
    let answer = ask(scopegate.address, "POST", &target, &bearer(key), session);
    assert!(answer.whole, "{form}: {answer:?}");
}

pub fn open(scopegate: &Scopegate, session: &str) -> Client {
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", &format!("/ws/session?sessionId={session}&token=t"), HANDSHAKE, ""));
    assert_eq!(client.head().0, 101);
    client
}

pub fn tunnels(scopegate: &Scopegate, count: f64) {
    eventually("open channels", || (scopegate.metric("scopegate_tunnels") == count).then_some(()));
}

#[test]
fn a_session_ends_with_the_key_that_minted_it_and_no_other_does() {
    let upstream = Upstream::with(telapi);
    let scopegate = start(&upstream, "close");
    for (key, session, form) in [(MINT, "a", "whole"), (MINT, "b", "pieces"), (ALL, "c", "whole")] {
        mint(&scopegate, key, session, form);
    }
    let (mut mine, others) = (
        [open(&scopegate, "a"), open(&scopegate, "b")],
        [open(&scopegate, "c"), open(&scopegate, "nobody's")],
    );
    tunnels(&scopegate, 4.0);
    scopegate.edit("keys.yaml", END.0, END.1);
    for channel in &mut mine {
        assert!(channel.closed(4001).contains("key_revoked"));
    }
    tunnels(&scopegate, others.len() as f64);
    let line = scopegate.log_line(|line| line["reason"] == "key_revoked");
    assert_eq!((&line["key"], &line["team"]), (&"id-mint".into(), &"acme".into()), "{line}");
    // It is not opened again, and the page hears why.
    let said = open(&scopegate, "a").closed(4001);
    assert!(said.contains("key_revoked") && said.contains("\"sessionId\":\"a\""), "{said}");
    let line = scopegate.log_line(|line| line["detail"] == "key_disabled");
    assert_eq!(line["key"], "id-mint", "{line}");
    for twice in ["junk&sessionId=a", "a&sessionI%64=junk"] {
        let target = format!("/ws/session?sessionId={twice}&token=t");
        let answer = ask(scopegate.address, "GET", &target, HANDSHAKE, "");
        assert_eq!((answer.status, answer.reason()), (400, "path_ambiguous"), "{twice}");
    }
}

#[test]
fn sessions_are_shown_by_key_and_team_and_never_by_their_ids() {
    let upstream = Upstream::with(telapi);
    let scopegate = start(&upstream, "keep");
    for (key, session) in [(MINT, "secret-a"), (MINT, "secret-b"), (ALL, "secret-c")] {
        mint(&scopegate, key, session, "whole");
    }
    let open = [open(&scopegate, "secret-a"), open(&scopegate, "secret-a"), open(&scopegate, "nobody's")];
    tunnels(&scopegate, 3.0);
    let shown = scopegate.ask_admin("/sessions");
    let mine = serde_json::json!({ "sessions": 2, "open": 2 });
    let others = serde_json::json!({ "sessions": 1, "open": 0 });
    assert_eq!(
        shown.json(),
        serde_json::json!({ "teams": { "acme": { "id-mint": mine, "id-all": others } } })
    );
    let metrics = ["scopegate_sessions", "scopegate_sessions_minted_total", "scopegate_session_channels"];
    assert_eq!(metrics.map(|name| scopegate.metric(name)), [3.0, 3.0, 2.0]);
    drop(open);
    tunnels(&scopegate, 0.0);
    let closed = scopegate.ask_admin("/sessions").json();
    assert_eq!(closed["teams"]["acme"]["id-mint"]["open"], 0);
    assert_eq!(scopegate.metric("scopegate_session_channels"), 0.0);
    assert!(!format!("{}{}", shown.text(), scopegate.everything_said()).contains("secret-"));
}

#[test]
fn what_is_not_a_minted_session_is_counted_and_passes() {
    let upstream = Upstream::with(telapi);
    let scopegate = start(&upstream, "close");
    for form in ["failed", "large", "other", "text"] {
        mint(&scopegate, MINT, form, form);
        let channel = open(&scopegate, form);
        scopegate.edit("keys.yaml", END.0, END.1);
        eventually("the change", || {
            let answer = ask(scopegate.address, "POST", "/api/v1/sessions/token", &bearer(MINT), "x");
            (answer.status == 401).then_some(())
        });
        tunnels(&scopegate, 1.0);
        scopegate.edit("keys.yaml", END.1, END.0);
        eventually("the change", || {
            let answer = ask(scopegate.address, "POST", "/api/v1/sessions/token", &bearer(MINT), "x");
            (answer.status == 201).then_some(())
        });
        drop(channel);
        tunnels(&scopegate, 0.0);
    }
    assert_eq!(scopegate.metric("scopegate_sessions_unattributed_total"), 4.0);
}

#[test]
fn unless_it_is_asked_for_a_session_outlives_its_key() {
    let upstream = Upstream::with(telapi);
    let scopegate = start(&upstream, "keep");
    mint(&scopegate, MINT, "a", "whole");
    let channel = open(&scopegate, "a");
    scopegate.edit("keys.yaml", END.0, END.1);
    eventually("the change", || {
        let answer = ask(scopegate.address, "POST", "/api/v1/sessions/token", &bearer(MINT), "x");
        (answer.status == 401).then_some(())
    });
    tunnels(&scopegate, 1.0);
    drop((channel, open(&scopegate, "a")));
    let line = scopegate.log_line(|line| line["route"] == "/ws/session");
    assert_eq!(line["key"], "id-mint", "whose it is is known all the same: {line}");
}

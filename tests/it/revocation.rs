//! A key that dies takes with it what lives on it, and nothing else.

use std::io::{Read as _, Write as _};
use std::time::{Duration, SystemTime};

use crate::harness::client::{Client, request};
use crate::harness::frames::{self, Frames, Told};
use crate::harness::scopegate::{ALL, Scopegate, Setup, row};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{bearer, eventually};

const VICTIM: &str = "sk_live_victim";
const ROW: &str = "{ id: id-victim, team: theirs,";
const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Answers that do not end by themselves.
pub fn endless(exchange: &mut Exchange<'_>) -> bool {
    let target = exchange.request.target.clone();
    match target.rsplit('/').next() {
        Some("calls") => exchange.write(SWITCH),
        Some("stream") => {
            exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        }
        Some("flood") => {
            exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40));
            while exchange.stream.get_mut().write_all(&[b'x'; 16_384]).is_ok() {}
            return false;
        }
        Some("wait") => exchange.write(""),
        _ => return exchange.reply("200 OK", "", "hello"),
    };
    let _ = exchange.stream.read(&mut [0; 64]);
    false
}

/// A surface with a channel of its own.
pub const CALLS: &str =
    "surfaces:\n  calls: { access: key, upgrade: websocket, routes: { GET /ws/calls: READ_TEAM_APPS } }";

fn setup(upstream: &Upstream) -> Setup {
    let mut setup = Setup::new(upstream).with("surfaces:", CALLS);
    setup.keys =
        setup.keys.replace("keys:\n", "  theirs: { scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN] }\nkeys:\n");
    setup.keys += &row(VICTIM, "theirs", "READ_TEAM_APPS", "");
    setup
}

/// All that can live on a key: over HTTP/1 and HTTP/2, before its answer and in it, and a channel.
pub struct Lives {
    channel: Client,
    stream: Client,
    wait: Client,
    flood: Client,
    frames: Frames,
}

/// True where nothing comes any more, the end of a body least of all.
fn is_cut(client: &mut Client) -> bool {
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    rest.is_empty()
}

const STREAM: u32 = 1;
const WAIT: u32 = 3;
const FLOOD: u32 = 5;
/// Requests and channels of one.
pub const COUNT: f64 = 7.0;

impl Lives {
    pub fn begin(scopegate: &Scopegate, key: &str) -> Self {
        let ask = |target: &str, headers: &str| {
            let mut client = Client::connect(scopegate.address);
            client.send(request("GET", target, &(bearer(key) + headers), ""));
            client
        };
        let mut channel = ask("/ws/calls", HANDSHAKE);
        assert_eq!(channel.head().0, 101);
        let mut stream = ask("/api/v1/apps/stream", "");
        assert_eq!(stream.head().0, 200);
        assert_eq!(stream.chunk().as_deref(), Some(&b"hello"[..]));
        let (wait, mut flood) = (ask("/api/v1/apps/wait", ""), ask("/api/v1/apps/flood", ""));
        assert_eq!(flood.head().0, 200);
        let mut frames = Frames::connect(scopegate.address, &[]);
        // Room for what other streams are told, beside the one that nobody takes.
        frames.send(frames::frame(frames::WINDOW, 0, 0, &[0, 1, 0, 0]));
        for (stream, path) in [(STREAM, "stream"), (WAIT, "wait"), (FLOOD, "flood")] {
            let path = format!("/api/v1/apps/{path}");
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a.example"),
                (":path", &path),
                ("x-api-key", key),
            ];
            frames.send(frames::get(stream, &fields));
        }
        assert_eq!([frames.begins(STREAM), frames.begins(FLOOD)], [200, 200]);
        Self { channel, stream, wait, flood, frames }
    }

    /// Each has heard of it in its own way.
    pub fn ended(mut self) {
        let text = self.channel.closed(4001);
        assert!(text.contains("\"code\":\"key_revoked\""), "{text}");
        assert!(is_cut(&mut self.stream), "no clean end");
        let answer = self.wait.answer(false);
        assert_eq!((answer.status, answer.reason()), (401, "key_revoked"), "{answer:?}");
        assert!(answer.header("www-authenticate").expect("a challenge").contains("invalid_token"));
        let flooded = std::io::copy(&mut self.flood.stream, &mut std::io::sink());
        assert!(flooded.is_err() || flooded.is_ok_and(|count| count < 1 << 40), "no clean end");
        assert!(matches!(self.frames.told(STREAM), Told::Reset(_)));
        assert!(matches!(self.frames.told(FLOOD), Told::Reset(_)));
        let Told::Answer(401, body) = self.frames.told(WAIT) else { panic!("an answer with 401") };
        assert!(body.contains("key_revoked"), "{body}");
    }
}

/// Waits until so many are inside.
pub fn inside(scopegate: &Scopegate, count: f64) {
    eventually("those who are inside", || {
        let open = scopegate.metric("scopegate_requests_in_flight") + scopegate.metric("scopegate_tunnels");
        (open == count).then_some(())
    });
}

/// What is inside of one process: the victim's, and somebody else's, who must not notice.
fn check(name: &str, victim: &str, kill: impl Fn(&Scopegate), why: &str) {
    println!("{name}");
    let upstream = Upstream::with(endless);
    let mut setup = setup(&upstream);
    setup.keys = setup.keys.replace(ROW, &format!("{ROW}{victim}"));
    let scopegate = setup.start();
    let other = Lives::begin(&scopegate, ALL);
    let lives = Lives::begin(&scopegate, VICTIM);
    inside(&scopegate, 2.0 * COUNT);
    kill(&scopegate);
    lives.ended();
    inside(&scopegate, COUNT);
    let line = scopegate.log_line(|line| line["reason"] == "key_revoked" && line["route"] == "/ws/calls");
    assert_eq!(line["key"], "id-victim", "{line}");
    assert_eq!(line["detail"], "closed by scopegate with 4001", "{line}");
    let line = scopegate.log_line(|line| line["reason"] == "key_revoked" && line["status"] == 401);
    assert!(line["detail"].as_str().expect("a detail").ends_with(why), "{line}");
    assert_eq!(scopegate.metric("scopegate_revocation_seconds_count"), 1.0);
    let faults = scopegate.ask_admin("/metrics").text();
    assert!(!faults.contains("reason=\"key_revoked\",upstream"), "it is nobody's fault");
    drop(other);
}

#[test]
fn whatever_kills_a_key_ends_what_lives_on_it_and_nothing_else() {
    let row = row(VICTIM, "theirs", "READ_TEAM_APPS", "");
    let team = "theirs: { scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN]";
    let edit = |from: &str, to: &str| {
        let (from, to) = (from.to_owned(), to.to_owned());
        move |scopegate: &Scopegate| scopegate.edit("keys.yaml", &from, &to)
    };
    check("its row is removed", "", edit(&row, ""), "key_unknown");
    check("it is disabled", "", edit(ROW, &format!("{ROW} disabled: true,")), "key_disabled");
    check("it has ended", "", edit(ROW, &format!("{ROW} expires: 2026-01-01,")), "key_expired");
    check("its team is turned off", "", edit(team, &format!("{team}, enabled: false")), "team_disabled");
    check("its team is deleted", "", edit(team, &format!("{team}, deleted: true")), "team_disabled");
    check(
        "its scopes are narrowed",
        "",
        edit(&row, &row.replace("READ_TEAM_APPS", "CREATE_CALL_TOKEN")),
        "scope_missing",
    );
    check(
        "its team's scopes are narrowed",
        "",
        edit(team, "theirs: { scopes: [CREATE_CALL_TOKEN]"),
        "scope_missing",
    );
    check("its row is spoilt", "", edit(ROW, "{ id: id-victim, team: nobody,"), "key_unknown");
}

#[test]
fn a_key_that_ends_by_itself_ends_what_lives_on_it() {
    let soon = humantime::format_rfc3339_millis(SystemTime::now() + Duration::from_millis(1500));
    check("it ends", &format!(" expires: '{soon}',"), |_| {}, "key_expired");
}

#[test]
fn what_the_key_may_still_do_goes_on() {
    let upstream = Upstream::with(endless);
    let mut setup = setup(&upstream);
    setup.keys =
        setup.keys.replace("scopes: [READ_TEAM_APPS] }\n", "scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN] }\n");
    let scopes = "scopes: [CREATE_CALL_TOKEN, READ_CALL_TOKEN, READ_TEAM_APPS]";
    let setup = setup.with(
        "GET /api/v1/whoami:",
        "GET /api/v1/any/stream: { any: [CREATE_CALL_TOKEN, READ_TEAM_APPS] }\n      GET /api/v1/whoami:",
    );
    let scopegate = setup.start();
    let open = |target: &str| {
        let mut client = Client::connect(scopegate.address);
        client.send(request("GET", target, &bearer(VICTIM), ""));
        assert_eq!(client.head().0, 200);
        client
    };
    let (mut apps, any) = (open("/api/v1/apps/stream"), open("/api/v1/any/stream"));
    // The same scopes by other numbers.
    scopegate.edit(
        "scopegate.yaml",
        &format!("\n{scopes}"),
        "\nscopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN, READ_CALL_TOKEN]",
    );
    eventually("the reload", || (scopegate.metric("scopegate_config_generation") >= 2.0).then_some(()));
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 2.0);
    let held = "scopes: [READ_TEAM_APPS, CREATE_CALL_TOKEN] }";
    let text = std::fs::read_to_string(scopegate.file("keys.yaml")).expect("a file");
    let (rest, last) = text.rsplit_once(held).expect("the victim's row is the last");
    scopegate.replace("keys.yaml", &format!("{rest}scopes: [CREATE_CALL_TOKEN] }}{last}"));
    assert_eq!(apps.chunk().as_deref(), Some(&b"hello"[..]));
    assert!(is_cut(&mut apps));
    eventually("one to be inside", || {
        (scopegate.metric("scopegate_requests_in_flight") == 1.0).then_some(())
    });
    drop(any);
}

#[test]
fn the_code_of_the_close_may_be_another() {
    let upstream = Upstream::with(endless);
    let scopegate =
        setup(&upstream).with("calls: { access: key,", "calls: { access: key, revoke_code: 4077,").start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/ws/calls", &(bearer(VICTIM) + HANDSHAKE), ""));
    assert_eq!(client.head().0, 101);
    scopegate.edit("keys.yaml", ROW, &format!("{ROW} disabled: true,"));
    client.closed(4077);
}

/// Its answer is whole, and its body goes on: nothing else of the request is left that could be cut.
#[test]
fn a_body_that_outlives_its_answer_ends_with_its_key() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nearly");
        while exchange.chunk().is_some() {}
        false
    });
    let mut setup = setup(&upstream);
    setup.keys += &row("sk_live_sender", "theirs", "CREATE_CALL_TOKEN", "");
    let scopegate = setup.start();
    let begin = |key: &str| {
        let mut client = Client::connect(scopegate.address);
        let head = format!("{}Transfer-Encoding: chunked\r\n", bearer(key));
        client.send(request("POST", "/api/v1/call-tokens", &head, ""));
        client.send("2\r\nhi\r\n");
        assert_eq!(client.answer(false).text(), "early");
        client
    };
    let (mut stays, mut goes) = (begin(ALL), begin("sk_live_sender"));
    for _ in 0..10 {
        stays.send("2\r\nhi\r\n");
        goes.send("2\r\nhi\r\n");
    }
    let keys = std::fs::read_to_string(scopegate.file("keys.yaml")).expect("a file");
    scopegate
        .replace("keys.yaml", &keys.replace(&row("sk_live_sender", "theirs", "CREATE_CALL_TOKEN", ""), ""));
    eventually("an end", || goes.stream.get_mut().write_all(b"2\r\nhi\r\n").is_err().then_some(()));
    stays.send("0\r\n\r\n");
    stays.send(request("GET", "/health", "", ""));
    assert_eq!(stays.answer(false).text(), "early", "the connection of another goes on");
}

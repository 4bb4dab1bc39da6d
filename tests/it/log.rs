//! One line a request, when its last byte has gone, and never at the cost of a request.

use std::io::{BufRead as _, BufReader, Read as _};
use std::net::SocketAddr;
use std::process::{Child, ChildStdout, Command, Stdio};
use std::sync::Mutex;
use std::sync::mpsc::channel;

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::client::{Client, get, request};
use crate::harness::scopegate::{ALL, APPS, MINT, Setup};
use crate::harness::upstream::Upstream;
use crate::harness::{bearer, eventually};

#[test]
fn a_line_says_what_was_decided_and_what_came_of_it() {
    let upstream = Upstream::with(|exchange| {
        let status = if exchange.request.target.contains("lost") { "404 Not Found" } else { "200 OK" };
        exchange.reply(status, "", "hello")
    });
    let scopegate = Setup::new(&upstream).start();
    let cases = [
        (
            request("POST", "/api/v1/call-tokens?secret=1", &bearer(MINT), "a body"),
            json!({ "method": "POST", "version": "1.1", "surface": "sdk", "route": "/api/v1/call-tokens",
                "path": "/api/v1/call-tokens", "team": "acme", "key": "id-mint", "reason": "passed",
                "status": 200, "received": 6, "sent": 5, "peer": "127.0.0.1" }),
        ),
        (
            request("GET", "/api/v1/apps/lost", &bearer(APPS), ""),
            json!({ "route": "/api/v1/apps/**", "path": "/api/v1/apps/lost", "reason": "passed", "status": 404 }),
        ),
        (
            request("HEAD", "/health", "", ""),
            json!({ "method": "HEAD", "surface": "health", "reason": "passed", "status": 200, "sent": 0,
                "team": null, "key": null }),
        ),
        (
            request("GET", "/api/v1/apps", &bearer(MINT), ""),
            json!({ "reason": "scope_missing", "status": 403, "team": "acme", "key": "id-mint",
                "detail": "READ_TEAM_APPS", "layer": "key", "upstream_us": null }),
        ),
        (
            request("GET", "/api/v1/apps", "", ""),
            json!({ "reason": "key_missing", "status": 401, "team": null, "surface": "sdk" }),
        ),
        (
            request("GET", "/api/v1/who", "", ""),
            json!({ "reason": "route_unknown", "surface": "none", "route": "none", "path": "/api/v1/*" }),
        ),
        (
            request("POST", "/api/v1/webhooks/tail?query", "", "x"),
            json!({ "surface": "webhooks", "route": "/api/v1/webhooks/**", "path": null, "received": 1 }),
        ),
    ];
    for (bytes, wanted) in cases {
        let answer = Client::connect(scopegate.address).ask(&bytes);
        let id = answer.header("x-request-id").expect("every answer has an id");
        let line = scopegate.log_line(|line| line["id"] == id);
        for (field, value) in wanted.as_object().expect("an object") {
            assert_eq!(line[field], *value, "{field} of {line}");
        }
        assert!(line["decided_us"].is_u64() && line["total_us"].is_u64(), "{line}");
        if line["reason"] == "passed" {
            assert!(line["upstream_us"].as_u64() <= line["total_us"].as_u64(), "{line}");
        }
        let time = line["time"].as_str().expect("a time");
        assert!(humantime::parse_rfc3339(time).is_ok(), "{time}");
        assert!(!line.to_string().contains('?'), "no query: {line}");
    }
}

#[test]
fn a_line_is_written_when_the_last_byte_has_gone_and_not_before() {
    let (release, released) = channel::<()>();
    let released = Mutex::new(released);
    let upstream = Upstream::with(move |exchange| {
        if exchange.request.target == "/health" {
            return exchange.reply("200 OK", "", "quick");
        }
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 11\r\n\r\nhello ");
        released.lock().expect("no panic").recv().expect("the test goes on");
        exchange.write("world")
    });
    let scopegate = Setup::new(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    client.send(request("GET", "/api/v1/webhooks/slow", "", ""));
    assert_eq!(client.head().0, 200);
    let quick = get(scopegate.address, "/health", "");
    scopegate.log_line(|line| line["id"] == quick.header("x-request-id").unwrap_or_default());
    assert!(!scopegate.everything_said().contains("/api/v1/webhooks/**"), "its last byte has not gone");
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 1.0);
    release.send(()).expect("the upstream waits");
    let line = scopegate.log_line(|line| line["route"] == "/api/v1/webhooks/**");
    assert_eq!((&line["sent"], &line["reason"]), (&11.into(), &"passed".into()));
    assert_eq!(scopegate.metric("scopegate_requests_in_flight"), 0.0);
}

/// The program with its standard output in the hands of the test.
struct Unread {
    address: SocketAddr,
    admin: SocketAddr,
    stdout: Option<ChildStdout>,
    child: Child,
    _folder: TempDir,
}

impl Unread {
    fn start(setup: &Setup) -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        std::fs::write(folder.path().join("keys.yaml"), &setup.keys).expect("a file");
        std::fs::write(folder.path().join("scopegate.yaml"), &setup.config).expect("a file");
        let mut child = Command::new(env!("CARGO_BIN_EXE_scopegate"))
            .args(["serve", "--config"])
            .arg(folder.path().join("scopegate.yaml"))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .expect("the program");
        let mut events = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
        let mut address = |door: &str| {
            let event: Value = events
                .by_ref()
                .filter_map(|line| serde_json::from_str(&line).ok())
                .find(|event: &Value| event["message"] == "listening" && event["door"] == door)
                .expect("it listens");
            event["address"].as_str().expect("an address").parse().expect("an address")
        };
        let (address, admin) = (address("gateway"), address("admin"));
        std::thread::spawn(move || events.for_each(drop));
        let stdout = child.stdout.take();
        Self { address, admin, stdout, child, _folder: folder }
    }

    fn dropped(&self) -> f64 {
        let text = get(self.admin, "/metrics", "").text();
        let line = text.lines().find_map(|line| line.strip_prefix("scopegate_access_log_dropped_total "));
        line.expect("the metric").parse().expect("a number")
    }
}

impl Drop for Unread {
    fn drop(&mut self) {
        // It may have ended already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

#[test]
fn a_log_that_nobody_reads_stalls_no_request_and_its_lost_lines_are_counted() {
    let upstream = Upstream::start();
    let mut scopegate = Unread::start(&Setup::new(&upstream));
    // Long paths make long lines: what may wait for the reader is soon full.
    let target = format!("/api/v1/apps/{}", "x".repeat(15_000));
    let bytes = request("GET", &target, &bearer(ALL), "");
    let mut client = Client::connect(scopegate.address);
    let mut asked = 0;
    eventually("lost lines", || {
        for _ in 0..10 {
            assert_eq!(client.ask(&bytes).status, 200);
        }
        asked += 10;
        (scopegate.dropped() > 0.0).then_some(())
    });
    // Who reads again gets whole lines, and nothing is lost that was not counted.
    let stdout = BufReader::new(scopegate.stdout.take().expect("a pipe"));
    let reader = std::thread::spawn(move || {
        let lines = stdout.lines().map_while(Result::ok);
        lines.filter(|line| serde_json::from_str::<Value>(line).expect("a whole line").is_object()).count()
    });
    let kill = Command::new("kill").args(["-TERM", &scopegate.child.id().to_string()]).status();
    assert!(kill.expect("kill").success());
    let lost = eventually_dropped(&mut scopegate);
    assert_eq!(reader.join().expect("a reader") + lost, asked);
}

/// The last count before the end.
fn eventually_dropped(scopegate: &mut Unread) -> usize {
    let lost = scopegate.dropped() as usize;
    eventually("the end", || scopegate.child.try_wait().expect("a child"));
    lost
}

#[test]
fn a_log_that_nobody_reads_does_not_hold_up_the_end() {
    let upstream = Upstream::start();
    let mut scopegate = Unread::start(&Setup::new(&upstream));
    let target = format!("/api/v1/apps/{}", "x".repeat(15_000));
    let mut client = Client::connect(scopegate.address);
    for _ in 0..80 {
        assert_eq!(client.ask(request("GET", &target, &bearer(ALL), "")).status, 200);
    }
    let kill = Command::new("kill").args(["-TERM", &scopegate.child.id().to_string()]).status();
    assert!(kill.expect("kill").success());
    let ended = eventually("the end", || scopegate.child.try_wait().expect("a child"));
    assert!(ended.success(), "{ended:?}");
}

#[test]
fn a_log_whose_reader_has_gone_stops_nothing() {
    let upstream = Upstream::start();
    let mut scopegate = Unread::start(&Setup::new(&upstream));
    drop(scopegate.stdout.take());
    for _ in 0..100 {
        assert_eq!(get(scopegate.address, "/health", "").status, 200);
    }
    assert!(scopegate.child.try_wait().expect("a child").is_none(), "it runs on");
}

#[test]
fn the_access_log_can_be_turned_off() {
    let upstream = Upstream::start();
    let setup = Setup::new(&upstream).and("log: { access: false }");
    let mut scopegate = Unread::start(&setup);
    assert_eq!(get(scopegate.address, "/health", "").status, 200);
    let kill = Command::new("kill").args(["-TERM", &scopegate.child.id().to_string()]).status();
    assert!(kill.expect("kill").success());
    let mut text = String::new();
    scopegate.stdout.take().expect("a pipe").read_to_string(&mut text).expect("an end");
    assert_eq!(text, "");
}

#[test]
fn events_can_be_text() {
    let folder = tempfile::tempdir().expect("a folder");
    let setup = Setup::at("127.0.0.1:9", "127.0.0.1:9").and("log: { events: text }");
    std::fs::write(folder.path().join("keys.yaml"), &setup.keys).expect("a file");
    std::fs::write(folder.path().join("scopegate.yaml"), &setup.config).expect("a file");
    let mut child = Command::new(env!("CARGO_BIN_EXE_scopegate"))
        .args(["serve", "--config"])
        .arg(folder.path().join("scopegate.yaml"))
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program");
    let mut events = BufReader::new(child.stderr.take().expect("a pipe")).lines().map_while(Result::ok);
    let line = events.find(|line| line.contains("listening")).expect("it listens");
    assert!(line.contains("INFO") && !line.contains('{') && !line.contains('\u{1b}'), "{line}");
    child.kill().expect("a child");
    child.wait().expect("an end");
}

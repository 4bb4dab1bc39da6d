//! How long a route's requests may take: event streams and long polls beside calls that must be quick.

use std::io::{BufRead as _, BufReader};
use std::process::{Command, Stdio};
use std::thread::sleep;
use std::time::{Duration, Instant};

use crate::harness::client::{Client, get, request};
use crate::harness::eventually;
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;

const SURFACES: &str = "\
timeouts: { connect: 1s, first_byte: 400ms, idle: 400ms }
surfaces:
  open:
    access: open
    routes:
      GET /quick/**: {}
      GET /events/**: { timeouts: { idle: 5s } }
      GET /poll/**: { timeouts: { first_byte: 5s } }
      POST /slow/**: { timeouts: { idle: 5s } }
      GET /whole/**: { timeouts: { total: 700ms, first_byte: 5s } }
  patient:
    access: open
    timeouts: { first_byte: 5s, idle: 5s, total: 700ms }
    routes:
      GET /patient/**: {}
      GET /back/**: { timeouts: { first_byte: 300ms, total: off } }
";

/// How long it is quiet, which is what these tests are about and no wait for something: longer than the global limits, shorter than those of the patient.
const QUIET: Duration = Duration::from_millis(900);
const HEAD: &str = "HTTP/1.1 200 OK\r\nContent-Type: text/event-stream\r\nTransfer-Encoding: chunked\r\n\r\n";

/// An upstream that answers with events, quiet between the first and the second, or before its head.
fn events() -> Upstream {
    Upstream::with(|exchange| {
        let target = exchange.request.target.clone();
        if target.ends_with("/late") {
            sleep(QUIET);
        }
        exchange.write(format!("{HEAD}5\r\ndata\n\r\n"));
        if target.ends_with("/quiet") {
            sleep(QUIET);
        }
        if target.ends_with("/busy") {
            for _ in 0..40 {
                // Its pace: never quiet for long, and longer than its total in the end.
                sleep(Duration::from_millis(50));
                if !exchange.write("5\r\ndata\n\r\n") {
                    return false;
                }
            }
        }
        exchange.write("4\r\nend\n\r\n0\r\n\r\n")
    })
}

fn setup(upstream: &Upstream) -> Setup {
    let setup = Setup::new(upstream);
    let start = setup.config.find("surfaces:").expect("a section");
    let config = setup.config[..start].replace("flags: { webrtc: true, apiAccess: true }\n", "") + SURFACES;
    Setup { config, ..setup }
}

#[test]
fn a_route_has_its_own_limits_and_what_it_does_not_say_is_as_around_it() {
    let upstream = events();
    let scopegate = setup(&upstream).start();
    for (target, status, whole, reason) in [
        ("/quick/now", 200, true, "passed"),
        ("/quick/quiet", 200, false, "upstream_idle_timeout"),
        ("/quick/late", 504, true, "upstream_first_byte_timeout"),
        ("/events/quiet", 200, true, "passed"),
        ("/events/late", 504, true, "upstream_first_byte_timeout"),
        ("/poll/late", 200, true, "passed"),
        ("/poll/quiet", 200, false, "upstream_idle_timeout"),
        ("/whole/now", 200, true, "passed"),
        ("/whole/late", 504, true, "total_timeout"),
        ("/whole/busy", 200, false, "total_timeout"),
        ("/patient/late", 504, true, "total_timeout"),
        ("/patient/quiet", 200, false, "total_timeout"),
        ("/back/busy", 200, true, "passed"),
        ("/back/quiet", 200, true, "passed"),
        ("/back/late", 504, true, "upstream_first_byte_timeout"),
    ] {
        let answer = get(scopegate.address, target, "");
        assert_eq!((answer.status, answer.whole), (status, whole), "{target}");
        let line = scopegate.log_line(|line| line["path"] == target);
        assert_eq!(line["reason"], reason, "{target}");
    }
    let faults = r#"scopegate_upstream_faults_total{reason="total_timeout",upstream="telapi"}"#;
    assert_eq!(scopegate.metric(faults), 4.0);
}

#[test]
fn a_connection_is_as_good_as_new_after_a_total() {
    let upstream = events();
    let scopegate = setup(&upstream).start();
    let mut client = Client::connect(scopegate.address);
    assert_eq!(client.ask(request("GET", "/whole/now", "", "")).text(), "data\nend\n");
    // Longer than the whole of the first request may take, on the connection that it came over.
    let began = Instant::now();
    assert_eq!(client.ask(request("GET", "/back/busy", "", "")).text().len(), 41 * 5 + 4);
    assert!(began.elapsed() > Duration::from_millis(1500));
    assert_eq!(upstream.connections(), 1);
}

#[test]
fn quiet_streams_live_as_long_over_http2() {
    if Command::new("curl").arg("--version").stdout(Stdio::null()).status().is_err() {
        return;
    }
    let upstream = events();
    let scopegate = setup(&upstream).start();
    for (target, end, reason) in [
        ("/events/quiet", "end\n", "passed"),
        ("/quick/quiet", "data\n", "upstream_idle_timeout"),
        ("/patient/quiet", "data\n", "total_timeout"),
        ("/poll/late", "end\n", "passed"),
    ] {
        let url = format!("http://{}{target}", scopegate.address);
        let curl = Command::new("curl").args(["-sSN", "--http2-prior-knowledge", &url]).output();
        let curl = curl.expect("curl");
        let said = String::from_utf8_lossy(&curl.stdout).into_owned();
        assert!(said.ends_with(end), "{target}: {said}");
        assert_eq!(curl.status.success(), reason == "passed", "a cut is no clean end: {target}");
        assert_eq!(scopegate.log_line(|line| line["path"] == target)["reason"], reason);
    }
    // An event is there when it was sent, and not when the stream ends.
    let url = format!("http://{}/events/quiet", scopegate.address);
    let mut curl = Command::new("curl")
        .args(["-sSN", "--http2-prior-knowledge", &url])
        .stdout(Stdio::piped())
        .spawn()
        .expect("curl");
    let began = Instant::now();
    let mut first = String::new();
    BufReader::new(curl.stdout.take().expect("a pipe")).read_line(&mut first).expect("a line");
    assert!(first == "data\n" && began.elapsed() < QUIET, "{first} after {:?}", began.elapsed());
    curl.kill().expect("a process");
    curl.wait().expect("its end");
}

#[test]
fn a_client_may_be_as_slow_as_its_route_says() {
    let upstream = Upstream::start();
    let scopegate = setup(&upstream).with("POST /slow", "POST /brisk/**: {}\n      POST /slow").start();
    for (path, status) in [("/slow/a", 200), ("/brisk/a", 408)] {
        let mut client = Client::connect(scopegate.address);
        client.send(format!("POST {path} HTTP/1.1\r\nHost: a\r\nContent-Length: 10\r\n\r\nhello"));
        sleep(QUIET);
        // One that was too slow has been told so already.
        let _ = std::io::Write::write_all(client.stream.get_mut(), b"world");
        assert_eq!(client.answer(false).status, status, "{path}");
    }
}

#[test]
fn who_takes_nothing_is_cut_off_when_the_route_says() {
    let upstream = Upstream::with(|exchange| {
        exchange.write("HTTP/1.1 200 OK\r\nContent-Length: 100000000\r\n\r\n");
        while exchange.write(vec![b'x'; 65536]) {}
        false
    });
    let scopegate = setup(&upstream).start();
    let mut patient = Client::connect(scopegate.address);
    patient.send(request("GET", "/events/a", "", ""));
    let mut quick = Client::connect(scopegate.address);
    quick.send(request("GET", "/quick/a", "", ""));
    let line = scopegate.log_line(|line| line["path"] == "/quick/a");
    assert_eq!(line["reason"], "client_slow");
    // The patient one takes nothing for as long, and nothing happens: there is no event to wait for.
    sleep(QUIET);
    let in_flight = || scopegate.metric("scopegate_requests_in_flight");
    assert_eq!(in_flight(), 1.0, "the other may be slower");
    drop(patient);
    eventually("its end", || (in_flight() == 0.0).then_some(()));
}

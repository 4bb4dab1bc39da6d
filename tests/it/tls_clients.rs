//! TLS as clients see it that are not ours: nghttp2's tools, python-h2, websockets, and testssl.sh, which looks for what is
//! weak.

use std::fs;
use std::process::Command;

use serde_json::Value;

use crate::channel::echo;
use crate::harness::certificates::{Authority, ONE, said, start};
use crate::harness::scopegate::Scopegate;
use crate::harness::upstream::Upstream;
use crate::harness::{found, installed};

fn secured(upstream: &Upstream) -> Scopegate {
    let authority = Authority::new();
    start(upstream, ONE, |folder| {
        authority.server(&["a.example"]).write(folder, "a");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    })
}

/// What a script of `tests/clients` is told, where its library is there.
fn python(library: &str, script: &str, scopegate: &Scopegate, more: &[&str]) -> Option<Value> {
    let there = Command::new("python3").args(["-c", &format!("import {library}")]).output();
    if !found(library, there.is_ok_and(|output| output.status.success())) {
        return None;
    }
    let script = format!("{}/tests/clients/{script}", env!("CARGO_MANIFEST_DIR"));
    let (port, ca) = (scopegate.address.port().to_string(), scopegate.file("ca.pem").display().to_string());
    let output = Command::new("python3").args([&script, &port, "a.example", &ca]).args(more).output();
    let output = output.expect("python3");
    let told = serde_json::from_slice(&output.stdout);
    Some(told.unwrap_or_else(|error| panic!("{error}: {}", said(&output))))
}

#[test]
fn websockets_of_python_over_tls() {
    let upstream = echo();
    let scopegate = secured(&upstream);
    let target = "/ws/session?sessionId=s&token=t";
    let Some(told) = python("websockets", "websocket_tls.py", &scopegate, &[target]) else { return };
    let wanted = serde_json::json!({
        "version": "TLSv1.3", "text": true, "large": true, "pieces": "in three pieces", "pong": true, "close": [4321, "enough"],
    });
    assert_eq!(told, wanted);
}

#[test]
fn http2_of_python_over_tls() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        let (length, body) = (exchange.request.body.len(), "y".repeat(exchange.request.body.len()));
        exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {length}\r\n\r\n{body}"))
    });
    let scopegate = secured(&upstream);
    let size = "1000000";
    let Some(told) = python("h2", "http2_tls.py", &scopegate, &["/api/v1/webhooks/a", size]) else { return };
    let wanted = serde_json::json!({
        "alpn": "h2", "version": "TLSv1.3", "status": 200, "body": 1_000_000, "end": "stream",
    });
    assert_eq!(told, wanted);
}

#[test]
fn the_tools_of_nghttp2_over_tls() {
    if !installed("h2load") || !installed("nghttp") {
        return;
    }
    let upstream = Upstream::start();
    let scopegate = secured(&upstream);
    let url = format!("https://{}/health", scopegate.address);
    let output = Command::new("nghttp").args(["-nv", "--no-verify-peer", &url]).output().expect("nghttp");
    let told = said(&output);
    assert!(told.contains("The negotiated protocol: h2") && told.contains(":status: 200"), "{told}");
    for (protocols, spoken) in [("h2,http/1.1", "h2"), ("http/1.1", "http/1.1")] {
        let flags = ["-n", "300", "-c", "6", "-m", "10", "--npn-list", protocols, &url];
        let told = said(&Command::new("h2load").args(flags).output().expect("h2load"));
        assert!(told.contains(&format!("Application protocol: {spoken}")), "{told}");
        assert!(told.contains("300 succeeded, 0 failed, 0 errored"), "{told}");
    }
    assert!(upstream.seen().len() >= 601);
}

/// What testssl.sh looks at: protocols, the order of suites, forward secrecy, and what is known to be broken elsewhere, but
/// for renegotiation, which it waits half a minute for and rustls does not have.
const LOOKED_AT: [&str; 18] = [
    "-p", "-P", "-f", "-H", "-I", "-T", "-BB", "-C", "-B", "-O", "-Z", "-W", "-A", "-L", "-F", "-J", "-D",
    "-4",
];
/// What it calls weak, and is meant: of suites that are all good, the client knows which its machine is fast at.
const MEANT: &str = "cipher_order";

#[test]
fn nothing_is_weak_that_testssl_knows() {
    if !found("testssl", Command::new("testssl").arg("--version").output().is_ok()) {
        return;
    }
    let upstream = Upstream::start();
    let scopegate = secured(&upstream);
    let (out, ca) = (scopegate.file("testssl.json"), scopegate.file("ca.pem"));
    let mut command = Command::new("testssl");
    // Seconds, for an answer that does not come.
    command.envs(["MAX_WAITSOCK", "CCS_MAX_WAITSOCK", "HEARTBLEED_MAX_WAITSOCK"].map(|name| (name, "2")));
    command.args(["--quiet", "--color", "0", "--warnings", "off", "--ip", "127.0.0.1", "--add-ca"]).arg(ca);
    command.args(LOOKED_AT).arg("--jsonfile").arg(&out);
    let output = command.arg(format!("a.example:{}", scopegate.address.port())).output().expect("testssl");
    let text = fs::read_to_string(&out).unwrap_or_else(|error| panic!("{error}: {}", said(&output)));
    let found: Vec<Value> = serde_json::from_str(&text).unwrap_or_else(|error| panic!("{error}: {text}"));
    let is =
        |id: &str, severity: &str| found.iter().any(|row| row["id"] == id && row["severity"] == severity);
    // It has looked, and found what there is.
    assert!(is("TLS1_3", "OK") && is("TLS1_2", "OK") && is("PFS", "OK") && is("ROBOT", "OK"), "{text}");
    let weak = found.iter().filter(|row| {
        ["MEDIUM", "HIGH", "CRITICAL", "FATAL"].iter().any(|grave| row["severity"] == *grave)
            && row["id"] != MEANT
    });
    let weak: Vec<_> = weak.collect();
    assert!(weak.is_empty(), "{weak:#?}");
}

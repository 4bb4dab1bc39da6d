//! Webhooks pass straight through, and their secrets stay out of everything that we tell.

use crate::harness::client::{Client, ask, get};
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;

#[test]
fn method_path_query_headers_and_body_arrive_as_they_came() {
    let (telapi, webhooks) = (Upstream::start(), Upstream::start());
    let setup = Setup::at(&telapi.address.to_string(), &webhooks.address.to_string());
    let scopegate = setup.with("webrtc: true", "webrtc: false").start();
    let target = "/api/v1/webhooks/llm/tok%2Fen%20%C3%A9/x.y~z?a=1&b=%2F&&c=a+b?#".trim_end_matches('#');
    let headers = "Authorization: Bearer of-the-callback\r\nX-API-Key: also-its-own\r\nX-Signature: AbC==\r\n\
                   Cookie: a=b\r\nContent-Type: application/x-odd\r\nX-Request-Id: theirs\r\nAccept: */*\r\n";
    for method in ["POST", "PUT", "PATCH", "DELETE", "GET", "PROPFIND"] {
        let answer = ask(scopegate.address, method, target, headers, "{\"a\" : 1}\r\n");
        assert_eq!((answer.status, answer.reason()), (200, ""), "{method}");
        let seen = webhooks.seen().pop().expect("a request");
        assert_eq!((&*seen.method, &*seen.target), (method, target));
        assert_eq!(seen.body, b"{\"a\" : 1}\r\n");
        for line in headers.lines() {
            let (name, value) = line.split_once(':').expect("a header");
            assert_eq!(seen.header(name), Some(value.trim()), "{method} {name}");
        }
    }
    for target in ["/api/v1/webhooks", "/api/v1/webhooks/", "/api/v1/webhooks?x", "/api/v1/webhooks/a/"] {
        assert_eq!(get(scopegate.address, target, "").status, 200, "{target}");
        assert_eq!(webhooks.seen().pop().expect("a request").target, target);
    }
    for target in ["/api/v1/webhooksfoo", "/api/v1/webhooks.json", "/api/v1/Webhooks/a", "/api/webhooks/a"] {
        assert_eq!(get(scopegate.address, target, "").status, 404, "{target}");
    }
    assert!(telapi.seen().is_empty());
}

#[test]
fn a_chunked_body_arrives_whole() {
    let webhooks = Upstream::start();
    let scopegate = Setup::new(&webhooks).start();
    let mut client = Client::connect(scopegate.address);
    client.send("POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
    for piece in ["5;ext=1\r\nhello\r\n", "1\r\n \r\n", "5\r\nworld\r\n", "0\r\n\r\n"] {
        client.send(piece);
    }
    assert_eq!(client.answer(false).status, 200);
    assert_eq!(webhooks.nth(0).body, b"hello world");
}

#[test]
fn identity_headers_are_ours_alone_here_too() {
    let webhooks = Upstream::start();
    let scopegate = Setup::new(&webhooks).start();
    let forged = "X-Scopegate-Team: a\r\nX_Scopegate_Team: b\r\nx.scopegate.key-id: c\r\nConnection: X-Signature\r\nX-Signature: d\r\n";
    assert_eq!(get(scopegate.address, "/api/v1/webhooks/a", forged).status, 200);
    let seen = format!("{:?}", webhooks.nth(0)).to_lowercase();
    assert!(!seen.contains("scopegate") && !seen.contains("signature"), "{seen}");
}

#[test]
fn path_tail_and_query_are_told_to_nobody() {
    let webhooks = Upstream::with(|exchange| {
        !exchange.request.target.contains("cut") && exchange.reply("200 OK", "", "ok")
    });
    let scopegate = Setup::new(&webhooks).start();
    let targets = [
        "/api/v1/webhooks/s3cret?token=s3cret",
        "/api/v1/webhooks/s3cret/../x?token=s3cret",
        "/api/v1/webhooks//s3cret",
        "/api/v1/webhook/s3cret",
        "/api/v1/webhooksfoo/s3cret",
        "/api/v1/apps?token=s3cret",
        "/api/v1/webhooks/s3cret/cut",
        "/ws/session?token=s3cret",
    ];
    for target in targets {
        let answer = get(scopegate.address, target, "");
        scopegate.log_line(|line| line["id"] == answer.header("x-request-id").unwrap_or_default());
        assert!(!format!("{answer:?}").contains("s3cret"), "{answer:?}");
    }
    let told = [scopegate.ask_admin("/metrics").text(), scopegate.everything_said()];
    assert!(told.iter().all(|text| !text.contains("s3cret")), "{told:?}");
    let masked = scopegate.log_line(|line| line["path"] == "/api/v1/*/*");
    assert_eq!(masked["reason"], "route_unknown");
}

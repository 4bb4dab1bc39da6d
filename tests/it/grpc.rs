//! gRPC, as tonic speaks it.

use std::fs;

use bytes::Bytes;
use http::Request;
use http_body_util::Empty;
use tokio::runtime::Runtime;
use tonic::{Code, Status};

use crate::harness::certificates::{Authority, ONE, start};
use crate::harness::frames::{END_HEADERS, END_STREAM, Frames, HEADERS, Told, block, frame, get};
use crate::harness::free_port;
use crate::harness::grpc::{Caller, call};
use crate::harness::scopegate::{ALL, EXPIRED, NONE, READ, Scopegate, Setup};
use crate::harness::upstream::Upstream;
use crate::http2::ask;

const PATH: &str = "/api/v1/call-tokens";
/// `:status: 200` (RFC 7541, A), and a code of RFC 9113, 7.
const OK: u8 = 0x88;
const NO_ERROR: u32 = 0;

/// What a call is told that does not pass.
fn refused(scopegate: &Scopegate, path: &str, fields: &[(&str, &str)], message: Bytes) -> Status {
    Runtime::new().expect("a runtime").block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        caller.unary(path, call(message, fields)).await.expect_err("a refusal")
    })
}

/// It is told as gRPC, and logged and counted as HTTP.
fn check(scopegate: &Scopegate, told: &Status, code: Code, status: u16, reason: &str) {
    let field = |name| told.metadata().get(name).map(|value| value.to_str().expect("text"));
    assert_eq!((told.code(), field("scopegate-reason")), (code, Some(reason)), "{told:?}");
    assert!(told.message().ends_with('.'), "{told:?}");
    let id = field("x-request-id").expect("an id");
    let line = scopegate.log_line(|line| line["id"] == id);
    assert_eq!((&line["status"], &line["reason"]), (&status.into(), &reason.into()), "{line}");
    assert_eq!((&line["method"], &line["version"], &line["sent"]), (&"POST".into(), &"2".into(), &0.into()));
    let counted = scopegate.ask_admin("/metrics").text();
    let labels = [format!("reason=\"{reason}\""), format!("status=\"{}xx\"", status / 100)];
    assert!(counted.lines().any(|line| labels.iter().all(|label| line.contains(label))), "{labels:?}");
}

#[test]
fn a_refusal_is_told_as_grpc_and_logged_as_http() {
    let upstream = Upstream::start();
    let scopegate = Setup::new(&upstream)
        .with("flags: { webrtc: true", "flags: { off: false, webrtc: true")
        .with("  sdk:", "  off: { access: open, flags: [off], routes: [POST /off] }\n  sdk:");
    let scopegate = scopegate.and("limits: { fields: 30 }").start();
    let many: Vec<_> = (0..30).map(|number| format!("x-{number}")).collect();
    let many: Vec<_> = many.iter().map(|name| (&**name, "1")).collect();
    for (path, fields, code, status, reason) in [
        (PATH, &[][..], Code::Unauthenticated, 401, "key_missing"),
        (PATH, &[("x-api-key", "unknown")], Code::Unauthenticated, 401, "key_unknown"),
        (PATH, &[("x-api-key", EXPIRED)], Code::Unauthenticated, 401, "key_expired"),
        (PATH, &[("x-api-key", ALL), ("x-api-key", NONE)], Code::Unauthenticated, 401, "key_repeated"),
        (PATH, &[("x-api-key", READ)], Code::PermissionDenied, 403, "scope_missing"),
        ("/off", &[], Code::PermissionDenied, 403, "flag_off"),
        ("/echo.Echo/Send", &[("x-api-key", ALL)], Code::Unimplemented, 404, "route_unknown"),
        ("/api/v1/apps", &[("x-api-key", ALL)], Code::Unimplemented, 405, "method_unknown"),
        ("/api/v1/call-tokens/..", &[("x-api-key", ALL)], Code::InvalidArgument, 400, "path_ambiguous"),
        (PATH, &[("expect", "the best")], Code::InvalidArgument, 417, "expectation_unknown"),
        (PATH, &many, Code::ResourceExhausted, 431, "head_too_large"),
        // The form of a route's errors is that of its answers over HTTP.
        ("/api/v1/sessions/token", &[("x-api-key", READ)], Code::PermissionDenied, 403, "scope_missing"),
    ] {
        let told = refused(&scopegate, path, fields, Bytes::from_static(b"a message"));
        check(&scopegate, &told, code, status, reason);
    }
    // More than it may send before it is answered.
    let told = refused(&scopegate, PATH, &[("x-api-key", READ)], Bytes::from(vec![b'x'; 4 << 20]));
    assert_eq!(told.message(), "This API key lacks the scope CREATE_CALL_TOKEN.");
    assert_eq!(upstream.connections(), 0);
}

#[test]
fn a_fault_before_the_answer_is_told_as_grpc() {
    let upstream = Upstream::with(|exchange| {
        let kind = exchange.request.header("x-kind").unwrap_or_default().to_owned();
        match kind.as_str() {
            "closed" => false,
            "invalid" => exchange.last("HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n"),
            "silent" => {
                exchange.read_body();
                exchange.stream.get_mut().peek(&mut [0]).is_ok_and(|count| count > 0)
            }
            _ => exchange.reply("200 OK", "", ""),
        }
    });
    let refusing = format!("127.0.0.1:{}", free_port());
    let scopegate = Setup::at(&upstream.address.to_string(), &refusing)
        .and("timeouts: { first_byte: 300ms }\nlimits: { body: 100KiB }")
        .start();
    let large = Bytes::from(vec![b'x'; 200 * 1024]);
    for (path, kind, message, code, status, reason) in [
        (PATH, "closed", Bytes::new(), Code::Unavailable, 502, "upstream_closed"),
        (PATH, "invalid", Bytes::new(), Code::Internal, 502, "upstream_invalid"),
        (PATH, "silent", Bytes::new(), Code::DeadlineExceeded, 504, "upstream_first_byte_timeout"),
        (PATH, "", large, Code::ResourceExhausted, 413, "body_too_large"),
        ("/api/v1/webhooks/a", "", Bytes::new(), Code::Unavailable, 502, "upstream_refused"),
    ] {
        let told = refused(&scopegate, path, &[("x-api-key", ALL), ("x-kind", kind)], message);
        check(&scopegate, &told, code, status, reason);
    }
}

/// Its message has come, and how it ended never will.
#[test]
fn an_answer_that_breaks_off_is_no_success() {
    let upstream = Upstream::with(|exchange| {
        exchange.read_body();
        let head = "HTTP/1.1 200 OK\r\nContent-Type: application/grpc\r\nTransfer-Encoding: chunked\r\n\r\n";
        exchange.last(format!("{head}7\r\n\0\0\0\0\u{2}hi\r\n"))
    });
    let scopegate = Setup::new(&upstream).start();
    let told = refused(&scopegate, PATH, &[("x-api-key", ALL)], Bytes::new());
    assert_eq!(told.code(), Code::Unknown, "{told:?}");
    assert!(format!("{told:?}").contains("Reset(StreamId(1), INTERNAL_ERROR, Remote)"), "{told:?}");
    let line = scopegate.log_line(|line| line["reason"] == "upstream_closed");
    assert_eq!(line["status"], 200, "{line}");
}

#[test]
fn over_tls_it_is_the_same() {
    let (upstream, authority) = (Upstream::start(), Authority::new());
    let scopegate = start(&upstream, ONE, |folder| {
        authority.server(&["a.example"]).write(folder, "a");
        fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
    });
    let told = Runtime::new().expect("a runtime").block_on(async {
        let caller = Caller::connect_tls(scopegate.address, "a.example", &authority.pem).await;
        caller.unary(PATH, call(Bytes::new(), &[("x-api-key", READ)])).await.expect_err("a refusal")
    });
    check(&scopegate, &told, Code::PermissionDenied, 403, "scope_missing");
}

/// While the call goes on, and others on its connection do not notice.
#[test]
fn a_refusal_is_one_head_and_the_end() {
    let scopegate = Setup::new(&Upstream::start()).start();
    let mut frames = Frames::connect(scopegate.address, &[]);
    let asked = |path, kind| {
        [
            (":method", "POST"),
            (":scheme", "http"),
            (":authority", "a"),
            (":path", path),
            ("content-type", kind),
        ]
    };
    frames.send(frame(HEADERS, END_HEADERS, 1, &block(&asked(PATH, "application/grpc+proto"))));
    let mut next = || frames.next().expect("an open connection");
    let (kind, flags, _, payload) = std::iter::repeat_with(&mut next).find(|frame| frame.2 == 1).expect("it");
    assert_eq!((kind, flags, payload[0]), (HEADERS, END_HEADERS | END_STREAM, OK));
    assert_eq!(frames.told(1), Told::Reset(NO_ERROR), "nothing more of the call is read");
    frames.send(get(3, &asked("/api/v1/webhooks/a", "application/grpc")));
    assert_eq!(frames.told(3), Told::Answer(200, "hello".into()));
}

#[test]
fn what_is_no_call_is_told_as_http() {
    let scopegate = Setup::new(&Upstream::start()).start();
    let request = |method: &str, kind: &str| {
        let builder = Request::builder().method(method).uri(format!("http://a{PATH}"));
        builder.header("content-type", kind).body(Empty::<Bytes>::new()).expect("a request")
    };
    let requests = vec![
        request("POST", "application/grpc-web+proto"),
        request("POST", "application/json"),
        request("PUT", "application/grpc"),
    ];
    for (status, reason, body, _) in ask(&scopegate, requests) {
        assert_eq!(status, 401, "{reason}");
        assert!(body.starts_with(b"{\"error\":{\"code\":\"key_missing\""), "{body:?}");
    }
}

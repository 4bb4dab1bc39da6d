//! Calls of gRPC that pass, from tonic to tonic.

use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use http::HeaderMap;
use tokio::runtime::Runtime;
use tokio::time::timeout;
use tonic::metadata::{AsciiMetadataValue, MetadataValue};
use tonic::{Code, Response, Streaming};

use crate::harness::certificates::Authority;
use crate::harness::grpc::{Caller, call, messages};
use crate::harness::grpc_service::{PIECE, Service};
use crate::harness::scopegate::{APPS, Scopegate, Setup};
use crate::harness::{PATIENCE, eventually};

pub(crate) const KEY: (&str, &str) = ("x-api-key", APPS);
const SURFACE: &str = "surfaces:
  calls:
    access: key
    upstream: calls
    routes:
      POST /test.Test/{method}: READ_TEAM_APPS
      POST /brief.Test/{method}: { scope: READ_TEAM_APPS, timeouts: { first_byte: 300ms, idle: 300ms } }
      POST /patient.Test/{method}: { scope: READ_TEAM_APPS, timeouts: { first_byte: 5s, idle: 300ms } }
  small:
    access: open
    upstream: calls
    body: 100KiB
    routes: ['POST /small.Test/{method}']
";

/// In front of a service that is spoken to over HTTP/2.
pub(crate) fn setup(service: &Service) -> Setup {
    let calls = format!("}}, calls: {{ address: '{}', protocol: http2 }} }}\nflags:", service.address);
    let nobody = "127.0.0.1:9";
    Setup::at(nobody, nobody).with("} }\nflags:", &calls).with("surfaces:\n", SURFACE)
}

/// A call that hangs is a failure.
pub(crate) fn block_on<T>(future: impl Future<Output = T>) -> T {
    let future = async { timeout(3 * PATIENCE, future).await.expect("waited in vain for a call") };
    Runtime::new().expect("a runtime").block_on(future)
}

fn field<'m>(fields: &'m HeaderMap, name: &str) -> &'m str {
    fields.get(name).map_or("", |value| value.to_str().expect("text"))
}

/// The next message, as text; empty at the end.
pub(crate) async fn next(answers: &mut Streaming<Bytes>) -> String {
    let message = answers.message().await.expect("no failure").unwrap_or_default();
    String::from_utf8(message.to_vec()).expect("text")
}

/// Nobody is being served any more.
pub(crate) fn ended(service: &Service) {
    eventually("the service to be at nothing", || (service.open() == 0).then_some(()));
}

async fn all_kinds(caller: Caller, scopegate: &Scopegate, service: &Service) {
    let mut request = call("one".into(), &[KEY, ("x-my-word", "a, b"), ("x-my-word", "c")]);
    let bytes = MetadataValue::from_bytes(&[0, 159, 255]);
    request.metadata_mut().insert_bin("my-bytes-bin", bytes.clone());
    let answer = caller.unary("/test.Test/Echo", request).await.expect("an answer");
    let words: Vec<_> =
        answer.metadata().get_all("x-my-word").iter().map(AsciiMetadataValue::as_bytes).collect();
    assert_eq!(words, [&b"a, b"[..], b"c"]);
    assert_eq!(answer.metadata().get_bin("my-bytes-bin"), Some(&bytes));
    assert_eq!(answer.into_inner(), "one");

    let large = Bytes::from(vec![b'x'; 3 << 20]);
    let answer = caller.unary("/test.Test/Echo", call(large.clone(), &[KEY])).await.expect("an answer");
    assert!(answer.into_inner() == large);

    let request = call("500".into(), &[KEY]);
    let mut answers =
        caller.server_streaming("/test.Test/Many", request).await.expect("answers").into_inner();
    for number in 0..500 {
        assert_eq!(next(&mut answers).await, number.to_string());
    }
    assert_eq!(next(&mut answers).await, "");

    let request = call(stream::iter((0..500).map(|_| Bytes::from_static(b"a message"))), &[KEY]);
    let answer = caller.client_streaming("/test.Test/Count", request).await.expect("an answer");
    assert_eq!(answer.into_inner(), "500");

    let (sender, sent) = messages();
    let answers = caller.streaming("/test.Test/Echo", call(sent, &[KEY])).await.expect("answers");
    let id = answers.metadata().get("x-request-id").expect("an id").to_str().expect("text").to_owned();
    let mut answers = answers.into_inner();
    for number in 0..100 {
        sender.send(number.to_string().into()).expect("a call");
        assert_eq!(next(&mut answers).await, number.to_string(), "while both sides go on");
    }
    drop(sender);
    assert_eq!(next(&mut answers).await, "");
    let line = scopegate.log_line(|line| line["id"] == id);
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"passed".into()), "{line}");
    ended(service);
}

#[test]
fn all_four_kinds_of_calls_pass() {
    let (service, authority) = (Service::start(), Authority::new());
    let listen = "listen: [{ address: 127.0.0.1:0 }]";
    let tls =
        "listen: [{ address: 127.0.0.1:0, tls: { certificates: [{ certificate: a.crt, key: a.key }] } }]";
    for listen in [listen, tls] {
        let folder = setup(&service).with("listen: [{ address: 127.0.0.1:0 }]", listen).write();
        authority.server(&["a.example"]).write(folder.path(), "a");
        let scopegate = Scopegate::start(folder);
        block_on(async {
            let caller = if listen == tls {
                Caller::connect_tls(scopegate.address, "a.example", &authority.pem).await
            } else {
                Caller::connect(scopegate.address).await
            };
            all_kinds(caller, &scopegate, &service).await;
        });
    }
    for seen in service.seen() {
        assert_eq!(field(&seen, "te"), "trailers", "{seen:?}");
        assert_eq!(field(&seen, "content-type"), "application/grpc", "{seen:?}");
        assert!(field(&seen, "user-agent").contains("tonic"), "{seen:?}");
    }
}

#[test]
fn a_status_of_the_service_is_the_clients() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let request = call("first".into(), &[KEY]);
        let mut answers =
            caller.server_streaming("/test.Test/Fail", request).await.expect("one").into_inner();
        assert_eq!(next(&mut answers).await, "first");
        let status = answers.message().await.expect_err("a status");
        assert_eq!((status.code(), status.message()), (Code::Aborted, "50 %, é"), "{status:?}");
        assert_eq!(status.details(), [0, 1, 255]);
        assert_eq!(status.metadata().get("x-why").expect("it"), "it does");
        // Without a message before it, it is a head and no more.
        let status =
            caller.unary("/test.Test/Refuse", call(Bytes::new(), &[KEY])).await.expect_err("a status");
        assert_eq!((status.code(), status.message()), (Code::NotFound, "no such thing"), "{status:?}");
        assert_eq!(status.metadata().get("scopegate-reason"), None);
    });
    let line = scopegate.log_line(|line| line["path"] == "/test.Test/Refuse");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"passed".into()), "{line}");
    ended(&service);
}

#[test]
fn a_deadline_is_the_services_to_read() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    let given = ["20S", "1H", "99999999m", "00000001M"];
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        for given in given {
            let request = call("x".into(), &[KEY, ("grpc-timeout", given)]);
            caller.unary("/test.Test/Echo", request).await.expect("an answer");
        }
        // Who does not wait any more takes his call back.
        let request = call("x".into(), &[KEY, ("grpc-timeout", "300m")]);
        let status = caller.unary("/test.Test/Silent", request).await.expect_err("a status");
        assert_eq!(status.code(), Code::Cancelled, "{status:?}");
    });
    let seen = service.seen();
    let seen: Vec<_> = seen.iter().map(|seen| field(seen, "grpc-timeout")).collect();
    assert_eq!(seen[..given.len()], given);
    ended(&service);
    scopegate.log_line(|line| line["path"] == "/test.Test/Silent" && line["reason"] == "client_gone");
}

#[test]
fn a_limit_of_the_route_ends_the_call_on_both_sides() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let status =
            caller.unary("/brief.Test/Silent", call("x".into(), &[KEY])).await.expect_err("a status");
        assert_eq!(status.code(), Code::DeadlineExceeded, "{status:?}");
        let reason = status.metadata().get("scopegate-reason").expect("a reason");
        assert_eq!(reason, "upstream_first_byte_timeout");
    });
    ended(&service);
}

/// Longer than the time limits of a route, which is what is tested and no wait for something.
const QUIET: Duration = Duration::from_millis(900);

#[test]
fn a_quiet_client_is_waited_for_as_long_as_its_service() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    let count = async |caller: &Caller, path: &str| {
        let (sender, sent) = messages();
        let (path, caller) = (path.to_owned(), caller.clone());
        let call = tokio::spawn(async move { caller.client_streaming(&path, call(sent, &[KEY])).await });
        sender.send("one".into()).expect("a call");
        tokio::time::sleep(QUIET).await;
        // Where the call has ended, nobody takes it.
        let _ = sender.send("two".into());
        drop(sender);
        call.await.expect("no panic").map(Response::into_inner).map_err(|status| status.code())
    };
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        assert_eq!(count(&caller, "/patient.Test/Count").await, Ok("2".into()));
        assert_eq!(count(&caller, "/brief.Test/Count").await, Err(Code::DeadlineExceeded));
    });
    ended(&service);
}

#[test]
fn a_body_is_all_that_a_call_sends() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    let flood = stream::repeat_with(|| Bytes::from_static(&[b'x'; PIECE]));
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let status =
            caller.client_streaming("/small.Test/Count", call(flood, &[])).await.expect_err("a status");
        assert_eq!(status.code(), Code::ResourceExhausted, "{status:?}");
        let (sender, sent) = messages();
        let answers = caller.streaming("/small.Test/Echo", call(sent, &[])).await;
        let mut answers = answers.expect("answers").into_inner();
        for _ in 0..10 {
            sender.send(Bytes::from_static(&[b'x'; PIECE])).expect("a call");
        }
        let status = loop {
            match answers.message().await {
                Ok(Some(message)) => assert_eq!(message.len(), PIECE),
                Ok(None) => panic!("a clean end"),
                Err(status) => break status,
            }
        };
        assert_eq!(status.code(), Code::Unknown, "{status:?}");
    });
    let line = scopegate.log_line(|line| line["path"] == "/small.Test/Echo");
    assert_eq!((&line["status"], &line["reason"]), (&200.into(), &"body_too_large".into()), "{line}");
    ended(&service);
}

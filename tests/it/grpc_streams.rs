//! Streams of gRPC: what ends them, and that who does not read stops who writes.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use futures_util::stream;
use tonic::Code;

use crate::grpc_calls::{KEY, block_on, ended, next, setup};
use crate::harness::eventually;
use crate::harness::grpc::{Caller, call, messages};
use crate::harness::grpc_service::{PIECE, Service};
use crate::harness::scopegate::{ALL, APPS};

#[test]
fn a_key_that_dies_ends_its_stream_and_no_other() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let mut open = Vec::new();
        for key in [APPS, ALL] {
            let (sender, sent) = messages();
            let request = call(sent, &[("x-api-key", key)]);
            let mut answers = caller.streaming("/test.Test/Echo", request).await.expect("one").into_inner();
            sender.send("before".into()).expect("a call");
            assert_eq!(next(&mut answers).await, "before");
            open.push((sender, answers));
        }
        scopegate.edit("keys.yaml", "{ id: id-apps,", "{ id: id-apps, disabled: true,");
        let [(_, dead), (sender, alive)] = &mut open[..] else { unreachable!() };
        let status = dead.message().await.expect_err("an end that is not clean");
        assert_eq!(status.code(), Code::Unknown, "{status:?}");
        sender.send("after".into()).expect("a call");
        assert_eq!(next(alive).await, "after");
        assert_eq!(service.open(), 1);
        let status = caller.unary("/test.Test/Echo", call("x".into(), &[KEY])).await.expect_err("a refusal");
        assert_eq!(status.code(), Code::Unauthenticated, "{status:?}");
    });
    scopegate.log_line(|line| line["reason"] == "key_revoked" && line["key"] == "id-apps");
    ended(&service);
}

#[test]
fn a_client_that_speaks_alone_is_not_silent() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let (sender, sent) = messages();
        let mut answers =
            caller.streaming("/brief.Test/Last", call(sent, &[KEY])).await.expect("answers").into_inner();
        // For longer than the upstream may be silent, with pauses that are shorter.
        for number in 0..8 {
            tokio::time::sleep(Duration::from_millis(100)).await;
            sender.send(number.to_string().into()).expect("a call");
        }
        drop(sender);
        assert_eq!(next(&mut answers).await, "7");
    });
    ended(&service);
}

#[test]
fn a_drain_lets_calls_come_to_their_end() {
    let service = Service::start();
    let mut scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let (sender, sent) = messages();
        let mut answers =
            caller.streaming("/test.Test/Echo", call(sent, &[KEY])).await.expect("answers").into_inner();
        scopegate.signal("TERM");
        eventually("the listener to be closed", || {
            std::net::TcpStream::connect(scopegate.address).is_err().then_some(())
        });
        sender.send("in a drain".into()).expect("a call");
        assert_eq!(next(&mut answers).await, "in a drain");
        drop(sender);
        assert_eq!(next(&mut answers).await, "");
    });
    assert!(scopegate.wait_exit().success());
    ended(&service);
}

#[test]
fn a_call_that_outlives_the_drain_is_cut() {
    let service = Service::start();
    let mut scopegate = setup(&service).with("grace: 5s", "grace: 500ms").start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let (_sender, sent) = messages();
        let mut answers =
            caller.streaming("/test.Test/Echo", call(sent, &[KEY])).await.expect("answers").into_inner();
        scopegate.signal("TERM");
        answers.message().await.expect_err("no clean end");
    });
    assert!(scopegate.wait_exit().success());
    scopegate.log_line(|line| line["path"] == "/test.Test/Echo" && line["reason"] == "drained");
    ended(&service);
}

/// Until a count has not grown for so long.
async fn settles(count: impl Fn() -> usize) -> usize {
    let mut before = usize::MAX;
    loop {
        let now = count();
        if now == before {
            return now;
        }
        before = now;
        // It is quiet that is waited for, which no event tells.
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}

/// Streams that nobody reads, on the connections that others use as well: fewer than fit into a connection's window.
const STUCK: usize = 10;
/// Bytes on their way, of one: the windows of both connections, and what waits between them.
const MOST: usize = 256 << 10;

#[test]
fn who_does_not_read_stops_who_writes_and_nobody_else() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let mut stuck = Vec::new();
        for _ in 0..STUCK {
            let request = call(Bytes::new(), &[KEY]);
            stuck.push(caller.server_streaming("/test.Test/Flood", request).await.expect("one").into_inner());
        }
        let sent = settles(|| service.flooded()).await;
        assert!(sent * PIECE < STUCK * MOST, "{sent} messages that nobody has taken");
        let answer =
            caller.unary("/test.Test/Echo", call("another".into(), &[KEY])).await.expect("an answer");
        assert_eq!(answer.into_inner(), "another");
        // What one takes is sent on.
        let mut taken = 0;
        while taken < 10 * MOST {
            taken += stuck[0].message().await.expect("no failure").expect("a message").len();
        }
        assert!(service.flooded() > sent);
    });
    ended(&service);
}

#[test]
fn a_service_that_does_not_read_stops_its_client_and_nobody_else() {
    let service = Service::start();
    let scopegate = setup(&service).start();
    block_on(async {
        let caller = Caller::connect(scopegate.address).await;
        let (mut stuck, given) = (Vec::new(), Arc::new(AtomicUsize::new(0)));
        for _ in 0..STUCK {
            let counted = Arc::clone(&given);
            let flood = stream::repeat_with(move || {
                counted.fetch_add(1, Ordering::SeqCst);
                Bytes::from_static(&[b'x'; PIECE])
            });
            let mut answers =
                caller.streaming("/test.Test/Deaf", call(flood, &[KEY])).await.expect("one").into_inner();
            assert_eq!(next(&mut answers).await, "go on");
            stuck.push(answers);
        }
        let given = settles(|| given.load(Ordering::SeqCst)).await;
        assert!(given * PIECE < STUCK * MOST, "{given} messages that nobody has taken");
        let answer =
            caller.unary("/test.Test/Echo", call("another".into(), &[KEY])).await.expect("an answer");
        assert_eq!(answer.into_inner(), "another");
    });
    ended(&service);
}

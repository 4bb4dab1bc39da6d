//! How often a request asks for memory. The number may fall; who makes it rise says so here.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use allocation_counter::measure;
use scopegate::accept::crowd::Crowd;
use scopegate::accept::drain::Leave;
use scopegate::accept::{self, Entrance};
use scopegate::gateway::Gateway;
use scopegate::identity::made;
use scopegate::keys::change::Changes;
use scopegate::keys::sessions::Sessions;
use scopegate::observe::lines::{self, Lines};
use scopegate::observe::metrics::Metrics;
use scopegate::reload::Files;
use scopegate::snapshot::{Current, Shared, Snapshot};
use tokio::task::spawn_local;

use crate::harness::client::{Client, request};
use crate::harness::scopegate::{APPS, Setup};
use crate::harness::upstream::Upstream;

/// So many requests are asked for on one connection, before counting and while it goes on.
const BEFORE: usize = 64;
const COUNTED: usize = 512;

/// What one request allocates on the worker's thread, everything on, in tenths.
fn tenths(line: &str, status: u16) -> u64 {
    let upstream = Upstream::start();
    let folder = Setup::new(&upstream).write();
    let files = Files::load(&folder.path().join("scopegate.yaml")).expect("good files").value;
    let metrics = Metrics::new("0");
    let (config, changes) = (files.config().clone(), Changes::default());
    let current = Current::new(Snapshot::build(config, &files.tables(), None, &metrics, &changes));
    let (leave, drain) = Leave::new();
    let (out, _writer) = lines::writer(std::io::sink()).expect("a thread");
    let lines = Lines::new(Some(out), metrics.lines_dropped.clone());
    let crowd = Crowd::new(metrics.connections.clone(), metrics.connections_refused.clone());
    let metrics = Arc::clone(&metrics);
    let sessions = Arc::new(Sessions::new(&metrics));
    let shared = Shared { crowd, current, metrics, changes, sessions, drain: drain.clone() };
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build_local(tokio::runtime::LocalOptions::default())
        .expect("a runtime");
    let gateway = Rc::new(Gateway::new(shared, lines));
    let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.set_nonblocking(true).expect("a socket");
    let address = listener.local_addr().expect("an address");
    runtime.block_on(async {
        let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
        spawn_local(accept::run(listener, Entrance::default(), Rc::clone(&gateway), drain.clone()));
    });
    let asked = Arc::new(AtomicUsize::new(0));
    let (go, gone) = std::sync::mpsc::channel::<usize>();
    let (finished, count, line) = (Arc::new(tokio::sync::Notify::new()), Arc::clone(&asked), line.to_owned());
    let told = Arc::clone(&finished);
    let client = std::thread::spawn(move || ask_in_turn(address, &line, status, &gone, &count, &told));
    let serve = |requests: usize| {
        go.send(requests).expect("the client waits");
        runtime.block_on(finished.notified());
    };
    serve(BEFORE);
    let counted = measure(|| serve(COUNTED)).count_total;
    drop(go);
    client.join().expect("every answer was as it must be");
    assert_eq!(asked.load(Ordering::SeqCst), BEFORE + COUNTED);
    drop(leave);
    counted * 10 / COUNTED as u64
}

fn ask_in_turn(
    address: SocketAddr,
    line: &str,
    status: u16,
    turns: &std::sync::mpsc::Receiver<usize>,
    asked: &AtomicUsize,
    finished: &tokio::sync::Notify,
) {
    let (method, target) = line.split_once(' ').expect("a method and a target");
    let body = if method == "POST" { "x".repeat(1024) } else { String::new() };
    let mut client = Client::connect(address);
    for requests in turns {
        for _ in 0..requests {
            let answer =
                client.ask(request(method, target, &format!("Authorization: Bearer {APPS}\r\n"), &body));
            assert_eq!(answer.status, status, "{line}");
            asked.fetch_add(1, Ordering::SeqCst);
        }
        finished.notify_one();
    }
}

#[test]
fn a_request_asks_for_memory_no_more_often_than_it_did() {
    for (line, status, most) in [
        ("GET /api/v1/apps", 200, 110),
        ("POST /api/v1/webhooks/a", 200, 132),
        ("POST /api/v1/call-tokens", 403, 152),
    ] {
        let tenths = tenths(line, status);
        println!("{line}: {}.{} allocations a request", tenths / 10, tenths % 10);
        assert!(tenths <= most, "{line}: {tenths} tenths of an allocation a request, {most} until now");
    }
}

#[test]
fn a_key_is_held_against_its_checksum_without_memory() {
    let made = made::key(made::PREFIX, &"x".repeat(made::RANDOM));
    let long = format!("{}{}", made::PREFIX, "x".repeat(30_000));
    let counted = measure(|| {
        assert!(made::may_be_whole(made::PREFIX, made.as_bytes()));
        assert!(!made::may_be_whole(made::PREFIX, long.as_bytes()));
    });
    assert_eq!(counted.count_total, 0);
}

//! What each attack may cost in memory at its height, and that everybody else is served meanwhile and after.

use std::any::Any;
use std::fs;
use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::SockRef;

use crate::harness::certificates::{Authority, ONE, curl, said, start};
use crate::harness::client::{Client, request};
use crate::harness::frames::{Frames, PREFACE, WINDOW, block, connect, frame, get};
use crate::harness::scopegate::{APPS, Scopegate, Setup};
use crate::harness::upstream::{Exchange, Upstream};
use crate::harness::{bearer, eventually};

/// What goes on until the attack is over.
type Held = Box<dyn Any>;

/// What attackers do, each on a connection of its own.
struct Attack {
    what: &'static str,
    /// Attackers.
    count: usize,
    /// MiB that the program may need at its height.
    most: usize,
    one: fn(SocketAddr) -> Held,
}

const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";
const OPEN: &str = "/api/v1/webhooks";
const CHUNKED: &str = "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";

/// Answers as the last part of the path says, for as long as somebody takes it.
fn evil(exchange: &mut Exchange<'_>) -> bool {
    let target = exchange.request.target.clone();
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n";
    let (begin, flood) = match target.rsplit(['/', '?']).next().unwrap_or_default() {
        "fields" => ("HTTP/1.1 200 OK\r\n".to_owned(), "X: y\r\n".repeat(1_000)),
        "interim" => (String::new(), "HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n".repeat(1_000)),
        "pieces" => (chunked.to_owned(), "1\r\nx\r\n".repeat(10_000)),
        "endless" => ("HTTP/1.1 200 OK\r\n\r\n".to_owned(), "x".repeat(65_536)),
        "extensions" => (format!("{chunked}1;"), "a".repeat(65_536)),
        "trailers" => (format!("{chunked}0\r\n"), "X: y\r\n".repeat(10_000)),
        "sessionId=s&token=t" => (SWITCH.to_owned(), "x".repeat(65_536)),
        "large" => return exchange.reply("200 OK", "", &"x".repeat(1 << 20)),
        _ => return exchange.reply("200 OK", "", "hello"),
    };
    exchange.write(begin);
    while exchange.write(&flood) {}
    false
}

/// Sends this over and over, until it is not taken any more or has been so often.
fn flood(to: SocketAddr, begin: &str, more: &str, times: usize) -> Held {
    let mut client = Client::connect(to);
    let stream = client.stream.get_mut();
    stream.set_write_timeout(Some(Duration::from_millis(20))).expect("an option");
    let _ = stream.write_all(begin.as_bytes());
    let _ = (0..times).all(|_| stream.write_all(more.as_bytes()).is_ok());
    Box::new(client)
}

/// Asks for this, and takes nothing.
fn asks(to: SocketAddr, target: &str, headers: &str) -> Held {
    flood(to, &request("GET", target, headers, ""), "", 0)
}

/// Asks for this on so many streams, through windows of so many bytes.
fn streams(to: SocketAddr, window: u32, count: u32, path: &str) -> Held {
    let mut frames = Frames::connect(to, &[&[0, 4][..], &window.to_be_bytes()].concat());
    frames.send(frame(WINDOW, 0, 0, &[0x7f, 0, 0, 0]));
    let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
    frames.send((0..count).flat_map(|number| get(2 * number + 1, &fields)).collect::<Vec<u8>>());
    Box::new(frames)
}

impl Attack {
    const fn new(what: &'static str, count: usize, most: usize, one: fn(SocketAddr) -> Held) -> Self {
        Self { what, count, most, one }
    }

    /// Goes on while an honest client is served, and ends; memory has stayed below its ceiling.
    fn run(&self, scopegate: &Scopegate, honest: impl Fn() -> bool) {
        let Self { what, count, most, one } = self;
        let before = scopegate.peak_memory();
        let held: Vec<Held> = (0..*count).map(|_| one(scopegate.address)).collect();
        assert!(honest(), "{what}: meanwhile");
        drop(held);
        for gauge in ["scopegate_connections", "scopegate_requests_in_flight", "scopegate_tunnels"] {
            eventually(&format!("{what}: {gauge}"), || (scopegate.metric(gauge) == 0.0).then_some(()));
        }
        assert!(honest(), "{what}: after");
        let peak = scopegate.peak_memory();
        println!("{what}: {} KiB, of which {} for it", peak >> 10, (peak - before) >> 10);
        assert!(peak < most << 20, "{what}: {} MiB", peak >> 20);
    }
}

/// From another address than the attackers', and in time.
fn is_served(scopegate: &Scopegate) -> bool {
    let mut client = Client::connect_from("127.0.0.2", scopegate.address);
    client.ask(request("GET", "/api/v1/apps", &bearer(APPS), "")).status == 200
}

#[test]
fn attacks_of_clients_have_a_ceiling() {
    let upstream = Upstream::with(evil);
    for attack in [
        Attack::new("ten thousand fields", 100, 40, |to| {
            flood(to, "GET /health HTTP/1.1\r\nHost: a\r\n", "X: y\r\n", 10_000)
        }),
        Attack::new("heads without an end", 100, 40, |to| {
            flood(to, "GET /health HTTP/1.1\r\nHost: a\r\n", &format!("X: {}\r\n", "y".repeat(4_000)), 1_000)
        }),
        Attack::new("a target without an end", 100, 40, |to| flood(to, "GET /", &"x".repeat(4_000), 1_000)),
        Attack::new("extensions without an end", 100, 64, |to| {
            flood(to, &format!("{CHUNKED}1;"), &"a".repeat(4_000), 1_000)
        }),
        Attack::new("extensions of many chunks", 100, 64, |to| {
            flood(to, CHUNKED, &format!("1;{}\r\nx\r\n", "a".repeat(4_000)), 1_000)
        }),
        Attack::new("trailers without an end", 100, 64, |to| {
            flood(to, &format!("{CHUNKED}0\r\n"), &format!("X: {}\r\n", "y".repeat(4_000)), 1_000)
        }),
        Attack::new("half trailers", 100, 64, |to| {
            flood(to, &format!("{CHUNKED}0\r\n"), &format!("X: {}\r\n", "y".repeat(4_000)), 15)
        }),
        Attack::new("slow bodies", 200, 40, |to| {
            flood(
                to,
                "POST /api/v1/webhooks/a HTTP/1.1\r\nHost: a\r\nContent-Length: 1000000\r\n\r\n",
                "x",
                1,
            )
        }),
        Attack::new("silence", 800, 64, |to| Box::new(TcpStream::connect(to).expect("a connection"))),
        Attack::new("resets", 5_000, 40, |to| {
            let stream = TcpStream::connect(to).expect("a connection");
            SockRef::from(&stream).set_linger(Some(Duration::ZERO)).expect("an option");
            Box::new(())
        }),
        Attack::new("refusals that nobody takes", 50, 64, |to| {
            flood(to, "", &request("GET", "/api/v1/apps", "", "").repeat(100), 1_000)
        }),
        Attack::new("answers that nobody takes", 50, 64, |to| {
            flood(to, "", &request("GET", "/health", "", "").repeat(100), 1_000)
        }),
        Attack::new("bodies that nobody takes", 50, 40, |to| asks(to, "/api/v1/webhooks/endless", "")),
        Attack::new("channels that nobody reads", 50, 40, |to| {
            asks(to, "/ws/session?sessionId=s&token=t", HANDSHAKE)
        }),
        Attack::new("connections of HTTP/2", 500, 64, |to| Box::new(Frames::connect(to, &[]))),
        Attack::new("half prefaces", 500, 40, |to| {
            let mut frames = Frames::silent(to);
            frames.send(&PREFACE[..20]);
            Box::new(frames)
        }),
        Attack::new("refusals through no window", 50, 64, |to| streams(to, 0, 100, "/api/v1/apps")),
        Attack::new("small answers through a window of a byte", 10, 64, |to| {
            streams(to, 1, 100, "/api/v1/webhooks/a")
        }),
        Attack::new("large answers through a window of a byte", 10, 96, |to| {
            streams(to, 1, 20, "/api/v1/webhooks/large")
        }),
        Attack::new("large answers that nobody reads", 10, 96, |to| {
            streams(to, 0x7fff_ffff, 20, "/api/v1/webhooks/large")
        }),
        Attack::new("small pieces that nobody reads", 4, 96, |to| {
            streams(to, 0x7fff_ffff, 20, "/api/v1/webhooks/pieces")
        }),
        Attack::new("channels over HTTP/2 that nobody reads", 10, 64, |to| {
            let mut frames = Frames::connect(to, &[0, 4, 0, 0, 0, 1]);
            let open = |number: u32| connect(2 * number + 1, "/ws/session?sessionId=s&token=t", &[]);
            frames.send((0..20).flat_map(open).collect::<Vec<u8>>());
            Box::new(frames)
        }),
        Attack::new("half lists of fields", 100, 64, |to| {
            let mut frames = Frames::connect(to, &[]);
            frames.send(frame(1, 0, 1, &block(&[("x", "y".repeat(16_000))])));
            Box::new(frames)
        }),
    ] {
        let scopegate = Setup::new(&upstream).start();
        attack.run(&scopegate, || is_served(&scopegate));
    }
}

#[test]
fn attacks_of_upstreams_have_a_ceiling() {
    let upstream = Upstream::with(evil);
    for attack in [
        Attack::new("fields without an end", 100, 40, |to| asks(to, &format!("{OPEN}/fields"), "")),
        Attack::new("interim answers without an end", 100, 40, |to| asks(to, &format!("{OPEN}/interim"), "")),
        Attack::new("extensions without an end", 100, 64, |to| asks(to, &format!("{OPEN}/extensions"), "")),
        Attack::new("trailers without an end", 100, 64, |to| asks(to, &format!("{OPEN}/trailers"), "")),
    ] {
        let scopegate = Setup::new(&upstream).start();
        attack.run(&scopegate, || is_served(&scopegate));
    }
}

#[test]
fn attacks_on_handshakes_have_a_ceiling() {
    let (upstream, authority) = (Upstream::with(evil), Authority::new());
    for attack in [
        // A record of 16 KiB, and of the message in it less.
        Attack::new("half hellos", 200, 64, |to| {
            let hello = [&[22, 3, 1, 0x40, 0, 1, 0, 0x3f, 0xfc, 3, 3][..], &[0; 16_000]].concat();
            let mut client = Client::connect(to);
            client.send(hello);
            Box::new(client)
        }),
        // A message of 16 MiB, in records of 16 KiB.
        Attack::new("hellos without an end", 50, 64, |to| {
            let mut client = Client::connect(to);
            let stream = client.stream.get_mut();
            stream.set_write_timeout(Some(Duration::from_millis(20))).expect("an option");
            let record = [&[22, 3, 1, 0x40, 0][..], &[0; 16_384]].concat();
            let mut first = record.clone();
            first[5..9].copy_from_slice(&[1, 0xff, 0xff, 0xff]);
            let _ = stream.write_all(&first);
            let _ = (0..200).all(|_| stream.write_all(&record).is_ok());
            Box::new(client)
        }),
        Attack::new("silence", 500, 64, |to| Box::new(TcpStream::connect(to).expect("a connection"))),
    ] {
        let scopegate = start(&upstream, ONE, |folder| {
            authority.server(&["a.example"]).write(folder, "a");
            fs::write(folder.join("ca.pem"), &authority.pem).expect("a file");
        });
        attack.run(&scopegate, || {
            let output =
                curl(scopegate.address, scopegate.folder.path(), "a.example", &["-w", "%{http_code}"]);
            said(&output).ends_with("200")
        });
    }
}

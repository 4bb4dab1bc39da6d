//! The pieces of a request, each ready to be run alone: over and over for its time, once for its instructions.

use std::hint::black_box;
use std::net::SocketAddr;
use std::path::Path as FilePath;
use std::pin::pin;
use std::rc::Rc;
use std::sync::mpsc::sync_channel;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use http::{Method, Version};
use scopegate::accept::clock::Clock;
use scopegate::accept::peer::Peer;
use scopegate::config::file::{parse, parse_keys};
use scopegate::decide::call::Call;
use scopegate::decide::path::Path;
use scopegate::decide::permit::Permit;
use scopegate::decide::route::Router;
use scopegate::decide::{Policy, decide};
use scopegate::forward::answer;
use scopegate::forward::headers::{self, Announced, Outbound};
use scopegate::identity::key::Digest;
use scopegate::keys::table::Table;
use scopegate::message::head::{Head, Limits};
use scopegate::observe::lines::Lines;
use scopegate::observe::metrics::{Metrics, RouteMeters};
use scopegate::observe::record::{Id, Path as Shown, Record};

/// One of them.
pub(crate) type Piece = fn(&mut Pieces);

/// As many as a platform team would have.
const KEYS: usize = 10_000;
const TARGET: &str = "/api/v1/call-tokens/a-1";

/// The shipped configuration, 10,000 keys, and requests that ask for some of them in turn.
pub(crate) struct Pieces {
    policy: Policy,
    table: Table,
    router: Router,
    heads: Vec<Head>,
    request: Vec<u8>,
    secret: String,
    turn: usize,
    peer: Rc<Peer>,
    id: Id,
    answer: Bytes,
    metrics: std::sync::Arc<Metrics>,
    meters: RouteMeters,
    lines: Lines,
    record: Record,
}

fn key(number: usize) -> String {
    format!("sk_live_{number:032x}")
}

const LIMITS: Limits = Limits { head: 32 * 1024, fields: 100, target: 16 * 1024 };

fn request(number: usize) -> Vec<u8> {
    format!(
        "GET {TARGET} HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\
         Authorization: Bearer {}\r\n\r\n",
        key(number)
    )
    .into_bytes()
}

fn head(number: usize) -> Head {
    Head::read(&request(number), &LIMITS).expect("valid").expect("whole").0
}

impl Pieces {
    pub(crate) fn new() -> Self {
        let config = include_str!("../../config/telapi.yaml");
        let live = parse(FilePath::new("telapi.yaml"), config).expect("the shipped configuration").value.live;
        let mut text = "teams: { t: { scopes: [READ_CALL_TOKEN] } }\nkeys:\n".to_owned();
        for number in 0..KEYS {
            let digest = Digest::of(key(number).as_bytes());
            text +=
                &format!("  - {{ id: k{number}, team: t, digest: '{digest}', scopes: [READ_CALL_TOKEN] }}\n");
        }
        let keys = parse_keys(FilePath::new("keys.yaml"), &text, &live.scopes).expect("a keys file").value;
        let mut router = Router::default();
        for (id, route) in live.surfaces.iter().flat_map(|surface| &surface.routes).enumerate() {
            router.add(route, id);
        }
        let id = Id::random();
        let peer = Peer::new(SocketAddr::from(([127, 0, 0, 1], 4711)), &Rc::new(Clock::default()));
        let asked = Some((Method::GET, Version::HTTP_11));
        // So long ago that its length has as many digits whenever it is written.
        let began = Instant::now().checked_sub(Duration::from_secs(3_600)).expect("a clock that ran before");
        let moment = (began, peer.clock().date_of(began));
        let mut record = Record::open(moment, Rc::clone(&peer.text), asked, id.clone());
        record.path = Shown::Shown { target: TARGET.into(), length: TARGET.len() };
        record.upstream = Some(Duration::from_micros(812));
        record.status = 200;
        record.ended();
        let metrics = Metrics::new("0");
        let (out, read) = sync_channel(1024);
        // Somebody reads, so that lines are handed on as they are in the program.
        std::thread::spawn(move || read.iter().map(|batch: Vec<u8>| batch.len()).sum::<usize>());
        let meters = metrics.route("sdk", "/api/v1/call-tokens/{id}");
        let lines = Lines::new(Some(out), metrics.lines_dropped.clone());
        // A batch has room for as many lines as the one before it: what it takes to grow is the allocator's luck.
        for _ in 0..64 {
            lines.write(&record, &meters);
        }
        lines.flush();
        Self {
            policy: Policy::new(&live),
            table: Table::new(&keys, &live.scopes),
            router,
            heads: (0..512).map(|number| head(number * KEYS / 512)).collect(),
            request: request(4_711),
            secret: key(4_711),
            turn: 0,
            peer: Rc::new(peer),
            id,
            answer: Bytes::from_static(
                b"HTTP/1.1 200 OK\r\nServer: nginx/1.22.1\r\nDate: Tue, 24 Nov 2026 12:00:00 GMT\r\n\
                  Content-Type: application/json\r\nContent-Length: 2\r\nConnection: keep-alive\r\n\r\n{}",
            ),
            meters,
            lines,
            metrics,
            record,
        }
    }

    fn next(&mut self) -> usize {
        self.turn = (self.turn + 1) % self.heads.len();
        self.turn
    }

    fn decided(&self, head: &Head) -> Permit<'_> {
        let call = Call::read(head, SystemTime::UNIX_EPOCH).expect("a target");
        let decided = pin!(decide(&self.policy, &self.table, &call));
        let Poll::Ready((_, permit)) = decided.poll(&mut Context::from_waker(Waker::noop())) else {
            unreachable!("a table in memory is not waited for")
        };
        permit.expect("the key has the scope")
    }

    /// The head of a request.
    pub(crate) fn request(&mut self) {
        black_box(Head::read(black_box(&self.request), &LIMITS).expect("valid"));
    }

    /// One reading of a path, and its route.
    pub(crate) fn route(&mut self) {
        let path = Path::read(black_box(TARGET)).expect("one reading");
        black_box(self.router.find("GET", path));
    }

    /// The digest of a key.
    pub(crate) fn digest(&mut self) {
        black_box(Digest::of(black_box(self.secret.as_bytes())));
    }

    /// The whole decision: path, route, flags, digest, table, scopes.
    pub(crate) fn decide(&mut self) {
        let turn = self.next();
        let head = self.heads.get(turn).expect("a head");
        black_box(self.decided(head));
    }

    /// The decision, and the head as the upstream is sent it.
    pub(crate) fn headers(&mut self) {
        let turn = self.next();
        let head = self.heads.get(turn).expect("a head");
        let outbound = Outbound {
            peer: &self.peer,
            trusted: false,
            scheme: "http",
            id: &self.id,
            body_most: u64::MAX,
            strip_credential: false,
            identity: None,
        };
        let permit = self.decided(head);
        black_box(headers::write(head, "upstream", Announced::Nothing, &permit, &outbound));
    }

    /// The head of an upstream's answer.
    pub(crate) fn answer(&mut self) {
        black_box(answer::Head::read(&mut self.answer.clone(), &Method::GET).expect("valid"));
    }

    /// What a request says of itself when it ends: metrics and the line of the access log.
    pub(crate) fn record(&mut self) {
        self.metrics.count(&self.record, &self.meters);
        self.lines.write(&self.record, &self.meters);
    }
}

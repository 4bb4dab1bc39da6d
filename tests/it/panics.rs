//! A defect of ours ends the request that meets it, and no other, and is counted.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::mpsc::channel;

use scopegate::accept::body::Incoming;
use scopegate::accept::crowd::Crowd;
use scopegate::accept::drain::Leave;
use scopegate::accept::peer::Peer;
use scopegate::accept::proxy_protocol::Unproxied;
use scopegate::accept::{self, Bounds, Door, Entrance, Malformed, Reply, Worker};
use scopegate::exchange::{Exchange, Told};
use scopegate::gateway::Gateway;
use scopegate::keys::change::Changes;
use scopegate::keys::sessions::Sessions;
use scopegate::message::answer::Answer;
use scopegate::message::head::Head;
use scopegate::observe::lines::Lines;
use scopegate::observe::metrics::Metrics;
use scopegate::observe::observer::Observer;
use scopegate::reload::Files;
use scopegate::snapshot::{Current, Shared, Snapshot};
use scopegate::tls::failure::Failure;
use tokio::task::spawn_local;

use crate::harness::client::{Client, get, request};
use crate::harness::eventually;
use crate::harness::frames::{self, Frames};
use crate::harness::scopegate::Setup;
use crate::harness::upstream::Upstream;

/// The gateway, with a defect behind one path.
struct Defective {
    gateway: Rc<Gateway>,
    observer: Rc<Observer>,
    current: Arc<Current>,
}

impl Door for Defective {
    type Body = Told;

    async fn serve(self: Rc<Self>, peer: Rc<Peer>, head: Head, body: Incoming) -> Reply<Told> {
        if head.path() != "/defect" {
            return Rc::clone(&self.gateway).serve(peer, head, body).await;
        }
        let snapshot = Rc::new(self.current.hold());
        let _exchange = Exchange::open(&self.observer, &snapshot, Some(&head), &peer);
        tokio::task::yield_now().await;
        panic!("a defect of ours");
    }

    fn refuse(&self, peer: &Rc<Peer>, head: Option<&Head>, malformed: Malformed) -> Answer<Told> {
        self.gateway.refuse(peer, head, malformed)
    }

    fn bounds(&self) -> Bounds {
        self.gateway.bounds()
    }

    fn broke(&self, _: &'static str) {}

    fn cut_short(&self, _: &'static str) {}

    fn shaken(&self, _: bool) {}

    fn unshaken(&self, _: &Peer, _: &Failure) {}

    fn turned_away(&self, _: &Peer, _: Unproxied) {}

    fn is_trusted(&self, _: &Peer) -> bool {
        false
    }

    fn worker(&self) -> &Worker {
        self.gateway.worker()
    }
}

/// Serves for as long as the process lives; the address, and what is counted.
fn start(upstream: &Upstream) -> (SocketAddr, Arc<Metrics>) {
    let folder = Setup::new(upstream).write();
    let (tell, told) = channel();
    std::thread::spawn(move || {
        let files = Files::load(&folder.path().join("scopegate.yaml")).expect("good files").value;
        let (metrics, changes) = (Metrics::new("0"), Changes::default());
        let snapshot = Snapshot::build(files.config().clone(), &files.tables(), None, &metrics, &changes);
        let (current, (_leave, drain)) = (Current::new(snapshot), Leave::new());
        let crowd = Crowd::new(metrics.connections.clone(), metrics.connections_refused.clone());
        let shared = Shared {
            crowd,
            current: Arc::clone(&current),
            metrics: Arc::clone(&metrics),
            changes,
            sessions: Arc::new(Sessions::new(&metrics)),
            drain: drain.clone(),
        };
        let [of_gateway, lines] = [(); 2].map(|()| Lines::new(None, metrics.lines_dropped.clone()));
        let gateway = Rc::new(Gateway::new(shared, of_gateway));
        let observer = Rc::new(Observer::new(&metrics, lines));
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        tell.send((address, Arc::clone(&metrics))).expect("the test listens");
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build_local(tokio::runtime::LocalOptions::default())
            .expect("a runtime");
        runtime.block_on(async {
            let door = Rc::new(Defective { gateway, observer, current });
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            spawn_local(accept::run(listener, Entrance::default(), door, drain)).await.expect("it goes on");
        });
    });
    told.recv().expect("an address")
}

#[test]
fn one_request_ends_and_the_others_go_on() {
    let upstream = Upstream::start();
    let (address, metrics) = start(&upstream);
    let counted = |status: &str| {
        let labels = format!(
            "{{method=\"GET\",reason=\"internal\",route=\"none\",status=\"{status}\",surface=\"none\"}}"
        );
        let text = String::from_utf8(metrics.text()).expect("text");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("scopegate_requests_total")?.strip_prefix(&labels));
        line.map_or(0, |count| count.trim().parse().expect("a number"))
    };
    let mut other = Client::connect(address);
    assert_eq!(other.ask(request("GET", "/health", "", "")).text(), "hello");
    for number in 1..=3 {
        let mut client = Client::connect(address);
        client.send(request("GET", "/defect", "", ""));
        assert!(client.is_closed(), "an answer that nobody knows is not given");
        assert_eq!(other.ask(request("GET", "/health", "", "")).text(), "hello");
        eventually("a count", || (counted("none") == number).then_some(()));
    }
    // Over HTTP/2 it is the stream that ends.
    let ask = |stream: u32, path: &str| {
        let fields = [(":method", "GET"), (":scheme", "http"), (":authority", "a"), (":path", path)];
        frames::get(stream, &fields)
    };
    let mut client = Frames::connect(address, &[]);
    for number in 0..3 {
        client.send([ask(4 * number + 1, "/defect"), ask(4 * number + 3, "/health")].concat());
        assert!(matches!(client.told(4 * number + 1), frames::Told::Reset(_)), "its stream is reset");
        let frames::Told::Answer(status, body) = client.told(4 * number + 3) else { panic!("it goes on") };
        assert_eq!((status, &*body), (200, "hello"));
        eventually("a count", || (counted("none") == number + 4).then_some(()));
    }
    drop((other, client));
    assert_eq!(get(address, "/health", "").text(), "hello");
    eventually("nobody left", || {
        (metrics.connections.get() == 0 && metrics.in_flight.get() == 0).then_some(())
    });
}

//! A defect of ours ends the request that meets it, and no other.

use std::convert::Infallible;
use std::pin::Pin;
use std::rc::Rc;
use std::sync::mpsc::channel;
use std::task::{Context, Poll};
use std::time::Duration;

use bytes::Bytes;
use http::StatusCode;
use http_body::Frame;
use http_body_util::Full;
use prometheus::{IntCounterVec, IntGauge, Opts};
use scopegate::accept::body::Incoming;
use scopegate::accept::crowd::{Crowd, Most};
use scopegate::accept::drain::Leave;
use scopegate::accept::peer::Peer;
use scopegate::accept::proxy_protocol::Unproxied;
use scopegate::accept::{self, Bounds, Door, Entrance, Malformed, Reply, Taken, Worker};
use scopegate::message::answer::Answer;
use scopegate::message::fields::Fields;
use scopegate::message::head::{Head, Limits};
use scopegate::tls::failure::Failure;
use tokio::task::{LocalSet, spawn_local};

use crate::harness::client::{Client, get, request};

const SECOND: Duration = Duration::from_secs(1);

/// A door with a defect behind one path.
struct Defective(Worker);

struct Hello(Full<Bytes>);

impl http_body::Body for Hello {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Pin::new(&mut self.get_mut().0).poll_frame(cx)
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.0.size_hint()
    }
}

impl Taken for Hello {
    fn too_slow(&mut self) {}
}

impl Door for Defective {
    type Body = Hello;

    async fn serve(self: Rc<Self>, _: Rc<Peer>, head: Head, _: Incoming) -> Reply<Hello> {
        tokio::task::yield_now().await;
        assert_ne!(head.path(), "/defect", "a defect of ours");
        Answer::new(StatusCode::OK, Fields::default(), Hello(Full::from("hello"))).into()
    }

    fn refuse(&self, _: &Rc<Peer>, _: Option<&Head>, _: Malformed) -> Answer<Hello> {
        Answer::new(StatusCode::BAD_REQUEST, Fields::default(), Hello(Full::default()))
    }

    fn bounds(&self) -> Bounds {
        Bounds {
            size: Limits { head: 1024, fields: 16, target: 256 },
            head_wait: SECOND,
            idle: SECOND,
            patience: SECOND,
            connections: Most { all: 100, of_one: None },
            streams: 10,
            resets: 10,
            control_frames: 1_000,
            channels: false,
        }
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
        &self.0
    }
}

#[test]
fn one_request_ends_and_the_others_go_on() {
    let (tell, told) = channel();
    let open = IntGauge::new("open", "open").expect("a gauge");
    let seen = open.clone();
    std::thread::spawn(move || {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        tell.send(listener.local_addr().expect("an address")).expect("the test listens");
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
        LocalSet::new().block_on(&runtime, async {
            let refused = IntCounterVec::new(Opts::new("refused", "refused"), &["limit"]).expect("a counter");
            let (chunk, clock, open) = (Rc::default(), Rc::default(), Crowd::new(open, refused));
            let door = Rc::new(Defective(Worker { chunk, clock, open: Rc::default(), crowd: open }));
            let listener = tokio::net::TcpListener::from_std(listener).expect("a socket");
            let (_leave, drain) = Leave::new();
            spawn_local(accept::run(listener, Entrance::default(), door, drain)).await.expect("it goes on");
        });
    });
    let address = told.recv().expect("an address");
    let mut other = Client::connect(address);
    assert_eq!(other.ask(request("GET", "/", "", "")).text(), "hello");
    for _ in 0..3 {
        let mut client = Client::connect(address);
        client.send(request("GET", "/defect", "", ""));
        assert!(client.is_closed(), "an answer that nobody knows is not given");
        assert_eq!(other.ask(request("GET", "/", "", "")).text(), "hello");
    }
    assert_eq!(get(address, "/", "").text(), "hello");
    assert!(seen.get() <= 2, "{} connections are said to be open", seen.get());
}

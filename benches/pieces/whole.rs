//! A whole request: the program's own parts between a client and an upstream, all on one thread, over loopback.

use std::rc::Rc;

use scopegate::accept::crowd::Crowd;
use scopegate::accept::drain::Leave;
use scopegate::accept::{self, Entrance};
use scopegate::gateway::Gateway;
use scopegate::keys::change::Changes;
use scopegate::keys::sessions::Sessions;
use scopegate::observe::lines::Lines;
use scopegate::observe::metrics::Metrics;
use scopegate::reload::Files;
use scopegate::snapshot::{Current, Shared, Snapshot};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::{Builder, LocalOptions, LocalRuntime};
use tokio::task::spawn_local;

const REQUEST: &[u8] =
    b"GET /health HTTP/1.1\r\nHost: api.example.com\r\nUser-Agent: curl/8.5.0\r\nAccept: */*\r\n\r\n";
const ANSWER: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 2\r\n\r\n{}";

/// A client that has asked once.
pub(crate) struct Whole {
    runtime: LocalRuntime,
    client: TcpStream,
    _leave: Leave,
    _folder: tempfile::TempDir,
}

impl Whole {
    pub(crate) fn new() -> Self {
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build_local(LocalOptions::default())
            .expect("a runtime");
        let folder = tempfile::tempdir().expect("a folder");
        let (leave, drain) = Leave::new();
        let client = runtime.block_on(async {
            let upstream = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let config = format!(
                "{{ listen: [{{ address: 127.0.0.1:0 }}], upstreams: {{ a: {{ address: '{}' }} }}, \
                 keys: {{ file: keys.yaml }}, surfaces: {{ s: {{ access: open, routes: [GET /health] }} }} }}",
                upstream.local_addr().expect("an address")
            );
            std::fs::write(folder.path().join("scopegate.yaml"), config).expect("a file");
            std::fs::write(folder.path().join("keys.yaml"), "teams: {}\nkeys: []\n").expect("a file");
            spawn_local(answer_all(upstream));
            let files = Files::load(&folder.path().join("scopegate.yaml")).expect("good files").value;
            let metrics = Metrics::new("0");
            let (config, changes) = (files.config().clone(), Changes::default());
            let snapshot = Snapshot::build(config, &files.tables(), None, &metrics, &changes);
            let crowd = Crowd::new(metrics.connections.clone(), metrics.connections_refused.clone());
            let lines = Lines::new(None, metrics.lines_dropped.clone());
            let current = Current::new(snapshot);
            let sessions = std::sync::Arc::new(Sessions::new(&metrics));
            let shared = Shared { current, metrics, crowd, changes, sessions, drain: drain.clone() };
            let listener = TcpListener::bind("127.0.0.1:0").await.expect("a port");
            let address = listener.local_addr().expect("an address");
            spawn_local(accept::run(listener, Entrance::default(), Rc::new(Gateway::new(shared, lines)), drain));
            TcpStream::connect(address).await.expect("a connection")
        });
        Self { runtime, client, _leave: leave, _folder: folder }
    }

    /// Asks, and reads the answer.
    pub(crate) fn ask(&mut self) {
        let client = &mut self.client;
        self.runtime.block_on(async {
            client.write_all(REQUEST).await.expect("an open connection");
            let mut answer = [0; 1024];
            let count = client.read(&mut answer).await.expect("an answer");
            assert!(answer.get(..count).is_some_and(|answer| answer.ends_with(b"{}")));
        });
    }
}

/// An upstream whose requests come in one piece each.
async fn answer_all(listener: TcpListener) {
    while let Ok((mut socket, _)) = listener.accept().await {
        spawn_local(async move {
            let mut request = [0; 4096];
            while let Ok(1..) = socket.read(&mut request).await {
                if socket.write_all(ANSWER).await.is_err() {
                    return;
                }
            }
        });
    }
}

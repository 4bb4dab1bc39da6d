//! An upstream of raw bytes, for what no honest server does.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex};

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

/// A listener whose connections each follow a script.
#[derive(Clone)]
pub(crate) struct Script {
    /// Where it listens.
    pub(crate) address: SocketAddr,
    heads: Arc<Mutex<Vec<String>>>,
    opened: Arc<Mutex<usize>>,
}

/// One connection of it.
pub(crate) struct Line {
    /// For what has no method here.
    pub(crate) stream: TcpStream,
    /// Counts connections from 0.
    pub(crate) number: usize,
    buffer: Vec<u8>,
    heads: Arc<Mutex<Vec<String>>>,
}

impl Script {
    /// Runs this for each connection.
    pub(crate) async fn start<F: Future<Output = ()> + Send + 'static>(
        play: impl Fn(Line) -> F + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let this = Self { address, heads: Arc::default(), opened: Arc::default() };
        let (script, play) = (this.clone(), Arc::new(play));
        tokio::spawn(async move {
            loop {
                let (stream, _) = listener.accept().await.unwrap();
                let number = {
                    let mut opened = script.opened.lock().unwrap();
                    *opened += 1;
                    *opened - 1
                };
                let heads = Arc::clone(&script.heads);
                let play = Arc::clone(&play);
                tokio::spawn(async move {
                    play(Line { stream, number, buffer: Vec::new(), heads }).await;
                });
            }
        });
        this
    }

    /// Reads the head of a request, sends these bytes, and then holds the connection open.
    pub(crate) async fn saying(bytes: &'static str) -> Self {
        Self::start(move |mut line| async move {
            line.head().await;
            line.send(bytes).await;
            line.hold().await;
        })
        .await
    }

    /// All heads of requests so far, byte for byte.
    pub(crate) fn heads(&self) -> Vec<String> {
        self.heads.lock().unwrap().clone()
    }

    /// How many connections there have been.
    pub(crate) fn connections(&self) -> usize {
        *self.opened.lock().unwrap()
    }
}

impl Line {
    /// Reads the head of a request; nothing where the other side has closed.
    pub(crate) async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = self.buffer.windows(4).position(|four| four == b"\r\n\r\n") {
                let head: Vec<u8> = self.buffer.drain(..end + 4).collect();
                let head = String::from_utf8_lossy(&head).into_owned();
                self.heads.lock().unwrap().push(head.clone());
                return Some(head);
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Reads until these bytes have come; what came, up to and with them.
    pub(crate) async fn until(&mut self, end: &[u8]) -> Option<Vec<u8>> {
        loop {
            if let Some(at) = self.buffer.windows(end.len()).position(|window| window == end) {
                return Some(self.buffer.drain(..at + end.len()).collect());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        // Whether anybody listens still is the matter of the test.
        let _ = self.stream.write_all(bytes.as_ref()).await;
    }

    /// Reads and forgets until the other side closes.
    pub(crate) async fn hold(&mut self) {
        while self.more().await {
            self.buffer.clear();
        }
    }

    async fn more(&mut self) -> bool {
        self.stream.read_buf(&mut self.buffer).await.is_ok_and(|count| count > 0)
    }
}

//! A service over HTTP/2 that a test writes, stream by stream; and a client of the same kind.

use std::future::poll_fn;
use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use h2::client::SendRequest;
use h2::server::{Builder, SendResponse};
use h2::{RecvStream, SendStream};
use http::request::Parts;
use http::{HeaderMap, HeaderValue, Response};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::task::spawn_local;

/// One service on a port of its own.
pub struct Http2 {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Parts>>>,
    connections: Arc<AtomicUsize>,
}

/// A request that is being answered.
pub struct Call {
    pub head: Parts,
    pub body: RecvStream,
    pub respond: SendResponse<Bytes>,
    /// Tells the client that its connection takes no more requests.
    pub goodbye: Rc<Notify>,
}

impl Http2 {
    /// Answers as the test says.
    pub fn with<F: Future<Output = ()> + 'static>(
        handler: impl Fn(Call) -> F + Send + Clone + 'static,
    ) -> Self {
        Self::set(|_| {}, handler)
    }

    /// The same with other settings.
    pub fn set<F: Future<Output = ()> + 'static>(
        settings: fn(&mut Builder),
        handler: impl Fn(Call) -> F + Send + Clone + 'static,
    ) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let address = listener.local_addr().expect("an address");
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (log, count) = (Arc::clone(&seen), Arc::clone(&connections));
        std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread()
                .enable_all()
                .build_local(tokio::runtime::LocalOptions::default())
                .expect("one");
            runtime.block_on(async move {
                let listener = TcpListener::from_std(listener).expect("a socket");
                while let Ok((socket, _)) = listener.accept().await {
                    count.fetch_add(1, Ordering::SeqCst);
                    spawn_local(serve(socket, settings, Arc::clone(&log), handler.clone()));
                }
            });
        });
        Self { address, seen, connections }
    }

    /// The heads of all requests so far.
    pub fn seen(&self) -> Vec<Parts> {
        self.seen.lock().expect("no panic").clone()
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

async fn serve<F: Future<Output = ()> + 'static>(
    socket: TcpStream,
    settings: fn(&mut Builder),
    log: Arc<Mutex<Vec<Parts>>>,
    handler: impl Fn(Call) -> F,
) {
    let mut builder = Builder::new();
    settings(&mut builder);
    let Ok(mut connection) = builder.handshake(socket).await else { return };
    let goodbye = Rc::new(Notify::new());
    loop {
        tokio::select! {
            () = goodbye.notified() => connection.graceful_shutdown(),
            next = connection.accept() => {
                let Some(Ok((request, respond))) = next else { return };
                let (head, body) = request.into_parts();
                log.lock().expect("no panic").push(head.clone());
                spawn_local(handler(Call { head, body, respond, goodbye: Rc::clone(&goodbye) }));
            }
        }
    }
}

impl Call {
    /// Sends the head of an answer, which is all of it where it `ends` so.
    pub fn head(
        &mut self,
        status: u16,
        fields: &[(&'static str, &'static str)],
        ends: bool,
    ) -> SendStream<Bytes> {
        let mut response = Response::new(());
        *response.status_mut() = status.try_into().expect("a status");
        for (name, value) in fields {
            response.headers_mut().append(*name, HeaderValue::from_static(value));
        }
        self.respond.send_response(response, ends).expect("an open stream")
    }

    /// Sends an answer with this body.
    pub fn reply(&mut self, status: u16, fields: &[(&'static str, &'static str)], body: impl Into<Bytes>) {
        send(&mut self.head(status, fields, false), body, true);
    }

    /// What is left of the body, and its trailers.
    pub async fn rest(&mut self) -> (Vec<u8>, HeaderMap) {
        let mut body = Vec::new();
        while let Some(Ok(data)) = self.body.data().await {
            self.body.flow_control().release_capacity(data.len()).expect("an open stream");
            body.extend_from_slice(&data);
        }
        (body, self.body.trailers().await.ok().flatten().unwrap_or_default())
    }

    /// With which code the client resets it before it is answered.
    pub async fn reset(&mut self) -> Option<h2::Reason> {
        poll_fn(|cx| self.respond.poll_reset(cx)).await.ok()
    }
}

/// With which code the client resets a stream whose answer has begun.
pub async fn reset(stream: &mut SendStream<Bytes>) -> Option<h2::Reason> {
    poll_fn(|cx| stream.poll_reset(cx)).await.ok()
}

/// Sends a piece, which waits for room by itself.
pub fn send(stream: &mut SendStream<Bytes>, data: impl Into<Bytes>, ends: bool) {
    // Where the client has left, nobody misses it.
    let _ = stream.send_data(data.into(), ends);
}

/// A connection to scopegate.
pub async fn connect(address: SocketAddr) -> SendRequest<Bytes> {
    let socket = TcpStream::connect(address).await.expect("a connection");
    let (sender, connection) = h2::client::handshake(socket).await.expect("HTTP/2");
    tokio::spawn(connection);
    sender.ready().await.expect("HTTP/2")
}

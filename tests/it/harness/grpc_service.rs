//! A service of gRPC: tonic's server, and behind it what a method's name says.

use std::convert::Infallible;
use std::future::{Future, pending};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use bytes::Bytes;
use futures_util::stream::{self, BoxStream, StreamExt as _};
use http::HeaderMap;
use hyper::body::Incoming;
use hyper::server::conn::http2;
use hyper::service::service_fn;
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::net::TcpListener;
use tonic::metadata::{KeyAndValueRef, MetadataMap};
use tonic::server::{Grpc, StreamingService};
use tonic::{Code, Request, Response, Status, Streaming};

use super::grpc::Plain;

/// A message of [`Service`]'s floods.
pub const PIECE: usize = 16 * 1024;

/// One service, on a port and a thread of its own.
pub struct Service {
    pub address: SocketAddr,
    shared: Shared,
}

/// What a test sees of it.
#[derive(Clone, Default)]
struct Shared {
    seen: Arc<Mutex<Vec<HeaderMap>>>,
    open: Arc<AtomicUsize>,
    flooded: Arc<AtomicUsize>,
}

impl Service {
    pub fn start() -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port");
        listener.set_nonblocking(true).expect("a socket");
        let (address, shared) = (listener.local_addr().expect("an address"), Shared::default());
        let serving = shared.clone();
        thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("one");
            runtime
                .block_on(async { serve(TcpListener::from_std(listener).expect("a socket"), serving).await });
        });
        Self { address, shared }
    }

    /// The fields of the calls that have come.
    pub fn seen(&self) -> Vec<HeaderMap> {
        self.shared.seen.lock().expect("no panic").clone()
    }

    /// Calls that it is at.
    pub fn open(&self) -> usize {
        self.shared.open.load(Ordering::SeqCst)
    }

    /// How many messages of a flood have gone from it.
    pub fn flooded(&self) -> usize {
        self.shared.flooded.load(Ordering::SeqCst)
    }
}

async fn serve(listener: TcpListener, shared: Shared) {
    while let Ok((stream, _)) = listener.accept().await {
        let shared = shared.clone();
        let service = service_fn(move |request: http::Request<Incoming>| {
            let shared = shared.clone();
            async move {
                shared.seen.lock().expect("no panic").push(request.headers().clone());
                let method = request.uri().path().rsplit('/').next().unwrap_or_default().to_owned();
                let method = Method { name: method, shared };
                Ok::<_, Infallible>(Grpc::new(Plain).streaming(method, request).await)
            }
        });
        let stream = TokioIo::new(stream);
        let mut builder = http2::Builder::new(TokioExecutor::new());
        // As in the client: many streams have room beside each other.
        builder.initial_stream_window_size(64 * 1024).initial_connection_window_size(8 << 20);
        tokio::spawn(builder.serve_connection(stream, service));
    }
}

/// A call, for as long as it lives.
struct Inside(Arc<AtomicUsize>);

impl Inside {
    fn enter(open: &Arc<AtomicUsize>) -> Self {
        open.fetch_add(1, Ordering::SeqCst);
        Self(Arc::clone(open))
    }
}

impl Drop for Inside {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::SeqCst);
    }
}

/// What answers a call.
struct Method {
    name: String,
    shared: Shared,
}

type Answers = BoxStream<'static, Result<Bytes, Status>>;

impl StreamingService<Bytes> for Method {
    type Response = Bytes;
    type ResponseStream = Answers;
    type Future = Pin<Box<dyn Future<Output = Result<Response<Answers>, Status>> + Send>>;

    fn call(&mut self, request: Request<Streaming<Bytes>>) -> Self::Future {
        let inside = Inside::enter(&self.shared.open);
        let (name, flooded) = (self.name.clone(), Arc::clone(&self.shared.flooded));
        Box::pin(async move {
            let (metadata, _, messages) = request.into_parts();
            let answers = answers(&name, messages, flooded).await?;
            let answers = answers.map(move |answer| {
                let _inside = &inside;
                answer
            });
            let mut response = Response::new(answers.boxed());
            *response.metadata_mut() = returned(&metadata);
            Ok(response)
        })
    }
}

/// Its answer, however many messages that has.
async fn answers(
    name: &str,
    mut messages: Streaming<Bytes>,
    flooded: Arc<AtomicUsize>,
) -> Result<Answers, Status> {
    Ok(match name {
        "Echo" => messages.boxed(),
        "Count" => {
            let mut count = 0;
            while messages.message().await?.is_some() {
                count += 1;
            }
            stream::iter([Ok(Bytes::from(count.to_string()))]).boxed()
        }
        // Begins its answer at once, and has nothing to say before the end.
        "Last" => stream::once(async move {
            let mut last = Bytes::new();
            while let Some(message) = messages.message().await? {
                last = message;
            }
            Ok(last)
        })
        .boxed(),
        "Many" => {
            let first = messages.message().await?.unwrap_or_default();
            let count: usize = String::from_utf8_lossy(&first).parse().expect("a number");
            stream::iter((0..count).map(|number| Ok(Bytes::from(number.to_string())))).boxed()
        }
        "Fail" => {
            let first = messages.message().await?.unwrap_or_default();
            let mut metadata = MetadataMap::new();
            metadata.insert("x-why", "it does".parse().expect("a value"));
            let details = Bytes::from_static(&[0, 1, 255]);
            let status = Status::with_details_and_metadata(Code::Aborted, "50 %, é", details, metadata);
            stream::iter([Ok(first), Err(status)]).boxed()
        }
        "Refuse" => return Err(Status::new(Code::NotFound, "no such thing")),
        "Silent" => pending().await,
        "Flood" => stream::repeat_with(move || {
            flooded.fetch_add(1, Ordering::SeqCst);
            Ok(Bytes::from_static(&[b'x'; PIECE]))
        })
        .boxed(),
        // Takes no message.
        "Deaf" => stream::iter([Ok(Bytes::from_static(b"go on"))])
            .chain(stream::pending())
            .inspect(move |_| {
                let _messages = &messages;
            })
            .boxed(),
        other => return Err(Status::new(Code::Unimplemented, other)),
    })
}

/// What a client sent as its own.
fn returned(metadata: &MetadataMap) -> MetadataMap {
    let mut own = MetadataMap::new();
    for field in metadata.iter() {
        match field {
            KeyAndValueRef::Ascii(name, value) if name.as_str().starts_with("x-my-") => {
                own.append(name.clone(), value.clone());
            }
            KeyAndValueRef::Binary(name, value) => {
                own.append_bin(name.clone(), value.clone());
            }
            KeyAndValueRef::Ascii(..) => {}
        }
    }
    own
}

//! A service that a test writes: it sees every byte of a request, and answers with whatever bytes it likes.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::thread;

use super::eventually;

/// One service on a port of its own.
pub struct Upstream {
    pub address: SocketAddr,
    seen: Arc<Mutex<Vec<Seen>>>,
    connections: Arc<AtomicUsize>,
}

/// A request as it arrived.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    pub method: String,
    pub target: String,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
}

/// A request that is being answered.
pub struct Exchange<'a> {
    pub request: Seen,
    pub stream: &'a mut BufReader<TcpStream>,
    log: Option<&'a Mutex<Vec<Seen>>>,
}

impl Upstream {
    /// Answers with `200` and a small body.
    pub fn start() -> Self {
        Self::with(|exchange| exchange.reply("200 OK", "Content-Type: text/plain\r\n", "hello"))
    }

    /// Answers as the test says; a handler that returns false has the connection closed.
    pub fn with(handler: impl Fn(&mut Exchange<'_>) -> bool + Send + Sync + 'static) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("an address");
        let (seen, connections) = (Arc::new(Mutex::new(Vec::new())), Arc::new(AtomicUsize::new(0)));
        let (log, count, handler) = (Arc::clone(&seen), Arc::clone(&connections), Arc::new(handler));
        thread::spawn(move || {
            for stream in listener.incoming().map_while(Result::ok) {
                count.fetch_add(1, Ordering::SeqCst);
                let (log, handler) = (Arc::clone(&log), Arc::clone(&handler));
                thread::spawn(move || serve(stream, &log, &*handler));
            }
        });
        Self { address, seen, connections }
    }

    /// What has arrived and been answered so far.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().expect("no panic").clone()
    }

    /// The next request, once there have been this many.
    pub fn nth(&self, number: usize) -> Seen {
        eventually("a request at the upstream", || self.seen().get(number).cloned())
    }

    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::SeqCst)
    }
}

fn serve(stream: TcpStream, log: &Mutex<Vec<Seen>>, handler: &dyn Fn(&mut Exchange<'_>) -> bool) {
    stream.set_nodelay(true).expect("an option");
    let mut stream = BufReader::new(stream);
    while let Some(request) = Seen::head(&mut stream) {
        let mut exchange = Exchange { request, stream: &mut stream, log: Some(log) };
        let goes_on = handler(&mut exchange);
        exchange.note();
        if !goes_on {
            return;
        }
    }
}

impl Exchange<'_> {
    /// Sends bytes. What has been read of the request so far is what is noted of it: a client that has its answer
    /// can be sure that its request is there.
    pub fn write(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.note();
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// Sends bytes and hangs up.
    pub fn last(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.write(bytes);
        false
    }

    fn note(&mut self) {
        if let Some(log) = self.log.take() {
            log.lock().expect("no panic").push(self.request.clone());
        }
    }

    /// Reads the body and sends an answer with this one.
    pub fn reply(&mut self, status: &str, headers: &str, body: &str) -> bool {
        self.read_body();
        let length = body.len();
        self.write(format!("HTTP/1.1 {status}\r\n{headers}Content-Length: {length}\r\n\r\n{body}"))
    }

    /// Reads what is left of the body into the request.
    pub fn read_body(&mut self) {
        if self.request.header("transfer-encoding").is_some() {
            while let Some(chunk) = self.chunk() {
                self.request.body.extend(chunk);
            }
            self.request.trailers = fields(self.stream);
        } else if let Some(length) = self.request.header("content-length") {
            let length: u64 = length.parse().expect("a length");
            let _ = self.stream.by_ref().take(length).read_to_end(&mut self.request.body);
        }
    }

    /// One chunk of a chunked body; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&line(self.stream), 16).ok().filter(|length| *length > 0)?;
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).ok()?;
        line(self.stream);
        Some(chunk)
    }
}

impl Seen {
    fn head(stream: &mut BufReader<TcpStream>) -> Option<Self> {
        let first = line(stream);
        let mut words = first.split(' ');
        let (method, target) = (words.next()?.to_owned(), words.next()?.to_owned());
        Some(Self { method, target, headers: fields(stream), ..Self::default() })
    }

    /// The value of a header that stands once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values = self.headers.iter().filter(|(known, _)| known.eq_ignore_ascii_case(name));
        let first = values.next().map(|(_, value)| value.as_str());
        assert!(values.next().is_none(), "{name} stands twice in {:?}", self.headers);
        first
    }
}

fn line(stream: &mut BufReader<TcpStream>) -> String {
    let mut line = Vec::new();
    let _ = stream.read_until(b'\n', &mut line);
    String::from_utf8_lossy(&line).trim_end().to_owned()
}

fn fields(stream: &mut BufReader<TcpStream>) -> Vec<(String, String)> {
    let mut fields = Vec::new();
    loop {
        let line = line(stream);
        let Some((name, value)) = line.split_once(':') else { return fields };
        fields.push((name.to_owned(), value.trim().to_owned()));
    }
}

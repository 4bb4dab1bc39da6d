//! A client that writes and reads HTTP/1.1 byte by byte.

use std::net::SocketAddr;
use std::time::Duration;

use serde_json::Value;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::soon;

/// One connection.
pub(crate) struct Raw {
    /// For what has no method here.
    pub(crate) stream: TcpStream,
    buffer: Vec<u8>,
}

/// One answer.
#[derive(Debug, Clone)]
pub(crate) struct Reply {
    /// Of the status line.
    pub(crate) status: u16,
    /// In the order in which they came; names in lower case.
    pub(crate) headers: Vec<(String, String)>,
    /// Without its framing.
    pub(crate) body: Vec<u8>,
    /// Behind a chunked body.
    pub(crate) trailers: Vec<(String, String)>,
}

/// One request over a connection of its own.
pub(crate) async fn ask(
    address: SocketAddr,
    method: &str,
    target: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Reply {
    let mut raw = Raw::connect(address).await;
    raw.send_request(method, target, headers, body).await;
    raw.reply_to(method).await
}

impl Raw {
    /// A new connection.
    pub(crate) async fn connect(address: SocketAddr) -> Self {
        let stream = soon("a connection", TcpStream::connect(address)).await.unwrap();
        stream.set_nodelay(true).unwrap();
        Self { stream, buffer: Vec::new() }
    }

    /// Sends these bytes.
    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        soon("bytes to be taken", self.stream.write_all(bytes.as_ref())).await.unwrap();
    }

    /// Sends a whole request; a body brings its `Content-Length`.
    pub(crate) async fn send_request(
        &mut self,
        method: &str,
        target: &str,
        headers: &[(&str, &str)],
        body: &[u8],
    ) {
        let mut text = format!("{method} {target} HTTP/1.1\r\n");
        if !headers.iter().any(|(name, _)| name.eq_ignore_ascii_case("host")) {
            text.push_str("Host: api.example\r\n");
        }
        for (name, value) in headers {
            text.push_str(&format!("{name}: {value}\r\n"));
        }
        if !body.is_empty() {
            text.push_str(&format!("Content-Length: {}\r\n", body.len()));
        }
        text.push_str("\r\n");
        self.send([text.as_bytes(), body].concat()).await;
    }

    /// One chunk of a chunked body; an empty one is not sent.
    pub(crate) async fn send_chunk(&mut self, bytes: &[u8]) {
        self.send([format!("{:x}\r\n", bytes.len()).as_bytes(), bytes, b"\r\n"].concat()).await;
    }

    /// The answer to anything but HEAD.
    pub(crate) async fn reply(&mut self) -> Reply {
        self.reply_to("GET").await
    }

    /// The whole answer to a request with this method.
    pub(crate) async fn reply_to(&mut self, method: &str) -> Reply {
        let mut reply = self.head().await;
        let empty = method == "HEAD" || matches!(reply.status, 100..=199 | 204 | 304);
        if empty {
            return reply;
        }
        if reply.header("transfer-encoding").is_some_and(|value| value.contains("chunked")) {
            while let Some(chunk) = self.chunk().await {
                reply.body.extend(chunk);
            }
            reply.trailers = self.fields().await;
        } else if let Some(length) = reply.header("content-length") {
            reply.body = self.exactly(length.parse().unwrap()).await;
        } else {
            reply.body = self.rest().await;
        }
        reply
    }

    /// The head of an answer.
    pub(crate) async fn head(&mut self) -> Reply {
        let line = self.line().await;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.unwrap_or_else(|| panic!("no status line: {line:?}"));
        let headers = self.fields().await;
        Reply { status, headers, body: Vec::new(), trailers: Vec::new() }
    }

    /// The next chunk of a chunked body; nothing is its end.
    pub(crate) async fn chunk(&mut self) -> Option<Vec<u8>> {
        let line = self.line().await;
        let length = usize::from_str_radix(&line, 16).unwrap_or_else(|_| panic!("no chunk: {line:?}"));
        if length == 0 {
            return None;
        }
        let chunk = self.exactly(length).await;
        assert_eq!(self.line().await, "");
        Some(chunk)
    }

    /// That many bytes.
    pub(crate) async fn exactly(&mut self, length: usize) -> Vec<u8> {
        while self.buffer.len() < length {
            assert!(self.more().await, "cut in the middle of a body: {:?}", self.shown());
        }
        self.buffer.drain(..length).collect()
    }

    /// Everything until the other side closes or breaks off.
    pub(crate) async fn rest(&mut self) -> Vec<u8> {
        while self.more().await {}
        std::mem::take(&mut self.buffer)
    }

    /// Whether the other side has closed, with nothing said before.
    pub(crate) async fn is_closed(&mut self) -> bool {
        self.buffer.is_empty() && !self.more().await
    }

    /// Whether nothing comes for this long.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        self.buffer.is_empty() && timeout(time, self.more()).await.is_err()
    }

    async fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line().await;
            if line.is_empty() {
                return fields;
            }
            let (name, value) = line.split_once(':').unwrap_or_else(|| panic!("no field: {line:?}"));
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    async fn line(&mut self) -> String {
        loop {
            if let Some(end) = self.buffer.windows(2).position(|two| two == b"\r\n") {
                let line: Vec<u8> = self.buffer.drain(..end + 2).collect();
                return String::from_utf8_lossy(&line[..end]).into_owned();
            }
            assert!(self.more().await, "cut in the middle of a head: {:?}", self.shown());
        }
    }

    /// False at the end, however it came.
    async fn more(&mut self) -> bool {
        let read = soon("bytes", self.stream.read_buf(&mut self.buffer)).await;
        read.is_ok_and(|count| count > 0)
    }

    fn shown(&self) -> String {
        String::from_utf8_lossy(&self.buffer).into_owned()
    }
}

impl Reply {
    /// The first field of this name.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// All fields of this name.
    pub(crate) fn all(&self, name: &str) -> Vec<&str> {
        self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| &**value).collect()
    }

    /// The body as text.
    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    /// The body as JSON.
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|_| panic!("no JSON: {self:?}"))
    }

    /// Why scopegate answered itself; nothing where the upstream answered.
    pub(crate) fn reason(&self) -> &str {
        self.header("scopegate-reason").unwrap_or("")
    }
}

//! A client that sends exactly the bytes that a test wants.

use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{Shutdown, SocketAddr, TcpStream};

use serde_json::Value;
use socket2::{Domain, Socket, Type};

use super::PATIENCE;

/// One connection.
pub struct Client {
    pub stream: BufReader<TcpStream>,
}

/// One answer.
#[derive(Debug, Clone)]
pub struct Answer {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    pub trailers: Vec<(String, String)>,
    /// The body ended as its head had announced.
    pub whole: bool,
}

impl Client {
    pub fn connect(address: SocketAddr) -> Self {
        let stream = TcpStream::connect(address).expect("a connection");
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_nodelay(true).expect("an option");
        Self { stream: BufReader::new(stream) }
    }

    /// From another address of this machine.
    pub fn connect_from(from: &str, to: SocketAddr) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        let from = SocketAddr::new(from.parse().expect("an address"), 0);
        socket.bind(&from.into()).expect("an address of this machine");
        socket.connect(&to.into()).expect("a connection");
        let stream = TcpStream::from(socket);
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream: BufReader::new(stream) }
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream.get_mut().write_all(bytes.as_ref()).expect("an open connection");
    }

    /// Says that nothing more will come.
    pub fn finish(&self) {
        self.stream.get_ref().shutdown(Shutdown::Write).expect("an open connection");
    }

    /// A line without its end; empty where the other side has ended.
    pub fn line(&mut self) -> String {
        let mut line = String::new();
        self.stream.read_line(&mut line).expect("a line");
        line.trim_end().to_owned()
    }

    /// The head of an answer; status 0 where the other side has ended.
    pub fn head(&mut self) -> (u16, Vec<(String, String)>) {
        let status = self.line().split(' ').nth(1).map_or(0, |status| status.parse().expect("a status"));
        (status, if status == 0 { Vec::new() } else { self.fields() })
    }

    fn fields(&mut self) -> Vec<(String, String)> {
        let mut fields = Vec::new();
        loop {
            let line = self.line();
            let Some((name, value)) = line.split_once(':') else { return fields };
            fields.push((name.to_ascii_lowercase(), value.trim().to_owned()));
        }
    }

    /// A chunk of a chunked body; `None` at its end.
    pub fn chunk(&mut self) -> Option<Vec<u8>> {
        let length = usize::from_str_radix(&self.line(), 16).expect("the length of a chunk");
        let mut chunk = vec![0; length];
        self.stream.read_exact(&mut chunk).expect("a chunk");
        if length > 0 {
            self.line();
        }
        (length > 0).then_some(chunk)
    }

    /// The next answer that is not an interim one; `bodyless` where it is to a HEAD.
    pub fn answer(&mut self, bodyless: bool) -> Answer {
        let (status, headers) = self.head();
        let mut answer = Answer { status, headers, body: Vec::new(), trailers: Vec::new(), whole: true };
        if bodyless || [0, 101, 204, 304].contains(&status) {
            return answer;
        }
        if answer.header("transfer-encoding").is_some() {
            loop {
                let line = self.line();
                if line.is_empty() {
                    answer.whole = false;
                    return answer;
                }
                let length = usize::from_str_radix(&line, 16).expect("the length of a chunk");
                if length == 0 {
                    answer.trailers = self.fields();
                    return answer;
                }
                let start = answer.body.len();
                answer.body.resize(start + length, 0);
                if self.stream.read_exact(&mut answer.body[start..]).is_err() {
                    answer.whole = false;
                    return answer;
                }
                self.line();
            }
        }
        match answer.header("content-length") {
            Some(length) => {
                let length: u64 = length.parse().expect("a length");
                let read = self.stream.by_ref().take(length).read_to_end(&mut answer.body);
                answer.whole = read.is_ok_and(|read| read as u64 == length);
            }
            None => answer.whole = self.stream.read_to_end(&mut answer.body).is_ok(),
        }
        answer
    }

    /// Sends a whole request and reads its answer.
    pub fn ask(&mut self, request: impl AsRef<[u8]>) -> Answer {
        self.send(&request);
        self.answer(request.as_ref().starts_with(b"HEAD "))
    }

    /// What was said on a channel before it was closed with this code, which is answered as a browser does.
    pub fn closed(&mut self, code: u16) -> String {
        let mut said = Vec::new();
        let close = [&[0x88, 2][..], &code.to_be_bytes()].concat();
        while !said.ends_with(&close) {
            let mut byte = [0];
            self.stream.read_exact(&mut byte).expect("a close with this code");
            said.push(byte[0]);
        }
        self.send([&[0x88, 0x82, 0, 0, 0, 0][..], &code.to_be_bytes()].concat());
        String::from_utf8_lossy(&said).into_owned()
    }

    /// True once the other side has ended.
    pub fn is_closed(&mut self) -> bool {
        match self.stream.read(&mut [0]) {
            Ok(count) => count == 0,
            // Patience has ended, and the connection has not.
            Err(error) => error.kind() != std::io::ErrorKind::WouldBlock,
        }
    }
}

impl Answer {
    /// The value of a header that stands once.
    pub fn header(&self, name: &str) -> Option<&str> {
        let mut values =
            self.headers.iter().filter(|(known, _)| known == name).map(|(_, value)| value.as_str());
        let first = values.next();
        assert!(values.next().is_none(), "{name} stands twice in {:?}", self.headers);
        first
    }

    /// Why scopegate refused; empty where it did not.
    pub fn reason(&self) -> &str {
        self.header("scopegate-reason").unwrap_or_default()
    }

    pub fn text(&self) -> String {
        String::from_utf8_lossy(&self.body).into_owned()
    }

    pub fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_else(|error| panic!("{error}: {}", self.text()))
    }
}

/// A request's bytes; `headers` are whole lines.
pub fn request(method: &str, target: &str, headers: &str, body: &str) -> String {
    let length = if body.is_empty() { String::new() } else { format!("Content-Length: {}\r\n", body.len()) };
    format!("{method} {target} HTTP/1.1\r\nHost: telapi.example\r\n{headers}{length}\r\n{body}")
}

/// One request on a connection of its own.
pub fn ask(address: SocketAddr, method: &str, target: &str, headers: &str, body: &str) -> Answer {
    Client::connect(address).ask(request(method, target, headers, body))
}

/// One GET on a connection of its own.
pub fn get(address: SocketAddr, target: &str, headers: &str) -> Answer {
    ask(address, "GET", target, headers, "")
}

//! A client of HTTP/2 that writes every frame by hand (RFC 9113, 4 and 6), and field blocks without any compression
//! (RFC 7541, 6.2.2).

use std::collections::HashMap;
use std::io::{BufRead as _, BufReader, Read as _, Write as _};
use std::net::{SocketAddr, TcpStream};
use std::time::Duration;

use socket2::{Domain, Socket, Type};

use super::PATIENCE;

pub const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RESET: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PUSH: u8 = 5;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const END_STREAM: u8 = 1;
pub const END_HEADERS: u8 = 4;

/// One connection.
pub struct Frames {
    stream: BufReader<TcpStream>,
    /// Answers that have begun.
    begun: HashMap<u32, (u16, Vec<u8>)>,
    /// What became of streams that nobody has asked for yet.
    ended: HashMap<u32, Told>,
}

/// What becomes of a stream.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Told {
    /// A whole answer: its status and its body.
    Answer(u16, String),
    /// It was reset, with this code.
    Reset(u32),
    /// The connection ends, with this code.
    Goaway(u32),
    /// The connection has ended.
    End,
}

/// One frame.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len()).expect("a short payload").to_be_bytes();
    [&length[1..], &[kind, flags], &stream.to_be_bytes(), payload].concat()
}

/// A number behind seven bits (RFC 7541, 5.1).
fn number(mut value: usize) -> Vec<u8> {
    if value < 0x7f {
        return vec![value as u8];
    }
    value -= 0x7f;
    let mut bytes = vec![0x7f];
    while value >= 0x80 {
        bytes.push(value as u8 | 0x80);
        value >>= 7;
    }
    bytes.push(value as u8);
    bytes
}

/// Fields as they are, none of them remembered.
pub fn block<N: AsRef<[u8]>, V: AsRef<[u8]>>(fields: &[(N, V)]) -> Vec<u8> {
    let mut block = Vec::new();
    for (name, value) in fields {
        block.push(0);
        for text in [name.as_ref(), value.as_ref()] {
            block.extend(number(text.len()));
            block.extend_from_slice(text);
        }
    }
    block
}

/// A request without a body.
pub fn get<N: AsRef<[u8]>, V: AsRef<[u8]>>(stream: u32, fields: &[(N, V)]) -> Vec<u8> {
    frame(HEADERS, END_HEADERS | END_STREAM, stream, &block(fields))
}

/// Opens a WebSocket (RFC 8441, 4), with these fields more.
pub fn connect(stream: u32, path: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let asked = [
        (":method", "CONNECT"),
        (":protocol", "websocket"),
        (":scheme", "http"),
        (":authority", "telapi.example"),
        (":path", path),
        ("sec-websocket-version", "13"),
    ];
    frame(HEADERS, END_HEADERS, stream, &block(&[&asked, more].concat()))
}

impl Frames {
    /// A connection on which nothing has been said.
    pub fn silent(address: SocketAddr) -> Self {
        Self::over(TcpStream::connect(address).expect("a connection"))
    }

    fn over(stream: TcpStream) -> Self {
        stream.set_read_timeout(Some(PATIENCE)).expect("a timeout");
        stream.set_write_timeout(Some(PATIENCE)).expect("a timeout");
        Self { stream: BufReader::new(stream), begun: HashMap::new(), ended: HashMap::new() }
    }

    /// A connection with the preface and settings of the client.
    pub fn connect(address: SocketAddr, settings: &[u8]) -> Self {
        Self::silent(address).begin(settings)
    }

    /// The same, of a client whose system holds little for it.
    pub fn small(address: SocketAddr, settings: &[u8]) -> Self {
        let socket = Socket::new(Domain::IPV4, Type::STREAM, None).expect("a socket");
        socket.set_recv_buffer_size(4096).expect("an option");
        socket.connect(&address.into()).expect("a connection");
        Self::over(socket.into()).begin(settings)
    }

    fn begin(mut self, settings: &[u8]) -> Self {
        self.send([PREFACE, &frame(SETTINGS, 0, 0, settings)].concat());
        self
    }

    pub fn send(&mut self, bytes: impl AsRef<[u8]>) {
        assert!(self.try_send(bytes), "the connection has ended");
    }

    /// Sends what may be more than the other side wants; says whether it took all.
    pub fn try_send(&mut self, bytes: impl AsRef<[u8]>) -> bool {
        self.stream.get_mut().write_all(bytes.as_ref()).is_ok()
    }

    /// The next frame: its kind, flags, stream and payload; `None` where the connection has ended.
    pub fn next(&mut self) -> Option<(u8, u8, u32, Vec<u8>)> {
        let mut head = [0; 9];
        match self.stream.read_exact(&mut head) {
            Ok(()) => {}
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                panic!("waited in vain for a frame")
            }
            Err(_) => return None,
        }
        let [a, b, c, kind, flags, stream @ ..] = head;
        let mut payload = vec![0; u32::from_be_bytes([0, a, b, c]) as usize];
        self.stream.read_exact(&mut payload).ok()?;
        Some((kind, flags, u32::from_be_bytes(stream), payload))
    }

    /// What becomes of a stream.
    pub fn told(&mut self, stream: u32) -> Told {
        loop {
            if let Some(told) = self.ended.remove(&stream) {
                return told;
            }
            let Some((kind, flags, of, payload)) = self.next() else { return Told::End };
            match kind {
                HEADERS | DATA => self.answer(kind, flags, of, payload),
                RESET => {
                    self.ended.insert(of, Told::Reset(word(&payload, 0)));
                }
                GOAWAY => return Told::Goaway(word(&payload, 4)),
                _ => {}
            }
        }
    }

    /// What becomes of some stream.
    pub fn any(&mut self) -> Told {
        loop {
            if let Some(stream) = self.ended.keys().next().copied() {
                self.begun.remove(&stream);
                return self.told(stream);
            }
            let Some((kind, flags, of, payload)) = self.next() else { return Told::End };
            match kind {
                HEADERS | DATA => self.answer(kind, flags, of, payload),
                RESET | GOAWAY => return Told::Reset(word(&payload, 0)),
                _ => {}
            }
        }
    }

    /// The status of an answer as soon as it has begun.
    pub fn begins(&mut self, stream: u32) -> u16 {
        loop {
            if let Some((status, _)) = self.begun.get(&stream) {
                return *status;
            }
            let (kind, flags, of, payload) = self.next().expect("an open connection");
            if matches!(kind, HEADERS | DATA) {
                self.answer(kind, flags, of, payload);
            }
        }
    }

    /// So many bytes of an answer that goes on.
    pub fn body(&mut self, stream: u32, length: usize) -> Vec<u8> {
        loop {
            if let Some((_, body)) = self.begun.get_mut(&stream)
                && body.len() >= length
            {
                return body.drain(..length).collect();
            }
            let (kind, flags, of, payload) = self.next().expect("an open connection");
            assert!(kind != RESET || of != stream, "the stream is reset");
            if matches!(kind, HEADERS | DATA) {
                self.answer(kind, flags, of, payload);
            }
        }
    }

    /// How much more may be sent on a stream than before; `None` where nothing comes for a second.
    pub fn grows(&mut self, stream: u32) -> Option<usize> {
        self.stream.get_ref().set_read_timeout(Some(Duration::from_secs(1))).expect("a timeout");
        let mut grown = None;
        while grown.is_none() && self.stream.fill_buf().is_ok_and(|bytes| !bytes.is_empty()) {
            let (kind, _, of, payload) = self.next()?;
            grown = (kind == WINDOW && of == stream).then(|| word(&payload, 0) as usize);
        }
        self.stream.get_ref().set_read_timeout(Some(PATIENCE)).expect("a timeout");
        grown
    }

    fn answer(&mut self, kind: u8, flags: u8, stream: u32, payload: Vec<u8>) {
        let (code, body) = self.begun.entry(stream).or_default();
        if kind == DATA {
            body.extend(payload);
        } else if *code == 0 {
            // Trailers have no status.
            *code = status(&payload);
        }
        if flags & END_STREAM != 0 {
            let answer = Told::Answer(*code, String::from_utf8_lossy(body).into_owned());
            self.ended.insert(stream, answer);
        }
    }
}

fn word(payload: &[u8], at: usize) -> u32 {
    u32::from_be_bytes(payload[at..at + 4].try_into().expect("four bytes"))
}

/// The status at the beginning of a field block: one of the static table, or three digits in Huffman's code
/// (RFC 7541, A and B).
fn status(block: &[u8]) -> u16 {
    const KNOWN: [u16; 7] = [200, 204, 206, 304, 400, 404, 500];
    // A client that wants nothing remembered is told that nothing is (RFC 7541, 6.3).
    match block.strip_prefix(&[0x20]).unwrap_or(block) {
        [first @ 0x88..=0x8e, ..] => KNOWN[usize::from(first - 0x88)],
        [0x08 | 0x18 | 0x48, length, text @ ..] if length & 0x80 != 0 => {
            let length = usize::from(length & 0x7f).min(3);
            let bits = text[..length].iter().fold(0, |bits: u32, byte| bits << 8 | u32::from(*byte));
            let bits = bits << (8 * (4 - length));
            let digit = |(value, at): (u16, u32)| {
                let five = bits << at >> 27;
                if five < 3 {
                    (value * 10 + five as u16, at + 5)
                } else {
                    let six = bits << at >> 26;
                    assert!((0x19..=0x1f).contains(&six), "no digit: {block:x?}");
                    (value * 10 + six as u16 - 0x19 + 3, at + 6)
                }
            };
            digit(digit(digit((0, 0)))).0
        }
        _ => panic!("no status: {block:x?}"),
    }
}

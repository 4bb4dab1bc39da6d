//! What can live on a key: requests, streams and channels that do not end by themselves.

use std::io::{Read as _, Write as _};

use super::bearer;
use super::client::{Answer, Client, request};
use super::frames::{self, Frames, Told};
use super::scopegate::Scopegate;
use super::upstream::Exchange;

/// Takes the place of `surfaces:`.
pub const CALLS: &str =
    "surfaces:\n  calls: { access: key, upgrade: websocket, routes: { GET /ws/calls: READ_TEAM_APPS } }";
pub const HANDSHAKE: &str = "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n\
                         Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n";
const SWITCH: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                      Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n\r\n";

/// Answers that do not end by themselves.
pub fn endless(exchange: &mut Exchange<'_>) -> bool {
    let target = exchange.request.target.clone();
    match target.rsplit('/').next() {
        Some("calls") => exchange.write(SWITCH),
        Some("stream") => {
            exchange.write("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n")
        }
        Some("flood") => {
            exchange.write(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", 1_u64 << 40));
            while exchange.stream.get_mut().write_all(&[b'x'; 16_384]).is_ok() {}
            return false;
        }
        Some("wait") => exchange.write(""),
        _ => return exchange.reply("200 OK", "", "hello"),
    };
    let _ = exchange.stream.read(&mut [0; 64]);
    false
}

/// All that can live on a key.
pub struct Lives {
    channel: Client,
    stream: Client,
    wait: Client,
    flood: Client,
    frames: Frames,
}

/// True where nothing comes any more, the end of a body least of all.
pub fn is_cut(client: &mut Client) -> bool {
    let mut rest = Vec::new();
    let _ = client.stream.read_to_end(&mut rest);
    rest.is_empty()
}

const STREAM: u32 = 1;
const WAIT: u32 = 3;
const FLOOD: u32 = 5;
pub const COUNT: f64 = 7.0;

/// How many are inside.
pub fn inside(scopegate: &Scopegate) -> f64 {
    scopegate.metric("scopegate_requests_in_flight") + scopegate.metric("scopegate_tunnels")
}

impl Lives {
    pub fn begin(scopegate: &Scopegate, key: &str) -> Self {
        let ask = |target: &str, headers: &str| {
            let mut client = Client::connect(scopegate.address);
            client.send(request("GET", target, &(bearer(key) + headers), ""));
            client
        };
        let mut channel = ask("/ws/calls", HANDSHAKE);
        assert_eq!(channel.head().0, 101);
        let mut stream = ask("/api/v1/apps/stream", "");
        assert_eq!(stream.head().0, 200);
        assert_eq!(stream.chunk().as_deref(), Some(&b"hello"[..]));
        let (wait, mut flood) = (ask("/api/v1/apps/wait", ""), ask("/api/v1/apps/flood", ""));
        assert_eq!(flood.head().0, 200);
        let mut frames = Frames::connect(scopegate.address, &[]);
        // Room for what other streams are told, beside the one that nobody takes.
        frames.send(frames::frame(frames::WINDOW, 0, 0, &[0, 1, 0, 0]));
        for (stream, path) in [(STREAM, "stream"), (WAIT, "wait"), (FLOOD, "flood")] {
            let path = format!("/api/v1/apps/{path}");
            let fields = [
                (":method", "GET"),
                (":scheme", "http"),
                (":authority", "a.example"),
                (":path", &path),
                ("x-api-key", key),
            ];
            frames.send(frames::get(stream, &fields));
        }
        assert_eq!([frames.begins(STREAM), frames.begins(FLOOD)], [200, 200]);
        Self { channel, stream, wait, flood, frames }
    }

    /// Each has heard that its key is dead, in its own way.
    pub fn ended(self) {
        let challenge = self.told(4001, 401, "key_revoked").header("www-authenticate").map(str::to_owned);
        assert!(challenge.expect("a challenge").contains("invalid_token"));
    }

    /// Each has heard this in its own way.
    pub fn told(mut self, code: u16, status: u16, reason: &str) -> Answer {
        let text = self.channel.closed(code);
        assert!(text.contains(&format!("\"code\":\"{reason}\"")), "{text}");
        assert!(is_cut(&mut self.stream), "no clean end");
        let answer = self.wait.answer(false);
        assert_eq!((answer.status, answer.reason()), (status, reason), "{answer:?}");
        let flooded = std::io::copy(&mut self.flood.stream, &mut std::io::sink());
        assert!(flooded.is_err() || flooded.is_ok_and(|count| count < 1 << 40), "no clean end");
        assert!(matches!(self.frames.told(STREAM), Told::Reset(_)));
        assert!(matches!(self.frames.told(FLOOD), Told::Reset(_)));
        let Told::Answer(told, body) = self.frames.told(WAIT) else { panic!("an answer") };
        assert_eq!(told, status, "{body}");
        assert!(body.contains(reason), "{body}");
        answer
    }
}

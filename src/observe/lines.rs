//! The access log: one JSON line a request on standard output.
//!
//! A worker writes lines into a buffer of its own and hands it on in batches, so that a request costs no
//! system call. A reader that does not keep up costs lines, counted, and never a request its time.

use std::cell::{Cell, RefCell};
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use prometheus::IntCounter;

use super::metrics::RouteMeters;
use super::record::Record;
use crate::identity::key::CERTIFICATE;

/// A batch goes on when it has this many bytes: of one of 64 KiB, a quarter of the cost was to wake who writes it.
const BATCH: usize = 256 * 1024;
/// What a line takes, seldom more.
const ROOM: usize = 1024;
/// Batches that wait for the reader; past this, lines are dropped: 8 MiB at the most.
const WAITING: usize = 32;

/// The access log of one worker.
#[derive(Debug)]
pub struct Lines {
    out: Option<SyncSender<Vec<u8>>>,
    batch: RefCell<Batch>,
    ending: Cell<bool>,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
    second: Second,
}

/// The second that was written last, as text: most lines of a busy worker share it.
#[derive(Debug, Default)]
struct Second {
    since_epoch: u64,
    text: String,
}

/// The thread that writes batches out; ends when every [`Lines`] has been dropped.
pub fn writer(
    mut to: impl Write + Send + 'static,
) -> io::Result<(SyncSender<Vec<u8>>, std::thread::JoinHandle<()>)> {
    let (sender, batches): (_, Receiver<Vec<u8>>) = sync_channel(WAITING);
    let thread = std::thread::Builder::new().name("access-log".into()).spawn(move || {
        for batch in batches {
            // Standard output that is gone for good is no reason to stop serving.
            let _ = to.write_all(&batch).and_then(|()| to.flush());
        }
    })?;
    Ok((sender, thread))
}

impl Lines {
    /// `None` writes nothing.
    #[must_use]
    pub fn new(out: Option<SyncSender<Vec<u8>>>, dropped: IntCounter) -> Self {
        Self { out, batch: RefCell::default(), ending: Cell::new(false), dropped }
    }

    /// Adds the line of a request that has ended.
    pub fn write(&self, record: &Record, route: &RouteMeters) {
        if self.out.is_none() {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        let Batch { bytes, second, .. } = &mut *batch;
        line(bytes, second, record, &route.line);
        batch.lines += 1;
        if batch.bytes.len() >= BATCH {
            self.hand_on(&mut batch);
        }
    }

    /// From now on, what ends is cut because the worker ends.
    pub fn end(&self) {
        self.ending.set(true);
    }

    /// Whether the worker has cut what was left.
    #[must_use]
    pub fn is_ending(&self) -> bool {
        self.ending.get()
    }

    /// Hands on what has gathered. Called by the worker's tick.
    pub fn flush(&self) {
        let mut batch = self.batch.borrow_mut();
        if !batch.bytes.is_empty() {
            self.hand_on(&mut batch);
        }
    }

    fn hand_on(&self, batch: &mut Batch) {
        let Some(out) = &self.out else { return };
        // The next will be as long: a worker is as busy as it was.
        let next = Vec::with_capacity(batch.bytes.len() + ROOM);
        let (bytes, lines) = (std::mem::replace(&mut batch.bytes, next), std::mem::take(&mut batch.lines));
        if out.try_send(bytes).is_err() {
            self.dropped.inc_by(lines);
        }
    }
}

impl Drop for Lines {
    /// The last requests of a worker are told too.
    fn drop(&mut self) {
        self.flush();
    }
}

/// The surface and the route of a line, made once.
#[must_use]
pub fn place(surface: &str, route: &str) -> Vec<u8> {
    let mut out = Vec::new();
    text(&mut out, b"\",\"surface\":\"", surface);
    text(&mut out, b"\",\"route\":\"", route);
    out
}

fn line(out: &mut Vec<u8>, second: &mut Second, record: &Record, place: &[u8]) {
    out.reserve(ROOM);
    out.extend_from_slice(b"{\"time\":\"");
    second.write(out, record.at);
    plain(out, b"\",\"id\":\"", record.id.as_bytes());
    plain(out, b"\",\"peer\":\"", record.peer.as_bytes());
    if let Some(client) = record.client {
        // Writing to memory cannot fail.
        let _ = write!(out, "\",\"client\":\"{client}");
    }
    if let Some((method, known)) = &record.asked {
        plain(out, b"\",\"method\":\"", method.as_str().as_bytes());
        plain(out, b"\",\"version\":\"", version(*known).as_bytes());
    }
    out.extend_from_slice(place);
    if let Some(path) = record.path.as_str() {
        text(out, b"\",\"path\":\"", path);
    }
    if let Some(caller) = &record.caller {
        text(out, b"\",\"team\":\"", caller.team());
        text(out, b"\",\"key\":\"", caller.key_id());
    }
    if let Some(name) = record.certificate.as_deref().and_then(|name| name.strip_prefix(CERTIFICATE)) {
        text(out, b"\",\"certificate\":\"", name);
    }
    plain(out, b"\",\"reason\":\"", record.end().code().as_bytes());
    if let Some(detail) = &record.detail {
        text(out, b"\",\"detail\":\"", detail);
    }
    if let Some(layer) = record.layer {
        plain(out, b"\",\"layer\":\"", layer.as_bytes());
    }
    out.push(b'"');
    if record.caller.as_ref().is_some_and(|caller| caller.previous.is_some()) {
        out.extend_from_slice(b",\"previous\":true");
    }
    number(out, b",\"status\":", record.status.into());
    number(out, b",\"received\":", record.received);
    number(out, b",\"sent\":", record.sent);
    number(out, b",\"decided_us\":", micros(record.decided));
    if let Some(upstream) = record.upstream {
        number(out, b",\"upstream_us\":", micros(upstream));
    }
    number(out, b",\"total_us\":", micros(record.began.elapsed()));
    out.extend_from_slice(b"}\n");
}

impl Second {
    /// RFC 3339 in UTC, with milliseconds.
    fn write(&mut self, out: &mut Vec<u8>, at: SystemTime) {
        let since_epoch = at.duration_since(UNIX_EPOCH).unwrap_or_default();
        if since_epoch.as_secs() != self.since_epoch || self.text.is_empty() {
            self.since_epoch = since_epoch.as_secs();
            self.text = humantime::format_rfc3339_seconds(at).to_string();
        }
        out.extend_from_slice(self.text.trim_end_matches('Z').as_bytes());
        let millis = since_epoch.subsec_millis();
        let digits =
            [millis / 100, millis / 10 % 10, millis % 10].map(|digit| b"0123456789".get(digit as usize));
        out.push(b'.');
        out.extend(digits.into_iter().flatten());
        out.push(b'Z');
    }
}

/// `","name":"` and the value: a name closes the string before, and leaves its own open.
fn text(out: &mut Vec<u8>, name: &[u8], value: &str) {
    out.extend_from_slice(name);
    escape(out, value.as_bytes());
}

/// The same, of what cannot hold anything to escape: methods are tokens (RFC 9110, 9.1), request ids are checked where
/// they come in.
fn plain(out: &mut Vec<u8>, name: &[u8], value: &[u8]) {
    out.extend_from_slice(name);
    out.extend_from_slice(value);
}

fn micros(time: Duration) -> u64 {
    time.as_secs() * 1_000_000 + u64::from(time.subsec_micros())
}

fn number(out: &mut Vec<u8>, name: &[u8], value: u64) {
    out.extend_from_slice(name);
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// As JSON asks (RFC 8259, 7); what is not ASCII becomes `?`, so that a line is valid whatever a client sent.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
    // Without a way out in the middle, so that many bytes are looked at at once.
    let odd =
        |byte: u8| u8::from(!matches!(byte, 0x20..=0x7e)) | u8::from(byte == b'"') | u8::from(byte == b'\\');
    if bytes.iter().fold(0, |any, byte| any | odd(*byte)) == 0 {
        out.extend_from_slice(bytes);
        return;
    }
    for byte in bytes {
        match byte {
            b'"' | b'\\' => out.extend_from_slice(&[b'\\', *byte]),
            0x20..=0x7e => out.push(*byte),
            _ => out.push(b'?'),
        }
    }
}

fn version(version: http::Version) -> &'static str {
    match version {
        http::Version::HTTP_2 => "2",
        http::Version::HTTP_10 => "1.0",
        http::Version::HTTP_09 => "0.9",
        _ => "1.1",
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use http::{Method, Version};

    use super::*;
    use crate::observe::record::{Id, Path};

    #[test]
    fn a_line_is_valid_json_whatever_is_in_it() {
        let peer = "127.0.0.1".into();
        let id = Id::of(b"a/b").expect("a word");
        let mut record = Record::open(
            (Instant::now(), SystemTime::now()),
            peer,
            Some((Method::GET, Version::HTTP_11)),
            id,
        );
        record.path = Path::Masked("/a\"\\\u{7f}é".into());
        record.upstream = Some(Duration::from_micros(7));
        let mut out = Vec::new();
        line(&mut out, &mut Second::default(), &record, &place("sdk", "/a\"\\"));
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["id"], "a/b");
        assert_eq!(value["path"], "/a\"\\???");
        assert_eq!(value["upstream_us"], 7);
        assert_eq!(value["reason"], "client_gone");
    }

    #[test]
    fn time_is_rfc_3339_with_milliseconds() {
        let mut second = Second::default();
        for text in [
            "1970-01-01T00:00:00.000Z",
            "2000-02-29T23:59:59.999Z",
            "2000-02-29T23:59:59.020Z",
            "2100-03-01T00:00:00.100Z",
        ] {
            let mut out = Vec::new();
            second.write(&mut out, humantime::parse_rfc3339(text).expect("a time"));
            assert_eq!(String::from_utf8_lossy(&out), text);
        }
    }
}

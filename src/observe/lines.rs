//! The access log: one JSON line a request on standard output.
//!
//! A worker writes lines into a buffer of its own and hands it on in batches, so that a request costs no
//! system call. A reader that does not keep up costs lines, counted, and never a request its time.

use std::cell::RefCell;
use std::io::{self, Write};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use prometheus::IntCounter;

use super::record::Record;

/// A batch goes on when it has this many bytes: what a pipe takes at once.
const BATCH: usize = 64 * 1024;
/// Batches that wait for the reader; past this, lines are dropped: 8 MiB at the most.
const WAITING: usize = 128;

/// The access log of one worker.
#[derive(Debug)]
pub struct Lines {
    out: Option<SyncSender<Vec<u8>>>,
    batch: RefCell<Batch>,
    dropped: IntCounter,
}

#[derive(Debug, Default)]
struct Batch {
    bytes: Vec<u8>,
    lines: u64,
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
        Self { out, batch: RefCell::default(), dropped }
    }

    /// Adds the line of a request that has ended.
    pub fn write(&self, record: &Record, surface: &str, route: &str) {
        if self.out.is_none() {
            return;
        }
        let mut batch = self.batch.borrow_mut();
        line(&mut batch.bytes, record, surface, route);
        batch.lines += 1;
        if batch.bytes.len() >= BATCH {
            self.hand_on(&mut batch);
        }
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
        let Batch { bytes, lines } = std::mem::take(batch);
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

fn line(out: &mut Vec<u8>, record: &Record, surface: &str, route: &str) {
    out.extend_from_slice(b"{\"time\":\"");
    // Writing to a vector cannot fail.
    let _ = write!(out, "{}", humantime::format_rfc3339_millis(record.at));
    out.extend_from_slice(b"\",\"id\":\"");
    escape(out, record.id.as_bytes());
    text(out, "peer", &record.peer.to_string());
    text(out, "method", record.method.as_str());
    text(out, "version", version(record.version));
    text(out, "surface", surface);
    text(out, "route", route);
    if let Some(path) = record.path.as_str() {
        text(out, "path", path);
    }
    if let Some(caller) = &record.caller {
        text(out, "team", &caller.team);
        text(out, "key", &caller.key_id);
    }
    text(out, "reason", record.reason.code());
    if let Some(detail) = &record.detail {
        text(out, "detail", detail);
    }
    if let Some(layer) = record.layer {
        text(out, "layer", layer);
    }
    out.push(b'"');
    number(out, "status", u128::from(record.status));
    number(out, "received", u128::from(record.received));
    number(out, "sent", u128::from(record.sent));
    number(out, "decided_us", record.decided.as_micros());
    if let Some(upstream) = record.upstream {
        number(out, "upstream_us", upstream.as_micros());
    }
    number(out, "total_us", record.began.elapsed().as_micros());
    out.extend_from_slice(b"}\n");
}

/// `","name":"value`: it closes the string before, and leaves its own open.
fn text(out: &mut Vec<u8>, name: &str, value: &str) {
    out.extend_from_slice(b"\",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":\"");
    escape(out, value.as_bytes());
}

fn number(out: &mut Vec<u8>, name: &str, value: u128) {
    out.extend_from_slice(b",\"");
    out.extend_from_slice(name.as_bytes());
    out.extend_from_slice(b"\":");
    out.extend_from_slice(itoa::Buffer::new().format(value).as_bytes());
}

/// As JSON asks (RFC 8259, 7); what is not ASCII becomes `?`, so that a line is valid whatever a client sent.
fn escape(out: &mut Vec<u8>, bytes: &[u8]) {
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
    use std::net::{IpAddr, Ipv4Addr};
    use std::time::Duration;

    use http::{HeaderValue, Method, Version};

    use super::*;
    use crate::observe::record::Path;

    #[test]
    fn a_line_is_valid_json_whatever_is_in_it() {
        let peer = IpAddr::V4(Ipv4Addr::LOCALHOST);
        let id = HeaderValue::from_static("a\"b");
        let mut record = Record::open(peer, Method::GET, Version::HTTP_11, id);
        record.path = Path::Masked("/a\"\\\u{7f}é".into());
        record.upstream = Some(Duration::from_micros(7));
        let mut out = Vec::new();
        line(&mut out, &record, "sdk", "/a");
        let value: serde_json::Value = serde_json::from_slice(&out).expect("JSON");
        assert_eq!(value["id"], "a\"b");
        assert_eq!(value["path"], "/a\"\\???");
        assert_eq!(value["upstream_us"], 7);
        assert_eq!(value["reason"], "client_gone");
    }
}

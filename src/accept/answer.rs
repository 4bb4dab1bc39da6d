//! An answer on its way to the client over HTTP/1 (RFC 9112).

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Poll, ready};
use std::time::Duration;

use http::{HeaderMap, Method, StatusCode, Version};
use http_body::Body;

use super::link::Link;
use super::{Bounds, Taken};
use crate::message::answer::Answer;
use crate::message::field::Kind;
use crate::message::fields::line;
use crate::message::pieces::Pieces;

/// A head seldom has more.
const ROOM: usize = 768;

/// What the request says about its answer.
#[derive(Debug, Clone, Copy)]
pub(super) struct Terms {
    /// Of the client.
    pub(super) version: Version,
    /// It was a HEAD: the answer has no body, whatever it says.
    pub(super) head_only: bool,
    /// The connection may stay.
    pub(super) keeps_alive: bool,
    /// The client itself has said that it sends no other.
    pub(super) is_last: bool,
    /// How long the client may take nothing.
    pub(super) patience: Duration,
}

/// How the client learns where the body ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ends {
    /// There is none.
    Nothing,
    /// It has been told how long it is.
    Length,
    /// The pieces say so.
    Chunked,
    /// By the end of the connection.
    Close,
}

/// What becomes of the connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Sent {
    /// It is free for the next request.
    Free,
    /// The answer is whole, and the last.
    Last,
    /// The same, and the client, which knew that, may send nothing more.
    Over,
    /// The client has left, or has been cut off.
    Gone,
}

impl Terms {
    pub(super) fn new(method: &Method, version: Version, keeps_alive: bool, patience: Duration) -> Self {
        Self { version, head_only: *method == Method::HEAD, keeps_alive, is_last: false, patience }
    }

    /// Of a request that cannot be read: there is no other behind it.
    pub(super) fn last(bounds: &Bounds) -> Self {
        Self::new(&Method::GET, Version::HTTP_11, false, bounds.patience)
    }
}

/// Sends an answer, its body as it comes.
pub(super) async fn send<B: Taken>(link: &Link, terms: Terms, answer: Answer<B>) -> Sent {
    let ends = ends(&answer, terms);
    let mut text = Vec::with_capacity(ROOM);
    link.stop_asking(&mut text);
    let keeps_alive = head(&mut text, link, &answer, terms, ends);
    let Answer { mut body, .. } = answer;
    let patience = body.patience().unwrap_or(terms.patience);
    let mut pieces = Pieces::new(text);
    let mut over = false;
    let mut more = ends != Ends::Nothing && (ends == Ends::Chunked || !body.is_end_stream());
    let sent = poll_fn(|cx| {
        loop {
            if pieces.is_written() {
                pieces.clear();
            }
            // A piece that has come goes with what stands before it.
            while more && pieces.takes() {
                match Pin::new(&mut body).poll_frame(cx) {
                    Poll::Ready(Some(Ok(frame))) => match frame.into_data() {
                        Ok(data) => {
                            pieces.data(data, ends == Ends::Chunked);
                            more = ends == Ends::Chunked || !body.is_end_stream();
                        }
                        Err(frame) => {
                            more = false;
                            end(&mut pieces, ends, frame.into_trailers().ok());
                        }
                    },
                    Poll::Ready(None) => {
                        more = false;
                        end(&mut pieces, ends, None);
                    }
                    Poll::Ready(Some(Err(_))) => return Poll::Ready(Err(())),
                    Poll::Pending if pieces.is_written() => {
                        ready!(link.poll_lost(cx, patience));
                        return Poll::Ready(Err(()));
                    }
                    Poll::Pending => break,
                }
            }
            if pieces.is_written() {
                // The end of the connection goes with the end of the answer.
                over = terms.is_last && ends != Ends::Close && link.say_goodbye(cx);
                return link.poll_flush(cx, patience).map_err(|_| ());
            }
            match pieces.poll_write(|parts| link.poll_write(cx, parts, patience)) {
                Poll::Ready(written) => written.map_err(|_| ())?,
                Poll::Pending => return body.poll_cut(cx).map(Err),
            }
            link.peer.rest();
        }
    })
    .await;
    match sent {
        Ok(()) if over => Sent::Over,
        Ok(()) if keeps_alive => Sent::Free,
        Ok(()) => Sent::Last,
        Err(()) => gone(link, &mut body, ends, patience).await,
    }
}

/// The client has left, or is cut off.
async fn gone(link: &Link, body: &mut impl Taken, ends: Ends, patience: Duration) -> Sent {
    if link.peer.is_late() {
        body.too_slow();
    }
    // What came before a fault is sent, but to who may get nothing more.
    poll_fn(|cx| Poll::Ready(body.poll_cut(cx).is_pending() && link.poll_flush(cx, patience).is_ready()))
        .await;
    if ends == Ends::Close {
        link.reset();
    }
    Sent::Gone
}

fn ends(answer: &Answer<impl Body>, terms: Terms) -> Ends {
    let status = answer.status;
    let bodyless =
        status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodyless || terms.head_only {
        Ends::Nothing
    } else if answer.body.size_hint().exact().is_some() {
        Ends::Length
    } else if terms.version == Version::HTTP_11 {
        Ends::Chunked
    } else {
        Ends::Close
    }
}

/// Writes the head; says whether the connection stays.
fn head(out: &mut Vec<u8>, link: &Link, answer: &Answer<impl Body>, terms: Terms, ends: Ends) -> bool {
    let Answer { status, reason, fields, body } = answer;
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(status.as_str().as_bytes());
    out.push(b' ');
    let reason = reason.as_deref().or_else(|| status.canonical_reason()).unwrap_or_default();
    out.extend_from_slice(reason.as_bytes());
    out.extend_from_slice(b"\r\n");
    let may_have_length = may_have_length(*status, ends);
    let is_ours =
        |kind| matches!(kind, Kind::Connection | Kind::Coding) || kind == Kind::Length && !may_have_length;
    let has_ours = [Kind::Connection, Kind::Coding, Kind::Length]
        .into_iter()
        .any(|kind| fields.has(kind) && is_ours(kind));
    match fields.lines().filter(|_| !has_ours) {
        Some(lines) => out.extend_from_slice(lines),
        None => fields.iter().filter(|field| !is_ours(field.kind)).for_each(|field| field.write(out)),
    }
    if !fields.has(Kind::Date) {
        link.peer.clock().write_date(out);
    }
    match (ends, body.size_hint().exact()) {
        (Ends::Length, Some(length)) if !fields.has(Kind::Length) => {
            line(out, b"content-length", itoa::Buffer::new().format(length).as_bytes());
        }
        (Ends::Chunked, _) => line(out, b"transfer-encoding", b"chunked"),
        (Ends::Nothing | Ends::Length | Ends::Close, _) => {}
    }
    let keeps_alive = terms.keeps_alive
        && ends != Ends::Close
        && !fields.lists(Kind::Connection, "close")
        && link.can_go_on()
        && !link.peer.is_closing();
    if fields.lists(Kind::Connection, "upgrade") {
        let last = !keeps_alive && !status.is_informational();
        line(out, b"connection", if last { b"upgrade, close" } else { b"upgrade" });
    } else if !keeps_alive {
        line(out, b"connection", b"close");
    } else if terms.version == Version::HTTP_10 {
        line(out, b"connection", b"keep-alive");
    }
    out.extend_from_slice(b"\r\n");
    keeps_alive
}

/// A length where there can be no body is read as one all the same by who does not know better (RFC 9110, 8.6).
fn may_have_length(status: StatusCode, ends: Ends) -> bool {
    match ends {
        Ends::Chunked | Ends::Close => false,
        Ends::Nothing => !status.is_informational() && status != StatusCode::NO_CONTENT,
        Ends::Length => true,
    }
}

/// The end of a body, where it is said (RFC 9112, 7.1.2).
fn end(pieces: &mut Pieces, ends: Ends, trailers: Option<HeaderMap>) {
    if ends != Ends::Chunked {
        return;
    }
    let out = pieces.text();
    out.extend_from_slice(b"0\r\n");
    for (name, value) in &trailers.unwrap_or_default() {
        line(out, name.as_str().as_bytes(), value.as_bytes());
    }
    out.extend_from_slice(b"\r\n");
}

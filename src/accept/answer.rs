//! An answer on its way to the client over HTTP/1 (RFC 9112).

use std::future::poll_fn;
use std::io::Write as _;
use std::pin::pin;
use std::task::{Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use http::header::{CONNECTION, CONTENT_LENGTH, DATE, TRANSFER_ENCODING};
use http::response::Parts;
use http::{Method, Response, StatusCode, Version};
use http_body::Body;
use hyper::ext::ReasonPhrase;

use super::link::Link;
use crate::message::field::words;
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
    /// The client has left, or has been cut off.
    Gone,
}

impl Terms {
    pub(super) fn new(method: &Method, version: Version, keeps_alive: bool, patience: Duration) -> Self {
        Self { version, head_only: *method == Method::HEAD, keeps_alive, patience }
    }
}

/// Sends an answer, its body as it comes.
pub(super) async fn send<B>(link: &Link, terms: Terms, response: Response<B>) -> Sent
where
    B: Body<Data = Bytes>,
{
    let (parts, body) = response.into_parts();
    let mut body = pin!(body);
    let ends = ends(&parts, terms, body.as_ref().get_ref());
    let keeps_alive = terms.keeps_alive && ends != Ends::Close && link.can_go_on() && !link.peer.is_closing();
    let mut text = Vec::with_capacity(ROOM);
    link.stop_asking(&mut text);
    let keeps_alive = head(&mut text, link, &parts, terms, ends, body.size_hint().exact(), keeps_alive);
    drop(parts);
    let mut pieces = Pieces::new(text);
    let mut more = ends != Ends::Nothing && (ends == Ends::Chunked || !body.is_end_stream());
    let sent = poll_fn(|cx| {
        loop {
            if pieces.is_written() {
                pieces.clear();
            }
            // A piece that has come goes with what stands before it.
            while more && pieces.takes() {
                match body.as_mut().poll_frame(cx) {
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
                        ready!(link.poll_gone(cx));
                        return Poll::Ready(Err(()));
                    }
                    Poll::Pending => break,
                }
            }
            if pieces.is_written() {
                return Poll::Ready(Ok(()));
            }
            ready!(pieces.poll_write(|parts| link.poll_write(cx, parts, terms.patience))).map_err(|_| ())?;
            link.peer.rest();
        }
    })
    .await;
    match sent {
        Ok(()) if keeps_alive => Sent::Free,
        Ok(()) => Sent::Last,
        Err(()) => {
            if ends == Ends::Close {
                link.reset();
            }
            Sent::Gone
        }
    }
}

fn ends(parts: &Parts, terms: Terms, body: &impl Body) -> Ends {
    let status = parts.status;
    let bodyless =
        status.is_informational() || matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED);
    if bodyless || terms.head_only {
        Ends::Nothing
    } else if body.size_hint().exact().is_some() {
        Ends::Length
    } else if terms.version == Version::HTTP_11 {
        Ends::Chunked
    } else {
        Ends::Close
    }
}

/// Writes the head; says whether the connection stays after all.
fn head(
    out: &mut Vec<u8>,
    link: &Link,
    parts: &Parts,
    terms: Terms,
    ends: Ends,
    length: Option<u64>,
    mut keeps_alive: bool,
) -> bool {
    out.extend_from_slice(b"HTTP/1.1 ");
    out.extend_from_slice(parts.status.as_str().as_bytes());
    out.push(b' ');
    let reason = parts.extensions.get::<ReasonPhrase>().map(ReasonPhrase::as_bytes);
    out.extend_from_slice(
        reason.unwrap_or_else(|| parts.status.canonical_reason().unwrap_or_default().as_bytes()),
    );
    out.extend_from_slice(b"\r\n");
    let (mut dated, mut lengthy, mut upgrade) = (false, ends != Ends::Length, false);
    for (name, value) in &parts.headers {
        if name == CONNECTION {
            keeps_alive &= !words(value.as_bytes()).any(|word| word.eq_ignore_ascii_case(b"close"));
            upgrade |= words(value.as_bytes()).any(|word| word.eq_ignore_ascii_case(b"upgrade"));
            continue;
        }
        if name == TRANSFER_ENCODING || name == CONTENT_LENGTH && matches!(ends, Ends::Chunked | Ends::Close)
        {
            continue;
        }
        dated |= name == DATE;
        lengthy |= name == CONTENT_LENGTH;
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    if !dated {
        link.peer.clock().write_date(out);
    }
    if let (false, Some(length)) = (lengthy, length) {
        // Writing to memory cannot fail.
        let _ = write!(out, "content-length: {length}\r\n");
    }
    if ends == Ends::Chunked {
        out.extend_from_slice(b"transfer-encoding: chunked\r\n");
    }
    let keep: &[u8] = match (upgrade, keeps_alive, terms.version) {
        (true, _, _) => b"connection: upgrade\r\n",
        (false, false, _) => b"connection: close\r\n",
        (false, true, Version::HTTP_10) => b"connection: keep-alive\r\n",
        (false, true, _) => b"",
    };
    out.extend_from_slice(keep);
    out.extend_from_slice(b"\r\n");
    keeps_alive
}

/// The end of a body, where it is said (RFC 9112, 7.1.2).
fn end(pieces: &mut Pieces, ends: Ends, trailers: Option<http::HeaderMap>) {
    if ends != Ends::Chunked {
        return;
    }
    let out = pieces.text();
    out.extend_from_slice(b"0\r\n");
    for (name, value) in &trailers.unwrap_or_default() {
        out.extend_from_slice(name.as_str().as_bytes());
        out.extend_from_slice(b": ");
        out.extend_from_slice(value.as_bytes());
        out.extend_from_slice(b"\r\n");
    }
    out.extend_from_slice(b"\r\n");
}

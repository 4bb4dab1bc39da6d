//! Requests of a client over HTTP/1, one after the other.

use std::future::poll_fn;
use std::mem::take;
use std::pin::pin;
use std::rc::Rc;
use std::task::Poll;
use std::time::Duration;

use bytes::Bytes;
use http::Method;
use tokio::time::timeout;

use super::answer::{self, Sent, Terms};
use super::body::Incoming;
use super::link::Link;
use super::pipe::Pipe;
use super::{Bounds, Door, Malformed, Reply, Switch};
use crate::message::field::Kind;
use crate::message::gathered::Gathered;
use crate::message::head::Head;

/// How long a client may go on sending after our last answer.
const LINGER: Duration = Duration::from_secs(2);
/// The same while the process ends.
const SHORT_LINGER: Duration = Duration::from_millis(200);

/// What comes next on a connection.
enum Next {
    /// The head of a request.
    Head(Head),
    /// Something that is none, and whether it asked for a head alone.
    Malformed(Malformed, bool),
    /// Nothing: we have waited for long enough.
    End,
    /// Nothing: the client has left.
    Gone,
    /// Nothing: it has left in the middle of a head.
    Half,
}

/// What becomes of a connection after a request.
enum After {
    /// The next.
    Next,
    /// It ends when the client has heard.
    Last,
    /// It has ended.
    Gone,
    /// It is somebody else's.
    Switched(Switch),
}

/// Serves a connection to its end.
pub(super) async fn serve<D: Door>(link: Rc<Link>, door: Rc<D>) {
    // The first request was to come at once.
    let mut wait = door.bounds().head_wait;
    loop {
        let bounds = door.bounds();
        let next = next(&link, &bounds, wait).await;
        wait = bounds.idle;
        match exchange(&link, &door, next, &bounds).await {
            After::Next => {}
            After::Last => return linger(&link).await,
            After::Gone => return link.die(),
            After::Switched(switch) => {
                if let Some((socket, early)) = Link::into_socket(link) {
                    switch(Pipe::Connection(socket), early).await;
                }
                return;
            }
        }
    }
}

/// Waits for the head of a request, which is to begin within `wait`.
async fn next(link: &Link, bounds: &Bounds, wait: Duration) -> Next {
    let (mut read, mut more) = (Gathered::default(), link.take_read());
    // For the first byte, or for the last.
    let mut begun = None;
    poll_fn(|cx| {
        loop {
            if !more.is_empty() {
                match read.head(&mut more, &bounds.size) {
                    Ok(Some(head)) => {
                        link.put_back(take(&mut more));
                        link.peer.rest();
                        return Poll::Ready(Next::Head(head));
                    }
                    // It has been taken over; nothing that waits holds on to a chunk.
                    Ok(None) => more = Bytes::new(),
                    Err(invalid) => {
                        let invalid = Malformed::Invalid(invalid);
                        return Poll::Ready(Next::Malformed(invalid, read.is_to_head(&more)));
                    }
                }
            }
            let has_begun = !read.is_empty();
            if begun.replace(has_begun) != Some(has_begun) {
                if has_begun { link.peer.wait(bounds.head_wait) } else { link.peer.idle(wait) }
            }
            link.peer.watch(cx);
            // What has come is read first: it was sent before the client could know.
            match link.poll_read(cx) {
                Poll::Ready(Ok(come)) if !come.is_empty() => more = come,
                Poll::Ready(Ok(_) | Err(_)) if has_begun => return Poll::Ready(Next::Half),
                Poll::Ready(Ok(_) | Err(_)) => return Poll::Ready(Next::Gone),
                Poll::Pending if link.peer.is_late() && has_begun => {
                    return Poll::Ready(Next::Malformed(Malformed::Late, read.is_to_head(b"")));
                }
                Poll::Pending if !has_begun && (link.peer.is_late() || link.peer.is_closing()) => {
                    return Poll::Ready(Next::End);
                }
                Poll::Pending => return Poll::Pending,
            }
        }
    })
    .await
}

/// One request and its answer.
async fn exchange<D: Door>(link: &Rc<Link>, door: &Rc<D>, next: Next, bounds: &Bounds) -> After {
    let head = match next {
        Next::End => return After::Last,
        Next::Gone => return After::Gone,
        Next::Half => {
            door.cut_short("head");
            return After::Gone;
        }
        Next::Malformed(malformed, head_only) => {
            let terms = Terms { head_only, ..Terms::last(bounds) };
            return refuse(link, door, None, malformed, terms).await;
        }
        Next::Head(head) => head,
    };
    let (body, asks) = match (head.framing(), head.expects()) {
        (Ok(body), Ok(asks)) => (body, asks),
        (Err(invalid), _) | (_, Err(invalid)) => {
            let terms = Terms { head_only: head.method == Method::HEAD, ..Terms::last(bounds) };
            return refuse(link, door, Some(&head), Malformed::Invalid(invalid), terms).await;
        }
    };
    // Bytes behind a handshake that came to nothing were meant for a channel: they are no request, whenever they come.
    let (stays, upgrades) = (head.keeps_alive(), head.fields.has(Kind::Upgrade));
    let keeps_alive = stays && !(upgrades && head.fields.lists(Kind::Upgrade, "websocket"));
    let is_last = !stays && !upgrades;
    let terms = Terms { is_last, ..Terms::new(&head.method, head.version, keeps_alive, bounds.patience) };
    link.begin(body, asks);
    let reply = {
        let mut serving = pin!(Rc::clone(door).serve(Rc::clone(&link.peer), head, Incoming::over(link)));
        poll_fn(|cx| match serving.as_mut().poll(cx) {
            Poll::Ready(reply) => Poll::Ready(Some(reply)),
            Poll::Pending => link.poll_gone(cx).map(|()| None),
        })
        .await
    };
    // Who ended in the middle of a body has left, as who ended behind one (see `Link::poll_gone`).
    let Some(Reply { answer, switch }) = reply.filter(|_| !link.is_dead()) else { return After::Gone };
    match (answer::send(link, terms, answer).await, switch) {
        // Its body is still on its way to the upstream: the socket lives on with that, and so the end is said now.
        (Sent::Over, _) if Rc::strong_count(link) > 1 => After::Last,
        // Who has asked for the end and has got it is not waited for: it may send nothing more (RFC 9112, 9.6).
        (Sent::Gone | Sent::Over, _) => After::Gone,
        (Sent::Free | Sent::Last, Some(switch)) => After::Switched(switch),
        // Nor are those behind a switch to something else that we do not know.
        (Sent::Free, None) if upgrades && link.has_read() => After::Last,
        (Sent::Free, None) => {
            link.peer.wait(LINGER);
            if poll_fn(|cx| link.poll_whole(cx)).await.is_ok() { After::Next } else { After::Last }
        }
        (Sent::Last, None) => After::Last,
    }
}

/// What cannot be read is answered, and nothing is read behind it.
async fn refuse<D: Door>(
    link: &Link,
    door: &Rc<D>,
    head: Option<&Head>,
    malformed: Malformed,
    terms: Terms,
) -> After {
    link.peer.rest();
    let refusal = door.refuse(&link.peer, head, malformed);
    match Box::pin(answer::send(link, terms, refusal)).await {
        Sent::Free | Sent::Last => After::Last,
        Sent::Gone | Sent::Over => After::Gone,
    }
}

/// Reads on for a moment after our last answer. A client that is still sending, since it was answered early, would
/// lose that answer if the socket were closed under its bytes (RFC 9112, 9.6).
async fn linger(link: &Link) {
    let limit = if link.peer.is_closing() { SHORT_LINGER } else { LINGER };
    let ending = async {
        poll_fn(|cx| link.poll_end(cx)).await;
        poll_fn(|cx| link.poll_read_out(cx)).await;
    };
    // Who goes on for longer is not waited for.
    let _ = timeout(limit, ending).await;
    link.die();
}

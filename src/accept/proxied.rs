//! A connection that begins with a header of the PROXY protocol, until that has been read.

use std::future::poll_fn;
use std::rc::Rc;
use std::task::Poll;

use tokio::io::ReadBuf;
use tokio::net::TcpStream;

use super::Door;
use super::crowd::Place;
use super::open::{Entered, Open};
use super::peer::Peer;
use super::proxy_protocol::{Header, Source, Unproxied, read};

/// What is looked at at once: as much as most headers have.
const PIECE: usize = 256;

/// One end of a connection, known to its worker, with its place among all.
type Met = (Rc<Peer>, Entered, Place);

/// Reads the header, and puts whom it names in the place of the hop; `None` where the connection is to end.
pub(super) async fn meet<D: Door>(
    socket: &TcpStream,
    (hop, _entered, mut place): Met,
    door: &Rc<D>,
) -> Option<Met> {
    let bounds = door.bounds();
    hop.idle(bounds.head_wait);
    let header = match header(socket, &hop).await {
        Ok(header) => header?,
        Err(why) => {
            door.turned_away(&hop, why);
            return None;
        }
    };
    let peer = Rc::new(hop.behind(&header));
    if let Source::Client(_) = header.source {
        let of_one = bounds.connections.of_one.filter(|_| !door.is_trusted(&peer));
        place.passes_to(peer.ip, of_one).then_some(())?;
    }
    if hop.is_closing() {
        peer.close();
    }
    let entered = Open::connect(&door.worker().open, &peer);
    Some((peer, entered, place))
}

/// Takes the header off the socket, and no byte more: what follows is TLS, or HTTP, and somebody else's to read.
async fn header(socket: &TcpStream, hop: &Peer) -> Result<Option<Header>, Unproxied> {
    let mut taken = Vec::new();
    poll_fn(|cx| {
        loop {
            hop.watch(cx);
            let mut room = [0; PIECE];
            let count = match socket.poll_peek(cx, &mut ReadBuf::new(&mut room)) {
                Poll::Ready(count) => count.unwrap_or_default(),
                Poll::Pending if hop.is_late() => return Poll::Ready(Err(Unproxied::Late)),
                Poll::Pending if hop.is_closing() => return Poll::Ready(Ok(None)),
                Poll::Pending => return Poll::Pending,
            };
            if count == 0 {
                // Who looks whether the port is open says nothing.
                let nothing = taken.is_empty().then_some(None);
                return Poll::Ready(nothing.ok_or(Unproxied::Malformed("the connection ended in it")));
            }
            let before = taken.len();
            taken.extend_from_slice(room.get(..count).unwrap_or_default());
            let header = read(&taken)?;
            let end = header.map_or(taken.len(), |(_, end)| end);
            let ours = room.get_mut(..end - before).unwrap_or_default();
            if socket.try_read(ours).ok() != Some(end - before) {
                return Poll::Ready(Ok(None));
            }
            if let Some((header, _)) = header {
                return Poll::Ready(Ok(Some(header)));
            }
        }
    })
    .await
}

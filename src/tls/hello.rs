//! What a client says first: its hello, as rustls reads it, or something else.

use std::future::poll_fn;
use std::io::{self, ErrorKind, Read};
use std::pin::Pin;
use std::task::{Context, Poll};

use bytes::Bytes;
use tokio::io::{AsyncRead as _, AsyncWriteExt as _, ReadBuf};
use tokio::net::TcpStream;
use tokio_rustls::rustls;
use tokio_rustls::rustls::server::{AcceptedAlert, Acceptor};

use super::HANDSHAKE;
use super::failure::Failure;

/// What a client says first.
pub(super) enum First {
    /// Its hello. What came behind that is in here too.
    Hello(Box<rustls::server::Accepted>),
    /// What may be HTTP, and is all that has been read.
    Http(Bytes),
}

/// Reads for rustls, straight into its buffer, and keeps from it what does not begin as TLS does.
struct Ear<'a, 'b> {
    tcp: &'a mut TcpStream,
    cx: &'a mut Context<'b>,
    /// Nothing has come before.
    begins: bool,
    other: Option<Bytes>,
}

impl Read for Ear<'_, '_> {
    fn read(&mut self, room: &mut [u8]) -> io::Result<usize> {
        let mut room = ReadBuf::new(room);
        let read = Pin::new(&mut *self.tcp).poll_read(self.cx, &mut room);
        if read? == Poll::Pending {
            return Err(ErrorKind::WouldBlock.into());
        }
        let read = room.filled();
        if self.begins && read.first().is_some_and(|first| *first != HANDSHAKE) {
            self.other = Some(Bytes::copy_from_slice(read));
            return Ok(0);
        }
        Ok(read.len())
    }
}

/// Reads until it is clear what the client says, and no further than rustls has room. Who says what rustls does not take is
/// told why.
pub(super) async fn hear(tcp: &mut TcpStream) -> Result<First, Failure> {
    let mut acceptor = Acceptor::default();
    let mut begins = true;
    let heard = poll_fn(|cx| {
        loop {
            let mut ear = Ear { tcp, cx, begins, other: None };
            let read = acceptor.read_tls(&mut ear);
            match (read, ear.other) {
                // As every method begins that anybody uses.
                (_, Some(other)) if other.first().is_some_and(u8::is_ascii_uppercase) => {
                    return Poll::Ready(Ok(First::Http(other)));
                }
                (_, Some(_)) => return Poll::Ready(Err((Failure::NotTls, None))),
                (Ok(0), None) => return Poll::Ready(Err((Failure::Gone, None))),
                (Ok(_), None) => begins = false,
                (Err(error), None) if error.kind() == ErrorKind::WouldBlock => return Poll::Pending,
                (Err(error), None) => return Poll::Ready(Err((Failure::of(&error), None))),
            }
            match acceptor.accept() {
                Ok(Some(accepted)) => return Poll::Ready(Ok(First::Hello(Box::new(accepted)))),
                Ok(None) => {}
                Err((error, alert)) => return Poll::Ready(Err((Failure::from(&error), Some(alert)))),
            }
        }
    })
    .await;
    match heard {
        Ok(first) => Ok(first),
        Err((why, alert)) => {
            // Who does not want to hear it need not.
            let _ = tcp.write_all(&alert.map(text).unwrap_or_default()).await;
            Err(why)
        }
    }
}

fn text(mut alert: AcceptedAlert) -> Vec<u8> {
    let mut text = Vec::new();
    // Writing to memory cannot fail.
    let _ = alert.write_all(&mut text);
    text
}

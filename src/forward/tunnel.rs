//! Bytes both ways after a WebSocket handshake, unchanged, until a side ends it or we must.

use std::future::poll_fn;
use std::io;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::{Buf as _, Bytes};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::time::{Instant, sleep};

use super::frames::{self, Frames};
use crate::message::chunk::Chunk;
use crate::observe::reason::Reason;

/// After a close of ours, how long the two sides may take to finish a frame and say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// What is read of a side at once: frames are small, and what one side does not take the tunnel holds.
const PIECE: usize = 16 * 1024;
/// How often it is looked whether anything has moved, in the time after which a tunnel is idle: no frame reads a clock, and
/// one that is idle ends an eighth of that time late at the most.
const LOOKS: u32 = 8;

/// Why we end a tunnel, told to both sides.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Stop {
    /// For the record.
    pub reason: Reason,
    /// The close code.
    pub code: u16,
    /// A text message to the client before it.
    pub message: Option<String>,
}

impl Stop {
    /// The frames that say it to the client.
    #[must_use]
    pub fn goodbye(&self) -> Vec<u8> {
        let mut frames = self.message.as_deref().map(frames::text).unwrap_or_default();
        frames.extend_from_slice(&frames::close(self.code));
        frames
    }
}

/// How a tunnel ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Both sides had finished.
    Finished,
    /// A side broke off.
    Broken,
    /// Neither said anything for too long.
    Idle,
    /// We ended it.
    Stopped {
        /// Why.
        reason: Reason,
        /// With this close code.
        code: u16,
    },
}

/// How a tunnel ended and what had passed through it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Ended {
    /// How.
    pub end: End,
    /// Bytes from the client.
    pub received: u64,
    /// Bytes to the client.
    pub sent: u64,
}

/// One end of a tunnel.
#[derive(Debug)]
pub struct Side<S> {
    /// Its socket.
    pub socket: S,
    /// What has been read from it already.
    pub early: Bytes,
}

/// Passes bytes on until both sides have ended, nothing has moved for `idle`, or `stop` says why not any more. It reads
/// into the worker's chunk: a tunnel in which nothing moves holds no buffer.
pub async fn run<C, U>(
    client: Side<C>,
    upstream: Side<U>,
    chunk: &Chunk,
    idle: Duration,
    stop: impl Future<Output = Stop>,
) -> Ended
where
    C: AsyncRead + AsyncWrite + Unpin,
    U: AsyncRead + AsyncWrite + Unpin,
{
    let (mut to_client, mut to_upstream) = (Pump::new(upstream.early, chunk), Pump::new(client.early, chunk));
    let (mut client, mut upstream) = (client.socket, upstream.socket);
    let mut stop = pin!(stop);
    let (mut seen, mut since) = (0, Instant::now());
    let mut silence = pin!(sleep(idle / LOOKS));
    let mut stopped = None;
    let end = poll_fn(|cx| {
        if stopped.is_none()
            && let Poll::Ready(why) = stop.as_mut().poll(cx)
        {
            let message = why.message.as_deref().map(frames::text).unwrap_or_default();
            to_client.stop(Goodbye { message, close: frames::close(why.code).to_vec() });
            to_upstream.stop(Goodbye { message: Vec::new(), close: frames::masked_close(why.code).to_vec() });
            silence.set(sleep(GOODBYE));
            stopped = Some(End::Stopped { reason: why.reason, code: why.code });
        }
        let down = to_client.poll(cx, &mut upstream, &mut client);
        let up = to_upstream.poll(cx, &mut client, &mut upstream);
        let broken = matches!(down, Poll::Ready(Err(_))) || matches!(up, Poll::Ready(Err(_)));
        // Nothing may follow a close of both sides (RFC 6455, 5.5.1): one that stays connected is not waited for.
        let said = to_client.has_said_goodbye() && to_upstream.has_said_goodbye();
        let (any, both) = (down.is_ready() || up.is_ready(), down.is_ready() && up.is_ready());
        if broken || both || (said && any) {
            let how = if broken { End::Broken } else { End::Finished };
            return Poll::Ready(stopped.unwrap_or(how));
        }
        while silence.as_mut().poll(cx).is_ready() {
            if let Some(stopped) = stopped {
                return Poll::Ready(stopped);
            }
            let (now, moved) = (Instant::now(), to_client.moved + to_upstream.moved);
            if moved != seen {
                (seen, since) = (moved, now);
            } else if since + idle <= now {
                return Poll::Ready(End::Idle);
            }
            silence.as_mut().reset(now + idle / LOOKS);
        }
        Poll::Pending
    })
    .await;
    Ended { end, received: to_upstream.moved, sent: to_client.moved }
}

/// One direction.
#[derive(Debug)]
struct Pump<'c> {
    chunk: &'c Chunk,
    /// Read, and not yet written.
    waiting: Bytes,
    frames: Frames,
    moved: u64,
    phase: Phase,
}

/// What is said at the end: a message where no other is under way (RFC 6455, 5.4), and a close.
#[derive(Debug, Default)]
struct Goodbye {
    message: Vec<u8>,
    close: Vec<u8>,
}

#[derive(Debug)]
enum Phase {
    /// Everything is passed on.
    Open,
    /// The frame that has begun is finished, then this is said instead of what follows.
    Stopping(Goodbye),
    /// It has been said up to here; then it is flushed.
    Saying(Vec<u8>, usize),
    /// What still comes is read and forgotten, so that the side can finish.
    Ignoring,
    /// The reader has ended; the writer is told.
    Ending,
    /// Nothing more.
    Done,
}

impl<'c> Pump<'c> {
    fn new(waiting: Bytes, chunk: &'c Chunk) -> Self {
        Self { chunk, waiting, frames: Frames::default(), moved: 0, phase: Phase::Open }
    }

    /// A close frame has passed, whole.
    fn has_said_goodbye(&self) -> bool {
        self.frames.is_closed() && self.frames.is_between()
    }

    fn stop(&mut self, goodbye: Goodbye) {
        if matches!(self.phase, Phase::Open) {
            self.phase = Phase::Stopping(goodbye);
        }
    }

    /// Ready when this direction is done.
    fn poll<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        loop {
            match &mut self.phase {
                Phase::Done => return Poll::Ready(Ok(())),
                Phase::Ending => {
                    ready!(Pin::new(&mut *writer).poll_shutdown(cx))?;
                    self.phase = Phase::Done;
                }
                Phase::Ignoring => {
                    self.frames.pass(&std::mem::take(&mut self.waiting));
                    if !self.has_said_goodbye() {
                        self.waiting = ready!(self.chunk.poll_piece(cx, Pin::new(&mut *reader), PIECE))?;
                    }
                    if self.waiting.is_empty() {
                        self.phase = Phase::Done;
                    }
                }
                Phase::Saying(goodbye, said) => match goodbye.get(*said..) {
                    Some(rest) if !rest.is_empty() => {
                        *said += ready!(Pin::new(&mut *writer).poll_write(cx, rest))?;
                    }
                    _ => {
                        ready!(Pin::new(&mut *writer).poll_flush(cx))?;
                        self.phase = Phase::Ignoring;
                    }
                },
                Phase::Stopping(_) if self.frames.is_closed() && self.frames.is_between() => {
                    self.phase = Phase::Ignoring;
                }
                Phase::Stopping(goodbye) if self.frames.is_between() => {
                    let Goodbye { mut message, close } = std::mem::take(goodbye);
                    if self.frames.is_mid_message() {
                        message.clear();
                    }
                    message.extend_from_slice(&close);
                    self.phase = Phase::Saying(message, 0);
                }
                Phase::Open | Phase::Stopping(_) => ready!(self.pass(cx, reader, writer))?,
            }
        }
    }

    /// Writes what has been read, or reads more.
    fn pass<R, W>(&mut self, cx: &mut Context<'_>, reader: &mut R, writer: &mut W) -> Poll<io::Result<()>>
    where
        R: AsyncRead + Unpin,
        W: AsyncWrite + Unpin,
    {
        if self.waiting.is_empty() {
            let filled = self.chunk.poll_piece(cx, Pin::new(&mut *reader), PIECE);
            if filled.is_pending() {
                ready!(Pin::new(&mut *writer).poll_flush(cx))?;
            }
            self.waiting = ready!(filled)?;
            if self.waiting.is_empty() {
                self.phase = Phase::Ending;
            }
            return Poll::Ready(Ok(()));
        }
        let mut waiting = &*self.waiting;
        if matches!(self.phase, Phase::Stopping(_)) {
            waiting = waiting.get(..self.frames.rest_of_frame(waiting)).unwrap_or_default();
        }
        let count = ready!(Pin::new(writer).poll_write(cx, waiting))?;
        if count == 0 {
            return Poll::Ready(Err(io::ErrorKind::WriteZero.into()));
        }
        self.frames.pass(waiting.get(..count).unwrap_or_default());
        self.waiting.advance(count);
        if self.waiting.is_empty() {
            // Nothing of a chunk holds on to all of it.
            self.waiting = Bytes::new();
        }
        self.moved += count as u64;
        Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;

    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, duplex};
    use tokio::sync::oneshot;

    use super::*;

    fn side<S>(socket: S) -> Side<S> {
        Side { socket, early: Bytes::new() }
    }

    fn block_on<T>(work: impl Future<Output = T>) -> T {
        tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .expect("a runtime")
            .block_on(work)
    }

    #[test]
    fn half_close_travels_and_the_other_half_stays_open() {
        block_on(async {
            let (mut client, ours) = duplex(64);
            let (mut upstream, theirs) = duplex(64);
            let chunk = Chunk::default();
            let idle = Duration::from_secs(60);
            let tunnel = run(side(ours), side(theirs), &chunk, idle, pending());
            let talk = async {
                client.write_all(b"up").await.expect("write");
                client.shutdown().await.expect("half-close");
                let mut up = Vec::new();
                upstream.read_to_end(&mut up).await.expect("read");
                upstream.write_all(b"down").await.expect("write");
                drop(upstream);
                let mut down = Vec::new();
                client.read_to_end(&mut down).await.expect("read");
                (up, down)
            };
            let (ended, (up, down)) = tokio::join!(tunnel, talk);
            assert_eq!((&*up, &*down), (&b"up"[..], &b"down"[..]));
            assert_eq!(ended, Ended { end: End::Finished, received: 2, sent: 4 });
        });
    }

    #[test]
    fn silence_of_both_sides_ends_it_and_a_word_of_either_does_not() {
        block_on(async {
            let (client, ours) = duplex(64);
            let (mut upstream, theirs) = duplex(64);
            let chunk = Chunk::default();
            let began = Instant::now();
            let talk = async {
                sleep(Duration::from_secs(50)).await;
                upstream.write_all(b"x").await.expect("write");
                sleep(Duration::from_secs(1000)).await;
            };
            let ended = tokio::select! {
                ended = run(side(ours), side(theirs), &chunk, Duration::from_secs(60), pending()) => ended,
                () = talk => unreachable!("the tunnel ends first"),
            };
            drop(client);
            assert_eq!(ended.end, End::Idle);
            assert!((110..=118).contains(&began.elapsed().as_secs()));
        });
    }

    #[test]
    fn our_close_stands_between_two_frames() {
        block_on(async {
            let (mut client, ours) = duplex(1024);
            let (mut upstream, theirs) = duplex(1024);
            let chunk = Chunk::default();
            let (stop, stopped) = oneshot::channel();
            let why = async { stopped.await.expect("a reason") };
            let tunnel = run(side(ours), side(theirs), &chunk, Duration::from_secs(60), why);
            let talk = async {
                // Half a frame of ten bytes, and then the order to stop.
                upstream.write_all(&[0x82, 10, 1, 2, 3]).await.expect("write");
                let mut seen = [0; 5];
                client.read_exact(&mut seen).await.expect("read");
                stop.send(Stop { reason: Reason::Drained, code: 1001, message: None })
                    .expect("the tunnel listens");
                tokio::task::yield_now().await;
                upstream.write_all(&[4, 5, 6, 7, 8, 9, 10, 0x81, 1, b'x']).await.expect("write");
                let mut rest = [0; 11];
                client.read_exact(&mut rest).await.expect("read");
                let mut goodbye = [0; 8];
                upstream.read_exact(&mut goodbye).await.expect("read");
                drop((client, upstream));
                (rest, goodbye)
            };
            let (ended, (rest, goodbye)) = tokio::join!(tunnel, talk);
            assert_eq!(rest, [4, 5, 6, 7, 8, 9, 10, 0x88, 2, 3, 0xE9]);
            assert_eq!(goodbye[..2], [0x88, 0x82]);
            assert_eq!([goodbye[6] ^ goodbye[2], goodbye[7] ^ goodbye[3]], [3, 0xE9]);
            assert_eq!(ended.end, End::Stopped { reason: Reason::Drained, code: 1001 });
        });
    }
}

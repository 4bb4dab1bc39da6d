//! WebSocket channels: how one that was admitted lives, and how one that was refused is told so.
//!
//! The browser SDK comes back every two seconds, for ever, unless a channel was closed with 1000 or 4000 to 4099.
//! So a refusal that is final completes the handshake, says why, and closes with such a code; a drain or an outage
//! never does.

use std::cell::Cell;
use std::future::{pending, poll_fn};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use bytes::Bytes;
use http::{StatusCode, Version};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::task::spawn_local;
use tokio::time::{Instant, sleep_until, timeout};

use crate::accept::Switch;
use crate::accept::drain::Drain;
use crate::accept::pipe::Pipe;
use crate::config::surface::{Channel, ChannelRefusal, OnFlagOff};
use crate::decide::call::Call;
use crate::exchange::{Exchange, Stay};
use crate::forward::body::Body;
use crate::forward::fault::Fault;
use crate::forward::frames::Frames;
use crate::forward::headers::{SCOPEGATE_REASON, X_REQUEST_ID};
use crate::forward::tunnel::{self, End, Side, Stop};
use crate::forward::{self, Switched};
use crate::keys::guests::{Ended, Guest};
use crate::message::answer::Answer;
use crate::message::fields::Fields;
use crate::observe::reason::Reason;
use crate::observe::record::Id;
use crate::snapshot::Current;

/// A channel that is closed because we leave: the SDK comes back, to another replica.
const GOING_AWAY: u16 = 1001;
/// One whose key nobody can say anything of: the SDK comes back, and is told then (RFC 6455, 7.4.2; registered with IANA).
const TRY_AGAIN_LATER: u16 = 1013;
/// Refused channels of one worker that are being told so at once; beyond it they get an HTTP answer.
const TELLING: usize = 256;
/// How long one may take to hear it.
const HEARING: Duration = Duration::from_secs(5);

/// What takes over from HTTP once the client has been sent the answer.
#[must_use]
pub fn tunnel(switched: Switched, exchange: Box<Exchange>, current: Arc<Current>, drain: Drain) -> Switch {
    Box::new(|socket, early| Box::pin(run(Side { socket, early }, switched, exchange, current, drain)))
}

/// Passes bytes both ways until the channel ends, then lets the exchange be told.
async fn run(
    client: Side<Pipe>,
    switched: Switched,
    mut exchange: Box<Exchange>,
    current: Arc<Current>,
    drain: Drain,
) {
    let Switched { upstream, early, chunk } = switched;
    let guest = exchange.guest.take();
    let upstream = Side { socket: upstream, early };
    exchange.landed();
    let metrics = Arc::clone(exchange.metrics());
    metrics.tunnels.inc();
    metrics.tunnels_opened.inc();
    let surface = exchange.surface().map(|surface| surface.name.clone()).unwrap_or_default();
    let code = exchange.channel().map_or(Channel::REVOKED, |channel| channel.revoke_code);
    let idle = exchange.snapshot().live().timeouts.tunnel;
    // A task of its own: each frame would ask all that may end the channel.
    let mut watching = spawn_local(async move {
        let stop = tokio::select! {
            stop = stop(current, drain, surface) => stop,
            ended = revoked(guest.as_ref()) => revocation(&ended, code),
        };
        (stop, guest)
    });
    // Who has to leave has left when the channel is closed.
    let mut leaving = None;
    let stop = async {
        let Ok((stop, guest)) = (&mut watching).await else { return pending().await };
        leaving = guest;
        stop
    };
    let cut = client.socket.cut();
    let ended = tunnel::run(client, upstream, &chunk, idle, stop).await;
    watching.abort();
    drop(leaving);
    if let (End::Broken | End::Idle, Some(cut)) = (ended.end, cut) {
        cut.abort();
    }
    metrics.tunnels.dec();
    exchange.record.received += ended.received;
    exchange.record.sent += ended.sent;
    exchange.record.reason = Some(match ended.end {
        End::Finished => Reason::Passed,
        End::Broken => Reason::ChannelBroken,
        End::Idle => Reason::ChannelIdle,
        End::Stopped { reason, .. } => reason,
    });
    if let End::Stopped { code, .. } = ended.end {
        exchange.record.detail = Some(format!("closed by scopegate with {code}").into());
    }
}

/// Ready when the key that the channel was opened with may not be used any more.
async fn revoked(guest: Option<&Guest<Stay>>) -> Ended {
    match guest {
        Some(guest) => poll_fn(|cx| guest.poll_ended(cx)).await,
        None => pending().await,
    }
}

fn revocation(ended: &Ended, code: u16) -> Stop {
    let reason = Fault::Revoked(ended.reason).reason();
    let code = if reason == Reason::KeysUnavailable { TRY_AGAIN_LATER } else { code };
    Stop { reason, code, message: Some(error_message(reason, reason.row().message, "", "")) }
}

/// Ready when an open channel of this surface must end: the process leaves, or a flag was turned off.
async fn stop(current: Arc<Current>, mut drain: Drain, surface: Box<str>) -> Stop {
    let mut changes = current.changes();
    // It may have been turned off while the upstream thought about the handshake.
    if let Some(stop) = flag_off(&current, &surface) {
        return stop;
    }
    loop {
        tokio::select! {
            deadline = drain.deadline() => {
                spread(deadline).await;
                return Stop { reason: Reason::Drained, code: GOING_AWAY, message: None };
            }
            Ok(()) = changes.changed() => {
                if let Some(stop) = flag_off(&current, &surface) {
                    return stop;
                }
            }
        }
    }
}

/// Some moment of the time that is left, another for each channel, so that not all come back at once; the last
/// fifth is left for goodbyes.
async fn spread(deadline: Instant) {
    let now = Instant::now();
    let window = deadline.saturating_duration_since(now).mul_f64(0.8);
    sleep_until(now + window.mul_f64(fastrand::f64())).await;
}

fn flag_off(current: &Current, surface: &str) -> Option<Stop> {
    let snapshot = current.load();
    let surface = snapshot.policy.surfaces.iter().find(|known| *known.name == *surface)?;
    snapshot.policy.flag_off(surface)?;
    let Channel { refusal, on_flag_off, .. } = surface.channel.as_ref()?;
    if *on_flag_off == OnFlagOff::Keep {
        return None;
    }
    let (code, words) = match refusal {
        ChannelRefusal::Close { code, message } => (*code, message.as_deref()),
        ChannelRefusal::Http => (ChannelRefusal::CODE, None),
    };
    let words = words.unwrap_or(Reason::FlagOff.row().message);
    let reason = Reason::FlagOff;
    Some(Stop { reason, code, message: Some(error_message(reason, words, "", "")) })
}

/// Refused channels of a worker that are being told so.
#[derive(Debug, Default)]
pub struct Refused(Rc<Cell<usize>>);

/// Room for one of them.
#[derive(Debug)]
pub struct Room(Rc<Cell<usize>>);

impl Refused {
    /// Room for one more, if there is.
    #[must_use]
    pub fn enter(&self) -> Option<Room> {
        (self.0.get() < TELLING).then(|| {
            self.0.set(self.0.get() + 1);
            Room(Rc::clone(&self.0))
        })
    }
}

impl Drop for Room {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// What it takes to complete a handshake that is refused.
#[derive(Debug)]
pub struct Handshake {
    version: Version,
    accept: String,
    session: String,
}

impl Handshake {
    /// Of a request, if it is one.
    #[must_use]
    pub fn of(call: &Call<'_>) -> Option<Self> {
        let accept = forward::accept_of(call.handshake().ok()?);
        let mut pairs = call.query.unwrap_or_default().split('&').filter_map(|pair| pair.split_once('='));
        let session = pairs.find(|(name, _)| *name == "sessionId").map_or("", |(_, value)| value);
        let session = percent_encoding::percent_decode_str(session).decode_utf8_lossy().into_owned();
        Some(Self { version: call.version, accept, session })
    }

    /// What it will be told.
    #[must_use]
    pub fn goodbye(&self, reason: Reason, code: u16, words: &str, id: &Id) -> Stop {
        let message = error_message(reason, words, &self.session, id.as_str());
        Stop { reason, code, message: Some(message) }
    }

    /// Completes the handshake, so that a page can be told what an HTTP status would hide from it.
    #[must_use]
    pub fn refuse(self, stop: Stop, reason: Reason, room: Room, id: &Id) -> (Answer<Body>, Switch) {
        let Self { version, accept, .. } = self;
        let heard: Switch = Box::new(move |client, early| {
            Box::pin(async move {
                // Who does not listen in time is not told: the room is for others.
                let _ = timeout(HEARING, tell(client, early, &stop)).await;
                drop(room);
            })
        });
        let mut fields = Fields::default();
        fields.push(b"sec-websocket-accept", accept.as_bytes());
        fields.push(X_REQUEST_ID, id.as_bytes());
        fields.push(SCOPEGATE_REASON, reason.code().as_bytes());
        let answer = Answer::new(StatusCode::SWITCHING_PROTOCOLS, fields, Body::Empty);
        (forward::switching(version, answer), heard)
    }
}

/// Says it, and reads on until the client has closed: closing first could lose what was said.
async fn tell(mut client: Pipe, early: Bytes, stop: &Stop) {
    if client.write_all(&stop.goodbye()).await.is_err() || client.flush().await.is_err() {
        return;
    }
    let (mut seen, mut scratch) = (Frames::default(), [0; 512]);
    seen.pass(&early);
    while !seen.is_closed()
        && let Ok(count @ 1..) = client.read(&mut scratch).await
    {
        seen.pass(scratch.get(..count).unwrap_or_default());
    }
    let _ = client.shutdown().await;
}

/// The one message that the SDK shows: its envelope, with `type` error.
fn error_message(reason: Reason, words: &str, session: &str, id: &str) -> String {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    serde_json::json!({
        "type": "error",
        "sessionId": session,
        "messageId": id,
        "timestamp": u64::try_from(now.as_millis()).unwrap_or_default(),
        "direction": "to_browser",
        "error": { "code": reason.code(), "message": words },
    })
    .to_string()
}

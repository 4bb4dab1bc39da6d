//! One request, first byte to last: the function to read first is [`Gateway::serve`].

use std::cell::RefCell;
use std::rc::Rc;
use std::time::{Duration, Instant};

use http::header::{ACCESS_CONTROL_REQUEST_METHOD, HeaderValue, ORIGIN};
use http::request::Parts;
use http::{Method, Request, Response};
use hyper::body::Incoming;

use crate::accept::Door;
use crate::accept::open::Open;
use crate::accept::peer::Peer;
use crate::channel::{self, Handshake, Refused};
use crate::config::Credential;
use crate::config::route::Access;
use crate::config::surface::ChannelRefusal;
use crate::decide::call::Call;
use crate::decide::decide;
use crate::decide::denial::Denial;
use crate::decide::permit::{Ask, Permit};
use crate::exchange::{Exchange, Told};
use crate::forward::body::Body;
use crate::forward::client::{Client, Target};
use crate::forward::headers::Outbound;
use crate::forward::wire::SWEEP;
use crate::forward::{Answer, forward};
use crate::observe::lines::Lines;
use crate::observe::reason::Reason;
use crate::refuse::{self, Refusal};
use crate::snapshot::{Held, Shared, Snapshot};

/// How often a worker looks after what no request waits for: deadlines, old connections, the log's buffer.
const TICK: Duration = SWEEP;

/// The way in for clients; one a worker.
#[derive(Debug)]
pub struct Gateway {
    shared: Shared,
    open: Rc<Open>,
    snapshot: RefCell<Rc<Held>>,
    client: Rc<Client>,
    lines: Rc<Lines>,
    refused: Refused,
}

/// Where a request came from.
struct Origin<'a> {
    peer: &'a Rc<Peer>,
    /// The peer may say where it really came from.
    trusted: bool,
    /// The page that asks, where a browser says so.
    page: Option<HeaderValue>,
}

impl Door for Gateway {
    type Body = Told;

    /// The outer function: it opens the record, turns a refusal into a response in one place, and sees to it that
    /// the record is closed when the last byte has gone, or the client has.
    async fn serve(self: Rc<Self>, peer: Rc<Peer>, request: Request<Incoming>) -> Response<Told> {
        let snapshot = self.snapshot();
        let (mut head, body) = request.into_parts();
        let trusted = peer.is_trusted(&snapshot.live().trusted_proxies);
        let from = Origin { peer: &peer, trusted, page: head.headers.get(ORIGIN).cloned() };
        let (metrics, lines) = (&self.shared.metrics, &self.lines);
        let mut exchange = Exchange::open(metrics, lines, &snapshot, &head, &peer, trusted);
        match self.answer(&snapshot, &from, &mut head, body, &mut exchange).await {
            Ok(Answer { response, switched: None }) => exchange.answered(response),
            Ok(Answer { response, switched: Some(switched) }) => {
                exchange.record.status = response.status().as_u16();
                let tunnel =
                    channel::run(switched, exchange, self.shared.current.clone(), self.shared.drain.clone());
                let open = Open::enter(&self.open);
                tokio::task::spawn_local(async move {
                    tunnel.await;
                    drop(open);
                });
                response.map(Told::untold)
            }
            Err(refusal) => {
                let response = self.refuse(&refusal, &snapshot, &from, &mut head, &mut exchange);
                exchange.refused(response)
            }
        }
    }
}

impl Gateway {
    /// The inner function: `decide` gives a permit, `forward` takes it.
    async fn answer(
        &self,
        snapshot: &Snapshot,
        from: &Origin<'_>,
        head: &mut Parts,
        body: Incoming,
        exchange: &mut Exchange,
    ) -> Result<Answer, Refusal> {
        let call = Call::read(head, exchange.record.at)?;
        let (route, decision) = decide(&snapshot.policy, &snapshot.keys, &call).await;
        exchange.decided(route, &decision, head);
        let permit = decision?;
        if let Some(response) = preflight(snapshot, &permit, from, head, exchange) {
            return Ok(Answer { response, switched: None });
        }
        let live = snapshot.live();
        let upstream = snapshot.upstreams.get(permit.surface.upstream).expect("a surface names an upstream");
        let outbound = Outbound {
            peer: from.peer,
            trusted: from.trusted,
            scheme: "http",
            id: &exchange.record.id,
            strip_credential: live.credential == Credential::Strip,
            identity: live.identity_headers.then(|| snapshot.policy.scopes()),
        };
        let (target, progress) = (Target { upstream, timeouts: &live.timeouts }, &mut exchange.progress);
        let answer = forward(&self.client, target, &permit, head, body, &outbound, progress).await;
        exchange.record.forwarded();
        answer.map_err(|fault| {
            upstream.meters.fault(fault.reason());
            Refusal::Failed(fault)
        })
    }

    /// The one place where a refusal becomes a response.
    fn refuse(
        &self,
        mut refusal: &Refusal,
        snapshot: &Snapshot,
        from: &Origin<'_>,
        head: &mut Parts,
        exchange: &mut Exchange,
    ) -> Response<Body> {
        exchange.record.refused(refusal.reason(), refusal.detail());
        let cors = snapshot.live().cors.as_ref();
        let final_for_channels =
            matches!(refusal, Refusal::Denied(Denial::FlagOff { .. } | Denial::QueryMissing { .. }));
        if let Refusal::Denied(Denial::FlagOff { .. }) = refusal
            && let (Some(page), Some(method)) = (&from.page, head.headers.get(ACCESS_CONTROL_REQUEST_METHOD))
            && head.method == Method::OPTIONS
        {
            // The page may ask, so that it can read the refusal that follows.
            exchange.record.refused(Reason::Preflight, refusal.detail());
            return refuse::preflight(cors, page, method, &exchange.record.id);
        }
        if final_for_channels
            && let Some(ChannelRefusal::Close { code, message }) =
                exchange.channel().map(|channel| &channel.refusal)
            && let Some(handshake) = Handshake::take(head)
        {
            let words = message.clone().map_or_else(|| refusal.message().into_owned(), String::from);
            let stop = handshake.goodbye(refusal.reason(), *code, &words, &exchange.record.id);
            if let Some(room) = self.refused.enter() {
                return handshake.refuse(stop, refusal.reason(), room, &exchange.record.id);
            }
            refusal = &Refusal::ChannelsBusy;
            exchange.record.refused(refusal.reason(), None);
        }
        let mut response = refuse::response(refusal, exchange.error_form(), &exchange.record.id);
        if let (Some(cors), Some(page)) = (cors, &from.page) {
            refuse::allow_origin(response.headers_mut(), cors, page);
        }
        if head.method == Method::HEAD {
            refuse::bodyless(&mut response);
        }
        response
    }

    /// One worker's gateway.
    #[must_use]
    pub fn new(shared: Shared, lines: Lines) -> Self {
        let snapshot = RefCell::new(Rc::new(shared.current.hold()));
        let refused = Refused::default();
        Self { shared, open: Rc::default(), snapshot, client: Rc::default(), lines: Rc::new(lines), refused }
    }

    /// What is still open is about to be cut.
    pub fn cut(&self) {
        self.lines.end();
    }

    /// Connections and tunnels of this worker.
    #[must_use]
    pub fn open(&self) -> &Rc<Open> {
        &self.open
    }

    /// Looks after what no request waits for, for as long as the worker lives.
    pub async fn tick(&self) {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            self.client.sweep(Instant::now());
            self.lines.flush();
            // A connection on which nothing is asked from one look to the next may rest. Soon, since a crowd that has
            // said one thing each is what memory is sized for; to wake costs less than a microsecond.
            self.open.look();
        }
    }

    /// The snapshot that a request uses from its first byte to its last.
    fn snapshot(&self) -> Rc<Held> {
        let mut held = self.snapshot.borrow_mut();
        if let Some(newer) = self.shared.current.newer_than(&held) {
            *held = Rc::new(newer);
        }
        Rc::clone(&held)
    }
}

/// The answer to a preflight of a keyed surface, where the configuration gives one.
fn preflight(
    snapshot: &Snapshot,
    permit: &Permit<'_>,
    from: &Origin<'_>,
    head: &Parts,
    exchange: &mut Exchange,
) -> Option<Response<Body>> {
    let cors = snapshot.live().cors.as_ref()?;
    if permit.ask != Ask::Preflight || permit.surface.access != Access::Key {
        return None;
    }
    let method = head.headers.get(ACCESS_CONTROL_REQUEST_METHOD)?;
    exchange.record.reason = Some(Reason::Preflight);
    Some(refuse::preflight(Some(cors), from.page.as_ref()?, method, &exchange.record.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every request in flight costs in memory, beside its buffers. Raise it knowingly.
    const LARGEST: usize = 2_368;

    #[test]
    fn a_request_in_flight_is_small() {
        fn size<F: Future>(_: impl FnOnce(Rc<Gateway>, Rc<Peer>, Request<Incoming>) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(<Gateway as Door>::serve);
        println!("the future of a request has {size} bytes");
        assert!(size <= LARGEST, "{size} bytes");
    }
}

//! One request, first byte to last: the function to read first is [`Gateway::serve`].

use std::cell::RefCell;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::time::Instant;

use http::Method;

use crate::accept::body::Incoming;
use crate::accept::clock::{Clock, TICK};
use crate::accept::peer::Peer;
use crate::accept::proxy_protocol::Unproxied;
use crate::accept::{Bounds, Door, Malformed, Reply, Switch, Worker, make_room};
use crate::channel::{self, Handshake, Refused};
use crate::config::route::Access;
use crate::config::surface::{Channel, ChannelRefusal};
use crate::config::{Credential, Live};
use crate::decide::call::Call;
use crate::decide::decide;
use crate::decide::denial::Denial;
use crate::decide::permit::{Ask, Permit};
use crate::exchange::{Exchange, Stay, Told};
use crate::forward::body::Body;
use crate::forward::client::{Client, Target};
use crate::forward::fault::Fault;
use crate::forward::headers::Outbound;
use crate::forward::{Forwarded, forward};
use crate::keys::change::Heard;
use crate::keys::guests::{Guest, Guests, Reception};
use crate::message::answer::Answer;
use crate::message::chunk::Chunk;
use crate::message::field::Kind;
use crate::message::head::Head;
use crate::observe::lines::Lines;
use crate::observe::observer::Observer;
use crate::observe::reason::Reason;
use crate::observe::seldom::Seldom;
use crate::refuse::{self, Refusal};
use crate::revoke;
use crate::secure;
use crate::session;
use crate::snapshot::{Held, Shared, Snapshot};
use crate::tls::failure::Failure;

/// The way in for clients; one a worker.
#[derive(Debug)]
pub struct Gateway {
    shared: Shared,
    worker: Worker,
    snapshot: RefCell<Rc<Held>>,
    client: Rc<Client>,
    observer: Rc<Observer>,
    refused: Refused,
    guests: Rc<Guests<Stay>>,
    /// For each way in which a PROXY header is not there.
    unproxied: [Seldom; Unproxied::NAMES.len()],
    /// For each way in which a handshake fails.
    unshaken: [Seldom; Failure::NAMES.len()],
}

impl Door for Gateway {
    type Body = Told;

    /// The outer function: it opens the record, turns a refusal into a response in one place, and sees to it that
    /// the record is closed when the last byte has gone, or the client has.
    async fn serve(self: Rc<Self>, peer: Rc<Peer>, head: Head, body: Incoming) -> Reply<Told> {
        let snapshot = self.snapshot();
        let mut exchange = Exchange::open(&self.observer, &snapshot, Some(&head), &peer);
        match self.answer(&snapshot, &peer, &head, body, &mut exchange).await {
            Ok(Forwarded { answer, switched: None }) => {
                let minting = session::minting(answer.status, &exchange, &self.shared.sessions);
                exchange.answered(answer, minting).into()
            }
            Ok(Forwarded { mut answer, switched: Some(switched) }) => {
                let (current, drain) = (Arc::clone(&self.shared.current), self.shared.drain.clone());
                exchange.record.status = answer.status.as_u16();
                exchange.warn(&mut answer.fields);
                let tunnel = channel::tunnel(switched, exchange, current, drain);
                Reply { answer: answer.map(Told::untold), switch: Some(tunnel) }
            }
            Err(refusal) => {
                let (answer, switch) = self.refusal(&refusal, &snapshot, &head, &mut exchange);
                Reply { answer: exchange.refused(answer), switch }
            }
        }
    }

    /// What is no request has a record and an answer too.
    fn refuse(&self, peer: &Rc<Peer>, head: Option<&Head>, malformed: Malformed) -> Answer<Told> {
        let snapshot = self.snapshot();
        let mut exchange = Exchange::open(&self.observer, &snapshot, head, peer);
        let refusal = Refusal::Malformed(malformed);
        exchange.record.refused(refusal.reason(), refusal.detail());
        let answer = exchange.refusal(&refusal, head);
        exchange.refused(answer)
    }

    fn bounds(&self) -> Bounds {
        // Not the one of the last request: where a limit keeps requests out, raising it must let them in.
        self.snapshot().bounds
    }

    fn broke(&self, reason: &'static str) {
        self.shared.metrics.http2_broken.with_label_values(&[reason]).inc();
    }

    fn cut_short(&self, reason: &'static str) {
        self.shared.metrics.cut_short.with_label_values(&[reason]).inc();
    }

    fn shaken(&self, resumed: bool) {
        self.shared.metrics.handshakes.with_label_values(&[if resumed { "resumed" } else { "full" }]).inc();
    }

    fn turned_away(&self, hop: &Peer, why: Unproxied) {
        let name = Unproxied::NAMES.get(why.index()).copied().unwrap_or_default();
        self.shared.metrics.unproxied.with_label_values(&[name]).inc();
        if self.unproxied.get(why.index()).is_some_and(Seldom::is_time) {
            tracing::warn!(peer = %hop.ip, reason = name, detail = why.detail(), "a connection without a good PROXY header was closed; scopegate_proxy_headers_refused_total counts them");
        }
    }

    fn unshaken(&self, peer: &Peer, why: &Failure) {
        self.shared.metrics.handshakes_failed.with_label_values(&[why.name()]).inc();
        if self.unshaken.get(why.index()).is_some_and(Seldom::is_time) {
            tracing::warn!(peer = %peer.ip, reason = why.name(), detail = why.detail(), "a TLS handshake failed; scopegate_tls_handshakes_failed_total counts them");
        }
    }

    fn is_trusted(&self, peer: &Peer) -> bool {
        peer.is_trusted(&self.snapshot().live().trusted_proxies)
    }

    fn worker(&self) -> &Worker {
        &self.worker
    }
}

impl Gateway {
    /// The inner function: `decide` gives a permit, `forward` takes it.
    async fn answer(
        &self,
        snapshot: &Rc<Held>,
        peer: &Rc<Peer>,
        head: &Head,
        body: Incoming,
        exchange: &mut Exchange,
    ) -> Result<Forwarded, Refusal> {
        let (route, decision, guest) = {
            let (certificate, with_body) = (peer.certificate(), body.is_announced());
            let call = Call { certificate, with_body, ..Call::read(head, exchange.record.at)? };
            secure::check(peer, exchange.trusted, head, exchange)?;
            let reception = Reception::new(&snapshot.keys, &self.guests);
            let (route, decision) = decide(&snapshot.policy, &reception, &call).await;
            let guest = decision.is_ok().then(|| reception.into_guest());
            (route, decision, guest.flatten())
        };
        exchange.decided(route, &decision, head);
        let permit = decision?;
        exchange.admitted(guest);
        if let Some(answer) = preflight(snapshot, &permit, head, exchange) {
            exchange.landed();
            return Ok(Forwarded { answer, switched: None });
        }
        let live = snapshot.live();
        if self.shared.metrics.in_flight.get() > i64::try_from(live.limits.in_flight).unwrap_or(i64::MAX) {
            return Err(Refusal::Overloaded);
        }
        let upstream = snapshot.upstreams.get(permit.surface.upstream).expect("a surface names an upstream");
        let outbound = Outbound {
            peer,
            trusted: exchange.trusted,
            scheme: peer.scheme.as_str(),
            id: &exchange.record.id,
            body_most: body_most(&permit, live),
            strip_credential: live.credential == Credential::Strip,
            identity: live.identity_headers.then(|| snapshot.policy.scopes()),
        };
        let timeouts = &permit.route.timeouts;
        let until = self.client.until(timeouts);
        let (target, at) = (&Target { upstream, timeouts, until }, exchange.record.at);
        let (guest, progress) = (exchange.guest.as_ref(), &mut exchange.progress);
        // In a box of its own: what is refused needs no room for it.
        let forwarding = Box::pin(async {
            let owned = session::attribute(&permit, head, at, snapshot, &self.shared, &self.guests).await?;
            let guest = guest.or(owned.guest.as_ref());
            if let Some(guest) = guest
                && (guest.has_moved() || self.shared.current.newer_than(snapshot).is_some())
            {
                // While its key was looked up the keys have changed, and it was looked up in the old ones.
                if let Err(reason) = revoke::again(guest, &self.guests, &self.shared).await {
                    return Ok((owned, Err(Fault::Revoked(reason))));
                }
            }
            let forwarding = pin!(forward(&self.client, target, &permit, head, body, &outbound, progress));
            let forwarded = unless_revoked(guest, forwarding).await;
            Ok::<_, Denial>((owned, forwarded))
        });
        let (owned, forwarded) = forwarding.await?;
        if let Some(caller) = owned.caller {
            (exchange.record.caller, exchange.guest) = (Some(caller), owned.guest);
            exchange.session = owned.opened;
        }
        exchange.record.forwarded();
        forwarded.map_err(|fault| {
            upstream.meters.fault(fault.reason());
            Refusal::Failed(fault)
        })
    }

    /// The one place where a refusal becomes a response, and a refused channel hears why.
    fn refusal(
        &self,
        mut refusal: &Refusal,
        snapshot: &Snapshot,
        head: &Head,
        exchange: &mut Exchange,
    ) -> (Answer<Body>, Option<Switch>) {
        exchange.record.refused(refusal.reason(), refusal.detail());
        if let Refusal::Denied(Denial::SessionEnded { caller, .. }) = refusal {
            exchange.record.caller = Some(caller.clone());
        }
        let cors = snapshot.live().cors.as_ref();
        let page = head.fields.first(Kind::Page);
        let final_for_channels = matches!(
            refusal,
            Refusal::Denied(
                Denial::FlagOff { .. } | Denial::QueryMissing { .. } | Denial::SessionEnded { .. }
            )
        );
        if let Refusal::Denied(Denial::FlagOff { .. }) = refusal
            && let (Some(page), Some(method)) = (page, head.fields.first(Kind::AskedMethod))
            && head.method == Method::OPTIONS
        {
            // The page may ask, so that it can read the refusal that follows.
            exchange.record.refused(Reason::Preflight, refusal.detail());
            return (refuse::preflight(cors, page, method, &exchange.record.id), None);
        }
        if final_for_channels
            && let Some(Channel { refusal: ChannelRefusal::Close { code, message }, revoke_code, .. }) =
                exchange.channel()
            && let Ok(call) = Call::read(head, exchange.record.at)
            && let Some(handshake) = Handshake::of(&call)
        {
            let own = || refusal.message().into_owned();
            let (code, words) = if let Refusal::Denied(Denial::SessionEnded { .. }) = refusal {
                (*revoke_code, own())
            } else {
                (*code, message.clone().map_or_else(own, String::from))
            };
            let stop = handshake.goodbye(refusal.reason(), code, &words, &exchange.record.id);
            if let Some(room) = self.refused.enter() {
                let (answer, heard) = handshake.refuse(stop, refusal.reason(), room, &exchange.record.id);
                return (answer, Some(heard));
            }
            refusal = &Refusal::ChannelsBusy;
            exchange.record.refused(refusal.reason(), None);
        }
        let mut answer = exchange.refusal(refusal, Some(head));
        if let (Some(cors), Some(page)) = (cors, page) {
            refuse::allow_origin(&mut answer.fields, cors, page);
        }
        (answer, None)
    }

    /// One worker's gateway.
    #[must_use]
    pub fn new(shared: Shared, lines: Lines) -> Self {
        let snapshot = RefCell::new(Rc::new(shared.current.hold()));
        let (clock, chunk) = (Rc::<Clock>::default(), Rc::<Chunk>::default());
        let client = Rc::new(Client::new(Rc::clone(&chunk), Rc::clone(&clock)));
        let worker = Worker { chunk, clock, open: Rc::default(), crowd: Arc::clone(&shared.crowd) };
        let observer = Rc::new(Observer::new(&shared.metrics, lines));
        let (refused, guests) = Default::default();
        let (unproxied, unshaken) = Default::default();
        Self { shared, worker, snapshot, client, observer, refused, guests, unproxied, unshaken }
    }

    /// Ends what lives on a key that may not be used any more, for as long as the worker lives.
    pub async fn follow(&self, heard: Heard) {
        revoke::follow(Rc::clone(&self.guests), self.shared.clone(), heard).await;
    }

    /// What is still open is about to be cut.
    pub fn cut(&self) {
        self.observer.lines.end();
    }

    /// Looks after what no request waits for (deadlines, old connections, the log's buffer), for as long as the worker lives.
    pub async fn tick(&self) {
        let workers = self.snapshot().config.fixed.workers.unwrap_or_else(num_cpus::get).max(1);
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            tick.tick().await;
            let now = Instant::now();
            self.worker.clock.tick(now);
            // Of all workers together, as many as may be in flight.
            self.client.sweep(now, self.snapshot().live().limits.in_flight.div_ceil(workers));
            let Worker { open, crowd, .. } = &self.worker;
            open.look(now);
            if crowd.wants_room(self.bounds().connections) && !make_room(open, self) {
                crowd.want_room();
            }
            self.observer.lines.flush();
            revoke::expire(&self.guests, &self.shared);
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

/// The most bytes of the body of what was admitted. A preflight has none: what says otherwise later is cut.
fn body_most(permit: &Permit<'_>, live: &Live) -> u64 {
    match permit.ask {
        Ask::Preflight => 0,
        Ask::Request | Ask::Channel => permit.surface.body.unwrap_or(live.limits.body),
    }
}

/// What came of forwarding a request, unless its key dies before.
async fn unless_revoked(
    guest: Option<&Guest<Stay>>,
    forwarding: Pin<&mut impl Future<Output = Result<Forwarded, Fault>>>,
) -> Result<Forwarded, Fault> {
    match guest {
        Some(guest) => {
            guest.unless_ended(forwarding).await.unwrap_or_else(|ended| Err(Fault::Revoked(ended.reason)))
        }
        None => forwarding.await,
    }
}

/// The answer to a preflight of a keyed surface, where the configuration gives one.
fn preflight(
    snapshot: &Snapshot,
    permit: &Permit<'_>,
    head: &Head,
    exchange: &mut Exchange,
) -> Option<Answer<Body>> {
    let cors = snapshot.live().cors.as_ref()?;
    if permit.ask != Ask::Preflight || permit.surface.access != Access::Key {
        return None;
    }
    let (page, method) = (head.fields.first(Kind::Page)?, head.fields.first(Kind::AskedMethod)?);
    exchange.record.reason = Some(Reason::Preflight);
    Some(refuse::preflight(Some(cors), page, method, &exchange.record.id))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What every request costs in memory, beside its buffers and what forwards it; and every connection, busy or not, has
    /// room for one: to make that anew for each request takes some 800 instructions.
    const LARGEST: usize = 1_152;

    #[test]
    fn a_request_in_flight_is_small() {
        fn size<F: Future>(_: impl FnOnce(Rc<Gateway>, Rc<Peer>, Head, Incoming) -> F) -> usize {
            size_of::<F>()
        }
        let size = size(<Gateway as Door>::serve);
        println!("the future of a request has {size} bytes");
        assert!(size <= LARGEST, "{size} bytes");
    }
}

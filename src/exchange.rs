//! One request and its answer, from the first byte to the last: what holds the record, and has it told once.

use std::pin::Pin;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::Once;
use std::task::{Context, Poll, ready};
use std::time::{Duration, Instant, UNIX_EPOCH};

use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::task::AbortHandle;

use crate::accept::peer::Peer;
use crate::accept::{Taken, origin};
use crate::config::route::ErrorForm;
use crate::config::surface::Channel;
use crate::decide::credential::Together;
use crate::decide::denial::Denial;
use crate::decide::permit::Permit;
use crate::decide::route::RouteId;
use crate::decide::{Route, Surface};
use crate::forward::body::Body;
use crate::forward::fault::Fault;
use crate::forward::intake::Progress;
use crate::identity::caller::Caller;
use crate::keys::guests::Guest;
use crate::keys::sessions::Opened;
use crate::keys::sessions::minting::Minting;
use crate::message::answer::Answer;
use crate::message::field::Kind;
use crate::message::fields::Fields;
use crate::message::head::Head;
use crate::observe::metrics::Metrics;
use crate::observe::observer::{InFlight, Observer};
use crate::observe::reason::Reason;
use crate::observe::record::{Id, Path, Record};
use crate::refuse::{self, Refusal};
use crate::snapshot::{Held, Snapshot};

/// What a request will have to say. Whatever becomes of the request, it is said when this is dropped.
#[derive(Debug)]
pub struct Exchange {
    /// Filled in on the way.
    pub record: Record,
    /// What is known of the client's body.
    pub progress: Option<Rc<Progress>>,
    /// Its peer may say where it really came from.
    pub trusted: bool,
    /// Where a key was looked up, and admitted.
    pub guest: Option<Guest<Stay>>,
    /// Where it is a channel of a session whose owner is known.
    pub session: Option<Opened>,
    snapshot: Rc<Held>,
    route: Option<usize>,
    observer: Rc<Observer>,
    in_flight: Option<InFlight>,
}

/// What a request with a key was admitted to.
#[derive(Debug)]
pub struct Stay {
    /// Decided by this.
    pub snapshot: Rc<Held>,
    /// On this route.
    pub route: RouteId,
    /// Set where a key and a certificate were shown.
    pub together: Option<Together>,
}

/// The body of an answer; its exchange ends with it.
#[derive(Debug)]
pub struct Told {
    body: Body,
    minting: Option<Box<Minting>>,
    exchange: Option<Box<Exchange>>,
}

impl Exchange {
    /// A request; `None` where what has come is none.
    #[must_use]
    pub fn open(
        observer: &Rc<Observer>,
        snapshot: &Rc<Held>,
        head: Option<&Head>,
        peer: &Rc<Peer>,
    ) -> Box<Self> {
        let trusted = peer.is_trusted(&snapshot.live().trusted_proxies);
        let has = |kind| head.is_some_and(|head| head.fields.has(kind));
        if !trusted && has(Kind::ForwardedProto) {
            observer.metrics.untrusted_forwarded.inc();
            warn_of_untrusted(peer);
        }
        let id = request_id(head, trusted);
        let asked = head.map(|head| (head.method.clone(), head.version));
        let began = Instant::now();
        let moment = (began, peer.clock().date_of(began));
        let mut record = Record::open(moment, Rc::clone(&peer.text), asked, id);
        record.certificate = peer.certificate().cloned().flatten();
        if let Some(head) = head.filter(|_| trusted) {
            record.client = origin::client(&snapshot.live().trusted_proxies, &head.fields);
        }
        Box::new(Self {
            record,
            trusted,
            progress: None,
            guest: None,
            session: None,
            snapshot: Rc::clone(snapshot),
            route: None,
            observer: Rc::clone(observer),
            in_flight: Some(InFlight::count(observer)),
        })
    }

    /// Notes what was decided, and on which route.
    pub fn decided(&mut self, route: Option<&Route>, decision: &Result<Permit<'_>, Denial>, head: &Head) {
        let path = head.path();
        self.record.decided = self.record.began.elapsed();
        self.route = route.map(|route| route.id);
        self.record.path = match (self.route(), decision) {
            (Some(route), _) if self.snapshot.policy.is_private(route, path) => Path::Hidden,
            (Some(_), _) => Path::Shown { target: Rc::clone(&head.target), length: path.len() },
            (None, Err(Denial::RouteUnknown { .. })) => Path::Masked(self.snapshot.policy.masked(path)),
            // What has two readings may be a callback with a secret in one of them.
            (None, _) => Path::Hidden,
        };
        match decision {
            Ok(permit) => self.record.caller.clone_from(&permit.caller),
            Err(denial) => {
                self.record.caller = denial.caller().cloned();
                if let Denial::ScopeMissing { missing, layer, .. } = denial {
                    self.record.layer = Some(layer.name());
                    for scope in missing.names.split(' ') {
                        self.observer.metrics.scope_denied(scope, layer.name());
                    }
                }
            }
        }
    }

    /// It is refused before its path is looked at.
    pub fn undecided(&mut self, head: &Head) {
        self.record.path = Path::Masked(self.snapshot.policy.masked(head.path()));
    }

    /// It was admitted on its key, and stays for as long as that is good.
    pub fn admitted(&mut self, guest: Option<Guest<Stay>>) {
        let (Some(guest), Some(route)) = (guest, self.route) else { return };
        let team = self.record.caller.as_ref().filter(|_| guest.is_on_two()).map(Caller::team);
        guest.admit(|beside| {
            let together = team.map(|team| Together { team: team.into(), beside });
            Stay { snapshot: Rc::clone(&self.snapshot), route, together }
        });
        self.guest = Some(guest);
    }

    /// The answer is on its way to the client.
    #[must_use]
    pub fn answered(
        mut self: Box<Self>,
        mut answer: Answer<Body>,
        minting: Option<Box<Minting>>,
    ) -> Answer<Told> {
        self.record.status = answer.status.as_u16();
        self.warn(&mut answer.fields);
        if answer.body.is_end_stream() {
            self.record.ended();
        }
        answer.map(|body| Told { body, minting, exchange: Some(self) })
    }

    /// What the client is told of a refusal. Log and metrics have HTTP's status of it, where gRPC's answer has 200.
    #[must_use]
    pub fn refusal(&mut self, refusal: &Refusal, head: Option<&Head>) -> Answer<Body> {
        self.record.status = refusal.status().as_u16();
        refuse::answer(refusal, self.error_form(), &self.record.id, head)
    }

    /// The refusal is on its way to the client; that one may not wait for it changes nothing.
    #[must_use]
    pub fn refused(mut self: Box<Self>, mut answer: Answer<Body>) -> Answer<Told> {
        // What is said to it is ours, and said to the end.
        self.guest = None;
        self.landed();
        self.warn(&mut answer.fields);
        if self.record.status == 0 {
            self.record.status = answer.status.as_u16();
        }
        answer.map(|body| Told { body, minting: None, exchange: Some(self) })
    }

    /// Tells who used a key that another has replaced until when that goes (RFC 9745, RFC 8594). What the upstream says
    /// of the same is its own, and stays.
    pub fn warn(&self, fields: &mut Fields) {
        let caller = self.record.caller.as_ref();
        let Some(previous) = caller.and_then(|caller| caller.previous.as_deref()) else { return };
        let since = previous.since.duration_since(UNIX_EPOCH).unwrap_or_default();
        let (deprecation, sunset) =
            (format!("@{}", since.as_secs()), httpdate::fmt_http_date(previous.until));
        for (name, value) in [(&b"deprecation"[..], deprecation), (b"sunset", sunset)] {
            if !fields.iter().any(|field| field.name.eq_ignore_ascii_case(name)) {
                fields.push_as(Kind::Plain, name, value.as_bytes());
            }
        }
    }

    /// No upstream works on it any more: it has been answered by us, or a channel goes on.
    pub fn landed(&mut self) {
        self.in_flight = None;
    }

    /// How the route's surface treats channels, if it has any.
    #[must_use]
    pub fn channel(&self) -> Option<&Channel> {
        self.surface().and_then(|surface| surface.channel.as_ref())
    }

    /// The member of an answer that names a session, where the route mints them.
    #[must_use]
    pub fn mints(&self) -> Option<&str> {
        self.route().and_then(|route| route.mints.as_deref())
    }

    /// The form in which the route's clients expect an error.
    #[must_use]
    pub fn error_form(&self) -> ErrorForm {
        self.route().map_or(ErrorForm::Object, |route| route.errors)
    }

    /// The snapshot that this request was decided by.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// The surface of the route, once there is one.
    #[must_use]
    pub fn surface(&self) -> Option<&Surface> {
        self.route().and_then(|route| self.snapshot.policy.surfaces.get(route.surface))
    }

    /// Where everything is counted.
    #[must_use]
    pub fn metrics(&self) -> &Arc<Metrics> {
        &self.observer.metrics
    }

    fn route(&self) -> Option<&Route> {
        self.route.and_then(|id| self.snapshot.policy.routes.get(id))
    }

    /// The client sees a cut, never a clean end.
    fn broke(&mut self, fault: &Fault) {
        self.record.refused(fault.reason(), Some(fault.detail().into()));
        let upstream = self.surface().and_then(|surface| self.snapshot.upstreams.get(surface.upstream));
        if let Some(upstream) = upstream {
            upstream.meters.fault(fault.reason());
        }
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        if let Some(progress) = &self.progress {
            self.record.received += progress.received.get();
        }
        // Where nobody has said how it ended, it is not always the client that has left.
        let revoked = self.guest.as_ref().and_then(Guest::ended).filter(|_| self.record.reason.is_none());
        if let Some(ended) = revoked {
            let fault = Fault::Revoked(ended.reason);
            self.record.refused(fault.reason(), Some(fault.detail().into()));
        } else if self.record.reason.is_none() && std::thread::panicking() {
            self.record.reason = Some(Reason::Internal);
        } else if self.record.reason.is_none() && self.observer.lines.is_ending() {
            self.record.reason = Some(Reason::Drained);
        }
        if let Some(progress) = &self.progress {
            progress.outlives_answer(self.guest.take(), self.in_flight.take());
        }
        let route = self.snapshot.meters(self.route);
        self.observer.tell(&self.record, route);
    }
}

impl Told {
    /// Where it may have to leave before the end. An answer that is here as a whole is given as a whole.
    fn guest(&self) -> Option<&Guest<Stay>> {
        let exchange = self.exchange.as_ref().filter(|_| self.body.is_streamed());
        exchange.and_then(|exchange| exchange.guest.as_ref())
    }

    /// A body whose exchange is told by somebody else.
    #[must_use]
    pub fn untold(body: Body) -> Self {
        Self { body, minting: None, exchange: None }
    }
}

impl Taken for Told {
    fn too_slow(&mut self) {
        // Why it was refused says more than that the refusal was not taken.
        if let Some(exchange) = &mut self.exchange
            && matches!(exchange.record.reason, None | Some(Reason::Passed))
        {
            exchange.record.reason = Some(Reason::ClientSlow);
        }
    }

    fn patience(&self) -> Option<Duration> {
        let exchange = self.exchange.as_ref()?;
        exchange.route().map(|route| route.timeouts.idle)
    }

    fn poll_cut(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        match self.guest() {
            Some(guest) => guest.poll_ended(cx).map(drop),
            None => Poll::Pending,
        }
    }

    fn cut_with(&mut self, task: AbortHandle) {
        if let Some(guest) = self.guest() {
            guest.leaves_with(&task);
        }
    }
}

impl http_body::Body for Told {
    type Data = Bytes;
    type Error = Fault;

    fn poll_frame(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, Fault>>> {
        let this = self.get_mut();
        let mut polled = match this.guest().and_then(Guest::ended) {
            Some(ended) => Poll::Ready(Some(Err(Fault::Revoked(ended.reason)))),
            None => Pin::new(&mut this.body).poll_frame(cx),
        };
        if polled.is_pending() {
            let Some(guest) = this.guest() else { return Poll::Pending };
            let ended = ready!(guest.poll_ended(cx));
            polled = Poll::Ready(Some(Err(Fault::Revoked(ended.reason))));
        }
        if let (Some(exchange), Poll::Ready(frame)) = (&mut this.exchange, &polled) {
            match frame {
                Some(Ok(frame)) => {
                    if let (Some(minting), Some(piece)) = (&mut this.minting, frame.data_ref())
                        && minting.read(piece)
                    {
                        this.minting = None;
                    }
                    exchange.record.sent += frame.data_ref().map_or(0, Bytes::len) as u64;
                    if this.body.is_end_stream() {
                        exchange.record.ended();
                    }
                }
                Some(Err(fault)) => exchange.broke(fault),
                None => exchange.record.ended(),
            }
        }
        polled
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

/// The id of a trusted hop, or a new one.
fn request_id(head: Option<&Head>, trusted: bool) -> Id {
    let named = head.filter(|_| trusted).and_then(|head| head.fields.first(Kind::RequestId));
    named.and_then(Id::of).unwrap_or_else(Id::random)
}

/// Once: an upstream that takes HTTPS only may refuse everything, and nobody would see why.
fn warn_of_untrusted(peer: &Peer) {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        tracing::warn!(
            peer = %peer.ip,
            "a peer outside trusted_proxies sends X-Forwarded-Proto, which is replaced; if it is your load balancer, list it"
        );
    });
}

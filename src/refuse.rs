//! What a client is told where we answer ourselves: the one place where a refusal becomes a response.

use std::borrow::Cow;
use std::sync::{Arc, LazyLock};

use bytes::Bytes;
use http::{Method, StatusCode};
use http_body::Body as _;

use crate::accept::Malformed;
use crate::accept::body::Broken;
use crate::config::cors::{Cors, Origins};
use crate::config::route::ErrorForm;
use crate::decide::denial::Denial;
use crate::forward::body::Body;
use crate::forward::fault::Fault;
use crate::forward::headers::{SCOPEGATE_REASON, X_REQUEST_ID};
use crate::message::answer::Answer;
use crate::message::field::Kind;
use crate::message::fields::Fields;
use crate::message::grpc;
use crate::message::head::Head;
use crate::message::invalid::Invalid;
use crate::observe::reason::Reason;
use crate::observe::record::Id;

/// What a page may read of a refusal beside its body.
const EXPOSED: &[u8] = b"retry-after, scopegate-reason, www-authenticate, x-request-id";
/// What most refusals have beside what is common to them: fields, and bytes of them.
const FIELDS: usize = 2;
const BYTES: usize = 128;
/// When a 503 of ours may be over, in seconds: long enough that a crowd does not come back at once.
const RETRY_AFTER: &[u8] = b"1";

/// Why a request was not forwarded, or did not come back.
#[derive(Debug)]
pub enum Refusal {
    /// It was not admitted.
    Denied(Denial),
    /// It is no request.
    Malformed(Malformed),
    /// It came over plain HTTP where only HTTPS is taken.
    Insecure {
        /// The same over HTTPS, where the client may be sent there.
        location: Option<Box<str>>,
    },
    /// It was admitted, and then something broke.
    Failed(Fault),
    /// It was admitted, and too many are under way.
    Overloaded,
    /// It was to be told over a WebSocket, and too many are being told so already.
    ChannelsBusy,
}

impl From<Denial> for Refusal {
    fn from(denial: Denial) -> Self {
        Self::Denied(denial)
    }
}

impl From<Fault> for Refusal {
    fn from(fault: Fault) -> Self {
        Self::Failed(fault)
    }
}

impl Refusal {
    /// Its row of the table.
    #[must_use]
    pub fn reason(&self) -> Reason {
        match self {
            Self::Malformed(Malformed::Late) => Reason::HeadTimeout,
            Self::Malformed(Malformed::Invalid(invalid)) => reason_of(*invalid),
            Self::Insecure { .. } => Reason::HttpsRequired,
            Self::Denied(denial) => denial.reason(),
            Self::Failed(fault) => fault.reason(),
            Self::Overloaded => Reason::Overloaded,
            Self::ChannelsBusy => Reason::ChannelsBusy,
        }
    }

    /// What the operator is told beside the reason.
    #[must_use]
    pub fn detail(&self) -> Option<Arc<str>> {
        match self {
            Self::Malformed(Malformed::Invalid(invalid)) => Some(invalid.to_string().into()),
            Self::Denied(denial) => denial.detail(),
            Self::Failed(fault) => Some(fault.detail().into()),
            Self::Malformed(Malformed::Late)
            | Self::Insecure { .. }
            | Self::Overloaded
            | Self::ChannelsBusy => None,
        }
    }

    /// What the client is told: a sentence for people.
    #[must_use]
    pub fn message(&self) -> Cow<'_, str> {
        match self {
            Self::Denied(Denial::ScopeMissing { missing, .. }) => (&*missing.message).into(),
            Self::Denied(Denial::QueryMissing { name }) => {
                ["The query parameter ", name, " is required."].concat().into()
            }
            Self::Denied(_)
            | Self::Insecure { .. }
            | Self::Failed(_)
            | Self::ChannelsBusy
            | Self::Overloaded
            | Self::Malformed(_) => self.reason().row().message.into(),
        }
    }

    /// HTTP's status of it, whatever protocol the client is told it in.
    #[must_use]
    pub fn status(&self) -> StatusCode {
        let status = match self {
            Self::Denied(Denial::RouteUnknown { status }) => *status,
            // What it was asked with stays as it was (RFC 9110, 15.4.9).
            Self::Insecure { location: Some(_) } => 308,
            Self::Denied(_)
            | Self::Insecure { location: None }
            | Self::Failed(_)
            | Self::ChannelsBusy
            | Self::Overloaded
            | Self::Malformed(_) => self.reason().row().status,
        };
        StatusCode::from_u16(status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR)
    }
}

fn reason_of(invalid: Invalid) -> Reason {
    match invalid {
        Invalid::Target => Reason::TargetInvalid,
        Invalid::TargetTooLong => Reason::TargetTooLong,
        Invalid::TooLarge => Reason::HeadTooLarge,
        Invalid::Version => Reason::VersionUnknown,
        Invalid::Coding => Reason::CodingUnknown,
        Invalid::Expectation => Reason::ExpectationUnknown,
        Invalid::Syntax(_)
        | Invalid::LineEnd
        | Invalid::Status
        | Invalid::Field
        | Invalid::Length
        | Invalid::Chunk
        | Invalid::Interim => Reason::RequestInvalid,
    }
}

/// What all refusals for one reason have in common, made once.
struct Common {
    fields: Fields,
    /// Of a call of gRPC.
    of_call: Fields,
    /// The body in each form, up to the request's id.
    object: Box<[u8]>,
    text: Box<[u8]>,
}

/// In the order of [`Reason::ALL`].
static COMMON: LazyLock<[Common; Reason::COUNT]> = LazyLock::new(|| Reason::ALL.map(Common::of));

impl Common {
    fn of(reason: Reason) -> Self {
        let before = |form| before(reason, reason.row().message, form).into();
        Self {
            fields: common(reason, b"application/json"),
            of_call: common(reason, grpc::CONTENT_TYPE),
            object: before(ErrorForm::Object),
            text: before(ErrorForm::Text),
        }
    }

    fn before(&self, form: ErrorForm) -> &[u8] {
        match form {
            ErrorForm::Object => &self.object,
            ErrorForm::Text => &self.text,
        }
    }
}

fn common(reason: Reason, kind: &[u8]) -> Fields {
    let mut fields = Fields::default();
    fields.push_as(Kind::Plain, b"content-type", kind);
    // A refusal is of this moment and of this key.
    fields.push_as(Kind::Plain, b"cache-control", b"no-store");
    fields.push_as(Kind::Reason, SCOPEGATE_REASON, reason.code().as_bytes());
    if let Some(challenge) = challenge(reason) {
        fields.push_as(Kind::Plain, b"www-authenticate", challenge);
    }
    if matches!(
        reason,
        Reason::KeysUnavailable | Reason::KeysBusy | Reason::Overloaded | Reason::ChannelsBusy
    ) {
        fields.push(b"retry-after", RETRY_AFTER);
    }
    fields
}

/// How a credential is to be brought, and what was wrong with the one that came (RFC 6750, 3). A request without one is
/// told no error; a missing scope is named, and so is not here.
fn challenge(reason: Reason) -> Option<&'static [u8]> {
    use Reason as R;
    let bad = matches!(reason, R::KeyMalformed | R::KeyRepeated | R::KeyConflict);
    let good_for_nothing =
        matches!(reason, R::KeyUnknown | R::KeyExpired | R::KeyDisabled | R::TeamDisabled | R::KeyRevoked);
    if reason == R::KeyMissing {
        Some(b"Bearer realm=\"scopegate\"")
    } else if bad {
        Some(b"Bearer realm=\"scopegate\", error=\"invalid_request\"")
    } else {
        good_for_nothing.then_some(b"Bearer realm=\"scopegate\", error=\"invalid_token\"")
    }
}

/// The answer to a request that is refused, in the terms of its head where that is known: a call of gRPC is told in
/// fields, and HEAD nothing but fields.
#[must_use]
pub fn answer(refusal: &Refusal, form: ErrorForm, id: &Id, head: Option<&Head>) -> Answer<Body> {
    let (reason, is_call) = (refusal.reason(), head.is_some_and(grpc::is_call));
    let common = COMMON.get(reason.index()).expect("there is one for every reason");
    let fields = if is_call { &common.of_call } else { &common.fields };
    let mut fields = fields.with_room(BYTES, FIELDS);
    fields.push_as(Kind::RequestId, X_REQUEST_ID, id.as_bytes());
    match refusal {
        Refusal::Denied(denial) => denied(&mut fields, denial),
        Refusal::Malformed(_)
        | Refusal::Failed(Fault::Client(Broken::Invalid(_) | Broken::TooLarge) | Fault::ClientTimeout) => {
            fields.push(b"connection", b"close");
        }
        Refusal::Insecure { location: Some(location) } => fields.push(b"location", location.as_bytes()),
        Refusal::Failed(_)
        | Refusal::Insecure { location: None }
        | Refusal::Overloaded
        | Refusal::ChannelsBusy => {}
    }
    let (row, message) = (reason.row(), refusal.message());
    if is_call {
        grpc::status(&mut fields, row.grpc, &message);
        return Answer::new(StatusCode::OK, fields, Body::Empty);
    }
    let body = if message == row.message {
        body(common.before(form), form, id)
    } else {
        body(&before(reason, &message, form), form, id)
    };
    let mut answer = Answer::new(refusal.status(), fields, Body::Full(body));
    if head.is_some_and(|head| head.method == Method::HEAD) {
        bodyless(&mut answer);
    }
    answer
}

/// The same to a HEAD (RFC 9110, 9.3.2): its length, and nothing of that length.
fn bodyless(answer: &mut Answer<Body>) {
    let length = answer.body.size_hint().exact().unwrap_or_default();
    answer.fields.push(b"content-length", length.to_string().as_bytes());
    answer.body = Body::Empty;
}

/// The fields that a denial's status asks for, and that say more than its reason.
fn denied(fields: &mut Fields, denial: &Denial) {
    match denial {
        Denial::ScopeMissing { missing, .. } => {
            fields.push_as(Kind::Plain, b"www-authenticate", missing.challenge.as_bytes());
        }
        Denial::MethodUnknown { allow, .. } => fields.push(b"allow", allow.as_bytes()),
        Denial::UpgradeRequired => {
            fields.push(b"upgrade", b"websocket");
            fields.push(b"connection", b"upgrade");
            // The one that there is (RFC 6455, 4.2.2).
            fields.push(b"sec-websocket-version", b"13");
        }
        Denial::TargetInvalid
        | Denial::HostInvalid
        | Denial::PathAmbiguous(_)
        | Denial::RouteUnknown { .. }
        | Denial::QueryMissing { .. }
        | Denial::HandshakeInvalid
        | Denial::FlagOff { .. }
        | Denial::KeyMissing
        | Denial::CertificateMissing
        | Denial::CertificateUnknown
        | Denial::CertificateForeign { .. }
        | Denial::KeyMalformed
        | Denial::KeyRepeated
        | Denial::KeyConflict
        | Denial::KeyUnknown
        | Denial::KeyRefused { .. }
        | Denial::KeysUnavailable { .. }
        | Denial::SessionEnded { .. } => {}
    }
}

/// A body up to the request's id. Everything in it is ours, or from the configuration: nothing to escape.
fn before(reason: Reason, message: &str, form: ErrorForm) -> Vec<u8> {
    let code = reason.code();
    match form {
        ErrorForm::Object => {
            ["{\"error\":{\"code\":\"", code, "\",\"message\":\"", message, "\",\"requestId\":\""]
        }
        ErrorForm::Text => ["{\"error\":\"", message, "\",\"code\":\"", code, "\",\"requestId\":\""],
    }
    .concat()
    .into()
}

/// A whole body; an id has checked characters.
fn body(before: &[u8], form: ErrorForm, id: &Id) -> Bytes {
    let behind: &[u8] = match form {
        ErrorForm::Object => b"\"}}",
        ErrorForm::Text => b"\"}",
    };
    [before, id.as_bytes(), behind].concat().into()
}

/// Lets the page of this origin read what we answered, where the configuration allows it.
pub fn allow_origin(fields: &mut Fields, cors: &Cors, origin: &[u8]) {
    if is_allowed(fields, cors, origin) {
        fields.push(b"access-control-expose-headers", EXPOSED);
    }
}

fn is_allowed(fields: &mut Fields, cors: &Cors, origin: &[u8]) -> bool {
    fields.push(b"vary", b"origin");
    let allowed = match &cors.origins {
        Origins::Any => &b"*"[..],
        Origins::These(these) if these.iter().any(|known| known.as_bytes() == origin) => origin,
        Origins::These(_) => return false,
    };
    fields.push(b"access-control-allow-origin", allowed);
    if cors.credentials {
        fields.push(b"access-control-allow-credentials", b"true");
    }
    true
}

/// The answer to a preflight for this method: what the configuration allows, or nothing, which browsers take
/// as no.
#[must_use]
pub fn preflight(cors: Option<&Cors>, origin: &[u8], method: &[u8], id: &Id) -> Answer<Body> {
    let mut fields = Fields::with_capacity(BYTES, FIELDS);
    fields.push(X_REQUEST_ID, id.as_bytes());
    fields.push(SCOPEGATE_REASON, Reason::Preflight.code().as_bytes());
    if let Some(cors) = cors
        && is_allowed(&mut fields, cors, origin)
    {
        fields.push(b"access-control-allow-methods", method);
        fields.push(b"access-control-max-age", cors.max_age.as_secs().to_string().as_bytes());
        fields.push(b"access-control-allow-headers", cors.headers.join(", ").as_bytes());
    }
    Answer::new(StatusCode::NO_CONTENT, fields, Body::Empty)
}

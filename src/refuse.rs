//! What a client is told where we answer ourselves: the one place where a refusal becomes a response.

use std::borrow::Cow;

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
/// What most refusals have: fields, and bytes of them.
const FIELDS: usize = 6;
const BYTES: usize = 384;
/// When a 503 of ours may be over, in seconds: long enough that a crowd does not come back at once.
const RETRY_AFTER: &[u8] = b"1";

/// RFC 6750, 3.1: the key is not, or not any more, good.
const INVALID_TOKEN: &[u8] = b"Bearer realm=\"scopegate\", error=\"invalid_token\"";

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
    pub fn detail(&self) -> Option<Box<str>> {
        match self {
            Self::Malformed(Malformed::Invalid(invalid)) => Some(invalid.to_string().into()),
            Self::Denied(denial) => denial.detail(),
            Self::Failed(fault) => Some(fault.detail()),
            Self::Malformed(Malformed::Late)
            | Self::Insecure { .. }
            | Self::Overloaded
            | Self::ChannelsBusy => None,
        }
    }

    /// What the client is told: a sentence for people.
    #[must_use]
    pub fn message(&self) -> Cow<'static, str> {
        match self {
            Self::Denied(Denial::ScopeMissing { scopes, .. }) if scopes.contains(' ') => {
                ["This API key lacks one or all of the scopes ", &scopes.replace(' ', ", "), "."]
                    .concat()
                    .into()
            }
            Self::Denied(Denial::ScopeMissing { scopes, .. }) => {
                ["This API key lacks the scope ", scopes, "."].concat().into()
            }
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

/// The answer to a request that is refused, in the terms of its head where that is known: a call of gRPC is told in
/// fields, and HEAD nothing but fields.
#[must_use]
pub fn answer(refusal: &Refusal, form: ErrorForm, id: &Id, head: Option<&Head>) -> Answer<Body> {
    let (reason, is_call) = (refusal.reason(), head.is_some_and(grpc::is_call));
    let mut fields = Fields::with_capacity(BYTES, FIELDS);
    let kind = if is_call { grpc::CONTENT_TYPE } else { b"application/json" };
    fields.push_as(Kind::Plain, b"content-type", kind);
    // A refusal is of this moment and of this key.
    fields.push_as(Kind::Plain, b"cache-control", b"no-store");
    fields.push_as(Kind::RequestId, X_REQUEST_ID, id.as_bytes());
    fields.push_as(Kind::Reason, SCOPEGATE_REASON, reason.code().as_bytes());
    match refusal {
        Refusal::Denied(denial) => denied(&mut fields, denial),
        Refusal::Malformed(_)
        | Refusal::Failed(Fault::Client(Broken::Invalid(_) | Broken::TooLarge) | Fault::ClientTimeout) => {
            fields.push(b"connection", b"close");
        }
        Refusal::Failed(Fault::Revoked(Reason::KeysUnavailable))
        | Refusal::Overloaded
        | Refusal::ChannelsBusy => {
            fields.push(b"retry-after", RETRY_AFTER);
        }
        Refusal::Failed(Fault::Revoked(_)) => fields.push_as(Kind::Plain, b"www-authenticate", INVALID_TOKEN),
        Refusal::Failed(_) | Refusal::Insecure { location: None } => {}
        Refusal::Insecure { location: Some(location) } => fields.push(b"location", location.as_bytes()),
    }
    if is_call {
        grpc::status(&mut fields, reason.row().grpc, &refusal.message());
        return Answer::new(StatusCode::OK, fields, Body::Empty);
    }
    let body = Body::Full(body(reason, &refusal.message(), form, id));
    let mut answer = Answer::new(refusal.status(), fields, body);
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

/// The fields that a denial's status asks for.
fn denied(fields: &mut Fields, denial: &Denial) {
    match denial {
        // RFC 6750, 3: a request without a credential is told how to bring one, and no error.
        Denial::KeyMissing => fields.push_as(Kind::Plain, b"www-authenticate", b"Bearer realm=\"scopegate\""),
        Denial::KeyMalformed | Denial::KeyRepeated | Denial::KeyConflict => {
            fields.push_as(
                Kind::Plain,
                b"www-authenticate",
                b"Bearer realm=\"scopegate\", error=\"invalid_request\"",
            );
        }
        Denial::KeyUnknown | Denial::KeyRefused { .. } | Denial::SessionEnded { .. } => {
            fields.push_as(Kind::Plain, b"www-authenticate", INVALID_TOKEN);
        }
        Denial::ScopeMissing { scopes, .. } => {
            let error = "Bearer realm=\"scopegate\", error=\"insufficient_scope\", scope=\"";
            fields.push_as(Kind::Plain, b"www-authenticate", [error, scopes, "\""].concat().as_bytes());
        }
        Denial::MethodUnknown { allow, .. } => fields.push(b"allow", allow.as_bytes()),
        Denial::UpgradeRequired => {
            fields.push(b"upgrade", b"websocket");
            fields.push(b"connection", b"upgrade");
            // The one that there is (RFC 6455, 4.2.2).
            fields.push(b"sec-websocket-version", b"13");
        }
        Denial::KeysUnavailable { .. } => fields.push(b"retry-after", RETRY_AFTER),
        Denial::TargetInvalid
        | Denial::CertificateMissing
        | Denial::CertificateUnknown
        | Denial::CertificateForeign { .. }
        | Denial::HostInvalid
        | Denial::PathAmbiguous(_)
        | Denial::RouteUnknown { .. }
        | Denial::QueryMissing { .. }
        | Denial::HandshakeInvalid
        | Denial::FlagOff { .. } => {}
    }
}

/// Everything in it is ours, from the configuration, or a request id of checked characters: nothing to escape.
fn body(reason: Reason, message: &str, form: ErrorForm, id: &Id) -> Bytes {
    let (code, message, id) = (reason.code().as_bytes(), message.as_bytes(), id.as_bytes());
    let parts: [&[u8]; 7] = match form {
        ErrorForm::Object => [
            b"{\"error\":{\"code\":\"",
            code,
            b"\",\"message\":\"",
            message,
            b"\",\"requestId\":\"",
            id,
            b"\"}}",
        ],
        ErrorForm::Text => {
            [b"{\"error\":\"", message, b"\",\"code\":\"", code, b"\",\"requestId\":\"", id, b"\"}"]
        }
    };
    parts.concat().into()
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

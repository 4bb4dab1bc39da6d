//! What a client is told where we answer ourselves: the one place where a refusal becomes a response.

use std::borrow::Cow;

use bytes::Bytes;
use http::header::{
    ACCESS_CONTROL_ALLOW_CREDENTIALS, ACCESS_CONTROL_ALLOW_HEADERS, ACCESS_CONTROL_ALLOW_METHODS,
    ACCESS_CONTROL_ALLOW_ORIGIN, ACCESS_CONTROL_EXPOSE_HEADERS, ACCESS_CONTROL_MAX_AGE, ALLOW, CACHE_CONTROL,
    CONNECTION, CONTENT_LENGTH, CONTENT_TYPE, HeaderValue, RETRY_AFTER, UPGRADE, VARY, WWW_AUTHENTICATE,
};
use http::{HeaderMap, Response, StatusCode};
use http_body::Body as _;

use crate::accept::Malformed;
use crate::accept::body::Broken;
use crate::config::cors::{Cors, Origins};
use crate::config::route::ErrorForm;
use crate::decide::denial::Denial;
use crate::forward::body::Body;
use crate::forward::fault::Fault;
use crate::forward::headers::{SCOPEGATE_REASON, X_REQUEST_ID};
use crate::message::invalid::Invalid;
use crate::observe::reason::Reason;

/// What a page may read of a refusal beside its body.
const EXPOSED: HeaderValue =
    HeaderValue::from_static("retry-after, scopegate-reason, www-authenticate, x-request-id");
/// What most refusals have.
const FIELDS: usize = 6;
/// When a 503 of ours may be over: long enough that a crowd does not come back at once.
const RETRY_SECONDS: u64 = 1;

/// Why a request was not forwarded, or did not come back.
#[derive(Debug)]
pub enum Refusal {
    /// It was not admitted.
    Denied(Denial),
    /// It is no request.
    Malformed(Malformed),
    /// It was admitted, and then something broke.
    Failed(Fault),
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
            Self::Denied(denial) => denial.reason(),
            Self::Failed(fault) => fault.reason(),
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
            Self::Malformed(Malformed::Late) | Self::ChannelsBusy => None,
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
            Self::Denied(_) | Self::Failed(_) | Self::ChannelsBusy | Self::Malformed(_) => {
                self.reason().row().message.into()
            }
        }
    }

    fn status(&self) -> StatusCode {
        let status = match self {
            Self::Denied(Denial::RouteUnknown { status }) => *status,
            Self::Denied(_) | Self::Failed(_) | Self::ChannelsBusy | Self::Malformed(_) => {
                self.reason().row().status
            }
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

/// The answer to a request that is refused.
#[must_use]
pub fn response(refusal: &Refusal, form: ErrorForm, id: &HeaderValue) -> Response<Body> {
    let reason = refusal.reason();
    let mut headers = HeaderMap::with_capacity(FIELDS);
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
    // A refusal is of this moment and of this key.
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("no-store"));
    headers.insert(X_REQUEST_ID, id.clone());
    headers.insert(SCOPEGATE_REASON, HeaderValue::from_static(reason.code()));
    match refusal {
        Refusal::Denied(denial) => denied(&mut headers, denial),
        Refusal::Malformed(_) | Refusal::Failed(Fault::Client(Broken::Invalid(_)) | Fault::ClientTimeout) => {
            headers.insert(CONNECTION, HeaderValue::from_static("close"));
        }
        Refusal::Failed(_) => {}
        Refusal::ChannelsBusy => {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
        }
    }
    let mut response = Response::new(Body::Full(body(reason, &refusal.message(), form, id)));
    *response.status_mut() = refusal.status();
    *response.headers_mut() = headers;
    response
}

/// The same to a HEAD (RFC 9110, 9.3.2): its length, and nothing of that length.
pub fn bodyless(response: &mut Response<Body>) {
    let length = response.body().size_hint().exact().unwrap_or_default();
    response.headers_mut().insert(CONTENT_LENGTH, HeaderValue::from(length));
    *response.body_mut() = Body::Empty;
}

/// The fields that a denial's status asks for.
fn denied(headers: &mut HeaderMap, denial: &Denial) {
    let challenge = match denial {
        // RFC 6750, 3: a request without a credential is told how to bring one, and no error.
        Denial::KeyMissing => Some(HeaderValue::from_static("Bearer realm=\"scopegate\"")),
        Denial::KeyMalformed | Denial::KeyRepeated | Denial::KeyConflict => {
            Some(HeaderValue::from_static("Bearer realm=\"scopegate\", error=\"invalid_request\""))
        }
        Denial::KeyUnknown | Denial::KeyRefused { .. } => {
            Some(HeaderValue::from_static("Bearer realm=\"scopegate\", error=\"invalid_token\""))
        }
        Denial::ScopeMissing { scopes, .. } => {
            let error = "Bearer realm=\"scopegate\", error=\"insufficient_scope\", scope=\"";
            HeaderValue::try_from([error, scopes, "\""].concat()).ok()
        }
        Denial::MethodUnknown { allow } => {
            if let Ok(allow) = HeaderValue::from_str(allow) {
                headers.insert(ALLOW, allow);
            }
            None
        }
        Denial::UpgradeRequired => {
            headers.insert(UPGRADE, HeaderValue::from_static("websocket"));
            headers.insert(CONNECTION, HeaderValue::from_static("upgrade"));
            None
        }
        Denial::KeysUnavailable { .. } => {
            headers.insert(RETRY_AFTER, HeaderValue::from(RETRY_SECONDS));
            None
        }
        Denial::TargetInvalid
        | Denial::HostInvalid
        | Denial::PathAmbiguous(_)
        | Denial::RouteUnknown { .. }
        | Denial::QueryMissing { .. }
        | Denial::FlagOff { .. } => None,
    };
    if let Some(challenge) = challenge {
        headers.insert(WWW_AUTHENTICATE, challenge);
    }
}

/// Everything in it is ours, from the configuration, or a request id of checked characters: nothing to escape.
fn body(reason: Reason, message: &str, form: ErrorForm, id: &HeaderValue) -> Bytes {
    let (code, id) = (reason.code(), id.to_str().unwrap_or_default());
    let parts = match form {
        ErrorForm::Object => {
            ["{\"error\":{\"code\":\"", code, "\",\"message\":\"", message, "\",\"requestId\":\"", id, "\"}}"]
        }
        ErrorForm::Text => {
            ["{\"error\":\"", message, "\",\"code\":\"", code, "\",\"requestId\":\"", id, "\"}"]
        }
    };
    parts.concat().into()
}

/// Lets the page of this origin read what we answered, where the configuration allows it.
pub fn allow_origin(headers: &mut HeaderMap, cors: &Cors, origin: &HeaderValue) -> bool {
    headers.append(VARY, HeaderValue::from_static("origin"));
    let allowed = match &cors.origins {
        Origins::Any => HeaderValue::from_static("*"),
        Origins::These(these) if these.iter().any(|known| known.as_bytes() == origin.as_bytes()) => {
            origin.clone()
        }
        Origins::These(_) => return false,
    };
    headers.insert(ACCESS_CONTROL_ALLOW_ORIGIN, allowed);
    headers.insert(ACCESS_CONTROL_EXPOSE_HEADERS, EXPOSED);
    if cors.credentials {
        headers.insert(ACCESS_CONTROL_ALLOW_CREDENTIALS, HeaderValue::from_static("true"));
    }
    true
}

/// The answer to a preflight for this method: what the configuration allows, or nothing, which browsers take
/// as no.
#[must_use]
pub fn preflight(
    cors: Option<&Cors>,
    origin: &HeaderValue,
    method: &HeaderValue,
    id: &HeaderValue,
) -> Response<Body> {
    let mut response = Response::new(Body::Empty);
    *response.status_mut() = StatusCode::NO_CONTENT;
    let headers = response.headers_mut();
    headers.insert(X_REQUEST_ID, id.clone());
    headers.insert(SCOPEGATE_REASON, HeaderValue::from_static(Reason::Preflight.code()));
    if let Some(cors) = cors
        && allow_origin(headers, cors, origin)
    {
        headers.remove(ACCESS_CONTROL_EXPOSE_HEADERS);
        headers.insert(ACCESS_CONTROL_ALLOW_METHODS, method.clone());
        headers.insert(ACCESS_CONTROL_MAX_AGE, HeaderValue::from(cors.max_age.as_secs()));
        if let Ok(allowed) = HeaderValue::from_str(&cors.headers.join(", ")) {
            headers.insert(ACCESS_CONTROL_ALLOW_HEADERS, allowed);
        }
    }
    response
}

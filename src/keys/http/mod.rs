//! Keys behind an endpoint: a question a key, in the form of RFC 7662.
//!
//! ```text
//! POST /introspect                                   200
//! Content-Type: application/x-www-form-urlencoded    { "active": true, "client_id": "acme-web", "team": "acme",
//! Authorization: Bearer …                              "scope": "READ_TEAM_APPS", "exp": 1827662400 }
//!
//! token_digest=HEX                                   { "active": false }, or 404
//! ```
//!
//! It never tells of changes. So it is taken as reached once it has answered a question about a key that nobody has, and
//! who is inside on a key of its is looked at again as often as keys are fresh.

mod answer;
mod breaker;
mod wire;

use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HOST, USER_AGENT};
use http::{HeaderValue, Method, Request, StatusCode};
use http_body_util::Full;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, percent_encode};
use tokio::time::{sleep, timeout};
use zeroize::Zeroizing;

use super::SourceError;
use super::news::News;
use super::presented::Presented;
use super::remote::Source;
use super::row::Row;
use crate::config::endpoint::{self, Sent};
use crate::config::sources;
use breaker::{Breaker, Outcome};
use wire::{Answered, Wires};

const NAME: &str = "http";
/// A question is asked again after some part of this, so that many are not asked again at once.
const PAUSE: Duration = Duration::from_millis(100);
/// What a form carries as it is (WHATWG, application/x-www-form-urlencoded).
const ENCODED: AsciiSet = NON_ALPHANUMERIC.remove(b'*').remove(b'-').remove(b'.').remove(b'_');

/// An endpoint that knows keys.
#[derive(Debug)]
pub(super) struct Http {
    config: endpoint::Http,
    timeout: Duration,
    look_every: Duration,
    wires: Wires,
    breaker: Breaker,
}

/// Why a question has no answer.
#[derive(Debug)]
enum Fault {
    /// The connection could not be made, or broke.
    Wire(String),
    /// An answer with this status.
    Status(StatusCode),
    /// Something of ours that it needs is not there.
    Ours(String),
    /// An answer that cannot be read.
    Unreadable(&'static str),
}

impl Http {
    pub(super) fn new(config: endpoint::Http, cache: &sources::Cache) -> Self {
        let wires = Wires::new(config.url.clone(), config.ca_file.clone());
        let breaker = Breaker::new(config.failures);
        // One look is over before the next.
        let look_every = cache.fresh.max(cache.timeout);
        Self { config, timeout: cache.timeout, look_every, wires, breaker }
    }

    /// Asks, and asks again where that may help. Whoever waits has a limit for all of it.
    async fn ask(&self, presented: &Presented<'_>) -> Result<Option<Row>, Fault> {
        let form = self.form(presented);
        let mut left = self.config.retries;
        loop {
            match self.ask_once(form.clone()).await {
                Err(fault) if left > 0 && fault.may_pass() => {
                    left -= 1;
                    sleep(PAUSE.mul_f64(fastrand::f64())).await;
                }
                answer => return answer,
            }
        }
    }

    async fn ask_once(&self, form: Bytes) -> Result<Option<Row>, Fault> {
        let Answered { status, is_page, body } = self.wires.exchange(&self.request(form)?).await?;
        match status {
            StatusCode::OK => answer::read(&self.config.answer, &body).map_err(Fault::Unreadable),
            // A page is of a proxy before it, or of a place where no endpoint is.
            StatusCode::NOT_FOUND if !is_page => Ok(None),
            _ => Err(Fault::Status(status)),
        }
    }

    fn form(&self, presented: &Presented<'_>) -> Bytes {
        let hex;
        let value = match (self.config.send, presented.key) {
            (Sent::Key, key) => key.expect("it was copied for this"),
            (Sent::Digest, _) => {
                hex = presented.digest.hex();
                hex.as_bytes()
            }
        };
        let field = self.config.field.as_bytes();
        // With room for all of it, so that nothing of a key is left behind where it grew.
        let mut form = Zeroizing::new(Vec::with_capacity(3 * (field.len() + value.len()) + 1));
        for piece in percent_encode(field, &ENCODED).chain(["="]).chain(percent_encode(value, &ENCODED)) {
            form.extend_from_slice(piece.as_bytes());
        }
        Bytes::from_owner(form)
    }

    fn request(&self, form: Bytes) -> Result<Request<Full<Bytes>>, Fault> {
        let mut request = Request::new(Full::new(form));
        *request.method_mut() = Method::POST;
        *request.uri_mut() = self.config.url.path.clone().into();
        let headers = request.headers_mut();
        let host = HeaderValue::from_str(&self.config.url.authority);
        headers.insert(HOST, host.map_err(|_| Fault::Ours("`url` has no host".to_owned()))?);
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/x-www-form-urlencoded"));
        headers.insert(ACCEPT, HeaderValue::from_static("application/json"));
        headers.insert(USER_AGENT, HeaderValue::from_static("scopegate"));
        if let Some(file) = &self.config.bearer_file {
            let ours = |error: &dyn std::fmt::Display| Fault::Ours(format!("{}: {error}", file.display()));
            let text = std::fs::read_to_string(file).map(Zeroizing::new).map_err(|error| ours(&error))?;
            let bearer = Zeroizing::new(format!("Bearer {}", text.trim()));
            let mut bearer = HeaderValue::from_str(&bearer).map_err(|_| ours(&"this is no credential"))?;
            bearer.set_sensitive(true);
            headers.insert(AUTHORIZATION, bearer);
        }
        Ok(request)
    }

    /// Whether it answers at all, and does not say yes to everything.
    async fn probe(&self) -> Result<(), SourceError> {
        let made_up = format!("scopegate-{:032x}", fastrand::u128(..));
        match self.ask(&Presented::now(made_up.as_bytes())).await {
            Ok(None) => Ok(()),
            Ok(Some(_)) => {
                let cause = "it knows a key that was made up just now".to_owned();
                Err(SourceError::Invalid { name: NAME, cause })
            }
            Err(fault) => Err(fault.into()),
        }
    }
}

impl Source for Http {
    async fn fetch(&self, presented: &Presented<'_>) -> Result<Option<Row>, SourceError> {
        let Some(trial) = self.breaker.begin().await else { return Err(self.breaker.why()) };
        let answer = self.ask(presented).await.map_err(SourceError::from);
        trial.ended(match &answer {
            Ok(_) => Outcome::Good,
            // Of one key, perhaps: who asks for that again and again must not keep the others out.
            Err(SourceError::Invalid { .. }) => Outcome::Neither,
            Err(error) => Outcome::Failed(error.to_string()),
        });
        answer
    }

    async fn listen(&self, hear: &dyn Fn(News)) -> SourceError {
        let late = Err(SourceError::Late { name: NAME });
        if let Err(error) = timeout(self.timeout, self.probe()).await.unwrap_or(late) {
            self.breaker.open(&error);
            return error;
        }
        self.breaker.close();
        loop {
            hear(News::Silent);
            if timeout(self.look_every, self.breaker.opened()).await.is_ok() {
                return self.breaker.why();
            }
        }
    }
}

impl Fault {
    /// Somebody else behind the same name may answer.
    fn may_pass(&self) -> bool {
        match self {
            Self::Wire(_) => true,
            Self::Status(status) => matches!(status.as_u16(), 502..=504),
            Self::Ours(_) | Self::Unreadable(_) => false,
        }
    }
}

impl From<Fault> for SourceError {
    fn from(fault: Fault) -> Self {
        let down = |cause| Self::Down { name: NAME, cause };
        match fault {
            Fault::Wire(cause) | Fault::Ours(cause) => down(cause),
            Fault::Status(status) => down(format!("its answer has status {}", status.as_u16())),
            Fault::Unreadable(cause) => Self::Invalid { name: NAME, cause: cause.to_owned() },
        }
    }
}

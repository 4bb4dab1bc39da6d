//! Listeners that take HTTPS only, and what they are sent over plain HTTP.

use http::Method;

use crate::accept::origin;
use crate::accept::peer::{Peer, Scheme};
use crate::config::listen::HttpsOnly;
use crate::exchange::Exchange;
use crate::message::field::Kind;
use crate::message::head::Head;
use crate::refuse::Refusal;

/// Whether a request came as its listener wants it. That is asked before its key is looked up: one that was sent in
/// plain is no better for being known.
pub fn check(peer: &Peer, trusted: bool, head: &Head, exchange: &mut Exchange) -> Result<(), Refusal> {
    if peer.is_in_plain() {
        exchange.undecided(head);
        // Nobody is sent on: where to is what the client has got wrong.
        return Err(Refusal::Insecure { location: None });
    }
    if peer.https_only == HttpsOnly::Off || origin::scheme(peer, trusted, &head.fields) == Scheme::Https {
        return Ok(());
    }
    exchange.undecided(head);
    // A browser follows no redirect of a handshake.
    let handshake = head.is_extended() || head.fields.lists(Kind::Upgrade, "websocket");
    let safe = [Method::GET, Method::HEAD].contains(&head.method) && !handshake;
    // A secret in a path has been seen by whoever looked on: who sends it so is to notice, and is not helped on.
    let sent_on = peer.https_only == HttpsOnly::Redirect
        && safe
        && !exchange.snapshot().policy.may_hold_secret(head.path());
    Err(Refusal::Insecure { location: if sent_on { address(head) } else { None } })
}

/// The address of a request over HTTPS, at that scheme's own port; `None` where it names no host, or has a query that no
/// URI has. Host and path have been checked.
fn address(head: &Head) -> Option<Box<str>> {
    let host = head.fields.first(Kind::Host).and_then(|host| std::str::from_utf8(host).ok());
    let host = host.or(head.authority())?;
    let name = match host.find(']') {
        Some(end) => host.get(..=end)?,
        None => host.split(':').next()?,
    };
    let query = head.query().map_or(String::new(), |query| format!("?{query}"));
    let location = format!("https://{name}{}{query}", head.path());
    location.bytes().all(|byte| byte.is_ascii_graphic()).then(|| location.into())
}

//! `surfaces:`: the parts of the service, each with its own access and gating.

use std::collections::HashMap;

use super::fields::{Fields, Report, place_of};
use super::limits::{Limits, Timeouts};
use super::node::{Name, Node};
use super::problem::Place;
use super::route::{Access, Context, ERROR_FORMS, ErrorForm, Proof, Route};
use super::upstream::{Protocol, Upstream};
use crate::identity::scope::Scopes;

/// One part of the service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Surface {
    /// As logs and metrics name it.
    pub name: Box<str>,
    /// Whether a key is asked for.
    pub access: Access,
    /// What its callers are known by.
    pub proof: Proof,
    /// The flags that must all be on: places in [`super::Live::flags`].
    pub flags: Vec<usize>,
    /// Where its requests go: a place in [`super::Live::upstreams`].
    pub upstream: usize,
    /// A secret may stand in the path: it reaches no log, and the client's own headers are left as they came.
    pub private: bool,
    /// `%2F` may stand in the part of a path that `**` matches.
    pub encoded_slash: bool,
    /// The most bytes of a body; `None` leaves that to [`Limits::body`].
    pub body: Option<u64>,
    /// Set where the surface's requests are WebSocket handshakes.
    pub channel: Option<Channel>,
    /// Its routes, in the order of the file; never empty.
    pub routes: Vec<Route>,
}

/// How a WebSocket surface treats its channels.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Channel {
    /// How a handshake is refused for good.
    pub refusal: ChannelRefusal,
    /// What becomes of open channels when a flag of the surface is turned off.
    pub on_flag_off: OnFlagOff,
    /// What a channel is closed with when its key may not be used any more: 4000 to 4099; [`Channel::REVOKED`] unless
    /// written.
    pub revoke_code: u16,
    /// The query name that says which session a channel opens: whose key minted it is whose channel it is.
    pub session: Option<Box<str>>,
    /// What becomes of a session's channel when its key may not be used any more.
    pub on_revoke: OnRevoke,
}

/// What becomes of the channel of a session that was minted with a key, when that may not be used any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnRevoke {
    /// It stays: TelAPI's own sessions outlive their key.
    Keep,
    /// It is closed, and not opened any more.
    Close,
}

/// How a handshake is refused for good.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChannelRefusal {
    /// The handshake is completed, one error message sent, and the channel closed with this code.
    /// The browser SDK comes back for ever after anything else than 1000 and 4000 to 4099.
    Close {
        /// 4000 to 4099; [`ChannelRefusal::CODE`] unless written.
        code: u16,
        /// What the page shows; the refusal's own sentence unless written.
        message: Option<Box<str>>,
    },
    /// An ordinary HTTP answer.
    Http,
}

impl ChannelRefusal {
    /// A page shows it as one line.
    pub const MESSAGE_MOST: usize = 120;
    /// In the range that the SDK takes as final, and not 4000, which it reads as "opened elsewhere".
    pub const CODE: u16 = 4003;
}

/// What becomes of open channels when a flag of their surface is turned off.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum OnFlagOff {
    /// They are closed with the refusal's code.
    Close,
    /// They stay until somebody leaves.
    Keep,
}

/// What surfaces may name.
#[derive(Debug, Clone, Copy)]
pub(super) struct Named<'a> {
    /// The entries of `upstreams:` and `flags:`, good or bad; `None` where the section could not be read.
    pub(super) upstreams: Option<&'a [(Name, Node)]>,
    /// What they say, where all of them are good.
    pub(super) read: Option<&'a [Upstream]>,
    pub(super) flags: Option<&'a [(Name, Node)]>,
    pub(super) scopes: Option<&'a Scopes>,
    /// What holds where a surface says nothing else.
    pub(super) timeouts: Timeouts,
    /// A listener asks clients for a certificate.
    pub(super) certificates: bool,
}

impl Named<'_> {
    /// What holds where a route of a surface says nothing else.
    fn timeouts(&self, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Timeouts {
        let node = fields.take("timeouts");
        node.and_then(|node| self.timeouts.within(node, report)).unwrap_or(self.timeouts)
    }

    /// A WebSocket begins as a request of HTTP/1.1.
    fn can_switch(&self, what: &str, node: &Node, place: usize, report: &mut Report<'_>) {
        let upstream = self.read.and_then(|read| read.get(place));
        if let Some(Upstream { name, protocol: Protocol::Http2, .. }) = upstream {
            let message =
                format!("{what} takes WebSockets, and its upstream `{name}` is spoken to over HTTP/2 alone");
            let hint = "WebSockets are opened over HTTP/1.1: write `protocol: auto`, which has both, or give the surface an upstream of its own at the same address";
            report.error(node.place, message, hint);
        }
    }

    fn flags(&self, node: &Node, report: &mut Report<'_>) -> Option<Vec<usize>> {
        let words = node.words("`flags`", report)?;
        let places = words.into_iter().map(|(at, word)| place_of(self.flags, word, "flag", at, report));
        places.collect::<Vec<_>>().into_iter().collect()
    }
}

impl Surface {
    pub(super) fn read_all(node: &Node, named: &Named<'_>, report: &mut Report<'_>) -> Option<Vec<Self>> {
        let entries = node.mapping("`surfaces`", report)?;
        if entries.is_empty() {
            report.error(
                node.place,
                "`surfaces` is empty",
                "nothing would pass; write a part of the service with its routes",
            );
        }
        let mut shapes: HashMap<String, (Place, &str)> = HashMap::new();
        let mut surfaces = Vec::new();
        for (name, value) in entries {
            let known = name.word("the name of a surface", report);
            let Some((surface, places)) = Self::read(&name.text, value, named, report) else { continue };
            let Some(_) = known else { continue };
            for (place, route) in places.into_iter().zip(&surface.routes) {
                if let Some((first, other)) = shapes.get(&route.shape()) {
                    let message = format!(
                        "`{}` can match what the route on line {} of surface `{other}` matches",
                        route.pattern.template, first.line
                    );
                    report.error(
                        place,
                        message,
                        "one request must have one route: remove one of them, or make their paths differ",
                    );
                } else {
                    shapes.insert(route.shape(), (place, &name.text));
                }
            }
            surfaces.push(surface);
        }
        unused(&surfaces, named, report);
        Some(surfaces)
    }

    fn read(
        name: &str,
        node: &Node,
        named: &Named<'_>,
        report: &mut Report<'_>,
    ) -> Option<(Self, Vec<Place>)> {
        let what = format!("surface `{name}`");
        let mut fields = Fields::of(node, &what, report)?;
        let access = access(&mut fields, named, report);
        let (access, proof) = (access.map(|(access, _)| access), access.map(|(_, proof)| proof));
        let flags = fields.or("flags", Vec::new(), report, |node, report| named.flags(node, report));
        let upstream = fields.or("upstream", 0, report, |node, report| {
            place_of(named.upstreams, node.text("`upstream`", report)?, "upstream", node.place, report)
        });
        let private = fields.or("private", false, report, |node, report| node.bool("`private`", report));
        let encoded_slash =
            fields.or("encoded_slash", false, report, |node, report| node.bool("`encoded_slash`", report));
        let body =
            fields.maybe("body", report, |node, report| node.bytes("`body`", 1, Limits::BODY_MOST, report));
        let timeouts = named.timeouts(&mut fields, report);
        let errors = fields.or("errors", ErrorForm::Object, report, |node, report| {
            node.one_of("`errors`", &ERROR_FORMS, report)
        });
        let channel = Channel::read(&mut fields, report);
        one_owner(&what, node, access, channel.as_ref(), report);
        if let (Some(Some(_)), Some(place)) = (&channel, upstream) {
            named.can_switch(&what, node, place, report);
        }
        let routes = fields.need(
            "routes",
            "write `routes: [GET /path]`, or for `access: key` a mapping from route to scope",
            report,
        );
        fields.done(report);
        let context = Context {
            scopes: named.scopes,
            access,
            errors: errors.unwrap_or(ErrorForm::Object),
            channel: !matches!(channel, Some(None)),
            timeouts,
        };
        let (places, routes) = routes_of(&what, routes?, context, report).into_iter().unzip();
        let surface = Self {
            name: name.into(),
            access: access?,
            proof: proof?,
            flags: flags?,
            upstream: upstream?,
            private: private?,
            encoded_slash: encoded_slash?,
            body: body?,
            channel: channel?,
            routes,
        };
        Some((surface, places))
    }
}

fn routes_of(what: &str, node: &Node, context: Context<'_>, report: &mut Report<'_>) -> Vec<(Place, Route)> {
    let before = report.errors();
    let read = Route::read_all(node, context, report);
    if read.is_empty() && report.errors() == before {
        report.error(
            node.place,
            format!("{what} has no routes"),
            "it would match nothing: write one, or remove the surface",
        );
    }
    read
}

fn access(fields: &mut Fields<'_>, named: &Named<'_>, report: &mut Report<'_>) -> Option<(Access, Proof)> {
    let hint = "write `access: key`, or `access: open` where the upstream has checks of its own";
    let words = [
        ("open", (Access::Open, Proof::Key)),
        ("key", (Access::Key, Proof::Key)),
        ("certificate", (Access::Key, Proof::Certificate)),
        ("key_and_certificate", (Access::Key, Proof::Both)),
    ];
    let node = fields.need("access", hint, report)?;
    let (access, proof) = node.one_of("`access`", &words, report)?;
    if proof != Proof::Key && !named.certificates {
        let message = "no listener asks for a certificate, so that nobody could pass here";
        report.error(node.place, message, "write `client_certificates:` in the `tls:` of a listener");
    }
    Some((access, proof))
}

/// A channel belongs to the key that it was opened with, or to the one that its session was minted with.
fn one_owner(
    what: &str,
    node: &Node,
    access: Option<Access>,
    channel: Option<&Option<Channel>>,
    report: &mut Report<'_>,
) {
    if let (Some(Access::Key), Some(Some(Channel { session: Some(_), .. }))) = (access, channel) {
        let message = format!("{what} asks for a key, and its `session` says whose it is, too");
        report.error(node.place, message, "remove `session`, or write `access: open`");
    }
}

/// What is defined and not used is most often a name that was meant somewhere.
fn unused(surfaces: &[Surface], named: &Named<'_>, report: &mut Report<'_>) {
    if report.errors() > 0 {
        // What could not be read may have used it.
        return;
    }
    for (number, (flag, _)) in named.flags.unwrap_or_default().iter().enumerate() {
        if !surfaces.iter().any(|surface| surface.flags.contains(&number)) {
            let message = format!("no surface names the flag `{}`", flag.text);
            report.warning(flag.place, message, "turning it off closes nothing");
        }
    }
    for (number, (upstream, _)) in named.upstreams.unwrap_or_default().iter().enumerate() {
        if !surfaces.iter().any(|surface| surface.upstream == number) {
            let message = format!("no surface uses the upstream `{}`", upstream.text);
            report.warning(upstream.place, message, "nothing is sent there");
        }
    }
}

/// A code that the browser SDK takes as final.
fn close_code(node: &Node, what: &str, report: &mut Report<'_>) -> Option<u16> {
    node.whole(what, 4000, 4099, report).and_then(|code| u16::try_from(code).ok())
}

impl Channel {
    /// TelAPI's own channel closes with it when a session's token is not good.
    pub const REVOKED: u16 = 4001;

    /// `Some(None)` where the surface is none.
    fn read(fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Option<Self>> {
        let upgrade = fields
            .maybe("upgrade", report, |node, report| node.one_of("`upgrade`", &[("websocket", ())], report));
        let refusal = fields.take("refusal");
        let on_flag_off = fields.take("on_flag_off");
        let revoke_code = fields.take("revoke_code");
        let (session, on_revoke_node) = (fields.take("session"), fields.take("on_revoke"));
        if upgrade == Some(None) {
            for node in [refusal, on_flag_off, revoke_code, session, on_revoke_node].into_iter().flatten() {
                report.error(
                    node.place,
                    format!("{} has channel settings, but no `upgrade`", fields.what),
                    "add `upgrade: websocket`, or remove this",
                );
            }
            return Some(None);
        }
        let close = ChannelRefusal::Close { code: ChannelRefusal::CODE, message: None };
        let refusal = refusal.map_or(Some(close), |node| ChannelRefusal::read(node, report));
        let on_flag_off = on_flag_off.map_or(Some(OnFlagOff::Close), |node| {
            node.one_of("`on_flag_off`", &[("close", OnFlagOff::Close), ("keep", OnFlagOff::Keep)], report)
        });
        let revoke_code =
            revoke_code.map_or(Some(Self::REVOKED), |node| close_code(node, "`revoke_code`", report));
        let session =
            session.map_or(Some(None), |node| node.word("`session`", report).map(|name| Some(name.into())));
        let on_revoke = on_revoke_node.map_or(Some(OnRevoke::Keep), |node| {
            node.one_of("`on_revoke`", &[("keep", OnRevoke::Keep), ("close", OnRevoke::Close)], report)
        });
        if let (Some(node), Some(OnRevoke::Close), Some(None)) = (on_revoke_node, on_revoke, &session) {
            let hint = "write `session: sessionId`, the query name that a route `mints`";
            report.error(node.place, "`on_revoke` closes nothing without `session`", hint);
        }
        upgrade?;
        Some(Some(Self {
            refusal: refusal?,
            on_flag_off: on_flag_off?,
            revoke_code: revoke_code?,
            session: session?,
            on_revoke: on_revoke?,
        }))
    }
}

impl ChannelRefusal {
    fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`refusal`", report)?;
        let close = fields.or("as", true, report, |node, report| {
            node.one_of("`as`", &[("close", true), ("http", false)], report)
        });
        let code_node = fields.take("code");
        let code = code_node.map_or(Some(Self::CODE), |node| close_code(node, "`code`", report));
        let message_node = fields.take("message");
        let message = message_node.map_or(Some(None), |node| node.word("`message`", report).map(Some));
        fields.done(report);
        let (close, code, message) = (close?, code?, message?);
        if !close {
            for node in [code_node, message_node].into_iter().flatten() {
                report.error(node.place, "`as: http` closes no channel", "remove this, or write `as: close`");
            }
            return Some(Self::Http);
        }
        if let (4000, Some(node)) = (code, code_node) {
            let message = "the browser SDK reads `code` 4000 as \"opened elsewhere\"";
            report.warning(node.place, message, "write 4001 to 4099 for a refusal");
        }
        if let (Some(text), Some(node)) = (message, message_node)
            && text.len() > Self::MESSAGE_MOST
        {
            let most = Self::MESSAGE_MOST;
            let hint = format!(
                "a page shows it as one line: at most {most} bytes; letters outside of ASCII take two or more"
            );
            report.error(node.place, format!("`message` has {} bytes", text.len()), hint);
        }
        Some(Self::Close { code, message: message.map(Box::from) })
    }
}

//! `timeouts:` and `drain:`: how long we wait, and how we leave.

use std::time::Duration;

use super::fields::{Fields, Report};
use super::node::Node;

/// How long we wait for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For a TCP connection to the upstream.
    pub connect: Duration,
    /// From the request's last byte to the answer's first.
    pub first_byte: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
    /// For a tunnel on which neither side says anything.
    pub tunnel: Duration,
    /// How long an unused upstream connection is kept.
    pub pool: Duration,
}

impl Timeouts {
    /// A sidecar's upstream is near: a connection that takes two seconds will not come.
    pub const CONNECT: Duration = Duration::from_secs(2);
    /// The SDK's calls have no timeout of their own; half a minute is past any call that still helps.
    pub const FIRST_BYTE: Duration = Duration::from_secs(30);
    /// Event streams send a comment every 15 to 30 seconds; twice that is silence.
    pub const IDLE: Duration = Duration::from_secs(60);
    /// The SDK pings every 30 s, a hidden tab about every 60 s: twice the slower one.
    pub const TUNNEL: Duration = Duration::from_secs(120);
    /// The least that [`Timeouts::tunnel`] may be: below it a hidden tab's ping may come too late.
    pub const TUNNEL_LEAST: Duration = Duration::from_secs(75);
    /// Below the five seconds after which a stock Node server hangs up on an idle connection.
    pub const POOL: Duration = Duration::from_secs(4);
}

/// How we leave after SIGTERM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Drain {
    /// Readiness fails for this long before the listeners close, so that balancers look away first.
    pub delay: Duration,
    /// After this long in all, whatever is left is cut and the process exits.
    pub grace: Duration,
}

impl Drain {
    /// Kubernetes needs a few seconds to take an endpoint out of every node's tables.
    pub const DELAY: Duration = Duration::from_secs(5);
    /// Below the 30 s after which Kubernetes kills.
    pub const GRACE: Duration = Duration::from_secs(25);
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Self::CONNECT,
            first_byte: Self::FIRST_BYTE,
            idle: Self::IDLE,
            tunnel: Self::TUNNEL,
            pool: Self::POOL,
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self { delay: Self::DELAY, grace: Self::GRACE }
    }
}

impl Timeouts {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`timeouts`", report)?;
        let mut read = |name, default: Duration| {
            let Some(node) = fields.take(name) else { return Some(default) };
            let duration = node.duration(&format!("`{name}`"), report)?;
            if duration.is_zero() {
                report.error(
                    node.place,
                    format!("`{name}` is zero"),
                    format!("a timeout of zero is not allowed; the default is {default:?}"),
                );
            }
            if name == "tunnel" && duration < Self::TUNNEL_LEAST {
                report.error(
                    node.place,
                    "`tunnel` is below 75s",
                    "a hidden browser tab may send its ping only once a minute, and would be cut",
                );
            }
            Some(duration)
        };
        let (connect, first_byte) = (read("connect", Self::CONNECT), read("first_byte", Self::FIRST_BYTE));
        let (idle, tunnel, pool) =
            (read("idle", Self::IDLE), read("tunnel", Self::TUNNEL), read("pool", Self::POOL));
        fields.done(report);
        Some(Self { connect: connect?, first_byte: first_byte?, idle: idle?, tunnel: tunnel?, pool: pool? })
    }
}

impl Drain {
    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`drain`", report)?;
        let mut read = |name, default| {
            fields.take(name).map_or(Some(default), |node| node.duration(&format!("`{name}`"), report))
        };
        let (delay, grace) = (read("delay", Self::DELAY), read("grace", Self::GRACE));
        fields.done(report);
        let drain = Self { delay: delay?, grace: grace? };
        if drain.delay >= drain.grace {
            report.error(
                node.place,
                "`delay` is not below `grace`",
                "the grace period counts from the signal and holds the delay",
            );
        }
        Some(drain)
    }
}

//! `timeouts:`, `limits:` and `drain:`: how long we wait, how much we take, and how we leave.

use std::time::Duration;

use super::fields::{Fields, Report};
use super::node::{Node, Value};

/// How long we wait for whom.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// For the head of a request, from its first byte to its last.
    pub head: Duration,
    /// For the next request on a connection.
    pub keep_alive: Duration,
    /// For a TCP connection to the upstream.
    pub connect: Duration,
    /// From the request's last byte to the answer's first.
    pub first_byte: Duration,
    /// Between two pieces of a body, either way.
    pub idle: Duration,
    /// From when a request is sent on to the last byte of its answer; `None` is for ever. A channel's handshake is an
    /// answer, and what follows it is none.
    pub total: Option<Duration>,
    /// For a tunnel on which neither side says anything.
    pub tunnel: Duration,
    /// How long an unused upstream connection is kept.
    pub pool: Duration,
}

impl Timeouts {
    /// A head is a packet or two; ten seconds are enough for the worst of mobile networks.
    pub const HEAD: Duration = Duration::from_secs(10);
    /// Longer than any balancer keeps its connections (Google's 600 s is the longest), so that it is never we who close one
    /// under a request.
    pub const KEEP_ALIVE: Duration = Duration::from_secs(620);
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

/// How much we take of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Bytes of a request's head.
    pub head: usize,
    /// Fields of a request's head.
    pub fields: usize,
    /// Bytes of a request's target.
    pub target: usize,
    /// Bytes of a request's body, where its surface says nothing else.
    pub body: u64,
    /// Connections of all clients together.
    pub connections: usize,
    /// Connections of one client, and streams of HTTP/2 over all of them; of trusted proxies, which bring many clients, all.
    pub connections_per_client: usize,
    /// Requests that the upstreams work on at once.
    pub in_flight: usize,
    /// Requests at once on one connection of HTTP/2.
    pub streams: u32,
    /// Streams of one connection of HTTP/2 that were reset, and are not forgotten yet.
    pub resets: usize,
    /// Frames a second on one connection of HTTP/2 that do nothing for any request, in the long run.
    pub control_frames: u32,
}

impl Limits {
    /// Twice what a stock Node server takes: its own refusal is passed on, and memory is bounded.
    pub const HEAD: usize = 32 * 1024;
    /// The most that it may be; a head is held whole.
    pub const HEAD_MOST: usize = 1 << 20;
    /// A browser sends some twenty.
    pub const FIELDS: usize = 100;
    /// What a stock Node server takes for a whole head.
    pub const TARGET: usize = 16 * 1024;
    /// A body passes through and is never held, so this ends only what never ends: sixty-four times what Fastify takes.
    pub const BODY: u64 = 64 << 20;
    /// The most that it may be: no limit, for those who want none.
    pub const BODY_MOST: u64 = 1 << 40;
    /// About 11 KiB each where they rest under TLS, and 3 in plain: 110 MiB at the most, which a sidecar may have.
    pub const CONNECTIONS: usize = 10_000;
    /// A browser opens six, a busy client a pool of some hundred.
    pub const CONNECTIONS_PER_CLIENT: usize = 1_000;
    /// A Node process serves some thousands a second in milliseconds each: with more than this at once it is not serving.
    pub const IN_FLIGHT: usize = 4_096;
    /// What browsers and gRPC are made for (RFC 9113, 6.5.2, asks for no fewer).
    pub const STREAMS: u32 = 100;
    /// A page that is left resets all that it asked for at once.
    pub const RESETS: usize = 100;
    /// A browser sends some ten, and a balancer as many for each of a hundred clients.
    pub const CONTROL_FRAMES: u32 = 1_000;

    pub(super) fn read(node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`limits`", report)?;
        let head = size(&mut fields, "head", Self::HEAD, Self::HEAD_MOST, report);
        let target = size(&mut fields, "target", Self::TARGET, Self::HEAD_MOST, report);
        let count = fields.or("fields", Self::FIELDS, report, |node, report| {
            let count = node.whole("`fields`", 8, MOST_FIELDS, report);
            count.and_then(|count| usize::try_from(count).ok())
        });
        let body = fields
            .or("body", Self::BODY, report, |node, report| node.bytes("`body`", 1, Self::BODY_MOST, report));
        let mut number = |name, default: usize, most: i128| {
            fields.or(name, default, report, |node, report| {
                let number = node.whole(&format!("`{name}`"), 1, most, report);
                number.and_then(|number| usize::try_from(number).ok())
            })
        };
        let connections = number("connections", Self::CONNECTIONS, 10_000_000);
        let per_client = number("connections_per_client", Self::CONNECTIONS_PER_CLIENT, 10_000_000);
        let in_flight = number("in_flight", Self::IN_FLIGHT, 10_000_000);
        let resets = number("resets", Self::RESETS, 100_000);
        let streams = number("streams", Self::STREAMS as usize, 10_000);
        let control_frames = number("control_frames", Self::CONTROL_FRAMES as usize, 1_000_000);
        fields.done(report);
        Some(Self {
            head: head?,
            fields: count?,
            target: target?,
            body: body?,
            connections: connections?,
            connections_per_client: per_client?,
            in_flight: in_flight?,
            streams: streams.and_then(|streams| u32::try_from(streams).ok())?,
            resets: resets?,
            control_frames: control_frames.and_then(|count| u32::try_from(count).ok())?,
        })
    }
}

/// As many as can be read at once.
const MOST_FIELDS: i128 = crate::message::head::MOST_FIELDS as i128;

fn size(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: usize,
    most: usize,
    report: &mut Report<'_>,
) -> Option<usize> {
    fields.or(name, default, report, |node, report| {
        let bytes = node.bytes(&format!("`{name}`"), 1024, most as u64, report);
        bytes.and_then(|bytes| usize::try_from(bytes).ok())
    })
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            head: Self::HEAD,
            fields: Self::FIELDS,
            target: Self::TARGET,
            body: Self::BODY,
            connections: Self::CONNECTIONS,
            connections_per_client: Self::CONNECTIONS_PER_CLIENT,
            in_flight: Self::IN_FLIGHT,
            streams: Self::STREAMS,
            resets: Self::RESETS,
            control_frames: Self::CONTROL_FRAMES,
        }
    }
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
            head: Self::HEAD,
            keep_alive: Self::KEEP_ALIVE,
            connect: Self::CONNECT,
            first_byte: Self::FIRST_BYTE,
            idle: Self::IDLE,
            // A download over a slow line, or an event stream, takes as long as it takes; silence ends what has died.
            total: None,
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
        let mut read = |name, default| wait(&mut fields, name, default, report);
        let (head, keep_alive) = (read("head", Self::HEAD), read("keep_alive", Self::KEEP_ALIVE));
        let (tunnel, pool) = (read("tunnel", Self::TUNNEL), read("pool", Self::POOL));
        let requests = Self::default().of_requests(&mut fields, report);
        fields.done(report);
        Some(Self { head: head?, keep_alive: keep_alive?, tunnel: tunnel?, pool: pool?, ..requests? })
    }

    /// What a surface or a route says of its own; what it does not say is as it is around it.
    pub(super) fn within(self, node: &Node, report: &mut Report<'_>) -> Option<Self> {
        let mut fields = Fields::of(node, "`timeouts`", report)?;
        for name in ["head", "keep_alive", "tunnel", "pool"] {
            if let Some(node) = fields.take_stray(name) {
                report.error(
                    node.place,
                    format!("`{name}` is not of one route: it is waited for before there is one, or after"),
                    "write it under `timeouts:` of the whole file",
                );
            }
        }
        let read = self.of_requests(&mut fields, report);
        fields.done(report);
        read
    }

    /// Those that a request has of its own.
    fn of_requests(self, fields: &mut Fields<'_>, report: &mut Report<'_>) -> Option<Self> {
        let connect = wait(fields, "connect", self.connect, report);
        let first_byte = wait(fields, "first_byte", self.first_byte, report);
        let idle = wait(fields, "idle", self.idle, report);
        let total = fields.take("total").map_or(Some(self.total), |node| {
            let off = matches!(&node.value, Value::Text(text) if text == "off");
            if off { Some(None) } else { duration(node, "total", "`off`", report).map(Some) }
        });
        Some(Self { connect: connect?, first_byte: first_byte?, idle: idle?, total: total?, ..self })
    }
}

fn wait(
    fields: &mut Fields<'_>,
    name: &'static str,
    default: Duration,
    report: &mut Report<'_>,
) -> Option<Duration> {
    let Some(node) = fields.take(name) else { return Some(default) };
    let duration = duration(node, name, &format!("{default:?}"), report)?;
    if name == "tunnel" && duration < Timeouts::TUNNEL_LEAST {
        report.error(
            node.place,
            "`tunnel` is below 75s",
            "a hidden browser tab may send its ping only once a minute, and would be cut",
        );
    }
    Some(duration)
}

fn duration(node: &Node, name: &str, default: &str, report: &mut Report<'_>) -> Option<Duration> {
    let duration = node.duration(&format!("`{name}`"), report)?;
    if duration.is_zero() {
        report.error(
            node.place,
            format!("`{name}` is zero"),
            format!("a timeout of zero is not allowed; the default is {default}"),
        );
    }
    Some(duration)
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

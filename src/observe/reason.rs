//! Every way in which a request can end, as one bounded table.
//!
//! A row is the code of the JSON body, the `reason` of log and metrics, and a line of docs/errors.md
//! (a test compares). Codes are never given a new meaning.

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Reason {
    /// The upstream's own answer was forwarded to its end, whatever its status.
    Passed,
    /// A preflight that is answered here.
    Preflight,
    /// It cannot be read as HTTP, or in more than one way.
    RequestInvalid,
    /// Its target is longer than we take.
    TargetTooLong,
    /// Its head is larger than we take, or has more fields.
    HeadTooLarge,
    /// Its head did not come whole in time.
    HeadTimeout,
    /// It expects something else than 100-continue.
    ExpectationUnknown,
    /// Its body has a transfer coding that we do not know.
    CodingUnknown,
    /// A version of HTTP that we do not speak.
    VersionUnknown,
    /// The target is no path of ours: CONNECT, `*`, or an authority that contradicts Host.
    TargetInvalid,
    /// No Host, two of them, or one that is none.
    HostInvalid,
    /// It came over plain HTTP where only HTTPS is taken.
    HttpsRequired,
    /// The path could be read in two ways.
    PathAmbiguous,
    /// No route matches.
    RouteUnknown,
    /// The path is known, the method is not.
    MethodUnknown,
    /// A query name that the route demands is missing.
    QueryMissing,
    /// The route takes WebSocket handshakes only.
    UpgradeRequired,
    /// The key of a WebSocket handshake is none.
    HandshakeInvalid,
    /// A feature flag of the surface is off.
    FlagOff,
    /// No key came.
    KeyMissing,
    /// The connection has no certificate.
    CertificateMissing,
    /// Nobody has this certificate.
    CertificateUnknown,
    /// A key header holds no key.
    KeyMalformed,
    /// A key header stands twice.
    KeyRepeated,
    /// Two headers carry two keys.
    KeyConflict,
    /// Nobody has this key.
    KeyUnknown,
    /// The key has ended.
    KeyExpired,
    /// The key is turned off.
    KeyDisabled,
    /// The key's team is turned off or deleted.
    TeamDisabled,
    /// The key died while the request, the stream or the channel was open.
    KeyRevoked,
    /// The place where keys are looked up does not answer.
    KeysUnavailable,
    /// As many unknown keys are looked up as are allowed.
    KeysBusy,
    /// The key may not do this.
    ScopeMissing,
    /// The body is larger than we take.
    BodyTooLarge,
    /// As many requests are in flight as we allow.
    Overloaded,
    /// As many refused channels are being told so as we allow.
    ChannelsBusy,
    /// The upstream's name has no address.
    UpstreamUnresolved,
    /// The upstream refuses connections.
    UpstreamRefused,
    /// The upstream did not prove who it is, or did not believe us.
    UpstreamTls,
    /// No connection to the upstream in time.
    UpstreamConnectTimeout,
    /// The upstream has not begun to answer in time.
    UpstreamFirstByteTimeout,
    /// The upstream fell silent in the middle of its answer.
    UpstreamIdleTimeout,
    /// The answer was not whole within the time that all of it may take.
    TotalTimeout,
    /// The upstream hung up before its answer was whole.
    UpstreamClosed,
    /// The upstream's answer is no HTTP, or none that we may pass on.
    UpstreamInvalid,
    /// The client stopped sending its body.
    ClientTimeout,
    /// The client's body is not what its head announced.
    ClientInvalid,
    /// The client left before its answer was whole.
    ClientGone,
    /// The client took nothing of its answer for too long.
    ClientSlow,
    /// Neither side of a channel said anything for too long.
    ChannelIdle,
    /// A side of a channel broke off.
    ChannelBroken,
    /// It was cut because this process ends.
    Drained,
    /// A defect of ours.
    Internal,
}

/// What is said of a reason.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Row {
    /// The stable name.
    pub code: &'static str,
    /// The status of an answer that has not begun; 0 where there is none to give.
    pub status: u16,
    /// The same for a call of gRPC (its doc/statuscodes.md); 0 where none is told.
    pub grpc: u8,
    /// What the client is told: what it can do, and nothing of our inside.
    pub message: &'static str,
}

impl Reason {
    /// How many there are.
    pub const COUNT: usize = Self::ALL.len();

    /// All of them, in the order of their numbers.
    pub const ALL: [Self; 53] = [
        Self::Passed,
        Self::Preflight,
        Self::RequestInvalid,
        Self::TargetTooLong,
        Self::HeadTooLarge,
        Self::HeadTimeout,
        Self::ExpectationUnknown,
        Self::CodingUnknown,
        Self::VersionUnknown,
        Self::TargetInvalid,
        Self::HostInvalid,
        Self::HttpsRequired,
        Self::PathAmbiguous,
        Self::RouteUnknown,
        Self::MethodUnknown,
        Self::QueryMissing,
        Self::UpgradeRequired,
        Self::HandshakeInvalid,
        Self::FlagOff,
        Self::KeyMissing,
        Self::CertificateMissing,
        Self::CertificateUnknown,
        Self::KeyMalformed,
        Self::KeyRepeated,
        Self::KeyConflict,
        Self::KeyUnknown,
        Self::KeyExpired,
        Self::KeyDisabled,
        Self::TeamDisabled,
        Self::KeyRevoked,
        Self::KeysUnavailable,
        Self::KeysBusy,
        Self::ScopeMissing,
        Self::BodyTooLarge,
        Self::Overloaded,
        Self::ChannelsBusy,
        Self::UpstreamUnresolved,
        Self::UpstreamRefused,
        Self::UpstreamTls,
        Self::UpstreamConnectTimeout,
        Self::UpstreamFirstByteTimeout,
        Self::UpstreamIdleTimeout,
        Self::TotalTimeout,
        Self::UpstreamClosed,
        Self::UpstreamInvalid,
        Self::ClientTimeout,
        Self::ClientInvalid,
        Self::ClientGone,
        Self::ClientSlow,
        Self::ChannelIdle,
        Self::ChannelBroken,
        Self::Drained,
        Self::Internal,
    ];

    /// Its place in [`Reason::ALL`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its stable name.
    #[must_use]
    pub fn code(self) -> &'static str {
        self.row().code
    }

    /// Its row of the table.
    #[must_use]
    #[rustfmt::skip]
    pub fn row(self) -> Row {
        let (code, status, grpc, message) = match self {
            Self::Passed => ("passed", 0, 0, "The upstream answered."),
            Self::Preflight => ("preflight", 204, 0, "A CORS preflight was answered here and not by the upstream."),
            Self::RequestInvalid => ("request_invalid", 400, 3, "This is not a request that can be read in one way only."),
            Self::TargetTooLong => ("target_too_long", 414, 3, "The request target is too long."),
            Self::HeadTooLarge => ("head_too_large", 431, 8, "The request's header fields are too large, or too many."),
            Self::HeadTimeout => ("head_timeout", 408, 4, "The request's head did not arrive in time."),
            Self::ExpectationUnknown => ("expectation_unknown", 417, 3, "Expect may say 100-continue only."),
            Self::CodingUnknown => ("coding_unknown", 501, 12, "Transfer-Encoding may say chunked only."),
            Self::VersionUnknown => ("version_unknown", 505, 12, "Send HTTP/1.1, HTTP/1.0 or HTTP/2."),
            Self::TargetInvalid => ("target_invalid", 400, 3, "The request target must be a path, and its authority, if any, must equal Host."),
            Self::HostInvalid => ("host_invalid", 400, 3, "Exactly one valid Host is required."),
            Self::HttpsRequired => ("https_required", 403, 7, "HTTPS is required. Send this request to the https address."),
            Self::PathAmbiguous => ("path_ambiguous", 400, 3, "The path can be read in more than one way. Send it without dot segments, doubled slashes, and encoded slashes."),
            Self::RouteUnknown => ("route_unknown", 404, 12, "There is nothing at this path."),
            Self::MethodUnknown => ("method_unknown", 405, 12, "This path does not take this method. Allow lists those that it takes."),
            Self::QueryMissing => ("query_missing", 400, 3, "A required query parameter is missing."),
            Self::UpgradeRequired => ("upgrade_required", 426, 12, "This path takes WebSocket handshakes only, of version 13."),
            Self::HandshakeInvalid => ("handshake_invalid", 400, 3, "Sec-WebSocket-Key must stand once, and hold 16 bytes in base64."),
            Self::FlagOff => ("flag_off", 403, 7, "This part of the service is turned off."),
            Self::KeyMissing => ("key_missing", 401, 16, "An API key is required: send it as `Authorization: Bearer` or as `X-API-Key`."),
            Self::CertificateMissing => ("certificate_missing", 401, 16, "A client certificate is required: connect with one."),
            Self::CertificateUnknown => ("certificate_unknown", 401, 16, "This client certificate is not known."),
            Self::KeyMalformed => ("key_malformed", 401, 16, "The header that should hold an API key does not hold one."),
            Self::KeyRepeated => ("key_repeated", 401, 16, "A header with an API key stands more than once."),
            Self::KeyConflict => ("key_conflict", 401, 16, "Authorization and X-API-Key hold different keys. Send one of them."),
            Self::KeyUnknown => ("key_unknown", 401, 16, "This API key is not known."),
            Self::KeyExpired => ("key_expired", 401, 16, "This API key has expired."),
            Self::KeyDisabled => ("key_disabled", 401, 16, "This API key is turned off."),
            Self::TeamDisabled => ("team_disabled", 401, 16, "The team of this API key is turned off."),
            Self::KeyRevoked => ("key_revoked", 401, 16, "This API key is not valid any more."),
            Self::KeysUnavailable => ("keys_unavailable", 503, 14, "API keys cannot be checked right now. Try again."),
            Self::KeysBusy => ("keys_busy", 503, 14, "Too many unknown API keys at once. Try again."),
            Self::ScopeMissing => ("scope_missing", 403, 7, "This API key lacks a scope."),
            Self::BodyTooLarge => ("body_too_large", 413, 8, "The request's body is larger than this path takes."),
            Self::Overloaded => ("overloaded", 503, 14, "Too many requests at once. Try again."),
            Self::ChannelsBusy => ("channels_busy", 503, 14, "Too many refused channels at once. Try again."),
            Self::UpstreamUnresolved => ("upstream_unresolved", 502, 14, "The service behind this gateway cannot be found."),
            Self::UpstreamRefused => ("upstream_refused", 502, 14, "The service behind this gateway does not take connections."),
            Self::UpstreamTls => ("upstream_tls", 502, 14, "The service behind this gateway cannot be reached securely."),
            Self::UpstreamConnectTimeout => ("upstream_connect_timeout", 504, 14, "The service behind this gateway cannot be reached in time."),
            Self::UpstreamFirstByteTimeout => ("upstream_first_byte_timeout", 504, 4, "The service behind this gateway did not answer in time."),
            Self::UpstreamIdleTimeout => ("upstream_idle_timeout", 504, 4, "The service behind this gateway fell silent."),
            Self::TotalTimeout => ("total_timeout", 504, 4, "The answer took longer than this path may take."),
            Self::UpstreamClosed => ("upstream_closed", 502, 14, "The service behind this gateway hung up before its answer was whole."),
            Self::UpstreamInvalid => ("upstream_invalid", 502, 13, "The service behind this gateway gave an answer that cannot be passed on."),
            Self::ClientTimeout => ("client_timeout", 408, 4, "The request's body did not arrive in time."),
            Self::ClientInvalid => ("client_invalid", 400, 3, "The request's body is not what its head announced."),
            Self::ClientGone => ("client_gone", 499, 1, "The client left before its answer was whole."),
            Self::ClientSlow => ("client_slow", 0, 0, "The client took nothing of its answer for too long, and was cut off."),
            Self::ChannelIdle => ("channel_idle", 0, 0, "Neither side of the channel said anything for too long."),
            Self::ChannelBroken => ("channel_broken", 0, 0, "A side of the channel broke off."),
            Self::Drained => ("drained", 0, 0, "This gateway ended before the answer was whole, or closed the channel to end."),
            Self::Internal => ("internal", 500, 13, "This gateway has failed."),
        };
        Row { code, status, grpc, message }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_in_order_and_no_code_stands_twice() {
        for (place, reason) in Reason::ALL.iter().enumerate() {
            assert_eq!(reason.index(), place, "{reason:?}");
            let same = Reason::ALL.iter().filter(|other| other.code() == reason.code());
            assert_eq!(same.count(), 1, "{reason:?}");
        }
    }
}

//! What was written, and what it means.
//!
//! Two readings: [`node`] is the text with places, and the sections below turn it into a [`Config`]
//! with every default filled in. All problems of a file are found in one reading. Nothing here knows
//! what a value is used for.

pub mod cors;
pub mod endpoint;
pub mod fields;
pub mod file;
pub mod key_digest;
pub mod keys;
pub mod limits;
pub mod listen;
mod met;
pub mod node;
mod pattern;
pub mod problem;
mod reader;
pub mod route;
mod scalar;
pub mod sources;
pub mod surface;
pub mod tls;
pub mod trust;
mod twins;
pub mod upstream;
pub mod values;

use ipnet::IpNet;

use crate::identity::scope::Scopes;

/// One valid configuration.
#[derive(Debug, Clone, PartialEq)]
pub struct Config {
    /// What needs a restart to change.
    pub fixed: Fixed,
    /// What a reload changes.
    pub live: Live,
}

/// The sections that are read once, at the start.
#[derive(Debug, Clone, PartialEq)]
pub struct Fixed {
    /// Where clients are taken in; never empty.
    pub listen: Vec<listen::Listen>,
    /// Where health, metrics and the live configuration are shown.
    pub admin: listen::Admin,
    /// Threads of the data path; `None` is one a core of the CPU quota.
    pub workers: Option<usize>,
    /// What logs look like.
    pub log: listen::Log,
    /// How a key becomes the digest that sources know it by.
    pub key_digest: key_digest::KeyDigest,
}

/// The sections that a reload changes for the next request.
#[derive(Debug, Clone, PartialEq)]
pub struct Live {
    /// Peers whose forwarded headers and request id are believed.
    pub trusted_proxies: Vec<IpNet>,
    /// The services behind us, in the order of the file; the first is the default.
    pub upstreams: Vec<upstream::Upstream>,
    /// Feature flags and whether they are on.
    pub flags: Vec<Flag>,
    /// What the platform defines.
    pub scopes: Scopes,
    /// Where keys are looked up: the first that knows a key answers; never empty.
    pub keys: Vec<sources::Source>,
    /// What keys begin with that scopegate made: one that begins so and is not whole is not looked up.
    pub key_prefix: Option<Box<str>>,
    /// Whether the upstream sees the credential.
    pub credential: Credential,
    /// Whether the upstream is told who called (`X-Scopegate-Team`, `-Key-Id`, `-Scopes`).
    pub identity_headers: bool,
    /// The status for what no route matches.
    pub unmatched: u16,
    /// Which pages may read our answers; `None` leaves preflights to the upstream.
    pub cors: Option<cors::Cors>,
    /// How long we wait for whom.
    pub timeouts: limits::Timeouts,
    /// How much we take.
    pub limits: limits::Limits,
    /// How we leave.
    pub drain: limits::Drain,
    /// The parts of the service, in the order of the file.
    pub surfaces: Vec<surface::Surface>,
}

/// A feature flag of the platform.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Flag {
    /// As surfaces name it.
    pub name: Box<str>,
    /// Off closes every surface that names it.
    pub on: bool,
}

/// What happens to the credential of an admitted request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Credential {
    /// It goes on as it came: TelAPI checks it again.
    Forward,
    /// It is removed: for an upstream that does not check.
    Strip,
}

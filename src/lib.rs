//! scopegate: a reverse-proxy sidecar that decides, for every request to a service that nobody may change, whether
//! its API key may do that, and forwards what may pass.
//!
//! Start with [`gateway::Gateway`], the life of one request. A request meets [`accept`], [`decide`], [`forward`]
//! and [`observe`], in that order; the other modules are what these consult. ARCHITECTURE.md is the map.

pub mod gateway;

pub mod accept;
pub mod decide;
pub mod forward;
pub mod observe;

pub mod channel;
pub mod exchange;
pub mod refuse;
pub mod revoke;
pub mod secure;
pub mod session;

pub mod config;
pub mod flags;
pub mod identity;
pub mod keys;
pub mod message;
pub mod snapshot;
pub mod socket;
pub mod tls;

pub mod admin;
pub mod app;
pub mod cli;
pub mod reload;

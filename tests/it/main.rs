//! The program as its users meet it: the real binary, real sockets, a real upstream.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::cast_possible_truncation,
    clippy::cast_precision_loss,
    clippy::cast_sign_loss,
    clippy::float_cmp,
    clippy::wildcard_enum_match_arm,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic, says why it is skipped, and is as long as its table"
)]

mod admin;
mod allocations;
mod attacks;
mod attacks_bodies;
mod attacks_floods;
mod attacks_http2;
mod attacks_keys;
mod attacks_memory;
mod attacks_shared;
mod attacks_slow;
mod attacks_targets;
mod attacks_turns;
mod attacks_upstream;
mod bad_config;
mod browsers;
mod channel;
mod channel_http2;
mod channel_http2_ends;
mod check;
mod corpus;
mod credentials;
mod crossings;
mod demo;
mod deploy;
mod drain;
mod early;
mod errors;
mod fastify;
mod fidelity;
mod flood;
mod folders;
mod forwarded;
mod forwarding;
mod goodbyes;
mod grpc;
mod grpc_calls;
mod grpc_streams;
mod guests;
mod harness;
mod hostile;
mod http2;
mod http2_upstream;
mod http2_upstream_faults;
mod http2_upstream_tls;
mod http_guests;
mod http_keys;
mod https_only;
mod kept;
mod keys;
mod keys_docs;
mod keys_edits;
mod keys_redis;
mod keys_stores;
#[cfg(feature = "kubernetes")]
mod kubernetes;
mod last_good;
mod limits;
mod log;
mod moved;
mod outages;
mod overtaken;
mod panics;
mod pepper;
mod pools;
mod postgres;
mod postgres_queries;
mod proxy_protocol;
mod regression;
mod reload;
mod remote;
mod resting;
mod revocation;
mod rotation;
mod router;
mod sessions;
mod sessions_shared;
mod sources;
mod strangers;
mod streams;
mod surfaces;
mod tidy;
mod timeouts;
mod tls;
mod tls_choices;
mod tls_clients;
mod tls_credentials;
mod tls_crossings;
mod tls_hello;
mod tls_load;
mod tls_renewal;
mod tunnels;
mod unsure;
mod uploads;
mod upstream_tls;
mod webhooks;
mod yaml;

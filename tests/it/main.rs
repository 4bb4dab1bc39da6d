//! The program as its users meet it: the real binary, real sockets, a real upstream.

#![allow(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::print_stdout,
    clippy::too_many_lines,
    clippy::float_cmp,
    clippy::missing_panics_doc,
    clippy::disallowed_methods,
    missing_docs,
    unreachable_pub,
    reason = "a test may panic, says why it is skipped, and is as long as its table"
)]

mod bad_config;
mod credentials;
mod demo;
mod harness;
mod surfaces;
mod tidy;
mod webhooks;

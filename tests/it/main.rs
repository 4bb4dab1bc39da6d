//! The program as its users meet it.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a test that fails may panic")]

mod bad_config;
mod demo;
mod tidy;

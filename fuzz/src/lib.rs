//! What holds of scopegate whatever it is sent: each target takes any bytes at all, and panics where it does not.

pub mod answer;
pub mod body;
pub mod config;
pub mod decide;
pub mod proxy;
pub mod request;
mod wire;
mod world;

/// Takes any bytes.
pub type Target = fn(&[u8]);

/// All of them, by name.
pub const TARGETS: [(&str, Target); 6] = [
    ("request", request::run),
    ("body", body::run),
    ("answer", answer::run),
    ("decide", decide::run),
    ("config", config::run),
    ("proxy", proxy::run),
];

//! HTTP/1 messages as bytes: what is read is looked at once, and kept as it came (RFC 9112). Of HTTP/2, where its frames are.

pub mod answer;
pub mod chunk;
pub mod field;
pub mod fields;
pub mod frames;
pub mod framing;
pub mod gathered;
pub mod grpc;
pub mod head;
pub mod invalid;
pub mod pieces;

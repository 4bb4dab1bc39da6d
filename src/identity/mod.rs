//! The vocabulary of who: digests of keys, scopes and callers.
//!
//! Plain data. This module knows nothing of where keys are kept or how a request arrives.

pub mod caller;
pub mod hashing;
pub mod key;
pub mod made;
pub mod scope;

//! What is fuzzed: plain functions that take any octets and panic where something does not hold. Tests only.
//!
//! `fuzz/` gives each of them to libFuzzer (`./run fuzz TARGET SECONDS`). What libFuzzer has found is checked in under
//! `fuzz/corpus/TARGET`, and the tests of this crate run it again without libFuzzer.
//!
//! [`session()`] and [`speaker()`] read their octets as a script: an octet that says what happens, and as many more as that
//! needs. Every script is valid, so that each octet that is changed changes what happens and not whether it is read.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::cast_possible_truncation,
    reason = "a panic here is a finding"
)]

mod decode;
mod script;
mod session;
mod speaker;

pub use decode::decode;
pub use session::session;
pub use speaker::speaker;

/// What is given any octets, and panics where something does not hold.
pub type Target = fn(&[u8]);

/// The targets by name, as `fuzz/fuzz_targets` has them.
pub const TARGETS: [(&str, Target); 3] = [("decode", decode), ("session", session), ("speaker", speaker)];

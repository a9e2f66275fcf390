//! bgp-proto from outside: octets, and whole networks of speakers.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

mod mesh;
mod simnet;
mod wire;

//! bgp-proto from outside: octets, whole networks of speakers, and which clauses of which RFCs its tests prove.

#![allow(clippy::unwrap_used, clippy::indexing_slicing, reason = "a failure here is a failed test")]

mod mesh;
mod rfc_coverage;
mod simnet;
mod wire;

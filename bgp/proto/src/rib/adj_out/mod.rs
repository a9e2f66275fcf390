//! Adj-RIB-Out: what peers are told. There is no copy of it: an [`UpdateGroup`] encodes each change once for all peers
//! that are told the same, and what was said of a prefix follows from its former best route.

mod group;
mod log;
mod member;

pub(crate) use group::{UpdateGroup, View};

//! The one owner of this node's kernel routes: what it wants them to be, and the thread that writes them.
//!
//! ```text
//!   attach, detach (agent) ──────► pods   ┐
//!   own blocks (ipam, by agent) ─► blocks ├─► desired ──► delta ──► kernel::change_routes
//!   FibUpdate (bgp, by agent) ───► learned┘      ▲          ▲
//!   NextHopWatch ──► next hops ── resolved ──────┘          └── kernel::routes, events
//! ```
//!
//! What a route should be follows from what the sources say now, never from how it came to that. The kernel is read at the
//! start and again whenever it may differ; only differences are written. A route without our protocol numbers is never
//! touched, and what an earlier life has left of a source is deleted only once that source has said all it has.
//!
//! `table` decides and is pure, with the modules that it is made of; `owner` is the thread that reads and writes.

mod config;
mod delta;
mod desired;
mod dirty;
mod handle;
mod interfaces;
mod kernel_reports;
mod next_hops;
mod owner;
mod shared;
mod table;

pub use config::RoutesConfig;
pub use handle::{RouteError, Routes, RoutesView};

pub(crate) use owner::{COMMANDS_PER_ROUND, Ends, Owner};

pub use crate::tasks::start_routes as start;

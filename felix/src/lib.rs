//! The one owner of this node's kernel routes.
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
//! `routes` decides and is pure; `owner` is the thread that reads and writes. felix knows neither bgp nor ipam: both
//! reach it as values of `types`.

pub mod acl;
mod config;
mod handle;
mod owner;
pub mod policy;
mod routes;
mod tasks;

pub use config::FelixConfig;
pub use handle::{Felix, RouteError, RoutesView};
pub use tasks::{StartError, start, start_acl};

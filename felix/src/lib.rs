//! The one owner of this node's kernel routes.
//!
//! ```text
//!   attach, detach (agent) ───► local    ┐
//!   own blocks (ipam, by agent) ► blocks ├─► desired ──► delta ──► kernel::change_routes
//!   FibUpdate (bgp, by agent) ─► learned ┘      ▲          ▲
//!   NextHopWatch ──► next hops ── resolved ─────┘          └── kernel::routes, events
//! ```
//!
//! What a route should be follows from what the sources say now, never from how it came to that. The kernel is read at the
//! start and again whenever it may differ; only differences are written. A route without our protocol numbers is never
//! touched, and nothing of a source is deleted before that source has said all it has.
//!
//! felix knows neither bgp nor ipam: both reach it as values of `types`.

mod delta;
mod desired;
mod handle;
mod next_hops;
mod run;
mod tasks;

pub use handle::{Felix, RouteError, RoutesView};
pub use tasks::{FelixConfig, start};

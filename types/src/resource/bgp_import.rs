//! What is taken in of a BGP peer's routes, as resources say it.

use serde::{Deserialize, Serialize};

/// What follows from a learned route, in a pool, that does not come from who owns the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum OriginValidation {
    /// It is not used and not told on.
    #[default]
    Enforce,
    /// It is counted and shown, and used as if there were no validation.
    Warn,
    /// Nobody looks.
    Off,
}

/// What becomes of a peer that offers more prefixes than it may.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum LimitAction {
    /// What it offers beyond is refused.
    #[default]
    Refuse,
    /// The session ends, and begins again after a while (RFC 4486 section 4).
    Restart,
}

//! What is taken in of a BGP peer's routes, as resources say it.

use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What follows from a learned route, in a pool, that does not come from who owns the block.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "camelCase", try_from = "Value")]
pub enum OriginValidation {
    /// It is not used and not told on.
    #[default]
    Enforce,
    /// It is counted and shown, and used as if there were no validation.
    Warn,
    /// Nobody looks.
    Off,
}

impl TryFrom<Value> for OriginValidation {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match &value {
            Value::String(word) if word == "enforce" => Ok(Self::Enforce),
            Value::String(word) if word == "warn" => Ok(Self::Warn),
            Value::String(word) if word == "off" => Ok(Self::Off),
            // Readers of YAML 1.1 take the word `off` without quotes for that.
            Value::Bool(false) => Ok(Self::Off),
            other => Err(format!("{other} is not enforce, warn or off")),
        }
    }
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

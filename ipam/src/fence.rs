//! For how long this node may rely on its blocks being its own. Pure; what the clocks say is an argument.
//!
//! The blocks of a node that is gone are taken back after a grace period, and a node that does not reach the store does not
//! hear of it. So it stops by itself, in time: when the store has not confirmed its blocks for half the grace period, it gives
//! out no more addresses of them. The last confirmation is journalled, as a restart is no confirmation.
//!
//! No single clock is relied on. The one that counts since boot stands still in a machine that was paused and copied; the
//! one on the wall is set by people. Whichever has moved further counts, and one that has gone back counts as no clock.

use std::fmt;
use std::time::Duration;

use serde::{Deserialize, Serialize};

/// How a node is kept from giving out addresses that may be another's by now.
#[derive(Debug, Clone, Copy)]
pub struct Fencing {
    /// The grace period: for so long the blocks of a node that is gone stay its own. The node relies on it for half as long.
    pub grace: Duration,
    /// Reads the clocks.
    pub clocks: fn() -> Option<Reading>,
}

/// The readings of the clocks that fencing looks at.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Reading {
    /// The time since the machine started, including that in which it slept.
    pub boot: Duration,
    /// The time of day, since 1970.
    pub wall: Duration,
}

/// That the store had all claims of this node as this node knew them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Confirmation {
    /// The boot in which it was.
    pub(crate) boot_id: String,
    /// The readings of the clocks when the store was asked.
    pub(crate) at: Reading,
}

/// Why the store's last word on this node's blocks does not count (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Unconfirmed {
    /// There has been none, as far as the journal knows.
    Never,
    /// So much time has passed, which is too much.
    Since(Duration),
    /// The machine has started anew: how long it was down is not known.
    Rebooted,
    /// A clock shows an earlier time than it did then.
    ClockWentBack,
    /// The clocks cannot be read.
    NoClock,
}

impl fmt::Display for Unconfirmed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Never => f.write_str("since this node's journal was begun"),
            Self::Since(passed) => write!(f, "for {}", in_words(*passed)),
            Self::Rebooted => f.write_str("since the node started"),
            Self::ClockWentBack => f.write_str("since a clock of the node went back"),
            Self::NoClock => f.write_str("for a time that is not known, as the node's clocks cannot be read"),
        }
    }
}

/// A time for people, in the two largest units that it has.
pub(crate) fn in_words(time: Duration) -> String {
    let seconds = time.as_secs();
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3_600 => format!("{} min {} s", seconds / 60, seconds % 60),
        _ => format!("{} h {} min", seconds / 3_600, seconds % 3_600 / 60),
    }
}

impl Confirmation {
    /// How long ago it was, as far as that can be told.
    pub(crate) fn age(&self, boot_id: &str, now: Option<Reading>) -> Result<Duration, Unconfirmed> {
        let now = now.ok_or(Unconfirmed::NoClock)?;
        if self.boot_id != boot_id {
            return Err(Unconfirmed::Rebooted);
        }
        let passed = now.boot.checked_sub(self.at.boot).zip(now.wall.checked_sub(self.at.wall));
        passed.map(|(boot, wall)| boot.max(wall)).ok_or(Unconfirmed::ClockWentBack)
    }
}

#[cfg(test)]
mod tests;

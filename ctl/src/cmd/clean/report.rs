//! Tells the operator, while a node is cleaned, what has gone and what stays.

use std::fmt::Display;

use crate::render;

/// Says what has become of everything that was found.
#[derive(Default)]
pub(crate) struct Report {
    removed: usize,
    /// How much should have gone and has not.
    pub(crate) stays: usize,
}

impl Report {
    /// This has gone.
    pub(crate) fn removed(&mut self, what: &impl Display) -> anyhow::Result<()> {
        self.removed += 1;
        render::say(&format!("removed {what}"))
    }

    /// This should have gone, and has not.
    pub(crate) fn stays(&mut self, what: impl Display) {
        self.stays += 1;
        render::complain(&what.to_string());
    }

    /// This is left on purpose.
    pub(crate) fn note(&self, what: &str) {
        render::complain(what);
    }

    /// The last word: an error where something stays that should have gone.
    pub(crate) fn end(&self) -> anyhow::Result<()> {
        anyhow::ensure!(self.stays == 0, "not all that is of Manx is gone from this node");
        let said = if self.removed == 0 { "nothing of Manx was on this node" } else { "nothing of Manx is left here" };
        render::say(said)
    }
}

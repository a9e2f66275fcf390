//! The compiler against a direct reading of the model.
//!
//! `world` is the model with a judge that asks every policy for every packet; `kernel` carries out changes as a kernel
//! would, insisting on what a kernel insists on; `generate` makes worlds; `properties` compares. `semantics` names the
//! corners one by one and `economy` what little is written for them, both on a `node` by hand.

mod cost;
mod economy;
mod generate;
mod kernel;
mod node;
mod properties;
mod semantics;
mod world;

use super::compiler::Compiler;

impl Compiler {
    /// How many entries the compiler keeps, to find what it has not let go of.
    fn kept(&self) -> usize {
        self.world.kept()
            + self.peers.len()
            + self.subjects.len()
            + self.policies.len()
            + self.blocks.len()
            + self.sets.kept()
            + self.classes.len()
            + self.remotes.len()
            + self.governed.len()
            + self.memberships.len()
    }
}

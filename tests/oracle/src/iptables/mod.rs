//! What iptables does with a packet, by following the text of its rules.
//!
//! [`Ruleset::restore`] takes what `iptables-restore --noflush` takes and what `iptables-save` prints, for one family.
//! [`Ruleset::run`] leads a packet through the tables in the order of the kernel's hooks. A match, target or option that is
//! not known here is an error: nothing is skipped. It knows IP sets by their contents ([`IpSets`]); `nomatch` is left out
//! on purpose, as Manx never writes it.

mod options;
mod rule;
mod run;
mod sets;
mod text;

use std::collections::BTreeMap;

pub use rule::{Match, Rule, States, Target};
pub use run::{Arrival, Fault, Outcome, Path, State, TcpFlags};
pub use sets::{IpSet, IpSets};
pub use text::TextError;

/// The rules of one family, by table and chain.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ruleset {
    tables: BTreeMap<String, IptablesTable>,
}

/// The chains of one table.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
struct IptablesTable {
    chains: BTreeMap<String, Chain>,
}

/// The rules of one chain.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Chain {
    /// Whether a packet that reaches the end of this built-in chain passes; none for any other chain, from whose end
    /// the packet returns.
    policy: Option<bool>,
    rules: Vec<Rule>,
}

/// The tables, and the built-in chains of each.
const TABLES: [(&str, &[&str]); 4] = [
    ("raw", &["PREROUTING", "OUTPUT"]),
    ("mangle", &["PREROUTING", "INPUT", "FORWARD", "OUTPUT", "POSTROUTING"]),
    ("nat", &["PREROUTING", "INPUT", "OUTPUT", "POSTROUTING"]),
    ("filter", &["INPUT", "FORWARD", "OUTPUT"]),
];

impl Default for Ruleset {
    /// The rules as the kernel begins: built-in chains only, empty, which let everything pass.
    fn default() -> Self {
        let table = |names: &[&str]| IptablesTable {
            chains: names
                .iter()
                .map(|name| ((*name).to_owned(), Chain { policy: Some(true), rules: Vec::new() }))
                .collect(),
        };
        Self { tables: TABLES.iter().map(|(name, chains)| ((*name).to_owned(), table(chains))).collect() }
    }
}

impl Ruleset {
    /// The rules of a chain as they were written, without the command in front; none if the chain does not exist.
    pub fn rules(&self, table: &str, chain: &str) -> Option<Vec<&str>> {
        let chain = self.tables.get(table)?.chains.get(chain)?;
        Some(chain.rules.iter().map(|rule| rule.text.as_str()).collect())
    }

    /// The chains of a table that are not built in.
    pub fn chains(&self, table: &str) -> Vec<&str> {
        let chains = self.tables.get(table).into_iter().flat_map(|table| &table.chains);
        chains.filter(|(_, chain)| chain.policy.is_none()).map(|(name, _)| name.as_str()).collect()
    }
}

#[cfg(test)]
mod tests;

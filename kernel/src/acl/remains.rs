//! What a table has of ours, and the text that takes it away: for a node that Manx leaves. Pure, but for the reading.

use std::fmt::{self, Write as _};

use types::Family;

use super::saved::{counters, value_of};
use super::{IptablesVariant, Tables};
use crate::{KernelError, ours};

/// What is ours in one table of one family.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Remains {
    /// Of which iptables.
    pub variant: IptablesVariant,
    /// The family.
    pub family: Family,
    /// The table.
    pub table: String,
    /// Our chains.
    pub chains: Vec<String>,
    /// Rules in others' chains that bear our comment, or lead to a chain of ours, which cannot go otherwise.
    pub rules: Vec<ForeignRule>,
}

/// A rule in a chain that is not ours.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ForeignRule {
    /// The chain.
    pub chain: String,
    /// What stands behind the chain's name.
    pub spec: String,
}

impl Remains {
    /// What is ours in all tables of a family that there are. Reading makes none.
    pub fn of_family(tables: &mut dyn Tables, family: Family) -> Result<Vec<Self>, KernelError> {
        let mut all = Vec::new();
        for table in tables.tables(family)? {
            let text = tables.save(family, &table, false)?;
            let mut remains = Self { variant: tables.variant(), family, table, chains: Vec::new(), rules: Vec::new() };
            remains.read(&text);
            if !remains.chains.is_empty() || !remains.rules.is_empty() {
                all.push(remains);
            }
        }
        Ok(all)
    }

    fn read(&mut self, text: &str) {
        let mut is_inside = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                is_inside = name.trim() == self.table;
            } else if is_inside {
                self.line(line);
            }
        }
    }

    fn line(&mut self, line: &str) {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split_whitespace().next().unwrap_or_default();
            if ours::is_our_chain(name) {
                self.chains.push(name.to_owned());
            }
            return;
        }
        let (_, rule) = counters(line);
        let Some((chain, spec)) = rule.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) else { return };
        let is_marked = || value_of("--comment", spec).is_some_and(|comment| comment.starts_with(ours::ACL_COMMENT));
        let leads = |option| value_of(option, spec).is_some_and(|target| ours::is_our_chain(&target));
        if !ours::is_our_chain(chain) && (is_marked() || leads("-j") || leads("-g")) {
            self.rules.push(ForeignRule { chain: chain.to_owned(), spec: spec.to_owned() });
        }
    }

    /// What `iptables-restore --noflush` is given to take all of it away, at once or not at all.
    pub fn removal(&self) -> String {
        let mut text = format!("*{}\n", self.table);
        // Emptied first: they refer to each other. Writing to a string does not fail.
        for chain in &self.chains {
            let _ = writeln!(text, ":{chain} - [0:0]");
        }
        for ForeignRule { chain, spec } in &self.rules {
            let _ = writeln!(text, "-D {chain} {spec}");
        }
        for chain in &self.chains {
            let _ = writeln!(text, "-X {chain}");
        }
        text.push_str("COMMIT\n");
        text
    }
}

impl fmt::Display for Remains {
    /// `ipv4 table mangle (nft): 12 chains, 3 rules`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let variant = match self.variant {
            IptablesVariant::Nft => "nft",
            IptablesVariant::Legacy => "legacy",
        };
        let (chains, rules) = (self.chains.len(), self.rules.len());
        let plural = |count| if count == 1 { "" } else { "s" };
        write!(f, "{} table {} ({variant}): ", self.family, self.table)?;
        write!(f, "{chains} chain{}, {rules} rule{}", plural(chains), plural(rules))
    }
}

#[cfg(test)]
mod tests;

//! What a table has of ours, and the text that takes it away: for a node that Manx leaves. Pure, but for the reading.

use std::fmt::{self, Write as _};

use types::host_ports::mapped_interface;
use types::{Family, InterfaceName};

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
    /// Our chains, and those of portmap for host ports that we have mapped.
    pub chains: Vec<String>,
    /// Rules in others' chains that bear our comment, or lead to such a chain, which cannot go otherwise.
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
            all.extend(Self::of_table(tables, family, table, Whose::Ours)?);
        }
        Ok(all)
    }

    /// What portmap has mapped for one of our attachments, if anything: its chain with the rules in it, and what leads there. It is
    /// known by the network that portmap's comments name.
    pub fn of_host_ports(
        tables: &mut dyn Tables,
        family: Family,
        attachment: &InterfaceName,
    ) -> Result<Option<Self>, KernelError> {
        if !tables.tables(family)?.iter().any(|table| table == NAT) {
            return Ok(None);
        }
        Self::of_table(tables, family, NAT.to_owned(), Whose::HostPortsOf(attachment))
    }

    fn of_table(
        tables: &mut dyn Tables,
        family: Family,
        table: String,
        whose: Whose<'_>,
    ) -> Result<Option<Self>, KernelError> {
        let text = tables.save(family, &table, false)?;
        let mut remains = Self { variant: tables.variant(), family, table, chains: Vec::new(), rules: Vec::new() };
        remains.read(&text, whose);
        Ok((!remains.chains.is_empty() || !remains.rules.is_empty()).then_some(remains))
    }

    fn read(&mut self, text: &str, whose: Whose<'_>) {
        let mut is_inside = false;
        for line in text.lines() {
            if let Some(name) = line.strip_prefix('*') {
                is_inside = name.trim() == self.table;
            } else if is_inside {
                self.line(line, whose);
            }
        }
    }

    fn line(&mut self, line: &str, whose: Whose<'_>) {
        if let Some(declared) = line.strip_prefix(':') {
            let name = declared.split_whitespace().next().unwrap_or_default();
            if whose == Whose::Ours && ours::is_our_chain(name) {
                self.chains.push(name.to_owned());
            }
            return;
        }
        let (_, rule) = counters(line);
        let Some((chain, spec)) = rule.strip_prefix("-A ").and_then(|rule| rule.split_once(' ')) else { return };
        let foreign = || ForeignRule { chain: chain.to_owned(), spec: spec.to_owned() };
        let comment = value_of("--comment", spec);
        if let Some(interface) = comment.as_deref().and_then(mapped_for)
            && whose.covers(&interface)
        {
            self.rules.push(foreign());
            // A pod with ports of both protocols has two rules that lead to one chain.
            let target = value_of("-j", spec).filter(|target| target.starts_with(MAPPED_CHAIN));
            self.chains.extend(target.filter(|target| !self.chains.contains(target)));
            return;
        }
        let is_marked = || comment.as_ref().is_some_and(|comment| comment.starts_with(ours::ACL_COMMENT));
        let leads = |option| value_of(option, spec).is_some_and(|target| ours::is_our_chain(&target));
        if whose == Whose::Ours && !ours::is_our_chain(chain) && (is_marked() || leads("-j") || leads("-g")) {
            self.rules.push(foreign());
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

/// What is looked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Whose<'a> {
    /// All that is ours.
    Ours,
    /// What portmap has mapped for the attachment of this host interface.
    HostPortsOf(&'a InterfaceName),
}

impl Whose<'_> {
    fn covers(self, mapped_for: &InterfaceName) -> bool {
        match self {
            Self::Ours => true,
            Self::HostPortsOf(one) => one == mapped_for,
        }
    }
}

/// The table that portmap writes.
const NAT: &str = "nat";

/// How the names of the chains begin that portmap makes for a container.
const MAPPED_CHAIN: &str = "CNI-DN-";

/// For which attachment of ours portmap has made the rule of this comment: `dnat name: "NETWORK" id: "CONTAINER"`.
fn mapped_for(comment: &str) -> Option<InterfaceName> {
    mapped_interface(comment.strip_prefix("dnat name: \"")?.split('"').next()?)
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

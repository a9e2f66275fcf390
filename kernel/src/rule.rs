//! Rules that choose a routing table by the source of a packet.

use std::fmt;
use std::net::IpAddr;

/// Packets from one address are looked up in a table of their own, before those of everybody. Rules of any other form are
/// nothing that this crate makes or shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct SourceRule {
    /// The place among all rules: those with less come before.
    pub priority: u32,
    /// The source.
    pub source: IpAddr,
    /// The table.
    pub table: u32,
    /// The program that made the rule, by its protocol number (`rt_protos`).
    pub protocol: u8,
}

impl fmt::Display for SourceRule {
    /// Writes the rule as `ip rule` shows it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "from {} lookup {}", self.source, self.table)
    }
}

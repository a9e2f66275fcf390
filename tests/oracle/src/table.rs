//! Truth tables: every probe of a world with what should become of it, and a grid of where it did not.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::net::IpAddr;

use crate::judge::{Exemptions, Verdict, judge};
use crate::world::{Packet, Protocol, World};

/// A packet between two parties, by names that a person knows.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Probe {
    /// The sender: a pod as NAMESPACE/NAME, a node, or a host outside.
    pub from: String,
    /// The receiver, named in the same way.
    pub to: String,
    /// The packet that is sent.
    pub packet: Packet,
}

/// A probe with what the specification says of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Row {
    /// The probe itself.
    pub probe: Probe,
    /// The verdict that the specification demands, with the reason.
    pub expected: Verdict,
}

impl Probe {
    /// All probes of a world: from every party to every other one, in each family that both have, to each of the ports,
    /// and ICMP where it is asked for with any port.
    pub fn all(world: &World, ports: &[(Protocol, u16)]) -> Vec<Self> {
        let parties = world.parties();
        let mut probes = Vec::new();
        for (from, sources) in &parties {
            for (to, destinations) in parties.iter().filter(|(to, _)| to != from) {
                for (source, destination) in pairs(sources, destinations) {
                    probes.extend(ports.iter().map(|&(protocol, port)| Self {
                        from: from.clone(),
                        to: to.clone(),
                        packet: Packet { source, destination, protocol, port },
                    }));
                }
            }
        }
        probes
    }
}

fn pairs(sources: &[IpAddr], destinations: &[IpAddr]) -> Vec<(IpAddr, IpAddr)> {
    let of = |source: &IpAddr| {
        let source = *source;
        destinations.iter().filter(move |to| to.is_ipv4() == source.is_ipv4()).map(move |to| (source, *to))
    };
    sources.iter().flat_map(of).collect()
}

/// The verdict that the specification demands for each probe.
pub fn truth_table(world: &World, probes: impl IntoIterator<Item = Probe>, exemptions: Exemptions) -> Vec<Row> {
    let row = |probe: Probe| Row { expected: judge(world, &probe.packet, exemptions), probe };
    probes.into_iter().map(row).collect()
}

/// The parts of a probe's name that a grid shows: who sends and who should receive.
type Grid<'t> = BTreeMap<(&'t str, &'t str), char>;

/// Expected and actual verdicts side by side. Printing it shows only where they differ.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TruthTable {
    rows: Vec<(Row, bool)>,
}

impl TruthTable {
    /// Records what really became of a row's probe.
    pub fn record(&mut self, row: Row, passed: bool) {
        self.rows.push((row, passed));
    }

    /// How many probes have been recorded.
    pub fn len(&self) -> usize {
        self.rows.len()
    }

    /// Whether no probe has been recorded.
    pub fn is_empty(&self) -> bool {
        self.rows.is_empty()
    }

    /// The rows whose probe did not meet the expected fate.
    pub fn differences(&self) -> impl Iterator<Item = &Row> {
        self.rows.iter().filter(|(row, passed)| row.expected.allowed != *passed).map(|(row, _)| row)
    }
}

impl fmt::Display for TruthTable {
    /// A grid for each protocol, port and family with a difference, of the parties that it concerns: `.` as expected, `+` passed
    /// but should not, `-` did not pass but should. Then the reason of each expectation that was not met, at most twenty.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = 20;
        let mut grids: BTreeMap<(Protocol, u16, bool), Grid<'_>> = BTreeMap::new();
        for (Row { probe, expected }, passed) in &self.rows {
            let packet = probe.packet;
            let cell = match (expected.allowed, *passed) {
                (false, true) => '+',
                (true, false) => '-',
                _ => '.',
            };
            let grid = grids.entry((packet.protocol, packet.port, packet.source.is_ipv6())).or_default();
            let mark = grid.entry((&probe.from, &probe.to)).or_insert(cell);
            if cell != '.' {
                *mark = cell;
            }
        }
        for ((protocol, port, six), grid) in &grids {
            let differ = || grid.iter().filter(|(_, cell)| **cell != '.');
            if differ().next().is_none() {
                continue;
            }
            let columns: BTreeSet<&str> = differ().map(|((_, to), _)| *to).collect();
            let lines: BTreeSet<&str> = differ().map(|((from, _), _)| *from).collect();
            let width = lines.iter().map(|name| name.len()).max().unwrap_or(0);
            writeln!(f, "{protocol} {port} over IPv{} (rows send)", if *six { 6 } else { 4 })?;
            writeln!(f, "  {:width$} {}", "", columns.iter().copied().collect::<Vec<_>>().join(" "))?;
            for line in lines {
                write!(f, "  {line:width$}")?;
                for column in &columns {
                    let cell = grid.get(&(line, *column)).copied().unwrap_or(' ');
                    write!(f, " {cell:^wide$}", wide = column.len())?;
                }
                writeln!(f)?;
            }
        }
        for row in self.differences().take(shown) {
            writeln!(f, "{} -> {}: {}: should be {}", row.probe.from, row.probe.to, row.probe.packet, row.expected)?;
        }
        match self.differences().count().saturating_sub(shown) {
            0 => Ok(()),
            more => writeln!(f, "and {more} more"),
        }
    }
}

//! Leads a packet through the tables, as the kernel would.

use std::net::IpAddr;

use super::Ruleset;
use super::rule::{Match, Rule, States, Target};
use super::sets::{IpSet, IpSets};
use crate::world::{Packet, Protocol};

/// A packet as it arrives, with what the kernel knows of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// The source address.
    pub source: IpAddr,
    /// The destination address.
    pub destination: IpAddr,
    /// The number of the IP protocol.
    pub protocol: u8,
    /// The source port; for ICMP the type.
    pub source_port: u16,
    /// The destination port; without meaning for ICMP.
    pub destination_port: u16,
    /// The TCP flags.
    pub flags: TcpFlags,
    /// The interface that the packet comes in by; empty if the host itself sends it.
    pub in_interface: String,
    /// The interface that the packet leaves by; empty if it is for the host.
    pub out_interface: String,
    /// The state of the packet's connection.
    pub state: State,
    /// Whether the connection's destination was translated.
    pub translated: bool,
    /// The packet's mark when it comes in.
    pub mark: u32,
    /// Whether the way back to the source leads out of `in_interface`.
    pub reverse_path: bool,
}

impl Arrival {
    /// The first packet of a connection, on its way from one interface to another.
    pub fn new(packet: &Packet, in_interface: &str, out_interface: &str) -> Self {
        let (protocol, source_port) = match (packet.protocol, packet.source) {
            (Protocol::Tcp, _) => (6, 40_000),
            (Protocol::Udp, _) => (17, 40_000),
            (Protocol::Sctp, _) => (132, 40_000),
            (Protocol::Icmp, IpAddr::V4(_)) => (1, 8),
            (Protocol::Icmp, IpAddr::V6(_)) => (58, 128),
        };
        Self {
            source: packet.source,
            destination: packet.destination,
            protocol,
            source_port,
            destination_port: packet.port,
            flags: TcpFlags::SYN,
            in_interface: in_interface.to_owned(),
            out_interface: out_interface.to_owned(),
            state: State::New,
            translated: false,
            mark: 0,
            reverse_path: true,
        }
    }
}

/// The flags of a TCP header, with the bits of RFC 9293 section 3.1.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TcpFlags(pub u8);

impl TcpFlags {
    /// The flags of the first segment of a connection.
    pub const SYN: Self = Self(0x02);
    /// The flags of the answer to it.
    pub const SYN_ACK: Self = Self(0x12);
    /// The flags of a segment in the middle of a connection.
    pub const ACK: Self = Self(0x10);
}

/// What connection tracking says of a packet.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum State {
    /// The packet is the first of a connection.
    New,
    /// The packet is of a connection that has been answered.
    Established,
    /// The packet begins a connection that another one brought about, or is an error about one.
    Related,
    /// The packet is of no connection that it could be of.
    Invalid,
    /// The packet is not tracked.
    Untracked,
}

impl State {
    pub(super) const fn bit(self) -> u8 {
        1 << self as u8
    }
}

/// Which hooks of the kernel a packet passes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Path {
    /// The packet is forwarded from one interface to another.
    Forward,
    /// The packet comes in for the host.
    Input,
    /// The host sends the packet.
    Output,
}

/// What became of a packet.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Outcome {
    /// Whether the packet was not dropped.
    pub passed: bool,
    /// The packet's mark at the end.
    pub mark: u32,
    /// Whether the packet's source was translated.
    pub masqueraded: bool,
    /// Whether the packet was logged.
    pub logged: bool,
    /// How many rules the packet was compared with, which is what it costs.
    pub rules: usize,
    /// The rules that fitted the packet, in order.
    pub trace: Vec<String>,
}

/// Something is wrong with the rules themselves.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// A rule names a set that does not exist.
    #[error("there is no set {0}")]
    NoSet(String),
    /// A rule asks a set about more or fewer ends of a packet than it has dimensions.
    #[error("set {0} is not of {1} dimensions")]
    Dimensions(String, usize),
    /// A rule takes the mark from a set without marks.
    #[error("set {0} has no marks")]
    NoMarks(String),
    /// A target stands in a table that does not have it.
    #[error("{0} cannot be used in table {1}")]
    WrongTable(&'static str, String),
    /// Chains lead to each other in a circle.
    #[error("chain {0} is entered too deep")]
    Circle(String),
    /// A rule leads to a chain that does not exist.
    #[error("there is no chain {0} in table {1}")]
    NoChain(String, String),
}

impl Ruleset {
    /// Leads a packet through the tables until it is dropped or has passed all.
    pub fn run(&self, sets: &IpSets, path: Path, arrival: &Arrival) -> Result<Outcome, Fault> {
        let hooks: &[(&str, &[&str])] = match path {
            Path::Forward => &[
                ("PREROUTING", &["raw", "mangle"]),
                ("FORWARD", &["mangle", "filter"]),
                ("POSTROUTING", &["mangle", "nat"]),
            ],
            Path::Input => &[("PREROUTING", &["raw", "mangle"]), ("INPUT", &["mangle", "filter"])],
            Path::Output => &[("OUTPUT", &["raw", "mangle", "filter"]), ("POSTROUTING", &["mangle", "nat"])],
        };
        let mut walk = Walk {
            sets,
            arrival: arrival.clone(),
            outcome: Outcome {
                passed: true,
                mark: arrival.mark,
                masqueraded: false,
                logged: false,
                rules: 0,
                trace: Vec::new(),
            },
        };
        for (chain, tables) in hooks {
            // A rule can ask for an interface only at a hook where the packet has one; nat judges a connection's first
            // packet only.
            let known = |at: &[&str], name: &str| if at.contains(chain) { name.to_owned() } else { String::new() };
            walk.arrival.in_interface = known(&["PREROUTING", "INPUT", "FORWARD"], &arrival.in_interface);
            walk.arrival.out_interface = known(&["FORWARD", "OUTPUT", "POSTROUTING"], &arrival.out_interface);
            for table in tables.iter().filter(|table| **table != "nat" || arrival.state == State::New) {
                if !walk.table(self, table, chain)? {
                    walk.outcome.passed = false;
                    return Ok(walk.outcome);
                }
            }
        }
        Ok(walk.outcome)
    }
}

/// How a chain was left.
enum End {
    Accept,
    Drop,
    Return,
}

struct Walk<'s> {
    sets: &'s IpSets,
    arrival: Arrival,
    outcome: Outcome,
}

impl Walk<'_> {
    /// Whether the packet passes a built-in chain of one table.
    fn table(&mut self, ruleset: &Ruleset, table: &str, chain: &str) -> Result<bool, Fault> {
        let policy = ruleset.tables.get(table).and_then(|table| table.chains.get(chain)).and_then(|chain| chain.policy);
        Ok(match self.chain(ruleset, table, chain, 0)? {
            End::Accept => true,
            End::Drop => false,
            End::Return => policy.unwrap_or(true),
        })
    }

    fn chain(&mut self, ruleset: &Ruleset, table: &str, name: &str, depth: usize) -> Result<End, Fault> {
        let chain = ruleset.tables.get(table).and_then(|table| table.chains.get(name));
        let chain = chain.ok_or_else(|| Fault::NoChain(name.to_owned(), table.to_owned()))?;
        if depth > 16 {
            return Err(Fault::Circle(name.to_owned()));
        }
        for rule in &chain.rules {
            self.outcome.rules += 1;
            if !self.fits(rule)? {
                continue;
            }
            self.outcome.trace.push(format!("{table} {name}: {}", rule.text));
            match &rule.target {
                None => {}
                Some(Target::Log) => self.outcome.logged = true,
                Some(Target::Accept) => return Ok(End::Accept),
                Some(Target::Drop) => return Ok(End::Drop),
                Some(Target::Return) => return Ok(End::Return),
                Some(Target::Goto(next)) => return self.chain(ruleset, table, next, depth + 1),
                Some(Target::Jump(next)) => match self.chain(ruleset, table, next, depth + 1)? {
                    End::Return => {}
                    end => return Ok(end),
                },
                Some(Target::Mark { value, mask }) => self.outcome.mark = (self.outcome.mark & !mask) ^ value,
                Some(Target::MapMark(set, dimensions)) if table == "mangle" => self.map(set, dimensions)?,
                Some(Target::MapMark(..)) => return Err(Fault::WrongTable("SET --map-set", table.to_owned())),
                Some(Target::Masquerade) if table == "nat" => {
                    self.outcome.masqueraded = true;
                    return Ok(End::Accept);
                }
                Some(Target::Masquerade) => return Err(Fault::WrongTable("MASQUERADE", table.to_owned())),
            }
        }
        Ok(End::Return)
    }

    fn fits(&self, rule: &Rule) -> Result<bool, Fault> {
        for (inverted, found) in &rule.matches {
            if self.holds(found)? == *inverted {
                return Ok(false);
            }
        }
        Ok(true)
    }

    fn holds(&self, found: &Match) -> Result<bool, Fault> {
        let packet = &self.arrival;
        Ok(match found {
            Match::Source(range) => range.contains(packet.source),
            Match::Destination(range) => range.contains(packet.destination),
            Match::In(name) => interface(name, &packet.in_interface),
            Match::Out(name) => interface(name, &packet.out_interface),
            Match::Protocol(number) => *number == packet.protocol,
            Match::DestinationPorts(ranges) => within(ranges, packet.destination_port),
            Match::SourcePorts(ranges) => within(ranges, packet.source_port),
            Match::AnyPorts(ranges) => within(ranges, packet.source_port) || within(ranges, packet.destination_port),
            Match::TcpFlags { mask, set } => packet.flags.0 & mask == *set,
            Match::IcmpType(number) => u16::from(*number) == packet.source_port,
            Match::State(states) => {
                states.0 & packet.state.bit() != 0 || (packet.translated && states.0 & States::TRANSLATED != 0)
            }
            Match::Set(name, dimensions) => self.in_set(name, dimensions)?.is_some(),
            Match::Mark { value, mask } => self.outcome.mark & mask == *value,
            Match::ReversePath { inverted } => packet.reverse_path != *inverted,
            Match::Comment(_) => true,
        })
    }

    fn map(&mut self, name: &str, dimensions: &[bool]) -> Result<(), Fault> {
        match self.in_set(name, dimensions)? {
            None => {}
            Some((IpSet::Marks(marks), address)) => {
                if let Some((value, mask)) = marks.get(&address) {
                    self.outcome.mark = (self.outcome.mark & !mask) ^ value;
                }
            }
            Some(_) => return Err(Fault::NoMarks(name.to_owned())),
        }
        Ok(())
    }

    /// The set that a match names, and the packet's address that it was asked about, if the set holds what was asked.
    fn in_set(&self, name: &str, dimensions: &[bool]) -> Result<Option<(&IpSet, IpAddr)>, Fault> {
        let set = self.sets.get(name).ok_or_else(|| Fault::NoSet(name.to_owned()))?;
        if set.dimensions() != dimensions.len() {
            return Err(Fault::Dimensions(name.to_owned(), dimensions.len()));
        }
        let packet = &self.arrival;
        let address = if dimensions.first() == Some(&true) { packet.source } else { packet.destination };
        let protocol = match packet.protocol {
            6 => Some(Protocol::Tcp),
            17 => Some(Protocol::Udp),
            132 => Some(Protocol::Sctp),
            _ => None,
        };
        let (port, interface) = match dimensions.get(1) {
            Some(true) => (packet.source_port, &packet.in_interface),
            _ => (packet.destination_port, &packet.out_interface),
        };
        Ok(set.holds(address, protocol.map(|protocol| (protocol, port)), interface).then_some((set, address)))
    }
}

/// Whether an interface has this name; `mx+` stands for every name that begins with `mx`.
fn interface(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('+') {
        Some(start) => name.starts_with(start),
        None => pattern == name,
    }
}

fn within(ranges: &[(u16, u16)], port: u16) -> bool {
    ranges.iter().any(|(first, last)| (*first..=*last).contains(&port))
}

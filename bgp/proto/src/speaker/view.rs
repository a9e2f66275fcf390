//! A speaker as people see it.

use std::collections::BTreeMap;
use std::net::IpAddr;

use types::{Family, Prefix, SessionState};

use super::Speaker;
use super::config::PeerConfig;
use crate::origin::Refusal;
use crate::rib::{ByFamily, Excluded, Intake, PeerIndex, RouteCounts, RouteView, Verdict};
use crate::session::{ConnId, Counters, Negotiated};
use crate::wire::Families;

/// One peer at a glance.
#[derive(Debug, Clone)]
pub struct PeerStatus<'a> {
    /// What was configured.
    pub config: &'a PeerConfig,
    /// The state of RFC 4271 section 8.2.2.
    pub state: SessionState,
    /// What was agreed on, while established.
    pub negotiated: Option<&'a Negotiated>,
    /// The connection that routes flow over, while established.
    pub connection: Option<ConnId>,
    /// Messages, and what ended the session last.
    pub counters: &'a Counters,
    /// Its routes.
    pub routes: ByFamily<RouteCounts>,
    /// The families whose routes are kept while it restarts (RFC 4724).
    pub retained: Families,
    /// Routes that were dropped because they had been here before (our AS, our identifier, our cluster, our next hop).
    pub loops: u64,
    /// Routes that are refused and not kept, as often as they were announced.
    pub not_kept: ByFamily<u64>,
    /// How often routes were refused, for each reason for which any was.
    pub refusals: Vec<(Refusal, u64)>,
    /// One route that is refused for another reason than import policy, and why.
    pub refused_example: Option<(Prefix, String)>,
    /// How many prefixes of a family it may have in use.
    pub limit: u32,
    /// Routes that its update groups do not tell because no message has room for them (RFC 4271 section 9.2).
    pub too_long: u64,
}

/// A route that is refused.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct RejectedView {
    /// Who offers it.
    pub peer: IpAddr,
    /// The destination.
    pub prefix: Prefix,
    /// Where packets would go.
    pub next_hop: Option<IpAddr>,
    /// Why.
    pub refusal: Refusal,
    /// It is used all the same, as validation only warns.
    pub used: bool,
    /// Why, in words that name who owns what.
    pub reason: String,
}

/// How much is in the tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct TableSizes {
    /// IPv4 prefixes.
    pub ipv4: usize,
    /// IPv6 prefixes.
    pub ipv6: usize,
    /// Attribute sets, each shared by all routes that bear it.
    pub attribute_sets: usize,
}

impl Speaker {
    /// The peers in the order of their addresses.
    pub fn peers(&self) -> impl Iterator<Item = PeerStatus<'_>> {
        self.by_address.values().filter_map(|index| {
            let peer = self.peer(*index)?;
            let groups = Family::ALL.into_iter().filter_map(|family| *peer.groups.of(family));
            Some(PeerStatus {
                config: &peer.config,
                state: peer.session.state(),
                negotiated: peer.session.negotiated(),
                connection: peer.session.connection(),
                counters: peer.session.counters(),
                routes: ByFamily {
                    ipv4: self.rib.counts(*index, Family::Ipv4),
                    ipv6: self.rib.counts(*index, Family::Ipv6),
                },
                retained: Family::ALL.into_iter().filter(|family| peer.retention.holds(*family)).collect(),
                loops: peer.loops,
                not_kept: ByFamily {
                    ipv4: self.not_kept(*index, Family::Ipv4),
                    ipv6: self.not_kept(*index, Family::Ipv6),
                },
                refusals: self.rib.intake(*index).into_iter().flat_map(Intake::totals).collect(),
                refused_example: self.rib.refused_example(*index),
                limit: self.rib.limit(*index),
                too_long: groups.filter_map(|group| self.rib.group(group)).map(|group| group.too_long()).sum(),
            })
        })
    }

    /// The destinations of a family in ascending order, only those within `within` where given, each with all routes to it
    /// and what the decision process made of them.
    pub fn routes(&self, family: Family, within: Option<Prefix>) -> impl Iterator<Item = RouteView<'_>> {
        self.rib.routes(family, within)
    }

    /// The destinations of a family behind `after` in ascending order, or all: the same again, begun anywhere.
    pub fn routes_after(&self, family: Family, after: Option<Prefix>) -> impl Iterator<Item = RouteView<'_>> {
        self.rib.routes_after(family, after)
    }

    fn not_kept(&self, index: PeerIndex, family: Family) -> u64 {
        self.rib.intake(index).map_or(0, |intake| intake.missed(family).all())
    }

    /// Routes that are refused, or would be if validation did more than warn: all that are kept and some of the others, by peer
    /// and prefix.
    pub fn rejected(&self) -> Vec<RejectedView> {
        let mut found = BTreeMap::new();
        for (address, index) in &self.by_address {
            for (prefix, sample) in self.rib.intake(*index).into_iter().flat_map(Intake::samples) {
                found.insert((*address, *prefix), (sample.refusal, sample.next_hop, sample.used));
            }
        }
        for family in Family::ALL {
            for route in self.rib.routes(family, None) {
                for path in route.paths {
                    if let Verdict::Excluded(Excluded::Refused(refusal)) = path.verdict {
                        found.insert((path.peer, route.prefix), (refusal, Some(path.next_hop), false));
                    }
                }
            }
        }
        let view = |((peer, prefix), (refusal, next_hop, used))| {
            let reason = self.rib.explain(&prefix, refusal);
            RejectedView { peer, prefix, next_hop, refusal, used, reason }
        };
        found.into_iter().map(view).collect()
    }

    /// How much is in the tables.
    pub fn table_sizes(&self) -> TableSizes {
        TableSizes {
            ipv4: self.rib.prefixes(Family::Ipv4),
            ipv6: self.rib.prefixes(Family::Ipv6),
            attribute_sets: self.rib.attribute_sets(),
        }
    }

    /// Connections that were closed because whoever dialled is not a peer.
    pub const fn rejected_connections(&self) -> u64 {
        self.rejected
    }
}

//! What is taken from peers and what is told to them. Pure functions of a route and of configuration.
//!
//! | a route from | goes to external peers | to clients | to other internal peers |
//! |---|---|---|---|
//! | this node (own blocks, borrowed addresses) | yes | yes | yes |
//! | an external peer | only with `export_all`, within pools | no | no |
//! | a client (RFC 4456 section 6) | only with `export_all`, within pools | yes | yes |
//! | another internal peer | only with `export_all`, within pools | where this node is a reflector | no |
//!
//! Routes of external peers do not enter the mesh: every node that peers with a router has them itself, and a node that
//! offered its router to others would draw their traffic to itself. Routes outside the pools (a default route from the
//! router above, say) are never told to another external peer, so a node is no transit between routers.

use std::net::IpAddr;

use types::{Asn, ClusterId, Family, Prefix, RouterId};

use crate::rib::{RouteAttributes, Source};
use crate::wire::{Codec, PathAttributes};

/// LOCAL_PREF of routes that come with none (the default of the field; RFC 4271 section 5.1.5 leaves it open).
pub const DEFAULT_LOCAL_PREF: u32 = 100;

/// Not to be told to other ASes (RFC 1997, Well-known Communities).
const NO_EXPORT: u32 = 0xffff_ff01;
/// Not to be told to any peer.
const NO_ADVERTISE: u32 = 0xffff_ff02;
/// Not to be told to other ASes, those of the same confederation among them.
const NO_EXPORT_SUBCONFED: u32 = 0xffff_ff03;

/// Which learned prefixes may be used and reflected. A refused one stays visible and is counted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ImportPolicy {
    /// The address pools: every prefix within one is accepted.
    pub pools: Vec<Prefix>,
    /// What else is accepted: every prefix within one of these. 0.0.0.0/0 and ::/0 mean the default route alone, not
    /// everything.
    pub prefixes: Vec<Prefix>,
}

impl ImportPolicy {
    /// Whether a learned prefix is accepted.
    pub fn accepts(&self, prefix: &Prefix) -> bool {
        self.is_pooled(prefix) || self.prefixes.iter().any(|entry| imports(entry, prefix))
    }

    /// Whether a pool covers the prefix.
    pub fn is_pooled(&self, prefix: &Prefix) -> bool {
        self.pools.iter().any(|pool| pool.covers(prefix))
    }
}

fn imports(entry: &Prefix, prefix: &Prefix) -> bool {
    if entry.len() == 0 { entry == prefix } else { entry.covers(prefix) }
}

/// Why a route is not even kept: it says itself that it has been here, or leads here.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Loop {
    /// Our AS is in AS_PATH (RFC 4271 section 9.1.2).
    AsPath,
    /// ORIGINATOR_ID is ours (RFC 4456 section 8).
    Originator,
    /// Our cluster is in CLUSTER_LIST (RFC 4456 section 8).
    ClusterList,
    /// The next hop is an address of ours (RFC 4271 section 5.1.3).
    NextHop,
}

/// This speaker as import sees it.
#[derive(Debug, Clone)]
pub(crate) struct Receiver {
    pub(crate) asn: Asn,
    pub(crate) router_id: RouterId,
    pub(crate) cluster_id: ClusterId,
    /// Addresses of ours, where they are known.
    pub(crate) addresses: [Option<IpAddr>; 3],
}

impl Receiver {
    /// Whether the route has been here before.
    pub(crate) fn detects_loop(&self, attributes: &PathAttributes, next_hop: IpAddr) -> Option<Loop> {
        if attributes.as_path.contains(self.asn) {
            Some(Loop::AsPath)
        } else if attributes.originator_id == Some(self.router_id) {
            Some(Loop::Originator)
        } else if attributes.cluster_list.contains(&self.cluster_id) {
            Some(Loop::ClusterList)
        } else if self.addresses.contains(&Some(next_hop)) {
            Some(Loop::NextHop)
        } else {
            None
        }
    }
}

/// What the peers of an update group have in common. Peers with equal ones are sent the same octets.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct ExportPolicy {
    /// The family of the routes.
    pub(crate) family: Family,
    /// What has been agreed on in OPEN.
    pub(crate) codec: Codec,
    /// Who they are.
    pub(crate) audience: Audience,
    /// Where packets for this node go.
    pub(crate) own_next_hop: IpAddr,
}

/// The peers of a group, as far as policy tells them apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Audience {
    /// Peers of another AS.
    External {
        /// Their AS.
        remote: Asn,
        /// The AS that they know us by.
        local: Asn,
        /// Whether they are told of other nodes' prefixes as well, and if so where a next hop needs no change.
        transit: Option<SharedSubnet>,
    },
    /// Peers of our AS.
    Internal {
        /// Our cluster where we reflect routes (RFC 4456 section 5).
        reflector: Option<ClusterId>,
        /// Whether they are our clients.
        clients: bool,
    },
}

/// The subnet that an external peer shares with us, where there is one: a next hop on it stays (RFC 4271 section 5.1.3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct SharedSubnet(pub(crate) Option<Prefix>);

impl ExportPolicy {
    /// Whether the peers are told of the route.
    pub(crate) fn admits(
        &self,
        prefix: &Prefix,
        source: Source,
        attributes: &RouteAttributes,
        import: &ImportPolicy,
    ) -> bool {
        let path = &attributes.path;
        if path.communities.contains(&NO_ADVERTISE) {
            return false;
        }
        match self.audience {
            Audience::External { remote, transit, .. } => {
                let own = source == Source::Local;
                let passed_on = transit.is_some() && import.is_pooled(prefix);
                let kept_within = path.communities.iter().any(|c| *c == NO_EXPORT || *c == NO_EXPORT_SUBCONFED);
                (own || passed_on) && !kept_within && !path.as_path.contains(remote)
            }
            Audience::Internal { reflector, clients } => match source {
                Source::Local => true,
                Source::External => false,
                Source::Client => reflector.is_some(),
                Source::Internal => reflector.is_some() && clients,
            },
        }
    }

    /// The route as the peers are told it. `originator`: the BGP Identifier of the peer that it came from.
    pub(crate) fn rewrite(
        &self,
        source: Source,
        attributes: &RouteAttributes,
        originator: Option<RouterId>,
    ) -> (PathAttributes, IpAddr) {
        let mut path = attributes.path.clone();
        match self.audience {
            Audience::External { local, transit, .. } => {
                path.as_path = path.as_path.prepended(local);
                path.med = None;
                path.local_pref = None;
                path.originator_id = None;
                path.cluster_list.clear();
                let shared = transit.and_then(|SharedSubnet(subnet)| subnet);
                let kept = attributes.next_hop.filter(|address| shared.is_some_and(|subnet| subnet.contains(*address)));
                (path, kept.unwrap_or(self.own_next_hop))
            }
            Audience::Internal { reflector, .. } => {
                path.local_pref.get_or_insert(DEFAULT_LOCAL_PREF);
                if source != Source::Local {
                    // Only the first reflector sets ORIGINATOR_ID (RFC 4456 section 8), and none changes the next hop
                    // (section 10).
                    path.originator_id = path.originator_id.or(originator);
                    path.cluster_list.splice(0..0, reflector);
                }
                (path, attributes.next_hop.unwrap_or(self.own_next_hop))
            }
        }
    }

    /// Whether the peers are told of nothing but this node's own routes.
    pub(crate) const fn is_own_routes_only(&self) -> bool {
        match self.audience {
            Audience::External { transit, .. } => transit.is_none(),
            Audience::Internal { reflector, .. } => reflector.is_none(),
        }
    }

    /// Whether what is told depends on pools.
    pub(crate) const fn depends_on_pools(&self) -> bool {
        matches!(self.audience, Audience::External { transit: Some(_), .. })
    }
}

#[cfg(test)]
mod tests;

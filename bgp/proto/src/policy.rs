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

/// The well-known communities of RFC 1997.
const NO_EXPORT: u32 = 0xffff_ff01;
const NO_ADVERTISE: u32 = 0xffff_ff02;
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
                    // RFC 4456 section 8: set by the first reflector only; section 10: the next hop stays.
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
mod tests {
    use std::net::Ipv4Addr;

    use super::*;
    use crate::wire::{AsPath, Families, PeerType};

    fn prefix(text: &str) -> Prefix {
        text.parse().unwrap()
    }

    fn asn(number: u32) -> Asn {
        Asn::new(number).unwrap()
    }

    fn id(last: u8) -> RouterId {
        RouterId::new(Ipv4Addr::new(192, 0, 2, last)).unwrap()
    }

    fn cluster(last: u8) -> ClusterId {
        ClusterId(Ipv4Addr::new(1, 1, 1, last))
    }

    fn import() -> ImportPolicy {
        ImportPolicy {
            pools: vec![prefix("10.65.0.0/16")],
            prefixes: vec![prefix("0.0.0.0/0"), prefix("198.51.100.0/24")],
        }
    }

    fn policy(audience: Audience) -> ExportPolicy {
        let peer_type = match audience {
            Audience::External { .. } => PeerType::External,
            Audience::Internal { .. } => PeerType::Internal,
        };
        let codec = Codec { four_octet_as: true, peer_type, families: Families::ALL };
        ExportPolicy { family: Family::Ipv4, codec, audience, own_next_hop: [192, 0, 2, 1].into() }
    }

    fn router(transit: Option<SharedSubnet>) -> ExportPolicy {
        policy(Audience::External { remote: asn(65_001), local: Asn::DEFAULT, transit })
    }

    fn internal(reflector: Option<ClusterId>, clients: bool) -> ExportPolicy {
        policy(Audience::Internal { reflector, clients })
    }

    fn route(path: PathAttributes) -> RouteAttributes {
        RouteAttributes { path, next_hop: Some([192, 0, 2, 7].into()) }
    }

    fn admitted(policy: &ExportPolicy, text: &str) -> Vec<Source> {
        let sources = [Source::Local, Source::External, Source::Client, Source::Internal];
        let route = route(PathAttributes::default());
        sources.into_iter().filter(|source| policy.admits(&prefix(text), *source, &route, &import())).collect()
    }

    #[test]
    fn pools_and_import_prefixes_are_accepted_and_the_default_entry_means_the_default_route_alone() {
        for accepted in ["10.65.0.0/16", "10.65.3.64/26", "10.65.0.1/32", "0.0.0.0/0", "198.51.100.128/25"] {
            assert!(import().accepts(&prefix(accepted)), "{accepted}");
        }
        for refused in ["10.64.0.0/15", "10.66.0.0/26", "203.0.113.0/24", "0.0.0.0/1", "::/0", "fd00::/64"] {
            assert!(!import().accepts(&prefix(refused)), "{refused}");
        }
    }

    #[test]
    fn the_table_of_who_is_told_what_holds() {
        let pooled = "10.65.0.0/26";
        let all = [Source::Local, Source::External, Source::Client, Source::Internal];
        assert_eq!(admitted(&router(None), pooled), [Source::Local]);
        assert_eq!(admitted(&router(Some(SharedSubnet(None))), pooled), all);
        assert_eq!(
            admitted(&router(Some(SharedSubnet(None))), "0.0.0.0/0"),
            [Source::Local],
            "no transit between routers"
        );
        assert_eq!(admitted(&internal(None, false), pooled), [Source::Local]);
        assert_eq!(admitted(&internal(Some(cluster(1)), false), pooled), [Source::Local, Source::Client]);
        let to_clients = [Source::Local, Source::Client, Source::Internal];
        assert_eq!(admitted(&internal(Some(cluster(1)), true), pooled), to_clients);
    }

    #[test]
    fn rfc1997_well_known_communities_are_honoured() {
        let with = |community| route(PathAttributes { communities: vec![community], ..PathAttributes::default() });
        let pooled = prefix("10.65.0.0/26");
        let transit = router(Some(SharedSubnet(None)));
        let reflector = internal(Some(cluster(1)), true);
        assert!(!transit.admits(&pooled, Source::Client, &with(NO_EXPORT), &import()));
        assert!(reflector.admits(&pooled, Source::Client, &with(NO_EXPORT), &import()));
        assert!(!reflector.admits(&pooled, Source::Client, &with(NO_ADVERTISE), &import()));
    }

    #[test]
    fn a_router_is_not_told_what_has_been_in_its_as() {
        let path =
            PathAttributes { as_path: AsPath::sequence([asn(65_009), asn(65_001)]), ..PathAttributes::default() };
        let transit = router(Some(SharedSubnet(None)));
        assert!(!transit.admits(&prefix("10.65.0.0/26"), Source::External, &route(path), &import()));
    }

    #[test]
    fn rfc4271_5_1_towards_a_router_the_as_is_prepended_and_internal_attributes_are_left_out() {
        let path = PathAttributes {
            as_path: AsPath::sequence([asn(65_009)]),
            med: Some(5),
            local_pref: Some(200),
            originator_id: Some(id(7)),
            cluster_list: vec![cluster(1)],
            communities: vec![42],
            ..PathAttributes::default()
        };
        let (told, next_hop) = router(Some(SharedSubnet(None))).rewrite(Source::Internal, &route(path.clone()), None);
        let as_path = AsPath::sequence([Asn::DEFAULT, asn(65_009)]);
        assert_eq!(told, PathAttributes { as_path, communities: vec![42], ..PathAttributes::default() });
        assert_eq!(next_hop, IpAddr::from([192, 0, 2, 1]));
        let shared = SharedSubnet(Some(prefix("192.0.2.0/24")));
        let (_, next_hop) = router(Some(shared)).rewrite(Source::Internal, &route(path), None);
        assert_eq!(next_hop, IpAddr::from([192, 0, 2, 7]));
    }

    #[test]
    fn rfc4456_8_a_reflector_names_the_originator_once_and_puts_its_cluster_in_front() {
        let reflector = internal(Some(cluster(9)), true);
        let (told, next_hop) = reflector.rewrite(Source::Client, &route(PathAttributes::default()), Some(id(7)));
        assert_eq!(
            (told.originator_id, told.cluster_list, told.local_pref),
            (Some(id(7)), vec![cluster(9)], Some(100))
        );
        assert_eq!(next_hop, IpAddr::from([192, 0, 2, 7]), "RFC 4456 section 10: unchanged");
        let path = PathAttributes {
            originator_id: Some(id(3)),
            cluster_list: vec![cluster(1)],
            local_pref: Some(300),
            ..PathAttributes::default()
        };
        let (told, _) = reflector.rewrite(Source::Internal, &route(path), Some(id(7)));
        assert_eq!(told.originator_id, Some(id(3)));
        assert_eq!((told.cluster_list, told.local_pref), (vec![cluster(9), cluster(1)], Some(300)));
    }

    #[test]
    fn own_routes_go_to_internal_peers_with_the_default_preference_and_our_next_hop() {
        let own = RouteAttributes { path: PathAttributes::default(), next_hop: None };
        let (told, next_hop) = internal(Some(cluster(9)), true).rewrite(Source::Local, &own, None);
        assert_eq!(told, PathAttributes { local_pref: Some(DEFAULT_LOCAL_PREF), ..PathAttributes::default() });
        assert_eq!(next_hop, IpAddr::from([192, 0, 2, 1]));
    }

    #[test]
    fn routes_that_have_been_here_are_recognised() {
        let receiver = Receiver {
            asn: Asn::DEFAULT,
            router_id: id(1),
            cluster_id: cluster(1),
            addresses: [Some([192, 0, 2, 1].into()), None, None],
        };
        let other: IpAddr = [192, 0, 2, 7].into();
        let plain = PathAttributes::default();
        assert_eq!(receiver.detects_loop(&plain, other), None);
        let as_path = AsPath::sequence([asn(65_001), Asn::DEFAULT]);
        assert_eq!(receiver.detects_loop(&PathAttributes { as_path, ..plain.clone() }, other), Some(Loop::AsPath));
        let originator = PathAttributes { originator_id: Some(id(1)), ..plain.clone() };
        assert_eq!(receiver.detects_loop(&originator, other), Some(Loop::Originator));
        let clusters = PathAttributes { cluster_list: vec![cluster(2), cluster(1)], ..plain.clone() };
        assert_eq!(receiver.detects_loop(&clusters, other), Some(Loop::ClusterList));
        assert_eq!(receiver.detects_loop(&plain, [192, 0, 2, 1].into()), Some(Loop::NextHop));
    }
}

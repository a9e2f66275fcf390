//! The decision process: which of the routes to one prefix is the best, and which others share the load with it.
//!
//! Each step of RFC 4271 section 9.1.2.2, with what RFC 4456 section 9 adds, is one function that marks the candidates it
//! eliminates. The steps look at the set as a whole (RFC 4271 section 9.1.2.2 c: MED compares only within one neighbouring
//! AS), so the outcome does not depend on the order in which routes came. The marks are also the answer to "why not
//! this one?".
//!
//! Age is not among the steps, as it would make the outcome depend on history.

use std::fmt;
use std::net::IpAddr;

/// The most next hops that one prefix is spread over.
pub const MAXIMUM_PATHS: usize = 64;

/// Where a route comes from, as far as decision and export care.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Source {
    /// This speaker originates it.
    Local,
    /// A peer of another AS.
    External,
    /// A peer of our AS that is a client of ours (RFC 4456 section 5).
    Client,
    /// Any other peer of our AS.
    Internal,
}

/// What the decision process looks at in one route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Candidate {
    /// Where it comes from.
    pub(crate) source: Source,
    /// Why it takes no part at all, or nothing.
    pub(crate) excluded: Option<Excluded>,
    /// LOCAL_PREF; 100 where it is absent.
    pub(crate) local_pref: u32,
    /// The length of AS_PATH, an AS_SET counting as one (RFC 4271 section 9.1.2.2 a).
    pub(crate) as_path_length: u32,
    /// ORIGIN: 0 IGP, 1 EGP, 2 INCOMPLETE.
    pub(crate) origin: u8,
    /// MULTI_EXIT_DISC; 0 where it is absent (RFC 4271 section 9.1.2.2 c).
    pub(crate) med: u32,
    /// The first AS of AS_PATH; nothing for a route of our own AS.
    pub(crate) neighbour_as: Option<u32>,
    /// The metric of the route to the next hop.
    pub(crate) igp_metric: u32,
    /// ORIGINATOR_ID, else the peer's BGP Identifier (RFC 4456 section 9).
    pub(crate) originator: u32,
    /// The length of CLUSTER_LIST; 0 where it is absent (RFC 4456 section 9).
    pub(crate) cluster_list_length: u32,
    /// The peer's address; nothing for a route of our own.
    pub(crate) peer: Option<IpAddr>,
}

/// Why a route takes no part in the decision.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Excluded {
    /// Import policy refuses the prefix.
    Refused,
    /// The next hop has not been resolved yet, or cannot be (RFC 4271 section 9.1.2.1).
    NextHopUnreachable,
}

/// The steps, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Step {
    /// A prefix that this speaker originates is never replaced by a learned one.
    LocalOrigin,
    /// RFC 4271 section 9.1.1: the higher LOCAL_PREF.
    LocalPref,
    /// RFC 4271 section 9.1.2.2 a: the shorter AS_PATH.
    AsPathLength,
    /// RFC 4271 section 9.1.2.2 b: the lower ORIGIN.
    Origin,
    /// RFC 4271 section 9.1.2.2 c: the lower MED among routes of one neighbouring AS.
    Med,
    /// RFC 4271 section 9.1.2.2 d: external over internal.
    ExternalOverInternal,
    /// RFC 4271 section 9.1.2.2 e: the nearer next hop.
    IgpMetric,
    /// RFC 4271 section 9.1.2.2 f, RFC 4456 section 9: the lower ORIGINATOR_ID or BGP Identifier.
    RouterId,
    /// RFC 4456 section 9: the shorter CLUSTER_LIST.
    ClusterListLength,
    /// RFC 4271 section 9.1.2.2 g: the lower peer address.
    PeerAddress,
}

/// What became of one candidate.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Verdict {
    /// The best.
    Best,
    /// Equal to the best up to the metric of its next hop, so packets use both (RFC 7938 section 5.2: the content of
    /// AS_PATH may differ, its length may not). Lost to the best at this tie-break.
    Multipath(Step),
    /// Lost at this step.
    Lost(Step),
    /// Took no part.
    Excluded(Excluded),
}

impl Verdict {
    /// Whether packets use the route.
    pub const fn is_used(self) -> bool {
        matches!(self, Self::Best | Self::Multipath(_))
    }

    /// The order in which people want to see routes: the best first.
    pub(crate) const fn rank(self) -> u8 {
        match self {
            Self::Best => 0,
            Self::Multipath(_) => 1,
            Self::Lost(_) => 2,
            Self::Excluded(_) => 3,
        }
    }
}

impl fmt::Display for Step {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalOrigin => "originated here",
            Self::LocalPref => "local preference",
            Self::AsPathLength => "AS path length",
            Self::Origin => "origin",
            Self::Med => "MED",
            Self::ExternalOverInternal => "external over internal",
            Self::IgpMetric => "metric of the next hop",
            Self::RouterId => "router id",
            Self::ClusterListLength => "cluster list length",
            Self::PeerAddress => "peer address",
        })
    }
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Best => f.write_str("best"),
            Self::Multipath(step) => write!(f, "equal cost (best by {step})"),
            Self::Lost(step) => write!(f, "lost by {step}"),
            Self::Excluded(Excluded::Refused) => f.write_str("refused by import policy"),
            Self::Excluded(Excluded::NextHopUnreachable) => f.write_str("next hop unreachable"),
        }
    }
}

/// The verdict on each candidate, in the order given. At most one is best; none where all are excluded.
pub(crate) fn decide(candidates: &[Candidate]) -> Vec<Verdict> {
    let mut contest = Contest {
        entrants: candidates
            .iter()
            .map(|candidate| Entrant { candidate: *candidate, out: candidate.excluded.map(Verdict::Excluded) })
            .collect(),
    };
    for step in BEFORE_MULTIPATH {
        contest.run(*step);
    }
    for step in TIE_BREAKS {
        contest.run(*step);
    }
    contest.limit_multipath();
    contest.entrants.iter().map(|entrant| entrant.out.unwrap_or(Verdict::Best)).collect()
}

/// The steps that decide what packets use.
const BEFORE_MULTIPATH: &[Step] = &[
    Step::LocalOrigin,
    Step::LocalPref,
    Step::AsPathLength,
    Step::Origin,
    Step::Med,
    Step::ExternalOverInternal,
    Step::IgpMetric,
];

/// The steps that choose what is told to peers among routes that packets use alike.
const TIE_BREAKS: &[Step] = &[Step::RouterId, Step::ClusterListLength, Step::PeerAddress];

/// The candidates while steps eliminate some of them.
struct Contest {
    entrants: Vec<Entrant>,
}

#[derive(Clone, Copy)]
struct Entrant {
    candidate: Candidate,
    /// What became of it; nothing while it is in the contest.
    out: Option<Verdict>,
}

impl Contest {
    fn run(&mut self, step: Step) {
        match step {
            Step::LocalOrigin => self.keep_lowest(step, |route| route.source != Source::Local),
            Step::LocalPref => self.keep_lowest(step, |route| u32::MAX - route.local_pref),
            Step::AsPathLength => self.keep_lowest(step, |route| route.as_path_length),
            Step::Origin => self.keep_lowest(step, |route| route.origin),
            Step::Med => self.med(),
            Step::ExternalOverInternal => self.keep_lowest(step, |route| route.source > Source::External),
            Step::IgpMetric => self.keep_lowest(step, |route| route.igp_metric),
            Step::RouterId => self.keep_lowest(step, |route| route.originator),
            Step::ClusterListLength => self.keep_lowest(step, |route| route.cluster_list_length),
            Step::PeerAddress => self.keep_lowest(step, |route| route.peer),
        }
    }

    /// Eliminates all that are not lowest by `key` among those still in.
    fn keep_lowest<K: Ord>(&mut self, step: Step, key: impl Fn(&Candidate) -> K) {
        let Some(lowest) = self.entrants.iter().filter(|entrant| entrant.is_in()).map(|e| key(&e.candidate)).min()
        else {
            return;
        };
        for entrant in &mut self.entrants {
            if entrant.is_in() && key(&entrant.candidate) > lowest {
                entrant.lose(step);
            }
        }
    }

    /// RFC 4271 section 9.1.2.2 c: a route goes if another of the same neighbouring AS has a lower MED.
    fn med(&mut self) {
        let still_in: Vec<Candidate> = self.entrants.iter().filter(|e| e.is_in()).map(|e| e.candidate).collect();
        for entrant in self.entrants.iter_mut().filter(|entrant| entrant.is_in()) {
            let route = entrant.candidate;
            if still_in.iter().any(|other| other.neighbour_as == route.neighbour_as && other.med < route.med) {
                entrant.lose(Step::Med);
            }
        }
    }

    /// Of too many equal routes, the first ones by the tie-breaks are used.
    fn limit_multipath(&mut self) {
        let mut equal: Vec<&mut Entrant> =
            self.entrants.iter_mut().filter(|entrant| matches!(entrant.out, Some(Verdict::Multipath(_)))).collect();
        if equal.len() < MAXIMUM_PATHS {
            return;
        }
        equal.sort_by_key(|entrant| entrant.candidate.tie_break());
        for entrant in equal.into_iter().skip(MAXIMUM_PATHS - 1) {
            if let Some(Verdict::Multipath(step)) = entrant.out {
                entrant.out = Some(Verdict::Lost(step));
            }
        }
    }
}

impl Entrant {
    const fn is_in(&self) -> bool {
        self.out.is_none()
    }

    fn lose(&mut self, step: Step) {
        self.out = Some(if TIE_BREAKS.contains(&step) { Verdict::Multipath(step) } else { Verdict::Lost(step) });
    }
}

impl Candidate {
    /// What the tie-breaks compare, in their order.
    pub(crate) const fn tie_break(&self) -> (u32, u32, Option<IpAddr>) {
        (self.originator, self.cluster_list_length, self.peer)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn route(last_octet: u8) -> Candidate {
        Candidate {
            source: Source::Internal,
            excluded: None,
            local_pref: 100,
            as_path_length: 2,
            origin: 0,
            med: 0,
            neighbour_as: Some(65_001),
            igp_metric: 10,
            originator: u32::from(last_octet),
            cluster_list_length: 0,
            peer: Some(IpAddr::from([192, 0, 2, last_octet])),
        }
    }

    /// The first wins by `step`; both orders.
    #[track_caller]
    fn wins(winner: Candidate, loser: Candidate, step: Step) {
        let lost = if TIE_BREAKS.contains(&step) { Verdict::Multipath(step) } else { Verdict::Lost(step) };
        assert_eq!(decide(&[winner, loser]), [Verdict::Best, lost]);
        assert_eq!(decide(&[loser, winner]), [lost, Verdict::Best]);
    }

    #[test]
    fn an_own_prefix_is_never_replaced_by_a_learned_one() {
        let own = Candidate { source: Source::Local, local_pref: 0, as_path_length: 9, ..route(9) };
        wins(own, Candidate { local_pref: 1_000, ..route(1) }, Step::LocalOrigin);
    }

    #[test]
    fn rfc4271_9_1_1_the_higher_local_pref_wins() {
        wins(Candidate { local_pref: 200, as_path_length: 9, ..route(9) }, route(1), Step::LocalPref);
    }

    #[test]
    fn rfc4271_9_1_2_1_a_route_with_an_unreachable_next_hop_takes_no_part() {
        let excluded = Excluded::NextHopUnreachable;
        let unreachable = Candidate { local_pref: 200, excluded: Some(excluded), ..route(1) };
        assert_eq!(decide(&[unreachable, route(9)]), [Verdict::Excluded(excluded), Verdict::Best]);
        assert_eq!(decide(&[unreachable]), [Verdict::Excluded(excluded)]);
    }

    #[test]
    fn rfc4271_9_1_2_2_a_the_shorter_as_path_wins() {
        wins(Candidate { as_path_length: 1, origin: 2, ..route(9) }, route(1), Step::AsPathLength);
    }

    #[test]
    fn rfc4271_9_1_2_2_b_the_lower_origin_wins() {
        wins(Candidate { med: 50, ..route(9) }, Candidate { origin: 1, ..route(1) }, Step::Origin);
    }

    #[test]
    fn rfc4271_9_1_2_2_c_med_compares_only_within_one_neighbouring_as() {
        let low = Candidate { med: 5, source: Source::Internal, ..route(9) };
        wins(low, Candidate { med: 6, source: Source::External, ..route(1) }, Step::Med);
        let other_as = Candidate { med: 6, neighbour_as: Some(65_002), ..route(1) };
        wins(other_as, low, Step::RouterId);
    }

    #[test]
    fn rfc4271_9_1_2_2_c_the_classic_cycle_of_three_has_one_outcome_in_every_order() {
        let a = Candidate { med: 10, igp_metric: 5, ..route(1) };
        let b = Candidate { neighbour_as: Some(65_002), igp_metric: 4, ..route(2) };
        let c = Candidate { med: 5, igp_metric: 6, ..route(3) };
        for order in [[a, b, c], [a, c, b], [b, a, c], [b, c, a], [c, a, b], [c, b, a]] {
            let best = decide(&order).iter().position(|verdict| *verdict == Verdict::Best).unwrap();
            assert_eq!(order[best], b);
        }
    }

    #[test]
    fn rfc4271_9_1_2_2_d_external_wins_over_internal_and_the_two_never_share() {
        let external = Candidate { source: Source::External, igp_metric: 99, ..route(9) };
        wins(external, route(1), Step::ExternalOverInternal);
        wins(external, Candidate { source: Source::Client, ..route(1) }, Step::ExternalOverInternal);
    }

    #[test]
    fn rfc4271_9_1_2_2_e_the_nearer_next_hop_wins() {
        wins(Candidate { igp_metric: 5, ..route(9) }, route(1), Step::IgpMetric);
    }

    #[test]
    fn rfc4271_9_1_2_2_f_the_lower_router_id_wins_and_both_are_used() {
        wins(
            Candidate { peer: route(9).peer, ..route(1) },
            Candidate { peer: route(1).peer, ..route(9) },
            Step::RouterId,
        );
    }

    #[test]
    fn rfc4456_9_the_shorter_cluster_list_wins_after_the_originator() {
        let near = Candidate { originator: 7, ..route(9) };
        wins(near, Candidate { originator: 7, cluster_list_length: 1, ..route(1) }, Step::ClusterListLength);
    }

    #[test]
    fn rfc4271_9_1_2_2_g_the_lower_peer_address_wins_last() {
        wins(Candidate { originator: 7, ..route(1) }, Candidate { originator: 7, ..route(9) }, Step::PeerAddress);
    }

    #[test]
    fn a_client_and_another_internal_peer_share_the_load() {
        wins(
            Candidate { source: Source::Internal, ..route(1) },
            Candidate { source: Source::Client, ..route(2) },
            Step::RouterId,
        );
    }

    #[test]
    fn no_more_than_the_maximum_share_the_load_and_the_first_by_tie_break_are_kept() {
        let routes: Vec<_> = (0..100).rev().map(route).collect();
        let verdicts = decide(&routes);
        assert_eq!(verdicts.iter().filter(|verdict| verdict.is_used()).count(), MAXIMUM_PATHS);
        assert_eq!(verdicts.last(), Some(&Verdict::Best));
        assert_eq!(verdicts.first(), Some(&Verdict::Lost(Step::RouterId)));
    }

    fn any_route(number: u8) -> impl Strategy<Value = Candidate> {
        let source = prop_oneof![Just(Source::External), Just(Source::Client), Just(Source::Internal)];
        (source, 0..2_u32, 1..3_u32, 0..2_u8, 0..3_u32, 0..3_u32, 0..2_u32, 0..3_u32).prop_map(
            move |(source, local_pref, as_path_length, origin, med, neighbour, igp_metric, originator)| Candidate {
                source,
                local_pref,
                as_path_length,
                origin,
                med,
                neighbour_as: Some(neighbour),
                igp_metric,
                originator,
                ..route(number)
            },
        )
    }

    proptest! {
        #[test]
        fn the_outcome_does_not_depend_on_the_order_of_the_routes(
            routes in (any_route(1), any_route(2), any_route(3), any_route(4), any_route(5)),
            order in Just([0, 1, 2, 3, 4]).prop_shuffle(),
        ) {
            let routes = [routes.0, routes.1, routes.2, routes.3, routes.4];
            let straight = decide(&routes);
            let shuffled = decide(&order.map(|index| routes[index]));
            for (position, index) in order.into_iter().enumerate() {
                prop_assert_eq!(straight[index], shuffled[position]);
            }
            prop_assert_eq!(straight.iter().filter(|verdict| **verdict == Verdict::Best).count(), 1);
        }
    }
}

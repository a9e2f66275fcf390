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

use crate::origin::Refusal;

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
    /// It cannot be told whether its origin may announce it.
    pub(crate) doubted: bool,
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
    /// Import does not let it in.
    Refused(Refusal),
    /// The next hop has not been resolved yet, or cannot be (RFC 4271 section 9.1.2.1).
    NextHopUnreachable,
}

/// The steps of the decision process, in their order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum DecisionStep {
    /// A prefix that this speaker originates is never replaced by a learned one.
    LocalOrigin,
    /// One whose origin is known to be good before one of which that cannot be told.
    OriginKnown,
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
    /// It is the best route, which is told to peers.
    Best,
    /// It equals the best route up to the metric of its next hop, so packets use both (RFC 7938 section 5.2: the content
    /// of AS_PATH may differ, its length may not). It lost to the best at this tie-break.
    Multipath(DecisionStep),
    /// It lost at this step.
    Lost(DecisionStep),
    /// It took no part.
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

impl fmt::Display for DecisionStep {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::LocalOrigin => "originated here",
            Self::OriginKnown => "an origin that is in doubt",
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
            Self::Excluded(Excluded::Refused(refusal)) => refusal.fmt(f),
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
const BEFORE_MULTIPATH: &[DecisionStep] = &[
    DecisionStep::LocalOrigin,
    DecisionStep::OriginKnown,
    DecisionStep::LocalPref,
    DecisionStep::AsPathLength,
    DecisionStep::Origin,
    DecisionStep::Med,
    DecisionStep::ExternalOverInternal,
    DecisionStep::IgpMetric,
];

/// The steps that choose what is told to peers among routes that packets use alike.
const TIE_BREAKS: &[DecisionStep] =
    &[DecisionStep::RouterId, DecisionStep::ClusterListLength, DecisionStep::PeerAddress];

/// The candidates, some of which have been eliminated by the steps so far.
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
    /// Eliminates the candidates that lose at this step.
    fn run(&mut self, step: DecisionStep) {
        match step {
            DecisionStep::LocalOrigin => self.keep_lowest(step, |route| route.source != Source::Local),
            DecisionStep::OriginKnown => self.keep_lowest(step, |route| route.doubted),
            DecisionStep::LocalPref => self.keep_lowest(step, |route| u32::MAX - route.local_pref),
            DecisionStep::AsPathLength => self.keep_lowest(step, |route| route.as_path_length),
            DecisionStep::Origin => self.keep_lowest(step, |route| route.origin),
            DecisionStep::Med => self.med(),
            DecisionStep::ExternalOverInternal => self.keep_lowest(step, |route| route.source > Source::External),
            DecisionStep::IgpMetric => self.keep_lowest(step, |route| route.igp_metric),
            DecisionStep::RouterId => self.keep_lowest(step, |route| route.originator),
            DecisionStep::ClusterListLength => self.keep_lowest(step, |route| route.cluster_list_length),
            DecisionStep::PeerAddress => self.keep_lowest(step, |route| route.peer),
        }
    }

    /// Eliminates all that are not lowest by `key` among those still in.
    fn keep_lowest<K: Ord>(&mut self, step: DecisionStep, key: impl Fn(&Candidate) -> K) {
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
                entrant.lose(DecisionStep::Med);
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

    fn lose(&mut self, step: DecisionStep) {
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
mod tests;

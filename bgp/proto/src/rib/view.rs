//! The tables as people see them: every route, and why it is used or not.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use types::{Family, Prefix};

use super::Rib;
use super::adj_in::Path;
use super::decision::{self, Source, Verdict};
use super::loc::{Network, Peers as _, PrefixTable};
use crate::wire::PathAttributes;

/// A destination and all that is known of it.
#[derive(Debug, Clone)]
pub struct RouteView<'a> {
    /// The destination.
    pub prefix: Prefix,
    /// Whether this speaker originates it.
    pub own: bool,
    /// The routes to it that peers offer, best first. A route of our own is not among them.
    pub paths: Vec<PathView<'a>>,
}

/// One peer's route.
#[derive(Debug, Clone)]
pub struct PathView<'a> {
    /// Who offers it.
    pub peer: IpAddr,
    /// What kind of peer that is.
    pub source: Source,
    /// Where packets go.
    pub next_hop: IpAddr,
    /// Its attributes as they were received.
    pub attributes: &'a PathAttributes,
    /// Whether it is kept while the peer restarts (RFC 4724).
    pub stale: bool,
    /// What the decision process made of it.
    pub verdict: Verdict,
}

impl Rib {
    /// The destinations of a family in ascending order, only those within `within` where given (a prefix lies within
    /// itself).
    pub(crate) fn routes(
        &self,
        family: Family,
        within: Option<Prefix>,
    ) -> Box<dyn Iterator<Item = RouteView<'_>> + '_> {
        match family {
            Family::Ipv4 => self.views(family, &self.tables.ipv4, within),
            Family::Ipv6 => self.views(family, &self.tables.ipv6, within),
        }
    }

    /// The destinations of a family behind `after` in ascending order, or all.
    pub(crate) fn routes_after(
        &self,
        family: Family,
        after: Option<Prefix>,
    ) -> Box<dyn Iterator<Item = RouteView<'_>> + '_> {
        let Some(after) = after else { return self.routes(family, None) };
        // Of what follows, each part is the subtree of one prefix: what lies within `after`, then what lies to the right of
        // the way that leads to it, from below.
        let within = self.routes(family, Some(after)).filter(move |route| route.prefix != after);
        Box::new(within.chain(right_of(after).flat_map(move |part| self.routes(family, Some(part)))))
    }

    fn views<'a, N: Network>(
        &'a self,
        family: Family,
        table: &'a PrefixTable<N>,
        within: Option<Prefix>,
    ) -> Box<dyn Iterator<Item = RouteView<'a>> + 'a> {
        match within.map(N::of) {
            // A prefix of the other family holds nothing of this one.
            Some(None) => Box::new(std::iter::empty()),
            Some(Some(within)) => Box::new(self.view_all(family, table.within(within))),
            None => Box::new(self.view_all(family, table.iter())),
        }
    }

    fn view_all<'a>(
        &'a self,
        family: Family,
        destinations: impl Iterator<Item = (Prefix, &'a [Path])>,
    ) -> impl Iterator<Item = RouteView<'a>> {
        destinations.map(move |(prefix, paths)| {
            let candidates: Vec<_> = paths.iter().map(|path| self.sources.candidate(path, &self.attributes)).collect();
            let verdicts = decision::decide(&candidates);
            let mut judged: Vec<_> = paths.iter().zip(verdicts).zip(&candidates).collect();
            judged.sort_by_key(|((_, verdict), candidate)| (verdict.rank(), candidate.tie_break()));
            let own = paths.iter().any(|path| path.source == Source::Local);
            let paths = judged.into_iter().filter_map(|((path, verdict), _)| self.path_view(family, path, verdict));
            RouteView { prefix, own, paths: paths.collect() }
        })
    }

    fn path_view(&self, family: Family, path: &Path, verdict: Verdict) -> Option<PathView<'_>> {
        let route = self.attributes.value(path.attrs)?;
        Some(PathView {
            peer: self.sources.address(path.peer)?,
            source: path.source,
            next_hop: route.next_hop?,
            attributes: &route.path,
            stale: path.generation() != self.sources.generation(path.peer, family),
            verdict,
        })
    }
}

/// The subtrees that follow a prefix and all that lies within it, in ascending order.
fn right_of(prefix: Prefix) -> impl Iterator<Item = Prefix> {
    let bits = prefix.family().bits();
    let octets = |addr| match addr {
        IpAddr::V4(addr) => u128::from(addr.to_bits()),
        IpAddr::V6(addr) => addr.to_bits(),
    };
    let addr = octets(prefix.addr());
    (1..=prefix.len()).rev().filter_map(move |length| {
        let bit = 1_u128 << (bits - length);
        let right = (addr & bit == 0).then_some((addr | bit) & !(bit - 1))?;
        let right = match prefix.family() {
            Family::Ipv4 => IpAddr::V4(Ipv4Addr::from_bits(u32::try_from(right).ok()?)),
            Family::Ipv6 => IpAddr::V6(Ipv6Addr::from_bits(right)),
        };
        Prefix::new(right, length).ok()
    })
}

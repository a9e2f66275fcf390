//! The tables as people see them: every route, and why it is used or not.

use std::net::IpAddr;

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

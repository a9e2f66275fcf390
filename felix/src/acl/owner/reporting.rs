//! What the owner says of itself: figures and counters to those who ask, and whether the node should be given pods.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::time::Instant;

use tokio::sync::oneshot;
use tracing::warn;
use types::EndpointId;
use types::policy::Direction;

use super::{Local, Owner};
use crate::acl::names::{self, SetRef};
use crate::acl::view::{AclView, DropCount, Drops, Reason};

/// Changes whose way to the kernel is measured at a time.
const CHANGES_MEASURED: usize = 1_024;

/// What is counted and measured, and who wants to see it.
#[derive(Debug, Default)]
pub(super) struct Reports {
    /// Figures that are kept as things happen; those that are not are filled in for who asks.
    pub(super) view: AclView,
    /// Counters of what is dropped ahead of all policies.
    pub(super) drops: Drops,
    /// Who wants to see them.
    asked: Vec<oneshot::Sender<AclView>>,
    /// When changes were told that are not all in force yet.
    told: Vec<Instant>,
}

impl Reports {
    /// Somebody wants to see.
    pub(super) fn ask(&mut self, reply: oneshot::Sender<AclView>) {
        self.asked.push(reply);
    }

    /// A change was told.
    pub(super) fn change_told(&mut self, now: Instant) {
        if self.told.len() < CHANGES_MEASURED {
            self.told.push(now);
        }
    }

    /// All that was told is in force.
    pub(super) fn all_in_force(&mut self, now: Instant) {
        for told in self.told.drain(..) {
            self.view.change_to_kernel.observe(now.saturating_duration_since(told));
        }
    }
}

impl Owner {
    /// Answers who wants to see, when counters have been read or cannot be read now.
    pub(super) fn show(&mut self) {
        if self.reports.asked.is_empty() {
            return;
        }
        if !self.iptables.is_busy() {
            self.give_counting();
        } else if !self.iptables.is_counting() {
            self.send_views();
        }
    }

    pub(super) fn send_views(&mut self) {
        let counts = self.state.counts();
        let mut view = AclView {
            is_settled: self.state.is_settled(),
            classes: counts.classes,
            rules: counts.rules,
            addresses: counts.addresses,
            compiler: self.compiler.stats(),
            drops: Vec::new(),
            ..self.reports.view.clone()
        };
        if let Ok(headers) = self.ends.sets.sets() {
            let ours = headers.iter().filter(|header| header.name.as_str().starts_with(names::PREFIX));
            (view.sets, view.elements) =
                ours.fold((0, 0), |(sets, elements), header| (sets + 1, elements + u64::from(header.elements)));
        }
        view.drops = self.policy_drops();
        view.unknown_drops = self.reports.drops.total(Reason::Unknown);
        view.refused_drops = self.reports.drops.total(Reason::Refused);
        view.spoofed_drops = self.reports.drops.total(Reason::Spoofed);
        for reply in std::mem::take(&mut self.reports.asked) {
            // Whoever asked may have stopped waiting.
            let _ = reply.send(view.clone());
        }
    }

    /// What policies dropped, by the local endpoint and its side.
    fn policy_drops(&mut self) -> Vec<DropCount> {
        let mut packets: BTreeMap<(IpAddr, Direction), u64> = BTreeMap::new();
        for family in self.state.families().clone() {
            for direction in Direction::ALL {
                match self.ends.sets.packets(&SetRef::Drops(direction, family).kernel_name()) {
                    Ok(counts) => packets.extend(counts.into_iter().map(|(of, count)| ((of, direction), count))),
                    Err(error) => warn!(%error, "packets that policies drop cannot be counted"),
                }
            }
        }
        let count = |(id, local): (&EndpointId, &Local), direction| DropCount {
            endpoint: id.clone(),
            namespace: local.namespace.clone(),
            pod: local.pod.clone(),
            direction,
            packets: local.addresses.iter().filter_map(|address| packets.get(&(*address, direction))).sum(),
        };
        let all = self.locals.iter().flat_map(|local| Direction::ALL.map(|direction| count(local, direction)));
        all.filter(|drops| drops.packets > 0).collect()
    }

    pub(super) fn tell_readiness(&self) {
        let mut reasons = Vec::new();
        if !self.locals_known {
            reasons.push("policies: the endpoints of this node are not known yet".to_owned());
        }
        if !self.compiler.in_sync() {
            reasons.push("policies: not every source is in sync yet".to_owned());
        }
        if let Some(error) = self.iptables.trouble() {
            reasons.push(format!("policies: rules cannot be changed: {error}"));
        }
        reasons.extend(self.sets.troubles().map(|(set, error)| format!("policies: set {set}: {error}")));
        match self.state.without_number() {
            0 => {}
            classes => {
                reasons.push(format!("policies: the packet mark has no room for {classes} classes of endpoints"))
            }
        }
        self.ends.readiness.send_if_modified(|known| {
            let is_new = *known != reasons;
            if is_new {
                *known = reasons;
            }
            is_new
        });
    }
}

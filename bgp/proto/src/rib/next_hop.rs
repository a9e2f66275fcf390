//! The next hops of all routes: what is known of each, and which of them somebody has to watch.

use std::collections::{HashMap, HashSet};
use std::net::IpAddr;

use types::{NextHopState, NextHopWatch};

/// The place of a next hop in [`NextHops`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) struct NextHopId(u32);

/// Every next hop that some attribute set names.
#[derive(Debug, Default)]
pub(crate) struct NextHops {
    /// The next hops by their places; a place in `free` still holds the former one.
    slots: Vec<NextHop>,
    /// Places to be used again.
    free: Vec<NextHopId>,
    /// The place of every next hop in use.
    by_address: HashMap<IpAddr, NextHopId>,
    /// Next hops whose need of a watch may have changed since the last [`NextHops::watches`].
    unsettled: Vec<NextHopId>,
    /// Next hops whose state has changed since the last [`NextHops::take_changed`].
    changed: HashSet<NextHopId>,
    /// Of how many next hops the kernel has not said anything yet.
    unanswered: usize,
}

#[derive(Debug)]
struct NextHop {
    address: IpAddr,
    /// The attribute sets that name it.
    references: u32,
    /// The metric of the kernel's route to it; nothing while there is no such route, or none is known of.
    metric: Option<u32>,
    /// Whether the kernel has said anything of it.
    answered: bool,
    /// Whether a watch has been asked for.
    watched: bool,
}

impl NextHops {
    /// Counts one more attribute set that names the address.
    pub(crate) fn acquire(&mut self, address: IpAddr) -> NextHopId {
        if let Some(id) = self.by_address.get(&address) {
            if let Some(slot) = self.slots.get_mut(id.0 as usize) {
                slot.references += 1;
            }
            return *id;
        }
        let slot = NextHop { address, references: 1, metric: None, answered: false, watched: false };
        self.unanswered += 1;
        let id = match self.free.pop() {
            Some(id) => {
                if let Some(place) = self.slots.get_mut(id.0 as usize) {
                    *place = slot;
                }
                id
            }
            None => {
                let id = NextHopId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX));
                self.slots.push(slot);
                id
            }
        };
        self.by_address.insert(address, id);
        self.unsettled.push(id);
        id
    }

    /// Counts one attribute set less.
    pub(crate) fn release(&mut self, id: NextHopId) {
        if let Some(slot) = self.slots.get_mut(id.0 as usize) {
            slot.references = slot.references.saturating_sub(1);
            if slot.references == 0 {
                self.unsettled.push(id);
            }
        }
    }

    /// The metric of the route to it; nothing where it cannot be reached or has not been resolved yet.
    pub(crate) fn metric(&self, id: NextHopId) -> Option<u32> {
        self.slots.get(id.0 as usize).and_then(|slot| slot.metric)
    }

    /// Takes in what the kernel says. An address that is not watched (any more) is ignored.
    pub(crate) fn set(&mut self, state: NextHopState) {
        let Some(id) = self.by_address.get(&state.address).copied() else { return };
        let Some(slot) = self.slots.get_mut(id.0 as usize) else { return };
        if !slot.answered {
            slot.answered = true;
            self.unanswered -= 1;
        }
        if slot.metric != state.metric {
            slot.metric = state.metric;
            self.changed.insert(id);
        }
    }

    /// Whether the kernel has said something of every next hop.
    pub(crate) const fn knows_all(&self) -> bool {
        self.unanswered == 0
    }

    /// Whether [`NextHops::take_changed`] would return any.
    pub(crate) fn has_changed(&self) -> bool {
        !self.changed.is_empty()
    }

    /// The next hops that have changed since the last call.
    pub(crate) fn take_changed(&mut self) -> HashSet<NextHopId> {
        std::mem::take(&mut self.changed)
    }

    /// The watches to begin and to end since the last call. A next hop that was released and taken up again in between
    /// costs nothing.
    pub(crate) fn watches(&mut self) -> Vec<NextHopWatch> {
        let mut watches = Vec::new();
        for id in std::mem::take(&mut self.unsettled) {
            let Some(slot) = self.slots.get_mut(id.0 as usize) else { continue };
            let is_used = slot.references > 0;
            if is_used && !slot.watched {
                slot.watched = true;
                watches.push(NextHopWatch::Track(slot.address));
            }
            // A place that was freed already is not the one that its address leads to.
            if !is_used && self.by_address.get(&slot.address) == Some(&id) {
                if slot.watched {
                    watches.push(NextHopWatch::Untrack(slot.address));
                }
                self.unanswered -= usize::from(!slot.answered);
                self.by_address.remove(&slot.address);
                self.free.push(id);
            }
        }
        watches
    }
}

#[cfg(test)]
mod tests;

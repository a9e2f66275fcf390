//! Attribute sets, each stored once however many routes bear it.
//!
//! A route names its attributes by a number of four octets. A set lives as long as something refers to it: paths in the
//! tables, and what a round remembers of the state before it. One UPDATE is looked up once, not once per prefix.

use std::collections::HashMap;
use std::net::IpAddr;
use std::sync::Arc;

use types::{NextHopState, NextHopWatch};

use super::next_hop::{NextHopId, NextHops};
use crate::wire::PathAttributes;

/// The number of an attribute set in [`AttributeSets`].
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct AttrId(pub(crate) u32);

/// What a route is apart from its prefix and its peer.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct RouteAttributes {
    /// The attributes of RFC 4271 section 5, without the next hop.
    pub(crate) path: PathAttributes,
    /// NEXT_HOP, or that of MP_REACH_NLRI; nothing for a route of our own.
    pub(crate) next_hop: Option<IpAddr>,
}

/// All attribute sets in use, and their next hops.
#[derive(Debug, Default)]
pub(crate) struct AttributeSets {
    /// The sets by their numbers; an empty place is one of `free`.
    slots: Vec<Option<Slot>>,
    /// Numbers that no set has, to be used again.
    free: Vec<AttrId>,
    /// The number of every set in use.
    by_value: HashMap<Arc<RouteAttributes>, AttrId>,
    /// The next hops that the sets name.
    next_hops: NextHops,
}

/// A set in use.
#[derive(Debug)]
struct Slot {
    value: Arc<RouteAttributes>,
    /// The next hop that it names; nothing for routes of our own.
    next_hop: Option<NextHopId>,
    /// How many paths and notes of this round refer to it.
    references: u32,
}

impl AttributeSets {
    /// The number of a set. It bears no reference of the caller yet: [`AttributeSets::retain`] it for every route, and
    /// call [`AttributeSets::collect`] when none was.
    pub(crate) fn intern(&mut self, value: RouteAttributes) -> AttrId {
        if let Some(id) = self.by_value.get(&value) {
            return *id;
        }
        let value = Arc::new(value);
        let next_hop = value.next_hop.map(|address| self.next_hops.acquire(address));
        let slot = Some(Slot { value: Arc::clone(&value), next_hop, references: 0 });
        let id = self.free.pop().unwrap_or_else(|| AttrId(u32::try_from(self.slots.len()).unwrap_or(u32::MAX)));
        match self.slots.get_mut(id.0 as usize) {
            Some(place) => *place = slot,
            None => self.slots.push(slot),
        }
        self.by_value.insert(value, id);
        id
    }

    /// Counts one more reference.
    pub(crate) fn retain(&mut self, id: AttrId) {
        if let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) {
            slot.references += 1;
        }
    }

    /// Counts one reference less, and frees a set that has none left.
    pub(crate) fn release(&mut self, id: AttrId) {
        if let Some(Some(slot)) = self.slots.get_mut(id.0 as usize) {
            slot.references = slot.references.saturating_sub(1);
        }
        self.collect(id);
    }

    /// Frees the set if nothing refers to it.
    pub(crate) fn collect(&mut self, id: AttrId) {
        let Some(place) = self.slots.get_mut(id.0 as usize) else { return };
        let Some(slot) = place.take_if(|slot| slot.references == 0) else { return };
        self.by_value.remove(&slot.value);
        if let Some(next_hop) = slot.next_hop {
            self.next_hops.release(next_hop);
        }
        self.free.push(id);
    }

    /// The set.
    pub(crate) fn value(&self, id: AttrId) -> Option<&RouteAttributes> {
        self.slot(id).map(|slot| &*slot.value)
    }

    /// Its next hop.
    pub(crate) fn next_hop(&self, id: AttrId) -> Option<IpAddr> {
        self.slot(id).and_then(|slot| slot.value.next_hop)
    }

    pub(crate) fn next_hop_id(&self, id: AttrId) -> Option<NextHopId> {
        self.slot(id).and_then(|slot| slot.next_hop)
    }

    /// The metric of the route to its next hop; nothing where there is none. A route of our own is 0 away.
    pub(crate) fn igp_metric(&self, id: AttrId) -> Option<u32> {
        let slot = self.slot(id)?;
        slot.next_hop.map_or(Some(0), |next_hop| self.next_hops.metric(next_hop))
    }

    /// Takes in what the kernel says of a next hop.
    pub(crate) fn set_next_hop(&mut self, state: NextHopState) {
        self.next_hops.set(state);
    }

    /// The next hops whose state has changed since the last call.
    pub(crate) fn take_changed_next_hops(&mut self) -> std::collections::HashSet<NextHopId> {
        self.next_hops.take_changed()
    }

    /// Whether [`AttributeSets::take_changed_next_hops`] would return any.
    pub(crate) fn has_changed_next_hops(&self) -> bool {
        self.next_hops.has_changed()
    }

    /// Whether it is known of every next hop if it can be reached.
    pub(crate) const fn knows_all_next_hops(&self) -> bool {
        self.next_hops.knows_all()
    }

    /// The watches to begin and to end since the last call.
    pub(crate) fn watches(&mut self) -> Vec<NextHopWatch> {
        self.next_hops.watches()
    }

    /// The number of sets in use.
    pub(crate) fn len(&self) -> usize {
        self.by_value.len()
    }

    fn slot(&self, id: AttrId) -> Option<&Slot> {
        self.slots.get(id.0 as usize)?.as_ref()
    }
}

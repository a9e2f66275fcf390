//! Filtering in memory: IP sets, iptables and connection tracking of one namespace.
//!
//! It is strict where the kernel and iptables are: a rule names sets and chains that exist, a set that a rule names is not
//! destroyed, a full set takes no more, a restore takes effect table by table. It filters no packets.

mod ruleset;
mod sets;
mod tables;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use types::Family;

use super::events::{Queue, Subscriber, queue};
use super::failures::CallFailures;
use crate::KernelError;
use crate::acl::{
    Connection, Connections, IptablesVariant, RuleEvent, RuleEvents, SetChanges, SetElement, SetName, SetSpec,
};
use crate::events::{Wait, Waker};
use ruleset::Ruleset;
use sets::Set;

pub use sets::FakeSets;
pub use tables::FakeTables;

/// The world that the fakes share; clones share it, too.
#[derive(Debug, Clone, Default)]
pub struct FakeAcl {
    world: Arc<Mutex<World>>,
}

/// The calls of the traits of [`crate::acl`], to let them fail.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum AclOperation {
    /// [`crate::acl::Sets::sets`].
    Sets,
    /// [`crate::acl::Sets::elements`].
    Elements,
    /// [`crate::acl::Sets::create_set`].
    CreateSet,
    /// [`crate::acl::Sets::destroy_set`].
    DestroySet,
    /// [`crate::acl::Sets::swap_sets`].
    SwapSets,
    /// [`crate::acl::Sets::change_elements`], as a whole.
    ChangeElements,
    /// [`crate::acl::Tables::save`].
    Save,
    /// [`crate::acl::Tables::restore`].
    Restore,
    /// [`Connections::connections`].
    Connections,
    /// [`Connections::delete_connection`].
    DeleteConnection,
}

/// A call that was made, with what it was given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum AclCall {
    /// [`AclOperation::Sets`].
    Sets,
    /// [`AclOperation::Elements`].
    Elements(SetName),
    /// [`AclOperation::CreateSet`].
    CreateSet(SetName, SetSpec),
    /// [`AclOperation::DestroySet`].
    DestroySet(SetName),
    /// [`AclOperation::SwapSets`].
    SwapSets(SetName, SetName),
    /// [`AclOperation::ChangeElements`].
    ChangeElements(SetChanges),
    /// [`AclOperation::Save`]: family and table.
    Save(Family, String),
    /// [`AclOperation::Restore`]: family and text.
    Restore(Family, String),
    /// [`AclOperation::Connections`].
    Connections(Family),
    /// [`AclOperation::DeleteConnection`].
    DeleteConnection(Connection),
}

impl AclCall {
    /// Which call it is.
    pub const fn operation(&self) -> AclOperation {
        match self {
            Self::Sets => AclOperation::Sets,
            Self::Elements(_) => AclOperation::Elements,
            Self::CreateSet(..) => AclOperation::CreateSet,
            Self::DestroySet(_) => AclOperation::DestroySet,
            Self::SwapSets(..) => AclOperation::SwapSets,
            Self::ChangeElements(_) => AclOperation::ChangeElements,
            Self::Save(..) => AclOperation::Save,
            Self::Restore(..) => AclOperation::Restore,
            Self::Connections(_) => AclOperation::Connections,
            Self::DeleteConnection(_) => AclOperation::DeleteConnection,
        }
    }
}

/// Everything of one namespace.
#[derive(Debug, Default)]
struct World {
    sets: BTreeMap<SetName, Set>,
    rules: Ruleset,
    connections: Vec<Connection>,
    subscribers: Vec<Subscriber<RuleEvent>>,
    failures: CallFailures<AclOperation>,
    /// The calls that were made, in order, those that failed too.
    calls: Vec<AclCall>,
}

impl FakeAcl {
    /// A namespace without sets, rules and connections.
    pub fn new() -> Self {
        Self::default()
    }

    /// Its sets.
    pub fn sets(&self) -> FakeSets {
        FakeSets(self.clone())
    }

    /// Its iptables, as of a variant.
    pub fn tables(&self, variant: IptablesVariant) -> FakeTables {
        FakeTables { acl: self.clone(), variant }
    }

    /// Its connection tracking.
    pub fn connections(&self) -> FakeConnections {
        FakeConnections(self.clone())
    }

    /// What others do to its rules from now on. Of [`FakeTables::restore`](crate::acl::Tables::restore) nothing is told,
    /// as if the restores were excepted; of what is done here in the part of others, all.
    pub fn events(&self) -> Result<FakeRuleEvents, KernelError> {
        let (events, subscriber) = queue()?;
        self.lock().subscribers.push(subscriber);
        Ok(FakeRuleEvents(events))
    }

    /// Lets the `nth` call of an operation from now on (1 is the next) fail with this error number.
    pub fn fail(&self, operation: AclOperation, nth: usize, errno: i32) {
        self.lock().failures.on_call(operation, nth, errno);
    }

    /// Lets every call of an operation fail until [`FakeAcl::heal`].
    pub fn fail_always(&self, operation: AclOperation, errno: i32) {
        self.lock().failures.always(operation, errno);
    }

    /// Ends all failures asked for.
    pub fn heal(&self) {
        self.lock().failures = CallFailures::default();
    }

    /// The calls so far, in order, those that failed too.
    pub fn calls(&self) -> Vec<AclCall> {
        self.lock().calls.clone()
    }

    /// The calls since the last time this was asked.
    pub fn take_calls(&self) -> Vec<AclCall> {
        std::mem::take(&mut self.lock().calls)
    }

    /// How many calls of one operation there were.
    pub fn count(&self, operation: AclOperation) -> usize {
        self.lock().calls.iter().filter(|call| call.operation() == operation).count()
    }

    /// The names of all sets, in order.
    pub fn set_names(&self) -> Vec<SetName> {
        self.lock().sets.keys().cloned().collect()
    }

    /// What a set was made as and its members in order, if it is there.
    pub fn set(&self, name: &SetName) -> Option<(SetSpec, Vec<SetElement>)> {
        self.lock().sets.get(name).map(|set| (set.spec, set.members()))
    }

    /// Another program empties a set. One that is not there is ignored.
    pub fn flush_set(&self, name: &SetName) {
        if let Some(set) = self.lock().sets.get_mut(name) {
            set.flush();
        }
    }

    /// A member of a counting set was matched by so many packets more.
    pub fn count_member(&self, name: &SetName, address: IpAddr, packets: u64) {
        if let Some(set) = self.lock().sets.get_mut(name) {
            set.count(address, packets);
        }
    }

    /// Another program changes a set's members, as [`crate::acl::Sets::change_elements`] does.
    pub fn disturb_set(&self, changes: &SetChanges) -> Result<(), KernelError> {
        match self.lock().change_elements(changes)?.into_iter().next() {
            Some(failure) => Err(failure.error),
            None => Ok(()),
        }
    }

    /// The rules of a chain in order, as `-A CHAIN` has them behind the chain's name; none if there is no such chain.
    pub fn rules(&self, family: Family, table: &str, chain: &str) -> Option<Vec<String>> {
        self.lock().rules.rules(family, table, chain)
    }

    /// The chains of a table, those that are built in first.
    pub fn chains(&self, family: Family, table: &str) -> Vec<String> {
        self.lock().rules.chains(family, table)
    }

    /// Another program gives a text to `iptables-restore --noflush`; subscribers are told.
    pub fn foreign_restore(&self, family: Family, text: &str) -> Result<(), KernelError> {
        self.lock().disturb("iptables-nft-restore", |world| world.restore(family, text))
    }

    /// Another program deletes all rules and chains of a table, as `nft flush table` and `iptables -F; iptables -X` do.
    pub fn flush_table(&self, family: Family, table: &str) {
        self.lock().disturb("iptables", |world| world.rules.flush_table(family, table));
    }

    /// Another program deletes everything, as `nft flush ruleset` does.
    pub fn flush_ruleset(&self) {
        self.lock().disturb("nft", |world| world.rules = Ruleset::default());
    }

    /// Another program empties a chain. One that is not there is ignored.
    pub fn flush_chain(&self, family: Family, table: &str, chain: &str) {
        self.lock().disturb("iptables", |world| world.rules.flush_chain(family, table, chain));
    }

    /// Sets the counters of the rule at a place (from 0) of a chain, as packets would.
    pub fn count_packets(&self, family: Family, table: &str, chain: &str, place: usize, packets: u64, octets: u64) {
        self.lock().rules.set_counters(family, table, chain, place, (packets, octets));
    }

    /// Tells every subscriber that notifications were lost.
    pub fn lose_events(&self) {
        self.lock().tell(&RuleEvent::Lost);
    }

    /// A connection is tracked from now on.
    pub fn put_connection(&self, connection: Connection) {
        self.lock().connections.push(connection);
    }

    /// The connections tracked, oldest first.
    pub fn all_connections(&self) -> Vec<Connection> {
        self.lock().connections.clone()
    }

    fn lock(&self) -> MutexGuard<'_, World> {
        // A test that panicked while it held the lock has failed already.
        self.world.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Records the call and fails it if that was asked for.
    fn call(&self, call: AclCall, what: impl FnOnce() -> String) -> Result<MutexGuard<'_, World>, KernelError> {
        let mut world = self.lock();
        let operation = call.operation();
        world.calls.push(call);
        match world.failures.of_call(operation) {
            Some(errno) => Err(KernelError::refused(what(), errno, None)),
            None => Ok(world),
        }
    }
}

impl World {
    fn tell(&self, event: &RuleEvent) {
        for subscriber in &self.subscribers {
            subscriber.tell(event.clone());
        }
    }

    /// Changes rules and tells of what has become different.
    fn disturb<T>(&mut self, program: &str, change: impl FnOnce(&mut Self) -> T) -> T {
        let before = self.rules.clone();
        let outcome = change(self);
        let changes = self.rules.changes_since(&before);
        if !changes.is_empty() {
            self.tell(&RuleEvent::Changed { process: 1, program: program.to_owned(), changes });
        }
        outcome
    }
}

/// [`Connections`] of a [`FakeAcl`].
#[derive(Debug, Clone)]
pub struct FakeConnections(FakeAcl);

impl Connections for FakeConnections {
    fn connections(&mut self, family: Family) -> Result<Vec<Connection>, KernelError> {
        let world = self.0.call(AclCall::Connections(family), || format!("cannot list {family} connections"))?;
        let of_family = |connection: &&Connection| Family::of(connection.original.source) == family;
        Ok(world.connections.iter().filter(of_family).cloned().collect())
    }

    fn delete_connection(&mut self, connection: &Connection) -> Result<(), KernelError> {
        let operation = || format!("cannot delete connection {}", connection.original);
        let mut world = self.0.call(AclCall::DeleteConnection(connection.clone()), operation)?;
        world.connections.retain(|found| {
            let named = (found.original, found.zone) == (connection.original, connection.zone);
            !named || connection.id.is_some_and(|id| found.id != Some(id))
        });
        Ok(())
    }
}

/// What others do to the rules of a [`FakeAcl`] from the moment of the subscription on.
#[derive(Debug)]
pub struct FakeRuleEvents(Queue<RuleEvent>);

impl RuleEvents for FakeRuleEvents {
    fn next(&mut self, timeout: Option<Duration>) -> Result<Wait<RuleEvent>, KernelError> {
        self.0.next(timeout)
    }

    fn waker(&self) -> Waker {
        self.0.waker()
    }
}

#[cfg(test)]
mod tests;

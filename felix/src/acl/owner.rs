//! The thread that owns the compiler and the state: takes commands, carries out what follows, answers.
//!
//! Members of sets are changed here, at once. Restores and everything about tracked connections are given to threads of
//! their own, one task at a time, so that nothing here waits longer than netlink does.
//!
//! - `timers`: what is due when, though nothing happens.
//! - `opening`: what an earlier life has left.
//! - `reading`: which rules are to be read again, because others may have changed them.
//! - `iptables`: the tasks of the thread that runs iptables, and its answers.
//! - `writing`: what is done to sets.
//! - `cutting`: which tracked connections are to end, and the tasks of the thread that ends them.
//! - `waiting`: who waits for endpoints to be in force or gone.
//! - `reporting`: figures and readiness.

mod cutting;
mod iptables;
mod opening;
mod reading;
mod reporting;
mod timers;
mod waiting;
mod writing;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc as threads;
use std::time::{Duration, Instant};

use kernel::Kernel;
use kernel::acl::{Connections, IptablesVariant, LinkName, RuleEvents, Sets, Tables};
use kernel::events::Wait;
use tokio::sync::{mpsc, oneshot, watch};
use tracing::info;
use types::config::NatOutgoingExclusions;
use types::policy::Labels;
use types::{EndpointId, Family};

use self::cutting::Cutting;
use self::iptables::Iptables;
use self::reading::Reading;
use self::reporting::Reports;
use self::timers::{Timer, TimerTable};
use self::waiting::{Waiting, Wish};
use self::writing::SetWriting;
use super::config::{AclConfig, MarkSpace, NatPool};
use super::connections::{ConnectionsAnswer, ConnectionsTask};
use super::handle::{AclError, Command};
use super::render::TableName;
use super::state::State;
use super::tables::{TablesAnswer, TablesTask};
use crate::policy::Infrastructure;
use crate::policy::{Compiler, CompilerConfig, EndpointFacts};

/// Commands that one round takes before it carries out what follows. More than their channel holds: what was sent before
/// a wake is then taken after it.
pub(crate) const COMMANDS_PER_ROUND: usize = 1_024;

/// Delays between attempts at what the kernel refused: the first, and the longest.
const KERNEL_RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How many classes stay in the kernel when their last pod has left. A class that has to be made takes a run of iptables-restore
/// for each family, for which an ADD waits; pods that come and go find it there.
const IDLE_CLASSES: usize = 128;

/// How often one round begins anew because what it did has made more possible.
const PASSES_PER_ROUND: usize = 6;

/// What the filter works on.
pub struct AclBackend {
    /// IP sets.
    pub sets: Box<dyn Sets>,
    /// iptables.
    pub tables: Box<dyn Tables>,
    /// Tracked connections.
    pub connections: Box<dyn Connections>,
    /// What others do to the rules; should leave out what `tables` itself causes, and must have been subscribed before.
    pub events: Box<dyn RuleEvents>,
    /// Knows the node's own addresses, whose connections no policy cuts.
    pub host: Box<dyn Kernel>,
}

/// The owner's ends of what it is connected to.
pub(crate) struct Ends {
    pub(crate) sets: Box<dyn Sets>,
    pub(crate) events: Box<dyn RuleEvents>,
    /// What the agent wants.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// To and from the thread that runs iptables.
    pub(crate) tables: threads::SyncSender<TablesTask>,
    pub(crate) tables_answers: threads::Receiver<TablesAnswer>,
    /// To and from the thread that deals with tracked connections.
    pub(crate) connections: threads::SyncSender<ConnectionsTask>,
    pub(crate) connections_answers: threads::Receiver<ConnectionsAnswer>,
    /// Why the node should not be given pods.
    pub(crate) readiness: watch::Sender<Vec<String>>,
}

/// The thread's state.
pub(crate) struct Owner {
    config: AclConfig,
    ends: Ends,
    /// Says what the filter should be.
    compiler: Compiler,
    /// Says how the kernel comes to that.
    state: State,
    /// The local endpoints.
    locals: BTreeMap<EndpointId, Local>,
    /// Whether every local endpoint has been told.
    locals_known: bool,
    /// What is closed to pods.
    infrastructure: Infrastructure,
    /// What masquerade depends on.
    nat: Nat,
    /// What is due when.
    timers: TimerTable,
    /// Which rules are to be read.
    reading: Reading,
    /// The thread that runs iptables.
    iptables: Iptables,
    /// Where the writing of sets stands.
    sets: SetWriting,
    /// Which connections are to end, and the thread that ends them.
    cutting: Cutting,
    /// Who waits for endpoints to be in force or gone.
    waiting: Vec<Waiting>,
    /// What is counted and measured.
    reports: Reports,
}

/// What masquerade depends on.
#[derive(Default)]
struct Nat {
    /// All pools; none before the agent has said so.
    pools: Option<Vec<NatPool>>,
    /// The addresses of all nodes.
    nodes: BTreeSet<IpAddr>,
}

/// A local endpoint.
struct Local {
    namespace: String,
    pod: String,
    labels: Labels,
    addresses: Vec<IpAddr>,
}

impl Owner {
    /// Knows nothing of the kernel yet.
    pub(crate) fn new(config: AclConfig, mark: MarkSpace, variant: IptablesVariant, ends: Ends, now: Instant) -> Self {
        let seed = u64::from(std::process::id());
        let reading = Reading::new(variant, now);
        let mut timers = TimerTable::default();
        timers.set(Timer::Resync, now + config.resync);
        if !reading.hears_events() {
            timers.set(Timer::PollRules, now + config.legacy_poll);
        }
        Self {
            compiler: Compiler::new(CompilerConfig {
                classes: mark.highest(),
                narrow_limit: config.narrow_limit,
                idle_classes: IDLE_CLASSES.min(usize::from(mark.highest()) / 4),
            }),
            state: State::new(&config, mark),
            ends,
            locals: BTreeMap::new(),
            locals_known: false,
            infrastructure: Infrastructure::default(),
            nat: Nat::default(),
            timers,
            reading,
            iptables: Iptables::new(seed),
            sets: SetWriting::new(seed),
            cutting: Cutting::new(now),
            waiting: Vec::new(),
            reports: Reports::default(),
            config,
        }
    }

    /// Runs until every handle is gone. The kernel keeps what it has.
    pub(crate) fn run(mut self) {
        while self.round(Instant::now()) {
            let timeout = self.timeout(Instant::now());
            match self.ends.events.next(Some(timeout)) {
                Ok(Wait::Event(event)) => self.rules_changed(&event, Instant::now()),
                Ok(Wait::Woken | Wait::TimedOut) => {}
                Err(error) => self.events_failed(&error),
            }
        }
    }

    /// Takes what has come, without waiting, and carries out what follows; `false` when every handle is gone.
    pub(crate) fn round(&mut self, now: Instant) -> bool {
        self.take_events(now);
        self.take_answers(now);
        for _ in 0..COMMANDS_PER_ROUND {
            match self.ends.commands.try_recv() {
                Ok(command) => self.command(command, now),
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
        self.take_timers(now);
        self.settle(now);
        true
    }

    /// For how long nothing is to be done unless something happens.
    fn timeout(&self, now: Instant) -> Duration {
        let is_more_to_judge = self.cutting.has_suspects() && !self.cutting.is_busy();
        let is_more_to_destroy = self.sets.is_good() && !self.state.destroyable().is_empty();
        if is_more_to_judge || is_more_to_destroy {
            return Duration::ZERO;
        }
        let next = self.timers.next(|timer| match timer {
            // The answer of the thread that would do it wakes us.
            Timer::ReadRules | Timer::RetryRestore => !self.iptables.is_busy(),
            Timer::CutConnections | Timer::DeleteFormer => !self.cutting.is_busy(),
            Timer::RetrySets | Timer::ClearUnused | Timer::PollRules | Timer::Resync => true,
        });
        next.map_or(self.config.resync, |next| next.saturating_duration_since(now))
    }

    /// Sees to the timers that have expired. Those of connections are asked for when their thread is free, and what is of
    /// no use is cleared away as the state settles.
    fn take_timers(&mut self, now: Instant) {
        // Whatever waited for them is done with the next task of the thread that runs iptables.
        self.timers.expired(Timer::ReadRules, now);
        self.timers.expired(Timer::RetryRestore, now);
        if self.timers.expired(Timer::Resync, now) {
            self.timers.set(Timer::Resync, now + self.config.resync);
            self.sets.recount();
            self.reading.read_in_turn(self.tables_with(TableName::ALL));
        }
        if self.timers.expired(Timer::PollRules, now) {
            self.timers.set(Timer::PollRules, now + self.config.legacy_poll);
            self.reading.poll(self.tables_with(TableName::ALL), now);
        }
        if self.timers.expired(Timer::RetrySets, now) {
            self.sets.try_again();
        }
    }

    fn take_answers(&mut self, now: Instant) {
        while let Ok(answer) = self.ends.tables_answers.try_recv() {
            self.tables_answer(answer, now);
        }
        while let Ok(answer) = self.ends.connections_answers.try_recv() {
            self.connections_answer(answer, now);
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Update(updates) => {
                if self.state.is_enforcing() {
                    self.reports.change_told(now);
                }
                updates.into_iter().for_each(|update| self.compiler.apply(update));
            }
            Command::Attach { id, facts, reply } => self.attach(id, facts, reply),
            Command::Relabel { id, facts, reply } if self.locals.contains_key(&id) => self.attach(id, facts, reply),
            // It was detached before this came. Whoever asked may have stopped waiting.
            Command::Relabel { reply, .. } => drop(reply.send(Ok(()))),
            Command::Detach { id, reply } => {
                self.compiler.remove_local(&id);
                let addresses = self.locals.remove(&id).map(|local| local.addresses).unwrap_or_default();
                addresses.iter().for_each(|address| self.state.local_left(*address));
                self.state.left_early(&addresses);
                self.waiting.push(Waiting { addresses, reply, wish: Wish::Gone });
            }
            Command::Forget(addresses) => self.cutting.give_up(addresses, now, &mut self.timers),
            Command::LocalInSync => self.locals_known = true,
            Command::NatPools(pools) => {
                self.nat.pools = Some(pools);
                self.exclude_from_nat();
            }
            Command::ServiceRanges(ranges) => self.state.set_services(ranges),
            Command::Infrastructure(infrastructure) => self.set_infrastructure(infrastructure),
            Command::NodeAddresses(addresses) => self.compiler.set_node_addresses(addresses),
            Command::Nodes(nodes) => {
                self.nat.nodes = nodes.values().flatten().copied().collect();
                self.exclude_from_nat();
                self.compiler.set_nodes(nodes);
            }
            Command::Log(denied) => self.state.set_log(denied.then_some(self.config.log_group)),
            // Whoever asked may have stopped waiting.
            Command::Explain(flow, reply) => drop(reply.send(self.compiler.explain(&flow))),
            Command::ExplainEntries(flow, reply) => drop(reply.send(self.compiler.explain_entries(&flow))),
            Command::Show(id, reply) => drop(reply.send(self.compiler.show(&id))),
            Command::View(reply) => self.reports.ask(reply),
        }
    }

    fn attach(&mut self, id: EndpointId, facts: EndpointFacts, reply: oneshot::Sender<Result<(), AclError>>) {
        let families = self.state.families();
        let foreign = facts.addresses.iter().find(|address| !families.contains(&Family::of(**address)));
        if let Some(address) = foreign {
            let _ = reply.send(Err(AclError::Family(*address)));
            return;
        }
        let addresses = facts.addresses.clone();
        // The endpoint is known also where it has no class: it gets one when a number is free, or is detached.
        let home = LinkName::from(&id.host_interface());
        let (namespace, pod, labels) = (facts.namespace.clone(), facts.name.clone(), facts.labels.clone());
        let is_router = self.infrastructure.is_router(&labels);
        let before = self.locals.insert(id.clone(), Local { namespace, pod, labels, addresses: addresses.clone() });
        before
            .iter()
            .flat_map(|local| &local.addresses)
            .filter(|was| !addresses.contains(was))
            .for_each(|was| self.state.local_left(*was));
        for address in &addresses {
            self.state.local_arrived(*address, home);
            self.state.route_by(*address, is_router);
        }
        match self.compiler.set_local(id, facts) {
            Ok(_) => {
                if self.locals_known {
                    self.waiting.push(Waiting { addresses, reply, wish: Wish::InForce });
                } else {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Says which destinations masquerade leaves out, once pools are known.
    fn exclude_from_nat(&mut self) {
        let Some(pools) = &self.nat.pools else { return };
        let none = BTreeSet::new();
        let excluded = match self.config.nat_outgoing_exclusions {
            NatOutgoingExclusions::IpPoolsOnly => &none,
            NatOutgoingExclusions::IpPoolsAndHostIps => &self.nat.nodes,
        };
        self.state.set_pools(pools, excluded);
    }

    fn set_infrastructure(&mut self, infrastructure: Infrastructure) {
        self.state.set_infrastructure(&infrastructure);
        for local in self.locals.values() {
            let is_router = infrastructure.is_router(&local.labels);
            local.addresses.iter().for_each(|address| self.state.route_by(*address, is_router));
        }
        self.compiler.set_infrastructure(infrastructure.clone());
        self.infrastructure = infrastructure;
    }

    /// Makes the kernel what is wanted as far as it can be now, and answers who waits.
    fn settle(&mut self, now: Instant) {
        if !self.state.is_enforcing() && self.locals_known && self.compiler.in_sync() {
            self.begin();
        }
        if self.state.is_enforcing() {
            let changes = self.compiler.take_changes();
            self.state.change(changes, now);
        }
        let began = Instant::now();
        let mut has_changed = false;
        for _ in 0..PASSES_PER_ROUND {
            self.state.settle(now);
            let (sets, addresses) = (self.change_sets(now), self.map_addresses(now));
            self.give_table_task(now);
            has_changed |= sets || addresses;
            if !sets && !addresses {
                break;
            }
        }
        self.recount_members(now);
        self.destroy_sets(now);
        self.sets_written();
        if has_changed {
            self.reports.view.apply.observe(began.elapsed());
        }
        self.answer(now);
        self.give_connections_task(now);
        self.show();
        self.tell_readiness();
        match self.state.clear_at() {
            Some(at) => self.timers.set(Timer::ClearUnused, at),
            None => self.timers.cancel(Timer::ClearUnused),
        }
    }

    fn begin(&mut self) {
        // The changes so far are part of the program, which is taken as a whole.
        self.compiler.take_changes();
        self.state.begin(writing::program(&self.compiler));
        self.reports.view.in_sync = true;
        info!(
            "all policies are known; rules and sets of an earlier life that they do not want are removed from the kernel"
        );
    }
}

#[cfg(test)]
mod tests;

//! The thread that owns the compiler and the state: takes commands, carries out what follows, answers.
//!
//! Members of sets are changed here, at once. Restores and everything about tracked connections are given to threads of
//! their own, one task at a time, so that nothing here waits longer than netlink does.

mod carry_out;
mod reading;

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;
use std::sync::mpsc as threads;
use std::time::{Duration, Instant};

use kernel::acl::{Connection, Connections, IptablesVariant, LinkName, RuleEvents, SetName, Sets, Tables};
use kernel::events::Wait;
use kernel::{Kernel, KernelError};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{info, warn};
use types::backoff::Backoff;
use types::policy::Direction;
use types::{EndpointId, Family};

use super::config::{AclConfig, MarkSpace};
use super::connections::{ConnectionsAnswer, ConnectionsTask, flow};
use super::handle::{AclError, Command};
use super::names::SetRef;
use super::render::TableName;
use super::state::{State, Tightened};
use super::tables::{TablesAnswer, TablesTask};
use super::view::{AclView, DropCount, Drops, Reason};
use crate::policy::{Compiler, CompilerConfig, EndpointFacts};

/// Commands that one round takes before it carries out what follows. More than their channel holds: what was sent before
/// a wake is then taken after it.
pub(crate) const COMMANDS_PER_ROUND: usize = 1_024;

/// Events of others' changes that one round takes.
const EVENTS_PER_ROUND: usize = 1_024;

/// Delays between attempts at what the kernel refused.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(10));

/// How long after an event the rules are looked at: several changes of one program are one.
const LOOK: Duration = Duration::from_millis(20);

/// How long after a tightening connections are looked at.
const CUT: Duration = Duration::from_millis(50);

/// The same while some change is not in force yet: it may be one that fails, and others have been in force for long. What
/// is cut too early is looked at again when it is.
const CUT_IN_PART: Duration = Duration::from_secs(1);

/// So long addresses are collected before their connections are deleted: the walk through the table costs tens of
/// milliseconds, however many they are.
const FORGET: Duration = Duration::from_secs(1);

/// Connections that are judged in one round.
const JUDGED_AT_ONCE: usize = 512;

/// Changes whose way to the kernel is measured at a time.
const TOLD: usize = 1_024;

/// How often one round begins anew because what it did has made more possible.
const PASSES: usize = 6;

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
    compiler: Compiler,
    state: State,
    /// The local endpoints.
    locals: BTreeMap<EndpointId, Local>,
    /// Whether every local endpoint has been told.
    locals_known: bool,
    /// Whether rule events are told at all.
    hears_rules: bool,
    /// Who waits for endpoints to be in force or gone.
    waiting: Vec<Waiting>,
    /// Addresses that were given up, whose tracked connections are to be deleted, and when; those under way.
    forgetting: BTreeSet<IpAddr>,
    forget_at: Option<Instant>,
    being_forgotten: BTreeSet<IpAddr>,
    /// Who wants to see counters.
    asked: Vec<oneshot::Sender<AclView>>,
    /// The thread that runs iptables has a task.
    tables_busy: bool,
    /// Counters are to be read.
    count_drops: bool,
    /// The thread that deals with connections has a task.
    connections_busy: bool,
    /// Connections that were found and are to be judged.
    suspects: Vec<Connection>,
    /// Connections that are to be cut.
    condemned: Vec<Connection>,
    /// When connections are looked at, and not before which time.
    cut_at: Option<Instant>,
    cut_not_before: Instant,
    /// Sets with names of ours that mean nothing.
    strangers: Vec<SetName>,
    /// Families in which a restore of ours failed: what differs there is our own doing.
    doubted: BTreeSet<Family>,
    /// Tables that are to be read, and since when others may have changed them.
    unread: BTreeSet<(Family, TableName)>,
    unread_since: Option<Instant>,
    /// The same for those that are being read.
    read_since: Option<Instant>,
    look_at: Option<Instant>,
    /// Since when chains that protect are known not to be as they should.
    unprotected_since: Option<Instant>,
    /// Tables that are read now and then, one at a time, when nothing else is to be done.
    routine: Vec<(Family, TableName)>,
    /// Since when others may have changed them unheard.
    routine_since: Option<Instant>,
    last_poll: Instant,
    /// Members of sets are to be counted.
    count_due: bool,
    next_poll: Instant,
    next_resync: Instant,
    /// When refused things are tried again, and the delays between.
    retry_at: Option<Instant>,
    backoff: Backoff,
    /// The same for restores.
    restore_at: Option<Instant>,
    restore_backoff: Backoff,
    /// Why restores fail.
    restore_trouble: Option<KernelError>,
    /// Sets with which something is wrong.
    set_troubles: BTreeMap<SetRef, KernelError>,
    /// When changes were told that are not all in force yet.
    told: Vec<Instant>,
    view: AclView,
    drops: Drops,
}

/// A local endpoint.
struct Local {
    namespace: String,
    pod: String,
    addresses: Vec<IpAddr>,
}

struct Waiting {
    addresses: Vec<IpAddr>,
    reply: oneshot::Sender<Result<(), AclError>>,
    /// Tracked connections of the addresses are to be deleted afterwards; otherwise they must be before.
    is_detach: bool,
}

impl Owner {
    /// Knows nothing of the kernel yet.
    pub(crate) fn new(config: AclConfig, mark: MarkSpace, variant: IptablesVariant, ends: Ends, now: Instant) -> Self {
        let seed = u64::from(std::process::id());
        let numbers = mark.highest();
        Self {
            compiler: Compiler::new(CompilerConfig { classes: numbers, narrow_limit: config.narrow_limit }),
            state: State::new(&config, mark),
            ends,
            locals: BTreeMap::new(),
            locals_known: false,
            hears_rules: variant == IptablesVariant::Nft,
            waiting: Vec::new(),
            forgetting: BTreeSet::new(),
            forget_at: None,
            being_forgotten: BTreeSet::new(),
            asked: Vec::new(),
            tables_busy: false,
            count_drops: false,
            connections_busy: false,
            suspects: Vec::new(),
            condemned: Vec::new(),
            cut_at: None,
            cut_not_before: now,
            strangers: Vec::new(),
            doubted: BTreeSet::new(),
            unread: BTreeSet::new(),
            unread_since: None,
            read_since: None,
            look_at: None,
            unprotected_since: None,
            routine: Vec::new(),
            routine_since: None,
            last_poll: now,
            count_due: false,
            next_poll: now + config.legacy_poll,
            next_resync: now + config.resync,
            retry_at: None,
            backoff: Backoff::new(RETRY.0, RETRY.1, seed),
            restore_at: None,
            restore_backoff: Backoff::new(RETRY.0, RETRY.1, seed),
            restore_trouble: None,
            set_troubles: BTreeMap::new(),
            told: Vec::new(),
            view: AclView::default(),
            drops: Drops::default(),
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
                Err(error) => self.deaf(&error),
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
        self.timers(now);
        self.settle(now);
        true
    }

    fn timeout(&self, now: Instant) -> Duration {
        let is_more_to_do = (!self.suspects.is_empty() && !self.connections_busy)
            || (self.set_troubles.is_empty() && !self.state.destroyable().is_empty());
        if is_more_to_do {
            return Duration::ZERO;
        }
        let poll = (!self.hears_rules).then_some(self.next_poll);
        let timers = [self.look_at, self.retry_at, self.restore_at, self.state.clear_at(), poll];
        // Looked at only when nothing else is under way.
        let cut = self.cut_at.filter(|_| !self.connections_busy).map(|at| at.max(self.cut_not_before));
        let forget = self.forget_at.filter(|_| !self.connections_busy);
        let next = timers.into_iter().chain([cut, forget]).flatten().fold(self.next_resync, Instant::min);
        next.saturating_duration_since(now)
    }

    fn timers(&mut self, now: Instant) {
        let is_polled = !self.hears_rules && now >= self.next_poll;
        if now >= self.next_resync {
            self.next_resync = now + self.config.resync;
            self.count_due = true;
            self.routine = self.tables_with(TableName::ALL);
        } else if is_polled {
            self.routine = self.tables_with(TableName::ALL);
        }
        if is_polled {
            self.next_poll = now + self.config.legacy_poll;
            // Whatever is found may have been so since it was looked at before.
            self.routine_since = Some(std::mem::replace(&mut self.last_poll, now));
        }
        if self.retry_at.take_if(|retry| now >= *retry).is_some() {
            self.set_troubles.clear();
        }
    }

    fn command(&mut self, command: Command, now: Instant) {
        match command {
            Command::Update(updates) => {
                if self.state.has_begun() && self.told.len() < TOLD {
                    self.told.push(now);
                }
                updates.into_iter().for_each(|update| self.compiler.apply(update));
            }
            Command::Attach { id, facts, reply } => self.attach(id, facts, reply),
            Command::Relabel { id, facts, reply } if self.locals.contains_key(&id) => self.attach(id, facts, reply),
            // Its detachment was faster. Who asked may have left.
            Command::Relabel { reply, .. } => drop(reply.send(Ok(()))),
            Command::Detach { id, reply } => {
                self.compiler.remove_local(&id);
                let addresses = self.locals.remove(&id).map(|local| local.addresses).unwrap_or_default();
                addresses.iter().for_each(|address| self.state.local_left(*address));
                self.state.leave_early(&addresses);
                self.waiting.push(Waiting { addresses, reply, is_detach: true });
            }
            Command::Forget(addresses) => self.forget(addresses, now),
            Command::LocalInSync => self.locals_known = true,
            Command::NatPools(pools) => self.state.set_pools(&pools),
            Command::ServiceRanges(ranges) => self.state.set_services(ranges),
            Command::NodeAddresses(addresses) => self.compiler.set_node_addresses(addresses),
            Command::Nodes(nodes) => self.compiler.set_nodes(nodes),
            Command::Log(denied) => self.state.set_log(denied.then_some(self.config.log_group)),
            // Who asked may have left.
            Command::Explain(flow, reply) => drop(reply.send(self.compiler.explain(&flow))),
            Command::ExplainEntries(flow, reply) => drop(reply.send(self.compiler.explain_entries(&flow))),
            Command::Show(id, reply) => drop(reply.send(self.compiler.show(&id))),
            Command::View(reply) => self.asked.push(reply),
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
        // Known also where it has no class: it gets one when there is a number, or is detached.
        let home = LinkName::from(&id.host_interface());
        let (namespace, pod) = (facts.namespace.clone(), facts.name.clone());
        let before = self.locals.insert(id.clone(), Local { namespace, pod, addresses: addresses.clone() });
        before
            .iter()
            .flat_map(|local| &local.addresses)
            .filter(|was| !addresses.contains(was))
            .for_each(|was| self.state.local_left(*was));
        addresses.iter().for_each(|address| self.state.local_arrived(*address, home));
        match self.compiler.set_local(id, facts) {
            Ok(_) => {
                if self.locals_known {
                    self.waiting.push(Waiting { addresses, reply, is_detach: false });
                } else {
                    let _ = reply.send(Ok(()));
                }
            }
            Err(error) => drop(reply.send(Err(error.into()))),
        }
    }

    /// Makes the kernel what is wanted as far as it can be now, and answers who waits.
    fn settle(&mut self, now: Instant) {
        if !self.state.has_begun() && self.locals_known && self.compiler.in_sync() {
            self.begin();
        }
        if self.state.has_begun() {
            let changes = self.compiler.take_changes();
            self.state.change(changes, now);
        }
        let began = Instant::now();
        let mut has_changed = false;
        for _ in 0..PASSES {
            self.state.settle(now);
            let (sets, joins) = (self.change_sets(now), self.change_joins(now));
            self.give_table_task(now);
            has_changed |= sets || joins;
            if !sets && !joins {
                break;
            }
        }
        if self.count_due && self.state.is_settled() {
            self.count_due = false;
            self.count_members(now);
            self.change_sets(now);
            self.change_joins(now);
        }
        self.destroy_sets(now);
        if self.set_troubles.is_empty() {
            self.backoff.reset();
            self.retry_at = None;
        }
        if has_changed {
            self.view.apply.observe(began.elapsed());
        }
        self.answer(now);
        self.cut(now);
        self.show();
        self.tell_readiness();
    }

    fn begin(&mut self) {
        // They are part of the program.
        self.compiler.take_changes();
        self.state.begin(carry_out::program(&self.compiler));
        self.view.in_sync = true;
        info!("policies are known; what the kernel has beyond them goes");
    }

    fn answer(&mut self, now: Instant) {
        for waiting in std::mem::take(&mut self.waiting) {
            let is_remembered =
                |address: &IpAddr| self.forgetting.contains(address) || self.being_forgotten.contains(address);
            if !(waiting.is_detach || self.state.has_begun()) || !self.state.is_in_force(&waiting.addresses) {
                self.waiting.push(waiting);
            } else if waiting.is_detach {
                self.forget(waiting.addresses, now);
                let _ = waiting.reply.send(Ok(()));
            } else if waiting.addresses.iter().any(is_remembered) {
                // Somebody waits for it: no more are collected.
                self.forget_at = self.forget_at.map(|at| at.min(now));
                self.waiting.push(waiting);
            } else {
                // The binary may have given up; its agent task undoes.
                let _ = waiting.reply.send(Ok(()));
            }
        }
        self.waiting.retain(|waiting| !waiting.reply.is_closed() || waiting.is_detach);
        if !self.told.is_empty() && self.state.is_settled() {
            for told in self.told.drain(..) {
                self.view.change_to_kernel.observe(now.saturating_duration_since(told));
            }
        }
    }

    fn forget(&mut self, addresses: impl IntoIterator<Item = IpAddr>, now: Instant) {
        self.forgetting.extend(addresses);
        if !self.forgetting.is_empty() {
            self.forget_at.get_or_insert(now + FORGET);
        }
    }

    /// Gives the thread of connections its next task.
    fn cut(&mut self, now: Instant) {
        if self.config.cut_connections {
            let delay = self.state.tightened().map(|tightened| match tightened {
                Tightened::Whole => CUT,
                Tightened::InPart => CUT_IN_PART,
            });
            let at = delay.map(|delay| now + delay);
            self.cut_at = self.cut_at.into_iter().chain(at).min();
        }
        if self.connections_busy {
            return;
        }
        if self.forget_at.take_if(|at| now >= *at).is_some() {
            self.being_forgotten = std::mem::take(&mut self.forgetting);
            return self.give_connections_task(ConnectionsTask::Forget(self.being_forgotten.clone()));
        }
        if !self.suspects.is_empty() {
            let rest = self.suspects.len().saturating_sub(JUDGED_AT_ONCE);
            let judged = self.suspects.split_off(rest);
            self.condemned.extend(judged.into_iter().filter(|suspect| !self.compiler.allows(&flow(suspect))));
        }
        if self.suspects.is_empty() && !self.condemned.is_empty() {
            let condemned = std::mem::take(&mut self.condemned);
            return self.give_connections_task(ConnectionsTask::Cut(condemned));
        }
        let is_due = |at: &mut Instant| now >= *at && now >= self.cut_not_before;
        if self.suspects.is_empty() && self.cut_at.take_if(|at| is_due(at)).is_some() {
            let local = self.locals.values().flat_map(|local| &local.addresses).copied().collect();
            self.give_connections_task(ConnectionsTask::Look(local));
        }
    }

    fn give_connections_task(&mut self, task: ConnectionsTask) {
        // The thread ends only with us.
        self.connections_busy = self.ends.connections.try_send(task).is_ok();
    }

    fn connections_answer(&mut self, answer: ConnectionsAnswer, now: Instant) {
        self.connections_busy = false;
        match answer {
            ConnectionsAnswer::Forgotten(result) => {
                let addresses = std::mem::take(&mut self.being_forgotten);
                if let Err(error) = result {
                    warn!(%error, "tracked connections of former addresses cannot be deleted; tried again");
                    self.forgetting.extend(addresses);
                    self.forget_at = Some(now + RETRY.1);
                }
            }
            ConnectionsAnswer::Looked(Ok(found), took) => {
                self.suspects = found;
                // Looking costs at most a tenth of that thread's time.
                self.cut_not_before = now + took * 9;
            }
            ConnectionsAnswer::Looked(Err(error), _) => {
                warn!(%error, "tracked connections cannot be read; those that policies forbid now live on; tried again");
                self.cut_at = Some(now + RETRY.1);
            }
            ConnectionsAnswer::Cut(count, failure) => {
                self.view.connections_cut += count;
                if let Some(error) = failure {
                    warn!(%error, "a connection that policies forbid cannot be cut; tried again");
                    self.cut_at = Some(now + RETRY.1);
                }
            }
        }
    }

    /// Answers who wants to see, when counters have been read or cannot be read now.
    fn show(&mut self) {
        if self.asked.is_empty() {
            return;
        }
        if !self.tables_busy {
            self.count_drops = true;
            let which: Vec<_> = self.tables_with([TableName::Mangle, TableName::Raw]);
            return self.give_tables(TablesTask::Count(which));
        }
        if !self.count_drops {
            self.send_views();
        }
    }

    fn send_views(&mut self) {
        let counts = self.state.counts();
        let mut view = AclView {
            is_settled: self.state.is_settled(),
            classes: counts.classes,
            rules: counts.rules,
            addresses: counts.addresses,
            compiler: self.compiler.stats(),
            drops: Vec::new(),
            ..self.view.clone()
        };
        if let Ok(headers) = self.ends.sets.sets() {
            let ours = headers.iter().filter(|header| header.name.as_str().starts_with(super::names::PREFIX));
            (view.sets, view.elements) =
                ours.fold((0, 0), |(sets, elements), header| (sets + 1, elements + u64::from(header.elements)));
        }
        view.drops = self.policy_drops();
        view.unknown_drops = self.drops.total(Reason::Unknown);
        view.spoofed_drops = self.drops.total(Reason::Spoofed);
        for reply in std::mem::take(&mut self.asked) {
            // Who asked may have left.
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
                    Err(error) => warn!(%error, "dropped packets cannot be counted"),
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

    fn tell_readiness(&self) {
        let mut reasons = Vec::new();
        if !self.locals_known {
            reasons.push("policies: the endpoints of this node are not known yet".to_owned());
        }
        if !self.compiler.in_sync() {
            reasons.push("policies: not every source is in sync yet".to_owned());
        }
        if let Some(error) = &self.restore_trouble {
            reasons.push(format!("policies: rules cannot be changed: {error}"));
        }
        reasons.extend(self.set_troubles.iter().map(|(set, error)| format!("policies: set {set}: {error}")));
        match self.state.without_number() {
            0 => {}
            classes => {
                reasons.push(format!("policies: the packet mark has no room for {classes} classes of endpoints"))
            }
        }
        self.ends.readiness.send_if_modified(|known| {
            let is_news = *known != reasons;
            if is_news {
                *known = reasons;
            }
            is_news
        });
    }
}

#[cfg(test)]
mod tests;

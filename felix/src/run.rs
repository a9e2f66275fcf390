//! The owner of every table: takes commands and events, plans, writes, answers.

use std::collections::{BTreeSet, HashMap};
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kernel::events::{Event, EventSource, Wait};
use kernel::{Kernel, KernelError, Link, Route, RouteFilter};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::{debug, warn};

use types::backoff::Backoff;
use types::{Family, FibUpdate, InterfaceName, NextHopState, NextHopWatch, Prefix};

use crate::delta::{Changes, Delta};
use crate::desired::{Desired, Local, Protocols};
use crate::handle::{Command, RouteError, RoutesView};
use crate::next_hops::NextHops;

/// Commands and events that one round takes before it writes.
const ROUND: usize = 1_024;

/// Attempts at what the kernel refused.
const RETRY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// Somebody who waits for the routes of these prefixes.
struct Waiting {
    prefixes: Vec<Prefix>,
    reply: oneshot::Sender<Result<(), RouteError>>,
}

/// The thread's state.
pub(crate) struct Owner {
    protocols: Protocols,
    /// The time between two readings of the kernel's tables.
    resync: Duration,
    kernel: Box<dyn Kernel>,
    events: Box<dyn EventSource>,
    commands: mpsc::Receiver<Command>,
    /// States of next hops, for bgp.
    states: mpsc::Sender<NextHopState>,
    /// States that bgp has not taken yet; the latest of each address.
    untold: HashMap<IpAddr, NextHopState>,
    mtu: watch::Sender<Option<u32>>,
    desired: Desired,
    next_hops: NextHops,
    delta: Delta,
    /// Whether each link was up when last seen.
    links_up: HashMap<u32, bool>,
    /// Families to be read again before the next plan.
    stale: BTreeSet<Family>,
    /// Next hops are to be looked up again.
    unresolved: bool,
    /// Who waits for routes to be in the kernel, or out of it.
    waiting: Vec<Waiting>,
    /// Who wants to see what there is, once this round is in the kernel.
    asked: Vec<oneshot::Sender<RoutesView>>,
    /// When the tables are read in any case.
    next_resync: Instant,
    /// When refused changes are tried again, and the delays between.
    next_retry: Option<Instant>,
    backoff: Backoff,
}

impl Owner {
    #[expect(clippy::too_many_arguments, reason = "the two ends of every channel, taken once")]
    pub(crate) fn new(
        protocols: Protocols,
        node_addresses: Vec<IpAddr>,
        resync: Duration,
        kernel: Box<dyn Kernel>,
        events: Box<dyn EventSource>,
        commands: mpsc::Receiver<Command>,
        states: mpsc::Sender<NextHopState>,
        mtu: watch::Sender<Option<u32>>,
    ) -> Self {
        Self {
            protocols,
            resync,
            kernel,
            events,
            commands,
            states,
            untold: HashMap::new(),
            mtu,
            desired: Desired::new(protocols, node_addresses),
            next_hops: NextHops::default(),
            delta: Delta::default(),
            links_up: HashMap::new(),
            stale: BTreeSet::from(Family::ALL),
            unresolved: false,
            waiting: Vec::new(),
            asked: Vec::new(),
            next_resync: Instant::now() + resync,
            next_retry: None,
            backoff: Backoff::new(RETRY.0, RETRY.1, u64::from(std::process::id())),
        }
    }

    /// Runs until every handle is gone.
    pub(crate) fn run(mut self) {
        loop {
            for _ in 0..ROUND {
                match self.commands.try_recv() {
                    Ok(command) => self.command(command),
                    Err(mpsc::error::TryRecvError::Empty) => break,
                    Err(mpsc::error::TryRecvError::Disconnected) => return,
                }
            }
            self.settle();
            let timeout = self.timeout();
            match self.events.next(Some(timeout)) {
                Ok(Wait::Event(event)) => {
                    self.event(event);
                    self.more_events();
                }
                Ok(Wait::Woken) => {}
                Ok(Wait::TimedOut) => self.timers(Instant::now()),
                Err(error) => {
                    // Without events the tables are read; without a pause this would spin.
                    warn!(%error, "kernel events are not heard");
                    self.stale.extend(Family::ALL);
                    std::thread::sleep(RETRY.0);
                }
            }
        }
    }

    /// Events that have come already, so that a burst is one round.
    fn more_events(&mut self) {
        for _ in 0..ROUND {
            match self.events.next(Some(Duration::ZERO)) {
                Ok(Wait::Event(event)) => self.event(event),
                Ok(Wait::Woken | Wait::TimedOut) | Err(_) => return,
            }
        }
    }

    fn timeout(&self) -> Duration {
        let next = self.next_retry.map_or(self.next_resync, |retry| retry.min(self.next_resync));
        let wait = next.saturating_duration_since(Instant::now());
        // bgp is behind: look again soon, it cannot wake us.
        if self.untold.is_empty() { wait } else { wait.min(Duration::from_millis(5)) }
    }

    fn timers(&mut self, now: Instant) {
        if now >= self.next_resync {
            self.stale.extend(Family::ALL);
            self.unresolved = true;
            self.next_resync = now + self.resync;
        }
        if self.next_retry.is_some_and(|retry| now >= retry) {
            self.next_retry = None;
            // What was refused may stand in the way of what is there: look before trying.
            for prefix in self.delta.failures().keys().copied().collect::<Vec<_>>() {
                self.stale.insert(prefix.family());
                self.desired.touch(prefix);
            }
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach { interface, addresses, reply } => self.attach(interface, &addresses, reply),
            Command::Detach { addresses, reply } => {
                addresses.iter().for_each(|address| self.desired.detach(*address));
                let prefixes = addresses.into_iter().map(Prefix::host).collect();
                self.waiting.push(Waiting { prefixes, reply });
            }
            Command::LocalInSync => {
                for family in Family::ALL {
                    self.in_sync(self.protocols.local, family);
                }
            }
            Command::OwnBlocks(blocks) => self.desired.own_blocks(blocks),
            Command::Fib(updates) => updates.into_iter().for_each(|update| self.fib(update)),
            Command::Watch(NextHopWatch::Track(address)) => {
                self.next_hops.track(address);
                self.look_up([address]);
            }
            Command::Watch(NextHopWatch::Untrack(address)) => self.next_hops.untrack(address),
            Command::View(reply) => self.asked.push(reply),
        }
    }

    fn attach(
        &mut self,
        interface: InterfaceName,
        addresses: &[IpAddr],
        reply: oneshot::Sender<Result<(), RouteError>>,
    ) {
        let found = match self.kernel.link(&interface) {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(RouteError::NoInterface(interface.clone())),
            Err(error) => Err(error.into()),
        };
        match found {
            Ok(link) => {
                self.links_up.insert(link.index, link.up);
                for address in addresses {
                    self.desired.attach(*address, Local { interface: interface.clone(), index: link.index });
                }
                let prefixes = addresses.iter().map(|address| Prefix::host(*address)).collect();
                self.waiting.push(Waiting { prefixes, reply });
            }
            Err(error) => {
                let _ = reply.send(Err(error));
            }
        }
    }

    fn fib(&mut self, update: FibUpdate) {
        match update {
            FibUpdate::Set { prefix, next_hops } => self.desired.learn(prefix, next_hops),
            FibUpdate::Withdraw { prefix } => self.desired.unlearn(prefix),
            FibUpdate::InSync { family } => self.in_sync(self.protocols.bgp, family),
        }
    }

    fn in_sync(&mut self, protocol: u8, family: Family) {
        if self.delta.in_sync(protocol, family) {
            self.delta.of(protocol, family).into_iter().for_each(|prefix| self.desired.touch(prefix));
        }
    }

    fn event(&mut self, event: Event) {
        match event {
            Event::RouteChanged(route) if self.is_ours(&route) => {
                let prefix = route.prefix;
                if self.delta.put_by_others(route) {
                    self.desired.touch(prefix);
                }
            }
            Event::RouteDeleted(route) if self.is_ours(&route) => {
                if self.delta.deleted_by_others(&route) {
                    debug!(%route, "deleted by others");
                    self.desired.touch(route.prefix);
                }
            }
            // A foreign route may lead to a next hop, or leave a place that ours was refused for.
            Event::RouteChanged(_) | Event::RouteDeleted(_) => {
                self.unresolved = true;
                self.retry_soon();
            }
            Event::LinkChanged(link) => self.link_changed(&link),
            Event::LinkDeleted(link) => {
                self.links_up.remove(&link.index);
                self.link_lost(link.index, true);
            }
            Event::AddressChanged(_) | Event::AddressDeleted(_) => {
                // The kernel drops routes whose source address goes.
                self.stale.extend(Family::ALL);
                self.unresolved = true;
                self.retry_soon();
            }
            Event::Lost => {
                self.stale.extend(Family::ALL);
                self.unresolved = true;
            }
        }
    }

    fn link_changed(&mut self, link: &Link) {
        let before = self.links_up.insert(link.index, link.up);
        match (before, link.up) {
            (Some(true) | None, false) => self.link_lost(link.index, false),
            (Some(false) | None, true) => {
                self.desired.touch_interface(link.index);
                if !kernel::ours::is_our_link(link) {
                    self.stale.extend(Family::ALL);
                    self.unresolved = true;
                    self.retry_soon();
                }
            }
            _ => {}
        }
    }

    fn link_lost(&mut self, index: u32, gone: bool) {
        for prefix in self.delta.link_lost(index, gone) {
            self.desired.touch(prefix);
        }
        if self.next_hops.interfaces().contains(&index) {
            self.unresolved = true;
        }
    }

    fn is_ours(&self, route: &Route) -> bool {
        route.table == kernel::MAIN_TABLE && [self.protocols.local, self.protocols.bgp].contains(&route.protocol)
    }

    /// Failures may come right now: do not wait for the long delays of earlier attempts.
    fn retry_soon(&mut self) {
        if !self.delta.failures().is_empty() {
            self.backoff.reset();
            self.next_retry = Some(Instant::now() + self.backoff.delay());
        }
    }

    /// Makes the kernel what is desired, as far as it lets us, and answers who waits.
    fn settle(&mut self) {
        if let Err(error) = self.read_kernel() {
            warn!(%error, "the kernel's routes cannot be read");
            self.next_retry.get_or_insert_with(|| Instant::now() + self.backoff.delay());
        }
        if std::mem::take(&mut self.unresolved) {
            self.look_up(self.next_hops.addresses());
        }
        self.tell();
        if self.desired.has_dirty() {
            self.write();
        }
        for Waiting { prefixes, reply } in std::mem::take(&mut self.waiting) {
            let failed = prefixes.into_iter().find_map(|prefix| {
                let error = self.delta.failures().get(&prefix)?.clone();
                Some(RouteError::Kernel { prefix, error })
            });
            // The binary may have given up; its agent task undoes.
            let _ = reply.send(failed.map_or(Ok(()), Err));
        }
        for reply in std::mem::take(&mut self.asked) {
            // Who asked may have left.
            let _ = reply.send(self.view());
        }
    }

    fn write(&mut self) {
        let mut changes = Changes::default();
        for prefix in self.desired.take_dirty() {
            let route = self.desired.route(prefix, &self.next_hops);
            self.delta.changes(prefix, route, &mut changes);
        }
        let changes = changes.into_ordered();
        if changes.is_empty() {
            return;
        }
        match self.kernel.change_routes(&changes) {
            Ok(failures) => {
                for failure in &failures {
                    warn!(error = %failure.error, "refused by the kernel; tried again later");
                }
                self.delta.applied(&changes, failures);
            }
            Err(error) => {
                warn!(%error, "the kernel does not take routes");
                self.stale.extend(Family::ALL);
                changes.iter().for_each(|change| self.desired.touch(change.route().prefix));
            }
        }
        if self.delta.failures().is_empty() && !self.desired.has_dirty() {
            self.backoff.reset();
            self.next_retry = None;
        } else if self.next_retry.is_none() {
            self.next_retry = Some(Instant::now() + self.backoff.delay());
        }
    }

    /// Reads our routes of the families that may differ from what is known.
    pub(crate) fn read_kernel(&mut self) -> Result<(), KernelError> {
        while let Some(family) = self.stale.first().copied() {
            let mut routes = Vec::new();
            for protocol in [self.protocols.local, self.protocols.bgp] {
                routes.extend(self.kernel.routes(&RouteFilter::main(family).of_protocol(protocol))?);
            }
            self.stale.remove(&family);
            self.delta.read(family, routes).into_iter().for_each(|prefix| self.desired.touch(prefix));
        }
        Ok(())
    }

    fn look_up(&mut self, addresses: impl IntoIterator<Item = IpAddr>) {
        let mut changed = BTreeSet::new();
        for address in addresses {
            let resolution = match self.kernel.resolve(address) {
                Ok(resolution) => resolution,
                Err(error) => {
                    warn!(%address, %error, "the next hop cannot be looked up");
                    self.unresolved = true;
                    continue;
                }
            };
            let (tell, routes) = self.next_hops.looked_up(address, resolution.as_ref(), self.protocols.bgp);
            if let Some(state) = tell {
                self.untold.insert(address, state);
            }
            if routes {
                changed.insert(address);
            }
        }
        if !changed.is_empty() {
            self.desired.next_hops_changed(&changed);
            self.find_mtu();
        }
        self.tell();
    }

    /// Tells bgp as much as it takes now.
    fn tell(&mut self) {
        let states = &self.states;
        self.untold.retain(|_, state| matches!(states.try_send(*state), Err(mpsc::error::TrySendError::Full(_))));
    }

    fn find_mtu(&mut self) {
        let interfaces = self.next_hops.interfaces();
        match self.kernel.links() {
            Ok(links) => {
                let smallest = links.iter().filter(|link| interfaces.contains(&link.index)).map(|link| link.mtu).min();
                self.mtu.send_if_modified(|mtu| std::mem::replace(mtu, smallest) != smallest);
            }
            Err(error) => warn!(%error, "the MTU toward next hops cannot be told"),
        }
    }

    fn view(&self) -> RoutesView {
        let (local, blocks, _) = self.desired.counts();
        let failures = self.delta.failures().iter().map(|(prefix, error)| format!("route to {prefix}: {error}"));
        RoutesView { local, blocks, bgp: self.delta.count(self.protocols.bgp), failures: failures.collect() }
    }
}

//! The thread that owns the route table: it takes commands and events, reads the kernel, writes what the table plans,
//! and answers.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use kernel::events::{EventSource, Wait};
use kernel::{Kernel, KernelError, Route, RouteFilter};
use tokio::sync::{mpsc, oneshot, watch};
use tracing::warn;

use types::backoff::Backoff;
use types::{Family, InterfaceName, NextHopState, Prefix};

use super::config::RoutesConfig;
use super::handle::{Command, RouteError, RoutesView};
use super::next_hops::look_up_without;
use super::table::{Protocols, RouteTable, Trouble};

/// How many commands one round takes before it writes. This is more than their channel holds, so that all commands sent
/// before a wake are taken after it.
pub(crate) const COMMANDS_PER_ROUND: usize = 1_024;

/// After how many changes of BGP's routes a round takes no more commands before it writes: a full table comes in batches of
/// thousands, and is in nobody's way for longer than it takes to note these.
const FIB_UPDATES_PER_ROUND: usize = 16_384;

/// How many events of the kernel one round takes before it writes.
const EVENTS_PER_ROUND: usize = 1_024;

/// The delays between attempts at what the kernel has refused: the first delay, and the longest.
const KERNEL_RETRY_DELAY: (Duration, Duration) = (Duration::from_millis(100), Duration::from_secs(30));

/// After an event, for how long others are left to gather: a pod that comes makes a dozen within a millisecond. Whoever asks is
/// served at once all the same.
const EVENTS_PAUSE: Duration = Duration::from_millis(5);

/// How soon everything is read again after events of links and addresses: the kernel sends these before it has dealt
/// with their routes.
const LINK_SETTLE_TIME: Duration = Duration::from_millis(100);

/// How many times one round plans anew because of what its own writes have brought up: places that were taken, next
/// hops that are reached otherwise now. What is left after that waits for the next attempt.
const PASSES_PER_ROUND: usize = 4;

/// How many prefixes one round writes beside those that somebody waits for. A full table is written in pieces, so that
/// a pod's route never waits for all of it (a route takes some 3 us; in pieces of 64 or more it takes no longer).
const PREFIXES_PER_ROUND: usize = 1_024;

/// How soon the BGP speaker is offered the states of next hops again after its channel was full.
const BGP_RETELL_DELAY: Duration = Duration::from_millis(5);

/// Everything that the owner reads from and writes to.
pub(crate) struct Ends {
    /// The kernel whose routes it reads and writes.
    pub(crate) kernel: Box<dyn Kernel>,
    /// The changes that other programs and the kernel itself make there.
    pub(crate) events: Box<dyn EventSource>,
    /// The agent's commands.
    pub(crate) commands: mpsc::Receiver<Command>,
    /// The states of next hops, for the BGP speaker.
    pub(crate) states: mpsc::Sender<NextHopState>,
    /// The smallest MTU of the interfaces that lead to next hops.
    pub(crate) mtu: watch::Sender<Option<u32>>,
}

/// The state of the routes' thread.
pub(crate) struct Owner {
    /// The wanted routes, the kernel's routes, and the work that is left between the two.
    table: RouteTable,
    ends: Ends,
    /// The protocol numbers by which our routes are known.
    protocols: Protocols,
    /// The time between two readings of everything that no event asked for.
    resync: Duration,
    /// The callers who wait for routes to be in the kernel, or out of it.
    waiting: Vec<Waiting>,
    /// The callers who want figures, once the kernel has what this round writes.
    asked: Vec<oneshot::Sender<RoutesView>>,
    /// Whether the last round has left commands to the next one.
    untaken: bool,
    /// When everything is read next although no event asked for it.
    next_resync: Instant,
    /// When everything is read because an event may have effects that come late.
    next_look: Option<Instant>,
    /// When refused changes are tried again, and the delays between attempts.
    next_retry: Option<Instant>,
    backoff: Backoff,
}

struct Waiting {
    prefixes: Vec<Prefix>,
    reply: oneshot::Sender<Result<(), RouteError>>,
}

impl Owner {
    pub(crate) fn new(config: RoutesConfig, ends: Ends, now: Instant) -> Self {
        let protocols = Protocols { local: config.local_protocol, bgp: config.bgp_protocol };
        Self {
            table: RouteTable::new(protocols, config.node_addresses),
            ends,
            protocols,
            resync: config.resync,
            waiting: Vec::new(),
            asked: Vec::new(),
            untaken: false,
            next_resync: now + config.resync,
            next_look: None,
            next_retry: None,
            backoff: Backoff::new(KERNEL_RETRY_DELAY.0, KERNEL_RETRY_DELAY.1, u64::from(std::process::id())),
        }
    }

    /// Runs until every handle has been dropped.
    pub(crate) fn run(mut self) {
        let mut has_heard = false;
        while self.round(Instant::now()) {
            let timeout = self.timeout(Instant::now());
            if has_heard && let Err(error) = self.ends.events.gather(EVENTS_PAUSE.min(timeout)) {
                self.events_failed(&error);
            }
            let next = self.ends.events.next(Some(timeout));
            has_heard = matches!(next, Ok(Wait::Event(_)));
            match next {
                Ok(Wait::Event(event)) => self.table.event(event),
                Ok(Wait::Woken | Wait::TimedOut) => {}
                Err(error) => self.events_failed(&error),
            }
        }
    }

    /// Takes what has come, without waiting, and makes the kernel what it should be. Returns `false` when every handle
    /// has been dropped.
    pub(crate) fn round(&mut self, now: Instant) -> bool {
        self.timers(now);
        self.take_events();
        let mut fib_updates = 0;
        self.untaken = false;
        for _ in 0..COMMANDS_PER_ROUND {
            if fib_updates >= FIB_UPDATES_PER_ROUND {
                self.untaken = true;
                break;
            }
            match self.ends.commands.try_recv() {
                Ok(command) => {
                    fib_updates += if let Command::Fib(updates) = &command { updates.len() } else { 0 };
                    self.command(command);
                }
                Err(mpsc::error::TryRecvError::Empty) => break,
                Err(mpsc::error::TryRecvError::Disconnected) => return false,
            }
        }
        self.settle(now);
        true
    }

    fn take_events(&mut self) {
        for _ in 0..EVENTS_PER_ROUND {
            match self.ends.events.next(Some(Duration::ZERO)) {
                Ok(Wait::Event(event)) => self.table.event(event),
                Ok(Wait::Woken) => {}
                Ok(Wait::TimedOut) => return,
                Err(error) => return self.events_failed(&error),
            }
        }
    }

    /// Without events the kernel has to be read, and a pause is needed lest the thread spin.
    fn events_failed(&mut self, error: &KernelError) {
        warn!(%error, "the kernel does not say what changes; all links, addresses and routes will be read again");
        self.table.read_all_again();
        std::thread::sleep(KERNEL_RETRY_DELAY.0);
    }

    fn timeout(&self, now: Instant) -> Duration {
        if self.untaken || self.table.has_backlog() && self.next_retry.is_none() {
            return Duration::ZERO;
        }
        let timers = [self.next_look, self.next_retry].into_iter().flatten();
        let next = timers.fold(self.next_resync, Instant::min);
        let wait = next.saturating_duration_since(now);
        // The BGP speaker cannot wake this thread when it has taken states out of a full channel.
        if self.table.has_untold() { wait.min(BGP_RETELL_DELAY) } else { wait }
    }

    fn timers(&mut self, now: Instant) {
        if now >= self.next_resync {
            self.next_resync = now + self.resync;
            self.table.read_all_again();
        }
        if self.next_look.take_if(|look| now >= *look).is_some() {
            self.table.read_all_again();
        }
        if self.next_retry.take_if(|retry| now >= *retry).is_some() {
            self.table.retry();
        }
    }

    fn command(&mut self, command: Command) {
        match command {
            Command::Attach { interface, addresses, reply } => self.attach(&interface, &addresses, reply),
            Command::Detach { addresses, reply } => {
                addresses.iter().for_each(|address| self.table.detach(*address));
                self.waiting.push(Waiting { prefixes: addresses.into_iter().map(Prefix::host).collect(), reply });
            }
            Command::LocalInSync => self.table.local_in_sync(),
            Command::OwnBlocks(blocks) => self.table.own_blocks(blocks),
            Command::NodeAddresses(addresses) => self.table.set_node_addresses(addresses),
            Command::Fib(updates) => updates.into_iter().for_each(|update| self.table.fib(update)),
            Command::Watch(watches) => watches.into_iter().for_each(|watch| self.table.watch(watch)),
            Command::View(reply) => self.asked.push(reply),
        }
    }

    fn attach(
        &mut self,
        interface: &InterfaceName,
        addresses: &[IpAddr],
        reply: oneshot::Sender<Result<(), RouteError>>,
    ) {
        // The interface was made a moment ago. Its event may be under way still, so the kernel is asked.
        let link = match self.ends.kernel.link(interface) {
            Ok(Some(link)) => Ok(link),
            Ok(None) => Err(RouteError::NoInterface(interface.clone())),
            Err(error) => Err(error.into()),
        };
        match link {
            Ok(link) => {
                self.table.link_is(&link);
                addresses.iter().for_each(|address| self.table.attach(*address, interface.clone()));
                let prefixes = addresses.iter().map(|address| Prefix::host(*address)).collect();
                self.waiting.push(Waiting { prefixes, reply });
            }
            Err(error) => {
                // The task that asked may have stopped waiting.
                let _ = reply.send(Err(error));
            }
        }
    }

    /// Makes the kernel what is desired, as far as it allows, and answers the callers who wait.
    fn settle(&mut self, now: Instant) {
        let mut outcome = Ok(());
        let (mut fresh, mut failed) = (BTreeSet::new(), BTreeSet::new());
        for _ in 0..PASSES_PER_ROUND {
            if !self.table.has_work() || outcome.is_err() {
                break;
            }
            let unread = self.table.unread();
            let read = self.read();
            if read.is_ok() {
                fresh.extend(unread);
            }
            failed.extend(self.look_up());
            // This comes before the write, so that bgp's own work on a lost next hop does not wait for ours.
            self.tell();
            // If reading has failed, this writes by what was known before.
            let written = self.write(&fresh);
            outcome = read.and(written);
            if self.table.has_backlog() {
                break;
            }
        }
        self.table.look_up_again(failed);
        if let Err(error) = &outcome {
            warn!(%error, "the kernel's routes cannot be read or changed; this will be tried again");
        }
        self.plan_retry(outcome.is_err(), now);
        if self.table.take_unsettled() {
            self.next_look.get_or_insert(now + LINK_SETTLE_TIME);
        }
        self.tell();
        if let Some(mtu) = self.table.changed_mtu() {
            self.ends.mtu.send_if_modified(|known| std::mem::replace(known, mtu) != mtu);
        }
        self.answer(&outcome);
    }

    /// Tells the BGP speaker as many states of next hops as its channel has room for.
    fn tell(&mut self) {
        let states = &self.ends.states;
        self.table.tell(|state| !matches!(states.try_send(state), Err(mpsc::error::TrySendError::Full(_))));
    }

    fn plan_retry(&mut self, failed: bool, now: Instant) {
        if self.table.has_backlog() && !failed {
            self.next_retry = None;
        } else if failed || self.table.has_work() || self.table.has_retries() {
            if self.next_retry.is_none() {
                self.next_retry = Some(now + self.backoff.delay());
            }
        } else {
            self.backoff.reset();
            self.next_retry = None;
        }
    }

    fn answer(&mut self, outcome: &Result<(), KernelError>) {
        let more_comes = self.table.has_backlog() && outcome.is_ok();
        for Waiting { prefixes, reply } in std::mem::take(&mut self.waiting) {
            if more_comes && prefixes.iter().any(|prefix| self.table.is_dirty(prefix)) {
                self.waiting.push(Waiting { prefixes, reply });
                continue;
            }
            let troubled = prefixes.into_iter().find_map(|prefix| Some((prefix, self.table.trouble(&prefix)?.clone())));
            let answer = match (troubled, outcome) {
                (Some((prefix, trouble)), _) => Err(match trouble {
                    Trouble::NoInterface(interface) => RouteError::NoInterface(interface),
                    Trouble::InterfaceDown(interface) => RouteError::InterfaceDown(interface),
                    Trouble::Conflict(metric) => RouteError::Conflict { prefix, metric },
                    Trouble::Refused(error) => RouteError::Kernel { prefix, error },
                }),
                (None, Err(error)) => Err(error.clone().into()),
                (None, Ok(())) => Ok(()),
            };
            // The CNI binary may have given up waiting; the agent's task that speaks to it undoes the attachment then.
            let _ = reply.send(answer);
        }
        if more_comes {
            return;
        }
        for reply in std::mem::take(&mut self.asked) {
            // The task that asked may have stopped waiting.
            let _ = reply.send(self.table.view());
        }
    }

    /// Reads the parts of the kernel that may differ from what is known of them.
    pub(crate) fn read(&mut self) -> Result<(), KernelError> {
        let kernel = self.ends.kernel.as_mut();
        if self.table.interfaces_unread() {
            let links = kernel.links()?;
            self.table.interfaces_read(&links, &kernel.addresses()?);
        }
        for family in self.table.unread() {
            let mut routes = Vec::new();
            for protocol in [self.protocols.local, self.protocols.bgp] {
                routes.extend(kernel.routes(&RouteFilter::main(family).of_protocol(protocol))?);
            }
            self.table.routes_read(family, routes);
        }
        Ok(())
    }

    /// Looks up how next hops are reached; returns those for which that failed.
    fn look_up(&mut self) -> BTreeSet<IpAddr> {
        let mut failed = BTreeSet::new();
        let kernel = self.ends.kernel.as_mut();
        let mut hidden = Vec::new();
        for address in self.table.take_look_ups() {
            match kernel.resolve(address) {
                Ok(Some(resolution)) if resolution.protocol == self.protocols.bgp => hidden.push(address),
                Ok(resolution) => self.table.looked_up(address, resolution.as_ref()),
                Err(error) => {
                    warn!(%address, %error, "a next hop of BGP cannot be looked up in the kernel; this will be tried again");
                    failed.insert(address);
                }
            }
        }
        for family in Family::ALL {
            let hidden: Vec<_> = hidden.iter().filter(|address| Family::of(**address) == family).collect();
            if hidden.is_empty() {
                continue;
            }
            // The kernel cannot be asked for what lies beneath a route, so the table is read. That happens seldom: only
            // routes that BGP has for its own next hops make it necessary.
            let table: Result<Vec<Route>, _> = kernel.routes(&RouteFilter::main(family));
            for address in hidden {
                match &table {
                    Ok(table) => {
                        let beneath = look_up_without(self.protocols.bgp, table, *address);
                        self.table.looked_up(*address, beneath.as_ref());
                    }
                    Err(error) => {
                        warn!(%address, %error, "a next hop of BGP cannot be looked up in the kernel; this will be tried again");
                        failed.insert(*address);
                    }
                }
            }
        }
        failed
    }

    fn write(&mut self, fresh: &BTreeSet<Family>) -> Result<(), KernelError> {
        let changes = self.table.plan(PREFIXES_PER_ROUND);
        if changes.is_empty() {
            return Ok(());
        }
        match self.ends.kernel.change_routes(&changes) {
            Ok(failures) => {
                for prefix in self.table.applied(&changes, failures, fresh) {
                    if let Some(trouble) = self.table.trouble(&prefix) {
                        warn!(%prefix, %trouble, "a wanted route is not in the kernel; it will be tried again");
                    }
                }
                Ok(())
            }
            Err(error) => {
                self.table.not_applied(&changes);
                Err(error)
            }
        }
    }
}

#[cfg(test)]
mod tests;

//! The threads of felix, and what goes in and out.
//!
//! ```text
//!   Routes (handle, many) ──Command, bounded──► felix-routes (1 thread): Box<dyn Kernel>, RouteTable
//!                         ──wake──────────────►   ▲ waits on
//!   kernel ───────────────events──────────────────┘
//!                               felix-routes ──NextHopState, bounded──► bgp (by the agent)
//!                               felix-routes ──watch: Option<u32>─────► MTU of pods' interfaces
//!
//!   Acl (handle, many) ────Command, bounded──► felix-acl (1 thread): Compiler, State, Box<dyn Sets>
//!                      ───wake──────────────►   ▲ waits on            │ ▲
//!   kernel ────────────rule events──────────────┘                     │ │ one task at a time, answer and wake
//!                                felix-acl-tables (1): Box<dyn Tables> ◄┤ │
//!                           felix-acl-connections (1): Box<dyn Connections>, Box<dyn Kernel> ◄┘
//!                                felix-acl ──watch: Vec<String>───► readiness (by the agent)
//! ```
//!
//! One wait serves both events and commands, so no thread is needed to carry the one into the queue of the other.

use std::io;
use std::sync::{Arc, Mutex, mpsc as threads};
use std::thread;
use std::time::Instant;

use kernel::events::EventSource;
use kernel::{Kernel, KernelError};
use mailbox::Mailbox;
use tokio::sync::{mpsc, watch};

use crate::acl::{self, Acl, AclBackend, AclConfig};
use crate::routes::{self, Routes, RoutesConfig};

/// Commands that wait; senders wait behind them.
const COMMANDS_QUEUED: usize = 256;
const _: () = assert!(COMMANDS_QUEUED <= routes::COMMANDS_PER_ROUND, "a round takes all that was sent before the wake");
const _: () = assert!(COMMANDS_QUEUED <= acl::COMMANDS_PER_ROUND, "a round takes all that was sent before the wake");

/// States of next hops that wait for bgp.
const NEXT_HOP_STATES_QUEUED: usize = 4_096;

/// Why felix did not start.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel cannot be read. The environment's fault.
    #[error("cannot read the kernel's state")]
    Kernel(#[from] KernelError),
    /// No thread. The environment's fault.
    #[error("cannot start a thread")]
    Thread(#[source] io::Error),
}

/// Reads the kernel and starts the owner of its routes, which ends when the last handle is dropped and leaves the kernel as
/// it is.
///
/// `events` should leave out what `kernel` itself causes, and must have been subscribed before this call.
pub fn start_routes(
    config: RoutesConfig,
    kernel: Box<dyn Kernel>,
    events: Box<dyn EventSource>,
) -> Result<Routes, StartError> {
    let (commands, requests) = mpsc::channel(COMMANDS_QUEUED);
    let (states, next_hops) = mpsc::channel(NEXT_HOP_STATES_QUEUED);
    let (mtu, mtus) = watch::channel(None);
    let waker = events.waker();
    let ends = routes::Ends { kernel, events, commands: requests, states, mtu };
    let mut owner = routes::Owner::new(config, ends, Instant::now());
    owner.read()?;
    spawn("felix-routes", move || owner.run())?;
    let handle = Mailbox::waking(commands, move || waker.wake());
    Ok(Routes { owner: handle, mtu: mtus, next_hops: Arc::new(Mutex::new(Some(next_hops))) })
}

/// Reads what the kernel has of ours, makes sure that unknown addresses behind pods' interfaces are dropped, and starts the
/// owner of the filter and its two workers. They end when the last handle is dropped and leave the kernel as it is.
pub fn start_acl(config: AclConfig, backend: AclBackend) -> Result<Acl, StartError> {
    let mark = acl::MarkSpace::new(config.mark_mask);
    let AclBackend { sets, mut tables, connections, events, host } = backend;
    let (commands, requests) = mpsc::channel(COMMANDS_QUEUED);
    let (readiness, reasons) = watch::channel(Vec::new());
    let (tables_tasks, tables_given) = threads::sync_channel(1);
    let (tables_answers, tables_given_back) = threads::sync_channel(1);
    let (connections_tasks, connections_given) = threads::sync_channel(1);
    let (connections_answers, connections_given_back) = threads::sync_channel(1);
    let waker = events.waker();
    let ends = acl::Ends {
        sets,
        events,
        commands: requests,
        tables: tables_tasks,
        tables_answers: tables_given_back,
        connections: connections_tasks,
        connections_answers: connections_given_back,
        readiness,
    };
    let now = Instant::now();
    let mut owner = acl::Owner::new(config, mark, tables.variant(), ends, now);
    owner.open(tables.as_mut(), now)?;
    let wake = waker.clone();
    spawn("felix-acl-tables", move || acl::serve_tables(tables, &tables_given, &tables_answers, &wake))?;
    let (tracker, wake) = (acl::Tracker { connections, host }, waker.clone());
    let track = move || acl::serve_connections(tracker, &connections_given, &connections_answers, &wake);
    spawn("felix-acl-conns", track)?;
    spawn("felix-acl", move || owner.run())?;
    Ok(Acl { owner: Mailbox::waking(commands, move || waker.wake()), readiness: reasons })
}

fn spawn(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), StartError> {
    // The owner of a handle is not waited for: its thread ends with its channel.
    thread::Builder::new().name(name.to_owned()).spawn(work).map(drop).map_err(StartError::Thread)
}

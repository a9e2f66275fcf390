//! The one thread of felix, and what goes in and out.
//!
//! ```text
//!   Felix (handle, many) ──Command, bounded──► owner (1 thread): Box<dyn Kernel>, the table
//!                        ──wake──────────────►   ▲ waits on
//!   kernel ──────────────events──────────────────┘
//!                                owner ──NextHopState, bounded──► bgp (by the agent)
//!                                owner ──watch: Option<u32>─────► MTU of pods' interfaces
//! ```
//!
//! One wait serves both events and commands, so no thread is needed to carry the one into the queue of the other.

use std::io;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Instant;

use kernel::events::EventSource;
use kernel::{Kernel, KernelError};
use tokio::sync::{mpsc, watch};

use crate::config::FelixConfig;
use crate::handle::{Felix, WakeAtLast};
use crate::owner::{Ends, Owner, ROUND};

/// Commands that wait; senders wait behind them.
const COMMANDS: usize = 256;
const _: () = assert!(COMMANDS <= ROUND, "a round takes all that was sent before the wake");

/// States of next hops that wait for bgp.
const STATES: usize = 4_096;

/// Why felix did not start. Both are the environment's fault.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The kernel cannot be read.
    #[error("cannot read the kernel's routes")]
    Kernel(#[from] KernelError),
    /// No thread.
    #[error("cannot start the thread that owns routes")]
    Thread(#[source] io::Error),
}

/// Reads the kernel and starts the owner, which ends when the last handle is dropped and leaves the kernel as it is.
///
/// `events` should leave out what `kernel` itself causes, and must have been subscribed before this call.
pub fn start(config: FelixConfig, kernel: Box<dyn Kernel>, events: Box<dyn EventSource>) -> Result<Felix, StartError> {
    let (commands, requests) = mpsc::channel(COMMANDS);
    let (states, next_hops) = mpsc::channel(STATES);
    let (mtu, mtus) = watch::channel(None);
    let waker = Arc::new(WakeAtLast(events.waker()));
    let ends = Ends { kernel, events, commands: requests, states, mtu };
    let mut owner = Owner::new(config, ends, Instant::now());
    owner.read()?;
    thread::Builder::new().name("felix".to_owned()).spawn(move || owner.run()).map_err(StartError::Thread)?;
    Ok(Felix { commands, waker, mtu: mtus, next_hops: Arc::new(Mutex::new(Some(next_hops))) })
}

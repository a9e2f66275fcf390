//! The one thread of felix, and what goes in and out.
//!
//! ```text
//!   Felix (handle, many) ──Command, bounded──► owner (1 thread): Box<dyn Kernel>, every table
//!                        ──wake (eventfd)────►   ▲ waits on
//!   kernel ──────────────events──────────────────┘
//!                                owner ──NextHopState, bounded──► bgp (by the agent)
//!                                owner ──watch: Option<u32>─────► MTU of pods' interfaces
//! ```

use std::net::IpAddr;
use std::sync::{Arc, Mutex};
use std::thread;
use std::time::Duration;

use kernel::events::EventSource;
use kernel::{Kernel, KernelError, ours};
use tokio::sync::{mpsc, watch};
use tracing::error;

use crate::desired::Protocols;
use crate::handle::Felix;
use crate::run::Owner;

/// What felix needs to know of the node.
#[derive(Debug, Clone)]
pub struct FelixConfig {
    /// The route protocol of local pods and own blocks.
    pub local_protocol: u8,
    /// The route protocol of routes learned by BGP.
    pub bgp_protocol: u8,
    /// This node's addresses, at most one per family: the source of what the host sends to its own pods.
    pub node_addresses: Vec<IpAddr>,
    /// How often the kernel's tables are read in any case: events can be lost.
    pub resync: Duration,
}

impl Default for FelixConfig {
    fn default() -> Self {
        Self {
            local_protocol: ours::ROUTE_PROTOCOL_LOCAL,
            bgp_protocol: ours::ROUTE_PROTOCOL_BGP,
            node_addresses: Vec::new(),
            resync: Duration::from_secs(90),
        }
    }
}

/// Commands that wait; senders wait behind them.
const COMMANDS: usize = 256;

/// States of next hops that wait for bgp.
const STATES: usize = 4_096;

/// Reads the kernel and starts the owner.
///
/// `events` should leave out what `kernel` itself causes, and must have been subscribed before this call.
pub fn start(config: FelixConfig, kernel: Box<dyn Kernel>, events: Box<dyn EventSource>) -> Result<Felix, KernelError> {
    let (commands, requests) = mpsc::channel(COMMANDS);
    let (states, next_hops) = mpsc::channel(STATES);
    let (mtu, mtus) = watch::channel(None);
    let waker = events.waker();
    let protocols = Protocols { local: config.local_protocol, bgp: config.bgp_protocol };
    let mut owner = Owner::new(protocols, config.node_addresses, config.resync, kernel, events, requests, states, mtu);
    owner.read_kernel()?;
    let spawned = thread::Builder::new().name("felix".to_owned()).spawn(move || owner.run());
    if let Err(error) = spawned {
        // The handle then answers that felix has ended.
        error!(%error, "cannot start felix");
    }
    Ok(Felix { commands, waker, mtu: mtus, next_hops: Arc::new(Mutex::new(Some(next_hops))) })
}

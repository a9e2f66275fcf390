//! Host ports that stay mapped though their pod has gone: its DEL never came, or came to an end before it unmapped them.
//!
//! The CNI binary maps host ports by portmap, and records it. Without a DEL nobody would run portmap until the next ADD, so what it
//! made is taken away here, in whichever variant of iptables it is. portmap is not needed for that, nor the host's programs.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use kernel::KernelError;
use kernel::acl::{Iptables, IptablesVariant, Remains, Tables};
use tracing::{info, warn};

use types::{EndpointId, Family, InterfaceName};

use super::host_ports::HostPorts;
use super::turns::Turns;

/// How often it is looked for such records: a folder that is empty on most nodes.
const LOOK_INTERVAL: Duration = Duration::from_secs(5);

/// The parts that the task is made of.
pub(super) struct StaleMappings {
    /// Knows which attachments have gone, and which are recorded as mapped.
    pub(super) host_ports: HostPorts,
    /// Whose turn it is at which attachment.
    pub(super) turns: Turns,
    /// The tables that portmap may have written.
    pub(super) tables: NatTables,
}

/// Opens the tables of all variants of iptables: portmap runs with the host's, which need not be the agent's.
#[derive(Clone)]
pub(super) struct NatTables(Arc<dyn Fn() -> Vec<Box<dyn Tables>> + Send + Sync>);

impl NatTables {
    /// Those of the node.
    pub(super) fn node() -> Self {
        Self::of(|| {
            let variants = [IptablesVariant::Nft, IptablesVariant::Legacy];
            variants.map(|variant| Box::new(Iptables::new(variant)) as Box<dyn Tables>).into()
        })
    }

    /// Any others.
    pub(super) fn of(open: impl Fn() -> Vec<Box<dyn Tables>> + Send + Sync + 'static) -> Self {
        Self(Arc::new(open))
    }
}

impl fmt::Debug for NatTables {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NatTables")
    }
}

impl StaleMappings {
    /// Looks for as long as the agent runs.
    pub(super) async fn follow(self) {
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            looks.tick().await;
            self.look().await;
        }
    }

    /// One look.
    pub(super) async fn look(&self) {
        for id in self.host_ports.stale().await {
            let _turn = self.turns.at(&id.host_interface()).await;
            // An ADD may have given the attachment a new life meanwhile, or its DEL have come.
            if self.host_ports.is_stale(&id) {
                self.unmap(&id).await;
            }
        }
    }

    async fn unmap(&self, id: &EndpointId) {
        let (tables, interface) = (self.tables.clone(), id.host_interface());
        let removed = tokio::task::spawn_blocking(move || remove((tables.0)(), &interface)).await;
        let forgotten = match removed {
            // What portmap has made in another way is for portmap to take away, at the next ADD.
            Ok(Ok(0)) | Err(_) => return,
            Ok(Ok(_)) => self.host_ports.unmapped(id),
            Ok(Err(error)) => {
                warn!(endpoint = %id, %error, "host ports of a pod that has gone stay mapped; trying again");
                return;
            }
        };
        match forgotten {
            Ok(()) => info!(endpoint = %id, "host ports are unmapped of a pod that has gone without a DEL"),
            Err(error) => {
                warn!(endpoint = %id, %error, "the record of host ports that are not mapped any more cannot be removed")
            }
        }
    }
}

/// Removes what portmap has made for an attachment; gives in how many tables something was.
fn remove(tables: Vec<Box<dyn Tables>>, attachment: &InterfaceName) -> Result<usize, KernelError> {
    let mut count = 0;
    for mut tables in tables {
        for family in Family::ALL {
            match Remains::of_host_ports(tables.as_mut(), family, attachment) {
                Ok(None) => {}
                Ok(Some(remains)) => {
                    tables.restore(family, &remains.removal())?;
                    count += 1;
                }
                // This variant of iptables is not installed.
                Err(KernelError::Gone(_)) => {}
                Err(error) => return Err(error),
            }
        }
    }
    Ok(count)
}

#[cfg(test)]
mod tests;

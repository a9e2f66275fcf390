//! The task that looks after what the runtime plugs pods in by: our CNI configuration, those of others before it, and the binary.

use std::path::PathBuf;
use std::pin::pin;
use std::time::Duration;

use tokio::sync::watch;
use tokio::time::MissedTickBehavior;
use tracing::{info, warn};

use super::cni_binary::BinaryWatch;
use super::cni_configuration::{self, Fault, Looked};
use super::latest::tell;
use super::readiness::{Part, Readiness};

/// How often it is looked: two folders, a small file.
const LOOK_INTERVAL: Duration = Duration::from_secs(2);

/// The parts that the task is made of.
pub(crate) struct RuntimeTask {
    /// Where the runtime looks for CNI configurations.
    pub(crate) cni_conf_dir: Option<PathBuf>,
    /// Where the runtime looks for CNI binaries.
    pub(crate) cni_bin_dir: Option<PathBuf>,
    /// The agent's run folder, where the binary finds it.
    pub(crate) run_dir: PathBuf,
    /// Told of what pods suffer from.
    pub(crate) readiness: Readiness,
    /// All that is wrong; nothing before the first look.
    pub(crate) faults: watch::Sender<Option<Vec<Fault>>>,
}

impl RuntimeTask {
    /// Looks for as long as the agent runs. When everything else is ready for the first time, the runtime may ask for networks.
    pub(crate) async fn run(self) {
        let mut binary = self.cni_bin_dir.as_deref().map(BinaryWatch::new);
        let mut serves = false;
        let mut served = pin!(self.readiness.ready_but_for(Part::Runtime));
        let mut looks = tokio::time::interval(LOOK_INTERVAL);
        looks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = &mut served, if !serves => serves = true,
                _ = looks.tick() => {}
            }
            let mut faults = self.look_at_configurations(serves).await;
            if let Some(binary) = &mut binary {
                faults.extend(binary.look().await);
            }
            self.say(faults);
        }
    }

    async fn look_at_configurations(&self, may_write: bool) -> Vec<Fault> {
        let Some(folder) = self.cni_conf_dir.clone() else { return Vec::new() };
        let run_dir = self.run_dir.clone();
        // A disk may be slow, so another thread waits for it.
        let look = move || cni_configuration::look(&folder, &run_dir, may_write);
        let Looked { changes, faults } = tokio::task::spawn_blocking(look).await.unwrap_or_default();
        for change in changes {
            match change {
                cni_configuration::Change::Put => info!("{change}"),
                _ => warn!("{change}"),
            }
        }
        faults
    }

    fn say(&self, faults: Vec<Fault>) {
        let hurting: Vec<_> = faults.iter().filter(|fault| fault.hurts_pods).map(|fault| fault.text.clone()).collect();
        if hurting.is_empty() {
            self.readiness.ready(Part::Runtime);
        } else {
            self.readiness.unready(Part::Runtime, hurting.join("; "));
        }
        let known = self.faults.borrow().clone().unwrap_or_default();
        for fault in faults.iter().filter(|fault| !known.contains(fault)) {
            warn!("{}", fault.text);
        }
        for fault in known.iter().filter(|fault| !faults.contains(fault)) {
            info!("it is no longer so that {}", fault.text);
        }
        tell(&self.faults, Some(faults));
    }
}

/// What operators are to know beside the reasons not to be ready.
pub(crate) fn remarks(faults: &watch::Receiver<Option<Vec<Fault>>>) -> Vec<String> {
    let faults = faults.borrow();
    let of_operators = faults.iter().flatten().filter(|fault| !fault.hurts_pods);
    of_operators.map(|fault| fault.text.clone()).collect()
}

#[cfg(test)]
mod tests;

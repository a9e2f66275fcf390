//! The tasks of this room, as the diagram in `crate::tasks` shows them.

use felix::routes::Routes;
use kernel::Kernel;
use tokio::sync::{mpsc, watch};
use tokio_util::task::TaskTracker;

use types::config::Config;

use super::addresses_task::OwnAddresses;
use super::events_task::EventsTask;
use super::object_task::NodeTask;
use super::runtime_task::RuntimeTask;
use super::{addresses, host};

/// The parts that the tasks of this room are made of.
pub(crate) struct NodeTasks {
    /// Finds the node's addresses again when they may have changed.
    pub(crate) addresses: OwnAddresses,
    /// Tends the node's place in Kubernetes.
    pub(crate) object: NodeTask,
    /// Looks after what the runtime plugs pods in by.
    pub(crate) runtime: RuntimeTask,
}

impl NodeTasks {
    /// Starts the tasks of this room.
    pub(crate) fn start(self, tracker: &TaskTracker) -> anyhow::Result<()> {
        let Self { addresses: own, object, runtime } = self;
        tracker.spawn(host::give_back_memory(object.readiness.clone()));
        tracker.spawn(own.follow(interface_changes()?, object.api.clone()));
        if let Some(api) = object.api.clone() {
            let faults = runtime.faults.subscribe();
            tracker.spawn(EventsTask { node: object.node.clone(), api, faults }.run());
        }
        tracker.spawn(runtime.run());
        tracker.spawn(object.run());
        Ok(())
    }
}

/// Tells of changes of interfaces from now on, in a thread that ends with whoever listens.
pub(crate) fn interface_changes() -> anyhow::Result<mpsc::Receiver<()>> {
    let (news, interfaces) = mpsc::channel(1);
    let events = addresses::subscribe()?;
    let watch_interfaces = move || addresses::watch_interfaces(events, &news);
    std::thread::Builder::new().name("interfaces".to_owned()).spawn(watch_interfaces)?;
    Ok(interfaces)
}

/// The MTU of pods' interfaces: configured, else that of the interfaces that carry next hops, before there is one the
/// smallest of the interfaces that are up.
pub(crate) fn mtu(
    config: &Config,
    routes: &Routes,
    kernel: &mut dyn Kernel,
    tracker: &TaskTracker,
) -> watch::Receiver<u32> {
    let (to, mtu) = watch::channel(host::mtu(config, kernel));
    if config.mtu.is_none() {
        tracker.spawn(host::follow_mtu(routes.mtu(), to));
    }
    mtu
}

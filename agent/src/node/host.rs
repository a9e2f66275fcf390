//! What the host has to offer: the MTU of its interfaces, settings that only an installer may change, memory.

use kernel::{Kernel, SysctlKey, ours};
use tokio::sync::watch;

use types::config::Config;

use super::readiness::Readiness;

/// The pods' MTU where neither configuration nor interfaces say another: Ethernet's.
const ETHERNET_MTU: u32 = 1_500;

/// The MTU of pods' interfaces at the start: configured, else the smallest of the interfaces that are up.
pub(crate) fn mtu(config: &Config, kernel: &mut dyn Kernel) -> u32 {
    let interface = kernel.links().ok().and_then(|links| {
        let physical = links.iter().filter(|link| link.up && link.name != "lo" && !ours::is_our_link(link));
        physical.map(|link| link.mtu).min()
    });
    config.mtu.or(interface).unwrap_or(ETHERNET_MTU)
}

/// Follows the MTU of the interfaces that carry next hops, which counts as soon as there is one.
pub(crate) async fn follow_mtu(mut found: watch::Receiver<Option<u32>>, to: watch::Sender<u32>) {
    while found.changed().await.is_ok() {
        if let Some(mtu) = *found.borrow_and_update() {
            to.send_replace(mtu);
        }
    }
}

/// What routing needs of the host and does not have, in words.
pub(crate) fn problems(kernel: &mut dyn Kernel) -> Vec<String> {
    let forwarding = ["ipv4/ip_forward", "ipv6/conf/all/forwarding"].into_iter().filter_map(|key| {
        match kernel.read_sysctl(&SysctlKey::global(key)) {
            Ok(value) if value == "0" => Some(format!("sysctl net/{key} is 0: this node does not forward")),
            _ => None,
        }
    });
    forwarding.collect()
}

/// What the first reading of everything took and does not need any more goes back to the system, once.
pub(crate) async fn give_back_memory(readiness: Readiness) {
    readiness.all_ready().await;
    let _ = tokio::task::spawn_blocking(kernel::memory::give_back).await;
}

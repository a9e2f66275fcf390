//! The last act: every agent is replaced under traffic.

use std::thread;
use std::time::{Duration, Instant};

use anyhow::ensure;
use tests::{Cluster, Place, Probe, ProbeReport};
use types::Family;

use super::objects::NAMESPACE;
use super::{SOON, kubectl};
use crate::demo::{seconds, title};
use crate::say;

/// How many datagrams each probe sends in a second.
const RATE: u32 = 250;

/// How long traffic goes on after the last agent is there: for what would go wrong late, such as routes that a peer drops
/// when it takes the restart to be over.
const AFTERWARDS: Duration = Duration::from_secs(5);

/// Shows the upgrade.
pub(super) fn show(cluster: &Cluster) -> anyhow::Result<()> {
    title(format_args!(
        "A rolling upgrade, under {} datagrams a second between the racks and from the host outside",
        4 * RATE
    ));
    let (near, far) = (cluster.pod(NAMESPACE, "customer")?, cluster.pod(NAMESPACE, "far")?);
    let host = cluster.external_host();
    let before = agents(cluster)?;
    let mut probes = Vec::new();
    for family in Family::ALL {
        let address = far.address(family);
        for from in [&near as &dyn Place, host] {
            let name = format!("{} > {}, {family}", from.name(), far.name());
            probes.push((name, Probe::start(from, &far, address, RATE)?));
        }
    }
    let begun = Instant::now();
    kubectl(cluster, &["rollout", "restart", "-n", "manx-system", "daemonset/manx-agent"])?;
    let within = format!("--timeout={}s", SOON.as_secs());
    kubectl(cluster, &["rollout", "status", "-n", "manx-system", "daemonset/manx-agent", &within])?;
    say(format_args!("  every agent is another one after {}", seconds(begun)));
    thread::sleep(AFTERWARDS);
    let mut lost_in_all = 0;
    for (name, probe) in probes {
        let ProbeReport { sent, lost, longest_silence, errors } = probe.finish();
        say(format_args!("  {name:<34} {sent:>6} sent, {lost} lost, longest silence {longest_silence:.0?}"));
        for (error, times) in errors {
            say(format_args!("    sending failed {times} times: {error}"));
        }
        lost_in_all += lost;
    }
    let after = agents(cluster)?;
    ensure!(before.iter().all(|agent| !after.contains(agent)), "an agent was not replaced: {before:?}, then {after:?}");
    ensure!(lost_in_all == 0, "{lost_in_all} datagrams were lost");
    Ok(())
}

/// The names of the agents' pods.
fn agents(cluster: &Cluster) -> anyhow::Result<Vec<String>> {
    cluster.machines().map(|machine| Ok(cluster.agent_pod(&machine.name())?)).collect()
}

//! The act of routes that are not whose they say: the router announces a pod's address, and nobody believes it.

use anyhow::{Context, ensure};
use serde_json::Value;
use tests::{Lab, Place, Probe, wait_for};
use types::{Family, Prefix};

use super::{CONVERGENCE, print, say, title};

/// Shows it.
pub(super) fn show(lab: &Lab) -> anyhow::Result<()> {
    title(format_args!("The router announces the address of node2/a as its own, under traffic from node1/a to it"));
    let (from, to) = (lab.pod("node1", "a")?, lab.pod("node2", "a")?);
    let (node, tor) = (lab.node("node1"), lab.node("tor").frr());
    let target = to.address(Family::Ipv4);
    let stolen = Prefix::host(target).to_string();
    let probe = Probe::start(&from, &to, target, 200)?;
    let network = |verb: &str| format!("{verb} {stolen}");
    let change = |verb: &str| {
        let network = network(verb);
        tor.configure(&["router bgp 64601", "no bgp network import-check", "address-family ipv4 unicast", &network])
    };
    say(format_args!("  tor(config-router-af)# {}", network("network")));
    change("network")?;
    wait_for("node1 refusing the route", CONVERGENCE, || {
        let said =
            node.agent().ctl(&["bgp", "routes", "--rejected", "-o", "json"]).map_err(|error| error.to_string())?;
        let routes: Vec<Value> = serde_json::from_str(&said).map_err(|error| error.to_string())?;
        let is_refused = routes.iter().any(|route| route["prefix"] == stolen.as_str());
        if is_refused { Ok(()) } else { Err(said) }
    })?;
    say(format_args!("  node1# manxctl bgp routes --rejected"));
    print(&node.agent().ctl(&["bgp", "routes", "--rejected"])?);
    let route = node.exec(&["ip", "route", "get", &target.to_string()]).context("the kernel's route")?;
    say(format_args!("  node1# ip route get {target}"));
    print(route.lines().next().unwrap_or_default());
    let exact = node.exec(&["ip", "route", "show", &stolen])?;
    ensure!(exact.trim().is_empty(), "node1's kernel has the router's route: {exact}");
    change("no network")?;
    let report = probe.finish();
    say(format_args!("  {} packets sent, {} lost", report.sent, report.lost));
    ensure!(report.lost == 0, "{} packets were lost", report.lost);
    Ok(())
}

//! Topologies as containerlab runs them: what comes late there, what its files say, and the real one.

use std::fs;
use std::path::Path;
use std::time::Duration;

use tests::containerlab::{Containerlab, can_run_containerlab};
use tests::{CONVERGENCE, Lab, Options, Place, TestResult, can_run_labs, topology_file, wait_for, wait_until};

/// A router that nothing but commands starts and configures, as development labs of other projects have it.
const BY_COMMANDS: &str = "
name: commands
topology:
  kinds:
    linux: { cmd: bash }
  nodes:
    router0:
      kind: linux
      image: frrouting/frr:v8.2.2
      exec:
      - ip address add 192.0.2.1/24 dev net0
      - ip route add blackhole 10.0.0.0/8
      - touch /etc/frr/vtysh.conf
      - sed -i -e 's/bgpd=no/bgpd=yes/g' /etc/frr/daemons
      - /usr/lib/frr/frrinit.sh start
      - >-
        vtysh -c 'conf t' -c 'router bgp 65000' -c ' bgp router-id 192.0.2.1' -c ' neighbor NODES peer-group'
        -c ' neighbor NODES remote-as external' -c ' neighbor 192.0.2.2 peer-group NODES'
    machine:
      kind: linux
      image: wbitt/network-multitool:3.22.2
      network-mode: bridge
      exec: [ip address add 192.0.2.2/24 dev net0]
  links:
  - endpoints: ['router0:net0', 'machine:net0']
";

/// A policy that lets nobody in to the pods of `app=closed`.
const CLOSED: &str = "
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: { name: closed, namespace: default }
spec:
  podSelector: { matchLabels: { app: closed } }
  policyTypes: [Ingress]
";

#[test]
fn an_agent_that_starts_before_its_link_waits_for_it_and_says_so() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let lab = Lab::up(&topology_file("mesh.clab.yml"), &Options::unique("late").without_agents())?;
    let node = lab.node("node1");
    node.exec(&["ip", "link", "set", "eth1", "down"])?;
    node.exec(&["ip", "address", "flush", "dev", "eth1"])?;
    let agent = node.agent();
    agent.start()?;
    let process = agent.process();
    let waits = |said: &str| said.contains("waits for") && said.contains("eth1");
    wait_until("the agent to say on its socket what it waits for", CONVERGENCE, || {
        agent.ctl(&["node", "status"]).is_ok_and(|said| waits(&said) && said.contains("NOT READY"))
    })?;
    let unready = agent.ready().err().unwrap_or_default();
    assert!(waits(&unready), "/readyz: {unready}");
    let log = fs::read_to_string(agent.log())?;
    assert!(waits(&log), "{log}");
    assert!(agent.metric("manx").is_err(), "there is nothing to measure yet");

    node.exec(&["ip", "address", "add", "172.31.1.3/31", "dev", "eth1"])?;
    node.exec(&["ip", "link", "set", "eth1", "up"])?;
    wait_until("the agent to wait for the other family alone", CONVERGENCE, || {
        agent.ready().is_err_and(|said| said.contains("ipv6"))
    })?;
    node.exec(&["ip", "address", "add", "fd00:31:1::3/127", "dev", "eth1"])?;
    agent.wait_ready(CONVERGENCE)?;
    assert_eq!(agent.process(), process, "it has waited, and not been started again");
    let said = agent.ctl(&["node", "status"])?;
    assert!(said.contains("172.31.1.3, fd00:31:1::3"), "{said}");
    Ok(lab.down()?)
}

#[test]
fn a_router_that_its_commands_start_and_configure_runs_as_they_say() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let file = Path::new(env!("CARGO_TARGET_TMPDIR")).join("commands.clab.yml");
    fs::write(&file, BY_COMMANDS)?;
    let lab = Lab::up(&file, &Options::unique("commands"))?;
    let router = lab.node("router0");
    let group = router.exec(&["vtysh", "-c", "show bgp neighbors 192.0.2.2"])?;
    assert!(group.contains("NODES"), "{group}");
    assert!(router.exec(&["ip", "route", "show", "type", "blackhole"])?.contains("10.0.0.0/8"));
    assert!(lab.node("machine").ping("192.0.2.1".parse()?));
    Ok(lab.down()?)
}

#[test]
#[ignore = "needs containerlab and Docker, which it runs in namespaces of its own, and minutes: ./run test --long"]
fn containerlab_itself_deploys_the_topologies_and_takes_them_down() -> TestResult {
    if !can_run_labs() || !can_run_containerlab() {
        return Ok(());
    }
    let containerlab = Containerlab::start(&Path::new(env!("CARGO_TARGET_TMPDIR")).join("containerlab"))?;
    let empty = containerlab.footprint()?;

    let mesh = containerlab.deploy("mesh.clab.yml")?;
    mesh.exec("node1", &["manxctl", "apply", "-f", "/etc/manx/resources.yaml"])?;
    for node in ["node1", "node2", "node3"] {
        wait_for(&format!("{node} to be ready with all of its sessions"), CONVERGENCE, || {
            let said = mesh.exec(node, &["manxctl", "node", "status"]).map_err(|error| error.to_string())?;
            // Two other nodes and the router, in both families.
            let established = said.matches(" established ").count();
            if established == 6 && !said.contains("NOT READY") { Ok(()) } else { Err(said) }
        })?;
    }
    for family in ["ipv4", "ipv6"] {
        let summary = mesh.exec("tor", &["vtysh", "-c", &format!("show bgp {family} unicast summary json")])?;
        assert_eq!(summary.matches("\"state\":\"Established\"").count(), 3, "{family}: {summary}");
    }

    let open = mesh.plug("node1", "open")?;
    let closed = mesh.plug("node2", "closed")?;
    for to in &closed.addresses {
        wait_until(&format!("node1/open to reach {to}"), CONVERGENCE, || open.ping(to))?;
    }
    for to in &open.addresses {
        wait_until(&format!("the host behind the router to reach {to}"), CONVERGENCE, || mesh.ping_from("client", to))?;
    }
    for host in ["192.0.2.10", "2001:db8:2::10"] {
        assert!(open.ping(host), "node1/open does not reach {host}");
    }
    mesh.apply("node3", CLOSED)?;
    for to in &closed.addresses {
        wait_until(&format!("the policy to hold for {to}"), CONVERGENCE, || {
            !open.ping(to) && !mesh.ping_from("client", to)
        })?;
    }
    for to in &open.addresses {
        assert!(closed.ping(to), "the policy has no egress, but {to} is not reached");
    }
    open.unplug()?;
    mesh.destroy()?;
    assert_eq!(containerlab.footprint()?, empty, "after mesh");

    let reflectors = containerlab.deploy("reflectors.clab.yml")?;
    reflectors.exec("rr1", &["manxctl", "apply", "-f", "/etc/manx/resources.yaml"])?;
    for node in ["node1", "node2", "node3", "node4"] {
        wait_for(&format!("{node} to have both reflectors"), CONVERGENCE, || {
            let said = reflectors.exec(node, &["manxctl", "node", "status"]).map_err(|error| error.to_string())?;
            if said.matches(" established ").count() == 4 { Ok(()) } else { Err(said) }
        })?;
    }
    reflectors.destroy()?;

    let policy = containerlab.deploy("policy.clab.yml")?;
    for node in ["node1", "node2"] {
        wait_for(&format!("{node} to be ready"), CONVERGENCE, || {
            let said = policy.exec(node, &["manxctl", "node", "status"]).map_err(|error| error.to_string())?;
            if said.matches(" established ").count() == 2 && !said.contains("NOT READY") { Ok(()) } else { Err(said) }
        })?;
    }
    policy.destroy()?;

    let racks = containerlab.deploy("racks.clab.yml")?;
    for address in ["172.31.2.12", "fd00:31:2::12"] {
        wait_until(&format!("the client to reach {address} in its rack"), CONVERGENCE, || {
            racks.ping_from("client", address)
        })?;
    }
    racks.destroy()?;
    assert_eq!(containerlab.footprint()?, empty, "after all");
    Ok(containerlab.end(Duration::from_secs(20))?)
}

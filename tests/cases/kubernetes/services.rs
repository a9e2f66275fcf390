//! Services as kube-proxy carries them over Manx's network, and what policies make of who asks.
//!
//! Every way to a server is tried under every policy. Whom the server sees and whom its policies judge are columns of one
//! table, that of `docs/services.md`.

use std::collections::BTreeMap;
use std::net::{AddrParseError, IpAddr, SocketAddr};
use std::thread;

use serde_json::{Value, json};
use tests::{Cluster, ClusterPod, LabError, Machine, Place, TestResult, wait_for};
use types::Family;
use types::policy::{Explanation, Judgement};

use crate::pods::{self, server};
use crate::{SOON, shared};

/// The port of the server, the port of its Services, and the port of its node that leads to it.
const PORT: u16 = 8080;
const SERVICE_PORT: u16 = 80;
const HOST_PORT: u16 = 9080;

/// The host behind the fabric.
const HOST: [&str; 2] = ["192.0.2.10", "2001:db8:2::10"];

/// The node of the server, and a node of the other rack.
const HERE: &str = "node1";
const THERE: &str = "node2";

#[test]
fn kube_proxy_by_iptables_carries_services_and_policies_judge_whom_the_docs_say() -> TestResult {
    let Some(cluster) = shared::alongside("services")? else { return Ok(()) };
    are_carried_and_judged(&cluster, &cluster.namespace)
}

/// Tests all ways to a server, in the proxy mode of the cluster.
pub(crate) fn are_carried_and_judged(cluster: &Cluster, namespace: &str) -> TestResult {
    let scene = Scene::set(cluster, namespace)?;
    let mut ways = scene.ways(Family::Ipv4)?;
    ways.extend(scene.ways(Family::Ipv6)?);
    wait_for("every way to the server", SOON, || follow(&ways, |_| true))?;

    let (host, far) = (host()?, Family::ALL.map(|family| scene.far.address(family)));
    let there = cluster.machine(THERE);
    let there = [there.address(Family::Ipv4)?, there.address(Family::Ipv6)?];
    let blocks = |addresses: &[IpAddr]| -> Value {
        let whole = |address: &IpAddr| if address.is_ipv4() { 32 } else { 128 };
        let block = |address| json!({ "ipBlock": { "cidr": format!("{address}/{}", whole(address)) } });
        json!([{ "from": addresses.iter().map(block).collect::<Vec<_>>() }])
    };
    let port = |port: u16| json!([{ "ports": [{ "port": port }] }]);
    let labelled = json!([{ "from": [{ "podSelector": { "matchLabels": { "app": "far" } } }] }]);
    scene.is_judged(&ways, "the host outside", &blocks(&host), |who| host.contains(&who))?;
    let words = scene.explained(host[0], &[])?;
    let named = format!(
        "denied where it comes by a Service with externalTrafficPolicy Cluster and enters at {THERE} ({}",
        there[0]
    );
    assert!(words.contains(&named), "{words}");
    scene.is_judged(&ways, "the other node", &blocks(&there), |who| there.contains(&who))?;
    scene.is_judged(&ways, "pods with a label", &labelled, |who| far.contains(&who))?;
    scene.is_judged(&ways, "everybody at the pod's port", &port(PORT), |_| true)?;
    scene.is_judged(&ways, "everybody at the Service's port", &port(SERVICE_PORT), |_| false)?;
    Ok(())
}

/// A server and its Services, and pods that ask.
struct Scene<'a> {
    cluster: &'a Cluster,
    namespace: &'a str,
    /// The server, to which a port of its node leads.
    server: ClusterPod,
    /// A pod on the server's node.
    near: ClusterPod,
    /// A pod on the other node.
    far: ClusterPod,
    /// The Services, by their `externalTrafficPolicy`.
    services: BTreeMap<&'static str, Value>,
}

/// A way to the server.
struct Way<'a> {
    name: &'static str,
    from: &'a dyn Place,
    to: SocketAddr,
    /// The addresses of which the server sees one. If there are none, it is not reached, whatever the policies.
    sees: Vec<IpAddr>,
    /// The address that the server's policies judge; none if they judge nobody, as it is the server itself or its node.
    judged: Option<IpAddr>,
}

impl<'a> Scene<'a> {
    fn set(cluster: &'a Cluster, namespace: &'a str) -> Result<Self, Box<dyn std::error::Error>> {
        let mut pod = server(namespace, "server", HERE);
        pod["spec"]["containers"][0]["ports"] = json!([{ "containerPort": PORT, "hostPort": HOST_PORT }]);
        cluster.apply(&pod.to_string())?;
        let mut services = BTreeMap::new();
        for policy in ["Cluster", "Local"] {
            let name = policy.to_lowercase();
            let service = json!({
                "apiVersion": "v1", "kind": "Service", "metadata": { "name": name, "namespace": namespace },
                "spec": {
                    "type": "NodePort", "externalTrafficPolicy": policy, "ipFamilyPolicy": "RequireDualStack",
                    "selector": { "app": "server" }, "ports": [{ "port": SERVICE_PORT, "targetPort": PORT }],
                },
            });
            cluster.apply(&service.to_string())?;
            services.insert(policy, cluster.get(&["service", "-n", namespace, &name])?);
        }
        pods::start(cluster, namespace, &[("near", HERE), ("far", THERE)])?;
        pods::wait_ready(cluster, namespace, &["server"])?;
        let pod = |name| cluster.pod(namespace, name);
        Ok(Self { cluster, namespace, server: pod("server")?, near: pod("near")?, far: pod("far")?, services })
    }

    /// The table of all ways to the server.
    fn ways(&self, family: Family) -> Result<Vec<Way<'_>>, Box<dyn std::error::Error>> {
        let (here, there) = (self.cluster.machine(HERE), self.cluster.machine(THERE));
        let (to_here, to_there) = (here.address(family)?, there.address(family)?);
        // Packets that kube-proxy hides leave with an address of the node that the kernel chooses, as pods' interfaces
        // have none.
        let any_of_here = all_addresses(here)?;
        let near = self.near.address(family);
        let far = self.far.address(family);
        let host = host()?[usize::from(family == Family::Ipv6)];
        let (cluster, local) = (self.cluster_ip("Cluster", family)?, self.cluster_ip("Local", family)?);
        let (node_port, local_port) = (self.node_port("Cluster")?, self.node_port("Local")?);
        let outside: &dyn Place = self.cluster.external_host();
        let way = |name, from, (address, port): (IpAddr, u16), sees: &[IpAddr], judged| Way {
            name,
            from,
            to: SocketAddr::new(address, port),
            sees: sees.to_vec(),
            judged,
        };
        let same = |name, from, to, who| way(name, from, to, &[who], Some(who));
        let at = |address| (address, SERVICE_PORT);
        let pod = (self.server.address(family), PORT);
        Ok(vec![
            same("a pod of its node, to the Service", &self.near, at(cluster), near),
            same("a pod of the other rack, to the Service", &self.far, at(cluster), far),
            same("a pod of the other rack, to the Service with Local", &self.far, at(local), far),
            way("the server, to its own Service", &self.server, at(cluster), &any_of_here, None),
            way("its node, to the pod", here.node(), pod, &[to_here], None),
            way("its node, to the Service", here.node(), at(cluster), &any_of_here, None),
            same("another node, to the pod", there.node(), pod, to_there),
            same("another node, to the Service", there.node(), at(cluster), to_there),
            way("outside, to the NodePort of its node", outside, (to_here, node_port), &any_of_here, Some(host)),
            way("outside, to the NodePort of another", outside, (to_there, node_port), &[to_there], Some(to_there)),
            same("outside, to the NodePort of its node, Local", outside, (to_here, local_port), host),
            way("outside, to the NodePort of another, Local", outside, (to_there, local_port), &[], Some(host)),
            way(
                "a pod, to the NodePort of the server's node",
                &self.far,
                (to_here, node_port),
                &any_of_here,
                Some(far),
            ),
            way(
                "a pod, to the NodePort of its own node",
                &self.far,
                (to_there, node_port),
                &[to_there],
                Some(to_there),
            ),
            same("outside, to the host port", outside, (to_here, HOST_PORT), host),
            same("another node, to the host port", there.node(), (to_here, HOST_PORT), to_there),
        ])
    }

    fn cluster_ip(&self, policy: &str, family: Family) -> Result<IpAddr, Box<dyn std::error::Error>> {
        let addresses = self.services[policy]["spec"]["clusterIPs"].as_array().into_iter().flatten();
        let mut addresses = addresses.filter_map(|address| address.as_str()?.parse::<IpAddr>().ok());
        addresses
            .find(|address| Family::of(*address) == family)
            .ok_or_else(|| format!("no {family} of {policy}").into())
    }

    fn node_port(&self, policy: &str) -> Result<u16, Box<dyn std::error::Error>> {
        let port = self.services[policy].pointer("/spec/ports/0/nodePort").and_then(Value::as_u64);
        Ok(u16::try_from(port.ok_or("no node port")?)?)
    }

    /// Replaces the policy on the server, and waits until every way is open or shut as the policy says and manxctl says
    /// the same.
    fn is_judged(
        &self,
        ways: &[Way<'_>],
        admitted: &str,
        ingress: &Value,
        admits: impl Fn(IpAddr) -> bool + Sync,
    ) -> TestResult {
        let policy = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": "server", "namespace": self.namespace },
            "spec": { "podSelector": { "matchLabels": { "app": "server" } }, "ingress": ingress },
        });
        self.cluster.apply(&policy.to_string())?;
        wait_for(&format!("a policy that admits {admitted}"), SOON, || follow(ways, &admits))?;
        let judgement = |who| if admits(who) { Judgement::Allowed } else { Judgement::Denied };
        let mut others: Vec<Machine<'_>> = self.cluster.machines().filter(|machine| machine.name() != HERE).collect();
        others.sort_by_key(|machine| machine.name());
        for host in host()? {
            let said: Explanation = serde_json::from_str(&self.explained(host, &["-o", "json"])?)?;
            assert_eq!(said.verdict, judgement(host), "{admitted}: {said:?}");
            let entries: Vec<_> = said.entries.iter().map(|it| (it.node.to_string(), it.address, it.verdict)).collect();
            let expected = others.iter().map(|machine| Ok((machine.name(), machine.address(Family::of(host))?)));
            let expected: Vec<_> = expected.collect::<Result<Vec<_>, LabError>>()?;
            let expected: Vec<_> =
                expected.into_iter().map(|(name, address)| (name, address, judgement(address))).collect();
            assert_eq!(entries, expected, "{admitted}");
        }
        Ok(())
    }

    /// What `manxctl policy explain` says of a client that asks the server.
    fn explained(&self, source: IpAddr, words: &[&str]) -> Result<String, LabError> {
        let (source, target) = (source.to_string(), self.server.address(Family::of(source)).to_string());
        let port = PORT.to_string();
        let agent = self.cluster.agent_pod(HERE)?;
        let line = ["exec", "-n", "manx-system", &agent, "-c", "agent", "--", "manxctl", "policy", "explain"];
        let line = [&line[..], &[&source, &target, "--port", &port], words].concat();
        // The exit status of the command tells the verdict.
        Ok(self.cluster.try_kubectl(&line)?.stdout)
    }
}

/// Tries all ways at once; an error names those that are not as they should be for the clients that are admitted.
fn follow(ways: &[Way<'_>], admits: impl Fn(IpAddr) -> bool + Sync) -> Result<(), String> {
    let wrong = |way: &Way<'_>| {
        let answer = way.from.http_get(way.to, "/clientip");
        let seen = answer.as_ref().ok().and_then(|answer| answer.body.parse::<SocketAddr>().ok()).map(|seen| seen.ip());
        let is_open = !way.sees.is_empty() && way.judged.is_none_or(&admits);
        let is_right = match seen {
            Some(seen) => is_open && way.sees.contains(&seen),
            None => !is_open && answer.is_err(),
        };
        (!is_right).then(|| format!("{} ({} at {}): {answer:?}", way.name, way.from.name(), way.to))
    };
    let wrong: Vec<String> = thread::scope(|scope| {
        let ways: Vec<_> = ways.iter().map(|way| scope.spawn(|| wrong(way))).collect();
        ways.into_iter().filter_map(|way| way.join().unwrap_or_else(|_| Some("a thread panicked".to_owned()))).collect()
    });
    if wrong.is_empty() { Ok(()) } else { Err(wrong.join("; ")) }
}

fn host() -> Result<[IpAddr; 2], AddrParseError> {
    Ok([HOST[0].parse()?, HOST[1].parse()?])
}

/// All addresses that others know a machine by, also those of the management network.
fn all_addresses(machine: Machine<'_>) -> Result<Vec<IpAddr>, Box<dyn std::error::Error>> {
    let links = machine.node().exec(&["ip", "-json", "address", "show", "scope", "global"])?;
    let links: Vec<Value> = serde_json::from_str(&links)?;
    let addresses = links.iter().flat_map(|link| link["addr_info"].as_array().into_iter().flatten());
    Ok(addresses.filter_map(|address| address["local"].as_str()?.parse().ok()).collect())
}

//! `manx-lab demo k8s`: a Kubernetes cluster from nothing to a rolling upgrade.
//!
//! Every step checks what it shows. A step that fails says so, and the cluster is taken down as it is at the end.

mod objects;
mod upgrade;

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use tests::{Cluster, ClusterOptions, Network, Node, Output, Peering, Place, images_folder, wait_for};
use types::Family;

use self::objects::NAMESPACE;
use super::{CONVERGENCE, HOST, print, seconds, title};
use crate::say;

/// The folder of manifests that Manx is deployed from.
const MANIFESTS: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/../manifests");

/// How long nodes and pods may take on a busy machine.
const SOON: Duration = Duration::from_secs(180);

/// How often the customer asks the Service, and the host the LoadBalancer address.
const QUESTIONS: u32 = 12;

/// Runs the demonstration.
pub(crate) fn run(name: &str) -> anyhow::Result<()> {
    let begun = Instant::now();
    let image = images_folder()?.join("manx-agent.tar");
    ensure!(
        image.exists(),
        "the agent's image is not built: there is no {} (./run demo k8s makes it)",
        image.display()
    );
    title(format_args!(
        "A Kubernetes cluster without a network: two racks, each behind its own router, and a host outside"
    ));
    let options = ClusterOptions::default().named(name).network(Network::None);
    let options = options.progress(|step| say(format_args!("  {step}")));
    let cluster = Cluster::up(&options).context("bringing the cluster up")?;
    let shown = show(&cluster);
    if shown.is_err() {
        for namespace in ["manx-system", NAMESPACE] {
            say(format_args!("\nIn the namespace {namespace}:"));
            print(&cluster.diagnosis(namespace));
        }
    }
    title(format_args!("Taking everything down"));
    cluster.down().context("taking the cluster down")?;
    shown?;
    say(format_args!("  done: {:.1} s in all", begun.elapsed().as_secs_f64()));
    Ok(())
}

fn show(cluster: &Cluster) -> anyhow::Result<()> {
    deploy(cluster).context("deploying Manx")?;
    peer(cluster).context("peering with the racks' routers")?;
    service(cluster).context("a Deployment and its Service")?;
    blocks(cluster).context("the routers' view of the blocks")?;
    balance(cluster).context("the LoadBalancer address")?;
    policy(cluster).context("the policy")?;
    upgrade::show(cluster).context("the upgrade")?;
    Ok(())
}

/// Runs kubectl and shows the command and what it says.
fn kubectl(cluster: &Cluster, words: &[&str]) -> anyhow::Result<String> {
    say(format_args!("  $ kubectl {}", words.join(" ")));
    let said = cluster.kubectl(words)?;
    print(&said);
    Ok(said)
}

/// Applies a manifest, and shows both it and what kubectl says.
fn apply(cluster: &Cluster, manifest: &str) -> anyhow::Result<()> {
    print(manifest);
    say(format_args!("  $ kubectl apply -f -"));
    print(&cluster.apply(manifest)?);
    Ok(())
}

fn deploy(cluster: &Cluster) -> anyhow::Result<()> {
    let nodes = kubectl(cluster, &["get", "nodes", "-L", "rack"])?;
    ensure!(nodes.lines().skip(1).all(|line| line.contains(" NotReady ")), "a node is Ready without a network");
    title(format_args!("Deploying Manx, as any user does"));
    let begun = Instant::now();
    say(format_args!("  $ kubectl apply -k manifests/"));
    print(&cluster.kubectl(&["apply", "-k", MANIFESTS])?);
    cluster.wait_rollout("manx-system", "daemonset/manx-agent", SOON)?;
    cluster.wait_nodes_ready(SOON)?;
    say(format_args!("  every node is Ready {} after that", seconds(begun)));
    kubectl(cluster, &["get", "nodes", "-L", "rack"])?;
    kubectl(cluster, &["get", "pods", "-n", "manx-system", "-o", "wide"])?;
    Ok(())
}

fn peer(cluster: &Cluster) -> anyhow::Result<()> {
    title(format_args!("Peering: one AS per rack, each node with its rack's router, no mesh; and addresses of IPv6"));
    cluster.add_ipv6()?;
    cluster.peer(Peering::RackAs)?;
    for machine in cluster.machines() {
        let name = machine.name();
        let status = wait_for(&format!("the sessions of {name}"), CONVERGENCE, || {
            let status = cluster.manxctl(&name, &["node", "status"]).map_err(|error| error.to_string())?;
            // There is one session per family, and none with another node.
            if status.matches(" established ").count() == 2 { Ok(status) } else { Err(status) }
        })?;
        say(format_args!("  {name}# manxctl node status"));
        print(&status);
    }
    cluster.wait_rollout("kube-system", "deployment/coredns", SOON)?;
    Ok(())
}

fn service(cluster: &Cluster) -> anyhow::Result<()> {
    title(format_args!("A Deployment with a pod in each rack, and its Service"));
    say(format_args!("  $ kubectl apply -f workload.yaml"));
    print(&cluster.apply(&objects::workload())?);
    cluster.wait_rollout(NAMESPACE, "deployment/web", SOON)?;
    let within = format!("--timeout={}s", SOON.as_secs());
    cluster.kubectl(&["wait", "-n", NAMESPACE, "pod", "--all", "--for=condition=Ready", &within])?;
    kubectl(cluster, &["get", "pods", "-n", NAMESPACE, "-o", "wide"])?;
    kubectl(cluster, &["get", "service", "-n", NAMESPACE])?;

    title(format_args!("The customer, in rack 1, resolves the Service and asks it {QUESTIONS} times who answers"));
    let name = format!("web.{NAMESPACE}.svc.cluster.local");
    wait_for("the Service by its name", CONVERGENCE, || ask(cluster, 1).map_err(|error| format!("{error:#}")))?;
    kubectl(cluster, &["exec", "-n", NAMESPACE, "customer", "--", "nslookup", &name])?;
    tell_answers(cluster, &ask(cluster, QUESTIONS)?)?;

    let (customer, web) = (cluster.pod(NAMESPACE, "customer")?, web_in(cluster, "2")?);
    let web = cluster.pod(NAMESPACE, &web)?;
    let far = web.address(Family::Ipv4).to_string();
    say(format_args!("  The way from {} to {}:", customer.name(), web.name()));
    let way = ["traceroute", "-n", "-q", "1", "-w", "2", "-m", "8", &far];
    let way = kubectl(cluster, &[["exec", "-n", NAMESPACE, "customer", "--"].as_slice(), &way].concat())?;
    // The router of its rack, and the last hop.
    ensure!(way.contains(" 172.31.1.1 "), "the way does not lead over the router of rack 1");
    ensure!(way.lines().last().is_some_and(|hop| hop.contains(&far)), "the way does not end at the pod");
    for family in Family::ALL {
        let address = web.address(family);
        ensure!(customer.ping(address), "{address} does not answer the customer");
        ensure!(cluster.external_host().ping(address), "{address} does not answer the host outside");
        say(format_args!("  {address} answers the customer, and the host outside the cluster"));
    }
    Ok(())
}

/// The names of those who answer the customer at the Service, for this many questions: the customer's own server asks,
/// as the host outside tells it to.
fn ask(cluster: &Cluster, times: u32) -> anyhow::Result<Vec<String>> {
    let customer = SocketAddr::new(cluster.pod(NAMESPACE, "customer")?.address(Family::Ipv4), 8080);
    let path = format!("/dial?host=web&port=80&request=hostname&tries={times}");
    let said = get(cluster.external_host(), customer, &path)?;
    let answers: BTreeMap<String, Vec<String>> = serde_json::from_str(&said).with_context(|| said.clone())?;
    if let Some(errors) = answers.get("errors") {
        bail!("{}", errors.join("; "));
    }
    if times > 1 {
        say(format_args!("  host# curl 'http://{customer}{path}'"));
        print(&said);
    }
    answers.get("responses").cloned().context("nobody has answered")
}

/// Whether a pod can connect to a target.
fn connects(cluster: &Cluster, pod: &str, target: &str) -> anyhow::Result<Output> {
    let line = ["exec", "-n", NAMESPACE, pod, "--", "/agnhost", "connect", target, "--timeout=3s"];
    Ok(cluster.try_kubectl(&line)?)
}

/// Shows how often each web server has answered; both must have.
fn tell_answers(cluster: &Cluster, answers: &[String]) -> anyhow::Result<()> {
    let mut counts: BTreeMap<&str, u32> = BTreeMap::new();
    for answer in answers {
        *counts.entry(answer).or_default() += 1;
    }
    for (pod, count) in &counts {
        let node = node_of(cluster, pod)?;
        let rack = rack_of(cluster, &node)?;
        say(format_args!("    {pod} on {node}, rack {rack}: {count} of {} answers", answers.len()));
    }
    ensure!(counts.len() == 2, "not both web servers have answered");
    Ok(())
}

fn node_of(cluster: &Cluster, pod: &str) -> anyhow::Result<String> {
    Ok(cluster.kubectl(&["get", "pod", "-n", NAMESPACE, pod, "-o", "jsonpath={.spec.nodeName}"])?)
}

fn rack_of(cluster: &Cluster, node: &str) -> anyhow::Result<String> {
    let labels = &cluster.lab().find_node(node)?.spec().labels;
    labels.get("rack").cloned().with_context(|| format!("{node} is in no rack"))
}

/// The web server of a rack.
fn web_in(cluster: &Cluster, rack: &str) -> anyhow::Result<String> {
    let pods = cluster.kubectl(&["get", "pods", "-n", NAMESPACE, "-l", "app=web", "-o", "name"])?;
    for pod in pods.lines().filter_map(|line| line.strip_prefix("pod/")) {
        if rack_of(cluster, &node_of(cluster, pod)?)? == rack {
            return Ok(pod.to_owned());
        }
    }
    bail!("there is no web server in rack {rack}")
}

fn blocks(cluster: &Cluster) -> anyhow::Result<()> {
    title(format_args!("The blocks of addresses: who has which, and what the routers know of it"));
    say(format_args!("  node1# manxctl ipam show --show-blocks"));
    print(&cluster.manxctl("node1", &["ipam", "show", "--show-blocks"])?);
    for name in ["tor1", "spine"] {
        let router = cluster.node(name);
        for (command, range) in [("show ip route bgp", "10.42."), ("show ipv6 route bgp", "fd00:42:")] {
            routes(router, command, range)?;
        }
    }
    Ok(())
}

/// Shows the routes of a router to what begins with `range`; it is an error if there are none.
fn routes(router: &Node, command: &str, range: &str) -> anyhow::Result<String> {
    let text = router.frr().vtysh(command)?;
    let mut wanted = false;
    let mut shown = Vec::new();
    for line in text.lines() {
        // Further ways of a route are on the lines below its first one; the legend has no such line.
        if line.starts_with('B') {
            wanted = line.contains(&format!(" {range}"));
        } else if !line.trim_start().starts_with('*') {
            wanted = false;
        }
        if wanted {
            shown.push(line);
        }
    }
    let shown = shown.join("\n");
    say(format_args!("  {}# {command}", router.name()));
    print(&shown);
    ensure!(!shown.is_empty(), "{} has no route to {range}", router.name());
    Ok(shown)
}

fn balance(cluster: &Cluster) -> anyhow::Result<()> {
    title(format_args!("A Service of type LoadBalancer: an address of a pool, and BGP tells where its pods are"));
    print(objects::ADDRESSES);
    say(format_args!("  $ manxctl apply -f -"));
    print(&cluster.apply_resources(objects::ADDRESSES)?);
    apply(cluster, objects::BALANCED)?;
    let address: IpAddr = wait_for("the Service having an address", CONVERGENCE, || {
        let path = "jsonpath={.status.loadBalancer.ingress[0].ip}";
        let said = cluster.kubectl(&["get", "service", "-n", NAMESPACE, "shop", "-o", path]);
        let said = said.map_err(|error| error.to_string())?;
        said.parse().map_err(|error| format!("{said:?}: {error}"))
    })?;
    kubectl(cluster, &["get", "service", "-n", NAMESPACE, "shop"])?;
    let (spine, single) = (cluster.node("spine"), format!("{address}/32"));
    wait_for("the spine's ways to both racks", CONVERGENCE, || {
        let said = spine.exec(&["ip", "route", "show", &single]).map_err(|error| error.to_string())?;
        if said.contains("dev tor1") && said.contains("dev tor2") { Ok(()) } else { Err(said) }
    })?;
    routes(spine, "show ip route bgp", &single)?;
    for name in ["tor1", "tor2"] {
        routes(cluster.node(name), "show ip route bgp", &single)?;
    }
    title(format_args!("The host outside asks http://{address} {QUESTIONS} times who answers, and whom it sees"));
    let host = cluster.external_host();
    let target = SocketAddr::new(address, 80);
    let answers: Vec<String> = (0..QUESTIONS).map(|_| get(host, target, "/hostname")).collect::<anyhow::Result<_>>()?;
    tell_answers(cluster, &answers)?;
    let client = get(host, target, "/clientip")?;
    say(format_args!("  The pod sees the client {client}: with externalTrafficPolicy Local nobody hides its address."));
    let [own, _] = HOST;
    ensure!(client.starts_with(&format!("{own}:")), "the pod sees another client");
    Ok(())
}

/// What a node of the topology gets by HTTP from a target.
fn get(from: &Node, target: SocketAddr, path: &str) -> anyhow::Result<String> {
    let answer = from.http_get(target, path).with_context(|| format!("{} asking {target}{path}", from.name()))?;
    ensure!(answer.status == 200, "{target}{path} answers with status {}", answer.status);
    Ok(answer.body)
}

fn policy(cluster: &Cluster) -> anyhow::Result<()> {
    title(format_args!("A NetworkPolicy: the web servers take from customers and from the host outside"));
    let stranger = || connects(cluster, "stranger", "web:80");
    ensure!(stranger()?.status.success(), "the stranger is not answered before there is a policy");
    say(format_args!("  $ kubectl exec -n {NAMESPACE} stranger -- /agnhost connect web:80 --timeout=3s"));
    say(format_args!("  before, that connects"));
    apply(cluster, objects::POLICY)?;
    let begun = Instant::now();
    let said = wait_for("the policy being in force", CONVERGENCE, || match stranger() {
        Ok(output) if output.status.success() => Err("the stranger is answered".to_owned()),
        output => output.map(|output| output.stderr).map_err(|error| error.to_string()),
    })?;
    say(format_args!("  and {} later, with the time of trying:", seconds(begun)));
    print(&said);
    let web = web_in(cluster, "2")?;
    let addresses = cluster.pod(NAMESPACE, &web)?;
    for family in Family::ALL {
        let target = SocketAddr::new(addresses.address(family), 8080);
        let cut = connects(cluster, "stranger", &target.to_string())?;
        ensure!(!cut.status.success(), "the stranger is answered by {target}");
        let admitted = connects(cluster, "customer", &target.to_string())?;
        ensure!(admitted.status.success(), "the customer is not answered by {target}: {}", admitted.stderr);
        get(cluster.external_host(), target, "/hostname").context("the host outside")?;
        say(format_args!("  {target}: stranger cut, customer and host outside answered"));
    }

    let (stranger, web) = (format!("{NAMESPACE}/stranger"), format!("{NAMESPACE}/{web}"));
    let words = ["policy", "explain", &stranger, &web, "--port", "8080", "--protocol", "tcp"];
    title(format_args!("Why? manxctl {}", words.join(" ")));
    let pod = cluster.agent_pod("node1")?;
    let manxctl = ["exec", "-n", "manx-system", &pod, "-c", "agent", "--", "manxctl"];
    let explained = cluster.try_kubectl(&[&manxctl, words.as_slice()].concat())?;
    print(&explained.stdout);
    ensure!(explained.status.code() == Some(1), "explain does not say that it is denied: {}", explained.stderr);
    ensure!(explained.stdout.contains("web-for-customers"), "the policy that denies is not named");
    Ok(())
}

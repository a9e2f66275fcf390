//! Pods that are created at once, with a clock.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, BufRead, BufReader, Write};
use std::net::{IpAddr, SocketAddr, TcpStream};
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{self, Receiver, RecvTimeoutError, Sender};
use std::thread;
use std::time::{Duration, Instant};

use ::tests::{AGNHOST_IMAGE, Cluster, Place, run_in};
use anyhow::{Context, bail, ensure};
use serde_json::{Value, json};

/// The port on which pods answer.
const PORT: u16 = 8080;

/// How many addresses a pod has: one of each family.
const ADDRESSES: usize = 2;

/// How long it may take until all pods are usable.
const BURST_TIME_LIMIT: Duration = Duration::from_secs(600);

/// How long one attempt to reach a pod may take, and how long to wait after one that failed at once.
const ATTEMPT: Duration = Duration::from_millis(250);
const AGAIN: Duration = Duration::from_millis(20);

/// The line that the watch prints of a pod: its name, whether it is ready, its addresses.
const COLUMNS: &str =
    r#"jsonpath={.metadata.name} {.status.conditions[?(@.type=="Ready")].status} {.status.podIPs[*].ip}{"\n"}"#;

/// How long the pods took, in seconds since `kubectl create` began.
#[derive(Debug)]
pub(crate) struct Burst {
    /// For each pod, the time until the API server knew that it was ready.
    pub(crate) ready: Vec<f64>,
    /// For each pod, in the same order, the time until all its addresses answered the host behind the fabric.
    pub(crate) reached: Vec<f64>,
}

impl Burst {
    /// For each pod, the time until it was ready and reached.
    pub(crate) fn usable(&self) -> Vec<f64> {
        self.ready.iter().zip(&self.reached).map(|(ready, reached)| ready.max(*reached)).collect()
    }

    /// The time until all pods were usable.
    pub(crate) fn all(&self) -> f64 {
        self.usable().into_iter().fold(0.0, f64::max)
    }
}

/// Creates so many pods in a namespace of their own, spread over the machines, and waits until they are usable.
pub(crate) fn burst(cluster: &Cluster, namespace: &str, count: usize) -> anyhow::Result<Burst> {
    cluster.kubectl(&["create", "namespace", namespace])?;
    cluster.kubectl(&["wait", "-n", namespace, "--for=create", "serviceaccount/default", "--timeout=60s"])?;
    let machines: Vec<String> = cluster.machines().map(::tests::Machine::name).collect();
    let pods = machines.iter().cycle().take(count).enumerate();
    let pods: Vec<Value> = pods.map(|(number, machine)| pod(namespace, number, machine)).collect();
    let list = json!({ "apiVersion": "v1", "kind": "List", "items": pods }).to_string();

    let (events, seen) = mpsc::channel();
    let prober =
        Prober { netns: Arc::new(cluster.external_host().netns()?), stop: Arc::default(), events: events.clone() };
    let _watch = Watch::start(cluster, namespace, events)?;
    let begun = Instant::now();
    create(cluster, &list)?;
    let times = collect(&seen, &prober, count, begun + BURST_TIME_LIMIT);
    prober.stop.store(true, Ordering::Relaxed);
    let since = |time: Instant| time.saturating_duration_since(begun).as_secs_f64();
    let times = times.with_context(|| format!("pods of {namespace}"))?;
    Ok(Burst {
        ready: times.iter().map(|(ready, _)| since(*ready)).collect(),
        reached: times.iter().map(|(_, reached)| since(*reached)).collect(),
    })
}

/// A small server that is ready when the kubelet has reached it.
fn pod(namespace: &str, number: usize, node: &str) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": { "name": format!("pod-{number}"), "namespace": namespace },
        "spec": {
            "nodeName": node,
            "terminationGracePeriodSeconds": 1,
            "automountServiceAccountToken": false,
            "enableServiceLinks": false,
            "containers": [{
                "name": "c", "image": AGNHOST_IMAGE, "args": ["netexec", format!("--http-port={PORT}")],
                // The pod is probed until it is ready and not again: a hundred pods asked every second are work of
                // their own.
                "startupProbe": { "httpGet": { "path": "/healthz", "port": PORT }, "periodSeconds": 1, "failureThreshold": 600 },
            }],
        },
    })
}

fn create(cluster: &Cluster, list: &str) -> anyhow::Result<()> {
    let mut command = cluster.kubectl_command()?;
    command.args(["create", "--validate=false", "-f", "-"]).stdin(Stdio::piped()).stdout(Stdio::null());
    let mut child = command.spawn().context("running kubectl create")?;
    if let Some(mut pipe) = child.stdin.take() {
        pipe.write_all(list.as_bytes()).context("telling kubectl the pods")?;
    }
    let status = child.wait().context("waiting for kubectl create")?;
    ensure!(status.success(), "kubectl create: {status}");
    Ok(())
}

/// What happened to a pod.
enum Event {
    /// The API server has told of the pod.
    Told(Instant, Told),
    /// All addresses of the pod have answered.
    Reached(Instant, String),
}

/// A line that the watch printed.
#[derive(Debug, PartialEq)]
struct Told {
    name: String,
    ready: bool,
    addresses: Vec<IpAddr>,
}

impl Told {
    /// The value is none while the pod has no conditions.
    fn parse(line: &str) -> Option<Self> {
        let mut words = line.split_whitespace();
        let name = words.next()?.to_owned();
        let ready = words.next()? == "True";
        Some(Self { name, ready, addresses: words.filter_map(|word| word.parse().ok()).collect() })
    }
}

/// A kubectl that tells of every change; ended when this is dropped.
struct Watch(Child);

impl Watch {
    fn start(cluster: &Cluster, namespace: &str, events: Sender<Event>) -> anyhow::Result<Self> {
        let mut command = cluster.kubectl_command()?;
        command.args(["get", "pods", "-n", namespace, "--watch", "-o", COLUMNS]);
        let mut child = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn().context("running kubectl get")?;
        let said = child.stdout.take().context("kubectl get has no output")?;
        thread::spawn(move || {
            for line in BufReader::new(said).lines().map_while(Result::ok) {
                let told = Told::parse(&line).map(|told| Event::Told(Instant::now(), told));
                if told.is_some_and(|told| events.send(told).is_err()) {
                    return;
                }
            }
        });
        Ok(Self(child))
    }
}

impl Drop for Watch {
    fn drop(&mut self) {
        // It is no error if kubectl has ended already.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Tries to reach pods from a network namespace.
struct Prober {
    netns: Arc<File>,
    stop: Arc<AtomicBool>,
    events: Sender<Event>,
}

impl Prober {
    fn reach(&self, name: &str, addresses: Vec<IpAddr>) {
        let (netns, stop) = (Arc::clone(&self.netns), Arc::clone(&self.stop));
        let (events, name) = (self.events.clone(), name.to_owned());
        thread::spawn(move || {
            let answered = run_in(&netns, || {
                addresses.iter().try_for_each(|address| answers(SocketAddr::new(*address, PORT), &stop))
            });
            // The burst says itself which pod was not reached; if it is over, nobody listens any more.
            if answered.is_ok() {
                let _ = events.send(Event::Reached(Instant::now(), name));
            }
        });
    }
}

fn answers(target: SocketAddr, stop: &AtomicBool) -> io::Result<()> {
    while !stop.load(Ordering::Relaxed) {
        if TcpStream::connect_timeout(&target, ATTEMPT).is_ok() {
            return Ok(());
        }
        thread::sleep(AGAIN);
    }
    Err(io::ErrorKind::Interrupted.into())
}

/// When each pod was ready, and when it was reached.
fn collect(
    seen: &Receiver<Event>,
    prober: &Prober,
    count: usize,
    until: Instant,
) -> anyhow::Result<Vec<(Instant, Instant)>> {
    let mut ready: BTreeMap<String, Instant> = BTreeMap::new();
    let mut asked: BTreeMap<String, Option<Instant>> = BTreeMap::new();
    while ready.len() < count || asked.values().flatten().count() < count {
        match seen.recv_timeout(until.saturating_duration_since(Instant::now())) {
            Ok(Event::Told(time, told)) => {
                if told.ready {
                    ready.entry(told.name.clone()).or_insert(time);
                }
                if told.addresses.len() == ADDRESSES && !asked.contains_key(&told.name) {
                    prober.reach(&told.name, told.addresses);
                    asked.insert(told.name, None);
                }
            }
            Ok(Event::Reached(time, name)) => drop(asked.insert(name, Some(time))),
            Err(RecvTimeoutError::Disconnected) => bail!("the watch of the pods has ended"),
            Err(RecvTimeoutError::Timeout) => {
                let reached = asked.values().flatten().count();
                bail!(
                    "after {} s of {count} were ready {}, reached {reached}",
                    BURST_TIME_LIMIT.as_secs(),
                    ready.len()
                );
            }
        }
    }
    let both = ready.into_iter().map(|(name, ready)| {
        let reached = asked.get(&name).copied().flatten();
        Ok((ready, reached.with_context(|| format!("{name} was not reached"))?))
    });
    both.collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_the_watch_is_a_pod_s_name_whether_it_is_ready_and_its_addresses() {
        let told = Told::parse("pod-7 False 10.42.1.9 fd00:42::9").unwrap();
        assert_eq!((told.name.as_str(), told.ready, told.addresses.len()), ("pod-7", false, 2));
        assert!(Told::parse("pod-7 True 10.42.1.9 fd00:42::9").unwrap().ready);
        assert!(Told::parse("pod-7 False").unwrap().addresses.is_empty());
        assert_eq!(Told::parse("pod-7  "), None);
    }

    #[test]
    fn pods_name_their_node_and_each_has_a_name_of_its_own() {
        let (one, two) = (pod("bench", 1, "node1"), pod("bench", 2, "node2"));
        assert_eq!(two["spec"]["nodeName"], "node2");
        assert_ne!(one["metadata"]["name"], two["metadata"]["name"]);
    }
}

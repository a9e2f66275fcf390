//! A cluster to try policies on: two nodes, pods that answer, and a host outside.

use std::collections::BTreeMap;
use std::error::Error;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use serde_json::{Value, json};
use tests::reach::{self, Listener, Question, Verdict};
use tests::{CONVERGENCE, Lab, LabError, Node, Options, Place, Pod, PodSpec, TestResult, topology_file, wait_until};
use types::Family;
use types::policy::Protocol;

/// The ports that every pod, node and the host answer on.
pub(crate) const PORTS: [u16; 2] = [80, 81];

/// The host outside, on its `lo`.
pub(crate) const OUTSIDE: [IpAddr; 2] =
    [IpAddr::V4(Ipv4Addr::new(198, 51, 100, 10)), IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0x64, 0, 0, 0, 0, 0x10))];

/// The nodes' own addresses, which they peer from.
pub(crate) fn node_addresses(node: &str) -> [IpAddr; 2] {
    let number: u8 = node.trim_start_matches("node").parse().unwrap_or_default();
    [Ipv4Addr::new(192, 0, 2, number).into(), Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, u16::from(number)).into()]
}

/// A pod that answers.
pub(crate) struct Endpoint {
    /// The name of the node that the pod is on.
    pub(crate) node: String,
    /// What the pod was plugged in as, with the labels that it has now.
    pub(crate) spec: PodSpec,
    /// The pod itself.
    pub(crate) pod: Pod,
    /// The listeners that answer in the pod.
    _listener: Listener,
}

/// The cluster, and what has been told to it.
pub(crate) struct World {
    // The pods come before the lab, since the namespaces of their listeners go with it.
    pub(crate) endpoints: BTreeMap<String, Endpoint>,
    _listeners: Vec<Listener>,
    /// The labels of each namespace.
    pub(crate) namespaces: BTreeMap<String, BTreeMap<String, String>>,
    /// The policies by namespace and name.
    pub(crate) policies: BTreeMap<(String, String), Value>,
    pub(crate) lab: Lab,
}

impl World {
    /// Brings up the nodes with their agents, and the host.
    pub(crate) fn up(test: &str) -> Result<Self, Box<dyn Error>> {
        let lab = Lab::up(&topology_file("policy.clab.yml"), &Options::unique(test))?;
        Self::of(lab)
    }

    pub(crate) fn of(lab: Lab) -> Result<Self, Box<dyn Error>> {
        let mut listeners = vec![Listener::start(lab.node("client"), &OUTSIDE, &PORTS)?];
        for node in lab.manx_nodes() {
            listeners.push(Listener::start(node, &node_addresses(&node.name()), &PORTS)?);
        }
        let (endpoints, namespaces, policies) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        Ok(Self { endpoints, _listeners: listeners, namespaces, policies, lab })
    }

    pub(crate) fn node(&self, name: &str) -> &Node {
        self.lab.node(name)
    }

    /// Plugs a pod in, makes it answer, and tells the host the way to it.
    pub(crate) fn plug(&mut self, node: &str, spec: PodSpec) -> Result<Pod, Box<dyn Error>> {
        let pod = self.lab.node(node).plug_pod(spec.clone())?;
        self.adopt(node, spec, &pod)?;
        Ok(pod)
    }

    /// Makes a pod answer that is plugged in already.
    pub(crate) fn adopt(&mut self, node: &str, spec: PodSpec, pod: &Pod) -> TestResult {
        let listener = Listener::start(pod, pod.addresses(), &PORTS)?;
        self.tell_host(node, pod)?;
        let endpoint = Endpoint { node: node.to_owned(), pod: pod.clone(), _listener: listener, spec };
        self.endpoints.insert(endpoint.spec.sandbox(), endpoint);
        Ok(())
    }

    /// A host outside the cluster has no BGP here: its routes to pods are static.
    pub(crate) fn tell_host(&self, node: &str, pod: &Pod) -> Result<(), LabError> {
        pod.addresses().iter().try_for_each(|address| self.host_route(node, *address))
    }

    /// Sets or deletes the host's route to an address of this node.
    pub(crate) fn host_route(&self, node: &str, address: IpAddr) -> Result<(), LabError> {
        let number = node.trim_start_matches("node");
        let [ipv4, ipv6] = OUTSIDE;
        let (gateway, source) = match address {
            IpAddr::V4(_) => (format!("203.0.113.{}", if number == "1" { 2 } else { 4 }), ipv4),
            IpAddr::V6(_) => (format!("2001:db8:{number}::"), ipv6),
        };
        let (address, source) = (address.to_string(), source.to_string());
        self.lab.node("client").exec(&["ip", "route", "replace", &address, "via", &gateway, "src", &source]).map(drop)
    }

    /// Unplugs a pod.
    pub(crate) fn unplug(&mut self, sandbox: &str) -> TestResult {
        let endpoint = self.endpoints.remove(sandbox).ok_or_else(|| format!("there is no pod {sandbox}"))?;
        self.lab.node(&endpoint.node).unplug(sandbox)?;
        Ok(())
    }

    /// The pod of this sandbox name.
    pub(crate) fn pod(&self, sandbox: &str) -> &Pod {
        &self.endpoints.get(sandbox).unwrap_or_else(|| panic!("there is no pod {sandbox}")).pod
    }

    /// `manxctl apply -f`, with a document of any kind.
    pub(crate) fn apply(&self, object: &Value) -> TestResult {
        let node = self.lab.node("node1");
        // The document is written as JSON, which is YAML too.
        std::fs::write(node.path("/etc/manx/change.yaml"), object.to_string())?;
        node.agent().ctl(&["apply", "-f", "/etc/manx/change.yaml"])?;
        Ok(())
    }

    /// Makes a namespace, or gives it other labels. `kubernetes.io/metadata.name` is there as the API server sets it.
    pub(crate) fn namespace(&mut self, name: &str, labels: &[(&str, &str)]) -> TestResult {
        let mut all: BTreeMap<String, String> =
            labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect();
        all.insert("kubernetes.io/metadata.name".to_owned(), name.to_owned());
        self.apply(&json!({
            "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name, "labels": all },
        }))?;
        self.namespaces.insert(name.to_owned(), all);
        Ok(())
    }

    /// Makes a policy, or replaces it.
    pub(crate) fn policy(&mut self, namespace: &str, name: &str, spec: Value) -> TestResult {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy",
            "metadata": { "name": name, "namespace": namespace }, "spec": spec,
        });
        self.apply(&object)?;
        self.policies.insert((namespace.to_owned(), name.to_owned()), object);
        Ok(())
    }

    /// Deletes a policy.
    pub(crate) fn delete_policy(&mut self, namespace: &str, name: &str) -> TestResult {
        self.lab.node("node1").agent().ctl(&["delete", "networkpolicy", name, "-n", namespace])?;
        self.policies.remove(&(namespace.to_owned(), name.to_owned()));
        Ok(())
    }

    /// Gives a pod a label, or takes it away.
    pub(crate) fn label(&mut self, sandbox: &str, key: &str, value: Option<&str>) -> TestResult {
        let endpoint = self.endpoints.get_mut(sandbox).ok_or_else(|| format!("there is no pod {sandbox}"))?;
        let pod = format!("{}/{}", endpoint.spec.namespace, endpoint.spec.name);
        let change = value.map_or_else(|| format!("{key}-"), |value| format!("{key}={value}"));
        self.lab.node(&endpoint.node).agent().ctl(&["label", "workloadendpoint", &pod, &change])?;
        match value {
            Some(value) => endpoint.spec.labels.insert(key.to_owned(), value.to_owned()),
            None => endpoint.spec.labels.remove(key),
        };
        Ok(())
    }

    /// Gives the pools masquerade (`natOutgoing`).
    pub(crate) fn masquerade(&self) -> TestResult {
        let pools = self.node("node1").agent().ctl(&["get", "ippools", "-o", "json"])?;
        let pools: Value = serde_json::from_str(&pools)?;
        for cidr in ["10.42.0.0/16", "fd00:42::/64"] {
            let mut items = pools["items"].as_array().or_else(|| pools.as_array()).into_iter().flatten();
            let pool = items.find(|pool| pool["spec"]["cidr"] == cidr).cloned();
            let mut pool = pool.ok_or("there is no such pool")?;
            pool["spec"]["natOutgoing"] = true.into();
            self.apply(&pool)?;
        }
        Ok(())
    }

    /// Waits until a question is answered as it should be.
    pub(crate) fn converges(&self, from: &dyn Place, question: Question, passes: bool) -> TestResult {
        let what = format!("{question} from {} {}", from.name(), if passes { "passing" } else { "being dropped" });
        let wanted = if passes { Verdict::Passed } else { Verdict::Silent };
        wait_until(&what, CONVERGENCE, || reach::ask(from, &[question]).is_ok_and(|said| said == [wanted.clone()]))?;
        Ok(())
    }
}

/// The spec of a policy that isolates all pods of its namespace in these directions.
pub(crate) fn default_deny(directions: &[&str]) -> Value {
    json!({ "podSelector": {}, "policyTypes": directions })
}

/// Questions by every protocol to both ports of an address, and echo.
pub(crate) fn all_questions(address: IpAddr) -> Vec<Question> {
    let ports = PORTS.iter().flat_map(|port| Protocol::ALL.map(|protocol| Question::new(protocol, address, *port)));
    ports.chain([Question::echo(address)]).collect()
}

/// A question by UDP to a pod, in each family.
pub(crate) fn udp(pod: &Pod, family: Family, port: u16) -> Question {
    Question::new(Protocol::Udp, pod.address(family), port)
}

/// The addresses that a node gives out next: it goes through its blocks in order.
pub(crate) fn next_addresses(last: &Pod, count: u8) -> Vec<IpAddr> {
    let after = |address: &IpAddr, step: u8| match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() + u32::from(step)).into()),
        IpAddr::V6(address) => IpAddr::V6((address.to_bits() + u128::from(step)).into()),
    };
    (1..=count).flat_map(|step| last.addresses().iter().map(move |address| after(address, step))).collect()
}

/// Questions to one port of each of these addresses.
pub(crate) fn at(addresses: &[IpAddr], port: u16) -> Vec<SocketAddr> {
    addresses.iter().map(|address| SocketAddr::new(*address, port)).collect()
}

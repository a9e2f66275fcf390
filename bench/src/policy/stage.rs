//! The node with its pods, the host that speaks for all other nodes' endpoints, and packets from one to the other.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::ErrorKind;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, UdpSocket};
use std::thread;
use std::time::{Duration, Instant};

use ::tests::{Lab, Node, Place, Pod, PodSpec, run_in};
use anyhow::{Context, ensure};
use types::Family;

use super::cluster::{NAMESPACE, PODS, Policy, Remote, block, nodes, pod_label};
use super::etcd::Etcd;
use super::stream;
use crate::scene::tell;

/// How long it may take until the kernel does what the policies say.
const SETTLING: Duration = Duration::from_secs(120);

/// A port that no policy admits to.
const FORBIDDEN: u16 = 9;

/// The label `pod` of the pod that all policies of one of the measurements are about.
pub(crate) const SUBJECT: &str = "subject";

/// How many policies that measurement has.
pub(crate) const ALL_ABOUT_ONE: usize = 1_000;

/// The lab, its nodes and pods, and the connection to etcd: all that a measurement works with.
pub(crate) struct Stage<'a> {
    lab: &'a Lab,
    pub(crate) etcd: Etcd,
    /// The network namespace from which all other nodes' endpoints send.
    remote: File,
    pods: Vec<LocalPod>,
}

/// A pod of the node.
struct LocalPod {
    netns: File,
    address: Ipv4Addr,
}

impl<'a> Stage<'a> {
    /// Plugs the node's pods in and tells the other host the way to them.
    pub(crate) fn set(lab: &'a Lab, endpoints: usize) -> anyhow::Result<Self> {
        tell(format_args!("plugging in {PODS} pods"));
        let node = lab.node("node1");
        let mut pods = Vec::new();
        for number in 0..PODS {
            let spec = PodSpec::in_namespace(NAMESPACE, &pod_label(number)).label("pod", &pod_label(number));
            pods.push(LocalPod::of(&node.plug_pod(spec)?)?);
        }
        // Two more pods are for new connections: policies are about one, and the last of those admits the other.
        for (key, value) in [("pod", SUBJECT.to_owned()), ("peer", Policy(ALL_ABOUT_ONE - 1).peer())] {
            let spec = PodSpec::in_namespace(NAMESPACE, &format!("{key}-{value}")).label(key, &value);
            pods.push(LocalPod::of(&node.plug_pod(spec)?)?);
        }
        let host = lab.node("remote");
        // All addresses of other nodes' endpoints are this host's, so that it may send from each.
        for (block, length) in (0..nodes(endpoints)).filter_map(block) {
            host.exec(&["ip", "route", "add", "local", &format!("{block}/{length}"), "dev", "lo"])?;
            // How their blocks are learned is not measured. Nobody answers the packets, so the way back only has to be
            // one that is not refused.
            node.exec(&["ip", "route", "replace", &format!("{block}/{length}"), "via", "192.0.2.1"])?;
        }
        for pod in &pods {
            host.exec(&["ip", "route", "add", &pod.address.to_string(), "via", "192.0.2.0"])?;
        }
        let remote = host.netns().context("the network namespace of the other host")?;
        Ok(Self { lab, etcd: Etcd::connect(lab)?, remote, pods })
    }

    pub(crate) fn node(&self) -> &'a Node {
        self.lab.node("node1")
    }

    fn pod(&self, number: usize) -> anyhow::Result<&LocalPod> {
        self.pods.get(number).with_context(|| format!("there is no pod {number}"))
    }

    /// How long after the return of a change to etcd an endpoint is first admitted to a pod's port: see [`stream`].
    pub(crate) fn first_passing(
        &mut self,
        from: Remote,
        pod: usize,
        port: u16,
        change: impl FnOnce(&mut Etcd) -> anyhow::Result<Instant>,
    ) -> anyhow::Result<f64> {
        let pod = self.pods.get(pod).with_context(|| format!("there is no pod {pod}"))?;
        let target = SocketAddr::new(pod.address.into(), port);
        let etcd = &mut self.etcd;
        stream::first_passing(&self.remote, from.address().into(), &pod.netns, target, || change(etcd))
    }

    /// Waits until the first packet of a new flow is dropped.
    pub(crate) fn closed(&self, from: Remote, pod: usize, port: u16) -> anyhow::Result<()> {
        let pod = self.pod(pod)?;
        let target = SocketAddr::new(pod.address.into(), port);
        stream::closed(&self.remote, from.address().into(), &pod.netns, target)
    }

    fn passes(&self, from: Remote, pod: usize, port: u16) -> anyhow::Result<bool> {
        let pod = self.pod(pod)?;
        let target = SocketAddr::new(pod.address.into(), port);
        stream::passes(&self.remote, from.address().into(), &pod.netns, target)
    }

    /// Waits until every pod gets what the policies admit and nothing else; returns the moment at which the look began
    /// that found it so.
    pub(crate) fn right(&self, policies: &[Policy], changes: &BTreeMap<usize, usize>) -> anyhow::Result<Instant> {
        let wanted = self.wanted(policies, changes)?;
        let begun = Instant::now();
        let mut fresh = 0;
        loop {
            let look = Instant::now();
            fresh += 1;
            let wrong = self.wrong(&wanted)?;
            if wrong == 0 {
                return Ok(look);
            }
            ensure!(begun.elapsed() < SETTLING, "after {SETTLING:?} and {fresh} looks {wrong} answers are wrong");
        }
    }

    /// The packets to look at: one to each pod that passes, and one that does not where a policy selects the pod.
    fn wanted(&self, policies: &[Policy], changes: &BTreeMap<usize, usize>) -> anyhow::Result<Vec<Wanted>> {
        let mut last: BTreeMap<usize, Policy> = BTreeMap::new();
        for policy in policies {
            last.extend(policy.pod().map(|pod| (pod, *policy)));
        }
        let mut wanted = Vec::new();
        for number in 0..self.pods.len() {
            let pod = self.pod(number)?;
            let listen = |port| -> anyhow::Result<UdpSocket> {
                let socket =
                    run_in(&pod.netns, || UdpSocket::bind((pod.address, port))).context("listening in a pod")?;
                socket.set_nonblocking(true)?;
                Ok(socket)
            };
            let (from, port) = match last.get(&number) {
                Some(policy) => (Remote(policy.0), policy.port(changes.get(&policy.0).copied().unwrap_or_default())),
                None => (Remote(0), 5_000),
            };
            wanted.push(Wanted { from, socket: listen(port)?, passes: true });
            if last.contains_key(&number) {
                wanted.push(Wanted { from, socket: listen(FORBIDDEN)?, passes: false });
            }
        }
        Ok(wanted)
    }

    /// Sends these packets as new flows; returns how many of the outcomes are wrong.
    fn wrong(&self, wanted: &[Wanted]) -> anyhow::Result<usize> {
        run_in(&self.remote, || {
            for wanted in wanted {
                UdpSocket::bind((wanted.from.address(), 0))?.send_to(b"?", wanted.socket.local_addr()?)?;
            }
            Ok(())
        })
        .context("sending to the pods")?;
        thread::sleep(Duration::from_millis(2));
        let mut wrong = 0;
        for wanted in wanted {
            let mut arrived = false;
            loop {
                match wanted.socket.recv(&mut [0; 8]) {
                    Ok(_) => arrived = true,
                    Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                    Err(error) => return Err(error).context("receiving in a pod"),
                }
            }
            wrong += usize::from(arrived != wanted.passes);
        }
        Ok(wrong)
    }

    /// Waits until the pod that policies are about is closed to the other nodes and open to its peer on the node.
    pub(crate) fn settled(&self, port: u16) -> anyhow::Result<()> {
        self.closed(Remote(0), PODS, FORBIDDEN)?;
        let begun = Instant::now();
        while self.new_connections(port, 1).is_err() {
            ensure!(begun.elapsed() < SETTLING, "port {port} stays closed to its peer");
        }
        Ok(())
    }

    /// Waits until an endpoint is admitted to all these pods and ports; returns when it was.
    pub(crate) fn admitted(&self, from: Remote, open: &[(usize, u16)]) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        for (pod, port) in open {
            while !self.passes(from, *pod, *port)? || self.passes(from, *pod, FORBIDDEN)? {
                ensure!(begun.elapsed() < SETTLING, "port {port} of pod {pod} is not as it should be");
            }
        }
        Ok(Instant::now())
    }

    /// Runs a line of shell on the node.
    pub(crate) fn node_shell(&self, line: &str) -> anyhow::Result<String> {
        Ok(self.node().shell(line)?)
    }

    /// Ends the agent as a crash does, and makes the kernel as empty of rules and sets as before the first agent.
    pub(crate) fn crash_and_forget(&self) -> anyhow::Result<()> {
        self.node().agent().kill9()?;
        self.forget()
    }

    /// Empties every table of both variants, and every set. In this node's namespace all of them are the agent's.
    pub(crate) fn forget(&self) -> anyhow::Result<()> {
        let tables = ["mangle", "raw", "nat", "filter"];
        let mut commands = vec!["nft flush ruleset 2>/dev/null".to_owned()];
        for command in ["iptables-legacy", "ip6tables-legacy"] {
            for table in tables {
                commands.push(format!("{command} -t {table} -F 2>/dev/null; {command} -t {table} -X 2>/dev/null"));
            }
        }
        commands.push("ipset destroy 2>/dev/null; conntrack -F 2>/dev/null; true".to_owned());
        self.node().shell(&commands.join("; "))?;
        Ok(())
    }

    /// Starts the agent; returns when it was started.
    pub(crate) fn start(&self) -> anyhow::Result<Instant> {
        let started = Instant::now();
        self.node().agent().start()?;
        Ok(started)
    }

    /// Asks the agent every millisecond until it says that it is ready; returns when it did.
    pub(crate) fn ready(&self) -> anyhow::Result<Instant> {
        let begun = Instant::now();
        while let Err(answer) = self.node().agent().ready() {
            self.node().agent().check()?;
            ensure!(begun.elapsed() < SETTLING, "the agent is not ready: {answer}");
            thread::sleep(Duration::from_millis(1));
        }
        Ok(Instant::now())
    }

    /// What the first datagrams of new flows to the pod that policies are about take to send: the whole way through the
    /// kernel, in microseconds each.
    pub(crate) fn new_connections(&self, port: u16, count: usize) -> anyhow::Result<Vec<f64>> {
        let (to, from) = (self.pod(PODS)?, self.pod(PODS + 1)?);
        let target = SocketAddr::new(to.address.into(), port);
        let receiver = run_in(&to.netns, || UdpSocket::bind(target)).context("listening in a pod")?;
        receiver.set_read_timeout(Some(Duration::from_millis(100)))?;
        let mut times = Vec::new();
        run_in(&from.netns, || {
            for _ in 0..count {
                let socket = UdpSocket::bind((from.address, 0))?;
                socket.connect(target)?;
                let begun = Instant::now();
                socket.send(b"?")?;
                times.push(begun.elapsed().as_secs_f64() * 1e6);
                // A packet that is dropped opens no connection.
                receiver.recv(&mut [0; 8])?;
            }
            Ok(())
        })
        .context("a new connection between two pods")?;
        Ok(times)
    }
}

impl LocalPod {
    fn of(pod: &Pod) -> anyhow::Result<Self> {
        let IpAddr::V4(address) = pod.address(Family::Ipv4) else {
            anyhow::bail!("{} has no IPv4 address", pod.name())
        };
        Ok(Self { netns: pod.netns().context("a pod's network namespace")?, address })
    }
}

/// A packet to a pod, and what should become of it.
struct Wanted {
    from: Remote,
    socket: UdpSocket,
    passes: bool,
}

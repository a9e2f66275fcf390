//! The judge against what iptables is told: the whole filter runs over the kernel's fake, and every call that it makes is carried
//! out on simulated tables and sets, through which packets are then led from end to end.

use std::cell::Cell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::thread::JoinHandle;

use felix::acl::{Acl, AclBackend, AclConfig};
use felix::policy::Infrastructure;
use kernel::acl::{
    AddressHome, AddressPort, CountedAddress, ElementChange, IptablesVariant, MarkedAddress, SetElement, SetKind,
};
use kernel::fake::acl::{AclCall, FakeAcl};
use oracle::generate::{self, Order};
use oracle::iptables::{Arrival, IpSet, IpSets, Path, Ruleset, State, TcpFlags};
use oracle::{Cidr, Exemptions, Packet, Probe, Protocol, World, judge};
use types::Family;

use crate::block_on;
use crate::history::{History, histories};
use crate::node::{News, Node};

/// How a node hears of a world at first: all of it listed.
const LISTED: Order = Order { shuffle: 0, relist: true, noise: false, eager: false };

#[test]
fn rendered_rules_do_to_every_packet_what_the_specification_says() {
    let probes = Cell::new(0_usize);
    generate::check("rendered worlds", 60, &histories(6, 1), |History { world, limit, .. }| {
        let hosts = Hosts::of(world, *limit, false)?;
        probes.set(probes.get() + hosts.compare(world)?);
        Ok(())
    });
    assert!(probes.get() >= 100_000, "only {} packets", probes.get());
}

#[test]
fn endpoints_that_were_there_before_the_agent_are_governed_as_well() {
    generate::check("rendered lives", 20, &histories(6, 1), |History { world, limit, .. }| {
        Hosts::of(world, *limit, true)?.compare(world).map(drop)
    });
}

#[test]
fn rendered_rules_follow_what_happens() {
    generate::check("rendered histories", 40, &histories(4, 4), |History { world, steps, limit }| {
        let mut hosts = Hosts::of(world, *limit, false)?;
        let mut old = world.clone();
        for (index, step) in steps.iter().enumerate() {
            let mut new = old.clone();
            step.changes.iter().for_each(|change| change.apply(&mut new));
            hosts.hear(&old, &new, step.order)?;
            hosts.compare(&new).map_err(|what| format!("after step {index}: {what}"))?;
            old = new;
        }
        Ok(())
    });
}

#[test]
fn no_call_on_the_way_opens_or_closes_what_is_so_neither_before_nor_after() {
    generate::check("rendered ways", 25, &histories(3, 3), |History { world, steps, limit }| {
        let mut hosts = Hosts::of(world, *limit, false)?;
        let mut old = world.clone();
        for (index, step) in steps.iter().enumerate() {
            let mut new = old.clone();
            step.changes.iter().for_each(|change| change.apply(&mut new));
            let order = Order { relist: false, noise: false, eager: true, ..step.order };
            hosts.watch(&old, &new, order).map_err(|what| format!("in step {index}: {what}"))?;
            old = new;
        }
        Ok(())
    });
}

#[test]
fn an_agent_that_starts_again_opens_and_closes_nothing_on_the_way_to_what_is_so_now() {
    generate::check("rendered restarts", 25, &histories(4, 1), |History { world, steps, limit }| {
        let mut hosts = Hosts::of(world, *limit, false)?;
        hosts.restart(world, *limit).map_err(|what| format!("restarted in the same world: {what}"))?;
        hosts.compare(world)?;
        let mut new = world.clone();
        steps.iter().flat_map(|step| &step.changes).for_each(|change| change.apply(&mut new));
        hosts.restart(&new, *limit)?;
        hosts.compare(&new).map(drop)
    });
}

/// All nodes of a world.
struct Hosts(Vec<Host>);

/// A node with its filter, and with the tables and sets that the filter has made.
struct Host {
    node: Node,
    acl: Acl,
    fake: FakeAcl,
    /// The calls that wait for the sources to be in sync.
    attaching: Vec<JoinHandle<Result<(), String>>>,
    kernel: Kernel,
}

/// The simulated tables and sets of a node.
#[derive(Debug, Clone, Default)]
struct Kernel {
    tables: BTreeMap<Family, Ruleset>,
    sets: IpSets,
}

impl Hosts {
    fn of(world: &World, narrow_limit: usize, early: bool) -> Result<Self, String> {
        let host = |name: &str| Host::start(Node::new(name), FakeAcl::new(), Kernel::default(), narrow_limit);
        let mut hosts = Self(generate::NODES.iter().map(|(name, _)| host(name)).collect::<Result<_, String>>()?);
        hosts.0.iter().for_each(|host| block_on(host.acl.local_in_sync()));
        if !early {
            let nobody = World { pods: BTreeMap::new(), ..world.clone() };
            hosts.hear(&World::default(), &nobody, LISTED)?;
            hosts.hear(&nobody, world, Order { relist: false, ..LISTED })?;
        } else {
            hosts.hear(&World::default(), world, LISTED)?;
        }
        Ok(hosts)
    }

    fn hear(&mut self, old: &World, new: &World, order: Order) -> Result<(), String> {
        for host in &mut self.0 {
            for news in host.node.news(old, new, order).into_iter().flatten() {
                host.tell(news, order.eager)?;
            }
            host.wait()?;
            for call in host.fake.take_calls() {
                host.kernel.apply(&call)?;
            }
        }
        Ok(())
    }

    /// The same, and after every call compares what both ends say with what they say before and after each report.
    fn watch(&mut self, old: &World, new: &World, order: Order) -> Result<(), String> {
        let ports = [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 80)];
        let probes: Vec<_> = Probe::all(old, &ports).into_iter().chain(Probe::all(new, &ports)).collect();
        for host in &mut self.0 {
            for news in host.node.news(old, new, order).into_iter().flatten() {
                let shown = format!("{news:?}");
                host.tell(news, true)?;
                host.look_back(&probes).map_err(|what| format!("{what}\n{shown}"))?;
            }
        }
        Ok(())
    }

    /// Ends every agent and starts another in this world, with the endpoints that existed before it.
    fn restart(&mut self, world: &World, narrow_limit: usize) -> Result<(), String> {
        let ports = [(Protocol::Tcp, 80), (Protocol::Tcp, 81), (Protocol::Udp, 80)];
        let probes = Probe::all(world, &ports);
        for host in &mut self.0 {
            let (fake, kernel) = (host.fake.clone(), std::mem::take(&mut host.kernel));
            *host = Host::start(host.node.anew(), fake, kernel, narrow_limit)?;
            let news = host.node.news(&World::default(), world, LISTED);
            // An agent reads its journal before it hears anything else.
            let (local, sources): (Vec<_>, Vec<_>) =
                news.into_iter().flatten().partition(|news| !matches!(news, News::Source(_)));
            for news in local {
                if let News::Attach(id, facts) = news {
                    block_on(host.acl.attach(id, facts)).map_err(|error| error.to_string())?;
                }
            }
            block_on(host.acl.local_in_sync());
            sources.into_iter().try_for_each(|news| host.tell(news, false))?;
            host.wait()?;
            host.look_back(&probes)?;
        }
        Ok(())
    }

    fn compare(&self, world: &World) -> Result<usize, String> {
        let probes = Probe::all(world, &generate::PORTS);
        for probe in &probes {
            let expected = judge(world, &probe.packet, Exemptions::default());
            let (passed, trace) = self.passes(world, &probe.packet)?;
            if passed != expected.allowed {
                let word = if passed { "passes" } else { "is dropped" };
                return Err(format!("{} -> {}: {} {word}: {expected}\n{trace}", probe.from, probe.to, probe.packet));
            }
        }
        Ok(probes.len())
    }

    /// Sends a connection's first packet from end to end, over one node or two.
    fn passes(&self, world: &World, packet: &Packet) -> Result<(bool, String), String> {
        let (from, to) = (Place::of(world, packet.source), Place::of(world, packet.destination));
        let mut trace = String::new();
        let mut hops: Vec<(usize, Path, String, String)> = Vec::new();
        let uplink = || "eth1".to_owned();
        match (&from, &to) {
            (Place::Pod(a, source), Place::Pod(b, destination)) if a == b => {
                hops.push((*a, Path::Forward, source.clone(), destination.clone()));
            }
            (Place::Pod(a, source), Place::Node(b)) if a == b => {
                hops.push((*a, Path::Input, source.clone(), String::new()));
            }
            (Place::Node(a), Place::Pod(b, destination)) if a == b => {
                hops.push((*a, Path::Output, String::new(), destination.clone()));
            }
            _ => {
                match &from {
                    Place::Pod(node, source) => hops.push((*node, Path::Forward, source.clone(), uplink())),
                    Place::Node(node) => hops.push((*node, Path::Output, String::new(), uplink())),
                    Place::Outside => {}
                }
                match &to {
                    Place::Pod(node, destination) => hops.push((*node, Path::Forward, uplink(), destination.clone())),
                    Place::Node(node) => hops.push((*node, Path::Input, uplink(), String::new())),
                    Place::Outside => {}
                }
            }
        }
        for (node, path, input, output) in hops {
            let host = self.0.get(node).ok_or("no such node")?;
            let outcome = host.kernel.run(path, &Arrival::new(packet, &input, &output))?;
            trace = format!("{trace}on {node}, {path:?}:\n  {}\n", outcome.trace.join("\n  "));
            if !outcome.passed {
                return Ok((false, trace));
            }
            if outcome.mark != 0 {
                return Err(format!("{packet} leaves with mark {:#x}\n{trace}", outcome.mark));
            }
        }
        Ok((true, trace))
    }
}

/// The node and interface that an address is behind.
enum Place {
    Pod(usize, String),
    Node(usize),
    Outside,
}

impl Place {
    fn of(world: &World, address: IpAddr) -> Self {
        let index = |name: &str| generate::NODES.iter().position(|(node, _)| *node == name);
        let node = world.nodes.iter().find(|(_, addresses)| addresses.contains(&address));
        match (world.pod_at(address), node) {
            (Some((name, pod)), _) => index(&pod.node)
                .map_or(Self::Outside, |node| Self::Pod(node, format!("mx{}{}", name.namespace, name.name))),
            (None, Some((name, _))) => index(name).map_or(Self::Outside, Self::Node),
            (None, None) => Self::Outside,
        }
    }
}

impl Host {
    /// An agent that finds this state in the kernel.
    fn start(node: Node, fake: FakeAcl, kernel: Kernel, narrow_limit: usize) -> Result<Self, String> {
        let backend = AclBackend {
            sets: Box::new(fake.sets()),
            tables: Box::new(fake.tables(IptablesVariant::Nft)),
            connections: Box::new(fake.connections()),
            events: Box::new(fake.events().map_err(|error| error.to_string())?),
            host: Box::new(kernel::fake::FakeKernel::new()),
        };
        let config = AclConfig { narrow_limit, ..AclConfig::default() };
        let acl = felix::acl::start(config, backend).map_err(|error| error.to_string())?;
        block_on(acl.infrastructure(infrastructure()));
        Ok(Self { node, acl, fake, attaching: Vec::new(), kernel })
    }

    fn tell(&mut self, news: News, and_wait: bool) -> Result<(), String> {
        match news {
            News::Source(update) => {
                block_on(self.acl.update(vec![update]));
                if and_wait && self.is_in_sync() { self.wait() } else { Ok(()) }
            }
            // Endpoints of an earlier run are told before the sources are in sync, and wait for that.
            News::Attach(id, facts) => {
                let acl = self.acl.clone();
                let attach = move || block_on(acl.attach(id, facts)).map_err(|error| error.to_string());
                self.attaching.push(std::thread::spawn(attach));
                if self.is_in_sync() { self.wait() } else { Ok(()) }
            }
            News::Detach(id) => block_on(self.acl.detach(id)).map_err(|error| error.to_string()),
        }
    }

    /// Carries out the calls since the last time. After each, compares what both ends of probes say with what they say
    /// before and after all of them.
    fn look_back(&mut self, probes: &[Probe]) -> Result<(), String> {
        let calls = self.fake.take_calls();
        let before = self.kernel.ends(probes)?;
        let mut states = Vec::new();
        for call in &calls {
            self.kernel.apply(call)?;
            if matches!(call, AclCall::Restore(..) | AclCall::ChangeElements(..) | AclCall::SwapSets(..)) {
                states.push((call, self.kernel.ends(probes)?));
            }
        }
        let Some((_, after)) = states.last() else { return Ok(()) };
        for (call, now) in &states {
            let wrong = now.iter().zip(before.iter().zip(after)).position(|(now, (old, new))| now != old && now != new);
            if let Some(place) = wrong {
                let (packet, end) = (&probes[place / 2].packet, ["egress", "ingress"][place % 2]);
                return Err(format!(
                    "{packet}, {end}: passes is {} after {call:?}, though neither before nor after\n{calls:#?}",
                    now[place]
                ));
            }
        }
        Ok(())
    }

    fn is_in_sync(&self) -> bool {
        block_on(self.acl.view()).is_some_and(|view| view.in_sync)
    }

    /// Waits until everything that was told is in force.
    fn wait(&mut self) -> Result<(), String> {
        for attaching in self.attaching.drain(..) {
            attaching.join().map_err(|_| "a thread has panicked".to_owned())??;
        }
        let is_behind = |view: felix::acl::AclView| view.in_sync && !view.is_settled;
        while block_on(self.acl.view()).is_some_and(is_behind) {
            std::thread::yield_now();
        }
        Ok(())
    }
}

impl Kernel {
    fn apply(&mut self, call: &AclCall) -> Result<(), String> {
        let fault = |what: &str| format!("{what}: {call:?}");
        match call {
            AclCall::Restore(family, text) => {
                let tables = self.tables.entry(*family).or_default();
                tables.restore(text, *family == Family::Ipv6).map_err(|error| format!("{error}\n{text}"))?;
            }
            AclCall::CreateSet(name, spec) => {
                let set = match spec.kind {
                    SetKind::Addresses | SetKind::Counted => IpSet::Addresses(Default::default()),
                    SetKind::Nets => IpSet::Nets(Default::default()),
                    SetKind::Ports => IpSet::Ports(Default::default()),
                    SetKind::Marks => IpSet::Marks(Default::default()),
                    SetKind::Homes => IpSet::Homes(Default::default()),
                };
                if self.sets.insert(name.to_string(), set).is_some() {
                    return Err(fault("the set is there"));
                }
            }
            AclCall::DestroySet(name) => drop(self.sets.remove(name.as_str())),
            AclCall::SwapSets(one, other) => {
                let both = (self.sets.remove(one.as_str()), self.sets.remove(other.as_str()));
                let (Some(first), Some(second)) = both else { return Err(fault("a set is not there")) };
                self.sets.insert(one.to_string(), second);
                self.sets.insert(other.to_string(), first);
            }
            AclCall::ChangeElements(changes) => {
                let set = self.sets.get_mut(changes.set().as_str()).ok_or_else(|| fault("no such set"))?;
                let mut changes = changes.as_slice().iter();
                changes.try_for_each(|change| change_element(set, change).ok_or_else(|| fault("no member")))?;
            }
            AclCall::Sets
            | AclCall::Elements(_)
            | AclCall::Save(..)
            | AclCall::Connections(_)
            | AclCall::DeleteConnection(_) => {}
        }
        Ok(())
    }

    /// Whether the packets pass: one as if from a pod to elsewhere, one as if from elsewhere to a pod.
    fn ends(&self, probes: &[Probe]) -> Result<Vec<bool>, String> {
        let ways = [("mxpod", "eth1"), ("eth1", "mxpod")];
        let all =
            probes.iter().flat_map(|probe| ways.map(|(input, output)| Arrival::new(&probe.packet, input, output)));
        all.map(|arrival| self.run(Path::Forward, &arrival).map(|outcome| outcome.passed)).collect()
    }

    fn run(&self, path: Path, arrival: &Arrival) -> Result<oracle::iptables::Outcome, String> {
        let none = Ruleset::default();
        let tables = self.tables.get(&Family::of(arrival.source)).unwrap_or(&none);
        tables.run(&self.sets, path, arrival).map_err(|fault| fault.to_string())
    }
}

/// Every node's speaker; on one of them it has a port of its own.
fn infrastructure() -> Infrastructure {
    let world = oracle::cases::world();
    let ports = [179, 1790].into_iter().cycle();
    let speakers =
        world.nodes.values().zip(ports).flat_map(|(addresses, port)| addresses.iter().map(move |a| (*a, port)));
    Infrastructure { speakers: speakers.collect(), ..Infrastructure::default() }
}

fn change_element(set: &mut IpSet, change: &ElementChange) -> Option<()> {
    let (element, put) = match change {
        ElementChange::Put(element) => (*element, true),
        ElementChange::Delete(element) => (*element, false),
    };
    match (set, element) {
        (IpSet::Addresses(members), SetElement::Address(address) | SetElement::Counted(CountedAddress(address))) => {
            if put {
                members.insert(address)
            } else {
                members.remove(&address)
            };
        }
        (IpSet::Homes(members), SetElement::Home(AddressHome { address, interface })) => {
            let home = (address, interface.to_string());
            if put {
                members.insert(home)
            } else {
                members.remove(&home)
            };
        }
        (IpSet::Nets(members), SetElement::Net(net)) if net.len() > 0 => {
            let net = Cidr::of(net.addr(), u32::from(net.len()))?;
            if put {
                members.insert(net)
            } else {
                members.remove(&net)
            };
        }
        (IpSet::Ports(members), SetElement::Port(AddressPort { address, protocol, port })) => {
            let protocol = match protocol {
                types::policy::Protocol::Tcp => Protocol::Tcp,
                types::policy::Protocol::Udp => Protocol::Udp,
                types::policy::Protocol::Sctp => Protocol::Sctp,
            };
            if put {
                members.insert((address, protocol, port))
            } else {
                members.remove(&(address, protocol, port))
            };
        }
        (IpSet::Marks(members), SetElement::Mark(MarkedAddress { address, mark, mask })) if put => {
            members.insert(address, (mark, mask));
        }
        (IpSet::Marks(members), SetElement::Mark(MarkedAddress { address, .. })) => drop(members.remove(&address)),
        _ => return None,
    }
    Some(())
}

/// Two pods on one node and a third on the other; the first is under default-deny for ingress.
fn small_world() -> World {
    let mut world = oracle::cases::world();
    world.policies.insert(oracle::PolicyName::new("x", "deny"), serde_json::json!({"podSelector": {}}));
    world
}

#[test]
fn answers_pass_and_strays_do_not() {
    let world = small_world();
    let hosts = Hosts::of(&world, 100_000, false).unwrap();
    let pod = |namespace: &str, name: &str| world.pods[&oracle::PodName::new(namespace, name)].addresses.clone();
    for family in [0, 1] {
        let packet = Packet {
            source: pod("y", "a")[family],
            destination: pod("x", "a")[family],
            protocol: Protocol::Tcp,
            port: 80,
        };
        let run = |change: fn(&mut Arrival), path, input, output| {
            let mut arrival = Arrival::new(&packet, input, output);
            change(&mut arrival);
            hosts.0[0].kernel.run(path, &arrival).unwrap().passed
        };
        let forward = |change| run(change, Path::Forward, "eth1", "mxxa");
        assert!(!forward(|_| {}), "it is under default-deny");
        assert!(forward(|arrival| (arrival.state, arrival.flags) = (State::Established, TcpFlags::ACK)));
        assert!(forward(|arrival| arrival.state = State::Related));
        assert!(!forward(|arrival| arrival.state = State::Invalid));
        // The governed pod may send what it likes, as its egress is open, but not in the middle of a connection that
        // nobody knows.
        let egress = |change: fn(&mut Arrival)| {
            let mut arrival = Arrival::new(&packet, "mxxa", "eth1");
            (arrival.source, arrival.destination) = (arrival.destination, arrival.source);
            change(&mut arrival);
            hosts.0[0].kernel.run(Path::Forward, &arrival).unwrap().passed
        };
        assert!(egress(|_| {}));
        assert!(!egress(|arrival| arrival.flags = TcpFlags::ACK));
        assert!(!egress(|arrival| arrival.flags = TcpFlags::SYN_ACK));
        assert!(!egress(|arrival| arrival.reverse_path = false), "its source is not behind that interface");
        // An address that is in no class has no network, whichever interface its pod has.
        let unknown = if family == 0 { "10.65.0.99" } else { "fd00:65::99" };
        let mut stray = Arrival::new(&packet, "mxzz", "eth1");
        stray.source = unknown.parse().unwrap();
        assert!(!hosts.0[0].kernel.run(Path::Forward, &stray).unwrap().passed);
        assert!(!hosts.0[0].kernel.run(Path::Input, &stray).unwrap().passed);
        // Packets that have nothing to do with pods are none of our business.
        let mut foreign = Arrival::new(&packet, "eth0", "eth1");
        foreign.mark = 0x0055_4000;
        let outcome = hosts.0[0].kernel.run(Path::Forward, &foreign).unwrap();
        assert!(outcome.passed && outcome.mark == 0x0055_4000);
    }
}

#[test]
fn speakers_and_encapsulations_are_closed_to_pods_in_every_state_of_a_connection_and_to_nobody_else() {
    let world = small_world();
    let hosts = Hosts::of(&world, 100_000, false).unwrap();
    let pod = &world.pods[&oracle::PodName::new("x", "a")].addresses;
    let speakers = infrastructure().speakers;
    assert!(speakers.iter().any(|(_, port)| *port == 1790));
    let states = [State::New, State::Established, State::Related, State::Invalid, State::Untracked];
    for (speaker, port) in speakers {
        let source = pod.iter().copied().find(|own| own.is_ipv4() == speaker.is_ipv4()).unwrap();
        let packet = Packet { source, destination: speaker, protocol: Protocol::Tcp, port: 80 };
        let passes = |input: &str, path, state, change: &dyn Fn(&mut Arrival)| {
            let mut arrival = Arrival::new(&packet, input, "eth1");
            arrival.state = state;
            change(&mut arrival);
            hosts.0[0].kernel.run(path, &arrival).unwrap().passed
        };
        for (state, path) in states.into_iter().flat_map(|state| [(state, Path::Forward), (state, Path::Input)]) {
            let to = |protocol, source_port, destination_port| {
                move |arrival: &mut Arrival| {
                    arrival.protocol = protocol;
                    (arrival.source_port, arrival.destination_port) = (source_port, destination_port);
                }
            };
            let dhcp = if speaker.is_ipv4() { 68 } else { 546 };
            let closed =
                [(6, 40_000, port), (6, port, 40_000), (17, 40_000, 3784), (17, 40_000, 3785), (17, 4784, 40_000)]
                    .into_iter()
                    .chain([(17, 67, dhcp), (17, 40_000, 4789), (17, 40_000, 8472)])
                    .chain([4, 41, 47, 50].map(|protocol| (protocol, 0, 0)));
            for (protocol, from, port) in closed {
                let what = format!("{speaker}: protocol {protocol} from {from} to {port}, {state:?}, {path:?}");
                assert!(!passes("mxxa", path, state, &to(protocol, from, port)), "{what}");
                assert!(passes("eth0", path, state, &to(protocol, from, port)), "{what}, from no pod");
            }
        }
        let translated = |arrival: &mut Arrival| {
            arrival.translated = true;
            arrival.destination_port = port;
        };
        assert!(!passes("eth0", Path::Forward, State::New, &translated), "{speaker}: by way of a Service, from no pod");
        assert!(passes("mxxa", Path::Forward, State::New, &|_| {}), "{speaker}: an ordinary port");
        let other = if port == 179 { 1790 } else { 179 };
        let elsewhere = |arrival: &mut Arrival| arrival.destination_port = other;
        assert!(passes("mxxa", Path::Forward, State::New, &elsewhere), "{speaker}: another speaker's port");
        let to_pod = |arrival: &mut Arrival| {
            arrival.destination = pod.iter().copied().find(|own| own.is_ipv4() == speaker.is_ipv4()).unwrap();
            arrival.destination_port = port;
        };
        assert!(passes("mxxa", Path::Forward, State::New, &to_pod), "a pod's own port {port}");
    }
}

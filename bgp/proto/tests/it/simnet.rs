//! A simulated network: any number of speakers, a virtual clock, links with latency that can be cut or fall silent, and
//! for each node a kernel table that outlives the speaker. Everything follows from the seed; nothing sleeps.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_proto::wire::{Families, frame_length};
use bgp_proto::{
    Action, ByFamily, ConnId, Identity, ImportPolicy, Input, PeerConfig, PeerEvent, Speaker, SpeakerConfig,
};
use bytes::Bytes;
use types::{Asn, ClusterId, Family, FibUpdate, NextHopState, NextHopWatch, Prefix, RouterId};

/// A node's number, from 1.
pub(crate) type Number = u8;

/// What a link does with what is sent over it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Link {
    /// Delivers.
    Up,
    /// Delivers so much later.
    Slow(Duration),
    /// Loses everything without anybody being told.
    Silent,
}

/// The network.
pub(crate) struct SimNet {
    /// The virtual time.
    pub(crate) now: Instant,
    /// When it began.
    start: Instant,
    nodes: BTreeMap<Number, Node>,
    /// Links that are not up, by their ends in ascending order.
    links: BTreeMap<(Number, Number), Link>,
    streams: BTreeMap<End, End>,
    /// What is under way, in the order of its arrival.
    queue: BTreeMap<(Instant, u64), Event>,
    sequence: u64,
    /// When the last thing sent to an end arrives: streams keep their order.
    arrivals: BTreeMap<End, Instant>,
    seed: u64,
    /// The time that every message takes at least; up to as much again comes on top.
    pub(crate) latency: Duration,
}

/// One end of a connection.
type End = (Number, ConnId);

#[derive(Debug)]
enum Event {
    /// Somebody dials a node.
    Dial {
        from: End,
        local: IpAddr,
        to: Number,
        remote: SocketAddr,
    },
    /// The dialler has its connection.
    Connected {
        at: End,
        local: IpAddr,
    },
    Refused {
        at: End,
    },
    Octets {
        at: End,
        octets: Bytes,
    },
    Closed {
        at: End,
    },
    /// A KEEPALIVE that is to be acknowledged has come to a kernel.
    Probed {
        from: End,
        to: End,
    },
    Acknowledged {
        at: End,
    },
    NextHop {
        at: Number,
        life: u32,
        state: NextHopState,
    },
}

/// A node: a speaker, and a kernel that outlives it.
pub(crate) struct Node {
    /// Nothing while the node's agent is down.
    pub(crate) speaker: Option<Speaker>,
    /// How often it has started.
    life: u32,
    config: SpeakerConfig,
    peers: Vec<PeerConfig>,
    cluster_id: Option<ClusterId>,
    originated: BTreeSet<Prefix>,
    addresses: Vec<IpAddr>,
    /// The kernel's routes that BGP has set.
    pub(crate) kernel: BTreeMap<Prefix, Vec<IpAddr>>,
    /// What this life of the speaker has set.
    fresh: BTreeSet<Prefix>,
    /// The families that are in sync in this life.
    pub(crate) in_sync: Vec<Family>,
    /// Every prefix that the kernel has lost, with the time since the network began.
    pub(crate) lost: Vec<(Duration, Prefix)>,
    /// What people are told.
    pub(crate) events: Vec<(IpAddr, PeerEvent)>,
    /// Next hops that cannot be reached from here.
    unreachable: BTreeSet<IpAddr>,
    watched: BTreeSet<IpAddr>,
    /// How long the kernel takes to resolve a next hop.
    pub(crate) resolve_time: Duration,
}

/// The address of a node.
pub(crate) fn address(number: Number, family: Family) -> IpAddr {
    match family {
        Family::Ipv4 => Ipv4Addr::new(192, 0, 2, number).into(),
        Family::Ipv6 => Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, number.into()).into(),
    }
}

/// The block of a node.
pub(crate) fn block(number: Number, family: Family) -> Prefix {
    let text = match family {
        Family::Ipv4 => format!("10.65.{number}.0/26"),
        Family::Ipv6 => format!("fd00:65:{number:x}::/122"),
    };
    text.parse().unwrap()
}

/// Both blocks of a node.
pub(crate) fn blocks(number: Number) -> BTreeSet<Prefix> {
    Family::ALL.map(|family| block(number, family)).into()
}

/// The pools that the blocks are of.
pub(crate) fn import() -> ImportPolicy {
    let pools = ["10.65.0.0/16", "fd00:65::/32"].map(|pool| pool.parse().unwrap());
    ImportPolicy { pools: pools.to_vec(), prefixes: Vec::new() }
}

/// The AS of all nodes that have no other.
pub(crate) const ASN: Asn = Asn::DEFAULT;

/// A peer of `local` at `remote`, of their AS, over the family.
pub(crate) fn peer(local: Number, remote: Number, family: Family) -> PeerConfig {
    PeerConfig {
        local_address: Some(address(local, family)),
        description: format!("node {remote}"),
        ..PeerConfig::new(address(remote, family), ASN, ASN)
    }
}

impl SimNet {
    /// A network without nodes.
    pub(crate) fn new(seed: u64) -> Self {
        let now = Instant::now();
        Self {
            now,
            start: now,
            nodes: BTreeMap::new(),
            links: BTreeMap::new(),
            streams: BTreeMap::new(),
            queue: BTreeMap::new(),
            sequence: 0,
            arrivals: BTreeMap::new(),
            seed: seed | 1,
            latency: Duration::from_millis(1),
        }
    }

    /// Nodes 1 to `count` with a session per family between every two, each with its blocks.
    pub(crate) fn mesh(count: Number, seed: u64) -> Self {
        Self::new(seed).with_mesh(count)
    }

    /// The same on these links.
    pub(crate) fn with_mesh(self, count: Number) -> Self {
        let mut net = self;
        for number in 1..=count {
            net.add(number);
        }
        for number in 1..=count {
            let others = (1..=count).filter(|other| *other != number);
            let peers = others.flat_map(|other| Family::ALL.map(|family| peer(number, other, family))).collect();
            net.configure(number, peers, None);
            net.originate(number, blocks(number));
        }
        net
    }

    /// A node, freshly booted.
    pub(crate) fn add(&mut self, number: Number) {
        let addresses = Family::ALL.map(|family| address(number, family));
        let config = SpeakerConfig {
            identity: Identity {
                router_id: RouterId::new(Ipv4Addr::new(192, 0, 2, number)).unwrap(),
                addresses: ByFamily { ipv4: Some(addresses[0]), ipv6: Some(addresses[1]) },
            },
            restart_time: Duration::from_secs(120),
            preserved: Families::NONE,
            import: import(),
        };
        let node = Node {
            speaker: Some(Speaker::new(config.clone(), self.now)),
            life: 1,
            config,
            peers: Vec::new(),
            cluster_id: None,
            originated: BTreeSet::new(),
            addresses: addresses.to_vec(),
            kernel: BTreeMap::new(),
            fresh: BTreeSet::new(),
            in_sync: Vec::new(),
            lost: Vec::new(),
            events: Vec::new(),
            unreachable: BTreeSet::new(),
            watched: BTreeSet::new(),
            resolve_time: Duration::from_micros(100),
        };
        self.nodes.insert(number, node);
    }

    /// The node.
    #[track_caller]
    pub(crate) fn node(&self, number: Number) -> &Node {
        self.nodes.get(&number).unwrap()
    }

    /// The node, to be disturbed.
    #[track_caller]
    pub(crate) fn node_mut(&mut self, number: Number) -> &mut Node {
        self.nodes.get_mut(&number).unwrap()
    }

    /// Gives a node its peers.
    pub(crate) fn configure(&mut self, number: Number, peers: Vec<PeerConfig>, cluster_id: Option<ClusterId>) {
        let node = self.node_mut(number);
        (node.peers, node.cluster_id) = (peers.clone(), cluster_id);
        let identity = node.config.identity;
        self.input(number, Input::Configure { identity, peers, cluster_id });
    }

    /// Who a node is.
    pub(crate) fn identity(&self, number: Number) -> Identity {
        self.node(number).config.identity
    }

    /// A node is somebody else from now on, with the same peers.
    pub(crate) fn identify(&mut self, number: Number, identity: Identity) {
        let node = self.node_mut(number);
        node.config.identity = identity;
        let (peers, cluster_id) = (node.peers.clone(), node.cluster_id);
        self.configure(number, peers, cluster_id);
    }

    /// The peers of a node.
    pub(crate) fn peers(&self, number: Number) -> Vec<PeerConfig> {
        self.node(number).peers.clone()
    }

    /// Gives a node its own prefixes.
    pub(crate) fn originate(&mut self, number: Number, prefixes: BTreeSet<Prefix>) {
        self.node_mut(number).originated.clone_from(&prefixes);
        self.input(number, Input::Originate(prefixes));
    }

    /// Lets an input happen to a node, and does what follows. A node that is down notices nothing.
    pub(crate) fn input(&mut self, number: Number, input: Input) {
        let now = self.now;
        if let Some(speaker) = self.node_mut(number).speaker.as_mut() {
            speaker.handle(input, now);
            self.round(number);
        }
    }

    /// Changes a link. What is under way on it still arrives.
    pub(crate) fn set_link(&mut self, a: Number, b: Number, link: Link) {
        self.links.insert((a.min(b), a.max(b)), link);
    }

    /// Every connection between two nodes ends, as when a packet of theirs meets a reset.
    pub(crate) fn reset(&mut self, a: Number, b: Number) {
        let ends: Vec<_> = self.streams.iter().filter(|(x, y)| x.0 == a && y.0 == b).map(|(x, y)| (*x, *y)).collect();
        for (x, y) in ends {
            self.streams.remove(&x);
            self.streams.remove(&y);
            self.input(x.0, Input::Closed { conn: x.1 });
            self.input(y.0, Input::Closed { conn: y.1 });
        }
    }

    /// The agent of a node is killed. The kernel closes its connections and keeps its routes.
    pub(crate) fn kill(&mut self, number: Number) {
        self.node_mut(number).speaker = None;
        let ends: Vec<_> = self.streams.iter().filter(|(x, _)| x.0 == number).map(|(x, y)| (*x, *y)).collect();
        for (x, y) in ends {
            self.streams.remove(&x);
            self.streams.remove(&y);
            self.send(x.0, y, Event::Closed { at: y });
        }
    }

    /// The node loses its power: its peers are told nothing, its kernel's routes are gone.
    pub(crate) fn power_off(&mut self, number: Number) {
        let node = self.node_mut(number);
        node.speaker = None;
        node.kernel.clear();
        // The peers keep their ends, as nobody tells them.
        self.streams.retain(|x, _| x.0 != number);
        for end in self.streams.values_mut().filter(|end| end.0 == number) {
            // Ids begin anew with the speaker's next life.
            *end = (number, ConnId::new(u64::MAX));
        }
    }

    /// The agent of a node starts again, with these families' kernel routes preserved.
    pub(crate) fn start(&mut self, number: Number, preserved: Families) {
        let now = self.now;
        let node = self.node_mut(number);
        node.config.preserved = preserved;
        node.speaker = Some(Speaker::new(node.config.clone(), now));
        node.life += 1;
        node.fresh.clear();
        node.in_sync.clear();
        node.watched.clear();
        let (peers, cluster_id, originated) = (node.peers.clone(), node.cluster_id, node.originated.clone());
        self.configure(number, peers, cluster_id);
        self.input(number, Input::Originate(originated));
    }

    /// A next hop can be reached from a node, or cannot.
    pub(crate) fn set_next_hop(&mut self, number: Number, address: IpAddr, reachable: bool) {
        let node = self.node_mut(number);
        if reachable {
            node.unreachable.remove(&address);
        } else {
            node.unreachable.insert(address);
        }
        if node.watched.contains(&address) {
            let state = NextHopState { address, metric: reachable.then_some(0) };
            self.input(number, Input::NextHop(state));
        }
    }

    /// Lets time pass.
    pub(crate) fn run(&mut self, time: Duration) {
        let end = self.now + time;
        self.run_while(end, |_| true);
        self.now = end;
    }

    /// Lets time pass until the condition holds; fails when it does not within the limit.
    #[track_caller]
    pub(crate) fn run_until(&mut self, limit: Duration, mut condition: impl FnMut(&Self) -> bool) {
        let end = self.now + limit;
        self.run_while(end, |net| !condition(net));
        assert!(condition(self), "not within {limit:?}");
    }

    fn run_while(&mut self, end: Instant, mut goes_on: impl FnMut(&Self) -> bool) {
        while goes_on(self) {
            let arrival = self.queue.first_key_value().map(|((at, _), _)| *at);
            let timer =
                self.nodes.iter().filter_map(|(number, node)| Some((node.speaker.as_ref()?.timeout()?, *number))).min();
            match (arrival, timer) {
                (Some(at), timer) if at <= end && timer.is_none_or(|(due, _)| at <= due) => {
                    self.now = self.now.max(at);
                    if let Some((_, event)) = self.queue.pop_first() {
                        self.happen(event);
                    }
                }
                (_, Some((due, number))) if due <= end => {
                    self.now = self.now.max(due);
                    self.input(number, Input::Tick);
                }
                _ => return,
            }
        }
    }

    fn happen(&mut self, event: Event) {
        match event {
            Event::Dial { from, local, to, remote } => {
                let Some(speaker) = self.node_mut(to).speaker.as_mut() else {
                    self.send(to, from, Event::Refused { at: from });
                    return;
                };
                let conn = speaker.conn_id();
                let at = (to, conn);
                self.streams.insert(from, at);
                self.streams.insert(at, from);
                self.send(to, from, Event::Connected { at: from, local });
                self.input(to, Input::Accepted { conn, local: remote, remote: SocketAddr::new(local, 50_000) });
            }
            Event::Connected { at, local } if self.streams.contains_key(&at) => {
                self.input(at.0, Input::Connected { conn: at.1, local: SocketAddr::new(local, 50_000) });
            }
            Event::Refused { at } => {
                self.input(at.0, Input::ConnectFailed { conn: at.1, error: "connection refused".to_owned() });
            }
            Event::Octets { at, mut octets } if self.streams.contains_key(&at) => {
                while let Some(length) = frame_length(&octets).unwrap() {
                    let message = octets.split_to(length);
                    self.input_quietly(at.0, Input::Received { conn: at.1, message });
                }
                assert!(octets.is_empty(), "messages are handed out whole");
                self.round(at.0);
            }
            Event::Closed { at } => {
                self.streams.remove(&at);
                self.input(at.0, Input::Closed { conn: at.1 });
            }
            Event::Probed { from, to } => {
                // A kernel that does not know the connection resets it.
                let known = self.streams.get(&to) == Some(&from);
                let answer = if known { Event::Acknowledged { at: from } } else { Event::Closed { at: from } };
                self.send(to.0, from, answer);
            }
            Event::Acknowledged { at } => self.input(at.0, Input::Acknowledged { conn: at.1 }),
            Event::NextHop { at, life, state } if self.node(at).life == life => {
                self.input(at, Input::NextHop(state));
            }
            Event::Connected { .. } | Event::Octets { .. } | Event::NextHop { .. } => {}
        }
    }

    /// Several inputs, one round.
    fn input_quietly(&mut self, number: Number, input: Input) {
        let now = self.now;
        if let Some(speaker) = self.node_mut(number).speaker.as_mut() {
            speaker.handle(input, now);
        }
    }

    fn round(&mut self, number: Number) {
        while let Some(action) = self.node_mut(number).speaker.as_mut().and_then(Speaker::poll_action) {
            self.act(number, action);
        }
        let now = self.now;
        let mut sent = Vec::new();
        if let Some(speaker) = self.node_mut(number).speaker.as_mut() {
            while let Some(conn) = speaker.poll_transmit() {
                loop {
                    let mut out = Vec::new();
                    speaker.transmit(conn, &mut out, 4_096, now);
                    if out.is_empty() {
                        break;
                    }
                    sent.extend(out.into_iter().map(|octets| (conn, octets)));
                }
            }
        }
        for (conn, octets) in sent {
            self.send_octets((number, conn), octets);
        }
    }

    fn act(&mut self, number: Number, action: Action) {
        match action {
            Action::Connect { conn, remote, local } => {
                let owner = self.nodes.iter().find(|(_, node)| node.addresses.contains(&remote.ip()));
                let Some(to) = owner.map(|(number, _)| *number) else { return };
                let local = local.unwrap_or_else(|| address(number, Family::of(remote.ip())));
                let from = (number, conn);
                self.send(number, (to, conn), Event::Dial { from, local, to, remote });
            }
            Action::Close { conn, last_words } => {
                let from = (number, conn);
                for octets in last_words {
                    self.send_octets(from, octets);
                }
                if let Some(to) = self.streams.remove(&from) {
                    self.send(number, to, Event::Closed { at: to });
                }
            }
            Action::Probe { conn } => {
                let from = (number, conn);
                if let Some(to) = self.streams.get(&from).copied() {
                    self.send(number, to, Event::Probed { from, to });
                }
            }
            Action::Fib(update) => self.fib(number, update),
            Action::Watch(NextHopWatch::Track(address)) => {
                let now = self.now;
                let node = self.node_mut(number);
                node.watched.insert(address);
                let metric = (!node.unreachable.contains(&address)).then_some(0);
                let (life, due) = (node.life, now + node.resolve_time);
                let state = NextHopState { address, metric };
                self.enqueue(due, Event::NextHop { at: number, life, state });
            }
            Action::Watch(NextHopWatch::Untrack(address)) => {
                self.node_mut(number).watched.remove(&address);
            }
            Action::Event { peer, event } => self.node_mut(number).events.push((peer, event)),
        }
    }

    /// What felix does.
    fn fib(&mut self, number: Number, update: FibUpdate) {
        let time = self.now - self.start;
        let node = self.node_mut(number);
        match update {
            FibUpdate::Set { prefix, next_hops } => {
                assert!(!next_hops.is_empty());
                node.kernel.insert(prefix, next_hops);
                node.fresh.insert(prefix);
            }
            FibUpdate::Withdraw { prefix } => {
                node.fresh.remove(&prefix);
                if node.kernel.remove(&prefix).is_some() {
                    node.lost.push((time, prefix));
                }
            }
            FibUpdate::InSync { family } => {
                assert!(!node.in_sync.contains(&family), "said once");
                node.in_sync.push(family);
                let stale = |prefix: &Prefix| prefix.family() == family && !node.fresh.contains(prefix);
                let gone: Vec<_> = node.kernel.keys().filter(|prefix| stale(prefix)).copied().collect();
                for prefix in gone {
                    node.kernel.remove(&prefix);
                    node.lost.push((time, prefix));
                }
            }
        }
    }

    fn send_octets(&mut self, from: End, octets: Bytes) {
        if let Some(to) = self.streams.get(&from).copied() {
            self.send(from.0, to, Event::Octets { at: to, octets });
        }
    }

    /// Sends something from a node to an end, in order, unless the link loses it.
    fn send(&mut self, from: Number, to: End, event: Event) {
        let link = (from.min(to.0), from.max(to.0));
        let delay = match self.links.get(&link) {
            Some(Link::Silent) => return,
            Some(Link::Slow(delay)) => *delay,
            Some(Link::Up) | None => Duration::ZERO,
        };
        let jitter = self.latency * u32::try_from(self.random() % 1_000).unwrap() / 1_000;
        let arrival = self.arrivals.entry(to).or_insert(self.now);
        *arrival = (*arrival).max(self.now + delay + self.latency + jitter);
        let arrival = *arrival;
        self.enqueue(arrival, event);
    }

    fn enqueue(&mut self, due: Instant, event: Event) {
        self.sequence += 1;
        self.queue.insert((due, self.sequence), event);
    }

    fn random(&mut self) -> u64 {
        self.seed ^= self.seed << 13;
        self.seed ^= self.seed >> 7;
        self.seed ^= self.seed << 17;
        self.seed
    }
}

impl Node {
    /// Whether all sessions are up.
    pub(crate) fn is_established(&self) -> bool {
        self.speaker
            .as_ref()
            .is_some_and(|speaker| speaker.peers().all(|peer| peer.state == types::SessionState::Established))
    }

    /// What the node originates from its next start on.
    pub(crate) fn set_originated(&mut self, prefixes: BTreeSet<Prefix>) {
        self.originated = prefixes;
    }

    /// The UPDATEs that the speaker has sent.
    pub(crate) fn updates_sent(&self) -> u64 {
        self.speaker.iter().flat_map(|speaker| speaker.peers()).map(|peer| peer.counters.sent.update).sum()
    }
}

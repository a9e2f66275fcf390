//! A whole speaker between two peers, with everything that they, the kernel and the operator can do to it.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{IpAddr, SocketAddr};
use std::time::{Duration, Instant};

use bgp_proto::wire::{
    AfiSafi, AsPath, Capability, Codec, Families, GracefulRestart, HoldTime, Message, Open, Origin, Packer,
    PathAttributes, PeerType, RouteRefresh, keepalive,
};
use bgp_proto::{Action, ByFamily, ConnId, Identity, ImportPolicy, Input, PeerConfig, Speaker, SpeakerConfig, Verdict};
use bytes::Bytes;
use types::{Asn, ClusterId, Family, FibUpdate, NextHopState, NextHopWatch, Prefix, RouterId, SessionState};

use crate::script::{Script, framed};

/// Drives a speaker by a script. At the end, when the peers have read all and the kernel has answered all:
///
/// - the kernel has the routes that the tables say are used;
/// - the counts are those of the tables;
/// - each peer has been told what it is told when it asks for everything again.
pub fn speaker(octets: &[u8]) {
    let mut script = Script::new(octets);
    let mut bench = Bench::new(&mut script);
    while !script.is_over() {
        bench.step(&mut script);
    }
    bench.finish();
}

/// What a peer has been told of a prefix: its attributes and its next hop.
type Told = BTreeMap<Prefix, (PathAttributes, IpAddr)>;

/// A peer, as far as the speaker sees it.
struct Remote {
    config: PeerConfig,
    /// Whether the speaker has it configured.
    configured: bool,
    /// The connections with it, dialled ones that are not answered yet with `false`.
    conns: BTreeMap<ConnId, bool>,
    /// Whether it does not read what it is sent.
    blocked: bool,
    /// The connection that its session is over, and what was agreed on.
    session: Option<(ConnId, Codec)>,
    /// What it has been told over that session.
    told: Told,
}

struct Bench {
    speaker: Speaker,
    now: Instant,
    remotes: [Remote; 2],
    kernel: BTreeMap<Prefix, Vec<IpAddr>>,
    in_sync: Families,
    restarted: bool,
    watched: BTreeSet<IpAddr>,
    unreachable: BTreeSet<IpAddr>,
    identity: Identity,
    cluster_id: Option<ClusterId>,
}

const LOCAL: [u8; 4] = [192, 0, 2, 5];

fn asn(number: u32) -> Asn {
    Asn::new(number).unwrap()
}

/// The prefixes of which all scripts speak: within pools and without, of both families, some within others.
fn prefixes() -> [Prefix; 8] {
    [
        "10.65.0.0/26",
        "10.65.0.64/26",
        "10.65.0.1/32",
        "10.99.0.0/16",
        "0.0.0.0/0",
        "fd00:65::/122",
        "fd00:65::40/122",
        "fd00:99::/64",
    ]
    .map(|text| text.parse().unwrap())
}

fn import(how: u8) -> ImportPolicy {
    let pools: &[&str] = if how & 1 == 0 { &["10.65.0.0/16", "fd00:65::/32"] } else { &["10.65.0.0/26"] };
    let prefixes: &[&str] = if how & 2 == 0 { &[] } else { &["0.0.0.0/0", "10.99.0.0/16"] };
    let parse = |texts: &[&str]| texts.iter().map(|text| text.parse().unwrap()).collect();
    ImportPolicy { pools: parse(pools), prefixes: parse(prefixes) }
}

impl Remote {
    /// A peer of a kind: internal, a client of ours, external, or external and told everything.
    fn new(number: u8, kind: u8) -> Self {
        let address = IpAddr::from([192, 0, 2, number]);
        let local = Asn::DEFAULT;
        let theirs = if kind & 2 == 0 { local } else { asn(64_600 + u32::from(number)) };
        let mut config = PeerConfig::new(address, theirs, local);
        config.families = Families::ALL;
        config.local_address = Some(LOCAL.into());
        config.route_reflector_client = kind & 3 == 1;
        config.export_all = kind & 3 == 3;
        config.shared_subnet = (kind & 4 != 0).then(|| "192.0.2.0/24".parse().unwrap());
        config.max_prefixes = (kind & 8 != 0).then_some(4);
        config.passive = kind & 16 != 0;
        Self { config, configured: true, conns: BTreeMap::new(), blocked: false, session: None, told: BTreeMap::new() }
    }

    /// How it reads and writes before and after a session is established.
    fn codec(&self) -> Codec {
        let peer_type = if self.config.is_internal() { PeerType::Internal } else { PeerType::External };
        self.session.map_or(Codec { four_octet_as: true, peer_type, families: Families::ALL }, |(_, codec)| codec)
    }

    /// What it is told over its session.
    fn hear(&mut self, message: &Bytes) {
        let Message::Update(update) = self.codec().decode(message).unwrap() else { return };
        assert_eq!(update.faults, [], "the speaker sends what is malformed");
        for prefix in update.withdrawn {
            self.told.remove(&prefix);
        }
        for reach in update.reach {
            let attributes = update.attributes.as_ref().unwrap();
            for prefix in reach.prefixes {
                assert!(
                    self.config.is_internal() || !attributes.as_path.contains(self.config.asn),
                    "{prefix} is told to an AS that it came through"
                );
                self.told.insert(prefix, (attributes.clone(), reach.next_hop));
            }
        }
    }
}

impl Bench {
    fn new(script: &mut Script<'_>) -> Self {
        let now = Instant::now();
        let terms = script.octet();
        let identity = Identity {
            router_id: RouterId::new(LOCAL.into()).unwrap(),
            addresses: ByFamily { ipv4: Some(LOCAL.into()), ipv6: Some("fd00:192::5".parse().unwrap()) },
        };
        let restarted = terms & 4 != 0;
        let config = SpeakerConfig {
            identity,
            restart_time: if terms & 8 == 0 { Duration::from_secs(120) } else { Duration::ZERO },
            preserved: if restarted { Families::ALL } else { Families::NONE },
            import: import(terms),
        };
        let remotes = [Remote::new(1, script.octet()), Remote::new(9, script.octet())];
        let mut bench = Self {
            speaker: Speaker::new(config, now),
            now,
            remotes,
            kernel: BTreeMap::new(),
            in_sync: Families::NONE,
            restarted,
            watched: BTreeSet::new(),
            unreachable: BTreeSet::new(),
            identity,
            cluster_id: (terms & 16 != 0).then_some(ClusterId([10, 0, 0, 1].into())),
        };
        bench.configure();
        bench
    }

    fn step(&mut self, script: &mut Script<'_>) {
        let what = script.octet();
        let number = usize::from(what >> 7);
        match what % 16 {
            0 => self.come_up(number, script.octet()),
            1..=4 => self.announce(number, script),
            5 => self.withdraw(number, script.octet()),
            6 => self.end(number, script.octet()),
            7 => self.pass(Duration::from_millis(u64::from(script.octet()) * 500)),
            8 => {
                let chosen = script.octet();
                let prefixes = prefixes().into_iter().enumerate().filter(|(bit, _)| chosen >> bit & 1 != 0);
                self.input(Input::Originate(prefixes.map(|(_, prefix)| prefix).collect()));
            }
            9 => self.input(Input::Import(import(script.octet()))),
            10 => {
                let address = next_hop(script.octet());
                if !self.unreachable.remove(&address) {
                    self.unreachable.insert(address);
                }
                if self.watched.contains(&address) {
                    self.answer(address);
                }
            }
            11 => self.reconfigure(number, script.octet()),
            12 => {
                self.remotes[number].blocked = !self.remotes[number].blocked;
                self.transmit_all();
            }
            13 => {
                let family = Family::ALL[usize::from(script.octet() & 1)];
                self.say(number, RouteRefresh::request(AfiSafi::unicast(family)).encode());
            }
            14 => {
                let family = Family::ALL[usize::from(script.octet() & 1)];
                let mut packer = Packer::new(self.remotes[number].codec());
                packer.end_of_rib(family);
                self.say(number, packer.take().octets);
            }
            _ => {
                let kind = script.octet();
                let length = usize::from(script.octet() % 80);
                self.say(number, framed(2 + kind % 4, script.octets(length)).into());
            }
        }
    }

    /// The peer answers a dial, or dials, and its handshake is completed.
    fn come_up(&mut self, number: usize, how: u8) {
        let remote = &mut self.remotes[number];
        let address = remote.config.address;
        let dialled = remote.conns.iter().find(|(_, open)| !**open).map(|(conn, _)| *conn);
        let conn = match dialled.filter(|_| how & 1 == 0) {
            Some(conn) => {
                remote.conns.insert(conn, true);
                self.input(Input::Connected { conn, local: SocketAddr::new(LOCAL.into(), 50_000) });
                conn
            }
            None => {
                let conn = self.speaker.conn_id();
                remote.conns.insert(conn, true);
                let (local, remote) = (SocketAddr::new(LOCAL.into(), 179), SocketAddr::new(address, 50_000));
                self.input(Input::Accepted { conn, local, remote });
                conn
            }
        };
        let open = self.open(number, how);
        self.receive(number, conn, open);
        self.receive(number, conn, keepalive());
    }

    fn open(&self, number: usize, how: u8) -> Bytes {
        let config = &self.remotes[number].config;
        let mut capabilities = vec![Capability::RouteRefresh];
        capabilities.extend(Family::ALL.map(AfiSafi::unicast).map(Capability::Multiprotocol));
        if how & 2 == 0 {
            capabilities.push(Capability::FourOctetAs(config.asn));
        }
        if how & 4 == 0 {
            let forwarding = if how & 8 == 0 { Families::ALL } else { Families::NONE };
            let terms = GracefulRestart::new(how & 16 != 0, Duration::from_secs(60), Families::ALL, forwarding);
            capabilities.push(Capability::GracefulRestart(terms));
        }
        let IpAddr::V4(id) = config.address else { panic!("a peer with an IPv6 address") };
        let hold_time = HoldTime::from_secs(30).unwrap();
        Open { asn: config.asn, hold_time, router_id: RouterId::new(id).unwrap(), capabilities }.encode()
    }

    fn announce(&mut self, number: usize, script: &mut Script<'_>) {
        let (which, how, more) = (script.octet(), script.octet(), script.octet());
        let remote = &self.remotes[number];
        let all = prefixes();
        let prefix = all[usize::from(which) % all.len()];
        let internal = remote.config.is_internal();
        let origin = [Origin::Igp, Origin::Igp, Origin::Egp, Origin::Incomplete][usize::from(how & 3)];
        let path: Vec<Asn> = [
            (!internal).then_some(remote.config.asn),
            (how & 4 != 0).then(|| asn(64_700)),
            (how & 8 != 0).then(|| asn(400_000)),
            // Told back, or on to where it came from.
            (how & 0xf0 == 0xf0).then(|| asn(64_601)),
        ]
        .into_iter()
        .flatten()
        .collect();
        let attributes = PathAttributes {
            origin,
            as_path: if path.is_empty() { AsPath::empty() } else { AsPath::sequence(path) },
            med: (more & 1 != 0).then_some(u32::from(how >> 4)),
            local_pref: internal.then_some(if more & 2 == 0 { 100 } else { 50 }),
            communities: match more >> 2 & 3 {
                1 => vec![0xffff_ff01],
                2 => vec![0xffff_ff02],
                3 => vec![0xfc00_0001; 3],
                _ => Vec::new(),
            },
            originator_id: (internal && more & 16 != 0).then(|| RouterId::new([10, 9, 9, 9].into()).unwrap()),
            cluster_list: if internal && more & 32 != 0 { vec![ClusterId([10, 9, 9, 1].into())] } else { Vec::new() },
            ..PathAttributes::default()
        };
        let next_hop = match prefix.family() {
            Family::Ipv4 => next_hop(which >> 4),
            Family::Ipv6 => "fd00:192::1".parse().unwrap(),
        };
        let mut packer = Packer::new(remote.codec());
        packer.reach(next_hop, None, &attributes, [prefix]).unwrap();
        self.say(number, packer.take().octets);
    }

    fn withdraw(&mut self, number: usize, which: u8) {
        let all = prefixes();
        let prefix = all[usize::from(which) % all.len()];
        let mut packer = Packer::new(self.remotes[number].codec());
        packer.withdraw(prefix.family(), [prefix]);
        self.say(number, packer.take().octets);
    }

    /// The peer's connections end, one or all; or cannot be had.
    fn end(&mut self, number: usize, how: u8) {
        let conns: Vec<_> = self.remotes[number].conns.iter().map(|(conn, open)| (*conn, *open)).collect();
        for (conn, open) in conns.into_iter().take(usize::from(how % 3) + 1) {
            self.remotes[number].conns.remove(&conn);
            if open {
                self.input(Input::Closed { conn });
            } else {
                self.input(Input::ConnectFailed { conn, error: "no route".to_owned() });
            }
        }
    }

    fn reconfigure(&mut self, number: usize, how: u8) {
        let remote = &mut self.remotes[number];
        if how & 1 != 0 {
            remote.configured = !remote.configured;
        }
        if how & 2 != 0 && !remote.config.is_internal() {
            remote.config.export_all = !remote.config.export_all;
        }
        if how & 4 != 0 {
            remote.config.route_reflector_client = remote.config.is_internal() && !remote.config.route_reflector_client;
        }
        if how & 8 != 0 {
            self.cluster_id = self.cluster_id.xor(Some(ClusterId([10, 0, 0, 2].into())));
        }
        if how & 16 != 0 {
            let other = "fd00:192::6".parse().unwrap();
            self.identity.addresses.ipv6 = self.identity.addresses.ipv6.xor(Some(other));
        }
        self.configure();
    }

    fn configure(&mut self) {
        let peers = self.remotes.iter().filter(|remote| remote.configured).map(|remote| remote.config.clone());
        let (peers, identity, cluster_id) = (peers.collect(), self.identity, self.cluster_id);
        self.input(Input::Configure { identity, peers, cluster_id });
    }

    /// The peer sends this over its session, or over some connection that it has.
    fn say(&mut self, number: usize, message: Bytes) {
        let remote = &self.remotes[number];
        let open = remote.conns.iter().find(|(_, open)| **open).map(|(conn, _)| *conn);
        if let Some(conn) = remote.session.map(|(conn, _)| conn).or(open) {
            self.receive(number, conn, message);
        }
    }

    fn receive(&mut self, number: usize, conn: ConnId, message: Bytes) {
        if self.remotes[number].conns.get(&conn) == Some(&true) {
            self.input(Input::Received { conn, message });
        }
    }

    /// The kernel says whether a next hop is reached.
    fn answer(&mut self, address: IpAddr) {
        let metric = (!self.unreachable.contains(&address)).then_some(u32::from(address.is_ipv6()));
        self.input(Input::NextHop(NextHopState { address, metric }));
    }

    fn pass(&mut self, time: Duration) {
        let end = self.now + time;
        let mut ticks = 0_u32;
        while let Some(at) = self.speaker.timeout().filter(|at| *at <= end) {
            self.now = self.now.max(at);
            self.input(Input::Tick);
            ticks += 1;
            assert!(ticks < 10_000, "the timers run hot");
        }
        self.now = end;
    }

    /// A round: the input, what is to be done, what is to be sent.
    fn input(&mut self, input: Input) {
        self.speaker.handle(input, self.now);
        self.settle();
    }

    fn settle(&mut self) {
        let (mut asked, mut probed) = (Vec::new(), Vec::new());
        while let Some(action) = self.speaker.poll_action() {
            self.act(action, &mut asked, &mut probed);
        }
        self.follow_sessions();
        while let Some(conn) = self.speaker.poll_transmit() {
            self.transmit(conn);
        }
        for conn in probed {
            self.input(Input::Acknowledged { conn });
        }
        for address in asked {
            if self.watched.contains(&address) {
                self.answer(address);
            }
        }
    }

    fn act(&mut self, action: Action, asked: &mut Vec<IpAddr>, probed: &mut Vec<ConnId>) {
        match action {
            Action::Connect { conn, remote, .. } => {
                let remote = self.remotes.iter_mut().find(|each| each.config.address == remote.ip()).unwrap();
                assert!(remote.configured && !remote.config.passive);
                assert_eq!(remote.conns.insert(conn, false), None);
            }
            Action::Close { conn, last_words } => {
                let remote = self.remotes.iter_mut().find(|remote| remote.conns.contains_key(&conn));
                let remote = remote.expect("only connections that there are are closed");
                remote.conns.remove(&conn);
                for message in last_words {
                    assert!(remote.codec().decode(&message).is_ok());
                }
            }
            Action::Fib(FibUpdate::Set { prefix, next_hops }) => {
                assert!(!next_hops.is_empty() && next_hops.is_sorted(), "{prefix} through {next_hops:?}");
                self.kernel.insert(prefix, next_hops);
            }
            Action::Fib(FibUpdate::Withdraw { prefix }) => {
                assert!(self.kernel.remove(&prefix).is_some() || self.restarted, "{prefix} was never there");
            }
            Action::Fib(FibUpdate::InSync { family }) => {
                assert!(!self.in_sync.contains(family), "{family} comes into sync twice");
                self.in_sync = self.in_sync.with(family);
            }
            Action::Watch(NextHopWatch::Track(address)) => {
                assert!(self.watched.insert(address), "{address} is watched twice");
                asked.push(address);
            }
            Action::Watch(NextHopWatch::Untrack(address)) => {
                assert!(self.watched.remove(&address), "{address} was not watched");
            }
            // The peer's TCP answers where the peer reads.
            Action::Probe { conn } => {
                let remote = self.remotes.iter().find(|remote| remote.conns.contains_key(&conn)).unwrap();
                if !remote.blocked {
                    probed.push(conn);
                }
            }
            Action::Event { .. } => {}
        }
    }

    /// Notices sessions that have come or gone.
    fn follow_sessions(&mut self) {
        for status in self.speaker.peers() {
            let remote = self.remotes.iter_mut().find(|remote| remote.config.address == status.config.address).unwrap();
            assert_eq!(status.state == SessionState::Established, status.negotiated.is_some());
            let codec = status.negotiated.map(bgp_proto::session::Negotiated::codec);
            let conn = status.connection;
            let session = conn.zip(codec);
            if session != remote.session {
                // Octets of an update group are the same for all its peers, whoever was told what before.
                remote.session = session;
                remote.told.clear();
            }
        }
        for remote in self.remotes.iter_mut().filter(|remote| !remote.configured) {
            assert_eq!(remote.conns.len(), 0, "connections of a peer that is not configured");
            (remote.session, remote.told) = (None, Told::new());
        }
    }

    fn transmit_all(&mut self) {
        for conn in self.remotes.iter().flat_map(|remote| remote.conns.keys().copied()).collect::<Vec<_>>() {
            self.transmit(conn);
        }
        self.settle();
    }

    fn transmit(&mut self, conn: ConnId) {
        let Some(remote) = self.remotes.iter_mut().find(|remote| remote.conns.contains_key(&conn)) else { return };
        loop {
            if remote.blocked {
                return;
            }
            let mut out = Vec::new();
            self.speaker.transmit(conn, &mut out, 256, self.now);
            if out.is_empty() {
                return;
            }
            for message in out {
                let mut octets = message;
                while let Some(length) = bgp_proto::wire::frame_length(&octets).unwrap() {
                    let message = octets.split_to(length);
                    if remote.session.is_some_and(|(session, _)| session == conn) {
                        remote.hear(&message);
                    }
                }
            }
        }
    }

    fn finish(mut self) {
        for remote in &mut self.remotes {
            remote.blocked = false;
        }
        self.transmit_all();
        self.check_tables();
        for number in 0..self.remotes.len() {
            self.check_told(number);
        }
    }

    fn check_tables(&self) {
        let mut used: BTreeMap<Prefix, Vec<IpAddr>> = BTreeMap::new();
        let mut counts: BTreeMap<(IpAddr, Family), u32> = BTreeMap::new();
        for family in Family::ALL {
            for route in self.speaker.routes(family, None) {
                assert!(route.paths.iter().filter(|path| path.verdict == Verdict::Best).count() <= 1);
                for path in &route.paths {
                    *counts.entry((path.peer, family)).or_default() += 1;
                }
                let paths = route.paths.iter().filter(|path| path.verdict.is_used() && !route.own);
                let next_hops: BTreeSet<IpAddr> = paths.map(|path| path.next_hop).collect();
                if !next_hops.is_empty() {
                    used.insert(route.prefix, next_hops.into_iter().collect());
                }
            }
        }
        for family in Family::ALL {
            let of = |routes: &BTreeMap<Prefix, Vec<IpAddr>>| -> BTreeMap<Prefix, Vec<IpAddr>> {
                routes.iter().filter(|(prefix, _)| prefix.family() == family).map(|(k, v)| (*k, v.clone())).collect()
            };
            let (kernel, used) = (of(&self.kernel), of(&used));
            if !self.restarted || self.in_sync.contains(family) {
                assert_eq!(kernel, used, "the kernel has other routes than the tables");
            } else {
                // Deletions wait, and nothing else does.
                assert!(used.iter().all(|(prefix, next_hops)| kernel.get(prefix) == Some(next_hops)));
            }
        }
        for status in self.speaker.peers() {
            for family in Family::ALL {
                let count = counts.get(&(status.config.address, family)).copied().unwrap_or_default();
                assert_eq!(status.routes.of(family).received, count, "the count of {}", status.config.address);
            }
        }
        let watched_in_use = used.values().flatten().all(|next_hop| self.watched.contains(next_hop));
        assert!(watched_in_use, "a next hop in use that is not watched");
    }

    /// What the peer was told little by little is what it is told at once.
    fn check_told(&mut self, number: usize) {
        let Some((_, codec)) = self.remotes[number].session else { return };
        let told = std::mem::take(&mut self.remotes[number].told);
        for family in codec.families.iter() {
            self.say(number, RouteRefresh::request(AfiSafi::unicast(family)).encode());
        }
        assert_eq!(told, self.remotes[number].told, "{} was told something else", self.remotes[number].config.address);
    }
}

/// The next hops of which all scripts speak; the last is the speaker's own address.
fn next_hop(number: u8) -> IpAddr {
    [[192, 0, 2, 1], [192, 0, 2, 9], [198, 51, 100, 1], LOCAL][usize::from(number & 3)].into()
}

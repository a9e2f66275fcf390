//! A policy that is tightened also ends the connections that it now forbids, and no others.

use std::error::Error;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv6Addr, SocketAddr, TcpListener, TcpStream, UdpSocket};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tests::reach::Question;
use tests::{Place, Pod, PodSpec, can_run_labs, run_in, wait_until};
use types::Family;
use types::policy::Protocol;

use super::world::World;
use crate::{CONVERGENCE, TestResult};

/// Who of a connection sends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Talker {
    Client,
    Server,
    Nobody,
}

/// A flow between two pods, and how much of it has arrived.
pub(crate) struct Flow {
    talker: Talker,
    stop: Arc<AtomicBool>,
    arrived: Arc<AtomicU64>,
    /// Both ends of one where nobody talks.
    idle: Option<[TcpStream; 2]>,
    threads: Vec<JoinHandle<()>>,
}

impl Flow {
    /// A TCP connection from one pod to another.
    fn tcp(client: &Pod, server: &Pod, address: IpAddr, talker: Talker) -> Result<Self, Box<dyn Error>> {
        let listener = run_in(&server.netns()?, || TcpListener::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        let target = SocketAddr::new(address, listener.local_addr()?.port());
        Self::tcp_to(client, target, &listener, talker)
    }

    /// A TCP connection to an address that leads to this listener.
    pub(crate) fn tcp_to(
        client: &Pod,
        target: SocketAddr,
        listener: &TcpListener,
        talker: Talker,
    ) -> Result<Self, Box<dyn Error>> {
        let client = run_in(&client.netns()?, || TcpStream::connect_timeout(&target, Duration::from_secs(5)))?;
        let (server, _) = listener.accept()?;
        for end in [&client, &server] {
            end.set_read_timeout(Some(Duration::from_millis(50)))?;
            end.set_write_timeout(Some(Duration::from_millis(50)))?;
            end.set_nodelay(true)?;
        }
        let mut flow = Self::new(talker);
        let (from, to) = match talker {
            Talker::Client => (client, server),
            Talker::Server => (server, client),
            Talker::Nobody => {
                flow.idle = Some([client, server]);
                return Ok(flow);
            }
        };
        flow.spawn(move || {
            let _ = (&from).write(&[1; 100]);
        });
        flow.count(move |bytes| (&to).read(bytes));
        Ok(flow)
    }

    /// Datagrams from one pod to another, of which the first is answered, so that the flow is established. No more are: an
    /// answer on its way while the flow is cut would open it again from the other end, which is allowed to send.
    fn udp(client: &Pod, server: &Pod, address: IpAddr) -> Result<Self, Box<dyn Error>> {
        let server = run_in(&server.netns()?, || UdpSocket::bind(SocketAddr::new(address, 0)))?;
        let target = server.local_addr()?;
        Self::udp_to(client, target, server)
    }

    /// [`Flow::udp`], to an address that leads to this socket.
    pub(crate) fn udp_to(client: &Pod, target: SocketAddr, server: UdpSocket) -> Result<Self, Box<dyn Error>> {
        let socket = run_in(&client.netns()?, || UdpSocket::bind((Ipv6Addr::UNSPECIFIED, 0)))?;
        for end in [&server, &socket] {
            end.set_read_timeout(Some(Duration::from_millis(50)))?;
        }
        let mut flow = Self::new(Talker::Client);
        flow.spawn(move || {
            let _ = socket.send_to(&[1; 100], target);
        });
        let answered = AtomicBool::new(false);
        flow.count(move |bytes| {
            let (length, source) = server.recv_from(bytes)?;
            if !answered.swap(true, Ordering::Relaxed) {
                let _ = server.send_to(&[1], source);
            }
            Ok(length)
        });
        Ok(flow)
    }

    fn new(talker: Talker) -> Self {
        Self { talker, stop: Arc::default(), arrived: Arc::default(), idle: None, threads: Vec::new() }
    }

    /// Does something every 5 ms.
    fn spawn(&mut self, each: impl Fn() + Send + 'static) {
        let stop = Arc::clone(&self.stop);
        self.threads.push(thread::spawn(move || {
            while !stop.load(Ordering::Relaxed) {
                each();
                thread::sleep(Duration::from_millis(5));
            }
        }));
    }

    /// Counts what arrives.
    fn count(&mut self, read: impl Fn(&mut [u8]) -> std::io::Result<usize> + Send + 'static) {
        let (stop, arrived) = (Arc::clone(&self.stop), Arc::clone(&self.arrived));
        self.threads.push(thread::spawn(move || {
            let mut bytes = [0; 4096];
            while !stop.load(Ordering::Relaxed) {
                if let Ok(length) = read(&mut bytes) {
                    arrived.fetch_add(length as u64, Ordering::Relaxed);
                }
            }
        }));
    }

    fn arrived(&self) -> u64 {
        self.arrived.load(Ordering::Relaxed)
    }

    /// Waits until more arrives.
    pub(crate) fn lives(&self, what: &str) -> TestResult {
        let before = self.arrived();
        wait_until(&format!("{what} going on"), CONVERGENCE, || self.arrived() > before)?;
        Ok(())
    }

    /// Waits until nothing has arrived for longer than any retransmission of a living connection takes, from either end
    /// of one that was idle.
    pub(crate) fn is_dead(&self, what: &str) -> TestResult {
        if let Some([client, server]) = &self.idle {
            for (mut from, mut to) in [(client, server), (server, client)] {
                let _ = from.write(b"still there?");
                let until = Instant::now() + Duration::from_secs(1);
                while Instant::now() < until {
                    match to.read(&mut [0; 100]) {
                        Ok(0) => break,
                        Ok(_) => return Err(format!("{what}: an idle connection lived on").into()),
                        Err(error) if matches!(error.kind(), ErrorKind::WouldBlock | ErrorKind::TimedOut) => {}
                        Err(_) => break,
                    }
                }
            }
            return Ok(());
        }
        let (mut last, mut since) = (self.arrived(), Instant::now());
        wait_until(&format!("{what} being dead"), CONVERGENCE, || {
            if self.arrived() != last {
                (last, since) = (self.arrived(), Instant::now());
            }
            since.elapsed() > Duration::from_secs(1)
        })?;
        Ok(())
    }
}

impl Drop for Flow {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            let _ = thread.join();
        }
    }
}

/// Flows of every kind, in both families, with what to call them.
fn flows(client: &Pod, server: &Pod) -> Result<Vec<(String, Flow)>, Box<dyn Error>> {
    let mut flows = Vec::new();
    for family in Family::ALL {
        let address = server.address(family);
        let name = |kind: &str| format!("{kind} from {} to {} by {family}", client.name(), server.name());
        for talker in [Talker::Client, Talker::Server, Talker::Nobody] {
            flows.push((name(&format!("TCP, {talker:?} talking,")), Flow::tcp(client, server, address, talker)?));
        }
        flows.push((name("UDP"), Flow::udp(client, server, address)?));
    }
    Ok(flows)
}

/// Waits until all flows that talk do so.
fn all_live(flows: &[(String, Flow)]) -> TestResult {
    flows.iter().filter(|(_, flow)| flow.talker != Talker::Nobody).try_for_each(|(name, flow)| flow.lives(name))
}

/// A policy for one of the ends that admits pods with a label as the other.
fn admits(subject: &str, direction: &str, peer: &str) -> Value {
    let peers = json!([{ "podSelector": { "matchLabels": { "role": peer } } }]);
    let rules = if direction == "Ingress" { json!([{ "from": peers }]) } else { json!([{ "to": peers }]) };
    json!({
        "podSelector": { "matchLabels": { "role": subject } },
        "policyTypes": [direction],
        (direction.to_lowercase()): rules,
    })
}

#[test]
fn a_tightened_policy_cuts_the_connections_that_it_forbids_whoever_talks_and_no_others() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("cut")?;
    world.namespace("x", &[])?;
    let plug = |world: &mut World, node: &str, name: &str, role: &str| {
        world.plug(node, PodSpec::in_namespace("x", name).label("role", role))
    };
    let server = plug(&mut world, "node1", "server", "server")?;
    let near = plug(&mut world, "node1", "near", "client")?;
    let far = plug(&mut world, "node2", "far", "client")?;
    let other = plug(&mut world, "node2", "other", "other")?;
    // The policy of each end in turn: the server's ingress, then the clients' egress.
    for (subject, direction, peer) in [("server", "Ingress", "client"), ("client", "Egress", "server")] {
        world.policy("x", "only", admits(subject, direction, peer))?;
        let spared = if direction == "Ingress" {
            world.policy("x", "other", admits(subject, direction, "other"))?;
            &other
        } else {
            &other
        };
        for client in [&near, &far, spared] {
            for family in Family::ALL {
                world.converges(client, Question::new(Protocol::Tcp, server.address(family), 80), true)?;
            }
        }
        let mut doomed = flows(&near, &server)?;
        doomed.extend(flows(&far, &server)?);
        let others = flows(spared, &server)?;
        all_live(&doomed)?;
        all_live(&others)?;
        // Tightened: nobody of that role any more.
        world.policy("x", "only", admits(subject, direction, "nobody"))?;
        for client in [&near, &far] {
            for family in Family::ALL {
                world.converges(client, Question::new(Protocol::Tcp, server.address(family), 80), false)?;
            }
        }
        for (name, flow) in &doomed {
            flow.is_dead(&format!("{direction}: {name}"))?;
        }
        all_live(&others)?;
        // Loosened: what was cut is not picked up from the middle, new connections come about.
        drop(doomed);
        world.policy("x", "only", admits(subject, direction, peer))?;
        for client in [&near, &far] {
            world.converges(client, Question::new(Protocol::Tcp, server.address(Family::Ipv4), 80), true)?;
        }
        all_live(&others)?;
        world.delete_policy("x", "only")?;
        if direction == "Ingress" {
            world.delete_policy("x", "other")?;
        }
    }
    world.lab.down()?;
    Ok(())
}

#[test]
fn a_label_that_is_taken_away_cuts_connections_like_a_changed_policy() -> TestResult {
    if !can_run_labs() {
        return Ok(());
    }
    let mut world = World::up("cutlabel")?;
    world.namespace("x", &[])?;
    let server = world.plug("node1", PodSpec::in_namespace("x", "server").label("role", "server"))?;
    let far = world.plug("node2", PodSpec::in_namespace("x", "far").label("role", "client"))?;
    world.policy("x", "only", admits("server", "Ingress", "client"))?;
    world.converges(&far, Question::new(Protocol::Tcp, server.address(Family::Ipv4), 80), true)?;
    world.converges(&far, Question::new(Protocol::Tcp, server.address(Family::Ipv6), 80), true)?;
    let doomed = flows(&far, &server)?;
    all_live(&doomed)?;
    world.label("x.far", "role", None)?;
    world.converges(&far, Question::new(Protocol::Tcp, server.address(Family::Ipv4), 80), false)?;
    for (name, flow) in &doomed {
        flow.is_dead(name)?;
    }
    world.lab.down()?;
    Ok(())
}

//! A pod that is guarded by a policy, with friends and strangers: what most tests begin with.

use std::net::SocketAddr;

use serde_json::json;
use tests::{CONVERGENCE, Flood, Lab, Node, Options, Pod, PodSpec, Sink, TestResult, topology_file};
use types::Family;

use super::world::{World, default_deny, udp};

/// A server on node1 that admits friends on port 80, and one friend and one stranger on each node.
pub(crate) struct Guarded {
    /// The cluster that they are in.
    pub(crate) world: World,
    /// The pod x/server on node1.
    pub(crate) server: Pod,
    /// The pods that are admitted; one on each node.
    pub(crate) friends: [Pod; 2],
    /// The pods that are not admitted; one on each node.
    pub(crate) strangers: [Pod; 2],
}

impl Guarded {
    pub(crate) fn up(test: &str) -> Result<Self, Box<dyn std::error::Error>> {
        Self::of(World::up(test)?)
    }

    /// The same, with these variables in the environment of the agents.
    pub(crate) fn with(test: &str, env: &[(&str, &str)]) -> Result<Self, Box<dyn std::error::Error>> {
        let lab = Lab::up(&topology_file("policy.clab.yml"), &Options::unique(test).without_agents())?;
        for node in lab.manx_nodes() {
            node.agent().start_with(env)?;
        }
        for node in lab.manx_nodes() {
            node.agent().wait_ready(CONVERGENCE)?;
        }
        Self::of(World::of(lab)?)
    }

    /// The same, in a cluster that is up already.
    pub(crate) fn of(mut world: World) -> Result<Self, Box<dyn std::error::Error>> {
        world.namespace("x", &[])?;
        world.policy("x", "deny", default_deny(&["Ingress"]))?;
        world.policy(
            "x",
            "friends",
            json!({
                "podSelector": {},
                "ingress": [{ "from": [{ "podSelector": { "matchLabels": { "friend": "yes" } } }],
                              "ports": [{ "protocol": "UDP", "port": 80 }, { "protocol": "TCP", "port": 80 }] }],
            }),
        )?;
        let server = world.plug("node1", PodSpec::in_namespace("x", "server"))?;
        let friend = |world: &mut World, node: &str| {
            world.plug(node, PodSpec::in_namespace("x", &format!("friend-{node}")).label("friend", "yes"))
        };
        let friends = [friend(&mut world, "node1")?, friend(&mut world, "node2")?];
        let stranger =
            |world: &mut World, node: &str| world.plug(node, PodSpec::in_namespace("y", &format!("stranger-{node}")));
        let strangers = [stranger(&mut world, "node1")?, stranger(&mut world, "node2")?];
        let guarded = Self { world, server, friends, strangers };
        guarded.stands()?;
        Ok(guarded)
    }

    pub(crate) fn node(&self) -> &Node {
        self.world.node("node1")
    }

    /// Waits until friends pass and strangers do not, in both families.
    pub(crate) fn stands(&self) -> TestResult {
        for family in Family::ALL {
            for friend in &self.friends {
                self.world.converges(friend, udp(&self.server, family, 80), true)?;
            }
            for stranger in &self.strangers {
                self.world.converges(stranger, udp(&self.server, family, 80), false)?;
            }
        }
        Ok(())
    }

    /// Floods the server from both strangers.
    pub(crate) fn besiege(&self) -> Result<Siege, Box<dyn std::error::Error>> {
        let sink = Sink::start(&self.server, 9000)?;
        let targets: Vec<SocketAddr> = self.server.addresses().iter().map(|own| (*own, 9000).into()).collect();
        let floods =
            self.strangers.iter().map(|stranger| Flood::start(stranger, &targets, 500)).collect::<Result<_, _>>()?;
        Ok(Siege { floods, sink })
    }
}

/// Floods of datagrams that must not arrive.
pub(crate) struct Siege {
    floods: Vec<Flood>,
    sink: Sink,
}

impl Siege {
    /// Ends the floods; it is an error if anything has arrived.
    pub(crate) fn failed(self, what: &str) {
        let sent: u64 = self.floods.into_iter().map(Flood::finish).sum();
        assert!(sent > 0);
        assert_eq!(self.sink.by_source(), [].into(), "{what}: of {sent} forbidden packets some passed");
    }
}

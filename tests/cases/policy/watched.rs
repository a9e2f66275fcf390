//! Nodes that follow the policies of a real API server, and pods to try them on.

use std::error::Error;

use serde_json::{Value, json};
use tests::{ApiClient, Apiserver, CONVERGENCE, Lab, Options, Place, Pod, PodSpec, TestResult, topology_file};
use types::policy::Protocol;
use types::{EndpointPort, Family};

use super::world::{World, udp};

/// A port that friends may send to, beside 80.
pub(super) const ALLOWED: u16 = 9001;

/// Nodes that follow an API server. None of their policies are applied by manxctl.
pub(super) struct WatchedNodes {
    pub(super) client: ApiClient,
    pub(super) world: World,
}

impl WatchedNodes {
    /// Two nodes and the API server; none where nobody has built it.
    pub(super) fn up(test: &str) -> Result<Option<Self>, Box<dyn Error>> {
        if !Apiserver::can_run() {
            return Ok(None);
        }
        let lab = Lab::up(&topology_file("policy.clab.yml"), &Options::unique(test).without_agents())?;
        let server = Apiserver::start(lab.node("etcd"))?;
        server.start_agents(&lab, CONVERGENCE)?;
        let client = server.client()?;
        Ok(Some(Self { client, world: World::of(lab)? }))
    }

    /// [`WatchedNodes::up`], with two namespaces and a pod in each; what is sent between them passes.
    pub(super) fn with_pods(test: &str) -> Result<Option<(Self, Cast)>, Box<dyn Error>> {
        let Some(mut cluster) = Self::up(test)? else { return Ok(None) };
        cluster.namespace("x")?;
        cluster.namespace("y")?;
        let web = EndpointPort { name: "web".to_owned(), protocol: Protocol::Udp, port: 81 };
        let server = PodSpec::in_namespace("x", "server").label("role", "server").port(web);
        let server = cluster.plug("node1", &server)?;
        let friend = cluster.plug("node2", &PodSpec::in_namespace("x", "friend").label("friend", "yes"))?;
        let stranger = cluster.plug("node2", &PodSpec::in_namespace("y", "stranger"))?;
        for family in Family::ALL {
            for other in [&friend, &stranger] {
                cluster.world.converges(other, udp(&server, family, 80), true)?;
                cluster.world.converges(other, udp(&server, family, 81), true)?;
            }
        }
        cluster.policy("POST", "friends", &admitting(&json!([friends()])))?;
        let cast = Cast { server, friend, stranger };
        cluster.only_friends_pass(&cast)?;
        Ok(Some((cluster, cast)))
    }

    pub(super) fn call(&mut self, method: &str, path: &str, body: &Value) -> Result<Value, Box<dyn Error>> {
        Ok(self.client.call(method, path, Some(body))?.1)
    }

    pub(super) fn namespace(&mut self, name: &str) -> TestResult {
        let object = json!({ "apiVersion": "v1", "kind": "Namespace", "metadata": { "name": name } });
        self.call("POST", "/api/v1/namespaces", &object).map(drop)
    }

    /// Makes (POST) or replaces (PUT) a policy of the namespace `x`.
    pub(super) fn policy(&mut self, method: &str, name: &str, spec: &Value) -> TestResult {
        let object = json!({
            "apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": { "name": name }, "spec": spec,
        });
        let all = "/apis/networking.k8s.io/v1/namespaces/x/networkpolicies";
        let path = if method == "POST" { all.to_owned() } else { format!("{all}/{name}") };
        self.call(method, &path, &object).map(drop)
    }

    pub(super) fn delete_policy(&mut self, name: &str) -> TestResult {
        self.client.call("DELETE", &format!("/apis/networking.k8s.io/v1/namespaces/x/networkpolicies/{name}"), None)?;
        Ok(())
    }

    /// Gives an object (`namespaces/x`, `namespaces/x/pods/server`) a label, or takes it away.
    pub(super) fn label(&mut self, object: &str, key: &str, value: Option<&str>) -> TestResult {
        let change = json!({ "metadata": { "labels": { key: value } } });
        self.call("PATCH", &format!("/api/v1/{object}"), &change).map(drop)
    }

    /// Makes the Pod object, with the labels of the spec, and plugs the pod in as the kubelet has it done.
    pub(super) fn plug(&mut self, node: &str, spec: &PodSpec) -> Result<Pod, Box<dyn Error>> {
        let told = self.client.create_pod(node, spec)?;
        self.world.plug(node, told)
    }

    /// Waits until the server of the policy `friends` takes what its friend sends, and nothing else.
    pub(super) fn only_friends_pass(&self, cast: &Cast) -> TestResult {
        let Cast { server, friend, stranger } = cast;
        for family in Family::ALL {
            self.world.converges(stranger, udp(server, family, 80), false)?;
            self.world.converges(friend, udp(server, family, 81), false)?;
            self.world.converges(friend, udp(server, family, 80), true)?;
        }
        Ok(())
    }

    /// What `manxctl node status` says on a node.
    pub(super) fn status(&self, node: &str) -> String {
        let said = self.world.node(node).try_exec(&["manxctl", "node", "status"]);
        said.map_or_else(|error| error.to_string(), |output| format!("{}{}", output.stdout, output.stderr))
    }
}

/// The pods that take part.
pub(super) struct Cast {
    /// The pod x/server on node1, which the policies are for.
    pub(super) server: Pod,
    /// The pod x/friend on node2, which is admitted.
    pub(super) friend: Pod,
    /// The pod y/stranger on node2, which is not admitted.
    pub(super) stranger: Pod,
}

/// A policy for servers that admits these peers.
pub(super) fn admitting(from: &Value) -> Value {
    json!({
        "podSelector": { "matchLabels": { "role": "server" } },
        "ingress": [{ "from": from, "ports": [{ "protocol": "UDP", "port": 80 }, { "protocol": "UDP", "port": ALLOWED }] }],
    })
}

/// The peers that have the label of friends.
pub(super) fn friends() -> Value {
    json!({ "podSelector": { "matchLabels": { "friend": "yes" } } })
}

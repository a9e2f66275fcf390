//! Two nodes on one wire, for tests of what is a single node's own.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::Value;
use types::InterfaceName;

use crate::{Attachment, LabError, Node, Place, topology_file};

/// The endpoint of the pair's etcd, for the agents' configuration.
pub const ETCD: &str = "etcd: {endpoints: ['http://172.20.40.10:2379']}\n";

/// Pools of either family, for the agents' configuration.
pub const POOLS: &str = "initialPools: [{cidr: 10.42.0.0/16}, {cidr: 'fd00:42::/64'}]\n";

/// Writes the topology of two nodes on one wire and an etcd into a new folder of this name, and gives the topology's file;
/// `agent` is appended to both agents' configuration.
///
/// # Errors
///
/// That the folder or a file in it cannot be written.
pub fn write(scratch: &Path, test: &str, agent: &str) -> std::io::Result<PathBuf> {
    let folder = scratch.join(test);
    fs::create_dir_all(&folder)?;
    let conflist = topology_file("10-manx.conflist");
    fs::copy(conflist, folder.join("10-manx.conflist"))?;
    fs::write(
        folder.join("agent.yaml"),
        format!("addressDetection: {{ipv4: interface=eth1, ipv6: interface=eth1}}\n{agent}"),
    )?;
    let node = |number: u8| {
        format!(
            "    node{number}:
      image: manx/agent
      binds:
        - agent.yaml:/etc/manx/agent.yaml:ro
        - 10-manx.conflist:/etc/cni/net.d/10-manx.conflist:ro
      sysctls: {{ net.ipv4.ip_forward: 1, net.ipv6.conf.all.forwarding: 1 }}
      exec: [ip address add 192.0.2.{number}/24 dev eth1, ip address add 2001:db8::{number}/64 dev eth1]
"
        )
    };
    let text = format!(
        "name: {test}
mgmt: {{ network: {test}, ipv4-subnet: 172.20.40.0/24, ipv6-subnet: 'fd00:20:40::/64' }}
topology:
  defaults: {{ kind: linux }}
  nodes:
{}{}    etcd:
      image: quay.io/coreos/etcd
      mgmt-ipv4: 172.20.40.10
      env: {{ ETCD_DATA_DIR: /var/lib/etcd, ETCD_LISTEN_CLIENT_URLS: 'http://0.0.0.0:2379', ETCD_ADVERTISE_CLIENT_URLS: 'http://172.20.40.10:2379' }}
  links:
    - endpoints: ['node1:eth1', 'node2:eth1']
",
        node(1),
        node(2),
    );
    fs::write(folder.join("pair.clab.yml"), text)?;
    Ok(folder.join("pair.clab.yml"))
}

/// The names of Manx's interfaces on a node; empty if the node cannot be asked.
pub fn links(node: &Node) -> Vec<String> {
    let text = node.exec(&["ip", "-json", "link", "show"]).unwrap_or_default();
    let links: Value = serde_json::from_str(&text).unwrap_or_default();
    let names = links.as_array().into_iter().flatten().filter_map(|link| link["ifname"].as_str().map(str::to_owned));
    names.filter(|name| InterfaceName::new(name.as_str()).is_ok_and(|name| name.is_ours())).collect()
}

/// Makes a network namespace on the node; gives the attachment of a container in it.
///
/// # Errors
///
/// What `ip netns add` says.
pub fn container(node: &Node, name: &str) -> Result<Attachment, LabError> {
    node.exec(&["ip", "netns", "add", name])?;
    Ok(Attachment {
        container: name.to_owned(),
        netns: Some(format!("/var/run/netns/{name}")),
        interface: "eth0".to_owned(),
        args: vec![("IgnoreUnknown".to_owned(), "1".to_owned()), ("K8S_POD_NAME".to_owned(), name.to_owned())],
        capabilities: serde_json::Map::new(),
        cni_args: serde_json::Map::new(),
    })
}

/// The first address in the answer to an ADD; empty if there is none.
pub fn first_address(result: &Value) -> String {
    result.pointer("/ips/0/address").and_then(Value::as_str).unwrap_or_default().to_owned()
}

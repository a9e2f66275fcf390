//! The layout of the shared store, relative to the configured prefix.
//!
//! ```text
//! version                                        {"version":1}
//! resources/KIND/[NAMESPACE/]NAME                what operators declare
//! blocks/10.0.0.0-26                             who owns an address block
//! nodes/NAME/registration                        what a node says of itself; stays until the node is deleted
//! nodes/NAME/alive                               the id of the live agent, under a session
//! nodes/NAME/endpoints/NETWORK/CONTAINER/IFNAME  the published copy of a node's endpoints
//! elected/holder                                 which agent does what is done once, under a session
//! ```

use types::resource::{Kind, ResourceRef};
use types::{EndpointId, NodeName, Prefix, ResourceName};

use crate::{Key, KeyError};

/// The key that holds the version of this layout.
pub fn schema_version() -> Key {
    key("version".to_owned())
}

/// A resource of a kind without namespaces.
pub fn resource(kind: Kind, name: &ResourceName) -> Key {
    key(format!("resources/{kind}/{name}"))
}

/// A resource of a kind that lies in namespaces.
pub fn namespaced_resource(kind: Kind, namespace: &ResourceName, name: &ResourceName) -> Key {
    key(format!("resources/{kind}/{namespace}/{name}"))
}

/// A resource of any kind.
pub fn resource_named(reference: &ResourceRef) -> Key {
    match &reference.namespace {
        None => resource(reference.kind, &reference.name),
        Some(namespace) => namespaced_resource(reference.kind, namespace, &reference.name),
    }
}

/// All resources of a kind in one namespace.
pub fn namespaced_resources(kind: Kind, namespace: &ResourceName) -> Key {
    key(format!("resources/{kind}/{namespace}/"))
}

/// All resources of a kind, in all namespaces.
pub fn resources(kind: Kind) -> Key {
    key(format!("resources/{kind}/"))
}

/// The pods of this node as the API server has them. In the cache alone; no store has them.
pub fn pods() -> Key {
    key("pods/".to_owned())
}

/// What this node announced of Services last. In the cache alone; no store has it.
pub fn announced() -> Key {
    key("announced".to_owned())
}

/// The claim of an address block.
pub fn block(block: &Prefix) -> Key {
    key(format!("blocks/{}-{}", block.addr(), block.len()))
}

/// All claims.
pub fn blocks() -> Key {
    key("blocks/".to_owned())
}

/// Everything of all nodes: registrations, signs of life, endpoints.
pub fn nodes() -> Key {
    key("nodes/".to_owned())
}

/// Everything of one node.
pub fn node(name: &NodeName) -> Key {
    key(format!("nodes/{name}/"))
}

/// What a node says of itself.
pub fn registration(node: &NodeName) -> Key {
    key(format!("nodes/{node}/registration"))
}

/// A node's sign of life.
pub fn alive(node: &NodeName) -> Key {
    key(format!("nodes/{node}/alive"))
}

/// The published copy of an endpoint.
pub fn endpoint(node: &NodeName, id: &EndpointId) -> Key {
    key(format!("nodes/{node}/endpoints/{id}"))
}

/// All published endpoints of a node.
pub fn endpoints(node: &NodeName) -> Key {
    key(format!("nodes/{node}/endpoints/"))
}

/// Which agent is elected for what is done once in a cluster, under a session.
pub fn elected_holder() -> Key {
    key("elected/holder".to_owned())
}

/// That a node is gone from the cluster, and since when: written by the elected agent.
pub fn gone(node: &NodeName) -> Key {
    key(format!("elected/gone/{node}"))
}

/// All nodes that are gone and not forgotten yet.
pub fn all_gone() -> Key {
    key("elected/gone/".to_owned())
}

/// What a key is about.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Subject {
    /// See [`schema_version`].
    SchemaVersion,
    /// See [`resource`].
    Resource(Kind, ResourceName),
    /// See [`namespaced_resource`]: kind, namespace, name.
    NamespacedResource(Kind, ResourceName, ResourceName),
    /// See [`block`].
    Block(Prefix),
    /// See [`registration`].
    Registration(NodeName),
    /// See [`alive`].
    Alive(NodeName),
    /// See [`endpoint`].
    Endpoint(NodeName, EndpointId),
    /// See [`gone`].
    Gone(NodeName),
}

/// Reads a key back. A key that this layout does not have is an error, which a reader skips: a newer Manx may have put
/// it there.
pub fn subject(key: &Key) -> Result<Subject, KeyError> {
    read(key.as_str()).ok_or_else(|| KeyError(key.as_str().to_owned()))
}

fn read(text: &str) -> Option<Subject> {
    if text == "version" {
        return Some(Subject::SchemaVersion);
    }
    let (folder, rest) = text.split_once('/')?;
    match folder {
        "resources" => {
            let (kind, name) = rest.split_once('/')?;
            let kind = Kind::ALL.into_iter().find(|known| known.as_str() == kind)?;
            if !kind.is_namespaced() {
                return Some(Subject::Resource(kind, name.parse().ok()?));
            }
            let (namespace, name) = name.split_once('/')?;
            Some(Subject::NamespacedResource(kind, namespace.parse().ok()?, name.parse().ok()?))
        }
        "blocks" => {
            let (addr, len) = rest.rsplit_once('-')?;
            Some(Subject::Block(format!("{addr}/{len}").parse().ok()?))
        }
        "nodes" => {
            let (node, rest) = rest.split_once('/')?;
            let node: NodeName = node.parse().ok()?;
            match rest.split_once('/') {
                None if rest == "registration" => Some(Subject::Registration(node)),
                None if rest == "alive" => Some(Subject::Alive(node)),
                Some(("endpoints", id)) => Some(Subject::Endpoint(node, id.parse().ok()?)),
                _ => None,
            }
        }
        "elected" => Some(Subject::Gone(rest.strip_prefix("gone/")?.parse().ok()?)),
        _ => None,
    }
}

/// The parts are names, prefixes and literals, none of which holds a character that a key may not have.
const fn key(text: String) -> Key {
    Key::from_parts(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_key_is_valid_and_reads_back_as_what_it_is_about() {
        let node = NodeName::new("node-1.example").unwrap();
        let name = ResourceName::new("default").unwrap();
        let policy = ResourceName::new("allow-web").unwrap();
        let id: EndpointId = "manx/0123abc/eth0".parse().unwrap();
        let v4: Prefix = "10.0.0.64/26".parse().unwrap();
        let v6: Prefix = "fd00:1::/122".parse().unwrap();
        let cases = [
            (schema_version(), "version", Subject::SchemaVersion),
            (gone(&node), "elected/gone/node-1.example", Subject::Gone(node.clone())),
            (resource(Kind::IpPool, &name), "resources/IPPool/default", Subject::Resource(Kind::IpPool, name.clone())),
            (
                resource(Kind::Namespace, &name),
                "resources/Namespace/default",
                Subject::Resource(Kind::Namespace, name.clone()),
            ),
            (
                namespaced_resource(Kind::NetworkPolicy, &name, &policy),
                "resources/NetworkPolicy/default/allow-web",
                Subject::NamespacedResource(Kind::NetworkPolicy, name.clone(), policy.clone()),
            ),
            (block(&v4), "blocks/10.0.0.64-26", Subject::Block(v4)),
            (block(&v6), "blocks/fd00:1::-122", Subject::Block(v6)),
            (registration(&node), "nodes/node-1.example/registration", Subject::Registration(node.clone())),
            (alive(&node), "nodes/node-1.example/alive", Subject::Alive(node.clone())),
            (
                endpoint(&node, &id),
                "nodes/node-1.example/endpoints/manx/0123abc/eth0",
                Subject::Endpoint(node.clone(), id.clone()),
            ),
        ];
        for (key, text, about) in cases {
            assert_eq!(key.as_str(), text);
            assert_eq!(Key::new(text), Ok(key.clone()));
            assert_eq!(subject(&key), Ok(about));
        }
        assert!(endpoint(&node, &id).is_under(&endpoints(&node)));
        assert!(endpoints(&node).is_under(&self::node(&node)));
        assert!(resource(Kind::Node, &name).is_under(&resources(Kind::Node)));
        let in_namespace = namespaced_resource(Kind::NetworkPolicy, &name, &policy);
        assert!(in_namespace.is_under(&namespaced_resources(Kind::NetworkPolicy, &name)));
        assert!(in_namespace.is_under(&resources(Kind::NetworkPolicy)));
        let reference = ResourceRef { kind: Kind::NetworkPolicy, namespace: Some(name), name: policy };
        assert_eq!(resource_named(&reference), in_namespace);
        assert!(block(&v4).is_under(&blocks()) && alive(&node).is_under(&nodes()));
    }

    #[test]
    fn a_key_of_another_layout_is_refused_by_name() {
        for text in [
            "blocks/10.0.0.1-26",
            "blocks/ten",
            "nodes/a/other",
            "nodes/a/endpoints/x",
            "resources/Pod/a",
            "resources/NetworkPolicy/a",
            "resources/NetworkPolicy/a/b/c",
            "resources/Namespace/a/b",
            "x",
        ] {
            let error = subject(&Key::new(text).unwrap()).unwrap_err().to_string();
            assert!(error.contains(text), "{error}");
        }
        for text in ["", "/a", "a//b", "a b", "a\n", "é"] {
            assert!(Key::new(text).is_err(), "{text:?}");
        }
    }
}

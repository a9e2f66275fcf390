//! Resources: what operators declare, with the kinds and field names of `projectcalico.org/v3`.
//!
//! A document is read in two steps. [`Resource::from_value`] takes a JSON value (YAML is read by whoever has a file), drops
//! what a server adds (`status`, server metadata), names every kind and field that Manx does not implement, all at once,
//! and only then gives a typed value. What is accepted is in force; nothing is silently ignored.

mod bgp_configuration;
mod bgp_peer;
mod fields;
mod ip_pool;
mod node;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ResourceName;

pub use bgp_configuration::BgpConfigurationSpec;
pub use bgp_peer::{BgpPeerSpec, PeerAddress, PeerAddressError, PeerTarget};
pub use ip_pool::{BlockSize, BlockSizeError, IpPoolSpec};
pub use node::{NodeBgp, NodeSpec};

/// The API group and version that resources are written in.
pub const API_VERSION: &str = "projectcalico.org/v3";

/// The kinds that Manx implements.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A range that blocks are cut from.
    IpPool,
    /// What the operator says of a node.
    Node,
    /// What holds for all BGP speakers; one object, named `default`.
    BgpConfiguration,
    /// A BGP session that the mesh does not make.
    BgpPeer,
}

impl Kind {
    /// All of them.
    pub const ALL: [Self; 4] = [Self::IpPool, Self::Node, Self::BgpConfiguration, Self::BgpPeer];

    /// The name as it stands in `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpPool => "IPPool",
            Self::Node => "Node",
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = ResourceError;

    /// Takes what people type: `IPPool`, `ippool`, `ippools`, `ip-pools`.
    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let plain = |text: &str| text.to_ascii_lowercase().replace('-', "");
        let wanted = plain(text);
        Self::ALL
            .into_iter()
            .find(|kind| wanted == plain(kind.as_str()) || wanted == format!("{}s", plain(kind.as_str())))
            .ok_or_else(|| ResourceError::Kind(text.to_owned()))
    }
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Name, labels, annotations.
    pub metadata: Metadata,
    /// What is declared, by kind.
    pub spec: Spec,
}

/// The part of `metadata` that is the operator's.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Metadata {
    /// The name, unique within the kind.
    pub name: ResourceName,
    /// Labels, for selectors.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub labels: BTreeMap<String, String>,
    /// Annotations; carried, without meaning to Manx.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub annotations: BTreeMap<String, String>,
}

/// The declared part, by kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// See [`Kind::IpPool`].
    IpPool(IpPoolSpec),
    /// See [`Kind::Node`].
    Node(NodeSpec),
    /// See [`Kind::BgpConfiguration`].
    BgpConfiguration(BgpConfigurationSpec),
    /// See [`Kind::BgpPeer`].
    BgpPeer(BgpPeerSpec),
}

impl Resource {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self.spec {
            Spec::IpPool(_) => Kind::IpPool,
            Spec::Node(_) => Kind::Node,
            Spec::BgpConfiguration(_) => Kind::BgpConfiguration,
            Spec::BgpPeer(_) => Kind::BgpPeer,
        }
    }

    /// Reads one document. All refused fields are named at once.
    pub fn from_value(document: Value) -> Result<Self, ResourceError> {
        let Value::Object(mut document) = document else { return Err(ResourceError::NotAnObject) };
        let kind = take_text(&mut document, "kind")?;
        let api_version = take_text(&mut document, "apiVersion")?;
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind)
            .filter(|_| api_version == API_VERSION)
            .ok_or_else(|| ResourceError::Kind(format!("{kind} of {api_version}")))?;
        document.remove("status");
        let Some(Value::Object(mut metadata)) = document.remove("metadata") else {
            return Err(ResourceError::Missing { kind, field: "metadata" });
        };
        for served in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"] {
            metadata.remove(served);
        }
        let spec = document.remove("spec").unwrap_or_else(|| Value::Object(Map::new()));
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();

        let mut refused = fields::unknown(kind, &spec);
        refused.extend(document.keys().cloned());
        refused.extend(
            metadata
                .keys()
                .filter(|key| !["name", "labels", "annotations"].contains(&key.as_str()))
                .map(|key| format!("metadata.{key}")),
        );
        if !refused.is_empty() {
            return Err(ResourceError::Fields { kind, name, fields: refused.join(", ") });
        }

        let malformed = |error: serde_json::Error| ResourceError::Malformed { kind, name: name.clone(), error };
        let metadata: Metadata = serde_json::from_value(Value::Object(metadata)).map_err(malformed)?;
        let spec = Spec::decode(kind, spec).map_err(malformed)?;
        let resource = Self { metadata, spec };
        resource.check()?;
        Ok(resource)
    }

    /// The document, as [`Resource::from_value`] reads it.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        Ok(serde_json::json!({
            "apiVersion": API_VERSION,
            "kind": self.kind().as_str(),
            "metadata": serde_json::to_value(&self.metadata)?,
            "spec": self.spec.to_value()?,
        }))
    }

    /// What no single field's type can say.
    fn check(&self) -> Result<(), ResourceError> {
        let problem = match &self.spec {
            Spec::IpPool(pool) => pool.problem(),
            Spec::BgpPeer(peer) => peer.problem(),
            Spec::BgpConfiguration(_) if self.metadata.name.as_str() != "default" => {
                Some("the one BGPConfiguration is named default".to_owned())
            }
            Spec::BgpConfiguration(configuration) => configuration.problem(),
            Spec::Node(node) => node.problem(),
        };
        match problem {
            None => Ok(()),
            Some(problem) => {
                Err(ResourceError::Invalid { kind: self.kind(), name: self.metadata.name.to_string(), problem })
            }
        }
    }
}

impl Spec {
    fn decode(kind: Kind, spec: Value) -> Result<Self, serde_json::Error> {
        fn read<T: DeserializeOwned>(spec: Value) -> Result<T, serde_json::Error> {
            serde_json::from_value(spec)
        }
        Ok(match kind {
            Kind::IpPool => Self::IpPool(read(spec)?),
            Kind::Node => Self::Node(read(spec)?),
            Kind::BgpConfiguration => Self::BgpConfiguration(read(spec)?),
            Kind::BgpPeer => Self::BgpPeer(read(spec)?),
        })
    }

    fn to_value(&self) -> Result<Value, serde_json::Error> {
        match self {
            Self::IpPool(spec) => serde_json::to_value(spec),
            Self::Node(spec) => serde_json::to_value(spec),
            Self::BgpConfiguration(spec) => serde_json::to_value(spec),
            Self::BgpPeer(spec) => serde_json::to_value(spec),
        }
    }
}

impl Serialize for Resource {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        self.to_value().map_err(serde::ser::Error::custom)?.serialize(serializer)
    }
}

impl<'de> Deserialize<'de> for Resource {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// Not a mapping.
    #[error("a resource is a mapping with apiVersion, kind, metadata and spec")]
    NotAnObject,
    /// The kind is unknown or not implemented.
    #[error(
        "kind {0} is not implemented (implemented are IPPool, Node, BGPConfiguration and BGPPeer of {API_VERSION})"
    )]
    Kind(String),
    /// A field that every document has is absent.
    #[error("{kind} without {field}")]
    Missing {
        /// The kind.
        kind: Kind,
        /// The absent field.
        field: &'static str,
    },
    /// `kind` or `apiVersion` is absent or no text.
    #[error("a resource needs {0} as a text")]
    Header(&'static str),
    /// Fields that Manx does not implement, or values of implemented fields that it does not.
    #[error("{kind} {name}: not implemented: {fields}")]
    Fields {
        /// The kind.
        kind: Kind,
        /// The resource.
        name: String,
        /// All of them.
        fields: String,
    },
    /// A field has the wrong type or form.
    #[error("{kind} {name}: {error}")]
    Malformed {
        /// The kind.
        kind: Kind,
        /// The resource.
        name: String,
        /// What serde says of it.
        error: serde_json::Error,
    },
    /// Every field is well-formed, together they make no sense.
    #[error("{kind} {name}: {problem}")]
    Invalid {
        /// The kind.
        kind: Kind,
        /// The resource.
        name: String,
        /// Why not.
        problem: String,
    },
}

fn take_text(document: &mut Map<String, Value>, field: &'static str) -> Result<String, ResourceError> {
    match document.remove(field) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ResourceError::Header(field)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn resource(kind: &str, name: &str, spec: Value) -> Result<Resource, String> {
        let document =
            json!({"apiVersion": API_VERSION, "kind": kind, "metadata": {"name": name, "uid": "x"}, "spec": spec});
        Resource::from_value(document).map_err(|error| error.to_string())
    }

    #[test]
    fn yaml_written_for_calico_applies_unchanged_and_comes_back_the_same() {
        let pool = resource(
            "IPPool",
            "pods",
            json!({"cidr": "10.65.0.0/16", "blockSize": 26, "ipipMode": "Never", "vxlanMode": "Never",
                   "nodeSelector": "all()", "natOutgoing": false, "disabled": false, "allowedUses": ["Workload"]}),
        )
        .unwrap();
        assert_eq!(Resource::from_value(pool.to_value().unwrap()).unwrap(), pool);
        let peer = resource(
            "BGPPeer",
            "tor",
            json!({"peerIP": "192.0.2.1:1790", "asNumber": "64601", "nodeSelector": "rack == 'a'"}),
        )
        .unwrap();
        assert_eq!(Resource::from_value(peer.to_value().unwrap()).unwrap(), peer);
    }

    #[test]
    fn every_refused_field_is_named_at_once() {
        let error = resource(
            "IPPool",
            "pods",
            json!({"cidr": "10.65.0.0/16", "ipipMode": "Always", "natOutgoing": true, "assignmentMode": "Manual"}),
        )
        .unwrap_err();
        for field in ["ipipMode: Always", "natOutgoing: true", "assignmentMode"] {
            assert!(error.contains(field), "{field} in {error}");
        }
        let error =
            resource("BGPPeer", "tor", json!({"peerIP": "192.0.2.1", "asNumber": 1, "password": {}, "ttlSecurity": 1}));
        let error = error.unwrap_err();
        assert!(error.contains("password") && error.contains("ttlSecurity"), "{error}");
    }

    #[test]
    fn an_unimplemented_kind_is_an_error_naming_it() {
        let error = resource("BGPFilter", "f", json!({})).unwrap_err();
        assert!(error.contains("kind BGPFilter of projectcalico.org/v3 is not implemented"), "{error}");
    }

    #[test]
    fn values_that_make_no_sense_are_errors_naming_the_resource_and_the_value() {
        for (kind, name, spec, part) in [
            ("IPPool", "p", json!({"cidr": "10.65.0.1/16"}), "10.65.0.1/16 has host bits set"),
            ("IPPool", "p", json!({"cidr": "10.65.0.0/28", "blockSize": 26}), "blockSize 26 does not fit 10.65.0.0/28"),
            ("IPPool", "p", json!({"cidr": "10.65.0.0/16", "blockSize": 19}), "blockSize 19"),
            ("IPPool", "p", json!({"cidr": "fd00::/48", "blockSize": 115}), "blockSize 115"),
            ("BGPPeer", "p", json!({"peerIP": "192.0.2.1"}), "asNumber"),
            ("BGPPeer", "p", json!({"peerIP": "tor", "asNumber": 1}), "\"tor\""),
            ("BGPPeer", "p", json!({"peerIP": "192.0.2.1", "asNumber": 0}), "AS number 0"),
            ("BGPPeer", "p", json!({"asNumber": 1}), "peerIP or peerSelector"),
            ("BGPConfiguration", "other", json!({}), "named default"),
            ("Node", "n", json!({"bgp": {"ipv4Address": "fd00::1"}}), "ipv4Address"),
        ] {
            let error = resource(kind, name, spec).unwrap_err();
            assert!(error.contains(part) && error.contains(name), "{part} in {error}");
        }
    }

    #[test]
    fn kinds_are_found_under_the_names_people_type() {
        for text in ["IPPool", "ippool", "ippools", "ip-pools"] {
            assert_eq!(text.parse::<Kind>().unwrap(), Kind::IpPool);
        }
        assert!("networkpolicies".parse::<Kind>().is_err());
    }
}

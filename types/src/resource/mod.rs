//! Resources: what operators declare, with the kinds and field names of `projectcalico.org/v3` and, for policies without
//! Kubernetes, its own `NetworkPolicy` and `Namespace`.
//!
//! A document is read in two steps. [`Resource::from_value`] takes a JSON value (YAML is read by whoever has a file), drops
//! what a server adds (`status`, server metadata), names every kind and field that Manx does not implement, all at once,
//! and only then gives a typed value. What is accepted is in force; nothing is silently ignored.

mod bgp_configuration;
mod bgp_import;
mod bgp_peer;
mod fields;
mod ip_pool;
mod namespace;
mod network_policy;
mod node;
mod session_password;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::fmt;
use std::str::FromStr;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::ResourceName;
use crate::policy::{Policy, PolicyId, PolicyKind};

pub use bgp_configuration::{Aggregation, BgpConfigurationSpec, MeshTtlSecurity, ServiceBlock};
pub use bgp_import::{LimitAction, OriginValidation};
pub use bgp_peer::{BgpPeerSpec, PeerAddress, PeerAddressError, PeerTarget};
pub use ip_pool::{AllowedUse, BlockSize, BlockSizeError, IpPoolSpec};
pub use namespace::NAME_LABEL;
pub use network_policy::NetworkPolicySpec;
pub use node::{NodeBgp, NodeSpec};
pub use session_password::{BgpPassword, SecretKeyRef};

/// The API group and version of the kinds of [`Kind::CLUSTER`].
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
    /// What may talk to the pods of a namespace.
    NetworkPolicy,
    /// The labels of a namespace.
    Namespace,
}

impl Kind {
    /// Every kind, in the order in which lists show them.
    pub const ALL: [Self; 6] =
        [Self::IpPool, Self::Node, Self::BgpConfiguration, Self::BgpPeer, Self::NetworkPolicy, Self::Namespace];

    /// The kinds that addresses and routes follow from.
    pub const CLUSTER: [Self; 4] = [Self::IpPool, Self::Node, Self::BgpConfiguration, Self::BgpPeer];

    /// The kinds that policy follows from. In Kubernetes they are in its API server, and are not read from here.
    pub const POLICY: [Self; 2] = [Self::NetworkPolicy, Self::Namespace];

    /// The name as it stands in `kind:`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::IpPool => "IPPool",
            Self::Node => "Node",
            Self::BgpConfiguration => "BGPConfiguration",
            Self::BgpPeer => "BGPPeer",
            Self::NetworkPolicy => "NetworkPolicy",
            Self::Namespace => "Namespace",
        }
    }

    /// The group and version as they stand in `apiVersion:`.
    pub const fn api_version(self) -> &'static str {
        match self {
            Self::IpPool | Self::Node | Self::BgpConfiguration | Self::BgpPeer => API_VERSION,
            Self::NetworkPolicy => "networking.k8s.io/v1",
            Self::Namespace => "v1",
        }
    }

    /// Whether resources of this kind lie in namespaces.
    pub const fn is_namespaced(self) -> bool {
        matches!(self, Self::NetworkPolicy)
    }

    /// What people call several of them, and what kubectl shortens them to.
    const fn other_names(self) -> &'static [&'static str] {
        match self {
            Self::IpPool => &["ippools"],
            Self::Node => &["nodes", "no"],
            Self::BgpConfiguration => &["bgpconfigurations"],
            Self::BgpPeer => &["bgppeers"],
            Self::NetworkPolicy => &["networkpolicies", "netpol", "netpols"],
            Self::Namespace => &["namespaces", "ns"],
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

    /// Takes what people type: `IPPool`, `ippool`, `ippools`, `ip-pools`, `netpol`.
    fn from_str(text: &str) -> Result<Self, ResourceError> {
        let wanted = text.to_ascii_lowercase().replace('-', "");
        Self::ALL
            .into_iter()
            .find(|kind| kind.as_str().eq_ignore_ascii_case(&wanted) || kind.other_names().contains(&wanted.as_str()))
            .ok_or_else(|| ResourceError::Kind(text.to_owned()))
    }
}

/// A resource of any kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Name, labels and annotations.
    pub metadata: Metadata,
    /// What the resource declares, by its kind.
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

/// What a resource declares, by its kind.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// See [`Kind::IpPool`].
    IpPool(IpPoolSpec),
    /// See [`Kind::Node`].
    Node(NodeSpec),
    /// See [`Kind::BgpConfiguration`].
    BgpConfiguration(BgpConfigurationSpec),
    /// See [`Kind::BgpPeer`].
    BgpPeer(Box<BgpPeerSpec>),
    /// See [`Kind::NetworkPolicy`]. The namespace is part of it.
    NetworkPolicy(Box<NetworkPolicySpec>),
    /// See [`Kind::Namespace`]. All that counts of it are its labels.
    Namespace,
}

/// What a resource is called: its kind, its namespace where the kind has one, its name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ResourceRef {
    /// The kind.
    pub kind: Kind,
    /// The namespace; none for kinds that are not in namespaces.
    pub namespace: Option<ResourceName>,
    /// The name.
    pub name: ResourceName,
}

impl fmt::Display for ResourceRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.namespace {
            None => write!(f, "{} {}", self.kind, self.name),
            Some(namespace) => write!(f, "{} {namespace}/{}", self.kind, self.name),
        }
    }
}

impl Resource {
    /// The kind.
    pub const fn kind(&self) -> Kind {
        match self.spec {
            Spec::IpPool(_) => Kind::IpPool,
            Spec::Node(_) => Kind::Node,
            Spec::BgpConfiguration(_) => Kind::BgpConfiguration,
            Spec::BgpPeer(_) => Kind::BgpPeer,
            Spec::NetworkPolicy(_) => Kind::NetworkPolicy,
            Spec::Namespace => Kind::Namespace,
        }
    }

    /// The namespace that the resource is in; none for kinds without namespaces.
    pub fn namespace(&self) -> Option<&ResourceName> {
        match &self.spec {
            Spec::NetworkPolicy(spec) => Some(&spec.namespace),
            Spec::IpPool(_) | Spec::Node(_) | Spec::BgpConfiguration(_) | Spec::BgpPeer(_) | Spec::Namespace => None,
        }
    }

    /// What the resource is called.
    pub fn reference(&self) -> ResourceRef {
        ResourceRef { kind: self.kind(), namespace: self.namespace().cloned(), name: self.metadata.name.clone() }
    }

    /// The policy that it is, where it is one.
    pub fn policy(&self) -> Option<(PolicyId, &Policy)> {
        let Spec::NetworkPolicy(spec) = &self.spec else { return None };
        let id = PolicyId {
            kind: PolicyKind::NetworkPolicy,
            namespace: spec.namespace.to_string(),
            name: self.metadata.name.to_string(),
        };
        Some((id, spec.policy()))
    }

    /// Reads one document. All that is refused is named at once.
    pub fn from_value(document: Value) -> Result<Self, ResourceError> {
        let (resource, problems) = Self::read(document)?;
        if !problems.is_empty() {
            return Err(resource.invalid(problems.join("; ")));
        }
        resource.check()?;
        Ok(resource)
    }

    /// Reads a document that is in force already. A policy that would be refused today is read all the same, so that it
    /// allows less and not, being left out, everything: see [`NetworkPolicySpec::problems`].
    pub fn from_stored(document: Value) -> Result<Self, ResourceError> {
        let (resource, _) = Self::read(document)?;
        if resource.kind() != Kind::NetworkPolicy {
            resource.check()?;
        }
        Ok(resource)
    }

    /// The resource, and what of it a policy is refused for; other kinds are refused here.
    fn read(document: Value) -> Result<(Self, Vec<String>), ResourceError> {
        let Value::Object(mut document) = document else { return Err(ResourceError::NotAnObject) };
        let kind = take_text(&mut document, "kind")?;
        let api_version = take_text(&mut document, "apiVersion")?;
        let kind = Kind::ALL
            .into_iter()
            .find(|known| known.as_str() == kind && known.api_version() == api_version)
            .ok_or_else(|| ResourceError::Kind(format!("{kind} of {api_version}")))?;
        document.remove("status");
        let Some(Value::Object(mut metadata)) = document.remove("metadata") else {
            return Err(ResourceError::Missing { kind, field: "metadata" });
        };
        for served in ["uid", "resourceVersion", "creationTimestamp", "generation", "managedFields", "selfLink"] {
            metadata.remove(served);
        }
        let name = metadata.get("name").and_then(Value::as_str).unwrap_or("?").to_owned();
        let malformed = |error: serde_json::Error| ResourceError::Malformed { kind, name: name.clone(), error };
        let namespace = match metadata.remove("namespace") {
            None | Some(Value::Null) => None,
            Some(namespace) => Some(serde_json::from_value::<ResourceName>(namespace).map_err(malformed)?),
        };
        let spec = document.remove("spec").filter(|spec| !spec.is_null()).unwrap_or_else(|| Value::Object(Map::new()));

        let mut fields = fields::unknown(kind, &spec);
        fields.extend(document.keys().cloned());
        fields.extend(
            metadata
                .keys()
                .filter(|key| !["name", "labels", "annotations"].contains(&key.as_str()))
                .map(|key| format!("metadata.{key}")),
        );
        if namespace.is_some() && !kind.is_namespaced() {
            fields.push("metadata.namespace".to_owned());
        }
        if kind != Kind::NetworkPolicy && !fields.is_empty() {
            return Err(ResourceError::Fields { kind, name, fields: fields.join(", ") });
        }
        metadata.retain(|_, value| !value.is_null());

        let mut metadata: Metadata = serde_json::from_value(Value::Object(metadata)).map_err(malformed)?;
        if kind == Kind::Namespace {
            metadata.labels.insert(NAME_LABEL.to_owned(), metadata.name.to_string());
        }
        let spec = Spec::decode(kind, namespace, spec).map_err(malformed)?;
        let mut problems: Vec<_> = fields.into_iter().map(|field| format!("{field}: is not implemented")).collect();
        if let Spec::NetworkPolicy(spec) = &spec {
            problems.extend(spec.problems().iter().map(ToString::to_string));
        }
        Ok((Self { metadata, spec }, problems))
    }

    /// The document, as [`Resource::from_value`] reads it.
    pub fn to_value(&self) -> Result<Value, serde_json::Error> {
        let mut metadata = serde_json::to_value(&self.metadata)?;
        if let (Some(namespace), Some(metadata)) = (self.namespace(), metadata.as_object_mut()) {
            metadata.insert("namespace".to_owned(), Value::from(namespace.as_str()));
        }
        let mut document = serde_json::json!({
            "apiVersion": self.kind().api_version(),
            "kind": self.kind().as_str(),
            "metadata": metadata,
        });
        if let (Some(spec), Some(document)) = (self.spec.to_value()?, document.as_object_mut()) {
            document.insert("spec".to_owned(), spec);
        }
        Ok(document)
    }

    /// Finds what is wrong although each field by itself is right.
    fn check(&self) -> Result<(), ResourceError> {
        let problem = match &self.spec {
            Spec::IpPool(pool) => pool.problem(),
            Spec::BgpPeer(peer) => peer.problem(),
            Spec::BgpConfiguration(_) if self.metadata.name.as_str() != "default" => {
                Some("the one BGPConfiguration is named default".to_owned())
            }
            Spec::BgpConfiguration(configuration) => configuration.problem(),
            Spec::Node(node) => node.problem(),
            Spec::NetworkPolicy(policy) => policy.problem(),
            Spec::Namespace => namespace::problem(&self.metadata),
        };
        problem.map_or(Ok(()), |problem| Err(self.invalid(problem)))
    }

    fn invalid(&self, problem: String) -> ResourceError {
        let ResourceRef { kind, namespace, name } = self.reference();
        let name = namespace.map_or_else(|| name.to_string(), |namespace| format!("{namespace}/{name}"));
        ResourceError::Invalid { kind, name, problem }
    }
}

impl Spec {
    fn decode(kind: Kind, namespace: Option<ResourceName>, spec: Value) -> Result<Self, serde_json::Error> {
        // serde names the value that it cannot read, not the field that the value stands in.
        fn read<T: DeserializeOwned>(spec: Value) -> Result<T, serde_json::Error> {
            serde_path_to_error::deserialize(spec).map_err(|error| match error.path().to_string().as_str() {
                "." => error.into_inner(),
                path => serde_json::Error::custom(format!("spec.{path}: {}", error.inner())),
            })
        }
        Ok(match kind {
            Kind::IpPool => Self::IpPool(read(spec)?),
            Kind::Node => Self::Node(read(spec)?),
            Kind::BgpConfiguration => Self::BgpConfiguration(read(spec)?),
            Kind::BgpPeer => Self::BgpPeer(read(spec)?),
            Kind::NetworkPolicy => {
                let namespace = namespace.map_or_else(network_policy::default_namespace, Ok)?;
                Self::NetworkPolicy(Box::new(NetworkPolicySpec::new(namespace, spec)))
            }
            Kind::Namespace => Self::Namespace,
        })
    }

    fn to_value(&self) -> Result<Option<Value>, serde_json::Error> {
        match self {
            Self::IpPool(spec) => serde_json::to_value(spec).map(Some),
            Self::Node(spec) => serde_json::to_value(spec).map(Some),
            Self::BgpConfiguration(spec) => serde_json::to_value(spec).map(Some),
            Self::BgpPeer(spec) => serde_json::to_value(spec).map(Some),
            Self::NetworkPolicy(spec) => Ok(Some(spec.written().clone())),
            Self::Namespace => Ok(None),
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
        Self::from_stored(Value::deserialize(deserializer)?).map_err(serde::de::Error::custom)
    }
}

/// Why a document is refused.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The document is not a mapping.
    #[error("a resource is a mapping with apiVersion, kind, metadata and spec")]
    NotAnObject,
    /// The kind is unknown or not implemented.
    #[error(
        "kind {0} is not implemented (implemented are IPPool, Node, BGPConfiguration and BGPPeer of {API_VERSION}, \
         NetworkPolicy of networking.k8s.io/v1 and Namespace of v1)"
    )]
    Kind(String),
    /// A field that every document has is absent.
    #[error("{kind} without {field}")]
    Missing {
        /// The kind of the document.
        kind: Kind,
        /// The field that is absent.
        field: &'static str,
    },
    /// `kind` or `apiVersion` is absent or no text.
    #[error("a resource needs {0} as a text")]
    Header(&'static str),
    /// Fields that Manx does not implement, or values of implemented fields that it does not.
    #[error("{kind} {name}: not implemented: {fields}")]
    Fields {
        /// The kind of the document.
        kind: Kind,
        /// The resource's name.
        name: String,
        /// All the fields, with the values that are not implemented.
        fields: String,
    },
    /// A field has the wrong type or form.
    #[error("{kind} {name}: {error}")]
    Malformed {
        /// The kind of the document.
        kind: Kind,
        /// The resource's name.
        name: String,
        /// What the parser says of the field.
        error: serde_json::Error,
    },
    /// Every field is well-formed, but together they make no sense.
    #[error("{kind} {name}: {problem}")]
    Invalid {
        /// The kind of the document.
        kind: Kind,
        /// The resource's name.
        name: String,
        /// Why the fields do not go together.
        problem: String,
    },
}

fn take_text(document: &mut Map<String, Value>, field: &'static str) -> Result<String, ResourceError> {
    match document.remove(field) {
        Some(Value::String(text)) => Ok(text),
        _ => Err(ResourceError::Header(field)),
    }
}

//! Names of objects that Kubernetes keeps in namespaces.

use std::fmt;

use serde::{Deserialize, Serialize};

/// The namespace and the name of an object in it: of a Pod, of a Service, of an EndpointSlice. Of one kind, no two objects
/// that exist at the same time have the same (Kubernetes' "Object Names and IDs"); a later one may take it again, and is
/// told from the earlier one by its UID.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct NamespacedName {
    /// The namespace.
    pub namespace: String,
    /// The name within the namespace.
    pub name: String,
}

impl NamespacedName {
    /// Joins a namespace and a name in it.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for NamespacedName {
    /// `NAMESPACE/NAME`, as kubectl prints it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

//! Pods' endpoints: where they are, and how people call them.

use std::fmt;

use serde::Serialize;

use store::keys::{self, Subject};
use types::{EndpointId, NodeName, ResourceName, WorkloadEndpoint};

use crate::agent::Agent;
use crate::datastore::Datastore;

/// An endpoint and where it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub(crate) struct Located {
    /// The node; none for the one whose agent was asked.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) node: Option<NodeName>,
    #[serde(flatten)]
    pub(crate) endpoint: WorkloadEndpoint,
}

/// The endpoints that all nodes have published; without etcd, those of this node.
pub(crate) async fn all(datastore: &Datastore) -> anyhow::Result<Vec<Located>> {
    let store = match datastore {
        Datastore::Agent(agent) => return local(agent).await,
        Datastore::Etcd(store) => store,
    };
    let listing = store.list(&keys::nodes()).await?;
    let mut endpoints = Vec::new();
    for entry in &listing.entries {
        // A newer Manx may keep there what this one does not know.
        if let Ok(Subject::Endpoint(node, _)) = keys::subject(&entry.key) {
            endpoints.push(Located { node: Some(node), endpoint: store::decode(&entry.key, &entry.value)? });
        }
    }
    Ok(endpoints)
}

/// The endpoints of this node.
pub(crate) async fn local(agent: &Agent) -> anyhow::Result<Vec<Located>> {
    let endpoints: Vec<WorkloadEndpoint> = agent.get("/v1/endpoints").await?;
    Ok(endpoints.into_iter().map(|endpoint| Located { node: None, endpoint }).collect())
}

/// How the operator calls an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum EndpointName {
    /// The endpoint is named by its id.
    Id(EndpointId),
    /// The endpoint is named by its pod.
    Pod { namespace: String, name: String },
}

impl EndpointName {
    /// Reads `POD`, `NAMESPACE/POD` or `NETWORK/CONTAINER/INTERFACE`; a pod without a namespace is in the given one, or in
    /// `default`.
    pub(crate) fn parse(text: &str, namespace: Option<&ResourceName>) -> anyhow::Result<Self> {
        match text.split('/').collect::<Vec<_>>().as_slice() {
            ["", ..] | [_, ""] => anyhow::bail!("{text:?} is not POD, NAMESPACE/POD or NETWORK/CONTAINER/INTERFACE"),
            [name] => {
                let namespace = namespace.map_or("default", ResourceName::as_str).to_owned();
                Ok(Self::Pod { namespace, name: (*name).to_owned() })
            }
            [said, name] => match namespace {
                Some(namespace) if namespace.as_str() != *said => {
                    anyhow::bail!("{text} is in namespace {said}, and the command line says {namespace}")
                }
                _ => Ok(Self::Pod { namespace: (*said).to_owned(), name: (*name).to_owned() }),
            },
            _ => Ok(Self::Id(text.parse()?)),
        }
    }

    /// The one endpoint that is called so. Of a pod's endpoints those that have ended count only if there is no other.
    pub(crate) fn find<'a>(&self, endpoints: &'a [Located]) -> Result<&'a Located, FindError> {
        let called: Vec<_> = endpoints.iter().filter(|located| self.is_of(&located.endpoint)).collect();
        let alive: Vec<_> = called.iter().copied().filter(|located| !located.endpoint.finished).collect();
        match (alive.as_slice(), called.as_slice()) {
            ([only], _) | ([], [only]) => Ok(only),
            ([], []) => Err(FindError::Unknown(self.clone())),
            ([], several) | (several, _) => {
                let ids = several.iter().map(|located| located.endpoint.id.to_string()).collect::<Vec<_>>().join(", ");
                Err(FindError::Ambiguous { name: self.clone(), ids })
            }
        }
    }

    fn is_of(&self, endpoint: &WorkloadEndpoint) -> bool {
        match self {
            Self::Id(id) => endpoint.id == *id,
            Self::Pod { namespace, name } => endpoint.pod.namespace == *namespace && endpoint.pod.name == *name,
        }
    }
}

impl fmt::Display for EndpointName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Id(id) => write!(f, "endpoint {id}"),
            Self::Pod { namespace, name } => write!(f, "pod {namespace}/{name}"),
        }
    }
}

/// Why a name does not lead to an endpoint.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum FindError {
    #[error("{0} is not attached to the network (manxctl get workloadendpoints -A shows what is)")]
    Unknown(EndpointName),
    #[error("{name} has several endpoints; say which: {ids}")]
    Ambiguous { name: EndpointName, ids: String },
}

/// The endpoint of this node that is called so. Where it is another node's, that node is named.
pub(crate) async fn find_local(
    agent: &Agent,
    name: &EndpointName,
    datastore: impl Future<Output = anyhow::Result<Datastore>>,
) -> anyhow::Result<Located> {
    let unknown = match name.find(&local(agent).await?) {
        Ok(located) => return Ok(located.clone()),
        Err(error @ FindError::Unknown(_)) => error,
        Err(error) => return Err(error.into()),
    };
    let elsewhere = match datastore.await {
        Ok(datastore) => all(&datastore).await.unwrap_or_default(),
        Err(_) => Vec::new(),
    };
    match name.find(&elsewhere) {
        Ok(Located { node: Some(node), .. }) => anyhow::bail!("{name} is on node {node}; ask there"),
        _ => Err(unknown.into()),
    }
}

#[cfg(test)]
pub(crate) mod tests;

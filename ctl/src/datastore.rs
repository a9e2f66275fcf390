//! Where resources are: in etcd, or with the agent of a node that works without.

use std::sync::Arc;

use store::{Check, Key, Outcome, Store, Write, keys};
use types::ResourceName;
use types::config::Config;
use types::resource::{Kind, Resource, ResourceRef};

use crate::agent::{Agent, AgentError};
use crate::cli::Place;

/// The datastore in which resources are.
pub(crate) enum Datastore {
    /// The datastore is etcd, which is asked directly.
    Etcd(Arc<dyn Store>),
    /// The local store, through the agent that has it open.
    Agent(Agent),
}

impl Datastore {
    /// Opens the one that the configuration names.
    pub(crate) async fn open(place: &Place) -> anyhow::Result<Self> {
        let config = configuration(place)?;
        match &config.etcd {
            Some(settings) => Ok(Self::Etcd(Arc::new(store::etcd::Etcd::connect(settings.clone().into()).await?))),
            None => Ok(Self::Agent(agent_of(place, &config))),
        }
    }

    /// All resources of a kind, in the order of their names; where a namespace is given, those in it.
    pub(crate) async fn list(&self, kind: Kind, namespace: Option<&ResourceName>) -> anyhow::Result<Vec<Resource>> {
        match self {
            Self::Agent(agent) => {
                let mut resources: Vec<Resource> = agent.get(&format!("/v1/resources/{kind}")).await?;
                resources.retain(|resource| namespace.is_none() || resource.namespace() == namespace);
                Ok(resources)
            }
            Self::Etcd(store) => {
                let prefix = match namespace {
                    None => keys::resources(kind),
                    Some(namespace) => keys::namespaced_resources(kind, namespace),
                };
                let listing = store.list(&prefix).await?;
                listing.entries.iter().map(|entry| Ok(store::decode(&entry.key, &entry.value)?)).collect()
            }
        }
    }

    /// The resource that is called so; none where there is none.
    pub(crate) async fn get(&self, reference: &ResourceRef) -> anyhow::Result<Option<Resource>> {
        match self {
            Self::Agent(agent) => match agent.get(&path(reference)).await {
                Ok(resource) => Ok(Some(resource)),
                Err(AgentError::NotFound(_)) => Ok(None),
                Err(error) => Err(error.into()),
            },
            Self::Etcd(store) => {
                let entry = store.get(&keys::resource_named(reference)).await?;
                Ok(entry.map(|entry| store::decode(&entry.key, &entry.value)).transpose()?)
            }
        }
    }

    /// Creates or replaces a resource. A store of a newer layout is not written to.
    pub(crate) async fn put(&self, resource: &Resource) -> anyhow::Result<()> {
        let reference = resource.reference();
        match self {
            Self::Agent(agent) => Ok(agent.put(&path(&reference), resource).await?),
            Self::Etcd(store) => {
                store::check_schema(store.as_ref()).await?;
                let key = keys::resource_named(&reference);
                let write = Write::Put { key, value: store::encode(resource), session: None };
                store.transact(Vec::new(), vec![write]).await?;
                Ok(())
            }
        }
    }

    /// Deletes a resource; false where there was none. A store of a newer layout is not written to.
    pub(crate) async fn delete(&self, reference: &ResourceRef) -> anyhow::Result<bool> {
        match self {
            Self::Agent(agent) => match agent.delete(&path(reference)).await {
                Ok(()) => Ok(true),
                Err(AgentError::NotFound(_)) => Ok(false),
                Err(error) => Err(error.into()),
            },
            Self::Etcd(store) => {
                store::check_schema(store.as_ref()).await?;
                let key: Key = keys::resource_named(reference);
                let present = Check { key: key.clone(), expect: store::Expect::Present };
                let outcome = store.transact(vec![present], vec![Write::Delete { key }]).await?;
                Ok(matches!(outcome, Outcome::Committed(_)))
            }
        }
    }
}

/// The path of a resource in the agent's API.
fn path(reference: &ResourceRef) -> String {
    let ResourceRef { kind, namespace, name } = reference;
    match namespace {
        None => format!("/v1/resources/{kind}/{name}"),
        Some(namespace) => format!("/v1/resources/{kind}/{namespace}/{name}"),
    }
}

/// How etcd is reached; none where none is configured.
pub(crate) fn etcd_config(place: &Place) -> anyhow::Result<Option<store::EtcdConfig>> {
    Ok(configuration(place)?.etcd.map(Into::into))
}

/// This node's agent.
pub(crate) fn local_agent(place: &Place) -> anyhow::Result<Agent> {
    match &place.socket {
        Some(socket) => Ok(Agent::new(socket.clone())),
        // Only the agent is asked, so settings of etcd that cannot be used do not matter.
        None => Ok(agent_of(place, &config::read_without_etcd(&place.config, ANY_NODE)?.0)),
    }
}

/// The name of this node does not matter to what is read here.
const ANY_NODE: &str = "localhost";

fn agent_of(place: &Place, config: &Config) -> Agent {
    Agent::new(place.socket.clone().unwrap_or_else(|| config.run_dir.join(types::api::SOCKET)))
}

fn configuration(place: &Place) -> anyhow::Result<Config> {
    Ok(config::read(&place.config, ANY_NODE)?)
}

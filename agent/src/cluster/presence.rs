//! The node's place in the store: its registration, and the proof that one live agent holds its name.
//!
//! The registration stays when the agent goes. `nodes/NAME/alive` goes with its session: the same instance takes it over
//! at once, another instance is refused while it is there. BGP sessions do not depend on it.

use std::sync::Arc;
use std::time::Duration;

use store::{Check, Entry, Outcome, SchemaError, Session, Store, StoreError, Write, keys};
use tokio::sync::watch;
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use types::backoff::Backoff;
use types::resource::{IpPoolSpec, Kind, Metadata, Resource, Spec};
use types::{Alive, NameError, NodeName, Registration, ResourceName};

/// How long the name stays taken after its agent has gone.
pub(crate) const LEASE: Duration = Duration::from_secs(30);

/// The shortest and the longest delay between two attempts to take the name and to register.
const ENTER_DELAYS: (Duration, Duration) = (Duration::from_millis(200), Duration::from_secs(5));

/// The name is held by another live agent, or what is stored there is not understood.
#[derive(Debug, thiserror::Error)]
pub(crate) enum PresenceError {
    /// Refused: two agents of one name would give the same addresses out.
    #[error(
        "node name {node} is held by another live agent (instance {other}); if that one is dead, its claim ends within \
         {} s; if this node is new, give it another nodeName", LEASE.as_secs()
    )]
    Taken {
        /// The node's name.
        node: NodeName,
        /// The agent that holds the name.
        other: String,
    },
    /// The store does not answer or refuses.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What lies at the key is not ours to read.
    #[error(transparent)]
    Decode(#[from] store::DecodeError),
    /// The store is laid out in a way that this build does not know.
    #[error(transparent)]
    Schema(SchemaError),
    /// A pool cannot have this name.
    #[error(transparent)]
    PoolName(#[from] NameError),
}

impl From<SchemaError> for PresenceError {
    fn from(error: SchemaError) -> Self {
        match error {
            SchemaError::Store(error) => Self::Store(error),
            error => Self::Schema(error),
        }
    }
}

/// What this agent says of its node, and under which name.
#[derive(Clone)]
pub(crate) struct Presence {
    /// The store in which names are taken.
    pub(crate) store: Arc<dyn Store>,
    /// This node's name.
    pub(crate) node: NodeName,
    /// This agent's instance, as `node::instance` makes it.
    pub(crate) instance: String,
    /// The pools that a cluster begins with.
    pub(crate) initial_pools: Vec<IpPoolSpec>,
}

impl Presence {
    /// Enters the cluster: checks that its store is of a kind that this build knows, takes the name, and makes the first
    /// pools where there is none at all.
    pub(crate) async fn enter(&self) -> Result<Session, PresenceError> {
        store::check_schema(self.store.as_ref()).await?;
        let session = self.claim().await?;
        self.make_first_pools().await?;
        Ok(session)
    }

    /// Tries once to take the name.
    async fn claim(&self) -> Result<Session, PresenceError> {
        let key = keys::alive(&self.node);
        let session = self.store.session(LEASE).await?;
        let value = store::encode(&Alive { instance: self.instance.clone() });
        loop {
            let check = match self.store.get(&key).await? {
                None => Check::absent(key.clone()),
                Some(entry) => {
                    let alive: Alive = store::decode(&entry.key, &entry.value)?;
                    if alive.instance != self.instance {
                        return Err(PresenceError::Taken { node: self.node.clone(), other: alive.instance });
                    }
                    Check::unchanged(&entry)
                }
            };
            let write = Write::Put { key: key.clone(), value: value.clone(), session: Some(session.id()) };
            if let Outcome::Committed(_) = self.store.transact(vec![check], vec![write]).await? {
                return Ok(session);
            }
        }
    }

    async fn make_first_pools(&self) -> Result<(), PresenceError> {
        let there = self.store.list(&keys::resources(Kind::IpPool));
        // One for Services alone does not make pods' pools needless; one that cannot be read may be for pods.
        let is_for_pods = |entry: &Entry| match store::decode::<Resource>(&entry.key, &entry.value) {
            Ok(Resource { spec: Spec::IpPool(pool), .. }) => pool.is_for_pods(),
            _ => true,
        };
        if self.initial_pools.is_empty() || there.await?.entries.iter().any(is_for_pods) {
            return Ok(());
        }
        let (mut checks, mut writes) = (Vec::new(), Vec::new());
        for (index, pool) in self.initial_pools.iter().enumerate() {
            let family = pool.cidr.family();
            let earlier = self.initial_pools.iter().take(index).filter(|other| other.cidr.family() == family).count();
            let name = match earlier {
                0 => format!("default-{family}-ippool"),
                _ => format!("default-{family}-ippool-{}", earlier + 1),
            };
            let name = ResourceName::new(name)?;
            let metadata = Metadata { name, labels: Default::default(), annotations: Default::default() };
            let key = keys::resource(Kind::IpPool, &metadata.name);
            let resource = Resource { metadata, spec: Spec::IpPool(pool.clone()) };
            checks.push(Check::absent(key.clone()));
            writes.push(Write::put(key, store::encode(&resource)));
        }
        // A conflict means that another node was first, with the same pools.
        self.store.transact(checks, writes).await?;
        Ok(())
    }

    /// Writes what this node says of itself.
    async fn register(&self, registration: &Registration) -> Result<(), PresenceError> {
        let write = Write::put(keys::registration(&self.node), store::encode(registration));
        self.store.transact(Vec::new(), vec![write]).await?;
        Ok(())
    }

    /// Keeps the name and the registration, once it is known, for as long as the agent runs; ends only with `Taken` or
    /// `Schema`, or when cancelled.
    pub(crate) async fn keep(
        self,
        mut session: Option<Session>,
        mut registration: watch::Receiver<Option<Registration>>,
        cancel: CancellationToken,
    ) -> Result<(), PresenceError> {
        let mut backoff = Backoff::new(ENTER_DELAYS.0, ENTER_DELAYS.1, u64::from(std::process::id()));
        let mut is_registered = false;
        loop {
            let attempt = async {
                if session.is_none() {
                    session = Some(self.enter().await?);
                    info!(node = %self.node, "this agent holds the node's name now");
                }
                if !is_registered {
                    let current = registration.borrow_and_update().clone();
                    if let Some(current) = current {
                        self.register(&current).await?;
                    }
                    is_registered = true;
                }
                Ok(())
            };
            match attempt.await {
                Err(error @ (PresenceError::Taken { .. } | PresenceError::Schema(_))) => return Err(error),
                Err(error) => {
                    warn!(%error, "this node is not registered in the store yet; trying again");
                    tokio::select! {
                        () = tokio::time::sleep(backoff.delay()) => continue,
                        () = cancel.cancelled() => return Ok(()),
                    }
                }
                Ok(()) => backoff.reset(),
            }
            let lost = async {
                if let Some(session) = &session {
                    session.lost().await;
                }
            };
            tokio::select! {
                () = lost => {
                    session = None;
                    // A store that has forgotten the session may have forgotten all the rest.
                    is_registered = false;
                }
                changed = registration.changed() => {
                    is_registered = false;
                    if changed.is_err() {
                        return Ok(());
                    }
                }
                () = cancel.cancelled() => return Ok(()),
            }
        }
    }
}

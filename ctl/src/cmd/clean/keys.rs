//! Finds and deletes the keys of a node in etcd.

use store::{Check, Key, MAX_TRANSACTION, Outcome, Store, StoreError, Write, keys};
use types::{Alive, BlockClaim, NodeName};

/// Why a node's keys stay.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeysError {
    #[error("a live agent on another machine has the name {node}; if it is not alive, its claim ends within 30 s")]
    Elsewhere { node: NodeName },
    #[error("key {key} cannot be deleted: it changes each time before it can be")]
    Contended { key: Key },
    #[error(transparent)]
    Decode(#[from] store::DecodeError),
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Removes the node's keys, its blocks first, and answers which they were. The instance of an agent on this machine ends
/// with `here`; an agent with another instance has taken the name over on another machine, and the keys with it.
pub(crate) async fn remove(store: &dyn Store, node: &NodeName, here: &str) -> Result<Vec<Key>, KeysError> {
    if let Some(entry) = store.get(&keys::alive(node)).await? {
        let alive: Alive = store::decode(&entry.key, &entry.value)?;
        if !alive.instance.ends_with(here) {
            return Err(KeysError::Elsewhere { node: node.clone() });
        }
    }
    let mut removed = Vec::new();
    for entry in store.list(&keys::blocks()).await?.entries {
        let claim: BlockClaim = store::decode(&entry.key, &entry.value)?;
        if claim.owner != *node {
            continue;
        }
        let check = vec![Check::unchanged(&entry)];
        match store.transact(check, vec![Write::delete(entry.key.clone())]).await? {
            Outcome::Committed(_) => removed.push(entry.key),
            Outcome::Conflict => return Err(KeysError::Contended { key: entry.key }),
        }
    }
    let own = store.list(&keys::node(node)).await?.entries.into_iter().map(|entry| entry.key);
    let noted = store.get(&keys::gone(node)).await?.map(|entry| entry.key);
    let own: Vec<_> = own.chain(noted).collect();
    for some in own.chunks(MAX_TRANSACTION) {
        store.transact(Vec::new(), some.iter().cloned().map(Write::delete).collect()).await?;
    }
    removed.extend(own);
    Ok(removed)
}

#[cfg(test)]
mod tests;

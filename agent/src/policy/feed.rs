//! What policy follows from, typed and on its way to felix: policies, namespaces, endpoints of other nodes.

use std::sync::Arc;

use felix::acl::Acl;
use felix::policy::PolicyUpdate;
use store::keys::Subject;
use store::{Entry, Store, keys};
use tokio::sync::{mpsc, watch};
use tracing::{debug, warn};

use types::policy::{Policy, PolicyId, PolicyKind, Problem, network_policy};
use types::resource::{Kind, NAME_LABEL, Resource, Spec};
use types::{BlockClaim, EndpointId, NodeName, Prefix, Update, WorkloadEndpoint};

use super::remote::{Consequence, Peers};
use crate::cluster::sources::{self, ClusterUpdate, decode, subjects};

/// Updates that wait for felix.
pub(crate) const UPDATES: usize = 1_024;

/// A change of what other nodes publish.
#[derive(Debug)]
pub(crate) enum PeerUpdate {
    /// Of the owners of blocks.
    Block(Update<Prefix, BlockClaim>),
    /// Of endpoints.
    Endpoint(Update<(NodeName, EndpointId), Box<WorkloadEndpoint>>),
}

/// Policies.
pub(crate) fn policy(update: Update<Subject, Entry>) -> Option<PolicyUpdate> {
    let id = |namespace: &types::ResourceName, name: &types::ResourceName| PolicyId {
        kind: PolicyKind::NetworkPolicy,
        namespace: namespace.to_string(),
        name: name.to_string(),
    };
    Some(PolicyUpdate::Policy(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(Subject::NamespacedResource(Kind::NetworkPolicy, namespace, name), entry) => {
            Update::Set(id(&namespace, &name), Arc::new(read_policy(&namespace, &entry)))
        }
        Update::Delete(Subject::NamespacedResource(Kind::NetworkPolicy, namespace, name)) => {
            Update::Delete(id(&namespace, &name))
        }
        Update::Set(..) | Update::Delete(..) => return None,
    }))
}

/// The policy of an entry. One that cannot be read governs its namespace and allows nothing: left out, it would open pods.
fn read_policy(namespace: &types::ResourceName, entry: &Entry) -> Policy {
    let resource = decode::<Resource>(entry);
    for problem in resource.iter().flat_map(problems) {
        warn!(key = %entry.key, %problem, "this part of a policy allows nothing");
    }
    let policy = resource.as_ref().and_then(Resource::policy).map(|(_, policy)| policy.clone());
    policy.unwrap_or_else(|| network_policy(namespace.as_str(), &serde_json::Value::Null).0)
}

fn problems(resource: &Resource) -> &[Problem] {
    match &resource.spec {
        Spec::NetworkPolicy(spec) => spec.problems(),
        _ => &[],
    }
}

/// Labels of namespaces.
pub(crate) fn namespace(update: Update<Subject, Entry>) -> Option<PolicyUpdate> {
    Some(PolicyUpdate::Namespace(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(Subject::Resource(Kind::Namespace, name), entry) => match decode::<Resource>(&entry) {
            Some(resource) => {
                let mut labels = resource.metadata.labels;
                labels.insert(NAME_LABEL.to_owned(), name.to_string());
                Update::Set(name.to_string(), labels)
            }
            // Its pods keep no rights by labels that may have been taken from it.
            None => Update::Delete(name.to_string()),
        },
        Update::Delete(Subject::Resource(Kind::Namespace, name)) => Update::Delete(name.to_string()),
        Update::Set(..) | Update::Delete(..) => return None,
    }))
}

/// Claims of blocks.
pub(crate) fn block(update: Update<Subject, Entry>) -> Option<PeerUpdate> {
    Some(PeerUpdate::Block(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(Subject::Block(block), entry) => Update::Set(block, decode(&entry)?),
        Update::Delete(Subject::Block(block)) => Update::Delete(block),
        Update::Set(..) | Update::Delete(..) => return None,
    }))
}

fn endpoint(update: Update<Subject, Entry>) -> Option<PeerUpdate> {
    Some(PeerUpdate::Endpoint(match update {
        Update::Restart => Update::Restart,
        Update::InSync => Update::InSync,
        Update::Set(Subject::Endpoint(node, id), entry) => match decode(&entry) {
            Some(endpoint) => Update::Set((node, id), endpoint),
            // What cannot be read gives its address no rights.
            None => Update::Delete((node, id)),
        },
        Update::Delete(Subject::Endpoint(node, id)) => Update::Delete((node, id)),
        Update::Set(..) | Update::Delete(..) => return None,
    }))
}

/// Follows all that nodes say, for those who route to nodes and for those who police their pods, and begins anew when
/// `relist` says so.
pub(crate) async fn follow_nodes(
    store: Arc<dyn Store>,
    cluster: mpsc::Sender<ClusterUpdate>,
    peers: mpsc::Sender<PeerUpdate>,
    mut relist: mpsc::Receiver<()>,
) {
    loop {
        let mut updates = store.watch(keys::nodes());
        loop {
            let update = tokio::select! {
                update = updates.recv() => update,
                Some(()) = relist.recv() => break,
            };
            let Some(update) = update else { return };
            let Some(update) = subjects(update) else { continue };
            // One kind of subject is for one of the two; what concerns the whole listing is for both.
            let told = match &update {
                Update::Set(Subject::Endpoint(..), _) | Update::Delete(Subject::Endpoint(..)) => (false, true),
                Update::Set(..) | Update::Delete(_) => (true, false),
                Update::Restart | Update::InSync => (true, true),
            };
            if told.1
                && let Some(update) = endpoint(update.clone())
                && peers.send(update).await.is_err()
            {
                return;
            }
            if told.0
                && let Some(update) = sources::registration(update)
                && cluster.send(update).await.is_err()
            {
                return;
            }
        }
        debug!("a block has changed hands: published endpoints are listed anew");
    }
}

/// Judges what other nodes publish.
pub(crate) async fn judge_peers(
    mut peers: Peers,
    mut updates: mpsc::Receiver<PeerUpdate>,
    out: mpsc::Sender<PolicyUpdate>,
    relist: mpsc::Sender<()>,
    refused: watch::Sender<usize>,
) {
    while let Some(update) = updates.recv().await {
        let updates = match update {
            PeerUpdate::Endpoint(update) => peers.endpoint(update),
            PeerUpdate::Block(update) => match peers.block(update) {
                Consequence::Accepted(updates) => updates,
                Consequence::Relist => {
                    // One that is under way comes after this change as well.
                    let _ = relist.try_send(());
                    Vec::new()
                }
            },
        };
        crate::tasks::tell(&refused, peers.refused());
        for update in updates {
            if out.send(PolicyUpdate::Remote(update)).await.is_err() {
                return;
            }
        }
    }
}

/// Carries updates to felix, as many at a time as have come.
pub(crate) async fn carry(mut updates: mpsc::Receiver<PolicyUpdate>, acl: Acl) {
    let mut batch = Vec::new();
    while updates.recv_many(&mut batch, UPDATES).await > 0 {
        acl.update(std::mem::take(&mut batch)).await;
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;
    use store::Version;

    use super::*;

    fn set(value: Vec<u8>) -> Update<Subject, Entry> {
        let name: types::ResourceName = "shop".parse().unwrap();
        let (key, version) = (keys::resource(Kind::Namespace, &name), Version::new(1));
        Update::Set(Subject::Resource(Kind::Namespace, name), Entry { key, value, version, created: version })
    }

    fn told(update: Update<Subject, Entry>) -> Update<String, types::policy::Labels> {
        let Some(PolicyUpdate::Namespace(update)) = namespace(update) else { panic!("not told as a namespace") };
        update
    }

    #[test]
    fn a_namespace_that_cannot_be_read_has_no_labels_any_more() {
        let document = json!({
            "apiVersion": Kind::Namespace.api_version(),
            "kind": "Namespace",
            "metadata": { "name": "shop", "labels": { "team": "a" } },
        });
        let labels = [("team", "a"), (NAME_LABEL, "shop")].map(|(key, value)| (key.to_owned(), value.to_owned()));
        assert_eq!(told(set(store::encode(&document))), Update::Set("shop".to_owned(), labels.into()));
        for unreadable in [b"no document".to_vec(), store::encode(&json!({})), br#"{"version":99,"spec":{}}"#.to_vec()]
        {
            assert_eq!(told(set(unreadable)), Update::Delete("shop".to_owned()));
        }
    }
}

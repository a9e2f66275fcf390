//! Policies and namespaces, typed and on their way to felix.

use std::sync::Arc;

use felix::acl::Acl;
use felix::policy::PolicyUpdate;
use serde_json::Value;
use store::Entry;
use store::keys::Subject;
use tokio::sync::mpsc;
use tracing::warn;

use types::Update;
use types::policy::{Labels, Policy, PolicyId, PolicyKind, Problem, network_policy};
use types::resource::{Kind, NAME_LABEL, Resource, Spec};

use super::foreseen::Foreseen;
use crate::cluster::sources::decode;

/// Updates that wait for felix.
pub(crate) const QUEUED_UPDATES: usize = 1_024;

/// Reads reports about policies in the store.
pub(crate) fn policy(update: Update<Subject, Entry>) -> Option<PolicyUpdate> {
    let policies = update.filter_map(|subject| match subject {
        Subject::NamespacedResource(Kind::NetworkPolicy, namespace, name) => {
            Some(PolicyId { kind: PolicyKind::NetworkPolicy, namespace: namespace.to_string(), name: name.to_string() })
        }
        _ => None,
    })?;
    Some(PolicyUpdate::Policy(policies.map(|id| id, |id, entry| Arc::new(read_policy(id, &entry)))))
}

/// Reads reports about policies of the API server.
pub(crate) fn watched_policy(update: Update<PolicyId, Value>) -> PolicyUpdate {
    PolicyUpdate::Policy(update.map(
        |id| id,
        |id, spec| {
            let (policy, problems) = network_policy(&id.namespace, &spec);
            for problem in &problems {
                warn!(policy = %id, %problem, "a part of a policy cannot be read and allows nothing");
            }
            Arc::new(policy)
        },
    ))
}

/// The policy of an entry. One that cannot be read governs its namespace and allows nothing: left out, it would open pods.
fn read_policy(id: &PolicyId, entry: &Entry) -> Policy {
    let resource = decode::<Resource>(entry);
    for problem in resource.iter().flat_map(problems) {
        warn!(key = %entry.key, %problem, "a part of a policy cannot be read and allows nothing");
    }
    let policy = resource.as_ref().and_then(Resource::policy).map(|(_, policy)| policy.clone());
    policy.unwrap_or_else(|| network_policy(&id.namespace, &Value::Null).0)
}

fn problems(resource: &Resource) -> &[Problem] {
    match &resource.spec {
        Spec::NetworkPolicy(spec) => spec.problems(),
        _ => &[],
    }
}

/// Reads reports about namespaces in the store.
pub(crate) fn namespace(update: Update<Subject, Entry>) -> Option<PolicyUpdate> {
    let namespaces = update.filter_map(|subject| match subject {
        Subject::Resource(Kind::Namespace, name) => Some(name.to_string()),
        _ => None,
    })?;
    // The pods of one that cannot be read keep no rights by labels that may have been taken from it.
    let read = namespaces.try_map(|name, entry| labels(name, &entry).ok_or(()));
    Some(PolicyUpdate::Namespace(read.unwrap_or_else(|(name, ())| Update::Delete(name))))
}

fn labels(name: &str, entry: &Entry) -> Option<Labels> {
    Some(with_name(name, decode::<Resource>(entry)?.metadata.labels))
}

/// Labels of namespaces as the API server has them.
pub(crate) fn watched_namespace(update: Update<String, Labels>) -> PolicyUpdate {
    PolicyUpdate::Namespace(update.map(|name| name, |name, labels| with_name(name, labels)))
}

/// With the label that says a namespace's name, which nobody can give to another.
fn with_name(name: &str, mut labels: Labels) -> Labels {
    labels.insert(NAME_LABEL.to_owned(), name.to_owned());
    labels
}

/// Carries updates to felix, as many at a time as have come, and behind them what pods are to be foreseen by them: one after the
/// other would be many changes, together they are two.
pub(crate) async fn carry(mut updates: mpsc::Receiver<PolicyUpdate>, mut foreseen: Option<Foreseen>, acl: Acl) {
    let mut batch = Vec::new();
    while updates.recv_many(&mut batch, QUEUED_UPDATES).await > 0 {
        if let Some(foreseen) = &mut foreseen {
            let expected: Vec<_> = batch.iter().filter_map(|update| foreseen.follow(update)).collect();
            batch.extend(expected);
        }
        acl.update(std::mem::take(&mut batch)).await;
    }
}

#[cfg(test)]
mod tests;

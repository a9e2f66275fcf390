//! Which pods there may be soon, where nobody tells of a pod before its ADD: for each policy one that has the labels that it
//! selects. Policy expects those as it expects pods of the API server, so that their classes are in the kernel: an ADD does not
//! wait for iptables then. Pods that several policies select in combinations that no policy tells of are not foreseen.

use std::collections::BTreeSet;

use felix::policy::{EndpointFacts, PolicyUpdate};

use types::policy::{NamespaceSelector, Policy, PolicyId};
use types::{NamespacedName, Update};

/// So many policies are foreseen at most, the first that are told: each may cost a class.
const POLICIES_FORESEEN: usize = 128;

/// The policies that a pod was foreseen for.
#[derive(Debug, Default)]
pub(crate) struct Foreseen {
    policies: BTreeSet<PolicyId>,
    /// Those of them that a listing has named which has begun and not ended; policy forgets the others at its end.
    listed: Option<BTreeSet<PolicyId>>,
}

impl Foreseen {
    /// What policy is to expect, now that this was said of policies.
    pub(crate) fn follow(&mut self, update: &PolicyUpdate) -> Option<PolicyUpdate> {
        let PolicyUpdate::Policy(update) = update else { return None };
        let expected = match update {
            Update::Restart => {
                self.listed = Some(BTreeSet::new());
                Update::Restart
            }
            Update::InSync => {
                if let Some(listed) = self.listed.take() {
                    self.policies = listed;
                }
                Update::InSync
            }
            Update::Delete(id) => self.forget(id)?,
            Update::Set(id, policy) => match labels_selected(policy) {
                Some(facts) if self.policies.contains(id) || self.policies.len() < POLICIES_FORESEEN => {
                    self.policies.insert(id.clone());
                    if let Some(listed) = &mut self.listed {
                        listed.insert(id.clone());
                    }
                    Update::Set(key(id), EndpointFacts { name: id.name.clone(), ..facts })
                }
                _ => self.forget(id)?,
            },
        };
        Some(PolicyUpdate::Expected(expected))
    }

    fn forget(&mut self, id: &PolicyId) -> Option<Update<NamespacedName, EndpointFacts>> {
        if let Some(listed) = &mut self.listed {
            listed.remove(id);
        }
        self.policies.remove(id).then(|| Update::Delete(key(id)))
    }
}

fn key(id: &PolicyId) -> NamespacedName {
    NamespacedName { namespace: id.namespace.clone(), name: id.name.clone() }
}

/// A pod that the policy selects, if its selector says in so many words what one has.
fn labels_selected(policy: &Policy) -> Option<EndpointFacts> {
    let NamespaceSelector::Named(namespace) = &policy.subject.namespaces else { return None };
    let selector = &policy.subject.endpoints;
    selector.match_expressions.is_empty().then(|| EndpointFacts {
        namespace: namespace.clone(),
        name: String::new(),
        labels: selector.match_labels.clone(),
        ports: Vec::new(),
        addresses: Vec::new(),
        finished: false,
    })
}

#[cfg(test)]
mod tests;

//! NetworkPolicy, as it is kept where there is no Kubernetes.

use serde_json::Value;

use super::namespace;
use crate::policy::{Policy, Problem, network_policy};
use crate::{NameError, ResourceName};

/// A policy of a namespace: as it was written, and what it means.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetworkPolicySpec {
    /// The namespace.
    pub namespace: ResourceName,
    /// The `spec` as it was written.
    written: Value,
    /// The policy in the model's terms. It follows from the two fields above.
    policy: Policy,
    /// The parts of it that make no sense. They follow from the two fields above.
    problems: Vec<Problem>,
}

impl NetworkPolicySpec {
    pub(super) fn new(namespace: ResourceName, written: Value) -> Self {
        let (policy, problems) = network_policy(namespace.as_str(), &written);
        Self { namespace, written, policy, problems }
    }

    /// The policy in the model's terms.
    pub const fn policy(&self) -> &Policy {
        &self.policy
    }

    /// The parts that make no sense, in whose place something is in force that allows less.
    /// [`super::Resource::from_value`] refuses a policy that has any; a stored one may have some, written by a newer
    /// Manx or by hand.
    pub fn problems(&self) -> &[Problem] {
        &self.problems
    }

    pub(super) const fn written(&self) -> &Value {
        &self.written
    }

    pub(super) fn problem(&self) -> Option<String> {
        namespace::name_fault(&self.namespace)
    }
}

/// The namespace of a document that names none, as kubectl has it.
pub(super) fn default_namespace() -> Result<ResourceName, serde_json::Error> {
    ResourceName::new("default").map_err(|error: NameError| serde::de::Error::custom(error))
}

//! `networking.k8s.io/v1` NetworkPolicy, read into the model.

use serde_json::Value;

use super::Policy;

/// A part of a policy that makes no sense. It allows nothing; the rest of the policy is in force.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{place}: {what}")]
pub struct Problem {
    /// Where: `spec.ingress[0].from[1].ipBlock.cidr`.
    pub place: String,
    /// What is wrong with it.
    pub what: String,
}

/// Reads the `spec` of a NetworkPolicy of a namespace, and names all of it that makes no sense. Never fails: what cannot
/// be read allows nothing (a rule, or a peer of it), and a policy whose selector cannot be read governs its whole namespace.
pub fn network_policy(namespace: &str, spec: &Value) -> (Policy, Vec<Problem>) {
    let _ = (namespace, spec);
    unimplemented!("being written")
}

//! The resource Namespace, of which only the name and the labels count.

use super::Metadata;
use crate::ResourceName;
use crate::policy::label_fault;

/// The label that every namespace has, with its own name as value, whatever its object says.
pub const NAME_LABEL: &str = "kubernetes.io/metadata.name";

pub(super) fn problem(metadata: &Metadata) -> Option<String> {
    let labels = metadata.labels.iter().filter_map(|(key, value)| label_fault(key, value));
    let faults: Vec<_> = name_fault(&metadata.name).into_iter().chain(labels).collect();
    (!faults.is_empty()).then(|| faults.join("; "))
}

/// A namespace's name is a DNS label (RFC 1123), narrower than that of most resources.
pub(super) fn name_fault(name: &ResourceName) -> Option<String> {
    let name = name.as_str();
    (name.len() > 63 || name.contains('.'))
        .then(|| format!("{name:?} is not a namespace's name: no '.', and at most 63 characters"))
}

//! What policy needs of an endpoint, and what is described to other nodes of it. This is the one place where an endpoint or a
//! pod is turned into that.

use felix::policy::EndpointFacts;
use ipam::Description;

use types::{Pod, WorkloadEndpoint};

/// What policy needs of an endpoint, of this node or another.
pub(crate) fn of_endpoint(endpoint: WorkloadEndpoint) -> EndpointFacts {
    let WorkloadEndpoint { pod, addresses, labels, ports, finished, .. } = endpoint;
    EndpointFacts { namespace: pod.namespace, name: pod.name, labels, ports, addresses, finished }
}

/// What policy needs of a pod that has no endpoint yet: the runtime gives it its addresses with its ADD.
pub(crate) fn of_pod(pod: Pod) -> EndpointFacts {
    let Pod { reference, labels, ports, finished, .. } = pod;
    EndpointFacts {
        namespace: reference.namespace,
        name: reference.name,
        labels,
        ports,
        addresses: Vec::new(),
        finished,
    }
}

/// What is published of a pod's endpoint beside its addresses.
pub(crate) fn description(pod: &Pod) -> Description {
    Description { labels: pod.labels.clone(), ports: pod.ports.clone(), finished: pod.finished }
}

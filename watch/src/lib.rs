//! Watches of the Kubernetes API: the only crate that knows kube.

//! The cluster's DNS: CoreDNS, as Kubernetes' own installers deploy it.

use serde_json::{Value, json};

use super::image::COREDNS_IMAGE;
use super::machine::DNS;

/// There is no DNS outside of the lab to forward to: what is not the cluster's does not exist.
const COREFILE: &str = "cluster.local:53 in-addr.arpa:53 ip6.arpa:53 {
    errors
    health {
        lameduck 5s
    }
    ready
    kubernetes cluster.local in-addr.arpa ip6.arpa {
        pods insecure
        ttl 30
    }
    prometheus :9153
    cache 30
    loadbalance
}
.:53 {
    errors
    template ANY ANY {
        rcode NXDOMAIN
    }
}
";

/// The manifest of everything that has to be applied.
pub(crate) fn manifest() -> Value {
    let labels = json!({ "k8s-app": "kube-dns" });
    let named = |kind: &str, version: &str| json!({ "apiVersion": version, "kind": kind, "metadata": { "name": "coredns", "namespace": "kube-system" } });
    let with = |mut object: Value, key: &str, value: Value| {
        object.as_object_mut().and_then(|fields| fields.insert(key.to_owned(), value));
        object
    };
    let list = |group: &str, resources: &[&str]| json!({ "apiGroups": [group], "resources": resources, "verbs": ["list", "watch"] });
    let role = with(
        json!({ "apiVersion": "rbac.authorization.k8s.io/v1", "kind": "ClusterRole", "metadata": { "name": "system:coredns" } }),
        "rules",
        json!([
            list("", &["endpoints", "services", "pods", "namespaces"]),
            list("discovery.k8s.io", &["endpointslices"]),
        ]),
    );
    let binding = json!({
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRoleBinding",
        "metadata": { "name": "system:coredns" },
        "roleRef": { "apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "system:coredns" },
        "subjects": [{ "kind": "ServiceAccount", "name": "coredns", "namespace": "kube-system" }],
    });
    let deployment = with(
        named("Deployment", "apps/v1"),
        "spec",
        json!({
            "replicas": 1,
            "selector": { "matchLabels": labels },
            "template": { "metadata": { "labels": labels }, "spec": pod() },
        }),
    );
    let service = json!({
        "apiVersion": "v1",
        "kind": "Service",
        "metadata": { "name": "kube-dns", "namespace": "kube-system", "labels": labels },
        "spec": {
            "selector": labels,
            "clusterIP": DNS,
            "ipFamilyPolicy": "PreferDualStack",
            "ports": [
                { "name": "dns", "port": 53, "protocol": "UDP" },
                { "name": "dns-tcp", "port": 53, "protocol": "TCP" },
                { "name": "metrics", "port": 9153, "protocol": "TCP" },
            ],
        },
    });
    let configuration = with(named("ConfigMap", "v1"), "data", json!({ "Corefile": COREFILE }));
    let items = json!([named("ServiceAccount", "v1"), role, binding, configuration, deployment, service]);
    json!({ "apiVersion": "v1", "kind": "List", "items": items })
}

fn pod() -> Value {
    let port =
        |name: &str, port: u16, protocol: &str| json!({ "name": name, "containerPort": port, "protocol": protocol });
    json!({
        "serviceAccountName": "coredns",
        "priorityClassName": "system-cluster-critical",
        "dnsPolicy": "Default",
        "tolerations": [{ "key": "CriticalAddonsOnly", "operator": "Exists" }],
        "containers": [{
            "name": "coredns",
            "image": COREDNS_IMAGE,
            "imagePullPolicy": "IfNotPresent",
            "args": ["-conf", "/etc/coredns/Corefile"],
            "ports": [port("dns", 53, "UDP"), port("dns-tcp", 53, "TCP"), port("metrics", 9153, "TCP")],
            "resources": { "requests": { "cpu": "10m", "memory": "30Mi" }, "limits": { "memory": "170Mi" } },
            "volumeMounts": [{ "name": "config", "mountPath": "/etc/coredns", "readOnly": true }],
            "readinessProbe": { "httpGet": { "path": "/ready", "port": 8181 }, "periodSeconds": 1 },
            "securityContext": {
                "allowPrivilegeEscalation": false,
                "readOnlyRootFilesystem": true,
                "capabilities": { "drop": ["ALL"], "add": ["NET_BIND_SERVICE"] },
            },
        }],
        "volumes": [{ "name": "config", "configMap": { "name": "coredns" } }],
    })
}

//! The objects that the demonstration applies.

use tests::AGNHOST_IMAGE;

/// The Kubernetes namespace of all these objects.
pub(super) const NAMESPACE: &str = "demo";

/// A web server in each rack, a customer and a stranger in the first rack, and one in the second that no policy selects.
pub(super) fn workload() -> String {
    WORKLOAD.replace("IMAGE", AGNHOST_IMAGE)
}

const WORKLOAD: &str = "\
apiVersion: v1
kind: Namespace
metadata: {name: demo}
---
apiVersion: apps/v1
kind: Deployment
metadata: {name: web, namespace: demo}
spec:
  replicas: 2
  selector: {matchLabels: {app: web}}
  template:
    metadata: {labels: {app: web}}
    spec:
      topologySpreadConstraints:
        - {topologyKey: rack, maxSkew: 1, whenUnsatisfiable: DoNotSchedule, labelSelector: {matchLabels: {app: web}}}
      containers:
        - name: web
          image: IMAGE
          args: [netexec, --http-port=8080]
          readinessProbe: {httpGet: {path: /healthz, port: 8080}, periodSeconds: 1}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: demo}
spec:
  selector: {app: web}
  ipFamilyPolicy: RequireDualStack
  ports: [{port: 80, targetPort: 8080}]
---
apiVersion: v1
kind: Pod
metadata: {name: customer, namespace: demo, labels: {app: customer}}
spec:
  nodeSelector: {rack: '1'}
  containers: [{name: c, image: IMAGE, args: [netexec, --http-port=8080]}]
---
apiVersion: v1
kind: Pod
metadata: {name: stranger, namespace: demo, labels: {app: stranger}}
spec:
  nodeSelector: {rack: '1'}
  containers: [{name: c, image: IMAGE, args: [netexec, --http-port=8080]}]
---
apiVersion: v1
kind: Pod
metadata: {name: far, namespace: demo, labels: {app: far}}
spec:
  nodeSelector: {rack: '2'}
  containers: [{name: c, image: IMAGE}]
";

/// The web servers take from customers and from the host outside, and from nobody else.
pub(super) const POLICY: &str = "\
apiVersion: networking.k8s.io/v1
kind: NetworkPolicy
metadata: {name: web-for-customers, namespace: demo}
spec:
  podSelector: {matchLabels: {app: web}}
  ingress:
    - from:
        - podSelector: {matchLabels: {app: customer}}
        - ipBlock: {cidr: 192.0.2.0/24}
        - ipBlock: {cidr: '2001:db8:2::/64'}
      ports: [{port: 8080}]
";

/// Addresses for Services of type LoadBalancer, and that BGP tells of them. (The mesh stays off.)
pub(super) const ADDRESSES: &str = "\
apiVersion: projectcalico.org/v3
kind: IPPool
metadata: {name: lb}
spec: {cidr: 203.0.113.0/24, allowedUses: [LoadBalancer]}
---
apiVersion: projectcalico.org/v3
kind: BGPConfiguration
metadata: {name: default}
spec:
  nodeToNodeMeshEnabled: false
  serviceLoadBalancerIPs: [{cidr: 203.0.113.0/24}]
";

/// The web servers for the world.
pub(super) const BALANCED: &str = "\
apiVersion: v1
kind: Service
metadata: {name: shop, namespace: demo}
spec:
  type: LoadBalancer
  externalTrafficPolicy: Local
  selector: {app: web}
  ports: [{port: 80, targetPort: 8080}]
";

//! Which fields, and which values of them, are implemented.

use serde_json::Value;

use super::Kind;

/// How a field of a spec is treated.
enum Field {
    /// The field is implemented; its type checks the value.
    Any,
    /// The field is implemented for this value alone; any other value asks for something that Manx does not do.
    Only(&'static [&'static str]),
    /// The field is a mapping with fields of its own.
    Nested(&'static [(&'static str, Self)]),
}

use Field::{Any, Nested, Only};

const IP_POOL: &[(&str, Field)] = &[
    ("cidr", Any),
    ("blockSize", Any),
    ("disabled", Any),
    ("nodeSelector", Any),
    ("disableBGPExport", Any),
    ("ipipMode", Only(&["Never"])),
    ("vxlanMode", Only(&["Never"])),
    ("natOutgoing", Any),
    ("allowedUses", Any),
];

const NODE: &[(&str, Field)] = &[(
    "bgp",
    Nested(&[("asNumber", Any), ("ipv4Address", Any), ("ipv6Address", Any), ("routeReflectorClusterID", Any)]),
)];

const BGP_CONFIGURATION: &[(&str, Field)] = &[
    ("asNumber", Any),
    ("nodeToNodeMeshEnabled", Any),
    ("listenPort", Any),
    ("nodeMeshMaxRestartTime", Any),
    ("serviceClusterIPs", Any),
    ("serviceExternalIPs", Any),
    ("serviceLoadBalancerIPs", Any),
    ("serviceLoadBalancerAggregation", Any),
    ("nodeMeshPassword", Nested(PASSWORD)),
    ("nodeMeshPasswordFile", Any),
    ("nodeMeshTTLSecurity", Any),
    ("originValidation", Any),
];

const BGP_PEER: &[(&str, Field)] = &[
    ("node", Any),
    ("nodeSelector", Any),
    ("peerIP", Any),
    ("peerSelector", Any),
    ("localWorkloadSelector", Any),
    ("asNumber", Any),
    ("maxRestartTime", Any),
    ("exportOtherNodes", Any),
    ("password", Nested(PASSWORD)),
    ("passwordFile", Any),
    ("ttlSecurity", Any),
    ("originValidation", Any),
    ("acceptAggregates", Any),
    ("maxPrefixes", Any),
    ("maxPrefixesAction", Any),
];

const PASSWORD: &[(&str, Field)] = &[(
    "secretKeyRef",
    // A session whose password is missing is not opened, whatever is said.
    Nested(&[("name", Any), ("key", Any), ("optional", Only(&["false"]))]),
)];

/// What stands in the place of an address of its own for pods to peer with.
const PODS_PEER_WITH: &str = "pods peer with an address of their node, which they know as status.hostIP; leave it out";

/// What to write in the place of a field that people look for.
const INSTEAD: &[(&str, &str)] =
    &[("spec.localWorkloadPeeringIPV4", PODS_PEER_WITH), ("spec.localWorkloadPeeringIPV6", PODS_PEER_WITH)];

/// The field of a Namespace's `spec` that an API server adds.
const NAMESPACE: &[(&str, Field)] = &[("finalizers", Any)];

/// Paths of the fields of `spec` that Manx does not implement, with the value where only the value is the matter.
pub(super) fn unknown(kind: Kind, spec: &Value) -> Vec<String> {
    let known = match kind {
        Kind::IpPool => IP_POOL,
        Kind::Node => NODE,
        Kind::BgpConfiguration => BGP_CONFIGURATION,
        Kind::BgpPeer => BGP_PEER,
        // The reader of policies names what it does not know by itself, at any depth.
        Kind::NetworkPolicy => return Vec::new(),
        Kind::Namespace => NAMESPACE,
    };
    let mut refused = Vec::new();
    collect("spec", known, spec, &mut refused);
    refused
}

fn collect(path: &str, known: &[(&str, Field)], value: &Value, refused: &mut Vec<String>) {
    let Value::Object(object) = value else { return };
    for (key, value) in object {
        let path = format!("{path}.{key}");
        match known.iter().find(|(name, _)| name == key).map(|(_, field)| field) {
            None => {
                let instead = INSTEAD.iter().find(|(known, _)| *known == path);
                refused.push(instead.map_or_else(|| path.clone(), |(_, instead)| format!("{path} ({instead})")));
            }
            Some(Any) => {}
            Some(Only(values)) => {
                let text = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
                if !values.contains(&text.as_str()) {
                    refused.push(format!("{path}: {text}"));
                }
            }
            Some(Nested(inner)) => collect(&path, inner, value, refused),
        }
    }
}

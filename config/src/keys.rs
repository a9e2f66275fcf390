//! The names of all settings: as keys of the file and as variables.

/// Every key, in the order in which the documentation lists them.
pub const KEYS: &[&str] = &[
    "nodeName",
    "etcd.endpoints",
    "etcd.ca",
    "etcd.cert",
    "etcd.key",
    "etcd.username",
    "etcd.password",
    "etcd.prefix",
    "addressDetection.ipv4",
    "addressDetection.ipv6",
    "bgp.listenPort",
    "bgp.importPrefixes",
    "bgp.restartTime",
    "initialPools",
    "mtu",
    "coolDown",
    "reclaimGrace",
    "stateDir",
    "runDir",
    "healthAddress",
    "kernel.linkGroup",
    "kernel.protocols",
    "kernel.markMask",
    "kubernetes",
    "cniConfDir",
    "policy.endpointToHost",
    "policy.cutConnections",
    "policy.iptables",
    "policy.logGroup",
];

/// Whether keys lie under this name.
pub(crate) fn is_group(name: &str) -> bool {
    KEYS.iter().any(|key| key.strip_prefix(name).is_some_and(|rest| rest.starts_with('.')))
}

/// The environment variable of a key.
pub fn variable(key: &str) -> String {
    let mut name = String::from("MANX_");
    for c in key.chars() {
        match c {
            '.' => name.push('_'),
            c if c.is_ascii_uppercase() => {
                name.push('_');
                name.push(c);
            }
            c => name.push(c.to_ascii_uppercase()),
        }
    }
    name
}

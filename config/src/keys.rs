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
    "cniBinDir",
    "hostPorts.range",
    "policy.endpointToHost",
    "policy.allowVXLANPacketsFromWorkloads",
    "policy.allowIPIPPacketsFromWorkloads",
    "policy.natOutgoingExclusions",
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
    let mut before = None;
    let mut letters = key.chars().peekable();
    while let Some(letter) = letters.next() {
        // A word begins with the only capital of its own, or with the last of several: `allowVXLANPackets` has three.
        let begins = letter.is_ascii_uppercase()
            && (before.is_none_or(|before: char| !before.is_ascii_uppercase())
                || letters.peek().is_some_and(char::is_ascii_lowercase));
        if letter == '.' || begins {
            name.push('_');
        }
        if letter != '.' {
            name.push(letter.to_ascii_uppercase());
        }
        before = Some(letter);
    }
    name
}

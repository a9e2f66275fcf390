//! What a configuration may ask for and Manx does not do: refused with code 2 and words, never passed over. A pod that
//! silently gets something else than was asked for is worse off than one that does not start.
//!
//! DEL does not look here: a pod whose configuration is refused now may have been plugged in before.

use serde_json::{Map, Value};

use crate::lease;
use crate::spec::{CniError, Code};

/// A key that asks for something, and its value as it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wish {
    /// The key, with the sections it is in.
    key: String,
    value: String,
    /// Why it is not granted, or what to write instead.
    why: &'static str,
}

pub(crate) const ADDRESSES: &str = "addresses come from the node's pools";
const POOLS: &str =
    "which pools a node gives addresses out of is said by the nodeSelector of IPPool resources, not by the plugin";
const AGENT: &str = "that is a setting of the agent (agent.yaml), not of the plugin";

/// Keys of a plugin object that other networks' plugins know, and what is to be written for Manx instead.
const KEYS: [(&str, &str); 16] = [
    ("policy", "NetworkPolicies hold for every pod where the agent knows the API server; leave the key out"),
    ("kubernetes", "the agent speaks to the API server, with the kubeconfig of agent.yaml; leave the key out"),
    ("nodename", AGENT),
    ("log_level", AGENT),
    ("log_file_path", "the plugin logs to its standard error alone"),
    ("datastore_type", AGENT),
    ("etcd_endpoints", AGENT),
    ("etcd_key_file", AGENT),
    ("etcd_cert_file", AGENT),
    ("etcd_ca_cert_file", AGENT),
    ("container_settings", "forwarding inside of pods is for the tuning plugin behind manx"),
    ("ipMasq", "masquerading is said by natOutgoing of IPPool resources"),
    ("isGateway", "there is no bridge: the pod's gateway is its node"),
    ("hairpinMode", "there is no bridge"),
    ("vlan", "there is no bridge"),
    ("bridge", "there is no bridge"),
];

/// Values that a runtime gives to a plugin that declares their capability, in `runtimeConfig`.
const RUNTIME: [(&str, &str); 6] = [
    ("ips", ADDRESSES),
    ("mac", "put the tuning plugin behind manx, with the capability mac"),
    ("ipRanges", POOLS),
    ("bandwidth", "put the bandwidth plugin behind manx, with the capability bandwidth"),
    ("deviceID", "pods have a pair of virtual links"),
    ("infinibandGUID", "pods have a pair of virtual links"),
];

/// What a plugin object asks for in vain.
pub(crate) fn of(object: &Map<String, Value>, runtime: Option<&Map<String, Value>>) -> Vec<Wish> {
    let mut wishes = Vec::new();
    for (key, why) in KEYS {
        wishes.extend(object.get(key).and_then(|value| wish(key.to_owned(), value, why)));
    }
    match object.get("ipam") {
        Some(Value::Object(ipam)) => wishes.extend(of_ipam(ipam)),
        Some(other) => wishes.extend(wish("ipam".to_owned(), other, ADDRESSES)),
        None => {}
    }
    for (key, why) in RUNTIME {
        let value = runtime.and_then(|section| lookup(section, key));
        wishes.extend(value.and_then(|value| wish(format!("runtimeConfig.{key}"), value, why)));
    }
    wishes
}

/// What a main plugin's configuration asks this plugin for in vain, which it runs for addresses alone: what stands outside of
/// `ipam` is its own business.
pub(crate) fn of_main_plugin(ipam: &Map<String, Value>, runtime: Option<&Map<String, Value>>) -> Vec<Wish> {
    let foreign: Map<_, _> = ipam
        .iter()
        .filter(|(key, _)| !lease::KEYS.contains(&key.as_str()))
        .map(|(key, value)| (key.clone(), value.clone()))
        .collect();
    let mut wishes: Vec<_> = of_ipam(&foreign).collect();
    for (key, why) in RUNTIME.into_iter().filter(|(key, _)| matches!(*key, "ips" | "ipRanges")) {
        let value = runtime.and_then(|section| lookup(section, key));
        wishes.extend(value.and_then(|value| wish(format!("runtimeConfig.{key}"), value, why)));
    }
    wishes
}

/// An `ipam` section: our own type asks for what is done anyway, whatever else stands there does not.
fn of_ipam(ipam: &Map<String, Value>) -> impl Iterator<Item = Wish> {
    ipam.iter().filter_map(|(key, value)| match (key.as_str(), value.as_str()) {
        ("type", Some("manx")) => None,
        ("type", _) => wish(format!("ipam.{key}"), value, "manx gives out addresses itself; leave ipam out"),
        ("ipv4_pools" | "ipv6_pools" | "subnet" | "ranges" | "range" | "rangeStart" | "rangeEnd", _) => {
            wish(format!("ipam.{key}"), value, POOLS)
        }
        ("assign_ipv4" | "assign_ipv6", _) => {
            wish(format!("ipam.{key}"), value, "a pod has an address of each family that the node's pools have")
        }
        _ => wish(format!("ipam.{key}"), value, ADDRESSES),
    })
}

/// A wish, unless the value asks for nothing.
pub(crate) fn wish(key: String, value: &Value, why: &'static str) -> Option<Wish> {
    (!asks_for_nothing(value)).then(|| Wish { key, value: value.to_string(), why })
}

impl Wish {
    /// A request for an address or a MAC among the arguments.
    pub(crate) fn argument(key: &str, value: String) -> Self {
        Self { key: key.to_owned(), value, why: ADDRESSES }
    }

    /// As the runtime is told (code 2, "with the key and value": CNI spec section 5).
    pub fn into_cni(self) -> CniError {
        let Self { key, value, why } = self;
        CniError::new(Code::UnsupportedField, format!("{key}={value} is not supported: {why}"))
    }
}

/// A key in any case: Go's decoder does not mind it, and containerd relies on that.
pub(crate) fn lookup<'a>(object: &'a Map<String, Value>, key: &str) -> Option<&'a Value> {
    object.get(key).or_else(|| object.iter().find(|(name, _)| name.eq_ignore_ascii_case(key)).map(|(_, value)| value))
}

fn asks_for_nothing(value: &Value) -> bool {
    match value {
        Value::Null | Value::Bool(false) => true,
        Value::String(text) => text.is_empty(),
        Value::Array(items) => items.is_empty(),
        Value::Object(fields) => fields.values().all(asks_for_nothing),
        Value::Number(number) => number.as_u64() == Some(0),
        Value::Bool(true) => false,
    }
}

#[cfg(test)]
mod tests;

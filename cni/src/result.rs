//! What ADD prints (CNI spec section 5, Success): one form per version, appended to what earlier plugins of the chain did.

use std::net::IpAddr;

use serde_json::{Map, Value, json};
use types::cni::HOST_MAC;
use types::{Family, Prefix};

use crate::plan::{self, Pairing};
use crate::spec::{CniError, CniVersion, Code};

/// A finished attachment.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Attached<'a> {
    /// The interfaces, addresses and routes that were made.
    pub pairing: &'a Pairing,
    /// The MAC address of the pod's end.
    pub pod_mac: [u8; 6],
    /// CNI_NETNS, as the runtime wrote it.
    pub sandbox: &'a str,
    /// The configuration's `dns`, which goes into the result where no plugin before has given one.
    pub dns: Option<&'a Value>,
}

impl Attached<'_> {
    /// The result in the form of `version`. What `previous` has stays as it is, with keys that this plugin does not
    /// know; ours comes behind it.
    pub fn to_json(&self, version: CniVersion, previous: Option<Map<String, Value>>) -> Result<String, CniError> {
        let mut result = previous.unwrap_or_default();
        result.insert("cniVersion".to_owned(), json!(version));
        let before = list(&mut result, "interfaces")?.len();
        let pod_interface = before + 1;
        list(&mut result, "interfaces")?.extend(self.interfaces(version));
        list(&mut result, "ips")?.extend(self.ips(version, pod_interface));
        list(&mut result, "routes")?.extend(self.routes());
        if let Some(dns) = self.dns {
            let known = result.get("dns").and_then(Value::as_object).is_some_and(|dns| !dns.is_empty());
            if !known {
                result.insert("dns".to_owned(), dns.clone());
            }
        }
        Ok(Value::Object(result).to_string())
    }

    /// The host's end, then the pod's. The host's has the empty sandbox: bandwidth and portmap find it by that.
    fn interfaces(&self, version: CniVersion) -> [Value; 2] {
        let interface = |name: &str, mac: [u8; 6], sandbox: &str| {
            let mut interface = json!({ "name": name, "mac": mac_text(mac), "sandbox": sandbox });
            if let (CniVersion::V1_1_0, Some(interface)) = (version, interface.as_object_mut()) {
                interface.insert("mtu".to_owned(), json!(self.pairing.mtu));
            }
            interface
        };
        [
            interface(self.pairing.host.as_str(), HOST_MAC, ""),
            interface(self.pairing.pod.as_str(), self.pod_mac, self.sandbox),
        ]
    }

    fn ips(&self, version: CniVersion, interface: usize) -> impl Iterator<Item = Value> {
        self.pairing.addresses.iter().map(move |address| {
            // sbr routes by it; nobody else has to, as the routes are in the result.
            let gateway = plan::gateway(Family::of(*address)).to_string();
            let mut ip =
                json!({ "address": Prefix::host(*address).to_string(), "gateway": gateway, "interface": interface });
            if let (true, Some(ip)) = (version < CniVersion::V1_0_0, ip.as_object_mut()) {
                let family = match address {
                    IpAddr::V4(_) => "4",
                    IpAddr::V6(_) => "6",
                };
                ip.insert("version".to_owned(), json!(family));
            }
            ip
        })
    }

    fn routes(&self) -> impl Iterator<Item = Value> {
        self.pairing.default_routes().map(|family: Family| {
            let destination = Prefix::default_route(family).to_string();
            json!({ "dst": destination, "gw": plan::gateway(family).to_string() })
        })
    }
}

/// A list of the result, made if it is not there.
fn list<'a>(result: &'a mut Map<String, Value>, key: &str) -> Result<&'a mut Vec<Value>, CniError> {
    let value = result.entry(key).or_insert(Value::Null);
    if value.is_null() {
        *value = Value::Array(Vec::new());
    }
    match value {
        Value::Array(list) => Ok(list),
        other => Err(CniError::new(Code::InvalidConfig, format!("prevResult.{key}: {other} is not a list"))),
    }
}

fn mac_text(mac: [u8; 6]) -> String {
    mac.map(|byte| format!("{byte:02x}")).join(":")
}

#[cfg(test)]
mod tests;

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
    /// What was made.
    pub pairing: &'a Pairing,
    /// The MAC address of the pod's end.
    pub pod_mac: [u8; 6],
    /// CNI_NETNS, as the runtime wrote it.
    pub sandbox: &'a str,
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
            let mut ip = json!({ "address": Prefix::host(*address).to_string(), "interface": interface });
            if let (CniVersion::V0_3_1 | CniVersion::V0_4_0, Some(ip)) = (version, ip.as_object_mut()) {
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
mod tests {
    use super::*;
    use crate::plan::Sandbox;

    fn pairing() -> Pairing {
        Pairing {
            host: "mxabc".parse().unwrap(),
            pod: "eth0".parse().unwrap(),
            addresses: vec!["10.65.0.2".parse().unwrap(), "fd00::2".parse().unwrap()],
            mtu: 1_450,
            sandbox: Sandbox::default(),
        }
    }

    fn result(version: CniVersion, previous: Option<Value>) -> Value {
        let pairing = pairing();
        let attached = Attached { pairing: &pairing, pod_mac: [2, 0, 0, 0, 0, 0xa], sandbox: "/run/netns/c1" };
        let previous = previous.map(|value| value.as_object().unwrap().clone());
        serde_json::from_str(&attached.to_json(version, previous).unwrap()).unwrap()
    }

    const HOST: &str = "ee:ee:ee:ee:ee:ee";
    const POD: &str = "02:00:00:00:00:0a";

    #[test]
    fn cni_0_3_1_and_0_4_0_give_addresses_their_family() {
        for version in [CniVersion::V0_3_1, CniVersion::V0_4_0] {
            assert_eq!(
                result(version, None),
                json!({
                    "cniVersion": version,
                    "interfaces": [
                        { "name": "mxabc", "mac": HOST, "sandbox": "" },
                        { "name": "eth0", "mac": POD, "sandbox": "/run/netns/c1" },
                    ],
                    "ips": [
                        { "version": "4", "address": "10.65.0.2/32", "interface": 1 },
                        { "version": "6", "address": "fd00::2/128", "interface": 1 },
                    ],
                    "routes": [
                        { "dst": "0.0.0.0/0", "gw": "169.254.1.1" },
                        { "dst": "::/0", "gw": "fe80::ecee:eeff:feee:eeee" },
                    ],
                })
            );
        }
    }

    #[test]
    fn cni_1_0_0_has_no_family_and_1_1_0_adds_the_mtu() {
        let result_1_0 = result(CniVersion::V1_0_0, None);
        assert_eq!(result_1_0["ips"][0], json!({ "address": "10.65.0.2/32", "interface": 1 }));
        assert_eq!(result_1_0["interfaces"][1], json!({ "name": "eth0", "mac": POD, "sandbox": "/run/netns/c1" }));
        let result_1_1 = result(CniVersion::V1_1_0, None);
        assert_eq!(result_1_1["cniVersion"], "1.1.0");
        assert_eq!(result_1_1["interfaces"][0], json!({ "name": "mxabc", "mac": HOST, "sandbox": "", "mtu": 1450 }));
        assert_eq!(result_1_1["ips"], result_1_0["ips"]);
    }

    #[test]
    fn what_earlier_plugins_did_stays_and_ours_comes_behind_it() {
        let previous = json!({
            "cniVersion": "1.0.0", "dns": { "nameservers": ["10.0.0.1"] }, "vendor": 1, "routes": null,
            "interfaces": [{ "name": "lo", "sandbox": "/run/netns/c1" }],
            "ips": [{ "address": "127.0.0.1/8", "interface": 0 }],
        });
        let result = result(CniVersion::V1_0_0, Some(previous));
        assert_eq!(result["interfaces"][0]["name"], "lo");
        assert_eq!(result["interfaces"][2]["name"], "eth0");
        assert_eq!(result["ips"][0], json!({ "address": "127.0.0.1/8", "interface": 0 }));
        assert_eq!(result["ips"][1], json!({ "address": "10.65.0.2/32", "interface": 2 }));
        assert_eq!(result["routes"].as_array().unwrap().len(), 2);
        assert_eq!((&result["dns"]["nameservers"][0], &result["vendor"]), (&json!("10.0.0.1"), &json!(1)));
    }

    #[test]
    fn a_malformed_previous_result_is_code_7_and_named() {
        let pairing = pairing();
        let attached = Attached { pairing: &pairing, pod_mac: [0; 6], sandbox: "" };
        let previous = json!({ "ips": 3 }).as_object().unwrap().clone();
        let error = attached.to_json(CniVersion::V1_0_0, Some(previous)).unwrap_err();
        assert_eq!((error.code.number(), &*error.msg), (7, "prevResult.ips: 3 is not a list"));
    }
}

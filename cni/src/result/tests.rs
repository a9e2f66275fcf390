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
    let attached = Attached { pairing: &pairing, pod_mac: [2, 0, 0, 0, 0, 0xa], sandbox: "/run/netns/c1", dns: None };
    let previous = previous.map(|value| value.as_object().unwrap().clone());
    serde_json::from_str(&attached.to_json(version, previous).unwrap()).unwrap()
}

const HOST: &str = "ee:ee:ee:ee:ee:ee";
const POD: &str = "02:00:00:00:00:0a";

#[test]
fn versions_before_1_0_0_give_addresses_their_family() {
    for version in [CniVersion::V0_3_0, CniVersion::V0_3_1, CniVersion::V0_4_0] {
        assert_eq!(
            result(version, None),
            json!({
                "cniVersion": version,
                "interfaces": [
                    { "name": "mxabc", "mac": HOST, "sandbox": "" },
                    { "name": "eth0", "mac": POD, "sandbox": "/run/netns/c1" },
                ],
                "ips": [
                    { "version": "4", "address": "10.65.0.2/32", "gateway": "169.254.1.1", "interface": 1 },
                    { "version": "6", "address": "fd00::2/128", "gateway": "fe80::ecee:eeff:feee:eeee", "interface": 1 },
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
    assert_eq!(result_1_0["ips"][0], json!({ "address": "10.65.0.2/32", "gateway": "169.254.1.1", "interface": 1 }));
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
    assert_eq!(result["ips"][1], json!({ "address": "10.65.0.2/32", "gateway": "169.254.1.1", "interface": 2 }));
    assert_eq!(result["routes"].as_array().unwrap().len(), 2);
    assert_eq!((&result["dns"]["nameservers"][0], &result["vendor"]), (&json!("10.0.0.1"), &json!(1)));
}

#[test]
fn a_malformed_previous_result_is_code_7_and_named() {
    let pairing = pairing();
    let attached = Attached { pairing: &pairing, pod_mac: [0; 6], sandbox: "", dns: None };
    let previous = json!({ "ips": 3 }).as_object().unwrap().clone();
    let error = attached.to_json(CniVersion::V1_0_0, Some(previous)).unwrap_err();
    assert_eq!((error.code.number(), &*error.msg), (7, "prevResult.ips: 3 is not a list"));
}

#[test]
fn the_configurations_dns_is_in_the_result_unless_an_earlier_plugin_gave_one() {
    let (pairing, dns) = (pairing(), json!({ "nameservers": ["10.0.0.53"] }));
    let attached = Attached { pairing: &pairing, pod_mac: [2, 0, 0, 0, 0, 0xa], sandbox: "/n", dns: Some(&dns) };
    let answer = |previous: Value| {
        let previous = previous.as_object().cloned();
        let text = attached.to_json(CniVersion::V1_0_0, previous).unwrap();
        serde_json::from_str::<Value>(&text).unwrap()["dns"].clone()
    };
    assert_eq!(answer(json!({})), dns);
    assert_eq!(answer(json!({ "dns": {} })), dns);
    let earlier = json!({ "domain": "example.org" });
    assert_eq!(answer(json!({ "dns": earlier })), earlier);
}

//! This plugin under a main plugin, which wires by itself.

use std::net::IpAddr;

use types::{LinkKind, Subnet};

use super::*;

impl Bed {
    /// The configuration of a main plugin.
    fn main_plugin(&self, kind: &str, version: &str) -> Value {
        json!({
            "cniVersion": version, "name": "net", "type": kind, "ipMasq": true, "bridge": "cni0", "isGateway": true,
            "mtu": "the main plugin's business", "dns": 7, "runDir": 3, "policy": { "a": 1 },
            "runtimeConfig": { "mac": "02:00:00:00:00:01" },
            "args": { "cni": { "mac": "02:00:00:00:00:01", "labels": { "app": "web" } } },
            "ipam": { "type": "manx", "runDir": self.run_dir.path() },
        })
    }

    /// Whether the kernel of neither side was asked to change anything.
    fn is_untouched(&self) -> bool {
        let changes = |kernel: &FakeKernel| kernel.count(Operation::CreateVeth) + kernel.count(Operation::ChangeRoutes);
        changes(&self.host) + changes(&self.pod) == 0
    }
}

fn leased() -> Wire {
    let subnet = |length, gateway: &str| Subnet { length, gateway: gateway.parse::<IpAddr>().unwrap() };
    Wire { subnets: vec![subnet(31, "10.65.0.3"), subnet(127, "fd00::3")], ..wire() }
}

fn gives() -> Vec<Play> {
    vec![Play::Say(Reply::Wire(leased())), Play::Say(Reply::Done)]
}

#[test]
fn add_gives_addresses_with_gateways_and_wires_nothing() {
    for (kind, link) in [("ptp", LinkKind::PointToPoint), ("bridge", LinkKind::Shared), ("macvlan", LinkKind::Shared)] {
        let bed = Bed::new();
        let agent = bed.agent(vec![gives()]);
        let outcome = bed.call("ADD", &bed.main_plugin(kind, "1.0.0"));
        succeeded(&outcome);
        let result: Value = serde_json::from_str(&outcome.stdout).unwrap();
        let expected = json!({
            "cniVersion": "1.0.0",
            "ips": [
                { "address": "10.65.0.2/31", "gateway": "10.65.0.3" },
                { "address": "fd00::2/127", "gateway": "fd00::3" },
            ],
            "routes": [{ "dst": "0.0.0.0/0", "gw": "10.65.0.3" }, { "dst": "::/0", "gw": "fd00::3" }],
        });
        assert_eq!(result, expected);
        assert!(bed.is_untouched());
        let heard = agent.heard();
        let [Request::Attach(attach), Request::Wired] = heard[0].as_slice() else { panic!("{heard:?}") };
        assert_eq!((attach.addresses_for, attach.maps_host_ports), (Some(link), false), "{kind}");
        assert_eq!(attach.labels, BTreeMap::from([("app".to_owned(), "web".to_owned())]));
    }
}

#[test]
fn an_old_version_has_families_and_routes_are_those_of_the_section() {
    let bed = Bed::new();
    let _agent = bed.agent(vec![gives(), gives()]);
    let mut config = bed.main_plugin("ptp", "0.3.1");
    config["ipam"]["routes"] = json!([{ "dst": "10.0.0.0/8" }, { "dst": "192.0.2.0/24", "gw": "10.65.0.9" }]);
    let result: Value = serde_json::from_str(&bed.call("ADD", &config).stdout).unwrap();
    assert_eq!(result["ips"][1], json!({ "address": "fd00::2/127", "gateway": "fd00::3", "version": "6" }));
    let routes = json!([{ "dst": "10.0.0.0/8", "gw": "10.65.0.3" }, { "dst": "192.0.2.0/24", "gw": "10.65.0.9" }]);
    assert_eq!(result["routes"], routes);
    config["ipam"]["routes"] = json!([]);
    let result: Value = serde_json::from_str(&bed.call("ADD", &config).stdout).unwrap();
    assert_eq!(result["routes"], json!([]));
}

#[test]
fn what_the_section_asks_for_in_vain_is_refused_by_name_and_what_stands_outside_of_it_is_not() {
    let bed = Bed::new();
    let with = |key: &str, value: Value| {
        let mut config = bed.main_plugin("bridge", "1.0.0");
        config["ipam"][key] = value;
        config
    };
    let ips = |mut config: Value| {
        config["runtimeConfig"]["ips"] = json!(["10.65.0.9/24"]);
        config
    };
    for (config, code, told) in [
        (with("ranges", json!([[{ "subnet": "10.0.0.0/24" }]])), 2, "ipam.ranges="),
        (with("subnet", json!("10.0.0.0/24")), 2, "ipam.subnet=\"10.0.0.0/24\" is not supported: which pools"),
        (with("ipv4_pools", json!(["a"])), 2, "ipam.ipv4_pools="),
        (with("gateway", json!("10.0.0.1")), 2, "ipam.gateway=\"10.0.0.1\" is not supported"),
        (with("routes", json!({})), 7, "ipam.routes: {} is not a list"),
        (with("routes", json!([{ "gw": "10.0.0.1" }])), 7, "ipam.routes: {\"gw\":\"10.0.0.1\"} has no dst"),
        (with("routes", json!([{ "dst": "::/0", "gw": "10.0.0.1" }])), 7, "ipam.routes: {"),
        (with("routes", json!([{ "dst": "::/0", "mtu": 1 }])), 7, "ipam.routes: {"),
        (with("runDir", json!("run")), 7, "runDir: \"run\" is not an absolute path"),
        (ips(with("x", json!(0))), 2, "runtimeConfig.ips=[\"10.65.0.9/24\"] is not supported"),
    ] {
        let (found, msg) = error(&bed.call("ADD", &config));
        assert!(found == code && msg.starts_with(told), "{found}: {msg}");
    }
    let mut own = bed.config("1.0.0");
    own["ipam"] = json!({ "type": "host-local" });
    let (code, msg) = error(&bed.call("ADD", &own));
    assert!(code == 2 && msg.starts_with("ipam.type=\"host-local\" is not supported"), "{msg}");
}

#[test]
fn an_agent_that_knows_no_subnets_is_refused_in_words() {
    let bed = Bed::new();
    let _agent = bed.agent(vec![accepts_add()]);
    let (code, msg) = error(&bed.call("ADD", &bed.main_plugin("ptp", "1.0.0")));
    assert!(code == 101 && msg.contains("it is older than the CNI plugin"), "{msg}");
}

#[test]
fn del_is_repeatable_and_leaves_a_tombstone_where_no_agent_answers_whatever_else_is_configured() {
    let bed = Bed::new();
    let agent = bed.agent(vec![vec![park(), Play::Say(Reply::Done)], vec![park(), Play::Say(Reply::Done)]]);
    let mut config = bed.main_plugin("ptp", "0.2.0");
    config["ipam"]["routes"] = json!("nonsense");
    for _ in 0..2 {
        succeeded(&bed.call("DEL", &config));
    }
    assert_eq!(bed.tombstone(), None);
    assert_eq!(agent.heard()[1][1], Request::Parked);
    succeeded(&bed.call("DEL", &config));
    assert_eq!(bed.tombstone().as_deref(), Some("net/c1/eth0"));
    assert!(bed.is_untouched());
}

#[test]
fn check_compares_what_is_held_with_the_result_and_asks_no_kernel() {
    let bed = Bed::new();
    let mut config = bed.main_plugin("ptp", "1.0.0");
    let (code, msg) = error(&bed.call("CHECK", &config));
    assert!(code == 7 && msg.starts_with("prevResult is missing"), "{msg}");
    config["prevResult"] = json!({ "ips": [{ "address": "10.65.0.2/31" }, { "address": "fd00::2/127" }] });
    let says = || vec![Play::Say(Reply::Wire(leased()))];
    let _agent = bed.agent(vec![says(), says(), vec![refuses(100, "net/c1/eth0 holds no addresses on this node")]]);
    succeeded(&bed.call("CHECK", &config));
    config["prevResult"]["ips"][1]["address"] = json!("fd00::9/127");
    let (code, msg) = error(&bed.call("CHECK", &config));
    assert!(code == 104 && msg.contains("it holds fd00::2, which prevResult does not have"), "{msg}");
    let (code, msg) = error(&bed.call("CHECK", &config));
    assert!(code == 104 && msg.contains("holds no addresses"), "{msg}");
    assert_eq!(bed.pod.calls(), []);
}

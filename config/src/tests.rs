use std::collections::BTreeMap;
use std::fs;
use std::time::Duration;

use serde_json::{Value, json};
use types::config::{Config, DetectionMethod, KernelMarks};
use types::host_ports::PortRange;
use types::{Family, Prefix};

use super::*;

fn config(file: Value, environment: &[(&str, &str)]) -> Result<Config, String> {
    let environment: BTreeMap<_, _> = environment.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect();
    assemble(&file, &environment, "Node-A").map_err(|error| error.to_string())
}

#[test]
fn an_empty_configuration_is_one_node_alone_with_the_documented_defaults() {
    let config = config(Value::Null, &[]).unwrap();
    assert_eq!(config.node_name.as_str(), "node-a");
    assert_eq!(config.etcd, None);
    assert_eq!(config.restart_time, Duration::from_secs(120));
    assert_eq!(config.kernel, KernelMarks::default());
}

#[test]
fn every_key_has_a_variable_which_wins_over_the_file() {
    assert_eq!(variable("etcd.endpoints"), "MANX_ETCD_ENDPOINTS");
    assert_eq!(variable("bgp.listenPort"), "MANX_BGP_LISTEN_PORT");
    let vxlan = "MANX_POLICY_ALLOW_VXLAN_PACKETS_FROM_WORKLOADS";
    assert_eq!(variable("policy.allowVXLANPacketsFromWorkloads"), vxlan);
    let file = json!({"etcd": {"endpoints": ["http://192.0.2.1:2379"]}, "mtu": 1500, "initialPools": [{"cidr": "10.65.0.0/16", "blockSize": 28}]});
    let environment = [
        ("MANX_ETCD_ENDPOINTS", "http://192.0.2.2:2379, http://192.0.2.3:2379"),
        ("MANX_INITIAL_POOLS", "10.66.0.0/16=20,fd00:66::/64"),
        ("MANX_BGP_IMPORT_PREFIXES", "0.0.0.0/0"),
        ("MANX_ADDRESS_DETECTION_IPV4", "interface=eth1"),
        ("MANX_COOL_DOWN", "500ms"),
        ("MANX_HOST_PORTS_RANGE", "20000-20009"),
        ("MANX_ETCD_SERVICE_HOST", "set by Kubernetes"),
    ];
    let config = config(file, &environment).unwrap();
    assert_eq!(config.etcd.unwrap().endpoints().len(), 2);
    assert_eq!(config.initial_pools[0].block_len().unwrap().len(), 20);
    assert_eq!(config.initial_pools[1].block_len().unwrap().len(), 122);
    assert_eq!(config.import_prefixes, [Prefix::default_route(Family::Ipv4)]);
    assert_eq!(config.address_detection.ipv4, DetectionMethod::Interface("eth1".parse().unwrap()));
    assert_eq!((config.mtu, config.cool_down), (Some(1500), Duration::from_millis(500)));
    assert_eq!(config.host_ports, PortRange::new(20_000, 20_009));
}

#[test]
fn every_bad_setting_is_an_error_that_names_its_key() {
    for (file, culprit) in [
        (json!({"etdc": {"endpoints": []}}), "etdc"),
        (json!({"etcd": {"endpoint": []}}), "etcd.endpoint"),
        (json!({"etcd": {"endpoints": ["192.0.2.1:2379"]}}), "etcd.endpoints: \"192.0.2.1:2379\""),
        (json!({"etcd": {"ca": "/x"}}), "etcd.ca"),
        (json!({"etcd": {"endpoints": ["http://a:1"], "cert": "/x"}}), "etcd.cert"),
        (json!({"etcd": {"endpoints": ["http://a:1"], "username": "u"}}), "etcd.username"),
        (json!({"etcd": {"endpoints": ["http://a:1"], "prefix": "x"}}), "etcd.prefix"),
        (json!({"nodeName": "Not A Name"}), "nodeName"),
        (json!({"addressDetection": {"ipv4": "guess"}}), "addressDetection.ipv4"),
        (json!({"bgp": {"listenPort": 0}}), "bgp.listenPort"),
        (json!({"bgp": {"listenPort": 65536}}), "bgp.listenPort"),
        (json!({"bgp": {"importPrefixes": ["10.0.0.1/8"]}}), "bgp.importPrefixes"),
        (json!({"bgp": {"restartTime": "2h"}}), "bgp.restartTime"),
        (json!({"bgp": {"restartTime": 120}}), "bgp.restartTime"),
        (
            json!({"initialPools": [{"cidr": "10.0.0.0/28", "blockSize": 26}]}),
            "initialPools: blockSize 26 does not fit",
        ),
        (json!({"initialPools": [{"cidr": "10.0.0.0/16", "size": 26}]}), "initialPools: size"),
        (json!({"mtu": 576}), "mtu"),
        (json!({"reclaimGrace": "0s"}), "reclaimGrace"),
        (json!({"coolDown": "soon"}), "coolDown"),
        (
            json!({"hostPorts": {"range": "80-90"}}),
            "hostPorts.range: \"80-90\": not a range FIRST-LAST of ports of 1024 to 65535",
        ),
        (json!({"hostPorts": {"range": "20000"}}), "hostPorts.range"),
        (json!({"healthAddress": "9179"}), "healthAddress"),
        (json!({"kernel": {"linkGroup": 0}}), "kernel.linkGroup"),
        (json!({"kernel": {"protocols": [77, 77]}}), "kernel.protocols"),
        (json!({"kernel": {"markMask": "0x4000"}}), "kernel.markMask"),
        (json!(["x"]), "must be a mapping"),
    ] {
        let error = config(file.clone(), &[]).unwrap_err();
        assert!(error.contains(culprit), "{culprit} in {error}");
    }
    let error = config(Value::Null, &[("MANX_MTU", "big")]).unwrap_err();
    assert!(error.contains("configuration key mtu: \"big\""), "{error}");
}

/// What is accepted and refused, spelling by spelling: a change of how settings are read shows here.
#[test]
fn spellings_of_durations() {
    let read = |text: &str| config(Value::Null, &[("MANX_COOL_DOWN", text)]).map(|config| config.cool_down);
    for (text, milliseconds) in [
        ("500ms", 500),
        ("0s", 0),
        ("0ms", 0),
        ("90s", 90_000),
        ("007s", 7_000),
        ("120m", 7_200_000),
        ("24h", 86_400_000),
        ("100000h", 360_000_000_000),
    ] {
        assert_eq!(read(text), Ok(Duration::from_millis(milliseconds)), "{text}");
    }
    for text in [
        "90",
        "0",
        "s",
        "soon",
        "1.5s",
        "-1s",
        "+1s",
        "1d",
        "1w",
        "30 s",
        " 30s",
        "30s ",
        "1H",
        "30sec",
        "4294967296h",
        "1us",
    ] {
        let words = format!("configuration key coolDown: {text:?} is not a duration such as 500ms, 30s, 2m or 24h");
        assert_eq!(read(text), Err(words));
    }
}

#[test]
fn spellings_of_everything_else() {
    let shown = |file: Value, environment: &[(&str, &str)]| match config(file, environment) {
        Ok(config) => format!(
            "{} {:?} {:?} {:#x} {} {} {:?} {:?} {:?}",
            config.node_name,
            config.mtu,
            config.kernel.link_group,
            config.kernel.mark_mask,
            config.policy.cut_connections,
            config.policy.log_group,
            config.policy.iptables,
            config.kubernetes,
            config.cni_conf_dir,
        ),
        Err(error) => error,
    };
    let defaults = "node-a None 77 0xff0000 true 77 None None None";
    let etcd = |settings: Value| json!({ "etcd": settings });
    for (file, expected) in [
        (json!({}), defaults),
        (json!({"etcd": null, "mtu": null, "bgp": {"listenPort": null}}), defaults),
        (json!({"nodeName": 7, "mtu": "1500"}), "7 Some(1500) 77 0xff0000 true 77 None None None"),
        (json!({"nodeName": " b "}), "b None 77 0xff0000 true 77 None None None"),
        (
            json!({"kernel": {"markMask": 65280}}),
            "configuration key kernel.markMask: \"65280\" is not a mask of 8 to 14 bits next to each other that keep clear of 0x2000, 0x4000 and 0x8000",
        ),
        (json!({"kernel": {"markMask": 66846720, "linkGroup": "5"}}), "node-a None 5 0x3fc0000 true 77 None None None"),
        (
            json!({"policy": {"cutConnections": false, "iptables": "NFT"}}),
            "node-a None 77 0xff0000 false 77 Some(Nft) None None",
        ),
        (
            json!({"policy": {"cutConnections": "yes"}}),
            "configuration key policy.cutConnections: \"yes\": provided string was not `true` or `false`",
        ),
        (
            json!({"policy": {"iptables": "auto", "endpointToHost": "REJECT"}}),
            "configuration key policy.endpointToHost: \"REJECT\": not accept, policed or drop",
        ),
        (
            json!({"policy": {"logGroup": 65536}}),
            "configuration key policy.logGroup: \"65536\": number too large to fit in target type",
        ),
        (json!({"kubernetes": "none", "cniConfDir": ""}), defaults),
        (
            json!({"kubernetes": "in-cluster", "cniConfDir": "/x"}),
            "node-a None 77 0xff0000 true 77 None Some(InCluster) Some(\"/x\")",
        ),
        (json!({"kubernetes": "/k"}), "node-a None 77 0xff0000 true 77 None Some(Kubeconfig(\"/k\")) None"),
        (json!({"mtu": [1500]}), "configuration key mtu: must be a single value"),
        (json!({"mtu": 1500.0}), "configuration key mtu: \"1500.0\": invalid digit found in string"),
        (json!({"mtu": true}), "configuration key mtu: \"true\": invalid digit found in string"),
        (json!({"nodeName": {"x": 1}}), "configuration key nodeName: must be a single value"),
        (json!({"bgp": {"importPrefixes": "10.0.0.0/8, 10.1.0.0/16"}}), defaults),
        (
            json!({"bgp": {"importPrefixes": [["10.0.0.0/8"]]}}),
            "configuration key bgp.importPrefixes: must be a list of texts",
        ),
        (json!({"bgp": {"importPrefixes": {"a": 1}}}), "configuration key bgp.importPrefixes: must be a single value"),
        (json!({"kernel": {"protocols": "80,81"}}), defaults),
        (
            json!({"kernel": {"protocols": [4, 81]}}),
            "configuration key kernel.protocols: must be two different numbers of 5 to 255 (local, bgp)",
        ),
        (
            json!({"kernel": {"protocols": 80}}),
            "configuration key kernel.protocols: must be two different numbers of 5 to 255 (local, bgp)",
        ),
        (
            json!({"kernel": {"protocols": [80, 256]}}),
            "configuration key kernel.protocols: \"256\": number too large to fit in target type",
        ),
        (
            json!({"initialPools": "10.0.0.0/16=x"}),
            "configuration key initialPools: \"10.0.0.0/16=x\" is not CIDR=BLOCKSIZE",
        ),
        (json!({"initialPools": [{"blockSize": 26}]}), "configuration key initialPools: every pool needs a cidr"),
        (
            json!({"initialPools": [{"cidr": "10.0.0.0/16", "blockSize": "26"}]}),
            "configuration key initialPools: blockSize \"26\"",
        ),
        (json!({"bgp": {"listenport": 179}}), "configuration key bgp.listenport: does not exist"),
        (json!({"bgp.listenPort": "1790"}), defaults),
        (
            json!({"addressDetection": {"ipv4": "kubernetes-internal-ip"}}),
            "configuration key addressDetection: kubernetes-internal-ip needs the key kubernetes",
        ),
        (etcd(json!({"endpoints": []})), "configuration key etcd.endpoints: is set, but etcd.endpoints is not"),
        (etcd(json!({"endpoints": null})), "configuration key etcd.endpoints: is set, but etcd.endpoints is not"),
        (etcd(json!({"key": "/k"})), "configuration key etcd.key: is set, but etcd.endpoints is not"),
        (
            etcd(json!({"endpoints": "http://a:1", "key": "/k"})),
            "configuration key etcd.key: goes with etcd.cert, which is not set",
        ),
        (
            etcd(json!({"endpoints": "http://a:1", "password": 7})),
            "configuration key etcd.password: goes with etcd.username, which is not set",
        ),
        (
            etcd(json!({"endpoints": "http://"})),
            "configuration key etcd.endpoints: \"http://\" is not a URL such as https://192.0.2.1:2379",
        ),
        (
            etcd(json!({"endpoints": "http://a:1", "prefix": "/x"})),
            "configuration key etcd.prefix: must begin and end with '/'",
        ),
        (etcd(json!({"endpoints": "http://a:1, http://b:1", "prefix": "/x/y/"})), defaults),
    ] {
        assert_eq!(shown(file.clone(), &[]), expected, "{file}");
    }
    for (variable, value, expected) in [
        ("MANX_MTU", "", defaults),
        ("MANX_MTU", " 1500 ", "node-a Some(1500) 77 0xff0000 true 77 None None None"),
        ("MANX_MTU", "576", "configuration key mtu: must be 1280 to 65535 (RFC 8200 section 5)"),
        ("MANX_NODE_NAME", "123", "123 None 77 0xff0000 true 77 None None None"),
        ("MANX_KERNEL_MARK_MASK", "0x03fc0000", "node-a None 77 0x3fc0000 true 77 None None None"),
        (
            "MANX_KERNEL_MARK_MASK",
            "0x000f0000",
            "configuration key kernel.markMask: \"0x000f0000\" is not a mask of 8 to 14 bits next to each other that keep clear of 0x2000, 0x4000 and 0x8000",
        ),
        ("MANX_RECLAIM_GRACE", "999ms", "configuration key reclaimGrace: must be at least 1s"),
        (
            "MANX_BGP_RESTART_TIME",
            "4096s",
            "configuration key bgp.restartTime: must be 1s to 4095s (RFC 4724 section 3)",
        ),
        ("MANX_BGP_RESTART_TIME", "4095s", defaults),
        ("MANX_ETCD_CA", "/ca", "configuration key etcd.ca: is set, but etcd.endpoints is not"),
        ("MANX_ETCD_ENDPOINTS", " , ", "configuration key etcd.endpoints: is set, but etcd.endpoints is not"),
        ("MANX_NO_SUCH_KEY", "x", defaults),
    ] {
        assert_eq!(shown(Value::Null, &[(variable, value)]), expected, "{variable}={value}");
    }
    let etcd = |variables: &[(&str, &str)]| config(Value::Null, variables).map(|config| config.etcd.unwrap());
    let user =
        etcd(&[("MANX_ETCD_ENDPOINTS", "http://a:1"), ("MANX_ETCD_USERNAME", "1"), ("MANX_ETCD_PASSWORD", " 0x7 ")]);
    assert_eq!(user.unwrap().user.unwrap().password.reveal(), " 0x7 ");
}

#[test]
fn a_setting_that_its_user_would_refuse_at_start_is_refused_here_by_its_key() {
    let etcd = |settings: Value| json!({ "etcd": settings });
    for (file, expected) in [
        // felix took 4 to 14 bits, the agent 8 to 14.
        (
            json!({"kernel": {"markMask": "0x007f0000"}}),
            "kernel.markMask: \"0x007f0000\" is not a mask of 8 to 14 bits next to each other that keep clear of 0x2000, \
             0x4000 and 0x8000",
        ),
        (etcd(json!({"endpoints": ["https://a:1"]})), "etcd.endpoints: https://a:1 needs etcd.ca"),
        (
            etcd(json!({"endpoints": ["http://a:1"], "ca": "/ca"})),
            "etcd.endpoints: http://a:1 is not https://, but etcd.ca is set",
        ),
        (etcd(json!({"endpoints": ["http://a:1"], "cert": "/c", "key": "/k"})), "etcd.ca: missing beside etcd.cert"),
        (
            etcd(json!({"endpoints": ["http://a:1"], "prefix": "/"})),
            "etcd.prefix: \"/\" is not a prefix such as /manx/v1/",
        ),
    ] {
        assert_eq!(config(file, &[]), Err(format!("configuration key {expected}")));
    }
}

#[test]
fn a_group_is_a_mapping_and_nothing_else() {
    for (file, culprit) in [
        (json!({"etcd": ["http://a:1"]}), "etcd"),
        (json!({"etcd": 5}), "etcd"),
        (json!({"bgp": {"listenPort": 179, "peers": []}}), "bgp.peers"),
        (json!({"": {"mtu": 1500}}), ""),
        (json!({"bgp.": {"listenPort": 179}}), "bgp."),
        (json!({"mtu.x": 1500}), "mtu"),
    ] {
        let error = config(file.clone(), &[]).unwrap_err();
        assert!(error.starts_with(&format!("configuration key {culprit}")), "{culprit} in {error}");
    }
    assert_eq!(config(json!({"bgp.listenPort": 1790}), &[]).unwrap().listen_port, Some(1790));
}

#[test]
fn the_file_need_not_be_there_and_an_error_begins_with_its_path() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    assert_eq!(read_yaml(&path).unwrap(), Value::Null);
    fs::write(&path, "policy: {cutConnections: yes}\nkernel: {markMask: 0x00ff0000}\n").unwrap();
    let file = read_yaml(&path).unwrap();
    assert_eq!(file, json!({"policy": {"cutConnections": "yes"}, "kernel": {"markMask": 0x00ff_0000}}));
    let words = |error: &dyn std::error::Error| format!("{error}: {}", error.source().unwrap());
    let error = read(&path, "node1").unwrap_err();
    let said = "configuration key policy.cutConnections: \"yes\": provided string was not `true` or `false`";
    assert_eq!(words(&error), format!("{}: {said}", path.display()));
    fs::write(&path, "mtu: [").unwrap();
    let error = read(&path, "node1").unwrap_err();
    assert!(matches!(error, ReadError::Yaml { .. }) && error.to_string() == path.display().to_string(), "{error:?}");
    let error = read(folder.path(), "node1").unwrap_err();
    assert!(matches!(error, ReadError::File { .. }), "{error:?}");
}

#[test]
fn who_does_without_etcd_is_not_kept_by_its_settings_and_hears_what_is_wrong_with_them() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("agent.yaml");
    let read = |text: &str| {
        fs::write(&path, text).unwrap();
        read_without_etcd(&path, "node-a")
    };
    let (config, fault) = read("runDir: /x\netcd: {endpoints: [\"https://a:1\"]}\n").unwrap();
    assert_eq!((config.etcd, config.run_dir.as_path()), (None, Path::new("/x")));
    let Some(ReadError::Setting { source, .. }) = fault else { panic!("nothing is wrong") };
    assert_eq!(source.key, "etcd.endpoints");
    let (config, fault) = read("etcd: {endpoints: [\"http://a:1\"]}\n").unwrap();
    assert!(config.etcd.is_some() && fault.is_none());
    let both = read("mtu: x\netcd: {endpoints: [\"https://a:1\"]}\n");
    assert!(matches!(both, Err(ReadError::Setting { source, .. }) if source.key == "mtu"));
}
